//! `Switches` and `Switch`: starts the thread, sends it commands and waits for its answers, each with
//! a deadline. Files are written by whoever asks, not by the thread.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pando_machine::{
    CaptureLimits, FrameCapture, PortNumber, SavedSwitch, Settled, Switch, SwitchError, Switches,
};
use pando_model::Name;
use pando_model::fault::Fault;
use pando_model::network::{NetworkObservation, NetworkSpec, Port};
use rustix::event::EventfdFlags;

use crate::core::{Core, SpecError};
use crate::limits::{COMMAND_DEADLINE, COMMANDS, MAX_STATE_BYTES};
use crate::thread::{Command, Overfull, Reply, SaveError, Worker};

/// Opens user-space switches.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserSwitches;

impl Switches for UserSwitches {
    fn open(
        &self,
        spec: &NetworkSpec,
        state: Option<&Path>,
    ) -> Result<(Box<dyn Switch>, Vec<OwnedFd>), SwitchError> {
        let refused = |error: SpecError| SwitchError::Misused(error.to_string());
        // What is wrong with the specification is not the file's fault.
        let fresh = Core::new(spec.clone()).map_err(refused)?;
        let (core, clock) = match state {
            None => (fresh, Duration::ZERO),
            Some(path) => {
                let bytes = read_state(path)?;
                Core::restore(spec.clone(), &bytes).map_err(|error| SwitchError::Damaged {
                    path: path.to_owned(),
                    detail: error.to_string(),
                })?
            }
        };
        let system = |source| SwitchError::System { what: "open its ports", source };
        let (ours, theirs) = pairs(spec.ports.len()).map_err(system)?;
        let switch = UserSwitch::start(spec.ports.clone(), core, clock, ours).map_err(system)?;
        Ok((Box::new(switch), theirs))
    }
}

/// A running switch.
#[derive(Debug)]
struct UserSwitch {
    ports: Vec<Port>,
    /// `None` when it shall end.
    commands: Option<SyncSender<Command>>,
    wake: Arc<OwnedFd>,
    /// `None` once it has ended and said why.
    thread: Option<JoinHandle<io::Result<()>>>,
    /// Why it ended.
    end: String,
}

