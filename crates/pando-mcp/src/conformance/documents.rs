//! What is fixed, as JSON: the suite's own descriptions say what it must be.

use serde_json::{Map, Value, json};

/// A PNG of one pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
/// A WAV of no length.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";

/// Tools that take nothing.
const PLAIN: &[(&str, &str)] = &[
    ("test_simple_text", "Returns a text."),
    ("test_image_content", "Returns an image."),
    ("test_audio_content", "Returns a sound."),
    ("test_embedded_resource", "Returns a resource within its result."),
    ("test_multiple_content_types", "Returns a text, an image and a resource."),
    ("test_error_handling", "Fails."),
    ("test_tool_with_logging", "Logs while it works."),
    ("test_logging_tool", "Logs if the request asks for logs."),
    ("test_tool_with_progress", "Tells how far it is."),
    ("test_elicitation_sep1034_defaults", "Asks with a form that has defaults."),
    ("test_elicitation_sep1330_enums", "Asks with a form of choices."),
    ("test_missing_capability", "Needs a client that can sample."),
    ("test_streaming_elicitation", "Asks in its result."),
    ("test_input_required_result_elicitation", "Asks for a name."),
    ("test_input_required_result_sampling", "Asks a model."),
    ("test_input_required_result_list_roots", "Asks for roots."),
    ("test_input_required_result_request_state", "Asks, and remembers that it did."),
    ("test_input_required_result_multiple_inputs", "Asks three things at once."),
    ("test_input_required_result_multi_round", "Asks twice."),
    ("test_input_required_result_tampered_state", "Asks, and notices a changed state."),
    ("test_input_required_result_capabilities", "Asks what the client can answer."),
];

/// Returns the tools.
pub fn tools() -> Vec<Value> {
    let mut tools: Vec<Value> = PLAIN
        .iter()
        .map(|(name, description)| {
            json!({
                "name": name, "description": description,
                "inputSchema": {"type": "object", "properties": {}},
            })
        })
        .collect();
    for (name, argument) in [("test_sampling", "prompt"), ("test_elicitation", "message")] {
        tools.push(json!({
            "name": name, "description": "Asks the client within the call.",
            "inputSchema": {
                "type": "object", "required": [argument],
                "properties": {argument: {"type": "string"}},
            },
        }));
    }
    tools.push(json!({
        "name": "test_parameter_in_header", "description": "Has a parameter that is a header too.",
        "inputSchema": {
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        },
    }));
    tools.push(json!({
        "name": "json_schema_2020_12_tool", "description": "Has a schema of many keywords.",
        "inputSchema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {"address": {
                "$anchor": "addressDef", "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }},
            "properties": {
                "name": {"type": "string"}, "address": {"$ref": "#/$defs/address"},
                "contactMethod": {"type": "string", "enum": ["phone", "email"]},
                "phone": {"type": "string"}, "email": {"type": "string"},
            },
            "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
            "if": {
                "properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"],
            },
            "then": {"required": ["phone"]},
            "else": {"required": ["email"]},
            "additionalProperties": false,
        },
    }));
    tools
}

/// Returns the result that is one text.
pub fn text(text: &str) -> Value {
    result_of(&json!([{"type": "text", "text": text}]))
}

fn result_of(content: &Value) -> Value {
    json!({"resultType": "complete", "content": content, "isError": false})
}

fn image() -> Value {
    json!({"type": "image", "data": PNG, "mimeType": "image/png"})
}

fn embedded(uri: &str, mime: &str, text: &str) -> Value {
    json!({"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": text}})
}

