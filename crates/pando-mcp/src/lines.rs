//! One JSON message a line, both ways. What is no message is answered with an error that names
//! what is wrong, with the request's id wherever one can be made out: a client that waits for an
//! answer gets one.
//!
//! ```text
//!  line ─▶ too long? ─▶ a message? ─▶ to be handled
//!            │ -32600      │ see `message`: answered here
//! ```

use std::io;

use rmcp::RoleServer;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::limits::{MAX_LINE_BYTES, OUTGOING_LINES};
use crate::message::{self, INVALID_REQUEST};

/// Bytes of a line that was too long in which its id is looked for.
const MAX_PREFIX_BYTES: usize = 4096;

/// See the module.
///
/// One task owns the stream to the client. Whatever stops waiting for a message, as the library
/// does whenever it has something else to do, neither loses an answer nor tears a line.
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// Set while the rest of a line that was too long goes by.
    skipping: bool,
    /// Whether a request came that begins a session: what comes before one and expects no answer
    /// is nothing to fail over.
    has_begun: bool,
    closed: CancellationToken,
    /// An answer that is still to be handed to the writer.
    answer: Option<Vec<u8>>,
    outgoing: Option<mpsc::Sender<Vec<u8>>>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

enum Read {
    Line,
    TooLong,
    End,
}

impl<R: AsyncRead + Unpin + Send> Lines<R> {
    /// Returns the two ends of a client's streams. `closed` is set once it has closed its own.
    pub fn new<W>(reader: R, writer: W, closed: CancellationToken) -> Self
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (outgoing, lines) = mpsc::channel(OUTGOING_LINES);
        Self {
            reader: BufReader::new(reader),
            line: Vec::new(),
            skipping: false,
            has_begun: false,
            closed,
            answer: None,
            outgoing: Some(outgoing),
            writer: Some(tokio::spawn(write(writer, lines))),
        }
    }

    /// Reads a line into `line`. Cancel-safe: what was read stays there.
    async fn read(&mut self) -> Read {
        loop {
            let Ok(available) = self.reader.fill_buf().await else { return Read::End };
            if available.is_empty() {
                // The last line may lack its end.
                let rest = !self.skipping && !self.line.is_empty();
                return if rest { Read::Line } else { Read::End };
            }
            let newline = available.iter().position(|byte| *byte == b'\n');
            let taken = newline.map_or(available.len(), |at| at + 1);
            let whole = newline.is_some();
            if !self.skipping {
                self.line.extend(available.iter().take(taken));
            }
            self.reader.consume(taken);
            if self.skipping {
                if whole {
                    self.skipping = false;
                    return Read::TooLong;
                }
            } else if self.line.len() > MAX_LINE_BYTES {
                self.line.truncate(MAX_PREFIX_BYTES);
                if whole {
                    return Read::TooLong;
                }
                self.skipping = true;
            } else if whole {
                return Read::Line;
            }
        }
    }

    /// Returns the line's message, or the answer that it gets in place of being handled.
    fn message(&mut self) -> Result<Option<RxJsonRpcMessage<RoleServer>>, Value> {
        let line = self.line.trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        let Some(message) = message::read(line)? else { return Ok(None) };
        if !self.has_begun && !message.expects_answer {
            return Ok(None);
        }
        let probes = ["ping", "server/discover"];
        self.has_begun |= message.method.is_some_and(|name| !probes.contains(&name.as_str()));
        Ok(Some(message.parsed))
    }
}

/// Writes lines until there are no more, or the client takes none.
async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut lines: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        writer.write_all(&line).await?;
        if lines.is_empty() {
            writer.flush().await?;
        }
    }
    writer.shutdown().await
}

