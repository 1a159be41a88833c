//! The switch's thread: carries bytes between sockets and the core, and obeys commands between two
//! turns. It never waits for one machine: sockets are non-blocking, reading goes on whatever cannot
//! be written, and what cannot be written waits in its own port's queue.

mod cut;

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use pando_machine::{CaptureLimits, PortNumber, Settled};
use pando_model::Name;
use pando_model::fault::Fault;
use pando_model::network::NetworkObservation;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::capture::CaptureFile;
use crate::clock::Clock;
use crate::core::{Core, SpecError};
use crate::frame::Frames;
use crate::limits::{EVENTS, EXPIRY_INTERVAL, READ_BYTES};
use crate::links::LinkNumber;
use crate::pcap::Recorder;
use crate::socket::{ReadOutcome, Socket, WriteOutcome};

/// Where an answer goes.
pub type Reply<T> = SyncSender<T>;

/// What the thread is asked to do; each is answered when it is done.
#[derive(Debug)]
pub enum Command {
    /// Stop forwarding.
    Hold(Reply<()>),
    /// Wait until machines have read.
    Drain(Instant, Reply<Result<Vec<PortNumber>, Overfull>>),
    /// Read until there is no more.
    Settle(Reply<Result<Settled, Overfull>>),
    /// Return the state file's bytes and how many frames it has.
    Save(Reply<Result<SavedState, SaveError>>),
    /// Go on.
    Release(Reply<()>),
    /// Apply faults.
    SetFaults(Vec<Fault>, Reply<Result<(), SpecError>>),
    /// Tell.
    Observe(Reply<NetworkObservation>),
    /// Put sockets in place of ports' old ones.
    Plug(Vec<(usize, UnixStream)>, Reply<io::Result<()>>),
    /// Connect a node to the outside; `false` if there is no such node.
    Attach(Name, UnixStream, Reply<io::Result<bool>>),
    /// Record frames; `None` if something does already.
    BeginCapture(File, CaptureLimits, Reply<io::Result<bool>>),
    /// Record no more.
    EndCapture(Reply<Option<CaptureFile>>),
}

/// A state as it is saved.
#[derive(Debug)]
pub struct SavedState {
    /// The file.
    pub bytes: Vec<u8>,
    /// Frames on their way.
    pub frames: u64,
    /// The faults that work.
    pub faults: Vec<Fault>,
}

/// More came in while held than there is room for: the cut must be given up, and nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overfull;

/// Why there is no state to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveError {
    /// The switch is not held.
    NotHeld,
    /// As [`Overfull`].
    Overfull,
}

/// What the wake-up's events carry in place of an output's number.
const WAKE: u64 = u64::MAX;

/// Whether the thread goes on.
#[derive(PartialEq, Eq)]
enum Turn {
    Next,
    Last,
}

/// All that the thread has.
#[derive(Debug)]
pub struct Worker {
    core: Core,
    clock: Clock,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    commands: Receiver<Command>,
    /// By output of the core; `None` if there is nobody.
    sockets: Vec<Option<Socket>>,
    buffer: Vec<u8>,
    listed: Vec<usize>,
    /// Frames that came in since the hold, or since it was asked last.
    came_in: u64,
    /// Whether nothing is written: a machine that is stopped would still read it, and a branch would
    /// not have it.
    is_mute: bool,
    /// Links of the frames that machines had not read when they should have.
    unread: Vec<LinkNumber>,
    capture: Option<CaptureFile>,
}

impl Worker {
    /// Returns a worker for a held core; `ports` are the switch's ends.
    pub fn new(
        core: Core,
        clock: Duration,
        ports: Vec<UnixStream>,
        wake: Arc<OwnedFd>,
        commands: Receiver<Command>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let mut sockets = Vec::new();
        sockets.resize_with(core.output_count(), || None);
        let mut worker = Self {
            core,
            clock: Clock::stopped_at(clock),
            epoll,
            wake,
            commands,
            sockets,
            buffer: vec![0; READ_BYTES],
            listed: Vec::new(),
            came_in: 0,
            is_mute: false,
            unread: Vec::new(),
            capture: None,
        };
        for (port, stream) in ports.into_iter().enumerate() {
            worker.plug(port, stream)?;
        }
        Ok(worker)
    }

