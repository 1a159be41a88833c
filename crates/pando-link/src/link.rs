//! The link itself: its epoch, its streams, and how a request becomes one.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pando_wire::guest::{Hello, HostMessage, RefusalKind, Request, StreamId, Welcome};
use pando_wire::limits::{ENTROPY_BYTES, GUEST_PROTOCOL, MAX_CHUNK_BYTES, MAX_STREAMS};

use crate::error::LinkError;
use crate::gate::{Gate, GateError};
use crate::limits::{HELLO_RETRY, READER_STACK_BYTES};
use crate::reader;
use crate::stream::{End, Stream};

/// What a new epoch does to the guest's wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestClock {
    /// It is set to the host's time.
    Step,
    /// It goes on from where it stood.
    Keep,
}

/// The host's end of one guest's channel. Dropping it closes the channel and ends all streams.
#[derive(Debug)]
pub struct GuestLink {
    pub(crate) shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

/// What the callers, the handles and the reader share.
#[derive(Debug)]
pub(crate) struct Shared {
    name: String,
    pub(crate) gate: Gate,
    state: Mutex<State>,
    changed: Condvar,
}

/// The epoch and its streams.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The epoch that was begun last.
    pub(crate) epoch: Option<u64>,
    /// Its answer, once it has come.
    pub(crate) welcome: Option<Welcome>,
    /// Sequence number of the guest's next frame.
    pub(crate) expected: u32,
    /// Open streams.
    pub(crate) streams: HashMap<StreamId, Arc<Stream>>,
    next_stream: u32,
    closed: bool,
}

impl GuestLink {
    /// Takes over a connected socket to the guest called `name`, and starts to read it.
    ///
    /// # Errors
    /// When the socket cannot be duplicated or the thread not started.
    pub fn new(socket: UnixStream, name: impl Into<String>) -> io::Result<Self> {
        let reading = socket.try_clone()?;
        let shared = Arc::new(Shared {
            name: name.into(),
            gate: Gate::new(socket),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let reader = std::thread::Builder::new()
            .name("guest-reader".into())
            .stack_size(READER_STACK_BYTES)
            .spawn({
                let shared = Arc::clone(&shared);
                move || reader::run(&reading, &shared)
            })?;
        Ok(Self { shared, reader: Some(reader) })
    }

    /// Opens a new epoch and waits for the guest's answer: once after a machine was started, and
    /// again after each restore. Every older stream ends with [`LinkError::EpochEnded`].
    ///
    /// # Errors
    /// [`LinkError::Deadline`], [`LinkError::Closed`], [`LinkError::Protocol`],
    /// [`LinkError::Version`]; also [`LinkError::EpochEnded`] when somebody else opens another one
    /// meanwhile.
    pub fn hello(&self, clock: GuestClock, deadline: Instant) -> Result<Welcome, LinkError> {
        let started = Instant::now();
        let shared = &self.shared;
        let epoch = u64::from_ne_bytes(random()?);
        let hello = HostMessage::Hello(Hello {
            protocol: GUEST_PROTOCOL,
            entropy: random::<ENTROPY_BYTES>()?.to_vec(),
        });
        shared.begin_epoch(epoch);
        let welcome = loop {
            let retry = deadline.min(Instant::now() + HELLO_RETRY);
            match shared.gate.send(epoch, &hello, retry) {
                Ok(()) | Err(GateError::Deadline) => {}
                Err(error) => return Err(shared.gate_error(error, "read", started)),
            }
            if let Some(welcome) = shared.wait_welcome(epoch, retry)? {
                break welcome;
            }
            if Instant::now() >= deadline {
                return Err(shared.late("answer", started));
            }
        };
        if welcome.protocol != GUEST_PROTOCOL {
            return Err(LinkError::Version {
                guest: shared.name.clone(),
                speaks: welcome.protocol,
                wanted: GUEST_PROTOCOL,
            });
        }
        if clock == GuestClock::Step {
            self.step_clock(epoch, deadline)?;
        }
        Ok(welcome)
    }

    /// Returns whether there is an epoch that the guest has answered.
    pub fn is_greeted(&self) -> bool {
        let state = self.shared.state();
        state.epoch.is_some() && state.welcome.is_some() && !state.closed
    }

    /// Sets the guest's wall clock to the host's, inside the present epoch: after a pause.
    ///
    /// # Errors
    /// [`LinkError::EpochEnded`] when there is no epoch; [`LinkError::Deadline`],
    /// [`LinkError::Closed`]. The guest does not answer.
    pub fn set_clock(&self, deadline: Instant) -> Result<(), LinkError> {
        let Some(epoch) = self.shared.state().epoch else {
            return Err(LinkError::EpochEnded { guest: self.shared.name.clone() });
        };
        self.step_clock(epoch, deadline)
    }

    fn step_clock(&self, epoch: u64, deadline: Instant) -> Result<(), LinkError> {
        let started = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let sent = self.shared.gate.send(epoch, &HostMessage::Clock { unix_ns }, deadline);
        sent.map_err(|error| self.shared.gate_error(error, "read", started))
    }

    /// Returns the guest's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }
}

impl Drop for GuestLink {
    fn drop(&mut self) {
        self.shared.gate.close();
        if let Some(reader) = self.reader.take() {
            // The reader ends at the socket's end, which `close` made; it does not panic.
            let _ = reader.join();
        }
    }
}

impl Shared {
    /// Returns the epoch and the streams, locked.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who waits for a welcome.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    fn begin_epoch(&self, epoch: u64) {
        let mut state = self.state();
        state.epoch = Some(epoch);
        state.welcome = None;
        state.next_stream = 0;
        state.end_streams(&End::EpochEnded);
        self.gate.begin(epoch);
        self.changed.notify_all();
    }

    /// Ends the epoch because the guest broke the protocol.
    pub(crate) fn break_epoch(&self, state: &mut State, detail: &str) {
        state.epoch = None;
        state.end_streams(&End::Protocol(detail.to_owned()));
        self.gate.end();
        self.changed.notify_all();
    }

    /// Ends everything because the channel is gone.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.end_streams(&End::Closed);
        self.gate.close();
        self.changed.notify_all();
    }

