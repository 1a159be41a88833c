//! The server over HTTP, as a service that whoever listens can mount. It is told who calls by an
//! extension of the request, a [`Caller`]; it knows no tokens and no sockets.
//!
//! ```text
//!  request ─▶ caller? ─▶ profile of the URL ─▶ its own session? ─▶ body ─▶ a message? ─▶ rmcp
//!               │ 401       │ 400                │ 404             │ 408, 413  │ 400
//! ```
//!
//! Under the revision of 2026-07-28 each request is served by itself, and a client that hangs up
//! has taken its request back. Under earlier ones `initialize` begins a session; it belongs to
//! whoever began it, with the profile of the URL where it was begun, and to nobody else.

mod late;
mod sessions;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use pando_api::{ApiError, Caller, Control};
use pando_model::{ErrorCode, RequestId};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::handler::Handler;
use crate::limits::{BODY_WAIT, KEEP_ALIVE, MAX_HANDLERS, MAX_LINE_BYTES, MAX_SESSIONS};
use crate::message::{self, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Message};
use crate::profile::{Access, Profile};
use sessions::{Owner, Sessions};

/// The header that names a session.
const SESSION: &str = "mcp-session-id";
/// Where the server is.
const PATH: &str = "/mcp";

/// How a server is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of this host that a request may be for, with or without a port. A request for another
    /// was sent by a page that rebinds names.
    pub hosts: Vec<String>,
    /// Origins whose pages may call, as `SCHEME://HOST:PORT`, where `*` is any port. A client that
    /// is no page names none.
    pub origins: Vec<String>,
}

impl Options {
    /// Returns the options of a server on the loopback addresses.
    pub fn loopback() -> Self {
        let hosts = ["localhost", "127.0.0.1", "[::1]"];
        Self {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            origins: hosts.iter().map(|host| format!("http://{host}:*")).collect(),
        }
    }
}

/// See the module. Made once for a listener; a clone is the same server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    control: Arc<dyn Control>,
    /// Makes the tokens of plans this server's own.
    key: [u8; 32],
    sessions: Arc<Sessions>,
    /// One for whoever calls under a profile, so that tools are made and calls are counted once.
    handlers: Mutex<HashMap<Owner, Handler>>,
    config: StreamableHttpServerConfig,
    /// Set once the server closes: what was begun goes on without its clients.
    closing: CancellationToken,
}

impl Server {
    /// Returns a server of `control`. `key` makes the tokens of plans this server's own.
    pub fn new(control: Arc<dyn Control>, key: [u8; 32], options: Options) -> Self {
        let config = StreamableHttpServerConfig::default()
            .with_allowed_hosts(options.hosts)
            .with_allowed_origins(options.origins)
            .enforce_origin_validation()
            .with_json_response(true)
            .with_sse_keep_alive(Some(KEEP_ALIVE))
            .with_max_request_body_bytes(MAX_LINE_BYTES)
            .with_cancellation_token(CancellationToken::new());
        let shared = Shared {
            control,
            key,
            sessions: Arc::new(Sessions::new(MAX_SESSIONS)),
            handlers: Mutex::default(),
            config,
            closing: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the routes: `/mcp`.
    pub fn router(&self) -> Router {
        let serve = async |State(server): State<Self>, request| server.serve(request).await;
        Router::new().route(PATH, any(serve)).with_state(self.clone())
    }

    /// Ends every stream and session. What was begun in them goes on.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.sessions.close().await;
        self.shared.config.cancellation_token.cancel();
    }

    /// Answers one request, whose extensions must hold its [`Caller`].
    pub async fn serve(&self, request: Request) -> Response {
        self.answer(request).await.unwrap_or_else(|refusal| *refusal)
    }

    async fn answer(&self, request: Request) -> Result<Response, Box<Response>> {
        let (parts, body) = request.into_parts();
        let owner = owner(parts.extensions.get(), &parts.uri)?;
        let session = parts.headers.get(SESSION);
        if let Some(id) = session
            && !id.to_str().is_ok_and(|id| self.shared.sessions.use_of(id, &owner))
        {
            let error = ApiError::new(ErrorCode::NotFound, "there is no such session").hint(
                "it has ended, or somebody else began it, or at another URL: initialize anew",
            );
            return Err(refusal(StatusCode::NOT_FOUND, &error));
        }
        let (body, begins) = if parts.method == Method::POST {
            let bytes = read(body).await?;
            let message = check(&bytes)?;
            let begins = message.method.as_deref() == Some("initialize");
            (Body::from(bytes), begins && session.is_none())
        } else {
            (Body::empty(), false)
        };
        let sessions = self.shared.sessions.of(owner.clone());
        // How the listener names the client leads, so that the audit tells where a call came from.
        let via = parts.extensions.get().and_then(|caller: &Caller| caller.session.clone());
        let session = match (begins, via) {
            (true, Some(via)) => Some(format!("{via}/mcp:{}", RequestId::random())),
            (true, None) => Some(format!("mcp:{}", RequestId::random())),
            (false, via) => via,
        };
        let handler = self.handler(&owner).for_caller(Caller { session, ..owner.caller() });
        let mut handler = handler.until(self.shared.closing.clone());
        if begins {
            handler = handler.until(sessions.closed());
            if !sessions.have_room() {
                let message = format!("{MAX_SESSIONS} sessions are open, all of other callers");
                let error = ApiError::new(ErrorCode::LimitExceeded, message)
                    .hint("the revision 2026-07-28 needs none; or try again later");
                return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, &error));
            }
        }
        let config = self.shared.config.clone();
        let service =
            StreamableHttpService::new(move || Ok(handler.clone()), Arc::new(sessions), config);
        let request = Request::from_parts(parts, body);
        let answering = async move { service.handle(request).await.map(Body::new) };
        Ok(late::respond(answering).await)
    }

    /// Returns the handler of whoever calls under a profile.
    fn handler(&self, owner: &Owner) -> Handler {
        let mut handlers = self.shared.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handler) = handlers.get(owner) {
            return handler.clone();
        }
        // They can be made anew at any time.
        if handlers.len() >= MAX_HANDLERS {
            handlers.clear();
        }
        let control = Arc::clone(&self.shared.control);
        let handler = Handler::new(control, owner.caller(), owner.profile.clone(), self.shared.key);
        handlers.insert(owner.clone(), handler.clone());
        handler
    }
}