fn encoded(message: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

impl<R: AsyncRead + Unpin + Send> Transport<RoleServer> for Lines<R> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let outgoing = self.outgoing.clone();
        async move {
            let outgoing = outgoing.ok_or(io::ErrorKind::NotConnected)?;
            let line = encoded(&message)?;
            outgoing.send(line).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
    }

    /// Cancel-safe: what was read, and what is to be answered, stays here.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            if self.answer.is_some() {
                let Ok(room) = self.outgoing.as_ref()?.reserve().await else {
                    self.closed.cancel();
                    return None;
                };
                room.send(self.answer.take().unwrap_or_default());
            }
            let outcome = match self.read().await {
                Read::Line => self.message(),
                Read::TooLong => {
                    let text = format!("this message has more than {MAX_LINE_BYTES} bytes");
                    Err(message::error(message::id_in(&self.line).as_ref(), INVALID_REQUEST, &text))
                }
                Read::End => {
                    self.closed.cancel();
                    return None;
                }
            };
            self.line.clear();
            self.line.shrink_to(MAX_PREFIX_BYTES);
            match outcome {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(answer) => self.answer = encoded(&answer).ok(),
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        drop(self.outgoing.take());
        match self.writer.take() {
            Some(writer) => writer.await.unwrap_or_else(|source| Err(io::Error::other(source))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn read(input: &[u8]) -> (Vec<RxJsonRpcMessage<RoleServer>>, Vec<Value>) {
        let (mine, theirs) = tokio::io::duplex(1 << 16);
        let closed = CancellationToken::new();
        let mut lines = Lines::new(io::Cursor::new(input.to_vec()), mine, closed.clone());
        lines.has_begun = true;
        let mut messages = Vec::new();
        while let Some(message) = lines.receive().await {
            messages.push(message);
        }
        assert!(closed.is_cancelled());
        lines.close().await.unwrap();
        let mut answers = Vec::new();
        let mut theirs = BufReader::new(theirs).lines();
        while let Some(line) = theirs.next_line().await.unwrap() {
            answers.push(serde_json::from_str(&line).unwrap());
        }
        (messages, answers)
    }

    #[tokio::test]
    async fn what_is_no_message_is_answered_by_name() {
        let deep =
            format!(r#"{{"jsonrpc":"2.0","id":9,"method":"x","params":{}"#, "[".repeat(4000));
        let cases = [
            ("nonsense", Value::Null, -32_700, "not JSON"),
            (r#"{"jsonrpc":"2.0","id":4,"method":"#, json!(4), -32_700, "not JSON"),
            (deep.as_str(), json!(9), -32_700, "not JSON"),
            ("[]", Value::Null, -32_600, "a batch"),
            ("7", Value::Null, -32_600, "not an object"),
            (r#"{"id":1,"method":"ping"}"#, json!(1), -32_600, "jsonrpc"),
            (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, json!(1), -32_600, "method"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, Value::Null, -32_600, "`id`"),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, json!(1.5), -32_600, "`id`"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#,
                json!(1),
                -32_602,
                "params",
            ),
            (
                r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":5}}"#,
                json!("a"),
                -32_602,
                "params.name",
            ),
            (
                r#"{"jsonrpc":"2.0","id":5,"method":"ping","params":{"_meta":[]}}"#,
                json!(5),
                -32_602,
                "_meta",
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"resources/read","params":{"uri":[]}}"#,
                json!(7),
                -32_602,
                "params.uri",
            ),
            (
                r#"{"jsonrpc":"2.0","id":8,"method":"prompts/get","params":{"name":null}}"#,
                json!(8),
                -32_602,
                "params.name",
            ),
            (r#"{"jsonrpc":"2.0","id":2,"method":"tools/call"}"#, json!(2), -32_602, "params.name"),
            (
                r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"x","arguments":[1]}}"#,
                json!(3),
                -32_602,
                "params.arguments",
            ),
        ];
        for (line, id, code, says) in cases {
            let (messages, answers) = read(format!("{line}\n").as_bytes()).await;
            assert!(messages.is_empty(), "{line}");
            let [answer] = answers.as_slice() else { panic!("{line}: {answers:?}") };
            assert_eq!(answer["id"], id, "{line}");
            assert_eq!(answer["error"]["code"], code, "{line}");
            assert!(answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_answered_and_the_next_is_read() {
        let mut input = br#"{"jsonrpc":"2.0","id":11,"method":"x","params":{"a":""#.to_vec();
        input.resize(input.len() + MAX_LINE_BYTES + 10, b'y');
        input.extend(b"\"}}\n\n{\"jsonrpc\":\"2.0\",\"id\":12,\"method\":\"ping\"}\n");
        let (messages, answers) = read(&input).await;
        assert_eq!((messages.len(), answers.len()), (1, 1));
        assert_eq!(answers[0]["id"], 11);
    }
}
