//! An agent with a plain client of our own, which writes and reads lines, and with `pando mcp` as a
//! process of its own.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::follow;
use crate::real::support::Home;

/// No answer takes longer: a first boot under translation on a busy machine, in several waits.
const DEADLINE: Duration = Duration::from_secs(120);

/// An era of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Every request carries its own context.
    Modern,
    /// A session is begun first.
    Legacy,
}

/// An agent with its server.
pub struct Agent {
    era: Era,
    server: Child,
    input: Option<ChildStdin>,
    output: mpsc::Receiver<Value>,
    next_id: u64,
    /// How often it was told how far something was.
    pub progress: usize,
}

fn messages(output: ChildStdout) -> mpsc::Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            let message = serde_json::from_str(&line).expect("only messages on standard output");
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Agent {
    /// Starts the server, with these options.
    pub fn start(home: &Home, era: Era, options: &[&str]) -> Self {
        let mut command = home.command(&[&["mcp"], options].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().unwrap();
        let output = messages(server.stdout.take().unwrap());
        let input = server.stdin.take();
        let mut agent = Self { era, server, input, output, next_id: 0, progress: 0 };
        if era == Era::Legacy {
            let params = json!({
                "protocolVersion": "2025-11-25", "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            });
            let answer = agent.request("initialize", params);
            assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
            let begun = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
            agent.write(&begun);
        }
        agent
    }

    /// Sends a message.
    pub fn write(&mut self, message: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{message}").unwrap();
    }

    /// Sends a request and returns its id.
    pub fn send(&mut self, method: &str, mut params: Value) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        params["_meta"]["progressToken"] = json!(id);
        if self.era == Era::Modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        self.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// Sends a request and returns its answer.
    pub fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params);
        loop {
            let message = self.output.recv_timeout(DEADLINE).expect("an answer in time");
            if message["method"] == "notifications/progress" {
                assert!(message["params"]["progressToken"].as_u64() <= Some(id), "{message}");
                self.progress += 1;
                continue;
            }
            assert_eq!(message["id"], id, "{message}");
            return message;
        }
    }

    /// Calls a tool and returns its first envelope.
    fn answer(&mut self, tool: &str, arguments: &Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let answer = self.request("tools/call", params);
        let envelope = answer["result"]["structuredContent"].clone();
        assert!(envelope.is_object(), "{answer}");
        envelope
    }

    /// Calls a tool and returns its envelope; goes on waiting and confirms where it is told to.
    pub fn envelope(&mut self, tool: &str, arguments: &Value) -> Value {
        follow::envelope(&mut |tool, arguments| self.answer(tool, arguments), tool, arguments)
    }

    /// Calls a tool that must succeed and returns its result.
    pub fn ok(&mut self, tool: &str, arguments: &Value) -> Value {
        follow::ok(&mut |tool, arguments| self.answer(tool, arguments), tool, arguments)
    }

    /// Runs a line in a guest and returns what it printed and its exit status.
    pub fn sh(&mut self, address: &str, line: &str) -> (String, i64) {
        let result = self.ok("exec_run", &json!({"address": address, "command": line}));
        let text = result["stdout"].as_str().unwrap().trim_end().to_owned();
        (text, result["exit_code"].as_i64().unwrap())
    }

    /// Ends the server.
    pub fn end(mut self) {
        drop(self.input.take());
        let status = self.server.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}
