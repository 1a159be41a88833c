//! A listener on loopback and a client of it, so that tests see what is on the wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use pando_api::fake::FakeControl;
use pando_api::{Caller, Control};
use pando_mcp::http::{Options, Server};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// No answer takes longer.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub const MODERN: &str = "2026-07-28";
pub const VERSIONS: &[&str] = &[MODERN, "2025-11-25", "2025-06-18"];

/// A server on a port of its own.
pub struct Served {
    pub control: Arc<FakeControl>,
    pub server: Server,
    pub address: SocketAddr,
    _listening: AbortOnDropHandle<()>,
}

/// Takes the header `authorization` for a principal, as a listener would once it has checked it.
async fn as_caller(mut request: Request, next: Next) -> Response {
    if let Some(name) = request.headers().get("authorization") {
        let mut caller = Caller::local(1000);
        name.to_str().unwrap().clone_into(&mut caller.principal);
        caller.read_only = caller.principal == "reader";
        request.extensions_mut().insert(caller);
    }
    next.run(request).await
}

impl Served {
    pub async fn open() -> Self {
        let control = Arc::new(FakeControl::new());
        let as_control: Arc<dyn Control> = Arc::<FakeControl>::clone(&control);
        let server = Server::new(as_control, [7; 32], Options::loopback());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = server.router().layer(from_fn(as_caller));
        let listening = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { control, server, address, _listening: AbortOnDropHandle::new(listening) }
    }

    /// Returns a client that has said nothing yet.
    pub fn client(&self, version: &str) -> Client {
        Client {
            address: self.address,
            principal: "ada".to_owned(),
            path: "/mcp".to_owned(),
            version: version.to_owned(),
            session: None,
            capabilities: json!({}),
            next_id: 0,
        }
    }

    /// Returns a client that can call: of the older revisions, one with a session.
    pub async fn begun(&self, version: &str) -> Client {
        let mut client = self.client(version);
        client.begin().await;
        client
    }
}

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    pub principal: String,
    pub path: String,
    pub version: String,
    pub session: Option<String>,
    pub capabilities: Value,
    next_id: i64,
}

impl Client {
    pub fn is_modern(&self) -> bool {
        self.version == MODERN
    }

    pub async fn begin(&mut self) {
        if self.is_modern() {
            return;
        }
        let params = json!({
            "protocolVersion": self.version, "capabilities": self.capabilities,
            "clientInfo": {"name": "test", "version": "1"},
        });
        let mut reply = self.post("initialize", params).await;
        self.session =
            reply.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        let answer = reply.answer().await;
        assert_eq!(answer["result"]["protocolVersion"], self.version, "{answer}");
        assert!(self.session.is_some());
        let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let reply = self.send("POST", &[], done.to_string()).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
    }

    /// Sends any request. Of headers with the same name, the last counts; an empty one is left out.
    pub async fn send(&self, method: &str, headers: &[(&str, &str)], body: String) -> Reply {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // Whoever hung up wants no more.
            let _ = connection.await;
        }));
        let mut request = hyper::Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = self.path.parse().unwrap();
        let host = self.address.to_string();
        let session = self.session.clone().unwrap_or_default();
        let usual = [
            ("host", host.as_str()),
            ("authorization", &self.principal),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("mcp-protocol-version", &self.version),
            ("mcp-session-id", &session),
        ];
        for (name, value) in usual.iter().chain(headers) {
            let name: hyper::header::HeaderName = name.parse().unwrap();
            if value.is_empty() {
                request.headers_mut().remove(&name);
            } else {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        let response = timeout(DEADLINE, sender.send_request(request)).await.expect("a head");
        let (head, body) = response.unwrap().into_parts();
        Reply {
            status: head.status,
            headers: head.headers,
            body,
            text: String::new(),
            _connection: connection,
        }
    }

    /// Returns a request, and the headers that it must have.
    pub fn request(&mut self, method: &str, mut params: Value) -> (Value, Vec<(String, String)>) {
        self.next_id += 1;
        let mut headers = Vec::new();
        if self.is_modern() && method != "initialize" {
            let meta = params.as_object_mut().unwrap().entry("_meta").or_insert(json!({}));
            meta["io.modelcontextprotocol/protocolVersion"] = json!(self.version);
            meta["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
            meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
            headers.push(("mcp-method".to_owned(), method.to_owned()));
            let name = ["name", "uri", "taskId"].iter().find_map(|key| params[*key].as_str());
            if let Some(name) = name {
                headers.push(("mcp-name".to_owned(), name.to_owned()));
            }
        }
        let id = self.next_id;
        (json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}), headers)
    }

    pub async fn post(&mut self, method: &str, params: Value) -> Reply {
        let (request, headers) = self.request(method, params);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.send("POST", &headers, request.to_string()).await
    }

    /// Returns the answer to a request that succeeds as far as HTTP is concerned.
    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        let mut reply = self.post(method, params).await;
        if reply.status != StatusCode::OK {
            let status = reply.status;
            panic!("{status}: {}", reply.rest().await);
        }
        reply.answer().await
    }

    /// Calls a tool and returns its envelope.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.ask("tools/call", json!({"name": tool, "arguments": arguments})).await;
        let envelope = answer["result"]["structuredContent"].clone();
        assert!(envelope.is_object(), "{answer}");
        envelope
    }
}

/// A response of which the head has come.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
    _connection: AbortOnDropHandle<()>,
}

impl Reply {
    pub fn is_stream(&self) -> bool {
        let kind = self.headers.get("content-type").map(|kind| kind.to_str().unwrap());
        kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    async fn more(&mut self) -> bool {
        match timeout(DEADLINE, self.body.frame()).await.expect("more in time") {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.text.push_str(std::str::from_utf8(&data).unwrap());
                }
                true
            }
            Some(Err(_)) | None => false,
        }
    }

    /// Returns whatever is left.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        std::mem::take(&mut self.text)
    }

    /// Waits for a sign of life that is no message.
    pub async fn comment(&mut self) {
        while !self.text.contains("\n\n") {
            assert!(self.more().await, "it goes on");
        }
        assert!(self.text.starts_with(':'), "{}", self.text);
    }

    /// Returns the next message: an event's, or the whole body.
    pub async fn message(&mut self) -> Option<Value> {
        if !self.is_stream() {
            let text = self.rest().await;
            return (!text.is_empty()).then(|| serde_json::from_str(&text).expect(&text));
        }
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let data: String =
                    event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                if !data.trim().is_empty() {
                    return Some(serde_json::from_str(data.trim()).expect(&data));
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Returns the answer, having dropped what was said before it.
    pub async fn answer(&mut self) -> Value {
        loop {
            let message = self.message().await.expect("an answer");
            if message.get("method").is_none() {
                return message;
            }
        }
    }
}

pub async fn until(what: &str, mut found: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if found() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}