    /// Runs until nobody can send commands any more.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            let timeout = self.timeout();
            let is_woken = self.turn(timeout)?;
            if is_woken && self.obey_next()? == Turn::Last {
                // What was recorded still goes to its file.
                drop(self.end_capture());
                return Ok(());
            }
        }
    }

    /// How long nothing has to be done.
    fn timeout(&mut self) -> Option<Duration> {
        let due = self.core.next_due().map(|due| due.saturating_sub(self.clock.now()));
        let expiry = self.core.next_expiry().map(|end| {
            let left = end.duration_since(Timestamp::now());
            Duration::try_from(left).unwrap_or_default().min(EXPIRY_INTERVAL)
        });
        let capture = match (&self.capture, self.core.recorder()) {
            (Some(capture), Some(recorder)) => capture.due(recorder),
            _ => None,
        };
        [due, expiry, capture].into_iter().flatten().min()
    }

    /// Waits for something to happen, and deals with it. Returns whether there are commands.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); EVENTS];
        let events = wait(&self.epoll, timeout, &mut space)?;
        if self.core.next_expiry().is_some() {
            self.core.expire(Timestamp::now());
        }
        if let Some(recorder) = self.core.recorder() {
            // A clock before 1970 is wrong anyway.
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            recorder.set_time(time.unwrap_or_default());
        }
        self.core.advance(self.clock.now());
        self.flush_listed()?;
        let mut is_woken = false;
        for event in events {
            let (data, flags) = (event.data, event.flags);
            match usize::try_from(data.u64()) {
                Ok(output) if data.u64() != WAKE => self.serve(output, flags)?,
                _ => is_woken = true,
            }
        }
        if let (Some(capture), Some(recorder)) = (&mut self.capture, self.core.recorder()) {
            capture.take(recorder);
        }
        Ok(is_woken)
    }

    fn serve(&mut self, output: usize, flags: EventFlags) -> io::Result<()> {
        if flags.contains(EventFlags::OUT) {
            if let Some(Some(socket)) = self.sockets.get_mut(output) {
                socket.is_full = false;
            }
            self.flush(output)?;
        }
        if self.is_deaf(output) {
            if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
                self.close(output)?;
            }
        } else if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(output)?;
            self.flush_listed()?;
        }
        Ok(())
    }

    /// Reads once from a socket, and lets the core have the frames. Returns whether there was
    /// something.
    fn read(&mut self, output: usize) -> io::Result<bool> {
        let Some(Some(socket)) = self.sockets.get_mut(output) else { return Ok(false) };
        let count = match socket.read(&mut self.buffer) {
            ReadOutcome::Bytes(count) => count,
            ReadOutcome::Empty => return Ok(false),
            ReadOutcome::Over => {
                self.close(output)?;
                return Ok(false);
            }
        };
        let now = self.clock.now();
        let mut frames = Frames::new(self.buffer.get(..count).unwrap_or_default());
        while let Some(frame) = frames.next() {
            match frame {
                Ok(frame) => self.core.input(now, output, frame),
                Err(_) => {
                    // All that is left is one thing that is no frame.
                    let rest = frames.rest().len();
                    socket.keep(&[]);
                    self.core.malformed(output, rest);
                    self.close(output)?;
                    return Ok(true);
                }
            }
            self.came_in += 1;
        }
        socket.keep(frames.rest());
        if self.core.is_held() && self.core.is_overfull() {
            self.refresh_interests()?;
        }
        Ok(true)
    }

    fn flush_listed(&mut self) -> io::Result<()> {
        let mut listed = std::mem::take(&mut self.listed);
        self.core.take_listed(&mut listed);
        for output in &listed {
            self.flush(*output)?;
        }
        self.listed = listed;
        Ok(())
    }

    /// Writes what a socket takes.
    fn flush(&mut self, output: usize) -> io::Result<()> {
        let Some(Some(socket)) = self.sockets.get_mut(output) else { return Ok(()) };
        let bytes = if self.is_mute { &[] } else { self.core.output(output) };
        if !bytes.is_empty() && !socket.is_full {
            match socket.write(bytes) {
                WriteOutcome::Bytes(count) => {
                    self.core.wrote(output, count, |link, length| socket.wrote(link, length));
                }
                WriteOutcome::Over => return self.close(output),
            }
        }
        self.refresh_interest(output)
    }

    /// Whether nothing is read: while held, what comes from outside, and what there is no room for.
    fn is_deaf(&self, output: usize) -> bool {
        self.core.is_held() && (output >= self.core.ports().len() || self.core.is_overfull())
    }

    /// Waits for what can be used: bytes, and room while something waits to be written.
    fn refresh_interest(&mut self, output: usize) -> io::Result<()> {
        let is_deaf = self.is_deaf(output);
        let Some(Some(socket)) = self.sockets.get_mut(output) else { return Ok(()) };
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, !is_deaf);
        let wants_room = socket.is_full && !self.is_mute && !self.core.output(output).is_empty();
        interest.set(EventFlags::OUT, wants_room);
        if interest != socket.interest {
            socket.interest = interest;
            epoll::modify(&self.epoll, &*socket, EventData::new_u64(output as u64), interest)?;
        }
        Ok(())
    }

    fn refresh_interests(&mut self) -> io::Result<()> {
        (0..self.sockets.len()).try_for_each(|output| self.refresh_interest(output))
    }

    /// Puts a socket in an output's place.
    fn plug(&mut self, output: usize, stream: UnixStream) -> io::Result<()> {
        self.close(output)?;
        let socket = Socket::new(stream)?;
        epoll::add(&self.epoll, &socket, EventData::new_u64(output as u64), socket.interest)?;
        if let Some(place) = self.sockets.get_mut(output) {
            *place = Some(socket);
        }
        self.core.open(output);
        self.refresh_interest(output)
    }

    /// Ends one socket, and nothing else.
    fn close(&mut self, output: usize) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(output).and_then(Option::take) else {
            return Ok(());
        };
        if socket.partial_bytes() > 0 {
            self.core.malformed(output, socket.partial_bytes());
        }
        self.core.close(output);
        Ok(epoll::delete(&self.epoll, socket.as_fd())?)
    }

    /// Obeys one command for each wake-up: between two, frames are carried, however fast they come.
    fn obey_next(&mut self) -> io::Result<Turn> {
        // It is readable, and takes one from the count.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        match self.commands.try_recv() {
            Ok(command) => self.obey(command).map(|()| Turn::Next),
            Err(TryRecvError::Empty) => Ok(Turn::Next),
            Err(TryRecvError::Disconnected) => Ok(Turn::Last),
        }
    }

    fn obey(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Hold(reply) => answer(&reply, self.hold()?),
            Command::Drain(deadline, reply) => answer(&reply, self.drain(deadline)?),
            Command::Settle(reply) => answer(&reply, self.settle()?),
            Command::Save(reply) => answer(&reply, self.save()),
            Command::Release(reply) => answer(&reply, self.release()?),
            Command::SetFaults(faults, reply) => answer(&reply, self.core.set_faults(faults)),
            Command::Observe(reply) => answer(&reply, self.core.observe(self.clock.now())),
            Command::Plug(ports, reply) => {
                let mut ports = ports.into_iter();
                let plugged = ports.try_for_each(|(port, stream)| self.plug(port, stream));
                answer(&reply, plugged);
                self.flush_listed()?;
            }
            Command::Attach(node, stream, reply) => {
                let attached = match self.core.uplink(&node) {
                    Some(output) => self.plug(output, stream).map(|()| true),
                    None => Ok(false),
                };
                answer(&reply, attached);
                self.flush_listed()?;
            }
            Command::BeginCapture(to, limits, reply) => {
                answer(&reply, self.begin_capture(to, limits));
            }
            Command::EndCapture(reply) => answer(&reply, self.end_capture()),
        }
        Ok(())
    }

    fn begin_capture(&mut self, to: File, limits: CaptureLimits) -> io::Result<bool> {
        if self.capture.as_ref().is_some_and(CaptureFile::is_open) {
            return Ok(false);
        }
        let recorder = Recorder::new(limits);
        self.capture = Some(CaptureFile::start(to, recorder.snap())?);
        *self.core.recorder() = Some(recorder);
        Ok(true)
    }

    fn end_capture(&mut self) -> Option<CaptureFile> {
        let mut capture = self.capture.take()?;
        if let Some(mut recorder) = self.core.recorder().take() {
            capture.take_all(&mut recorder);
        }
        Some(capture)
    }
}

/// Waits for events, at most for `timeout`.
fn wait<'a>(
    epoll: &OwnedFd,
    timeout: Option<Duration>,
    space: &'a mut [MaybeUninit<epoll::Event>],
) -> io::Result<&'a [epoll::Event]> {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
        // epoll's own timeout has milliseconds, or needs a newer kernel.
        let mut fds = [PollFd::new(epoll, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Timespec::try_from(timeout).ok().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let at_once = timeout.map(|_| &AT_ONCE);
    match epoll::wait(epoll, space, at_once) {
        Ok((events, _)) => Ok(events),
        Err(rustix::io::Errno::INTR) => Ok(&[]),
        Err(error) => Err(error.into()),
    }
}

/// Whoever asked may have given up; what was asked is done all the same.
fn answer<T>(reply: &Reply<T>, value: T) {
    let _ = reply.try_send(value);
}
