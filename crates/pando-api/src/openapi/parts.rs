//! What several routes share: headers, the envelope, the errors.

use pando_model::ErrorCode;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::limits::MAX_KEY_BYTES;
use crate::openapi::Named;
use crate::operation::OperationView;
use crate::schema;

/// Returns a reference to a schema.
pub(super) fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Returns a reference to a parameter.
pub(super) fn parameter(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

/// Returns the response of a call that did what it was asked.
pub(super) fn succeeded(description: &str, result: &Value) -> Value {
    json!({
        "description": description,
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/RequestId" } },
        "content": { "application/json": { "schema": {
            "type": "object",
            "required": ["success", "result", "error"],
            "properties": {
                "success": { "const": true },
                "result": result,
                "error": { "type": "null" },
            },
        } } },
    })
}

/// Returns a reference to the response of a call that did not.
pub(super) fn failed() -> Value {
    json!({ "$ref": "#/components/responses/Failed" })
}

/// Returns the schemas that are no verb's.
pub(super) fn schemas() -> Named {
    let codes = ErrorCode::ALL.iter().map(|code| {
        let meaning = crate::error::describe(*code).unwrap_or_default();
        json!({
            "const": code.as_str(),
            "description": format!("{meaning} HTTP status {}.", code.http_status()),
        })
    });
    let mut error = schema::result::<ApiError>();
    error["properties"]["code"] = schema("ErrorCode");
    let schemas = json!({
        "ErrorCode": {
            "description": "The stable name of what went wrong: a closed list.",
            "type": "string",
            "oneOf": codes.collect::<Vec<_>>(),
        },
        "Error": error,
        "Operation": schema::result::<OperationView>(),
        "Failed": {
            "description": "The envelope of a call that did not do what it was asked.",
            "type": "object",
            "required": ["success", "result", "error"],
            "properties": {
                "success": { "const": false },
                "result": { "type": "null" },
                "error": schema("Error"),
            },
        },
    });
    named(schemas)
}

/// Returns the headers that a request may carry.
pub(super) fn parameters() -> Named {
    named(json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header",
            "description": "Calls with the same key and parameters are the same request: the second \
                finds what the first did. With other parameters it is refused as `key_reused`.",
            "schema": { "type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES },
        },
        "RequestId": {
            "name": "X-Request-Id", "in": "header",
            "description": "A name for this call in logs and audit; made up if left out.",
            "schema": { "type": "string", "pattern": "^rq_[0-9a-z]{12}$" },
        },
        "Session": {
            "name": "X-Pando-Session", "in": "header",
            "description": "The caller's session: each has a current branch of its own.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
        },
        "ReadOnly": {
            "name": "X-Pando-Read-Only", "in": "header",
            "description": "`true` refuses everything that would change something.",
            "schema": { "type": "string", "enum": ["true", "false"], "default": "false" },
        },
        "Prefer": {
            "name": "Prefer", "in": "header",
            "description": "`respond-async` begins the operation and returns its id at once; \
                `operation_wait` and `/v1/operations/{id}/events` tell how it ends.",
            "schema": { "type": "string", "enum": ["respond-async"] },
        },
    }))
}

/// Returns the headers that an answer carries.
pub(super) fn headers() -> Named {
    named(json!({
        "RequestId": {
            "description": "The call's name in logs and audit.",
            "schema": { "type": "string", "pattern": "^rq_[0-9a-z]{12}$" },
        },
    }))
}

/// Returns the responses that routes share.
pub(super) fn responses() -> Named {
    let begun = json!({
        "type": "object",
        "required": ["operation_id"],
        "properties": { "operation_id": {
            "type": "string", "pattern": "^op_[0-9a-z]{12}$", "description": "What has begun.",
        } },
    });
    named(json!({
        "Begun": succeeded("It has begun: `Prefer: respond-async` was asked for.", &begun),
        "Failed": {
            "description": "Why not. The status follows from the code.",
            "headers": { "X-Request-Id": { "$ref": "#/components/headers/RequestId" } },
            "content": { "application/json": { "schema": schema("Failed") } },
        },
    }))
}

fn named(value: Value) -> Named {
    match value {
        Value::Object(object) => object,
        _ => Named::new(),
    }
}
