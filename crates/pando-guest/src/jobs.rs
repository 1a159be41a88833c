//! Requests that may wait for a disk or the kernel: each runs on a short-lived thread, and tells
//! the server's loop what came of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use pando_wire::guest::{Answer, Refusal, RefusalKind, StreamId};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::limits::{JOB_STACK_BYTES, MAX_JOBS};
use crate::power::Power;

/// What a job has to say.
#[derive(Debug)]
pub struct Event {
    /// The epoch it was started in.
    pub epoch: u64,
    /// Its stream.
    pub stream: StreamId,
    /// What it says.
    pub what: What,
}

/// Kinds of events.
#[derive(Debug)]
pub enum What {
    /// It has prepared everything and takes data.
    Started,
    /// Bytes for the host, within what was granted.
    Data(Vec<u8>),
    /// Bytes from the host have been used up.
    Consumed(usize),
    /// The service manager runs and can be asked about the boot.
    Managed {
        /// How much is left of the wait, in milliseconds.
        left_ms: u64,
    },
    /// Its end.
    Done(Answer),
    /// Everything is written: once the host knows, the machine can end.
    Halt(Power),
}

/// All jobs of a server.
#[derive(Debug)]
pub struct Jobs {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    wake: Arc<OwnedFd>,
    running: Arc<AtomicUsize>,
}

/// A job's way to speak.
#[derive(Debug)]
pub struct Voice {
    epoch: u64,
    stream: StreamId,
    sender: Sender<Event>,
    wake: Arc<OwnedFd>,
}

impl Voice {
    /// Says something.
    pub fn say(&self, what: What) {
        // Without a server nobody listens, and nobody has to.
        let _ = self.sender.send(Event { epoch: self.epoch, stream: self.stream, what });
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// Counts a running job for as long as it lives.
struct Running {
    count: Arc<AtomicUsize>,
    wake: Arc<OwnedFd>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Release);
        // It is a counter; it has no state in which this fails.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Jobs {
    /// Returns none.
    pub fn new() -> io::Result<Self> {
        let (sender, receiver) = channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { sender, receiver, wake, running: Arc::default() })
    }

    /// Starts a job; what it returns is the stream's answer.
    pub fn start(
        &self,
        epoch: u64,
        stream: StreamId,
        job: impl FnOnce(&Voice) -> Answer + Send + 'static,
    ) -> Result<(), Refusal> {
        self.start_silent(epoch, stream, move |voice| {
            let answer = job(voice);
            voice.say(What::Done(answer));
        })
    }

    /// Starts a job that says its end itself.
    pub fn start_silent(
        &self,
        epoch: u64,
        stream: StreamId,
        job: impl FnOnce(&Voice) + Send + 'static,
    ) -> Result<(), Refusal> {
        if self.running.fetch_add(1, Ordering::Relaxed) >= MAX_JOBS {
            self.running.fetch_sub(1, Ordering::Relaxed);
            let message = format!("{MAX_JOBS} requests are being worked on");
            return Err(Refusal::new(RefusalKind::Limit, message));
        }
        let running = Running { count: Arc::clone(&self.running), wake: Arc::clone(&self.wake) };
        let (sender, wake) = (self.sender.clone(), Arc::clone(&self.wake));
        let voice = Voice { epoch, stream, sender, wake };
        let builder = std::thread::Builder::new().stack_size(JOB_STACK_BYTES);
        let started = builder.spawn(move || {
            let _running = running;
            job(&voice);
        });
        match started {
            Ok(_) => Ok(()),
            Err(error) => Err(Refusal::from_io("a thread for the request", &error)),
        }
    }

    /// Waits until no job runs, or `deadline` has passed.
    pub fn wait_idle(&self, deadline: Instant) {
        while self.running.load(Ordering::Acquire) > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(timeout) = Timespec::try_from(left) else { return };
            let waited = poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], Some(&timeout));
            if left.is_zero() || waited.is_err() {
                return;
            }
            self.rearm();
        }
    }

    /// Becomes readable when a job has said something.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes [`Jobs::wake`] unreadable again, before the events are taken.
    pub fn rearm(&self) {
        // It is readable, or there is nothing to reset.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Takes what was said next.
    pub fn next(&self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }
}
