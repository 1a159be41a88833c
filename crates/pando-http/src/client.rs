//! A [`Control`] on the other side of the daemon's socket, or of its port on loopback. It finds the
//! daemon again after a restart: reads and calls with an idempotency key are repeated, and every
//! call that becomes an operation is given a key, so that a repeated one finds the first one's
//! operation.

mod connection;
mod streams;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use pando_api::verb::Runs;
use pando_api::{
    ApiError, AttachIo, AttachRequest, Call, Caller, Control, Effect, Envelope, OperationView,
    PullRequest, PushRequest,
};
use pando_model::guest::{ExecOutcome, FileFacts};
use pando_model::{ErrorCode, OperationId};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::client::connection::{Body, Connections, Lost, Place};
use crate::limits::MAX_EVENT_BYTES;
use crate::request::{IDEMPOTENCY_KEY, READ_ONLY, REQUEST_ID, SESSION};
use crate::server::About;

/// Most connections that one call may lose before it gives up.
const MAX_ATTEMPTS: u32 = 4;

/// Starts a daemon where none answers.
#[async_trait]
pub trait Launch: Send + Sync {
    /// Returns once a daemon listens on the socket, started by us or by somebody else.
    ///
    /// # Errors
    /// `daemon_unreachable`, with where to look.
    async fn launch(&self) -> Result<(), ApiError>;
}

/// A client of one daemon.
#[derive(Clone)]
pub struct Client {
    connections: Arc<Connections>,
}

impl Client {
    /// Returns a client of the socket at `path`; `launcher` starts a daemon where none answers.
    pub fn new(path: impl Into<PathBuf>, launcher: Option<Arc<dyn Launch>>) -> Self {
        Self::of(Place::Socket(path.into()), launcher)
    }

    /// Returns a client of the daemon at `url`, which must be `http://LOOPBACK:PORT`: a token sent
    /// elsewhere without TLS would be everybody's.
    ///
    /// # Errors
    /// `invalid_parameter` for another URL, or a token that no header can carry.
    pub fn at_url(url: &str, token: Option<String>) -> Result<Self, ApiError> {
        let address = loopback_address(url).ok_or_else(|| {
            let shown: String = url.chars().take(80).collect();
            ApiError::parameter("url", format!("`{shown}` is not `http://127.0.0.1:PORT`"))
                .hint("`pando daemon status` shows the URL")
        })?;
        if token.as_deref().is_some_and(|token| !is_header_text(token)) {
            return Err(ApiError::parameter("token", "the token is not visible ASCII")
                .hint("export PANDO_TOKEN=\"$(pando token show)\""));
        }
        Ok(Self::of(Place::Port { address, token }, None))
    }

    fn of(place: Place, launcher: Option<Arc<dyn Launch>>) -> Self {
        Self { connections: Arc::new(Connections::new(place, launcher)) }
    }

    /// Returns what the daemon says of itself.
    ///
    /// # Errors
    /// `daemon_unreachable`.
    pub async fn about(&self) -> Result<About, ApiError> {
        let parts = Head { method: Method::GET, path: "/version".to_owned(), headers: Vec::new() };
        let value = self.exchange(&parts, Bytes::new(), Repeat::Safe).await?;
        decoded(value)
    }

    /// Returns a request as it is sent.
    fn message(&self, head: &Head, body: Body) -> Result<Request<Body>, ApiError> {
        let invalid = |detail: String| ApiError::new(ErrorCode::InvalidParameter, detail);
        let (host, token) = match self.connections.place() {
            Place::Socket(_) => ("pando".to_owned(), None),
            Place::Port { address, token } => (address.to_string(), token.as_deref()),
        };
        let mut request = Request::builder()
            .method(head.method.clone())
            .uri(&head.path)
            .header(hyper::header::HOST, host)
            .body(body)
            .map_err(|source| invalid(source.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| invalid("the token is not visible ASCII".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &head.headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| invalid(format!("`{name}` is not visible ASCII")))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(request)
    }

    async fn exchange(&self, head: &Head, body: Bytes, repeat: Repeat) -> Result<Value, ApiError> {
        let response = self.request(head, body, repeat).await?;
        envelope(response).await
    }

    /// Sends a request until a daemon has answered its head.
    async fn request(
        &self,
        head: &Head,
        body: Bytes,
        repeat: Repeat,
    ) -> Result<Response<Incoming>, ApiError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let request = self.message(head, Body::new(Full::new(body.clone())))?;
            match self.connections.send(request).await {
                Ok(response) => return Ok(response),
                Err(Lost::Refused(error)) => return Err(error),
                Err(Lost::Unsent) if attempt < MAX_ATTEMPTS => {}
                Err(Lost::InFlight) if repeat == Repeat::Safe && attempt < MAX_ATTEMPTS => {}
                Err(Lost::Unsent | Lost::InFlight) => return Err(lost(&head.path)),
            }
        }
    }
}

/// Whether a request may be sent again when its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Safe,
    Never,
}

fn lost(path: &str) -> ApiError {
    ApiError::new(
        ErrorCode::DaemonUnreachable,
        format!("the daemon went away during {path}; whether it was done is not known"),
    )
    .hint("pando daemon status")
}

/// A request without its body, so that it can be made again.
struct Head {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
}

