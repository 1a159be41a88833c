//! One QEMU process as a [`Machine`].
//!
//! ```text
//! spawn ─► wait_ready ─► [load_devices] ─► resume ⇄ pause ─► save_devices ─► resume …
//!             (stopped)                                │
//!                                  the end, at any time: wait_end, kill, drop
//! ```
//!
//! Every QMP exchange goes through [`QemuMachine::run`], so that every failure names the machine,
//! the command and, when QEMU has gone, the last lines of its log; and every event passes
//! [`QemuMachine::note`], so that the reason of an end is known when it comes.

mod disks;
mod end;
mod ram;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pando_machine::{
    Crowded, DiskRole, EndReason, GuestRam, Link, Machine, MachineError, MachinePlan, NicBackend,
    Stillness, Uplink as _, UplinkPlan,
};
use pando_model::network::{ADDRESS, GATEWAY, PREFIX_BITS};
use rustix::event::{PollFd, PollFlags};
use serde_json::{Value, json};

use self::disks::Disks;
use self::end::EndTracker;
use crate::args::{self, Channels, PlanError};
use crate::limits::END_GRACE;
use crate::process::Process;
use crate::qmp::{Client, Command, Event, QmpError};
use crate::queues::{self, Queue};
use crate::uplink::Passt;
use crate::version::Version;
use crate::wait;

/// A running QEMU.
#[derive(Debug)]
pub struct QemuMachine {
    name: String,
    version: Version,
    process: Process,
    qmp: Client,
    guest_port: Option<UnixStream>,
    memory_image: PathBuf,
    memory_bytes: u64,
    nics: usize,
    /// After the process: QEMU goes first.
    uplinks: Vec<Passt>,
    disks: Disks,
    end: EndTracker,
}

impl QemuMachine {
    /// Starts QEMU and returns at once. `ports` are only borrowed: QEMU has copies of them.
    pub fn spawn(
        binary: &Path,
        version: Version,
        plan: &MachinePlan,
        ports: &[OwnedFd],
    ) -> Result<Self, MachineError> {
        check_memory_image(plan)?;
        let failed = |source| MachineError::Spawn { program: binary.display().to_string(), source };
        let (qmp, qemu_qmp) = UnixStream::pair().map_err(failed)?;
        let (guest_port, qemu_guest) = UnixStream::pair().map_err(failed)?;
        let (uplinks, qemu_uplinks) = spawn_uplinks(plan)?;
        let channels = Channels {
            qmp: qemu_qmp.as_raw_fd(),
            guest: qemu_guest.as_raw_fd(),
            uplinks: &numbers(&qemu_uplinks),
            ports: &numbers(ports),
        };
        let arguments = args::build(plan, channels)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let sockets = [&qemu_qmp, &qemu_guest].into_iter().chain(&qemu_uplinks).map(AsFd::as_fd);
        let keep: Vec<BorrowedFd<'_>> = sockets.chain(ports.iter().map(AsFd::as_fd)).collect();
        let process = Process::spawn(binary, &arguments, &plan.log, &keep).map_err(failed)?;
        Ok(Self {
            name: plan.name.clone(),
            version,
            process,
            qmp: Client::new(qmp).map_err(failed)?,
            guest_port: Some(guest_port),
            memory_image: plan.memory_image.clone(),
            memory_bytes: plan.shape.memory.bytes(),
            nics: plan.nics.len(),
            uplinks,
            disks: Disks::new(plan),
            end: EndTracker::default(),
        })
    }

    fn wait_for_uplinks(&mut self, deadline: Instant) -> Result<(), MachineError> {
        self.uplinks.iter_mut().try_for_each(|uplink| uplink.wait_ready(deadline))
    }

    /// Runs commands in one write; `what` is the verb phrase of the wait.
    fn run_all(
        &mut self,
        what: &'static str,
        commands: &[Command],
        deadline: Instant,
    ) -> Result<Vec<Value>, MachineError> {
        let started = Instant::now();
        let values = self.qmp.execute_all(commands, deadline);
        while let Some(event) = self.qmp.next_event() {
            self.note(&event);
        }
        values.map_err(|error| self.failed(what, started, error))
    }

