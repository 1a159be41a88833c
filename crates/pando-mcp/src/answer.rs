//! What every call is answered with: the envelope that all front ends share, and beside it the
//! exact next call, if one is known, and what was left out.

use pando_api::{ApiError, Envelope};
use pando_model::ErrorCode;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::budget::Cut;
use crate::hints;

/// A call that can be made as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Next {
    /// The tool.
    pub tool: String,
    /// All of its arguments.
    pub arguments: Map<String, Value>,
}

impl Next {
    /// Returns a call of `tool`.
    pub fn new(tool: &str, arguments: Value) -> Self {
        let arguments = match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        Self { tool: tool.to_owned(), arguments }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The result or the error.
    pub outcome: Result<Value, ApiError>,
    /// The call that goes on from here.
    pub next: Option<Next>,
    /// What was left out of the result.
    pub cut: Vec<Cut>,
}

impl Answer {
    /// Returns an answer with a result and nothing else.
    pub fn result(result: Value) -> Self {
        Self { outcome: Ok(result), next: None, cut: Vec::new() }
    }

    /// Returns an answer with an error and the call that helps, where one is known.
    pub fn error(error: ApiError) -> Self {
        let next = hints::next(&error).or_else(|| after(&error));
        Self { outcome: Err(hints::in_tools(error)), next, cut: Vec::new() }
    }

    /// Adds the call that goes on from here.
    #[must_use]
    pub fn next(mut self, next: Option<Next>) -> Self {
        self.next = next.or(self.next);
        self
    }

    /// Returns the answer as one JSON object.
    pub fn to_value(&self) -> Value {
        let envelope = Envelope::from(self.outcome.clone());
        let mut value = serde_json::to_value(envelope).unwrap_or_else(|source| {
            let error = ApiError::new(ErrorCode::Internal, source.to_string());
            json!({"success": false, "result": null, "error": {
                "code": error.code.as_str(), "message": error.message, "recoverable": false,
            }})
        });
        if let Some(object) = value.as_object_mut() {
            if let Some(next) = &self.next {
                object.insert("next".to_owned(), json!(next));
            }
            if !self.cut.is_empty() {
                object.insert("cut".to_owned(), json!(self.cut));
            }
        }
        value
    }
}

/// Returns the call that helps after an error, as far as its code tells.
fn after(error: &ApiError) -> Option<Next> {
    if let Some(id) = &error.operation {
        return Some(Next::new("operation_wait", json!({"id": id})));
    }
    let subject = error.subject.as_deref().unwrap_or_default();
    match error.code {
        ErrorCode::NotFound if subject.starts_with("op_") => {
            Some(Next::new("operation_list", json!({})))
        }
        ErrorCode::NotFound => match subject.split_once('@') {
            Some((cluster, _)) => Some(Next::new("branch_list", json!({"cluster": cluster}))),
            None if error.message.contains("machine") => Some(Next::new("vm_list", json!({}))),
            // The hint lists what there is.
            None => None,
        },
        ErrorCode::Busy | ErrorCode::DeadlineExceeded => {
            Some(Next::new("operation_list", json!({"status": "running"})))
        }
        ErrorCode::GuestUnreachable | ErrorCode::MachineFailed | ErrorCode::KeeperLost => {
            let arguments =
                if subject.is_empty() { json!({}) } else { json!({"address": subject}) };
            Some(Next::new("vm_status", arguments))
        }
        ErrorCode::DiskFull | ErrorCode::MemoryFull => Some(Next::new("system_status", json!({}))),
        _ => None,
    }
}
