//! The guest program's loop: waits for the port, commands, connections and jobs at once, and does
//! what they ask for. Owns the epoch and its streams.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use pando_model::guest::{ExecOutcome, ExecSpec, ExecStatus, OutputStream};
use pando_wire::frame::{Decoder, Frame};
use pando_wire::guest::{
    Answer, GuestMessage, Hello, HostMessage, Refusal, RefusalKind, Reply, Request, StreamId,
    Welcome,
};
use pando_wire::limits::{GUEST_PROTOCOL, MAX_INHERITED, MAX_REQUEST_BYTES, MAX_STREAMS};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, wait, waitpid};

use crate::boot;
use crate::channel::{Channel, Read};
use crate::command::{Command, Pumped};
use crate::config::{Authority, Children, Config, Hangup};
use crate::files::{self, Feed};
use crate::flow::Flow;
use crate::forward::{Event as Relayed, Forward};
use crate::jobs::{Event, Jobs, What};
use crate::limits::{IDLE, LEAVING, MAX_LINGERING, REAP_INTERVAL, STARTED_DELAY};
use crate::power::{self, Power};
use crate::spawn::{set_nonblocking, spawn};
use crate::sys::{self, Async};
use crate::users::Tables;

/// Numbers every command of this process, for its mark, and every pipe that outlives one.
static NEXT_COMMAND: AtomicU64 = AtomicU64::new(1);

/// Serves the host on `port` as `config` says.
///
/// # Errors
/// When the port or the process's own plumbing fails. With [`Hangup::Return`], the host's leaving
/// is a normal end.
pub fn serve(port: OwnedFd, config: Config) -> io::Result<()> {
    set_nonblocking(&port)?;
    let signals = match config.children {
        Children::All => {
            rustix::process::set_child_subreaper(Some(Pid::INIT))?;
            Some(sys::wake_on(&[libc::SIGCHLD, libc::SIGIO])?)
        }
        Children::Own => None,
    };
    let mut server = Server {
        jobs: Jobs::new()?,
        channel: Channel::new(port),
        tables: Tables::new(&config.root),
        config,
        signals,
        decoder: Decoder::new(),
        epoch: None,
        expected: None,
        streams: HashMap::new(),
        commands: BTreeMap::new(),
        lingering: BTreeMap::new(),
        orphans: Vec::new(),
        away: false,
        halting: None,
        home: std::env::current_dir().unwrap_or_default(),
    };
    server.run()
}

struct Server {
    config: Config,
    tables: Tables,
    channel: Channel,
    jobs: Jobs,
    /// Readable after SIGCHLD or SIGIO, where this process has its own handlers.
    signals: Option<BorrowedFd<'static>>,
    decoder: Decoder,
    epoch: Option<u64>,
    /// Sequence number of the host's next frame; none after one was lost.
    expected: Option<u32>,
    streams: HashMap<StreamId, Activity>,
    commands: BTreeMap<u64, Command>,
    /// Pipes that background children of ended commands may write to.
    lingering: BTreeMap<u64, OwnedFd>,
    /// Killed processes that may have become our children, and how often to look for them.
    orphans: Vec<(i32, u32)>,
    /// The host's end is gone; SIGIO tells of its return.
    away: bool,
    /// The machine ends when the host has been told.
    halting: Option<Power>,
    /// This process's working directory.
    home: PathBuf,
}

/// What a stream does.
enum Activity {
    /// Its request is still coming in.
    Opening(Vec<u8>),
    /// It runs the command with this number.
    Command(u64),
    /// It relays a connection.
    Forward(Box<Forward>),
    /// It writes a file.
    Push { feed: Sender<Feed>, flow: Flow },
    /// It reads a file.
    Pull { grants: Sender<u32> },
    /// It waits for a job.
    Job,
    /// It asks the service manager about the boot, with the command of this number.
    Boot { number: u64, output: Vec<u8> },
}

/// Whom a ready descriptor concerns.
#[derive(Debug, Clone, Copy)]
enum Source {
    Port,
    Signals,
    Jobs,
    Output(u64, usize),
    Input(u64),
    Ended(u64),
    Forward(StreamId),
    Lingering(u64),
}

