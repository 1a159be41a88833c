//! The HTTP API as an OpenAPI 3.1 document, made from the catalogue: what `GET /v1/openapi.json`
//! answers and `docs/reference/openapi.json` holds.
//!
//! A verb is `POST /v1/VERB` with its parameters as the body, and `GET /v1/VERB` as well if it only
//! reads. Routes that are no verbs are described in [`routes`].

#![allow(clippy::indexing_slicing, reason = "only objects that are made here are indexed")]

mod parts;
mod routes;

use serde_json::{Map, Value, json};

use crate::verb::{Effect, Runs, Toolset, Verb};

/// The version of OpenAPI that the document is written in.
pub const VERSION: &str = "3.1.1";

const ABOUT: &str = "Whole running systems that behave like git. Every verb is `POST /v1/VERB` with \
    its parameters as a JSON object; one that only reads is `GET` as well, with them in the query. \
    Every answer but a stream is the same envelope: `success`, `result`, `error`.\n\nThe daemon \
    listens on a unix socket that is its user's alone and asks for no token there. Over TCP each \
    request carries a bearer token.";

/// Returns the document.
pub fn openapi() -> Value {
    let mut paths = routes::paths();
    paths.extend(crate::catalogue().iter().map(|verb| (format!("/v1/{}", verb.name), path(verb))));
    json!({
        "openapi": VERSION,
        "info": {
            "title": "pando",
            "summary": "Virtual machines that can be committed, branched and rolled back.",
            "description": ABOUT,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/", "description": "The daemon that served this document." }],
        "security": [{}, { "token": [] }],
        "tags": tags(),
        "paths": paths,
        "components": components(),
    })
}

fn tags() -> Vec<Value> {
    let toolsets = Toolset::ALL.iter();
    let toolsets = toolsets.map(|set| json!({ "name": set.as_str(), "description": set.about() }));
    let daemon = json!({ "name": "daemon", "description": "What the daemon says of itself." });
    toolsets.chain([daemon]).collect()
}

fn path(verb: &Verb) -> Value {
    let mut item = json!({ "post": post(verb) });
    if verb.effect == Effect::Read {
        item["get"] = get(verb);
    }
    item
}

/// Returns what both methods of a verb have in common.
fn operation(verb: &Verb, id: &str) -> Value {
    let mut description = verb.description().to_owned();
    if !verb.aliases.is_empty() {
        let aliases: Vec<String> =
            verb.aliases.iter().map(|alias| format!("`{}`", alias.name)).collect();
        description = format!("{description}\n\nAlso called: {}.", aliases.join(", "));
    }
    json!({
        "operationId": id,
        "tags": [verb.toolset.as_str()],
        "summary": verb.title(),
        "description": description,
        "x-pando-effect": verb.effect,
        "x-pando-runs": verb.runs,
    })
}

fn post(verb: &Verb) -> Value {
    let mut operation = operation(verb, verb.name);
    let mut headers = vec!["RequestId", "Session", "ReadOnly"];
    if verb.effect != Effect::Read {
        headers.insert(0, "IdempotencyKey");
    }
    if verb.runs != Runs::Directly {
        headers.push("Prefer");
    }
    operation["parameters"] = headers.into_iter().map(parts::parameter).collect();
    let has_required = verb.params.get("required").is_some();
    operation["requestBody"] = json!({
        "required": has_required,
        "content": { "application/json": {
            "schema": parts::schema(&params_name(verb)), "example": verb.example(),
        } },
    });
    operation["responses"] = responses(verb);
    operation
}

fn get(verb: &Verb) -> Value {
    let mut operation = operation(verb, &format!("get_{}", verb.name));
    let queries = verb.properties().into_iter().flatten().map(|(name, schema)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|object| object.remove("description"));
        let mut parameter = json!({
            "name": name, "in": "query", "required": verb.is_required(name), "schema": schema,
        });
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    });
    let headers = ["RequestId", "Session", "ReadOnly"].into_iter().map(parts::parameter);
    operation["parameters"] = queries.chain(headers).collect();
    operation["responses"] = responses(verb);
    operation
}

fn responses(verb: &Verb) -> Value {
    let mut responses = json!({
        "200": parts::succeeded("The result.", &parts::schema(&result_name(verb))),
        "default": parts::failed(),
    });
    if verb.runs != Runs::Directly {
        responses["202"] = json!({ "$ref": "#/components/responses/Begun" });
    }
    responses
}

fn components() -> Value {
    let mut schemas = parts::schemas();
    for verb in crate::catalogue() {
        schemas.insert(params_name(verb), verb.params.clone());
        schemas.insert(result_name(verb), verb.result.clone());
    }
    json!({
        "schemas": schemas,
        "parameters": parts::parameters(),
        "headers": parts::headers(),
        "responses": parts::responses(),
        "securitySchemes": {
            "token": {
                "type": "http", "scheme": "bearer",
                "description": "The daemon's token, for listeners other than its unix socket.",
            },
        },
    })
}

fn params_name(verb: &Verb) -> String {
    format!("{}Params", camel(verb.name))
}

fn result_name(verb: &Verb) -> String {
    format!("{}Result", camel(verb.name))
}

fn camel(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        first.chain(letters).collect::<String>()
    });
    words.collect()
}

/// A map of named parts of the document.
type Named = Map<String, Value>;