    /// Runs one command; `what` is the verb phrase of the wait.
    fn run(
        &mut self,
        what: &'static str,
        command: Command,
        deadline: Instant,
    ) -> Result<Value, MachineError> {
        let mut values = self.run_all(what, &[command], deadline)?;
        Ok(values.pop().unwrap_or(Value::Null))
    }

    /// Waits for the next event and notes it.
    fn next_event(
        &mut self,
        what: &'static str,
        started: Instant,
        deadline: Instant,
    ) -> Result<Event, MachineError> {
        match self.qmp.wait_event(deadline) {
            Ok(event) => {
                self.note(&event);
                Ok(event)
            }
            Err(error) => Err(self.failed(what, started, error)),
        }
    }

    /// Takes in what QEMU has said since.
    fn note_events(&mut self) {
        // A garbled connection must not hide the end of the process.
        let _ = self.qmp.drain();
        while let Some(event) = self.qmp.next_event() {
            self.note(&event);
        }
    }

    fn note(&mut self, event: &Event) {
        self.end.note(event);
        self.disks.note(event);
    }

    fn failed(&mut self, what: &'static str, started: Instant, error: QmpError) -> MachineError {
        let name = self.name.clone();
        match error {
            QmpError::Closed => self.ended(),
            QmpError::Deadline => MachineError::Deadline { name, what, waited: started.elapsed() },
            QmpError::Refused { command, source } => self.refused(command, source.description),
            QmpError::Io(source) => MachineError::Protocol { name, detail: source.to_string() },
            QmpError::Protocol(source) => {
                MachineError::Protocol { name, detail: source.to_string() }
            }
        }
    }

    /// Reads the answers to [`queues::queries`]: of each interface, the queue it sends by and the one
    /// it receives by.
    fn queues(&self, answers: &[Value]) -> Result<Vec<(Queue, Queue)>, MachineError> {
        let parse = |answer: &Value| {
            Queue::parse(answer).ok_or_else(|| self.protocol(format!("no queue status: {answer}")))
        };
        let (pairs, _) = answers.as_chunks::<2>();
        pairs.iter().map(|[transmit, receive]| Ok((parse(transmit)?, parse(receive)?))).collect()
    }

    /// Returns the interfaces whose guest leaves no room for frames.
    fn without_room(
        &mut self,
        queues: &[(Queue, Queue)],
        deadline: Instant,
    ) -> Result<Vec<Crowded>, MachineError> {
        let mut crowded = Vec::new();
        for (nic, (_, receive)) in queues.iter().enumerate() {
            if receive.has_room() {
                continue;
            }
            // What the guest gave since is in its memory only.
            match self.qmp.execute(&queues::given_query(nic), deadline) {
                Ok(element) if receive.has_room_given(&element) => {}
                Ok(_) => crowded.push(Crowded { nic, taken: receive.taken }),
                // Its driver has not started: frames go nowhere.
                Err(QmpError::Refused { .. }) => {}
                Err(error) => return Err(self.failed("tell its queue", Instant::now(), error)),
            }
        }
        Ok(crowded)
    }

    fn refused(&self, command: &str, detail: impl Into<String>) -> MachineError {
        MachineError::Refused {
            name: self.name.clone(),
            command: command.to_owned(),
            detail: detail.into(),
        }
    }

    fn protocol(&self, detail: impl Into<String>) -> MachineError {
        MachineError::Protocol { name: self.name.clone(), detail: detail.into() }
    }

    /// The error of a machine whose QMP connection was closed.
    fn ended(&mut self) -> MachineError {
        let detail = match self.process.wait(Instant::now() + END_GRACE) {
            Ok(Some(status)) => end::describe(status, &self.process.log_tail()),
            Ok(None) => "it closed its control connection, but still runs".to_owned(),
            Err(error) => format!("its end cannot be waited for: {error}"),
        };
        MachineError::Ended { name: self.name.clone(), detail }
    }

    fn unusable(&self, path: &Path, error: PlanError) -> MachineError {
        let source = io::Error::new(io::ErrorKind::InvalidInput, error);
        MachineError::File { name: self.name.clone(), path: path.to_owned(), source }
    }
}

impl Machine for QemuMachine {
    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn take_guest_port(&mut self) -> Option<UnixStream> {
        self.guest_port.take()
    }

