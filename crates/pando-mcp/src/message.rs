//! From bytes to a message of the protocol. What is no message gets an answer in place of being
//! handled: an error that names what is wrong, with the request's id wherever one can be made out,
//! since a client that waits for an answer must get one.
//!
//! ```text
//!  bytes ─▶ JSON? ─▶ a message? ─▶ its parameters? ─▶ to be handled
//!             │ -32700    │ -32600        │ -32602: answered here
//! ```

use rmcp::RoleServer;
use rmcp::model::{ClientRequest, JsonRpcMessage, ProtocolVersion, TASKS_EXTENSION_ID};
use rmcp::service::RxJsonRpcMessage;
use serde_json::{Value, json};

/// Methods that are answered.
const METHODS: &[&str] = &[
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "prompts/list",
    "prompts/get",
    "logging/setLevel",
    "completion/complete",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
];

/// The bytes are no JSON.
pub const PARSE_ERROR: i32 = -32_700;
/// The JSON is no message.
pub const INVALID_REQUEST: i32 = -32_600;
/// The message's parameters are wrong.
pub const INVALID_PARAMS: i32 = -32_602;

/// The method is none of the message's revision.
pub const METHOD_NOT_FOUND: i32 = -32_601;

/// The client has not said that it can what its request needs.
pub const MISSING_CAPABILITY: i32 = -32_021;

