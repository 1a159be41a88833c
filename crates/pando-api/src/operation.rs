//! Operations: what every mutating verb is recorded as.

use jiff::Timestamp;
use pando_model::operation::{Operation, OperationStatus, Progress, StepStatus};
use pando_model::{ClusterId, OperationId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ApiError;
use crate::page::{Page, default_limit};

/// One step of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub status: StepStatus,
    /// How long it took, in milliseconds, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// One operation as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationView {
    /// Its id.
    pub operation_id: OperationId,
    /// The verb that was called.
    pub verb: String,
    /// Where it is.
    pub status: OperationStatus,
    /// How far it is.
    pub progress: Progress,
    /// Its steps.
    pub steps: Vec<StepView>,
    /// The verb's result, once it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why not, once it failed or is stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// Whether somebody asked for it to end.
    pub cancel_requested: bool,
    /// Who asked for it.
    pub actor: String,
    /// The cluster that it works on, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it must have ended.
    pub deadline_at: Timestamp,
}

impl From<&Operation> for OperationView {
    fn from(operation: &Operation) -> Self {
        let steps = operation.steps.iter().map(|step| StepView {
            name: step.name.clone(),
            status: step.status,
            duration_ms: step.started_at.zip(step.ended_at).map(|(from, to)| {
                u64::try_from(to.as_millisecond() - from.as_millisecond()).unwrap_or(0)
            }),
        });
        let error = operation.error.clone().map(|error| {
            serde_json::from_value(error).unwrap_or_else(|source| {
                ApiError::new(
                    pando_model::ErrorCode::Internal,
                    format!("the operation's error is unreadable: {source}"),
                )
            })
        });
        Self {
            operation_id: operation.id.clone(),
            verb: operation.verb.clone(),
            status: operation.status,
            progress: operation.progress.clone(),
            steps: steps.collect(),
            result: operation.result.clone(),
            error,
            cancel_requested: operation.cancel_requested,
            actor: operation.actor.clone(),
            cluster_id: operation.cluster.clone(),
            created_at: operation.created_at,
            updated_at: operation.updated_at,
            deadline_at: operation.deadline_at,
        }
    }
}

/// List operations, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationListParams {
    /// Only those with this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<OperationStatus>,
    /// Only those of this verb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// Most operations to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Some operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationListResult {
    /// Newest first.
    pub operations: Vec<OperationView>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}

/// Show one operation with its steps, and its result or error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationGetParams {
    /// The operation.
    pub id: OperationId,
}

/// Wait until an operation has ended, and show it. Returns it unfinished (no error) when the time
/// is up; call again to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationWaitParams {
    /// The operation.
    pub id: OperationId,
    /// How long to wait, in seconds.
    #[serde(default = "wait_timeout")]
    #[schemars(range(min = 0, max = crate::limits::MAX_WAIT_S))]
    pub timeout_s: u64,
}

const fn wait_timeout() -> u64 {
    60
}

/// Ask an operation to end. It undoes what it did, unless it is past the point where only going
/// forward is safe; the answer is the operation as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationCancelParams {
    /// The operation.
    pub id: OperationId,
}
