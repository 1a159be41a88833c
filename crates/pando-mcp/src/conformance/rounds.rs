//! Tools that answer with a question and are called again with the answer. What they must remember
//! between two calls goes with the question, protected by a keyed hash.

use rmcp::ErrorData;
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, GetPromptRequestParams, InputRequiredResult,
    InputResponses, RequestMetaObject,
};
use serde_json::{Map, Value, json};

use super::{documents, typed};

/// What a call comes to.
pub enum Round {
    /// The client must answer something.
    Ask(InputRequiredResult),
    /// It is done, with this result.
    Done(Value),
}

/// What a call brings with it.
struct Given<'a> {
    key: &'a [u8; 32],
    responses: Option<&'a InputResponses>,
    state: Option<&'a str>,
    capabilities: ClientCapabilities,
}

impl Given<'_> {
    fn answer(&self, name: &str) -> Option<&Value> {
        self.responses?.get(name).filter(|answer| answer.is_object())
    }

    /// Returns what was filled into a form.
    fn filled(&self, name: &str, field: &str) -> Option<&Value> {
        self.answer(name)?.get("content")?.get(field)
    }

    /// Returns what stands for a step that was taken.
    fn sealed(&self, step: &str) -> String {
        format!("{step}.{}", blake3::keyed_hash(self.key, step.as_bytes()).to_hex())
    }

    /// Returns whether a step was taken.
    fn has_taken(&self, step: &str) -> Result<bool, ErrorData> {
        let Some(state) = self.state else { return Ok(false) };
        let name = state.split_once('.').map_or("", |(name, _)| name);
        if state != self.sealed(name) {
            return Err(ErrorData::invalid_params("`requestState` was not made here", None));
        }
        Ok(name == step)
    }

    /// Asks those of the questions that the client can answer.
    fn ask(&self, questions: &Value, step: Option<&str>) -> Result<Round, ErrorData> {
        let own = &self.capabilities;
        let (mut asked, mut missing) = (Map::new(), Map::new());
        for (name, question) in questions.as_object().into_iter().flatten() {
            let (capability, is_there) = match question["method"].as_str() {
                Some("sampling/createMessage") => ("sampling", own.sampling.is_some()),
                Some("roots/list") => ("roots", own.roots.is_some()),
                _ => ("elicitation", own.elicitation.is_some()),
            };
            if is_there {
                asked.insert(name.clone(), question.clone());
            } else {
                missing.insert(capability.to_owned(), json!({}));
            }
        }
        if asked.is_empty() {
            let missing = typed::<ClientCapabilities>(Value::Object(missing))?;
            return Err(ErrorData::missing_required_client_capability(missing));
        }
        let mut document = json!({"resultType": "input_required", "inputRequests": asked});
        if let (Some(step), Some(document)) = (step, document.as_object_mut()) {
            document.insert("requestState".to_owned(), json!(self.sealed(step)));
        }
        typed(document).map(Round::Ask)
    }
}

fn form(message: &str, field: &str, kind: &str) -> Value {
    let schema = json!({
        "type": "object", "properties": {field: {"type": kind}}, "required": [field],
    });
    let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
    json!({"method": "elicitation/create", "params": params})
}

fn sample(text: &str, most: u32) -> Value {
    let content = json!({"type": "text", "text": text});
    let params = json!({"messages": [{"role": "user", "content": content}], "maxTokens": most});
    json!({"method": "sampling/createMessage", "params": params})
}

fn roots() -> Value {
    json!({"method": "roots/list"})
}

fn done(text: &str) -> Result<Round, ErrorData> {
    Ok(Round::Done(documents::text(text)))
}