impl Head {
    fn post(path: String, caller: &Caller, key: Option<&str>) -> Self {
        let mut head = Self::get(path, caller);
        head.method = Method::POST;
        if let Some(key) = key {
            head.headers.push((IDEMPOTENCY_KEY, key.to_owned()));
        }
        head
    }

    fn get(path: String, caller: &Caller) -> Self {
        let mut headers = vec![(REQUEST_ID, caller.request_id.to_string())];
        if let Some(session) = &caller.session {
            headers.push((SESSION, session.clone()));
        }
        if caller.read_only {
            headers.push((READ_ONLY, "true".to_owned()));
        }
        Self { method: Method::GET, path, headers }
    }
}

/// Returns the address of `http://LOOPBACK:PORT`.
fn loopback_address(url: &str) -> Option<SocketAddr> {
    let rest = url.strip_prefix("http://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':')?;
    let address: IpAddr = match host.strip_prefix('[') {
        Some(inner) => IpAddr::V6(inner.strip_suffix(']')?.parse().ok()?),
        None if host == "localhost" => Ipv4Addr::LOCALHOST.into(),
        None => IpAddr::V4(host.parse().ok()?),
    };
    address.is_loopback().then_some(SocketAddr::new(address, port.parse().ok()?))
}

fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

async fn envelope(response: Response<Incoming>) -> Result<Value, ApiError> {
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MAX_EVENT_BYTES * 2).collect().await;
    let bytes = bytes.map_err(|_| lost("its answer"))?.to_bytes();
    let envelope: Envelope = serde_json::from_slice(&bytes).map_err(|_| {
        ApiError::new(
            ErrorCode::DaemonUnreachable,
            format!("the daemon answered {status} without an envelope; is it another version?"),
        )
        .hint("pando daemon restart")
    })?;
    envelope.into()
}

fn decoded<T: for<'a> Deserialize<'a>>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|source| {
        ApiError::new(
            ErrorCode::DaemonUnreachable,
            format!("the daemon's answer is not understood: {source}"),
        )
        .hint("pando daemon restart")
    })
}

/// Returns the path, key and repeatability of a call.
fn plan(caller: &Caller, call: &Call) -> (String, Option<String>, Repeat) {
    let verb = call.verb();
    let own = || (verb.runs == Runs::AsOperation).then(|| caller.request_id.to_string());
    let key = caller.idempotency_key.clone().or_else(own);
    let safe = verb.effect == Effect::Read || key.is_some();
    let repeat = if safe { Repeat::Safe } else { Repeat::Never };
    (format!("/v1/{}", verb.name), key, repeat)
}

fn encoded(value: &Value) -> Bytes {
    value.to_string().into()
}

#[async_trait]
impl Control for Client {
    async fn call(&self, caller: &Caller, call: Call) -> Result<Value, ApiError> {
        let (path, key, repeat) = plan(caller, &call);
        let head = Head::post(path, caller, key.as_deref());
        self.exchange(&head, encoded(&call.params()?), repeat).await
    }

    async fn start(&self, caller: &Caller, call: Call) -> Result<OperationId, ApiError> {
        #[derive(Deserialize)]
        struct Started {
            operation_id: OperationId,
        }
        if call.verb().runs == Runs::Directly {
            return Err(ApiError::new(
                ErrorCode::InvalidParameter,
                format!("{} is not an operation; it answers directly", call.name()),
            ));
        }
        let (path, key, repeat) = plan(caller, &call);
        let mut head = Head::post(path, caller, key.as_deref());
        head.headers.push(("prefer", "respond-async".to_owned()));
        let value = self.exchange(&head, encoded(&call.params()?), repeat).await?;
        decoded(value).map(|started: Started| started.operation_id)
    }

    async fn watch_operation(
        &self,
        caller: &Caller,
        operation: &OperationId,
    ) -> Result<watch::Receiver<OperationView>, ApiError> {
        streams::watch(self.clone(), caller.clone(), operation.clone()).await
    }

    async fn attach(
        &self,
        caller: &Caller,
        request: AttachRequest,
        io: AttachIo,
    ) -> Result<ExecOutcome, ApiError> {
        streams::attach(self, caller, &request, io).await
    }

    async fn push(
        &self,
        caller: &Caller,
        request: PushRequest,
        chunks: mpsc::Receiver<Vec<u8>>,
    ) -> Result<FileFacts, ApiError> {
        streams::push(self, caller, &request, chunks).await
    }

    async fn pull(
        &self,
        caller: &Caller,
        request: PullRequest,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> Result<FileFacts, ApiError> {
        streams::pull(self, caller, &request, chunks).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_loopback_only() {
        for (url, address) in [
            ("http://127.0.0.1:7717", "127.0.0.1:7717"),
            ("http://localhost:7717/", "127.0.0.1:7717"),
            ("http://[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(loopback_address(url), address.parse().ok(), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:7717",
            "https://127.0.0.1:7717",
            "http://127.0.0.1",
            "http://192.0.2.1:7717",
            "http://example.com:7717",
            "http://localhost.example.com:7717",
            "http://127.0.0.1:7717/v1",
            "http://user@127.0.0.1:7717",
            "http://::1:7717",
        ] {
            assert!(Client::at_url(url, None).is_err(), "{url}");
        }
        assert!(Client::at_url("http://127.0.0.1:1", Some("a b".to_owned())).is_err());
    }
}
