//! What is ours, in the protocol library's words.

use std::sync::Arc;

use pando_api::ApiError;
use pando_model::ErrorCode;
use rmcp::ErrorData;
use rmcp::model::{
    CallToolResponse, CallToolResult, ElicitRequest, InputRequest, InputRequests,
    InputRequiredResult, Tool, ToolAnnotations,
};

use crate::answer::Answer;
use crate::requester::{ANSWER, form};
use crate::tools;

/// Returns a tool.
pub fn tool(tool: tools::Tool) -> Tool {
    let annotations = ToolAnnotations::new()
        .read_only(tool.read_only)
        .destructive(tool.destructive)
        .idempotent(tool.idempotent)
        .open_world(false);
    Tool::new(tool.name, tool.description, Arc::new(tool.input))
        .with_title(tool.title)
        .with_annotations(annotations)
}

/// Returns a tool's result: the envelope, structured and as text.
pub fn result(answer: &Answer) -> CallToolResult {
    let value = answer.to_value();
    match &answer.outcome {
        Ok(_) => CallToolResult::structured(value),
        Err(_) => CallToolResult::structured_error(value),
    }
}

/// Returns the answer that puts a question to a person, who answers by another call.
pub fn input_required(question: &str, token: String) -> CallToolResponse {
    match form(question) {
        Ok(form) => {
            let ask = InputRequest::Elicitation(ElicitRequest::new(form));
            let requests = InputRequests::from([(ANSWER.to_owned(), ask)]);
            InputRequiredResult::new(Some(requests), Some(token)).into()
        }
        Err(source) => {
            let error = ApiError::new(ErrorCode::Internal, source.to_string());
            result(&Answer::error(error)).into()
        }
    }
}

/// Returns an error of a request that has no envelope to carry it.
pub fn protocol_error(error: &ApiError) -> ErrorData {
    let data = serde_json::to_value(error).ok();
    let message = match &error.hint {
        Some(hint) => format!("{}; {hint}", error.message),
        None => error.message.clone(),
    };
    match error.code {
        ErrorCode::NotFound => ErrorData::resource_not_found(message, data),
        ErrorCode::InvalidParameter | ErrorCode::Ambiguous | ErrorCode::Forbidden => {
            ErrorData::invalid_params(message, data)
        }
        _ => ErrorData::internal_error(message, data),
    }
}
