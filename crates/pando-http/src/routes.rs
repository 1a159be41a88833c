//! Routes: every path, method and body has an answer, and every answer but a stream is an
//! envelope.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{any, get, post};
use bytes::Bytes;
use pando_api::verb::Runs;
use pando_api::{ApiError, Call, Caller, Control, Effect, Envelope, Verb, catalogue};
use pando_model::{ErrorCode, OperationId, RequestId};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::body::ChannelBody;
use crate::limits::{BODY_TIMEOUT, MAX_JSON_BYTES};
use crate::request::{self, Peer, REQUEST_ID};
use crate::server::About;
use crate::streams;
use crate::unwind::Caught;

pub(crate) struct App {
    pub(crate) control: Arc<dyn Control>,
    about: About,
    /// Streams that outlive their request; joined when the daemon stops.
    pub(crate) tasks: TaskTracker,
}

pub(crate) type Shared = State<Arc<App>>;
type Pairs = Vec<(String, String)>;
type InPath = Result<Path<String>, PathRejection>;

pub(crate) fn router(control: Arc<dyn Control>, about: About, tasks: TaskTracker) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/version", get(version))
        .route("/v1/catalogue", get(list_verbs))
        .route("/v1/openapi.json", get(document))
        .route("/v1/operations/{id}/events", get(events))
        .route("/v1/attach", post(streams::attach))
        .route("/v1/files", get(streams::pull).put(streams::push))
        .route("/v1/{verb}", any(verb))
        .fallback(no_route)
        .method_not_allowed_fallback(no_route)
        .with_state(Arc::new(App { control, about, tasks }))
}

