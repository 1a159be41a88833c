//! Bytes to messages: splits the stream at line ends and gives each line a type.

use serde_json::{Map, Value};

use crate::limits::MAX_QMP_MESSAGE_BYTES;

/// One message from QEMU.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first message; the version is `MAJOR.MINOR.MICRO`.
    Greeting {
        /// QEMU's version.
        version: String,
    },
    /// A command succeeded.
    Return {
        /// The request it answers.
        id: Option<u64>,
        /// What it returned.
        value: Value,
    },
    /// A command failed.
    Error {
        /// The request it answers; absent when QEMU could not parse the request.
        id: Option<u64>,
        /// QEMU's error class, such as `GenericError`.
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// Something happened.
    Event(Event),
}

/// Something that happened in QEMU.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name, such as `SHUTDOWN`.
    pub name: String,
    /// Its data; `Null` where it has none.
    pub data: Value,
}

impl Event {
    /// Returns a string member of the event's data.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.data.get(member).and_then(Value::as_str)
    }
}

/// Why bytes are not QMP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A message without end.
    #[error("a message is longer than {MAX_QMP_MESSAGE_BYTES} bytes")]
    TooLong,
    /// Not JSON.
    #[error("a message is not JSON: `{start}`")]
    NotJson {
        /// The first characters of it.
        start: String,
    },
    /// JSON, but none of the four kinds of message.
    #[error("a message is of no known kind: `{start}`")]
    UnknownMessage {
        /// The first characters of it.
        start: String,
    },
    /// A message that may not come at this time.
    #[error("{what} came at the wrong time")]
    OutOfOrder {
        /// The kind of message.
        what: &'static str,
    },
    /// A reply to nothing.
    #[error("a reply to request {id:?}, which is not waiting for one")]
    UnknownReply {
        /// The id in the reply.
        id: Option<u64>,
    },
    /// We asked too much at once.
    #[error("too many requests without a reply")]
    TooManyRequests,
}

/// Splits a byte stream into messages.
#[derive(Debug, Default)]
pub struct Codec {
    partial: Vec<u8>,
    /// Bytes at the start of `partial` known to hold no line end.
    scanned: usize,
}

impl Codec {
    /// Returns an empty codec.
    pub const fn new() -> Self {
        Self { partial: Vec::new(), scanned: 0 }
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
    }

    /// Returns the next complete message, or `None` until more bytes come.
    ///
    /// # Errors
    /// The first thing that is not QMP. The stream is of no use afterwards.
    pub fn next_message(&mut self) -> Result<Option<Message>, ProtocolError> {
        loop {
            let fresh = self.partial.get(self.scanned..).unwrap_or_default();
            let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.partial.len();
                if self.scanned > MAX_QMP_MESSAGE_BYTES {
                    return Err(ProtocolError::TooLong);
                }
                return Ok(None);
            };
            let line: Vec<u8> = self.partial.drain(..=self.scanned + end).collect();
            self.scanned = 0;
            if line.len() > MAX_QMP_MESSAGE_BYTES {
                return Err(ProtocolError::TooLong);
            }
            let text = line.trim_ascii();
            if !text.is_empty() {
                return decode(text).map(Some);
            }
        }
    }
}

fn decode(line: &[u8]) -> Result<Message, ProtocolError> {
    let start = || String::from_utf8_lossy(line).chars().take(80).collect::<String>();
    let value: Value =
        serde_json::from_slice(line).map_err(|_| ProtocolError::NotJson { start: start() })?;
    let Value::Object(object) = value else {
        return Err(ProtocolError::UnknownMessage { start: start() });
    };
    classify(object).ok_or_else(|| ProtocolError::UnknownMessage { start: start() })
}

fn classify(mut object: Map<String, Value>) -> Option<Message> {
    if let Some(greeting) = object.get("QMP") {
        let version = greeting.get("version")?.get("qemu")?;
        let part = |name| version.get(name).and_then(Value::as_u64);
        let (major, minor, micro) = (part("major")?, part("minor")?, part("micro")?);
        return Some(Message::Greeting { version: format!("{major}.{minor}.{micro}") });
    }
    if let Some(name) = object.get("event") {
        let name = name.as_str()?.to_owned();
        let data = object.remove("data").unwrap_or(Value::Null);
        return Some(Message::Event(Event { name, data }));
    }
    let id = match object.get("id") {
        Some(id) => Some(id.as_u64()?),
        None => None,
    };
    if let Some(value) = object.remove("return") {
        return Some(Message::Return { id, value });
    }
    let error = object.get("error")?;
    let text = |name| error.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Message::Error { id, class: text("class")?, description: text("desc")? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn all(codec: &mut Codec) -> Result<Vec<Message>, ProtocolError> {
        std::iter::from_fn(|| codec.next_message().transpose()).collect()
    }

    #[test]
    fn each_kind_of_message_is_recognised() {
        let mut codec = Codec::new();
        codec.push(
            br#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}

{"return": {}, "id": 7}
{"id": 8, "error": {"class": "GenericError", "desc": "no"}}
{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}
{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}
{"half"#,
        );
        let event = |name: &str, data| Message::Event(Event { name: name.into(), data });
        assert_eq!(
            all(&mut codec).unwrap(),
            [
                Message::Greeting { version: "10.0.2".into() },
                Message::Return { id: Some(7), value: json!({}) },
                Message::Error {
                    id: Some(8),
                    class: "GenericError".into(),
                    description: "no".into()
                },
                event("STOP", Value::Null),
                event("SHUTDOWN", json!({"guest": true, "reason": "guest-reset"})),
            ]
        );
    }

    #[test]
    fn what_is_not_qmp_is_refused() {
        let unknown = ["[]", "{}", "1", r#"{"event": 1}"#, r#"{"return": 1, "id": "x"}"#];
        for line in unknown {
            let mut codec = Codec::new();
            codec.push(format!("{line}\n").as_bytes());
            let start = line.to_owned();
            assert_eq!(codec.next_message(), Err(ProtocolError::UnknownMessage { start }));
        }
        let mut codec = Codec::new();
        codec.push(b"HTTP/1.1 200\n");
        assert!(matches!(codec.next_message(), Err(ProtocolError::NotJson { .. })));
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let mut codec = Codec::new();
        for _ in 0..=MAX_QMP_MESSAGE_BYTES / 65536 {
            assert_eq!(codec.next_message(), Ok(None));
            codec.push(&[b' '; 65536]);
        }
        assert_eq!(codec.next_message(), Err(ProtocolError::TooLong));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        let mut codec = Codec::new();
        codec.push(&[b'['; 100_000]);
        codec.push(b"\n");
        assert!(matches!(codec.next_message(), Err(ProtocolError::NotJson { .. })));
    }

    proptest! {
        #[test]
        fn messages_do_not_depend_on_how_bytes_arrive(
            ids in proptest::collection::vec(any::<u64>(), 1..20),
            cuts in proptest::collection::vec(1usize..40, 1..60),
        ) {
            let text: String = ids
                .iter()
                .map(|id| json!({"return": {"text": format!("\n{id}é")}, "id": id}).to_string() + "\r\n")
                .collect();
            let mut codec = Codec::new();
            let mut rest = text.as_bytes();
            let mut seen = Vec::new();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                codec.push(now);
                seen.extend(all(&mut codec).unwrap());
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let seen: Vec<Option<u64>> = seen
                .into_iter()
                .map(|message| match message {
                    Message::Return { id, .. } => id,
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(seen, ids.into_iter().map(Some).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut codec = Codec::new();
            codec.push(&bytes);
            let _ = all(&mut codec);
        }
    }
}