/// Where a request says what its client can.
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Where a request says of which revision it is.
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Methods of the revisions with sessions. A request that carries its own context has none of them.
const OF_SESSIONS: &[&str] =
    &["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

/// A message that can be handled.
pub struct Message {
    /// It, in the library's words.
    pub parsed: RxJsonRpcMessage<RoleServer>,
    /// Its method, if it is no answer.
    pub method: Option<String>,
    /// Whether it is a request, which is answered.
    pub expects_answer: bool,
}

/// Returns the message that `text` is; `None` for one that is not understood and that nobody
/// expects an answer to.
///
/// # Errors
/// The answer that it gets.
pub fn read(text: &[u8]) -> Result<Option<Message>, Value> {
    let value: Value = serde_json::from_slice(text).map_err(|source| {
        error(id_in(text).as_ref(), PARSE_ERROR, &format!("this is not JSON: {source}"))
    })?;
    check(&value)?;
    let id = value.get("id").cloned();
    let method = value.get("method").and_then(Value::as_str).map(str::to_owned);
    let message = serde_json::from_value::<RxJsonRpcMessage<RoleServer>>(value);
    let expects_answer = id.is_some() && method.is_some();
    match (message, &method) {
        (Ok(parsed), Some(method)) if expects_answer && is_misread(&parsed, method) => {
            let message = format!("the parameters of {method} are not understood");
            Err(error(id.as_ref(), INVALID_PARAMS, &message))
        }
        (Ok(parsed), _) => Ok(Some(Message { parsed, method, expects_answer })),
        (Err(source), Some(method)) if expects_answer => {
            let detail: String = source.to_string().chars().take(200).collect();
            let message = format!("the parameters of {method} are not understood: {detail}");
            Err(error(id.as_ref(), INVALID_PARAMS, &message))
        }
        (Err(_), _) => Ok(None),
    }
}

/// Returns the answer to a request that is not handled.
pub fn error(id: Option<&Value>, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

/// Returns whether a request was taken for something else, as the library does with parameters that
/// it cannot read: for a notification, which nobody answers, or for a method that it does not know.
fn is_misread(message: &RxJsonRpcMessage<RoleServer>, method: &str) -> bool {
    match message {
        JsonRpcMessage::Notification(_) => true,
        JsonRpcMessage::Request(request) => {
            matches!(request.request, ClientRequest::CustomRequest(_)) && METHODS.contains(&method)
        }
        JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => false,
    }
}

/// Refuses what is no message of the protocol, naming what is wrong with it.
fn check(value: &Value) -> Result<(), Value> {
    let Some(object) = value.as_object() else {
        let what = if value.is_array() { "a batch" } else { "not an object" };
        return Err(error(
            None,
            INVALID_REQUEST,
            &format!("this message is {what}; send one object"),
        ));
    };
    let id = object.get("id").filter(|id| id.is_string() || id.is_number());
    let wrong = |code: i32, message: &str| Err(error(id, code, message));
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return wrong(INVALID_REQUEST, "`jsonrpc` must be \"2.0\"");
    }
    let is_answer = object.contains_key("result") || object.contains_key("error");
    match object.get("method") {
        Some(Value::String(_)) => {}
        None if is_answer => return Ok(()),
        _ => return wrong(INVALID_REQUEST, "`method` must be a string"),
    }
    match object.get("id") {
        None | Some(Value::String(_)) => {}
        Some(Value::Number(number)) if number.is_i64() => {}
        Some(_) => return wrong(INVALID_REQUEST, "`id` must be a string or a whole number"),
    }
    let params = object.get("params");
    if params.is_some_and(|params| !params.is_object()) {
        return wrong(INVALID_PARAMS, "`params` must be an object");
    }
    let field = |name: &str| params.and_then(|params| params.get(name));
    let is_text = |name: &str| field(name).is_some_and(Value::is_string);
    let is_object =
        |name: &str| field(name).is_none_or(|value| value.is_object() || value.is_null());
    if !field("_meta").is_none_or(Value::is_object) {
        return wrong(INVALID_PARAMS, "`params._meta` must be an object");
    }
    let version = field("_meta").and_then(|meta| meta.get(VERSION)).and_then(Value::as_str);
    let method = object.get("method").and_then(Value::as_str);
    if version == Some(ProtocolVersion::V_2026_07_28.as_str())
        && method.is_some_and(|method| OF_SESSIONS.contains(&method))
    {
        return wrong(METHOD_NOT_FOUND, "2026-07-28 has no such method: it has no sessions");
    }
    match method {
        Some("tools/call" | "prompts/get") if !is_text("name") => {
            wrong(INVALID_PARAMS, "`params.name` must be a name from the list")
        }
        Some("tools/call" | "prompts/get") if !is_object("arguments") => {
            wrong(INVALID_PARAMS, "`params.arguments` must be an object of parameters by name")
        }
        Some("resources/read" | "resources/subscribe" | "resources/unsubscribe")
            if !is_text("uri") =>
        {
            wrong(INVALID_PARAMS, "`params.uri` must be a URI from the list or of a template")
        }
        Some("completion/complete") if !is_reference(field("ref")) => wrong(
            INVALID_PARAMS,
            "`params.ref` must be {type: \"ref/prompt\", name} or {type: \"ref/resource\", uri}",
        ),
        // The library would pass over what it does not know.
        Some("subscriptions/listen") if asks_for_tasks(params) => {
            let message = "news of tasks are for clients that follow tasks";
            let mut answer = error(id, MISSING_CAPABILITY, message);
            if let Some(error) = answer.get_mut("error").and_then(Value::as_object_mut) {
                let needed = json!({"extensions": {TASKS_EXTENSION_ID: {}}});
                error.insert("data".to_owned(), json!({"requiredCapabilities": needed}));
            }
            Err(answer)
        }
        Some("tasks/get" | "tasks/update" | "tasks/cancel") if !is_text("taskId") => {
            wrong(INVALID_PARAMS, "`params.taskId` must be the id of a task")
        }
        _ => Ok(()),
    }
}

/// Returns whether a request to listen names tasks although its client does not follow any.
fn asks_for_tasks(params: Option<&Value>) -> bool {
    let tasks = params.and_then(|params| params.get("notifications")?.get("taskIds")?.as_array());
    let own = params.and_then(|params| params.get("_meta")?.get(CAPABILITIES)?.get("extensions"));
    tasks.is_some_and(|tasks| !tasks.is_empty())
        && own.is_none_or(|own| own.get(TASKS_EXTENSION_ID).is_none())
}

fn is_reference(value: Option<&Value>) -> bool {
    let has = |name: &str| value.and_then(|value| value.get(name)).is_some_and(Value::is_string);
    match value.and_then(|value| value.get("type")).and_then(Value::as_str) {
        Some("ref/prompt") => has("name"),
        Some("ref/resource") => has("uri"),
        _ => false,
    }
}

/// Returns the id of a message that is no JSON as a whole, if it can be made out: that of its
/// outermost object.
pub fn id_in(line: &[u8]) -> Option<Value> {
    let mut depth = 0u32;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        match byte {
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = string_end(line, at)?;
                let rest = line.get(end..)?.trim_ascii_start();
                if depth == 1
                    && line.get(at..end) == Some(b"\"id\"")
                    && let Some(value) = rest.strip_prefix(b":")
                {
                    let mut values =
                        serde_json::Deserializer::from_slice(value).into_iter::<Value>();
                    let id = values.next()?.ok()?;
                    return (id.is_string() || id.is_i64()).then_some(id);
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Returns where a string that begins at `from` has ended.
fn string_end(line: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        match line.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_found_in_what_is_no_json() {
        let cases: &[(&[u8], Option<Value>)] = &[
            (br#"{"id": 5, "#, Some(json!(5))),
            (br#"{"a":{"id":1},"id":"x""#, Some(json!("x"))),
            (br#"{"a":"\"id\":3","#, None),
            (br#"{"id""#, None),
            (br#"{"id":[1]}"#, None),
        ];
        for (line, id) in cases {
            assert_eq!(&id_in(line), id, "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = id_in(&bytes);
            let _ = read(&bytes);
        }
    }
}
