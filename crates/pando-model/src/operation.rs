//! Operations: the durable record of one mutating request, made of steps.
//!
//! ```text
//!   queued ─▶ running ─▶ succeeded
//!                │  └──▶ undoing ─▶ failed | cancelled     nothing changed
//!                │           └────▶ stuck                  with the command that repairs it
//!                └─ crash ─▶ (recovery: finish or undo)
//! ```

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, OperationId};

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// Recorded; waits for what it needs.
    Queued,
    /// Doing its steps.
    Running,
    /// Undoing the steps that it did.
    Undoing,
    /// Done.
    Succeeded,
    /// Not done, and nothing changed.
    Failed,
    /// Not done because it was cancelled, and nothing changed.
    Cancelled,
    /// Neither done nor undone.
    Stuck,
}

impl OperationStatus {
    /// Returns whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Stuck)
    }
}

/// Where a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// Begun; after a crash it may or may not have happened.
    Started,
    /// Happened.
    Done,
    /// Undone.
    Undone,
}

/// The record of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Unique in the operation.
    pub name: String,
    /// Where it is.
    pub status: StepStatus,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// How far an operation is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Progress {
    /// What is being done now.
    pub message: String,
    /// Units done.
    pub done: u64,
    /// Units in all; 0 when unknown.
    pub total: u64,
}

/// The record of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The verb that was called.
    pub verb: String,
    /// The parameters as they were accepted.
    pub params: serde_json::Value,
    /// What the steps know of one another: ids chosen, results; written with every step.
    pub memo: serde_json::Value,
    /// What it stood on when it got stuck: it is not tried again on anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ground: Option<serde_json::Value>,
    /// Where it is.
    pub status: OperationStatus,
    /// Its steps.
    pub steps: Vec<StepRecord>,
    /// How far it is.
    pub progress: Progress,
    /// The result, once it succeeded.
    pub result: Option<serde_json::Value>,
    /// The error envelope, once it failed or stuck.
    pub error: Option<serde_json::Value>,
    /// Whether somebody asked for it to end.
    pub cancel_requested: bool,
    /// Who asked for it.
    pub actor: String,
    /// The key under which a repeated request finds it again.
    pub idempotency_key: Option<String>,
    /// The cluster that it works on, if any.
    pub cluster: Option<ClusterId>,
    /// When it must have ended.
    pub deadline_at: Timestamp,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}