/// Returns who calls, under which profile.
fn owner(caller: Option<&Caller>, uri: &Uri) -> Result<Owner, Box<Response>> {
    let Some(caller) = caller else {
        let error = ApiError::new(ErrorCode::Forbidden, "it is not known who calls");
        return Err(refusal(StatusCode::UNAUTHORIZED, &error));
    };
    let refused = |error: ApiError| refusal(StatusCode::BAD_REQUEST, &error);
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|source| {
        refused(ApiError::parameter("query", format!("the URL's query: {source}")))
    })?;
    let mut profile = Profile::of_query(&pairs.0).map_err(refused)?;
    if caller.read_only {
        profile.access = Access::ReadOnly;
    }
    Ok(Owner { principal: caller.principal.clone(), role: caller.role, profile })
}

/// Returns a request's body.
async fn read(body: Body) -> Result<Bytes, Box<Response>> {
    let reading = tokio::time::timeout(BODY_WAIT, to_bytes(body, MAX_LINE_BYTES));
    let (status, text) = match reading.await {
        Ok(Ok(bytes)) => return Ok(bytes),
        Ok(Err(_)) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("this message was cut off, or has more than {MAX_LINE_BYTES} bytes"),
        ),
        Err(_) => (
            StatusCode::REQUEST_TIMEOUT,
            format!("this message did not arrive within {} s", BODY_WAIT.as_secs()),
        ),
    };
    Err(json(status, &message::error(None, INVALID_REQUEST, &text)))
}

/// Returns a request's message, or what it is answered in place of being handled.
fn check(bytes: &[u8]) -> Result<Message, Box<Response>> {
    match message::read(bytes) {
        Ok(Some(message)) => Ok(message),
        // Nobody expects an answer.
        Ok(None) => Err(empty(StatusCode::ACCEPTED)),
        Err(answer) => {
            let code = answer.pointer("/error/code").and_then(Value::as_i64).unwrap_or_default();
            let status = match i32::try_from(code) {
                Ok(INVALID_PARAMS) => StatusCode::OK,
                Ok(METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
                _ => StatusCode::BAD_REQUEST,
            };
            Err(json(status, &answer))
        }
    }
}

fn empty(status: StatusCode) -> Box<Response> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Box::new(response)
}

fn json(status: StatusCode, value: &Value) -> Box<Response> {
    let mut response = empty(status);
    *response.body_mut() = Body::from(value.to_string());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Returns the answer to a request that is refused before its message is looked at.
fn refusal(status: StatusCode, error: &ApiError) -> Box<Response> {
    let code = if status == StatusCode::BAD_REQUEST { INVALID_PARAMS } else { INVALID_REQUEST };
    let text = match &error.hint {
        Some(hint) => format!("{}; {hint}", error.message),
        None => error.message.clone(),
    };
    let mut answer = message::error(None, code, &text);
    if let (Some(object), Ok(data)) =
        (answer.pointer_mut("/error").and_then(Value::as_object_mut), serde_json::to_value(error))
    {
        object.insert("data".to_owned(), data);
    }
    json(status, &answer)
}
