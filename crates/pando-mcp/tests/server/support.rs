//! A client that speaks the protocol line by line, so that tests see what is on the wire.

use std::sync::Arc;
use std::time::Duration;

use pando_api::fake::FakeControl;
use pando_api::{Caller, Control};
use pando_mcp::handler::Handler;
use pando_mcp::{Profile, ServeError, serve};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf, duplex,
    split,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No answer takes longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// An era of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Every request carries its own context.
    Modern,
    /// `initialize` first, with this revision.
    Legacy(&'static str),
}

pub const ERAS: &[Era] = &[Era::Modern, Era::Legacy("2025-11-25"), Era::Legacy("2025-06-18")];

pub struct Session {
    era: Era,
    capabilities: Value,
    writer: WriteHalf<DuplexStream>,
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    next_id: i64,
    /// What the server said without being asked.
    pub notifications: Vec<Value>,
    /// What an elicitation is answered with.
    pub consent: Option<Value>,
    /// Questions that the server asked.
    pub questions: Vec<Value>,
    server: JoinHandle<Result<(), ServeError>>,
}

pub fn control() -> Arc<FakeControl> {
    Arc::new(FakeControl::new())
}

pub fn handler(control: &Arc<FakeControl>, profile: Profile) -> Handler {
    let control: Arc<dyn Control> = Arc::<FakeControl>::clone(control);
    Handler::new(control, Caller::local(1000), profile, [7; 32])
}

impl Session {
    /// Opens a session of the default profile, with a client that has no capabilities.
    pub async fn open(control: &Arc<FakeControl>, era: Era) -> Self {
        Self::with(handler(control, Profile::default()), era, json!({})).await
    }

    pub async fn with(handler: Handler, era: Era, capabilities: Value) -> Self {
        let (mine, theirs) = duplex(1 << 16);
        let (reader, writer) = split(theirs);
        let server = tokio::spawn(serve(handler, reader, writer));
        let (reader, writer) = split(mine);
        let lines = BufReader::new(reader).lines();
        let mut session = Self {
            era,
            capabilities,
            writer,
            lines,
            next_id: 0,
            notifications: Vec::new(),
            consent: None,
            questions: Vec::new(),
            server,
        };
        if let Era::Legacy(version) = era {
            let params = json!({
                "protocolVersion": version, "capabilities": session.capabilities,
                "clientInfo": {"name": "test", "version": "1"},
            });
            let answer = session.request("initialize", params).await;
            assert_eq!(answer["result"]["protocolVersion"], version, "{answer}");
            session.notify("notifications/initialized", json!({})).await;
        }
        session
    }

    pub async fn line(&mut self, line: &str) {
        self.writer.write_all(line.as_bytes()).await.unwrap();
        self.writer.write_all(b"\n").await.unwrap();
    }

    pub async fn notify(&mut self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.line(&message.to_string()).await;
    }

    /// Returns the server's next line.
    pub async fn read(&mut self) -> Value {
        let line = timeout(DEADLINE, self.lines.next_line()).await.expect("an answer in time");
        let line = line.unwrap().expect("the server goes on");
        serde_json::from_str(&line).unwrap()
    }

    /// Sends a request and returns its id.
    pub async fn send(&mut self, method: &str, mut params: Value) -> i64 {
        self.next_id += 1;
        if self.era == Era::Modern {
            let meta = params.as_object_mut().unwrap().entry("_meta").or_insert(json!({}));
            meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
            meta["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
            meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
        }
        let id = self.next_id;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.line(&request.to_string()).await;
        id
    }

    /// Returns the answer to a request; answers what the server asks meanwhile.
    pub async fn answer(&mut self, id: i64) -> Value {
        loop {
            let message = self.read().await;
            if message.get("method").is_some() {
                match message.get("id") {
                    None => self.notifications.push(message),
                    Some(asked) => {
                        let reply = match &self.consent {
                            Some(result) => {
                                json!({"jsonrpc": "2.0", "id": asked, "result": result})
                            }
                            None => json!({"jsonrpc": "2.0", "id": asked,
                                "error": {"code": -32_601, "message": "no"}}),
                        };
                        self.questions.push(message);
                        self.line(&reply.to_string()).await;
                    }
                }
                continue;
            }
            assert_eq!(message["id"], id, "{message}");
            return message;
        }
    }

    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params).await;
        self.answer(id).await
    }

    /// Makes a request that says nothing of its revision.
    pub async fn plain(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.line(&request.to_string()).await;
        self.answer(id).await
    }

    /// Calls a tool and returns the envelope, having checked everything around it.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let answer = self.request("tools/call", params).await;
        envelope(&answer)
    }

    /// Closes the client's end and waits until the server has ended.
    pub async fn close(mut self) {
        self.writer.shutdown().await.unwrap();
        timeout(DEADLINE, self.server).await.expect("it ends").unwrap().unwrap();
    }
}

/// Returns the envelope of a tool's result: structured, and the same as text.
pub fn envelope(answer: &Value) -> Value {
    let result = &answer["result"];
    let envelope = &result["structuredContent"];
    assert!(envelope.is_object(), "{answer}");
    let text = result["content"][0]["text"].as_str().unwrap();
    assert_eq!(&serde_json::from_str::<Value>(text).unwrap(), envelope);
    assert_eq!(result["content"].as_array().map(Vec::len), Some(1));
    assert_eq!(envelope["success"], json!(result["isError"] == json!(false)), "{answer}");
    envelope.clone()
}