    fn wait_ready(&mut self, deadline: Instant) -> Result<(), MachineError> {
        let started = Instant::now();
        if let Err(error) = self.qmp.negotiate(deadline) {
            return Err(self.failed("answer", started, error));
        }
        let expected = self.version.to_string();
        match self.qmp.version() {
            Some(version) if version == expected => self.wait_for_uplinks(deadline),
            version => {
                let version = version.unwrap_or("unknown").to_owned();
                Err(self.protocol(format!("it is QEMU {version}, but {expected} was expected")))
            }
        }
    }

    fn load_devices(&mut self, from: &Path, deadline: Instant) -> Result<(), MachineError> {
        const WHAT: &str = "load its device state";
        let started = Instant::now();
        let filename = args::utf8(from).map_err(|error| self.unusable(from, error))?;
        let commands = [
            Command::with(
                "migrate-set-capabilities",
                json!({ "capabilities": [{ "capability": "events", "state": true }] }),
            ),
            // Nobody moved: the addresses are where they were.
            Command::with("migrate-set-parameters", json!({ "announce-rounds": 0 })),
            Command::with(
                "migrate-incoming",
                json!({ "channels": [{
                    "channel-type": "main",
                    "addr": { "transport": "file", "filename": filename, "offset": 0 },
                }] }),
            ),
        ];
        // Not through `run_all`: the outcome may come as an event before the last reply.
        if let Err(error) = self.qmp.execute_all(&commands, deadline) {
            return Err(self.failed(WHAT, started, error));
        }
        loop {
            let event = self.next_event(WHAT, started, deadline)?;
            match (event.name.as_str(), event.text("status")) {
                ("MIGRATION", Some("completed")) => return Ok(()),
                ("MIGRATION", Some("failed")) => {
                    let info = self.run(WHAT, Command::new("query-migrate"), deadline)?;
                    let detail = info.get("error-desc").and_then(Value::as_str);
                    return Err(
                        self.refused("migrate-incoming", detail.unwrap_or("no reason given"))
                    );
                }
                _ => {}
            }
        }
    }

    fn trouble(&mut self) -> Result<Option<String>, MachineError> {
        self.note_events();
        Ok(self.disks.trouble().map(str::to_owned))
    }

    fn resume(&mut self, deadline: Instant) -> Result<(), MachineError> {
        // Before the command: the same error may come back at once.
        self.disks.forget_trouble();
        self.run("resume", Command::new("cont"), deadline).map(drop)
    }

    fn pause(&mut self, deadline: Instant) -> Result<(), MachineError> {
        self.run("pause", Command::new("stop"), deadline).map(drop)
    }

    fn prepare_overlay(
        &mut self,
        disk: DiskRole,
        overlay: &Path,
        deadline: Instant,
    ) -> Result<(), MachineError> {
        self.add_overlay(disk, overlay, deadline)
    }

    fn discard_overlays(&mut self, deadline: Instant) -> Result<(), MachineError> {
        self.remove_overlays(deadline)
    }

    fn save_devices(&mut self, to: Option<&Path>, deadline: Instant) -> Result<(), MachineError> {
        let switch = self.switch_command()?;
        // Not in one write with the switch: disks must stay where they are when this fails.
        if let Some(path) = to {
            let filename = args::utf8(path).map_err(|error| self.unusable(path, error))?;
            let save = Command::with(
                "xen-save-devices-state",
                json!({ "filename": filename, "live": false }),
            );
            self.run("save its device state", save, deadline)?;
        }
        self.run("switch to its overlays", switch, deadline)?;
        self.disks.switched();
        Ok(())
    }

    fn crowded(&mut self, deadline: Instant) -> Result<Vec<Crowded>, MachineError> {
        let queries = queues::queries(self.nics);
        let answers = self.run_all("tell its queue status", &queries, deadline)?;
        let queues = self.queues(&answers)?;
        self.without_room(&queues, deadline)
    }

    fn stand_still(&mut self, deadline: Instant) -> Result<Stillness, MachineError> {
        let stop = std::iter::once(Command::new("stop"));
        let commands: Vec<Command> = stop.chain(queues::queries(self.nics)).collect();
        let answers = self.run_all("pause", &commands, deadline)?;
        let queues = self.queues(answers.get(1..).unwrap_or_default())?;
        Ok(Stillness {
            quiet: queues.iter().all(|(transmit, _)| transmit.in_use == 0),
            crowded: self.without_room(&queues, deadline)?,
        })
    }