/// Answers a call of one of these tools.
pub fn tool(
    key: &[u8; 32],
    request: &CallToolRequestParams,
    meta: &RequestMetaObject,
) -> Option<Result<Round, ErrorData>> {
    let given = Given {
        key,
        responses: request.input_responses.as_ref(),
        state: request.request_state.as_deref(),
        capabilities: meta.client_capabilities().unwrap_or_default(),
    };
    Some(match request.name.as_ref() {
        "test_input_required_result_elicitation" => {
            match given.filled("user_name", "name").and_then(Value::as_str) {
                Some(name) => done(&format!("Hello, {name}!")),
                None => given
                    .ask(&json!({"user_name": form("What is your name?", "name", "string")}), None),
            }
        }
        "test_input_required_result_sampling" => match given.answer("capital_question") {
            Some(answer) => done(&answer.to_string()),
            None => given.ask(
                &json!({"capital_question": sample("What is the capital of France?", 100)}),
                None,
            ),
        },
        "test_input_required_result_list_roots" => match given.answer("client_roots") {
            Some(answer) => done(&answer.to_string()),
            None => given.ask(&json!({"client_roots": roots()}), None),
        },
        "test_input_required_result_request_state" => confirmed(&given, "state"),
        "test_input_required_result_tampered_state" => confirmed(&given, "tampered"),
        "test_input_required_result_multiple_inputs" => several(&given),
        "test_input_required_result_multi_round" => rounds(&given),
        "test_input_required_result_capabilities" => given.ask(
            &json!({
                "user_name": form("What is your name?", "name", "string"),
                "greeting": sample("Generate a greeting", 50),
            }),
            None,
        ),
        "test_missing_capability" => match given.capabilities.sampling {
            Some(_) => done("The client can sample."),
            None => given.ask(&json!({"greeting": sample("Generate a greeting", 50)}), None),
        },
        "test_streaming_elicitation" => {
            given.ask(&json!({"ok": form("Please confirm", "ok", "boolean")}), None)
        }
        _ => return None,
    })
}

/// Answers one of these prompts.
pub fn prompt(
    key: &[u8; 32],
    request: &GetPromptRequestParams,
    meta: &RequestMetaObject,
) -> Option<Result<Round, ErrorData>> {
    if request.name != "test_input_required_result_prompt" {
        return None;
    }
    let given = Given {
        key,
        responses: request.input_responses.as_ref(),
        state: request.request_state.as_deref(),
        capabilities: meta.client_capabilities().unwrap_or_default(),
    };
    Some(match given.filled("user_context", "context").and_then(Value::as_str) {
        Some(context) => {
            let content = json!({"type": "text", "text": format!("Use this context: {context}")});
            Ok(Round::Done(json!({
                "resultType": "complete", "messages": [{"role": "user", "content": content}],
            })))
        }
        None => given.ask(
            &json!({"user_context": form("What context should the prompt use?", "context", "string")}),
            None,
        ),
    })
}

fn confirmed(given: &Given<'_>, step: &str) -> Result<Round, ErrorData> {
    if given.has_taken(step)? && given.filled("confirm", "ok") == Some(&json!(true)) {
        return done("state-ok");
    }
    given.ask(&json!({"confirm": form("Please confirm", "ok", "boolean")}), Some(step))
}

fn several(given: &Given<'_>) -> Result<Round, ErrorData> {
    let answers = ["user_name", "greeting", "client_roots"].map(|name| given.answer(name));
    if given.has_taken("several")? && answers.iter().all(Option::is_some) {
        return done("All of it was answered.");
    }
    given.ask(
        &json!({
            "user_name": form("What is your name?", "name", "string"),
            "greeting": sample("Generate a greeting", 50),
            "client_roots": roots(),
        }),
        Some("several"),
    )
}

fn rounds(given: &Given<'_>) -> Result<Round, ErrorData> {
    if given.has_taken("second")? && given.filled("step2", "color").is_some() {
        return done("Both steps were taken.");
    }
    if given.has_taken("first")? && given.filled("step1", "name").is_some() {
        let second = form("Step 2: What is your favorite color?", "color", "string");
        return given.ask(&json!({"step2": second}), Some("second"));
    }
    let first = form("Step 1: What is your name?", "name", "string");
    given.ask(&json!({"step1": first}), Some("first"))
}
