//! One stream of a link: what the reader puts in and callers take out, within its window.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pando_model::guest::OutputStream;
use pando_wire::guest::{Answer, StreamId, decode_answer};
use pando_wire::limits::{MAX_REPLY_BYTES, STREAM_WINDOW_BYTES};

use crate::limits::CREDIT_STEP_BYTES;

/// How a stream ended.
#[derive(Debug, Clone)]
pub enum End {
    /// The guest's last word.
    Answer(Answer),
    /// The link was closed.
    Closed,
    /// Another epoch began.
    EpochEnded,
    /// The guest broke the protocol.
    Protocol(String),
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    /// Its number.
    pub id: StreamId,
    /// The epoch it belongs to.
    pub epoch: u64,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

/// What has come in. Both buffers together never hold more than the window.
#[derive(Debug, Default)]
pub struct Inbox {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The bytes on standard error are older than those on standard output.
    stderr_first: bool,
    /// Taken by the caller, and not yet granted anew.
    owed: u32,
    /// The command runs, or the connection is made.
    pub started: bool,
    /// No more data follows.
    pub eof: bool,
    /// Bytes that the guest can still take.
    pub credit: u32,
    answer: Vec<u8>,
    /// The end; what came before it may still wait in the buffers.
    pub end: Option<End>,
}

impl Stream {
    /// Returns a stream that nothing has come in on.
    pub fn new(id: StreamId, epoch: u64) -> Self {
        let inbox = Inbox { credit: STREAM_WINDOW_BYTES, ..Inbox::default() };
        Self { id, epoch, inbox: Mutex::new(inbox), changed: Condvar::new() }
    }

    /// Waits until `ready` gives something. `None` after `deadline`.
    pub fn wait<T>(
        &self,
        deadline: Instant,
        mut ready: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Option<T> {
        let mut inbox = self.lock();
        loop {
            if let Some(value) = ready(&mut inbox) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            inbox =
                self.changed.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Changes the inbox and wakes who waits for it.
    pub fn change(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Ends the stream, unless it has ended already.
    pub fn finish(&self, end: End) {
        self.change(|inbox| inbox.finish(end));
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    /// Ends the stream, unless it has ended already.
    pub fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Takes in data from the guest.
    pub fn receive(&mut self, output: OutputStream, bytes: &[u8]) {
        let unread = self.stdout.len() + self.stderr.len() + self.owed as usize;
        if unread + bytes.len() > STREAM_WINDOW_BYTES as usize {
            self.finish(End::Protocol("it sent more than it was granted".into()));
            return;
        }
        match output {
            OutputStream::Stdout => self.stdout.extend_from_slice(bytes),
            OutputStream::Stderr => {
                self.stderr_first |= self.stdout.is_empty();
                self.stderr.extend_from_slice(bytes);
            }
        }
    }

    /// Takes in a part of the answer.
    pub fn receive_answer(&mut self, last: bool, part: &[u8]) {
        if self.answer.len() + part.len() > MAX_REPLY_BYTES {
            self.finish(End::Protocol("its answer is too long".into()));
            return;
        }
        self.answer.extend_from_slice(part);
        if last {
            let answer = std::mem::take(&mut self.answer);
            self.finish(match decode_answer(&answer) {
                Ok(answer) => End::Answer(answer),
                Err(error) => End::Protocol(error.to_string()),
            });
        }
    }

    /// Takes out the older of the outputs, whole.
    pub fn take(&mut self) -> Option<(OutputStream, Vec<u8>)> {
        let output = if self.stderr_first || self.stdout.is_empty() {
            OutputStream::Stderr
        } else {
            OutputStream::Stdout
        };
        self.stderr_first = false;
        let bytes = std::mem::take(match output {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        });
        self.owe(bytes.len());
        (!bytes.is_empty()).then_some((output, bytes))
    }

    /// Takes as much of standard output as `buffer` holds.
    pub fn take_into(&mut self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.stdout.len());
        for (to, from) in buffer.iter_mut().zip(self.stdout.drain(..count)) {
            *to = from;
        }
        self.owe(count);
        count
    }

    /// Returns what should be granted to the guest by now, and counts it as granted.
    pub fn grant(&mut self) -> Option<u32> {
        (self.owed >= CREDIT_STEP_BYTES && self.end.is_none())
            .then(|| std::mem::take(&mut self.owed))
    }

    /// Takes back a grant that could not be sent.
    pub fn take_back(&mut self, bytes: u32) {
        self.owed += bytes;
    }

    /// Takes up to `wanted` bytes of credit.
    pub fn spend(&mut self, wanted: usize) -> usize {
        let granted = (self.credit as usize).min(wanted);
        #[expect(clippy::cast_possible_truncation, reason = "at most `credit`")]
        {
            self.credit -= granted as u32;
        }
        granted
    }

    #[expect(clippy::cast_possible_truncation, reason = "the buffers hold at most a window")]
    fn owe(&mut self, bytes: usize) {
        self.owed += bytes as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_sends_more_than_granted_is_cut_off() {
        let mut inbox = Inbox::default();
        let window = vec![1; STREAM_WINDOW_BYTES as usize];
        inbox.receive(OutputStream::Stdout, &window);
        assert!(inbox.end.is_none());
        // Taking it does not grant it: only a credit that was sent does.
        assert_eq!(inbox.take().unwrap().1.len(), window.len());
        inbox.receive(OutputStream::Stderr, &[1]);
        assert!(matches!(inbox.end, Some(End::Protocol(_))));
        assert!(inbox.stderr.is_empty());
    }

    #[test]
    fn outputs_are_taken_in_the_order_in_which_they_began() {
        let mut inbox = Inbox::default();
        inbox.receive(OutputStream::Stderr, b"e");
        inbox.receive(OutputStream::Stdout, b"o");
        assert_eq!(inbox.take(), Some((OutputStream::Stderr, b"e".to_vec())));
        inbox.receive(OutputStream::Stderr, b"f");
        assert_eq!(inbox.take(), Some((OutputStream::Stdout, b"o".to_vec())));
        assert_eq!(inbox.take(), Some((OutputStream::Stderr, b"f".to_vec())));
        assert_eq!(inbox.take(), None);
    }

    #[test]
    fn an_endless_answer_is_not_kept() {
        let mut inbox = Inbox::default();
        for _ in 0..MAX_REPLY_BYTES / 1000 + 1 {
            inbox.receive_answer(false, &[0; 1000]);
        }
        assert!(inbox.answer.len() <= MAX_REPLY_BYTES);
        assert!(matches!(inbox.end, Some(End::Protocol(_))));
    }
}
