//! The error that every front end shows, and the envelope around every result.

use pando_model::{ErrorCode, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a call failed, with what to do about it. *What happened* comes from the crate where it
/// happened; code, hint and remedy are added where it becomes an answer.
#[derive(
    Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, schemars::JsonSchema,
)]
#[error("{message}")]
pub struct ApiError {
    /// The stable name of what went wrong.
    pub code: ErrorCode,
    /// What failed and why, naming the object and the value.
    pub message: String,
    /// The exact next call or command that helps, if one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same call may succeed later, or after the remedy.
    pub recoverable: bool,
    /// What repairs the state that this failure left or met, if it needs repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The object that it is about: an address, an id, a parameter's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The operation that failed, for `operation_get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
}

impl ApiError {
    /// Returns an error with its code's usual `recoverable`, and nothing else.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            recoverable: code.recoverable(),
            remedy: None,
            subject: None,
            operation: None,
        }
    }

    /// Returns an `invalid_parameter` error about one parameter.
    pub fn parameter(name: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidParameter, message).subject(name)
    }

    /// Adds the exact next call or command.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what repairs the state.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds what it is about.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Adds the operation that failed.
    #[must_use]
    pub fn operation(mut self, operation: OperationId) -> Self {
        self.operation = Some(operation);
        self
    }
}

/// Around every answer, on every front end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Envelope {
    /// Whether the call did what it was asked.
    pub success: bool,
    /// The verb's result object, on success.
    pub result: Option<Value>,
    /// Why not, otherwise.
    pub error: Option<ApiError>,
}

impl From<Result<Value, ApiError>> for Envelope {
    fn from(outcome: Result<Value, ApiError>) -> Self {
        match outcome {
            Ok(result) => Self { success: true, result: Some(result), error: None },
            Err(error) => Self { success: false, result: None, error: Some(error) },
        }
    }
}

impl From<Envelope> for Result<Value, ApiError> {
    fn from(envelope: Envelope) -> Self {
        match envelope {
            Envelope { error: Some(error), .. } => Err(error),
            Envelope { success: true, result, .. } => Ok(result.unwrap_or(Value::Null)),
            Envelope { .. } => {
                Err(ApiError::new(ErrorCode::Internal, "the answer says neither result nor error"))
            }
        }
    }
}

/// Returns what a code means: its one line in the reference.
pub fn describe(code: ErrorCode) -> Option<String> {
    let schema = schemars::schema_for!(ErrorCode);
    let documented = schema.get("oneOf").and_then(Value::as_array)?;
    let entry = documented
        .iter()
        .find(|entry| entry.get("const").and_then(Value::as_str) == Some(code.as_str()))?;
    entry.get("description").and_then(Value::as_str).map(str::to_owned)
}