    fn wait_welcome(&self, epoch: u64, until: Instant) -> Result<Option<Welcome>, LinkError> {
        let mut state = self.state();
        loop {
            if state.closed {
                return Err(LinkError::Closed { guest: self.name.clone() });
            }
            if state.epoch != Some(epoch) {
                return Err(LinkError::EpochEnded { guest: self.name.clone() });
            }
            if let Some(welcome) = &state.welcome {
                return Ok(Some(welcome.clone()));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Opens a stream for `request`.
    pub(crate) fn open(
        self: &Arc<Self>,
        request: &Request,
        what: &'static str,
        deadline: Instant,
    ) -> Result<OpenStream, LinkError> {
        let started = Instant::now();
        let encoded = request.encode().map_err(|error| self.limit(what, error.to_string()))?;
        let stream = self.register(what)?;
        // From here on, dropping the stream tells the guest.
        let open = OpenStream { shared: Arc::clone(self), stream, what, started };
        let mut parts = encoded.chunks(MAX_CHUNK_BYTES).peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            open.send(&HostMessage::Open { stream: open.stream.id, last, part }, deadline)?;
        }
        Ok(open)
    }

    fn register(&self, what: &'static str) -> Result<Arc<Stream>, LinkError> {
        let mut state = self.state();
        if state.closed {
            return Err(LinkError::Closed { guest: self.name.clone() });
        }
        let (Some(epoch), Some(_)) = (state.epoch, &state.welcome) else {
            return Err(LinkError::EpochEnded { guest: self.name.clone() });
        };
        if state.streams.len() >= MAX_STREAMS {
            return Err(self.limit(what, format!("{MAX_STREAMS} requests are under way")));
        }
        let Some(next) = state.next_stream.checked_add(1) else {
            return Err(self.limit(what, "the epoch has no stream numbers left".into()));
        };
        let stream = Arc::new(Stream::new(StreamId(state.next_stream), epoch));
        state.next_stream = next;
        state.streams.insert(stream.id, Arc::clone(&stream));
        Ok(stream)
    }

    fn limit(&self, what: &'static str, message: String) -> LinkError {
        LinkError::Refused { guest: self.name.clone(), what, kind: RefusalKind::Limit, message }
    }

    fn late(&self, what: &'static str, started: Instant) -> LinkError {
        LinkError::Deadline { guest: self.name.clone(), what, waited: started.elapsed() }
    }

    fn gate_error(&self, error: GateError, what: &'static str, started: Instant) -> LinkError {
        match error {
            GateError::Deadline => self.late(what, started),
            GateError::Closed => LinkError::Closed { guest: self.name.clone() },
            GateError::EpochEnded => LinkError::EpochEnded { guest: self.name.clone() },
            GateError::Message(error) => self.limit(what, error.to_string()),
        }
    }
}

impl State {
    fn end_streams(&mut self, end: &End) {
        for (_, stream) in self.streams.drain() {
            stream.finish(end.clone());
        }
    }
}

/// A stream that somebody holds. Dropping it before its end tells the guest to end it.
#[derive(Debug)]
pub(crate) struct OpenStream {
    shared: Arc<Shared>,
    pub(crate) stream: Arc<Stream>,
    /// What it is for, as a verb phrase.
    what: &'static str,
    started: Instant,
}

impl OpenStream {
    /// Sends a message of this stream.
    pub(crate) fn send(
        &self,
        message: &HostMessage<'_>,
        deadline: Instant,
    ) -> Result<(), LinkError> {
        let sent = self.shared.gate.send(self.stream.epoch, message, deadline);
        sent.map_err(|error| match error {
            // The epoch may have been ended by nonsense; then say so.
            GateError::EpochEnded => self.ended().unwrap_or_else(|| self.epoch_ended()),
            error => self.shared.gate_error(error, self.what, self.started),
        })
    }

    /// Sends `bytes` as data, as the guest grants it.
    ///
    /// # Errors
    /// [`LinkError::Ended`] when the stream has an answer already.
    pub(crate) fn send_data(
        &self,
        bytes: &[u8],
        kind: &'static str,
        deadline: Instant,
    ) -> Result<(), LinkError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.send_some(rest, kind, deadline, deadline)? {
                0 => return Err(self.late()),
                sent => rest = rest.get(sent..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// Sends as much of `bytes` as the guest grants at once, once it grants any; returns how much:
    /// nothing if it has granted none by `patience`.
    ///
    /// # Errors
    /// As [`OpenStream::send_data`].
    pub(crate) fn send_some(
        &self,
        bytes: &[u8],
        kind: &'static str,
        patience: Instant,
        deadline: Instant,
    ) -> Result<usize, LinkError> {
        let wanted = bytes.len().min(MAX_CHUNK_BYTES);
        let granted = self.stream.wait(patience, |inbox| match inbox.end {
            Some(_) => Some(0),
            None => Some(inbox.spend(wanted)).filter(|&granted| granted > 0),
        });
        let chunk = match granted {
            None => return Ok(0),
            Some(0) => {
                let guest = self.shared.name.clone();
                return Err(self.ended().unwrap_or(LinkError::Ended { guest, what: kind }));
            }
            Some(granted) => bytes.get(..granted).unwrap_or_default(),
        };
        self.send(&HostMessage::Data { stream: self.stream.id, bytes: chunk }, deadline)?;
        Ok(chunk.len())
    }

    /// Grants the guest what the caller has consumed.
    pub(crate) fn grant(&self) {
        let mut grant = None;
        self.stream.change(|inbox| grant = inbox.grant());
        if let Some(bytes) = grant {
            let credit = HostMessage::Credit { stream: self.stream.id, bytes };
            if !self.shared.gate.post(self.stream.epoch, &credit) {
                self.stream.change(|inbox| inbox.take_back(bytes));
            }
        }
    }

    /// Returns the error that an end other than a good answer amounts to.
    pub(crate) fn end_error(&self, end: End) -> Result<pando_wire::guest::Reply, LinkError> {
        let guest = self.shared.name.clone();
        match end {
            End::Answer(Ok(reply)) => Ok(reply),
            End::Answer(Err(refusal)) => Err(LinkError::Refused {
                guest,
                what: self.what,
                kind: refusal.kind,
                message: refusal.message,
            }),
            End::Closed => Err(LinkError::Closed { guest }),
            End::EpochEnded => Err(LinkError::EpochEnded { guest }),
            End::Protocol(detail) => Err(LinkError::Protocol { guest, detail }),
        }
    }

    /// Whether the guest has said its last word with success.
    pub(crate) fn is_answered(&self) -> bool {
        let mut answered = false;
        self.stream.change(|inbox| answered = matches!(inbox.end, Some(End::Answer(Ok(_)))));
        answered
    }

    /// Returns why the stream ended, unless it ended with a good answer or not at all.
    fn ended(&self) -> Option<LinkError> {
        let mut end = None;
        self.stream.change(|inbox| end = inbox.end.clone());
        end.and_then(|end| self.end_error(end).err())
    }

    /// The error of a reply that does not belong to the request.
    pub(crate) fn wrong_reply(&self) -> LinkError {
        let detail = format!("its reply to \"{}\" is of another kind", self.what);
        LinkError::Protocol { guest: self.shared.name.clone(), detail }
    }

    /// The error of a wait that passed its deadline.
    pub(crate) fn late(&self) -> LinkError {
        self.shared.late(self.what, self.started)
    }

    /// Ends the stream on both sides and wakes who waits.
    pub(crate) fn abort(&self) {
        let mut over = true;
        self.stream.change(|inbox| {
            over = inbox.end.is_some();
            inbox.finish(End::Closed);
        });
        if !over {
            // If the guest is so far behind that not even this fits, its next epoch ends it.
            self.shared
                .gate
                .post(self.stream.epoch, &HostMessage::Close { stream: self.stream.id });
        }
    }

    fn epoch_ended(&self) -> LinkError {
        LinkError::EpochEnded { guest: self.shared.name.clone() }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.abort();
        let mut state = self.shared.state();
        if state.epoch == Some(self.stream.epoch) {
            state.streams.remove(&self.stream.id);
        }
    }
}

/// Returns random bytes from the host's kernel.
fn random<const N: usize>() -> Result<[u8; N], LinkError> {
    let mut bytes = [0; N];
    let filled =
        rustix::rand::getrandom(bytes.as_mut_slice(), rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(count) if count == N => Ok(bytes),
        Ok(_) => Err(LinkError::Local {
            what: "draw a random number",
            source: io::ErrorKind::UnexpectedEof.into(),
        }),
        Err(errno) => Err(LinkError::Local { what: "draw a random number", source: errno.into() }),
    }
}