/// Returns the response that carries an envelope.
pub(crate) fn respond(
    request_id: Option<&RequestId>,
    fine: StatusCode,
    outcome: Result<Value, ApiError>,
) -> Response {
    let status = match &outcome {
        Ok(_) => fine,
        Err(error) => StatusCode::from_u16(error.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let text = serde_json::to_vec(&Envelope::from(outcome)).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(Ok(id)) = request_id.map(|id| HeaderValue::from_str(id.as_str())) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// Returns the caller of a request and the answer that its failure gets.
pub(crate) fn identify(request: &Request) -> Result<Caller, ApiError> {
    let peer = request.extensions().get::<Peer>().copied();
    let peer = peer.ok_or_else(|| ApiError::new(ErrorCode::Forbidden, "the peer is unknown"))?;
    request::caller(peer, request.headers())
}

/// Returns a JSON body's bytes, all of them or an error.
pub(crate) async fn json_body(body: Body) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_JSON_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(ApiError::new(
            ErrorCode::InvalidParameter,
            format!("the body cannot be read, or has more than {MAX_JSON_BYTES} bytes: {error}"),
        )),
        Err(_) => Err(ApiError::new(
            ErrorCode::DeadlineExceeded,
            format!("the body was not sent within {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}

pub(crate) fn parse_json(bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|source| {
        ApiError::new(ErrorCode::InvalidParameter, format!("the body is not JSON: {source}"))
    })
}

fn word(in_path: InPath) -> Result<String, ApiError> {
    in_path.map(|Path(word)| word).map_err(|source| {
        ApiError::new(ErrorCode::InvalidParameter, format!("the path is malformed: {source}"))
    })
}

async fn healthz() -> Response {
    respond(None, StatusCode::OK, Ok(json!({ "status": "ok" })))
}

async fn version(State(app): Shared) -> Response {
    let about = serde_json::to_value(&app.about)
        .map_err(|source| ApiError::new(ErrorCode::Internal, source.to_string()));
    respond(None, StatusCode::OK, about)
}

async fn list_verbs() -> Response {
    let verbs = catalogue().iter().map(|verb| {
        json!({
            "name": verb.name,
            "aliases": verb.aliases.iter().map(|alias| alias.name).collect::<Vec<_>>(),
            "toolset": verb.toolset, "effect": verb.effect, "runs": verb.runs,
            "summary": verb.summary, "description": verb.description(),
            "params": verb.params, "result": verb.result,
        })
    });
    respond(None, StatusCode::OK, Ok(json!({ "verbs": verbs.collect::<Vec<_>>() })))
}

/// Sends the OpenAPI document as it is: readers of such documents know no envelope.
async fn document() -> Response {
    let mut response = Response::new(Body::from(pando_api::openapi().to_string()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn no_route(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(120).collect();
    let error = ApiError::new(
        ErrorCode::UnknownVerb,
        format!("nothing answers {} {path}", request.method()),
    );
    respond(
        None,
        StatusCode::OK,
        Err(error.hint("`GET /v1/catalogue` lists all verbs; call one with `POST /v1/VERB`")),
    )
}

async fn verb(State(app): Shared, name: InPath, request: Request) -> Response {
    let (caller, name) = match identify(&request).and_then(|caller| Ok((caller, word(name)?))) {
        Ok(both) => both,
        Err(error) => return respond(None, StatusCode::OK, Err(error)),
    };
    let detached = wants_detached(request.headers());
    let (status, outcome) = match read_call(&name, request).await {
        Ok(call) if detached && call.verb().runs != Runs::Directly => {
            let started = Caught::new(app.control.start(&caller, call)).await;
            (StatusCode::ACCEPTED, started.map(|id| json!({ "operation_id": id })))
        }
        Ok(call) => (StatusCode::OK, Caught::new(app.control.call(&caller, call)).await),
        Err(error) => (StatusCode::OK, Err(error)),
    };
    if let Err(error) = &outcome {
        tracing::info!(request = %caller.request_id, verb = name, code = %error.code, %error, "refused or failed");
    }
    respond(Some(&caller.request_id), status, outcome)
}

fn wants_detached(headers: &HeaderMap) -> bool {
    headers.get("prefer").is_some_and(|value| value == "respond-async")
}

async fn read_call(name: &str, request: Request) -> Result<Call, ApiError> {
    let method = request.method().clone();
    if method == Method::POST {
        let bytes = json_body(request.into_body()).await?;
        return Call::parse(name, parse_json(&bytes)?);
    }
    let Some(verb) = Verb::find(name) else {
        return Call::parse(name, Value::Null);
    };
    if method != Method::GET || verb.effect != Effect::Read {
        return Err(ApiError::new(
            ErrorCode::InvalidParameter,
            format!("{} cannot be called with {method}", verb.name),
        )
        .hint(format!("POST /v1/{}", verb.name)));
    }
    Call::parse(name, request::parameters(verb, &pairs(&request)?))
}

/// Returns a request's query as pairs.
pub(crate) fn pairs(request: &Request) -> Result<Pairs, ApiError> {
    Query::<Pairs>::try_from_uri(request.uri()).map(|Query(pairs)| pairs).map_err(|source| {
        ApiError::new(ErrorCode::InvalidParameter, format!("the query is malformed: {source}"))
    })
}

/// Sends an operation's states, one JSON object a line, until its final one.
async fn events(State(app): Shared, id: InPath, request: Request) -> Response {
    let caller = identify(&request);
    let watching = async {
        let caller = caller?;
        let id = word(id)?
            .parse::<OperationId>()
            .map_err(|source| ApiError::parameter("id", source.to_string()))?;
        Caught::new(app.control.watch_operation(&caller, &id)).await
    };
    let mut states = match watching.await {
        Ok(states) => states,
        Err(error) => return respond(None, StatusCode::OK, Err(error)),
    };
    let (lines, body) = mpsc::channel(1);
    app.tasks.spawn(async move {
        loop {
            let view = states.borrow_and_update().clone();
            let is_final = view.status.is_final();
            let Ok(mut line) = serde_json::to_vec(&view) else { return };
            line.push(b'\n');
            if lines.send(Bytes::from(line)).await.is_err() || is_final {
                return;
            }
            // Cancel-safe: a change that is not seen here is seen by the next call.
            let changed = tokio::select! {
                changed = states.changed() => changed.is_ok(),
                () = lines.closed() => false,
            };
            if !changed {
                return;
            }
        }
    });
    let mut response = Response::new(Body::new(ChannelBody::new(body)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
