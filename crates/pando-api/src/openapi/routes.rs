//! Routes that are no verbs: streams, and what the daemon says of itself.

use serde_json::{Value, json};

use crate::control::AttachRequest;
use crate::openapi::{Named, VERSION, parts};
use crate::schema;

/// The content type of a body that is made of frames.
const FRAMES: &str = "application/vnd.pando.frames";

const FRAMES_TEXT: &str = "Frames: one byte of kind, four of length (big endian), the payload. Kinds \
    of the caller: 0 standard input, 1 its end, 2 a signal's number, 3 a terminal's columns and rows. \
    Kinds of the daemon: 16 standard output or a file's bytes, 17 standard error, 18 how the command \
    ended, 19 the file that was sent, 20 an error; the last three hold JSON and come last.";

/// Returns the paths by their templates.
pub(super) fn paths() -> Named {
    [
        ("/healthz", health()),
        ("/version", version()),
        ("/v1/catalogue", catalogue()),
        ("/v1/openapi.json", document()),
        ("/v1/operations/{id}/events", events()),
        ("/v1/attach", attach()),
        ("/v1/files", files()),
    ]
    .map(|(path, item)| (path.to_owned(), item))
    .into_iter()
    .collect()
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn health() -> Value {
    let result = object(&["status"], &json!({ "status": { "const": "ok" } }));
    json!({ "get": {
        "operationId": "healthz", "tags": ["daemon"],
        "summary": "Say that the daemon answers",
        "responses": { "200": parts::succeeded("It answers.", &result) },
    } })
}

fn version() -> Value {
    let result = object(
        &["version", "pid", "home"],
        &json!({
            "version": { "type": "string", "description": "Its version." },
            "pid": { "type": "integer", "description": "Its process id." },
            "home": { "type": "string", "description": "Its home directory." },
            "url": { "type": "string", "description": "Where it listens on TCP, if it does." },
        }),
    );
    json!({ "get": {
        "operationId": "version", "tags": ["daemon"],
        "summary": "Show the daemon's version and home",
        "responses": { "200": parts::succeeded("What it is.", &result) },
    } })
}

fn catalogue() -> Value {
    let text = json!({ "type": "string" });
    let verb = object(
        &["name", "aliases", "toolset", "effect", "runs", "summary", "params", "result"],
        &json!({
            "name": text, "toolset": text, "summary": text, "description": text,
            "aliases": { "type": "array", "items": text },
            "effect": { "enum": ["read", "write", "destructive"] },
            "runs": { "enum": ["directly", "either", "as_operation"] },
            "params": { "type": "object", "description": "JSON schema of the parameters." },
            "result": { "type": "object", "description": "JSON schema of the result." },
        }),
    );
    let result = object(&["verbs"], &json!({ "verbs": { "type": "array", "items": verb } }));
    json!({ "get": {
        "operationId": "catalogue", "tags": ["daemon"],
        "summary": "List every verb with its schemas",
        "responses": { "200": parts::succeeded("Every verb.", &result) },
    } })
}

fn document() -> Value {
    json!({ "get": {
        "operationId": "openapi", "tags": ["daemon"],
        "summary": "Return this document",
        "responses": { "200": {
            "description": "The document itself, without an envelope.",
            "content": { "application/json": { "schema": {
                "type": "object",
                "required": ["openapi", "info", "paths"],
                "properties": { "openapi": { "const": VERSION } },
            } } },
        } },
    } })
}

fn events() -> Value {
    json!({ "get": {
        "operationId": "operation_events", "tags": ["operation"],
        "summary": "Follow an operation until it has ended",
        "description": "The operation as it is and after each change, one JSON object a line; the \
            last line is its final state.",
        "parameters": [{
            "name": "id", "in": "path", "required": true, "description": "The operation.",
            "schema": { "type": "string", "pattern": "^op_[0-9a-z]{12}$" },
        }],
        "responses": {
            "200": {
                "description": "One state a line.",
                "content": { "application/x-ndjson": { "schema": parts::schema("Operation") } },
            },
            "default": parts::failed(),
        },
    } })
}

fn attach() -> Value {
    json!({ "post": {
        "operationId": "attach", "tags": ["exec"],
        "summary": "Run a command with its input and output as streams",
        "description": format!("After the answer the connection carries frames both ways. {FRAMES_TEXT} \
            A caller that hangs up kills the command. Without a stream: `exec_run`."),
        "parameters": [
            {
                "name": "Upgrade", "in": "header", "required": true,
                "description": "The protocol; `Connection: upgrade` goes with it.",
                "schema": { "const": "pando-attach/1" },
            },
            parts::parameter("RequestId"), parts::parameter("Session"), parts::parameter("ReadOnly"),
        ],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": schema::params::<AttachRequest>() } },
        },
        "responses": {
            "101": { "description": "The connection carries frames from here on." },
            "default": parts::failed(),
        },
    } })
}

fn query(name: &str, required: Need, schema: &Value, description: &str) -> Value {
    json!({
        "name": name, "in": "query", "required": required == Need::Always,
        "description": description, "schema": schema,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Always,
    Never,
}

fn files() -> Value {
    let text = json!({ "type": "string" });
    let facts = schema::result::<pando_model::guest::FileFacts>();
    let of = || {
        vec![
            query("address", Need::Always, &text, "`CLUSTER[@BRANCH][/NODE]` or an id."),
            query("path", Need::Always, &text, "Absolute path in the machine."),
        ]
    };
    let shared = ["RequestId", "Session", "ReadOnly"].map(parts::parameter);
    let mode = json!({ "type": "string", "pattern": "^[0-7]{1,4}$", "default": "644" });
    let yes = json!({ "type": "string", "enum": ["true", "false"], "default": "false" });
    let mut pushed = of();
    pushed.extend([
        query("mode", Need::Never, &mode, "Permission bits, in octal."),
        query("owner", Need::Never, &text, "Owner, as user name or number; root if left out."),
        query("make_parents", Need::Never, &yes, "Make missing parent directories."),
    ]);
    pushed.extend(shared.clone());
    let mut pulled = of();
    pulled.extend(shared);
    json!({
        "put": {
            "operationId": "push_stream", "tags": ["exec"],
            "summary": "Write a file of any size inside a machine",
            "description": "The body is the file; it needs a `Content-Length`. Nothing appears \
                unless all of it arrived.",
            "parameters": pushed,
            "requestBody": {
                "required": true, "content": { "application/octet-stream": {} },
            },
            "responses": {
                "200": parts::succeeded("The file as it is in the machine.", &facts),
                "default": parts::failed(),
            },
        },
        "get": {
            "operationId": "pull_stream", "tags": ["exec"],
            "summary": "Read a file of any size inside a machine",
            "description": FRAMES_TEXT,
            "parameters": pulled,
            "responses": {
                "200": { "description": "The file in frames.", "content": { FRAMES: {} } },
                "default": parts::failed(),
            },
        },
    })
}