impl Server {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let now = Instant::now();
            self.channel.flush(now)?;
            if let Some(power) = self.halting.filter(|_| self.channel.is_flushed()) {
                power::now(power)?;
            }
            for (source, flags) in self.wait(now)? {
                if source_is_port(source) {
                    if self.read_port(flags)? == Turn::End {
                        self.drop_streams();
                        self.commands.values_mut().for_each(Command::condemn);
                        self.jobs.wait_idle(Instant::now() + LEAVING);
                        return Ok(());
                    }
                } else {
                    self.handle(source, flags);
                }
            }
            if self.signals.is_some() && sys::signalled() {
                self.on_signal();
            }
            self.tick(Instant::now());
        }
    }

    /// Waits until something is ready, and returns what.
    fn wait(&self, now: Instant) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if !self.away {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !self.channel.is_full());
            flags.set(PollFlags::OUT, self.channel.is_blocked());
            add(Source::Port, self.channel.port(), flags);
        }
        if let Some(signals) = self.signals {
            add(Source::Signals, signals, PollFlags::IN);
        }
        add(Source::Jobs, self.jobs.wake(), PollFlags::IN);
        for (&number, command) in &self.commands {
            if let Some(pidfd) = &command.pidfd {
                add(Source::Ended(number), pidfd.as_fd(), PollFlags::IN);
            }
            if let Some(input) = command.wants_to_write() {
                add(Source::Input(number), input, PollFlags::OUT);
            }
            if command.stream.is_none() || !self.channel.is_full() {
                for (index, output) in command.wants_to_read() {
                    add(Source::Output(number, index), output, PollFlags::IN);
                }
            }
        }
        for (&stream, activity) in &self.streams {
            if let Activity::Forward(forward) = activity {
                let (socket, read, write) = forward.interest();
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, read && !self.channel.is_full());
                flags.set(PollFlags::OUT, write);
                if !flags.is_empty() {
                    add(Source::Forward(stream), socket, flags);
                }
            }
        }
        for (&key, pipe) in &self.lingering {
            add(Source::Lingering(key), pipe.as_fd(), PollFlags::IN);
        }
        let timeout = self.next_deadline().map_or(IDLE, |at| at.saturating_duration_since(now));
        // Rounded up, so that the deadline has passed when the wait is over.
        let timeout = timeout.min(IDLE) + Duration::from_micros(50);
        let timeout = Timespec::try_from(timeout).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = sources.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let commands = self.commands.values().filter_map(Command::deadline);
        let reap = (!self.orphans.is_empty()).then(|| Instant::now() + REAP_INTERVAL);
        commands.chain(self.channel.due()).chain(reap).min()
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Port => {}
            Source::Signals => {
                if let Some(signals) = self.signals {
                    // It is readable, or there is nothing to reset.
                    let _ = rustix::io::read(signals, &mut [0; 8]);
                }
            }
            Source::Jobs => {
                self.jobs.rearm();
                while let Some(event) = self.jobs.next() {
                    self.on_job(event);
                }
            }
            Source::Output(number, index) => self.pump(number, index),
            Source::Input(number) => {
                if let Some(command) = self.commands.get_mut(&number) {
                    let used = command.write_input();
                    self.consumed_by(number, used);
                }
            }
            Source::Ended(number) => self.on_pidfd(number),
            Source::Forward(stream) => self.relay(stream, flags),
            Source::Lingering(key) => self.empty_lingering(key),
        }
    }

    /// Does what time demands, and tells the ends that have come.
    fn tick(&mut self, now: Instant) {
        let mut ended = Vec::new();
        for (&number, command) in &mut self.commands {
            if command.deadline().is_some_and(|deadline| now >= deadline) {
                command.tick(now);
            }
            if self.config.children == Children::Own {
                let killed = std::mem::take(&mut command.killed);
                self.orphans.extend(
                    killed.into_iter().filter(|&pid| pid != command.pid).map(|pid| (pid, 100)),
                );
            }
            if let Some(outcome) = command.outcome() {
                ended.push((number, outcome));
            }
        }
        for (number, outcome) in ended {
            self.end_command(number, outcome);
        }
        self.orphans.retain_mut(|(pid, tries)| {
            *tries -= 1;
            let gone = Pid::from_raw(*pid)
                .is_none_or(|pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))));
            !gone && *tries > 0
        });
    }

    // The port and the epoch.

    fn read_port(&mut self, flags: PollFlags) -> io::Result<Turn> {
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            // It can be written again; the next flush does.
            return Ok(Turn::Go);
        }
        let mut input = Vec::new();
        let read = self.channel.read(&mut input)?;
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut rest = input.as_slice();
        while let Some(frame) = decoder.next(&mut rest) {
            self.receive(&frame);
        }
        self.decoder = decoder;
        match (read, self.config.hangup) {
            (Read::Turn, _) => Ok(Turn::Go),
            (Read::End, Hangup::Return) => Ok(Turn::End),
            (Read::End, Hangup::Wait) => {
                sys::set_async(self.channel.port(), Async::On)?;
                // It may have come back before the kernel was told to say so.
                self.away = self.is_hung_up()?;
                if !self.away {
                    sys::set_async(self.channel.port(), Async::Off)?;
                }
                Ok(Turn::Go)
            }
        }
    }

    fn is_hung_up(&self) -> io::Result<bool> {
        let mut fds = [PollFd::from_borrowed_fd(self.channel.port(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default()))?;
        Ok(fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP)))
    }

    fn receive(&mut self, frame: &Frame<'_>) {
        let message = HostMessage::decode(frame.message);
        if let Ok(HostMessage::Hello(hello)) = &message {
            return self.hello(frame, hello);
        }
        if self.epoch != Some(frame.epoch) || self.expected.is_none() {
            return;
        }
        let Ok(message) = message else { return self.broken() };
        if self.expected != Some(frame.sequence) {
            return self.broken();
        }
        self.expected = Some(frame.sequence.wrapping_add(1));
        self.on_message(&message);
    }

    fn hello(&mut self, frame: &Frame<'_>, hello: &Hello) {
        self.expected = Some(frame.sequence.wrapping_add(1));
        if self.epoch != Some(frame.epoch) {
            self.drop_streams();
            self.epoch = Some(frame.epoch);
            self.channel.begin(frame.epoch);
            crate::clock::reseed(&self.config, &hello.entropy);
        }
        let inherited = self.commands.values().filter_map(Command::inherited);
        let welcome = Welcome {
            protocol: GUEST_PROTOCOL,
            guest_version: env!("CARGO_PKG_VERSION").into(),
            boot_id: crate::facts::boot_id(),
            inherited: inherited.take(MAX_INHERITED).collect(),
        };
        self.channel.post(&GuestMessage::Welcome(welcome));
    }

    /// Ends all streams; commands go on.
    fn drop_streams(&mut self) {
        self.streams.clear();
        self.commands.values_mut().for_each(Command::disinherit);
    }

    fn broken(&mut self) {
        self.expected = None;
        self.drop_streams();
        self.channel.post(&GuestMessage::Broken);
    }

    fn on_message(&mut self, message: &HostMessage<'_>) {
        match *message {
            HostMessage::Hello(_) => {}
            HostMessage::Clock { unix_ns } => crate::clock::set(&self.config, unix_ns),
            HostMessage::Open { stream, last, part } => self.open(stream, last, part),
            HostMessage::Data { stream, bytes } => self.data(stream, bytes),
            HostMessage::Eof { stream } => self.eof(stream),
            HostMessage::Credit { stream, bytes } => self.credit(stream, bytes),
            HostMessage::Signal { stream, signal } => {
                if let Some(command) = self.command_of(stream) {
                    command.signal(signal);
                }
            }
            HostMessage::Resize { stream, size } => {
                if let Some(command) = self.command_of(stream) {
                    command.resize(size);
                }
            }
            HostMessage::Close { stream } => {
                if let Some(command) = self.command_of(stream) {
                    command.condemn();
                }
                self.streams.remove(&stream);
            }
        }
    }

    // Streams.

    fn open(&mut self, stream: StreamId, last: bool, part: &[u8]) {
        let full = self.streams.len() >= MAX_STREAMS;
        let request = match self.streams.entry(stream) {
            std::collections::hash_map::Entry::Vacant(_) if full => {
                let message = format!("{MAX_STREAMS} requests are under way");
                let refusal = Refusal::new(RefusalKind::Limit, message);
                return self.channel.post_answer(stream, &Err(refusal));
            }
            entry => match entry.or_insert_with(|| Activity::Opening(Vec::new())) {
                Activity::Opening(request) => request,
                _ => return self.broken(),
            },
        };
        if request.len() + part.len() > MAX_REQUEST_BYTES {
            return self.broken();
        }
        request.extend_from_slice(part);
        if last {
            let request = std::mem::take(request);
            self.streams.remove(&stream);
            match Request::decode(&request) {
                Ok(request) => self.start(stream, request),
                Err(error) => {
                    let refusal = Refusal::new(RefusalKind::Invalid, error.to_string());
                    self.channel.post_answer(stream, &Err(refusal));
                }
            }
        }
    }

    fn start(&mut self, stream: StreamId, request: Request) {
        let begun = match request {
            Request::Ping => return self.channel.post_answer(stream, &Ok(Reply::Done)),
            Request::Exec(spec) => self.start_command(stream, &spec),
            Request::Connect { address, port } => {
                Forward::connect(&address, port).map(|forward| Activity::Forward(Box::new(forward)))
            }
            Request::Push(spec) => {
                let (feed, fed) = channel();
                let root = self.config.root.clone();
                let job = move |voice: &_| files::push(&spec, &root, &fed, voice);
                self.start_job(stream, job).map(|_| Activity::Push { feed, flow: Flow::default() })
            }
            Request::Pull { path } => {
                let (grants, granted) = channel();
                let job = move |voice: &_| files::pull(&path, &granted, voice);
                self.start_job(stream, job).map(|_| Activity::Pull { grants })
            }
            Request::Stat { path } => self.start_job(stream, move |_| files::stat(&path)),
            Request::List { path } => self.start_job(stream, move |_| files::list(&path)),
            Request::WaitBooted { timeout_ms } => {
                let config = self.config.clone();
                self.start_job_silent(stream, move |voice| {
                    boot::wait_managed(&config, Duration::from_millis(timeout_ms), voice);
                })
            }
            Request::PowerOff => self.start_power(stream, Power::Off),
            Request::Reboot => self.start_power(stream, Power::Reboot),
            other => self.start_system(stream, other),
        };
        match begun {
            Ok(activity) => drop(self.streams.insert(stream, activity)),
            Err(refusal) => self.channel.post_answer(stream, &Err(refusal)),
        }
    }

    /// Starts a request that concerns the system as a whole.
    fn start_system(&mut self, stream: StreamId, request: Request) -> Result<Activity, Refusal> {
        let config = self.config.clone();
        self.start_job(stream, move |_| crate::system::answer(&config, request))
    }

    fn start_power(&mut self, stream: StreamId, power: Power) -> Result<Activity, Refusal> {
        let config = self.config.clone();
        self.start_job_silent(stream, move |voice| power::begin(&config, power, voice))
    }

    fn start_job(
        &self,
        stream: StreamId,
        job: impl FnOnce(&crate::jobs::Voice) -> Answer + Send + 'static,
    ) -> Result<Activity, Refusal> {
        let epoch = self.epoch.unwrap_or_default();
        self.jobs.start(epoch, stream, job).map(|()| Activity::Job)
    }

    fn start_job_silent(
        &self,
        stream: StreamId,
        job: impl FnOnce(&crate::jobs::Voice) + Send + 'static,
    ) -> Result<Activity, Refusal> {
        let epoch = self.epoch.unwrap_or_default();
        self.jobs.start_silent(epoch, stream, job).map(|()| Activity::Job)
    }

    fn data(&mut self, stream: StreamId, bytes: &[u8]) {
        let (granted, used) = match self.streams.get_mut(&stream) {
            Some(Activity::Command(number)) => match self.commands.get_mut(number) {
                Some(command) => (command.flow.receive(bytes.len()), command.feed(bytes)),
                None => return,
            },
            Some(Activity::Forward(forward)) => {
                forward.feed(bytes);
                (forward.flow.receive(bytes.len()), 0)
            }
            Some(Activity::Push { feed, flow }) => {
                // The job may have failed; its answer is on the way.
                let _ = feed.send(Feed::Data(bytes.to_vec()));
                (flow.receive(bytes.len()), 0)
            }
            // It takes no data, or has ended meanwhile.
            _ => return,
        };
        if !granted {
            return self.broken();
        }
        self.consumed(stream, used);
        self.relay_out(stream);
    }

    fn eof(&mut self, stream: StreamId) {
        match self.streams.get_mut(&stream) {
            Some(Activity::Command(number)) => {
                if let Some(command) = self.commands.get_mut(number) {
                    command.end_input();
                }
            }
            Some(Activity::Forward(forward)) => {
                forward.end_input();
                self.relay_out(stream);
            }
            Some(Activity::Push { feed, .. }) => {
                // As above.
                let _ = feed.send(Feed::Eof);
            }
            _ => {}
        }
    }

    fn credit(&mut self, stream: StreamId, bytes: u32) {
        match self.streams.get_mut(&stream) {
            Some(Activity::Command(number)) => {
                if let Some(command) = self.commands.get_mut(number) {
                    command.flow.granted(bytes);
                }
            }
            Some(Activity::Forward(forward)) => forward.flow.granted(bytes),
            Some(Activity::Pull { grants }) => {
                // It may have ended; its answer is on the way.
                let _ = grants.send(bytes);
            }
            _ => {}
        }
    }

    /// Grants the host anew what a stream has used up.
    fn consumed(&mut self, stream: StreamId, bytes: usize) {
        let grant = match self.streams.get_mut(&stream) {
            Some(Activity::Command(number)) => {
                self.commands.get_mut(number).and_then(|command| command.flow.consume(bytes))
            }
            Some(Activity::Forward(forward)) => forward.flow.consume(bytes),
            Some(Activity::Push { flow, .. }) => flow.consume(bytes),
            _ => None,
        };
        if let Some(bytes) = grant {
            self.channel.post(&GuestMessage::Credit { stream, bytes });
        }
    }

    fn consumed_by(&mut self, number: u64, bytes: usize) {
        if let Some(stream) = self.commands.get(&number).and_then(|command| command.stream) {
            self.consumed(stream, bytes);
        }
    }

    fn finish(&mut self, stream: StreamId, answer: &Answer) {
        if self.streams.remove(&stream).is_some() {
            self.channel.post_answer(stream, answer);
        }
    }

    // Commands.

    fn command_of(&mut self, stream: StreamId) -> Option<&mut Command> {
        match self.streams.get(&stream) {
            Some(Activity::Command(number) | Activity::Boot { number, .. }) => {
                self.commands.get_mut(number)
            }
            _ => None,
        }
    }

    fn start_command(&mut self, stream: StreamId, spec: &ExecSpec) -> Result<Activity, Refusal> {
        let number = self.launch(stream, spec)?;
        self.channel.post_within(&GuestMessage::Started { stream }, STARTED_DELAY);
        Ok(Activity::Command(number))
    }

    fn ask_about_boot(&mut self, stream: StreamId, left_ms: u64) {
        match self.launch(stream, &boot::question(left_ms)) {
            Ok(number) => {
                let output = Vec::new();
                self.streams.insert(stream, Activity::Boot { number, output });
            }
            Err(refusal) => self.finish(stream, &Err(refusal)),
        }
    }

    /// Starts a command's process and watches it.
    fn launch(&mut self, stream: StreamId, spec: &ExecSpec) -> Result<u64, Refusal> {
        let number = NEXT_COMMAND.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", std::process::id());
        let spawned = spawn(spec, &mut self.tables, &mark, &self.home)?;
        let mut command = Command::new(spec, spawned, stream, mark);
        if self.signals.is_none() {
            let pid = Pid::from_raw(command.pid);
            let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            if pidfd.is_none() {
                command.condemn();
                return Err(Refusal::new(RefusalKind::Io, "the command cannot be watched"));
            }
            command.pidfd = pidfd;
        }
        if self.config.authority == Authority::Machine {
            // It has inherited our protection from the out-of-memory killer.
            let _ = std::fs::write(format!("/proc/{}/oom_score_adj", command.pid), "0");
        }
        self.commands.insert(number, command);
        Ok(number)
    }

    fn pump(&mut self, number: u64, index: usize) {
        let Some(command) = self.commands.get_mut(&number) else { return };
        let (Pumped::Bytes(output, bytes), Some(stream)) = (command.pump(index), command.stream)
        else {
            return;
        };
        match self.streams.get_mut(&stream) {
            Some(Activity::Boot { output: kept, .. }) => boot::keep(kept, &bytes),
            _ => self.channel.post(&GuestMessage::Data { stream, output, bytes: &bytes }),
        }
    }

    fn on_signal(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let number = self.commands.iter().find(|(_, command)| command.pid == pid);
            if let Some(number) = number.map(|(&number, _)| number) {
                self.exited(number, status);
            }
        }
        if self.away && self.is_hung_up().is_ok_and(|hung_up| !hung_up) {
            self.away = false;
            // If it cannot be switched off, a signal too many is all that happens.
            let _ = sys::set_async(self.channel.port(), Async::Off);
        }
    }

    fn on_pidfd(&mut self, number: u64) {
        let Some(command) = self.commands.get_mut(&number) else { return };
        if let Ok(Some((_, status))) = waitpid(Pid::from_raw(command.pid), WaitOptions::NOHANG) {
            command.pidfd = None;
            self.exited(number, status);
        }
    }

    fn exited(&mut self, number: u64, status: WaitStatus) {
        let Some(command) = self.commands.get_mut(&number) else { return };
        command.exited(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExecStatus::Exited(code),
            (None, signal) => ExecStatus::Signaled(signal.unwrap_or(0)),
        });
        // What it left is delivered in the same turn, as far as credit goes.
        for index in 0..2 {
            self.pump(number, index);
        }
    }

    fn end_command(&mut self, number: u64, outcome: ExecOutcome) {
        let Some(command) = self.commands.remove(&number) else { return };
        if let Some(stream) = command.stream {
            let answer = match self.streams.get(&stream) {
                Some(Activity::Boot { output, .. }) => boot::verdict(&outcome, output),
                _ => Ok(Reply::Exec(outcome)),
            };
            self.finish(stream, &answer);
        }
        for pipe in command.into_lingering() {
            let key = NEXT_COMMAND.fetch_add(1, Ordering::Relaxed);
            self.lingering.insert(key, pipe);
        }
        while self.lingering.len() > MAX_LINGERING {
            self.lingering.pop_first();
        }
    }

    fn empty_lingering(&mut self, key: u64) {
        let Some(pipe) = self.lingering.get(&key) else { return };
        match rustix::io::read(pipe, &mut [0; 4 * 1024]) {
            Ok(1..) | Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => drop(self.lingering.remove(&key)),
        }
    }

    // Connections and jobs.

    fn relay(&mut self, stream: StreamId, flags: PollFlags) {
        let Some(Activity::Forward(forward)) = self.streams.get_mut(&stream) else { return };
        let is_new = forward.is_connecting();
        if is_new || flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match forward.read() {
                Relayed::Nothing => {}
                Relayed::Connected => self.channel.post(&GuestMessage::Started { stream }),
                Relayed::Bytes(bytes) => {
                    let output = OutputStream::Stdout;
                    self.channel.post(&GuestMessage::Data { stream, output, bytes: &bytes });
                }
                Relayed::Eof => self.channel.post(&GuestMessage::Eof { stream }),
                Relayed::Broken(refusal) => return self.finish(stream, &Err(refusal)),
            }
        }
        self.relay_out(stream);
    }

    /// Writes what the host sent to a connection, and notices the connection's end.
    fn relay_out(&mut self, stream: StreamId) {
        let Some(Activity::Forward(forward)) = self.streams.get_mut(&stream) else { return };
        let written = forward.write();
        let is_over = forward.is_over();
        match written {
            Ok(used) => self.consumed(stream, used),
            Err(refusal) => return self.finish(stream, &Err(refusal)),
        }
        if is_over {
            self.finish(stream, &Ok(Reply::Done));
        }
    }

    fn on_job(&mut self, event: Event) {
        let Event { epoch, stream, what } = event;
        if let What::Halt(power) = what {
            self.halting = Some(power);
            return;
        }
        if self.epoch != Some(epoch) || !self.streams.contains_key(&stream) {
            return;
        }
        match what {
            What::Started => self.channel.post(&GuestMessage::Started { stream }),
            What::Data(bytes) => {
                let output = OutputStream::Stdout;
                self.channel.post(&GuestMessage::Data { stream, output, bytes: &bytes });
            }
            What::Consumed(bytes) => self.consumed(stream, bytes),
            What::Managed { left_ms } => self.ask_about_boot(stream, left_ms),
            What::Done(answer) => self.finish(stream, &answer),
            What::Halt(_) => {}
        }
    }
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Go,
    End,
}

fn source_is_port(source: Source) -> bool {
    matches!(source, Source::Port)
}
