//! One conversation with QEMU, without a socket or a clock: bytes go in, bytes to send, replies
//! and events come out.
//!
//! ```text
//!  Greeting ──greeting──► Negotiating ──qmp_capabilities answered──► Ready
//!      └───────────── anything that breaks the protocol ─────────────► Broken
//! ```
//!
//! A request whose caller stopped waiting is *abandoned*: its reply is still matched, and dropped.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::codec::{Codec, Event, Message, ProtocolError};
use crate::limits::{MAX_QMP_EVENTS, MAX_QMP_PENDING};

/// A command and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// QMP name.
    pub name: &'static str,
    /// Arguments, an object; `Null` for none.
    pub arguments: Value,
}

impl Command {
    /// Returns a command without arguments.
    pub const fn new(name: &'static str) -> Self {
        Self { name, arguments: Value::Null }
    }

    /// Returns a command with `arguments`, an object.
    pub const fn with(name: &'static str, arguments: Value) -> Self {
        Self { name, arguments }
    }
}

/// QEMU's refusal of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {description}")]
pub struct CommandError {
    /// QEMU's error class.
    pub class: String,
    /// QEMU's words.
    pub description: String,
}

/// Where the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// QEMU has not spoken.
    Greeting,
    /// Capabilities were asked for.
    Negotiating,
    /// Commands are answered.
    Ready,
    /// The peer broke the protocol; nothing more is read.
    Broken,
}

/// Names a request within its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(u64);

#[derive(Debug)]
enum Pending {
    Waiting,
    Abandoned,
    Answered(Result<Value, CommandError>),
}

/// The state of a conversation.
#[derive(Debug)]
pub struct Session {
    codec: Codec,
    phase: Phase,
    version: Option<String>,
    next_id: u64,
    pending: BTreeMap<RequestId, Pending>,
    events: VecDeque<Event>,
    dropped_events: u64,
    output: Vec<u8>,
}