    fn flatten(
        &mut self,
        disk: DiskRole,
        keep: &Path,
        deadline: Instant,
    ) -> Result<(), MachineError> {
        self.flatten_chain(disk, keep, deadline)
    }

    fn ram(&self) -> Result<GuestRam, MachineError> {
        let pid = self.pid();
        let unusable = |source| MachineError::File {
            name: self.name.clone(),
            path: self.memory_image.clone(),
            source,
        };
        let address = ram::find(pid, &self.memory_image, self.memory_bytes).map_err(unusable)?;
        Ok(GuestRam { pid, address, length: self.memory_bytes })
    }

    fn power_button(&mut self, deadline: Instant) -> Result<(), MachineError> {
        self.run("press its power button", Command::new("system_powerdown"), deadline).map(drop)
    }

    fn set_link(&mut self, nic: usize, link: Link, deadline: Instant) -> Result<(), MachineError> {
        let up = match link {
            Link::Up => true,
            Link::Down => false,
        };
        let command = Command::with("set_link", json!({ "name": args::nic_id(nic), "up": up }));
        self.run("set a link", command, deadline).map(drop)
    }

    fn wait_end(&mut self, timeout: Duration) -> Result<Option<EndReason>, MachineError> {
        let deadline = Instant::now() + timeout;
        let unreachable = |machine: &Self, error: io::Error| {
            machine.protocol(format!("its end cannot be waited for: {error}"))
        };
        loop {
            self.note_events();
            match self.process.wait(Instant::now()) {
                Ok(Some(status)) => {
                    self.note_events();
                    return Ok(Some(self.end.reason(status, &self.process.log_tail())));
                }
                Ok(None) => {}
                Err(error) => return Err(unreachable(self, error)),
            }
            let mut fds = vec![PollFd::new(&self.process, PollFlags::IN)];
            if !self.qmp.is_closed() {
                fds.push(PollFd::new(self.qmp.socket(), PollFlags::IN));
            }
            match wait::poll(&mut fds, deadline) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => return Err(unreachable(self, error)),
            }
        }
    }

    fn kill(&mut self) -> EndReason {
        if let Ok(Some(reason)) = self.wait_end(Duration::ZERO) {
            self.uplinks.clear();
            return reason;
        }
        self.end.killed();
        // Past the grace period the kernel still holds it, but it will run no more.
        let _ = self.process.kill();
        self.uplinks.clear();
        EndReason::Killed
    }
}

fn numbers(descriptors: &[impl AsRawFd]) -> Vec<RawFd> {
    descriptors.iter().map(AsRawFd::as_raw_fd).collect()
}

/// Starts what the plan's interfaces need, and returns the sockets for QEMU as well.
fn spawn_uplinks(plan: &MachinePlan) -> Result<(Vec<Passt>, Vec<UnixStream>), MachineError> {
    let wanted = plan.nics.iter().filter(|nic| nic.backend == NicBackend::Nat).count();
    let uplink = UplinkPlan {
        name: plan.name.clone(),
        address: ADDRESS,
        prefix_bits: PREFIX_BITS,
        gateway: GATEWAY,
        inside: Vec::new(),
        log: plan.log.clone(),
    };
    let pairs: Vec<_> = (0..wanted).map(|_| Passt::spawn(&uplink)).collect::<Result<_, _>>()?;
    Ok(pairs.into_iter().unzip())
}

fn check_memory_image(plan: &MachinePlan) -> Result<(), MachineError> {
    let unusable = |source| MachineError::File {
        name: plan.name.clone(),
        path: plan.memory_image.clone(),
        source,
    };
    let length = std::fs::metadata(&plan.memory_image).map_err(unusable)?.len();
    let memory = plan.shape.memory.bytes();
    if length != memory {
        let text = format!("it has {length} bytes, but the machine has {memory} bytes of RAM");
        return Err(unusable(io::Error::new(io::ErrorKind::InvalidData, text)));
    }
    Ok(())
}
