//! The writing side of a link: frames in order, one writer at a time, nobody past its deadline.
//!
//! The lock is held only to encode; whoever writes is marked `busy` and works without it. Small
//! messages that must not wait (credit, close) are left with the busy writer. What a writer could
//! not send by its deadline stays at the front, so that no frame is torn in the middle of an epoch.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pando_wire::frame::Frame;
use pando_wire::guest::{HostMessage, MessageError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::limits::{MAX_OUTBOX_BYTES, WRITE_SLICE};

/// Why a message was not sent.
#[derive(Debug)]
pub enum GateError {
    /// Not by the deadline; it may still go out later.
    Deadline,
    /// The other end is gone.
    Closed,
    /// The epoch of the message is over.
    EpochEnded,
    /// It is too long for a frame.
    Message(MessageError),
}

/// The writing side.
#[derive(Debug)]
pub struct Gate {
    socket: UnixStream,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    busy: bool,
    closed: bool,
    epoch: Option<u64>,
    sequence: u32,
    outbox: Vec<u8>,
}

impl State {
    fn append(&mut self, message: &HostMessage<'_>) -> Result<(), GateError> {
        let epoch = self.epoch.ok_or(GateError::EpochEnded)?;
        let bytes = message.encode().map_err(GateError::Message)?;
        let frame = Frame { epoch, sequence: self.sequence, message: &bytes };
        frame.encode(&mut self.outbox).map_err(|error| {
            GateError::Message(MessageError::TooLong {
                what: "message to the guest",
                bytes: error.bytes,
                limit: pando_wire::limits::MAX_MESSAGE_BYTES,
            })
        })?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }
}

impl Gate {
    /// Returns the gate in front of `socket`.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, state: Mutex::default(), idle: Condvar::new() }
    }

    /// Begins an epoch: what was not sent of the older one never will be.
    pub fn begin(&self, epoch: u64) {
        let mut state = self.lock();
        state.epoch = Some(epoch);
        state.sequence = 0;
        state.outbox.clear();
    }

    /// Ends the epoch without a new one.
    pub fn end(&self) {
        let mut state = self.lock();
        state.epoch = None;
        state.outbox.clear();
    }

    /// Sends `message` in `epoch`; waits for earlier writers and for the guest.
    pub fn send(
        &self,
        epoch: u64,
        message: &HostMessage<'_>,
        deadline: Instant,
    ) -> Result<(), GateError> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(GateError::Closed);
            }
            if state.epoch != Some(epoch) {
                return Err(GateError::EpochEnded);
            }
            if !state.busy && state.outbox.len() <= MAX_OUTBOX_BYTES {
                break;
            }
            if !state.busy {
                // A writer before us gave up on a guest that does not read.
                state = self.write(state, deadline);
                if state.outbox.is_empty() {
                    continue;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(GateError::Deadline);
            }
            state = self.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.append(message)?;
        let state = self.write(state, deadline);
        if state.closed {
            Err(GateError::Closed)
        } else if state.epoch != Some(epoch) {
            Err(GateError::EpochEnded)
        } else if state.outbox.is_empty() || state.busy {
            Ok(())
        } else {
            Err(GateError::Deadline)
        }
    }

    /// Sends a small `message` in `epoch` as soon as possible, without waiting for anything.
    /// Returns whether it was sent or queued.
    pub fn post(&self, epoch: u64, message: &HostMessage<'_>) -> bool {
        let mut state = self.lock();
        if state.closed
            || state.epoch != Some(epoch)
            || state.outbox.len() > 2 * MAX_OUTBOX_BYTES
            || state.append(message).is_err()
        {
            return false;
        }
        if !state.busy {
            drop(self.write(state, Instant::now()));
        }
        true
    }

    /// Wakes everybody who waits, and the reader. Nothing can be sent any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.idle.notify_all();
        // An error means that the other end is gone, which is what is wanted.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Writes the outbox until it is empty or `deadline` has passed. Returns the lock, with what
    /// is left in the outbox.
    fn write<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Instant,
    ) -> MutexGuard<'a, State> {
        state.busy = true;
        loop {
            let epoch = state.epoch;
            let mut bytes = std::mem::take(&mut state.outbox);
            drop(state);
            let progress = self.write_some(&mut bytes, deadline);
            state = self.lock();
            if state.epoch == epoch {
                // Others may have appended meanwhile; what is left goes before that.
                bytes.append(&mut state.outbox);
                state.outbox = bytes;
            }
            match progress {
                Progress::Closed => state.closed = true,
                Progress::Late => {}
                Progress::Some if !state.outbox.is_empty() && !state.closed => continue,
                Progress::Some => {}
            }
            break;
        }
        state.busy = false;
        self.idle.notify_all();
        state
    }

    /// Writes `bytes` for at most one slice, and takes what was written off their front.
    fn write_some(&self, bytes: &mut Vec<u8>, deadline: Instant) -> Progress {
        let slice = deadline.min(Instant::now() + WRITE_SLICE);
        let mut written = 0;
        let progress = loop {
            let rest = bytes.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Progress::Some;
            }
            match send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let now = Instant::now();
                    if now >= deadline {
                        break Progress::Late;
                    }
                    if now >= slice {
                        break Progress::Some;
                    }
                    self.wait_writable(slice - now);
                }
                Err(_) => break Progress::Closed,
            }
        };
        bytes.drain(..written);
        progress
    }

    fn wait_writable(&self, timeout: Duration) {
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        // A failure here shows in the next send.
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&timeout));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Progress {
    /// All is written, or the slice is over.
    Some,
    /// The deadline has passed.
    Late,
    /// The other end is gone.
    Closed,
}