/// The id of the request that ends the negotiation; no other request has it.
const NEGOTIATION: RequestId = RequestId(0);

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// Returns a session that waits for the greeting.
    pub const fn new() -> Self {
        Self {
            codec: Codec::new(),
            phase: Phase::Greeting,
            version: None,
            next_id: 1,
            pending: BTreeMap::new(),
            events: VecDeque::new(),
            dropped_events: 0,
            output: Vec::new(),
        }
    }

    /// Returns where the conversation is.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns QEMU's version, once greeted.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Takes in bytes from QEMU.
    ///
    /// # Errors
    /// The first thing that is not QMP; the session is then [`Phase::Broken`] and takes no more.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        if self.phase == Phase::Broken {
            return Ok(());
        }
        self.codec.push(bytes);
        let taken = self.take_messages();
        if taken.is_err() {
            self.phase = Phase::Broken;
        }
        taken
    }

    fn take_messages(&mut self) -> Result<(), ProtocolError> {
        while let Some(message) = self.codec.next_message()? {
            match message {
                Message::Greeting { version } => self.greeted(version)?,
                Message::Event(event) => self.queue(event),
                Message::Return { id, value } => self.answered(id, Ok(value))?,
                Message::Error { id, class, description } => {
                    self.answered(id, Err(CommandError { class, description }))?;
                }
            }
        }
        Ok(())
    }

    fn greeted(&mut self, version: String) -> Result<(), ProtocolError> {
        if self.phase != Phase::Greeting {
            return Err(ProtocolError::OutOfOrder { what: "a greeting" });
        }
        self.version = Some(version);
        self.phase = Phase::Negotiating;
        self.pending.insert(NEGOTIATION, Pending::Waiting);
        self.write(NEGOTIATION, &Command::new("qmp_capabilities"));
        Ok(())
    }

    fn answered(
        &mut self,
        id: Option<u64>,
        reply: Result<Value, CommandError>,
    ) -> Result<(), ProtocolError> {
        let unknown = ProtocolError::UnknownReply { id };
        let Some(id) = id.map(RequestId) else { return Err(unknown) };
        if id == NEGOTIATION {
            if self.pending.remove(&id).is_none() || reply.is_err() {
                return Err(ProtocolError::OutOfOrder { what: "the end of the negotiation" });
            }
            self.phase = Phase::Ready;
            return Ok(());
        }
        match self.pending.get_mut(&id) {
            Some(slot @ Pending::Waiting) => *slot = Pending::Answered(reply),
            Some(Pending::Abandoned) => {
                self.pending.remove(&id);
            }
            Some(Pending::Answered(_)) | None => return Err(unknown),
        }
        Ok(())
    }

    fn queue(&mut self, event: Event) {
        if self.events.len() >= MAX_QMP_EVENTS {
            self.events.pop_front();
            self.dropped_events += 1;
        }
        self.events.push_back(event);
    }

    /// Queues a command for sending; its reply is taken with the id returned.
    ///
    /// # Errors
    /// [`ProtocolError::OutOfOrder`] before [`Phase::Ready`], [`ProtocolError::TooManyRequests`].
    pub fn request(&mut self, command: &Command) -> Result<RequestId, ProtocolError> {
        if self.phase != Phase::Ready {
            return Err(ProtocolError::OutOfOrder { what: "a command" });
        }
        if self.pending.len() >= MAX_QMP_PENDING {
            return Err(ProtocolError::TooManyRequests);
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.pending.insert(id, Pending::Waiting);
        self.write(id, command);
        Ok(id)
    }

    fn write(&mut self, id: RequestId, command: &Command) {
        let mut message = json!({"execute": command.name, "id": id.0});
        if let (Some(object), false) = (message.as_object_mut(), command.arguments.is_null()) {
            object.insert("arguments".to_owned(), command.arguments.clone());
        }
        self.output.extend_from_slice(message.to_string().as_bytes());
        self.output.push(b'\n');
    }

    /// Takes the bytes to send.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes the reply to a request, or `None` until it is there.
    pub fn take_reply(&mut self, id: RequestId) -> Option<Result<Value, CommandError>> {
        match self.pending.remove(&id)? {
            Pending::Answered(reply) => Some(reply),
            waiting @ (Pending::Waiting | Pending::Abandoned) => {
                self.pending.insert(id, waiting);
                None
            }
        }
    }

    /// Stops waiting for a reply, which is dropped when it comes.
    pub fn abandon(&mut self, id: RequestId) {
        if let Some(slot) = self.pending.get_mut(&id) {
            match slot {
                Pending::Answered(_) => drop(self.pending.remove(&id)),
                Pending::Waiting | Pending::Abandoned => *slot = Pending::Abandoned,
            }
        }
    }

    /// Takes the oldest event.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns how many events were dropped because nobody took them.
    pub const fn dropped_events(&self) -> u64 {
        self.dropped_events
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GREETING: &[u8] =
        b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 8}}}}\n";

    fn ready() -> Session {
        let mut session = Session::new();
        session.push(GREETING).unwrap();
        session.push(b"{\"return\": {}, \"id\": 0}\n").unwrap();
        session.take_output();
        session
    }

    #[test]
    fn a_session_negotiates() {
        let mut session = Session::new();
        assert!(session.request(&Command::new("stop")).is_err());
        session.push(GREETING).unwrap();
        assert_eq!((session.phase(), session.version()), (Phase::Negotiating, Some("8.2.0")));
        assert_eq!(session.take_output(), b"{\"execute\":\"qmp_capabilities\",\"id\":0}\n");
        session.push(b"{\"return\": {}, \"id\": 0}\n").unwrap();
        assert_eq!(session.phase(), Phase::Ready);
    }

    #[test]
    fn a_broken_session_stays_broken() {
        for bytes in [GREETING, b"{\"return\": {}, \"id\": 0}\n", b"{\"return\": {}}\n", b"x\n"] {
            let mut session = ready();
            assert!(session.push(bytes).is_err());
            assert_eq!(session.phase(), Phase::Broken);
            session.push(GREETING).unwrap();
            assert!(session.request(&Command::new("stop")).is_err());
        }
    }

    #[test]
    fn the_reply_to_an_abandoned_request_is_dropped() {
        let mut session = ready();
        let id = session.request(&Command::new("stop")).unwrap();
        session.abandon(id);
        session.push(format!("{{\"return\": {{}}, \"id\": {}}}\n", id.0).as_bytes()).unwrap();
        assert_eq!(session.take_reply(id), None);
        assert!(session.pending.is_empty());
    }

    #[test]
    fn requests_without_replies_are_bounded() {
        let mut session = ready();
        for _ in 0..MAX_QMP_PENDING {
            session.request(&Command::new("stop")).unwrap();
        }
        assert_eq!(session.request(&Command::new("stop")), Err(ProtocolError::TooManyRequests));
    }

    #[test]
    fn events_are_bounded_and_the_newest_stay() {
        let mut session = ready();
        for n in 0..MAX_QMP_EVENTS + 3 {
            session.push(format!("{{\"event\": \"E{n}\"}}\n").as_bytes()).unwrap();
        }
        assert_eq!(session.dropped_events(), 3);
        assert_eq!(session.next_event().unwrap().name, "E3");
    }

    proptest! {
        #[test]
        fn replies_reach_their_requests_in_any_order(order in Just((0..20u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut session = ready();
            let ids: Vec<RequestId> = order
                .iter()
                .map(|_| session.request(&Command::new("query-status")).unwrap())
                .collect();
            for n in &order {
                let id = ids[usize::try_from(*n).unwrap()].0;
                session.push(format!("{{\"return\": {id}, \"id\": {id}}}\n").as_bytes()).unwrap();
            }
            for id in ids {
                prop_assert_eq!(session.take_reply(id), Some(Ok(json!(id.0))));
                prop_assert_eq!(session.take_reply(id), None);
            }
        }

        #[test]
        fn any_bytes_leave_a_session_bounded(chunks in proptest::collection::vec(
            prop_oneof![
                Just(GREETING.to_vec()),
                Just(b"{\"return\": {}, \"id\": 0}\n".to_vec()),
                Just(b"{\"event\": \"X\"}\n".to_vec()),
                Just(b"{\"error\": {\"class\": \"c\", \"desc\": \"d\"}, \"id\": 1}\n".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..50),
            ], 0..40)) {
            let mut session = Session::new();
            for chunk in chunks {
                let broken = session.push(&chunk).is_err();
                prop_assert!(!broken || session.phase() == Phase::Broken);
                let _ = session.request(&Command::new("stop"));
                prop_assert!(session.pending.len() <= MAX_QMP_PENDING);
            }
        }
    }
}
