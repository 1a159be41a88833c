//! The guest's end of the channel: frames in, frames out, nothing ever waits.
//!
//! Outgoing frames are collected and written once per turn of the server's loop. What the host
//! does not read stays here; the server then stops producing ([`Channel::is_full`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use pando_wire::frame::Frame;
use pando_wire::guest::{Answer, GuestMessage, Refusal, RefusalKind, StreamId, encode_answer};
use pando_wire::limits::MAX_CHUNK_BYTES;
use rustix::io::Errno;

use crate::limits::{OUTBOX_HIGH_BYTES, PORT_TURN_BYTES};

/// The channel.
#[derive(Debug)]
pub struct Channel {
    port: OwnedFd,
    epoch: u64,
    sequence: u32,
    outbox: Vec<u8>,
    /// When the outbox must be written, if there is anything in it.
    due: Option<Instant>,
    /// The port took less than it was given; it will say when it takes more.
    blocked: bool,
}

/// What reading the port came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Nothing more for now, or other work should get its turn.
    Turn,
    /// The other end is gone.
    End,
}

impl Channel {
    /// Returns a channel over `port`, which must be non-blocking.
    pub fn new(port: OwnedFd) -> Self {
        Self { port, epoch: 0, sequence: 0, outbox: Vec::new(), due: None, blocked: false }
    }

    /// Begins an epoch: what was not written of the older one never will be.
    pub fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.sequence = 0;
        self.outbox.clear();
        self.due = None;
        self.blocked = false;
    }

    /// Reads what has come and appends it to `input`.
    pub fn read(&mut self, input: &mut Vec<u8>) -> io::Result<Read> {
        let mut buffer = [0; 16 * 1024];
        while input.len() < PORT_TURN_BYTES {
            match rustix::io::read(&self.port, &mut buffer) {
                Ok(0) => return Ok(Read::End),
                Ok(count) => {
                    input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    if count < buffer.len() / 4 {
                        // Most likely all there was; if not, the next poll says so at once.
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Read::End),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Read::Turn)
    }

    /// Sends a message at the end of this turn.
    pub fn post(&mut self, message: &GuestMessage<'_>) {
        self.post_within(message, Duration::ZERO);
    }

    /// Sends a message together with the next one, or after `delay`.
    pub fn post_within(&mut self, message: &GuestMessage<'_>, delay: Duration) {
        // All messages are made by us within their limits; one that is not would be a defect, and
        // the gap it leaves in the sequence ends the epoch instead of going unnoticed.
        if let Ok(bytes) = message.encode() {
            let frame = Frame { epoch: self.epoch, sequence: self.sequence, message: &bytes };
            let _ = frame.encode(&mut self.outbox);
        }
        self.sequence = self.sequence.wrapping_add(1);
        let due = Instant::now() + delay;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Sends the last word of a stream.
    pub fn post_answer(&mut self, stream: StreamId, answer: &Answer) {
        let bytes = encode_answer(answer).or_else(|error| {
            encode_answer(&Err(Refusal::new(RefusalKind::Limit, error.to_string())))
        });
        let bytes = bytes.unwrap_or_default();
        let mut parts = bytes.chunks(MAX_CHUNK_BYTES).peekable();
        while let Some(part) = parts.next() {
            self.post(&GuestMessage::Done { stream, last: parts.peek().is_none(), part });
        }
    }

    /// Writes what is due, as far as the port takes it.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        if self.due.is_none_or(|due| due > now) {
            return Ok(());
        }
        let mut written = 0;
        self.blocked = false;
        while let Some(rest) = self.outbox.get(written..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(&self.port, rest) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    break;
                }
                // The host is away; it will open another epoch when it comes back.
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NODEV | Errno::NOTCONN) => {
                    written = self.outbox.len();
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.drain(..written);
        if self.outbox.is_empty() {
            self.due = None;
        }
        Ok(())
    }

    /// Whether the host reads so slowly that nothing more should be produced.
    pub fn is_full(&self) -> bool {
        self.outbox.len() >= OUTBOX_HIGH_BYTES
    }

    /// Whether everything has been written.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Whether the port should be asked when it can be written.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// When [`Channel::flush`] has something to do, unless the port is blocked.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.blocked)
    }

    /// The port, to poll.
    pub fn port(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}
