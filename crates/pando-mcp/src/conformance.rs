//! What the protocol's conformance suite asks a server for: tools, resources and prompts of fixed
//! names, with which it looks at every kind of answer that there is. Only in a build with the
//! feature `conformance`, where they stand beside everything else and go the same way: through the
//! handler.
//!
//! `documents` holds what is fixed, `rounds` the tools that ask their caller something.

mod documents;
mod rounds;

use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorCode, GetPromptRequestParams,
    GetPromptResponse, GetPromptResult, Prompt, ReadResourceResult, RequestMetaObject, Resource,
    ResourceTemplate, ServerNotification, ServerRequest, Tool,
};
use rmcp::service::{Peer, RequestContext};
use rmcp::{ErrorData, RoleServer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::limits::CONFIRM_WAIT;
use crate::requester::has_no_sessions;

/// Time between two words of the tools that say something while they work, as the suite wants it.
const BETWEEN: Duration = Duration::from_millis(50);

/// Returns the tools.
pub fn tools() -> Vec<Tool> {
    documents::tools().into_iter().filter_map(|tool| typed(tool).ok()).collect()
}

/// Returns the resources.
pub fn resources() -> Vec<Resource> {
    documents::resources().into_iter().filter_map(|resource| typed(resource).ok()).collect()
}

/// Returns the resource templates.
pub fn templates() -> Vec<ResourceTemplate> {
    documents::templates().into_iter().filter_map(|template| typed(template).ok()).collect()
}

/// Returns the prompts.
pub fn prompts() -> Vec<Prompt> {
    documents::prompts().into_iter().filter_map(|prompt| typed(prompt).ok()).collect()
}

/// Returns what one of the resources holds.
pub fn read(uri: &str) -> Option<Result<ReadResourceResult, ErrorData>> {
    documents::contents(uri).map(|contents| {
        typed(json!({
            "resultType": "complete", "contents": [contents], "ttlMs": 0, "cacheScope": "private",
        }))
    })
}

/// Returns whether a URI can be subscribed to although nothing ever changes there.
pub fn is_watched(uri: &str) -> bool {
    uri == "test://watched-resource"
}

/// Returns whether a prompt is one of these.
pub fn has_prompt(name: &str) -> bool {
    documents::prompts().iter().any(|prompt| prompt["name"] == name)
}

/// Answers one of the prompts.
pub fn prompt(
    key: &[u8; 32],
    request: &GetPromptRequestParams,
    meta: &RequestMetaObject,
) -> Option<Result<GetPromptResponse, ErrorData>> {
    if let Some(round) = rounds::prompt(key, request, meta) {
        return Some(round.and_then(|round| match round {
            rounds::Round::Ask(ask) => Ok(ask.into()),
            rounds::Round::Done(document) => Ok(typed::<GetPromptResult>(document)?.into()),
        }));
    }
    let arguments = request.arguments.clone().unwrap_or_default();
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
    let messages = documents::prompt(&request.name, &argument)?;
    let document = json!({"resultType": "complete", "messages": messages});
    Some(typed::<GetPromptResult>(document).map(Into::into))
}

/// Calls one of the tools.
pub async fn call(
    key: &[u8; 32],
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Option<Result<CallToolResponse, ErrorData>> {
    if let Some(round) = rounds::tool(key, request, &context.meta) {
        return Some(round.and_then(|round| match round {
            rounds::Round::Ask(ask) => Ok(ask.into()),
            rounds::Round::Done(document) => Ok(typed::<CallToolResult>(document)?.into()),
        }));
    }
    let document = match (documents::result(&request.name), request.name.as_ref()) {
        (Some(document), _) => Ok(document),
        (None, "test_tool_with_logging" | "test_logging_tool") => Ok(logging(context).await),
        (None, "test_tool_with_progress") => Ok(progress(context).await),
        (None, name) => match documents::question(name, request.arguments.as_ref()) {
            Some((question, says)) => asked(&context.peer, question, says).await,
            None => return None,
        },
    };
    Some(document.and_then(|document| Ok(typed::<CallToolResult>(document)?.into())))
}

/// Answers a request for logs from some level on: those that there are, are of every level.
///
/// # Errors
/// `-32601` under a revision in which each request says whether it wants logs.
pub fn check_level(context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
    if context.protocol_version().is_some_and(|own| has_no_sessions(&own)) {
        let message = "requests say by themselves from which level on they want logs";
        return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None));
    }
    Ok(())
}

fn typed<T: DeserializeOwned>(document: Value) -> Result<T, ErrorData> {
    serde_json::from_value(document).map_err(|source| {
        ErrorData::internal_error(format!("a fixture is no document: {source}"), None)
    })
}

async fn tell(peer: &Peer<RoleServer>, notification: Value) {
    if let Ok(notification) = typed::<ServerNotification>(notification) {
        // A client that is gone needs no telling.
        let _ = peer.send_notification(notification).await;
    }
}

async fn logging(context: &RequestContext<RoleServer>) -> Value {
    // Without sessions, logs are for requests that ask for them.
    let is_modern = context.protocol_version().is_some_and(|own| has_no_sessions(&own));
    let is_wanted = context.meta.contains_key("io.modelcontextprotocol/logLevel");
    for word in ["started", "processing data", "completed"] {
        if !is_modern || is_wanted {
            let text = format!("Tool execution {word}");
            let params = json!({"level": "info", "data": text});
            tell(&context.peer, json!({"method": "notifications/message", "params": params})).await;
        }
        sleep(BETWEEN).await;
    }
    documents::text("Tool execution was logged.")
}

async fn progress(context: &RequestContext<RoleServer>) -> Value {
    for done in [0, 50, 100] {
        if let Some(token) = context.meta.get_progress_token() {
            let params = json!({"progressToken": token, "progress": done, "total": 100});
            tell(&context.peer, json!({"method": "notifications/progress", "params": params}))
                .await;
        }
        sleep(BETWEEN).await;
    }
    documents::text("Tool execution completed.")
}

/// Asks the client something within a call, as the revisions with sessions do.
async fn asked(
    peer: &Peer<RoleServer>,
    question: Value,
    says: fn(&Value) -> String,
) -> Result<Value, ErrorData> {
    let request = typed::<ServerRequest>(question)?;
    let answer = tokio::time::timeout(CONFIRM_WAIT, peer.send_request(request)).await;
    match answer {
        Ok(Ok(answer)) => {
            let answer = serde_json::to_value(answer).unwrap_or(Value::Null);
            Ok(documents::text(&says(&answer)))
        }
        Ok(Err(error)) => Err(ErrorData::internal_error(error.to_string(), None)),
        Err(_) => Err(ErrorData::internal_error("the client did not answer", None)),
    }
}