impl UserSwitch {
    fn start(
        ports: Vec<Port>,
        core: Core,
        clock: Duration,
        sockets: Vec<UnixStream>,
    ) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        let wake = Arc::new(rustix::event::eventfd(0, flags)?);
        let (commands, receiver) = sync_channel(COMMANDS);
        let worker = Worker::new(core, clock, sockets, Arc::clone(&wake), receiver)?;
        let thread =
            std::thread::Builder::new().name("switch".to_owned()).spawn(move || worker.run())?;
        Ok(Self { ports, commands: Some(commands), wake, thread: Some(thread), end: String::new() })
    }

    /// Sends a command, and waits for its answer.
    fn ask<T>(&mut self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, SwitchError> {
        self.ask_until(Instant::now(), command)
    }

    /// As [`Self::ask`], of a command that has a deadline itself.
    fn ask_until<T>(
        &mut self,
        deadline: Instant,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, SwitchError> {
        let (reply, answer) = sync_channel(1);
        let sent = self.commands.as_ref().map(|commands| commands.try_send(command(reply)));
        match sent {
            Some(Ok(())) => {}
            // Several before were given up: the thread hangs.
            Some(Err(TrySendError::Full(_))) => return Err(SwitchError::Deadline(Duration::ZERO)),
            Some(Err(TrySendError::Disconnected(_))) | None => return Err(self.ended()),
        }
        self.wake();
        let wait = deadline.saturating_duration_since(Instant::now()) + COMMAND_DEADLINE;
        answer.recv_timeout(wait).map_err(|error| match error {
            RecvTimeoutError::Timeout => SwitchError::Deadline(wait),
            RecvTimeoutError::Disconnected => self.ended(),
        })
    }

    fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    fn ended(&mut self) -> SwitchError {
        if let Some(thread) = self.thread.take() {
            self.end = match thread.join() {
                Ok(Ok(())) => "it was told to".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "its thread panicked".to_owned(),
            };
        }
        SwitchError::Ended(self.end.clone())
    }

    /// Returns a node's ports by number of the interface.
    fn ports_of(&self, node: &Name) -> Vec<usize> {
        let mut ports: Vec<usize> =
            (0..self.ports.len()).filter(|port| self.ports[*port].node == *node).collect();
        ports.sort_by_key(|port| self.ports[*port].nic);
        ports
    }
}

impl Switch for UserSwitch {
    fn hold(&mut self) -> Result<(), SwitchError> {
        self.ask(Command::Hold)
    }

    fn drain(&mut self, deadline: Instant) -> Result<Vec<PortNumber>, SwitchError> {
        self.ask_until(deadline, |reply| Command::Drain(deadline, reply))?.map_err(overfull)
    }

    fn settle(&mut self) -> Result<Settled, SwitchError> {
        self.ask(Command::Settle)?.map_err(overfull)
    }

    fn save(&mut self, to: &Path) -> Result<SavedSwitch, SwitchError> {
        let saved = self.ask(Command::Save)?.map_err(|error| match error {
            SaveError::NotHeld => SwitchError::Misused("be saved while it forwards".to_owned()),
            SaveError::Overfull => overfull(Overfull),
        })?;
        let written = File::create(to).and_then(|mut file| file.write_all(&saved.bytes));
        written.map_err(|source| SwitchError::File { path: to.to_owned(), source })?;
        Ok(SavedSwitch { frames: saved.frames, faults: saved.faults })
    }

    fn release(&mut self) -> Result<(), SwitchError> {
        self.ask(Command::Release)
    }

    fn set_faults(&mut self, faults: Vec<Fault>) -> Result<(), SwitchError> {
        self.ask(|reply| Command::SetFaults(faults, reply))?
            .map_err(|error| SwitchError::Misused(error.to_string()))
    }

    fn observe(&mut self) -> Result<NetworkObservation, SwitchError> {
        self.ask(Command::Observe)
    }

    fn replug(&mut self, node: &Name) -> Result<Vec<OwnedFd>, SwitchError> {
        let ports = self.ports_of(node);
        if ports.is_empty() {
            return Err(no_node(node));
        }
        let system = |source| SwitchError::System { what: "open its ports", source };
        let (ours, theirs) = pairs(ports.len()).map_err(system)?;
        let plugs = ports.into_iter().zip(ours).collect();
        self.ask(|reply| Command::Plug(plugs, reply))?.map_err(system)?;
        Ok(theirs)
    }

    fn attach_uplink(&mut self, node: &Name, outside: UnixStream) -> Result<(), SwitchError> {
        let attached = self.ask(|reply| Command::Attach(node.clone(), outside, reply))?;
        match attached {
            Ok(true) => Ok(()),
            Ok(false) => Err(no_node(node)),
            Err(source) => Err(SwitchError::System { what: "attach an uplink", source }),
        }
    }

    fn begin_capture(&mut self, to: File, limits: CaptureLimits) -> Result<(), SwitchError> {
        match self.ask(|reply| Command::BeginCapture(to, limits, reply))? {
            Ok(true) => Ok(()),
            Ok(false) => Err(SwitchError::Misused("capture twice at a time".to_owned())),
            Err(source) => Err(SwitchError::System { what: "begin a capture", source }),
        }
    }

    fn end_capture(&mut self) -> Result<Option<FrameCapture>, SwitchError> {
        self.ask(Command::EndCapture)?.map(crate::capture::CaptureFile::wait_end).transpose()
    }
}

impl Drop for UserSwitch {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // What it ended with has nobody to be told to.
            let _ = thread.join();
        }
    }
}

fn overfull(_: Overfull) -> SwitchError {
    SwitchError::Misused("hold all that came in: release it, and cut again".to_owned())
}

fn no_node(node: &Name) -> SwitchError {
    SwitchError::Misused(format!("find a port of `{node}`"))
}

/// Returns so many pairs of sockets: ours and the machines'.
fn pairs(count: usize) -> io::Result<(Vec<UnixStream>, Vec<OwnedFd>)> {
    (0..count)
        .map(|_| UnixStream::pair().map(|(ours, theirs)| (ours, theirs.into())))
        .collect::<io::Result<Vec<_>>>()
        .map(|pairs| pairs.into_iter().unzip())
}

fn read_state(path: &Path) -> Result<Vec<u8>, SwitchError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_STATE_BYTES).read_to_end(&mut bytes));
    read.map_err(|source| SwitchError::File { path: path.to_owned(), source })?;
    Ok(bytes)
}