/// Returns the result of a tool that always has the same.
pub fn result(name: &str) -> Option<Value> {
    let content = match name {
        "test_simple_text" => return Some(text("This is a simple text response for testing.")),
        "json_schema_2020_12_tool" | "test_parameter_in_header" => return Some(text("ok")),
        "test_image_content" => json!([image()]),
        "test_audio_content" => json!([{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]),
        "test_embedded_resource" => json!([embedded(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        )]),
        "test_multiple_content_types" => json!([
            {"type": "text", "text": "Multiple content types test:"},
            image(),
            embedded(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            ),
        ]),
        "test_error_handling" => {
            let text = "This tool intentionally returns an error for testing";
            return Some(json!({
                "resultType": "complete", "isError": true,
                "content": [{"type": "text", "text": text}],
            }));
        }
        _ => return None,
    };
    Some(result_of(&content))
}

/// Returns the resources.
pub fn resources() -> Vec<Value> {
    vec![
        json!({
            "uri": "test://static-text", "name": "static-text", "mimeType": "text/plain",
            "description": "A text.",
        }),
        json!({
            "uri": "test://static-binary", "name": "static-binary", "mimeType": "image/png",
            "description": "An image.",
        }),
        json!({
            "uri": "test://watched-resource", "name": "watched-resource",
            "mimeType": "text/plain", "description": "One to subscribe to.",
        }),
    ]
}

/// Returns the resource templates.
pub fn templates() -> Vec<Value> {
    vec![json!({
        "uriTemplate": "test://template/{id}/data", "name": "template-data",
        "mimeType": "application/json", "description": "What depends on a variable.",
    })]
}

/// Returns what a resource holds.
pub fn contents(uri: &str) -> Option<Value> {
    let of_text = |mime: &str, text: &str| json!({"uri": uri, "mimeType": mime, "text": text});
    match uri {
        "test://static-text" => {
            Some(of_text("text/plain", "This is the content of the static text resource."))
        }
        "test://static-binary" => Some(json!({"uri": uri, "mimeType": "image/png", "blob": PNG})),
        "test://watched-resource" => Some(of_text("text/plain", "It never changes.")),
        _ => {
            let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
            let data = format!("Data for ID: {id}");
            let text = json!({"id": id, "templateTest": true, "data": data}).to_string();
            Some(of_text("application/json", &text))
        }
    }
}

/// Returns the prompts.
pub fn prompts() -> Vec<Value> {
    let argument = |name: &str| json!({"name": name, "description": name, "required": true});
    vec![
        json!({"name": "test_simple_prompt", "description": "A text."}),
        json!({
            "name": "test_prompt_with_arguments", "description": "A text with two gaps.",
            "arguments": [argument("arg1"), argument("arg2")],
        }),
        json!({
            "name": "test_prompt_with_embedded_resource", "description": "With a resource.",
            "arguments": [argument("resourceUri")],
        }),
        json!({"name": "test_prompt_with_image", "description": "With an image."}),
        json!({"name": "test_input_required_result_prompt", "description": "Asks first."}),
    ]
}

/// Returns a prompt's messages.
pub fn prompt<'a>(name: &str, argument: &dyn Fn(&str) -> &'a str) -> Option<Value> {
    let says = |content: Value| json!({"role": "user", "content": content});
    let text = |text: &str| says(json!({"type": "text", "text": text}));
    Some(match name {
        "test_simple_prompt" => json!([text("This is a simple prompt for testing.")]),
        "test_prompt_with_arguments" => {
            let (first, second) = (argument("arg1"), argument("arg2"));
            json!([text(&format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))])
        }
        "test_prompt_with_embedded_resource" => json!([
            says(embedded(
                argument("resourceUri"),
                "text/plain",
                "Embedded resource content for testing.",
            )),
            text("Please process the embedded resource above."),
        ]),
        "test_prompt_with_image" => {
            json!([says(image()), text("Please analyze the image above.")])
        }
        _ => return None,
    })
}

/// What a tool asks within its call, and what it says to the answer.
type Question = (Value, fn(&Value) -> String);

/// Returns what a tool asks within its call.
pub fn question(name: &str, arguments: Option<&Map<String, Value>>) -> Option<Question> {
    let given = |name: &str| arguments.and_then(|given| given.get(name)).cloned();
    let form = |message: Value, schema: Value| {
        let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
        json!({"method": "elicitation/create", "params": params})
    };
    let object = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    Some(match name {
        "test_sampling" => {
            let content = json!({"type": "text", "text": given("prompt")});
            let messages = json!([{"role": "user", "content": content}]);
            let params = json!({"messages": messages, "maxTokens": 100});
            let question = json!({"method": "sampling/createMessage", "params": params});
            (question, |answer| {
                let text = answer.pointer("/content/text").or(answer.pointer("/content/0/text"));
                format!("LLM response: {}", text.and_then(Value::as_str).unwrap_or_default())
            })
        }
        "test_elicitation" => {
            let properties = json!({
                "username": {"type": "string", "description": "User's response"},
                "email": {"type": "string", "description": "User's email address"},
            });
            let schema = object(properties, json!(["username", "email"]));
            (form(json!(given("message")), schema), |answer| format!("User response: {answer}"))
        }
        "test_elicitation_sep1034_defaults" => {
            let properties = json!({
                "name": {"type": "string", "default": "John Doe"},
                "age": {"type": "integer", "default": 30},
                "score": {"type": "number", "default": 95.5},
                "status": {
                    "type": "string", "enum": ["active", "inactive", "pending"],
                    "default": "active",
                },
                "verified": {"type": "boolean", "default": true},
            });
            let schema = object(properties, json!([]));
            (form(json!("Please review"), schema), |answer| {
                format!("Elicitation completed: {answer}")
            })
        }
        "test_elicitation_sep1330_enums" => {
            let (plain, titled) = (["option1", "option2", "option3"], |titles: [&str; 3]| {
                let named = titles.iter().enumerate();
                let named = named
                    .map(|(n, title)| json!({"const": format!("value{}", n + 1), "title": title}));
                Value::from_iter(named)
            });
            let properties = json!({
                "untitledSingle": {"type": "string", "enum": plain},
                "titledSingle": {
                    "type": "string",
                    "oneOf": titled(["First Option", "Second Option", "Third Option"]),
                },
                "legacyEnum": {
                    "type": "string", "enum": ["opt1", "opt2", "opt3"],
                    "enumNames": ["Option One", "Option Two", "Option Three"],
                },
                "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
                "titledMulti": {
                    "type": "array",
                    "items": {"anyOf": titled(["First Choice", "Second Choice", "Third Choice"])},
                },
            });
            let schema = object(properties, json!([]));
            (form(json!("Please choose"), schema), |answer| {
                format!("Elicitation completed: {answer}")
            })
        }
        _ => return None,
    })
}
