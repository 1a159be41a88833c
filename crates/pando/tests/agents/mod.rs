//! An agent with the protocol library's own client, at a URL. That client speaks HTTP over unix
//! sockets only, so a relay that knows nothing of HTTP leads its bytes to the port.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::time::Duration;

use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, UnixSocketHttpClient};
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::Value;
use tokio::net::{TcpStream, UnixListener};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::follow;

/// No answer takes longer: a first boot under translation on a busy machine, in several waits.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a call is waited for that cannot be answered.
const IN_VAIN: Duration = Duration::from_secs(5);

/// An era of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Every request carries its own context.
    Modern,
    /// A session is begun first.
    Legacy,
}

/// A client that can do nothing but ask.
struct Plain;

impl ClientHandler for Plain {}

/// See the module.
pub struct Agent {
    runtime: Runtime,
    client: RunningService<RoleClient, Plain>,
    _directory: tempfile::TempDir,
}

impl Agent {
    /// Connects to `url`, with this token if there is one.
    ///
    /// # Errors
    /// What the client says when no session begins.
    pub fn connect(url: &str, token: Option<&str>, era: Era) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("relay.sock");
        let authority = url.strip_prefix("http://").expect("a URL").split('/').next();
        let authority = authority.expect("an authority").to_owned();
        let client = {
            let _guard = runtime.enter();
            let listener = UnixListener::bind(&socket).expect("bind");
            runtime.spawn(async move {
                while let Ok((mut near, _)) = listener.accept().await {
                    let authority = authority.clone();
                    tokio::spawn(async move {
                        // A port that nobody has is a connection that ends.
                        let Ok(mut far) = TcpStream::connect(authority).await else { return };
                        far.set_nodelay(true).expect("a TCP connection");
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    });
                }
            });
            let mut config = StreamableHttpClientTransportConfig::with_uri(url);
            if let Some(token) = token {
                config = config.auth_header(token);
            }
            let client = UnixSocketHttpClient::new(&socket.display().to_string(), url);
            let transport = StreamableHttpClientTransport::with_client(client, config);
            let lifecycle = match era {
                Era::Modern => ClientLifecycleMode::Discover {
                    preferred_versions: vec![ProtocolVersion::V_2026_07_28],
                },
                Era::Legacy => ClientLifecycleMode::Initialize,
            };
            let begin =
                async { timeout(DEADLINE, Plain.serve_with_lifecycle(transport, lifecycle)).await };
            runtime.block_on(begin).expect("an answer in time")
        };
        let client = client.map_err(|error| format!("{error:?}"))?;
        Ok(Self { runtime, client, _directory: directory })
    }

    /// Returns the names of the tools that are listed.
    pub fn tools(&self) -> Vec<String> {
        let listed = self.runtime.block_on(async {
            timeout(DEADLINE, self.client.list_all_tools()).await.expect("in time")
        });
        let tools = listed.expect("a list");
        tools.iter().map(|tool| tool.name.to_string()).collect()
    }

    /// Calls a tool and returns its envelope, or what the client says.
    ///
    /// # Errors
    /// When there is no answer to the call.
    pub fn try_call(&self, tool: &str, arguments: &Value) -> Result<Value, String> {
        let params = CallToolRequestParams::new(tool.to_owned())
            .with_arguments(arguments.as_object().expect("an object").clone());
        let called = self.runtime.block_on(async {
            timeout(DEADLINE, self.client.call_tool(params)).await.expect("in time")
        });
        let result = called.map_err(|error| error.to_string())?;
        Ok(result.structured_content.expect("structured content"))
    }

    /// Calls a tool of a server that is killed meanwhile. The client may say so, or try to reach
    /// the server again for as long as it is asked to.
    pub fn call_in_vain(&self, tool: &str, arguments: &Value) {
        let params = CallToolRequestParams::new(tool.to_owned())
            .with_arguments(arguments.as_object().expect("an object").clone());
        let called = async { timeout(IN_VAIN, self.client.call_tool(params)).await };
        let _ = self.runtime.block_on(called);
    }

    fn answer(&self, tool: &str, arguments: &Value) -> Value {
        self.try_call(tool, arguments).expect("an answer")
    }

    /// Calls a tool and returns its envelope; goes on waiting and confirms where it is told to.
    pub fn envelope(&self, tool: &str, arguments: &Value) -> Value {
        follow::envelope(&mut |tool, arguments| self.answer(tool, arguments), tool, arguments)
    }

    /// Calls a tool that must succeed and returns its result.
    pub fn ok(&self, tool: &str, arguments: &Value) -> Value {
        follow::ok(&mut |tool, arguments| self.answer(tool, arguments), tool, arguments)
    }

    /// Runs a line in a guest and returns what it printed.
    pub fn sh(&self, address: &str, line: &str) -> String {
        let arguments = serde_json::json!({"address": address, "command": line});
        let result = self.ok("exec_run", &arguments);
        assert_eq!(result["exit_code"], 0, "{line}: {result:#}");
        result["stdout"].as_str().unwrap().trim_end().to_owned()
    }

    /// Ends the session.
    pub fn end(self) {
        let ended = async { timeout(DEADLINE, self.client.cancel()).await };
        self.runtime.block_on(ended).expect("in time").expect("an end");
    }
}
