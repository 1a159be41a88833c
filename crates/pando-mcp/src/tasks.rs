//! Operations as tasks: the extension `io.modelcontextprotocol/tasks`. A task is an operation, and
//! its id the operation's, so a task is as durable as an operation: recorded before anything is
//! done, and there after a crash of the daemon, for whoever asks. Nothing is kept here.
//!
//! ```text
//!  queued, running, undoing ─▶ working        succeeded ─▶ completed
//!  cancelled ────────────────▶ cancelled      failed, stuck ─▶ completed, with `isError`
//! ```
//!
//! The protocol's `failed` is for calls that were no calls; what failed in doing is a result.

use pando_api::{ApiError, Call, OperationView};
use pando_model::ErrorCode;
use pando_model::operation::OperationStatus;
use rmcp::RoleServer;
use rmcp::model::{
    DetailedTask, ErrorCode as RpcErrorCode, ErrorData, Task, TaskPayload, TaskStatus,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use crate::calls::Calls;
use crate::limits::{TASK_POLL_MS, TASK_TTL_MS};
use crate::requester::has_no_sessions;
use crate::words::result;

/// Refuses requests of earlier revisions, whose tasks were something else.
///
/// # Errors
/// `-32601`.
pub fn check(context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
    if context.protocol_version().is_some_and(|own| has_no_sessions(&own)) {
        return Ok(());
    }
    let message = "tasks are followed under 2026-07-28 and later; use operation_wait";
    Err(ErrorData::new(RpcErrorCode::METHOD_NOT_FOUND, message, None))
}

const fn status(view: &OperationView) -> TaskStatus {
    match view.status {
        OperationStatus::Queued | OperationStatus::Running | OperationStatus::Undoing => {
            TaskStatus::Working
        }
        OperationStatus::Succeeded | OperationStatus::Failed | OperationStatus::Stuck => {
            TaskStatus::Completed
        }
        OperationStatus::Cancelled => TaskStatus::Cancelled,
    }
}

/// Returns the task that an operation is.
pub fn task(view: &OperationView) -> Task {
    let (created, updated) = (view.created_at.to_string(), view.updated_at.to_string());
    let message = if view.progress.message.is_empty() {
        view.verb.clone()
    } else {
        format!("{}: {}", view.verb, view.progress.message)
    };
    Task::new(view.operation_id.as_str(), status(view), created, updated)
        .with_status_message(message)
        .with_ttl_ms(TASK_TTL_MS)
        .with_poll_interval_ms(TASK_POLL_MS)
}

/// Returns a task with its result, once there is one.
///
/// # Errors
/// `invalid_parameter` for what is no operation's id, `not_found`.
pub async fn get(calls: &Calls, id: &str) -> Result<DetailedTask, ApiError> {
    let view = calls.operation(id).await?;
    let task = task(&view);
    let payload = match task.status {
        TaskStatus::Completed => {
            let answer = calls.ended(view).await;
            match serde_json::to_value(result(&answer)) {
                Ok(Value::Object(result)) => TaskPayload::Completed { result },
                _ => {
                    let message = "the result cannot be written";
                    return Err(ApiError::new(ErrorCode::Internal, message));
                }
            }
        }
        TaskStatus::Cancelled => TaskPayload::Cancelled,
        _ => TaskPayload::Working,
    };
    Ok(DetailedTask::new(task, payload))
}

/// Asks an operation to end, if it has not ended.
///
/// # Errors
/// `invalid_parameter` for what is no operation's id, `not_found`, and `forbidden` where nothing
/// may be changed.
pub async fn cancel(calls: &Calls, id: &str) -> Result<(), ApiError> {
    let call = Call::parse("operation_cancel", json!({"id": id}))?;
    calls.profile.check(call.verb())?;
    // To one that is stuck, cancelling means repairing.
    if calls.operation(id).await?.status.is_final() {
        return Ok(());
    }
    calls.control.call(&calls.caller(), call).await.map(drop)
}
