//! The guest program's loop: waits for the port, commands, connections and jobs at once, and does
//! what they ask for. Owns the epoch and its streams.
//!
//! The loop and the waiting are here; `epoch` has the port and which life of the channel this is,
//! `streams` requests and the data that belongs to them, `commands` processes.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use pando_wire::frame::Decoder;
use pando_wire::guest::StreamId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::channel::Channel;
use crate::clock::Random;
use crate::command::Command;
use crate::config::{Authority, Children, Config};
use crate::files::Feed;
use crate::flow::Flow;
use crate::forward::Forward;
use crate::generation::Generation;
use crate::group;
use crate::identity::remembered;
use crate::jobs::Jobs;
use crate::limits::{IDLE, JOB_STACK_BYTES, LEAVING, REAP_INTERVAL, SPARE_POLL};
use crate::power::{self, Power};
use crate::spawn::{Starter, set_nonblocking};
use crate::sys;

mod commands;
mod epoch;
mod streams;

use epoch::Turn;

/// Serves the host on `port` as `config` says.
///
/// # Errors
/// When the port or the process's own plumbing fails. With [`Hangup::Return`](crate::Hangup::Return), the host's leaving
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
    if config.authority == Authority::Machine {
        // Both have to wait for the system, and the host is to be answered meanwhile.
        aside(&config, "addresses of before the boot", remembered::restore)?;
        aside(&config, "control group", group::settle)?;
    }
    let mut server = Server {
        jobs: Jobs::new()?,
        channel: Channel::new(port),
        starter: Starter::new(&config)?,
        generation: Generation::new(&config),
        random: Random::new(&config),
        config,
        signals,
        decoder: Decoder::new(),
        epoch: None,
        expected: None,
        streams: HashMap::new(),
        commands: BTreeMap::new(),
        lingering: BTreeMap::new(),
        orphans: Vec::new(),
        spare_due: None,
        away: false,
        halting: None,
    };
    server.run()
}

/// Does `work` on a thread of its own; what fails is said on the console.
fn aside(config: &Config, what: &'static str, work: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let root = config.root.clone();
    let builder = std::thread::Builder::new().stack_size(JOB_STACK_BYTES);
    builder.spawn(move || {
        if let Err(error) = work(&root) {
            eprintln!("pando-guest: the {what}: {error}");
        }
    })?;
    Ok(())
}

struct Server {
    config: Config,
    starter: Starter,
    channel: Channel,
    generation: Generation,
    random: Random,
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
    /// When a shell is started ahead of the next command.
    spare_due: Option<Instant>,
    /// The host's end is gone; SIGIO tells of its return.
    away: bool,
    /// The machine ends when the host has been told.
    halting: Option<Power>,
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
    /// It waits until a shell is ready.
    Settling,
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
            if let Some(signals) = self.signals.filter(|_| sys::signalled()) {
                // Reset now, or it would wake the next wait for nothing.
                let _ = rustix::io::read(signals, &mut [0; 8]);
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
        let preparing = self.starter.is_preparing();
        let spare = if preparing { Some(Instant::now() + SPARE_POLL) } else { self.spare_due };
        let own = [self.channel.due(), self.generation.deadline(), reap, spare];
        commands.chain(own.into_iter().flatten()).min()
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            // The loop sees to both.
            Source::Port | Source::Signals => {}
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
        self.generation.tick(now);
        self.tick_spare(now);
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
}

fn source_is_port(source: Source) -> bool {
    matches!(source, Source::Port)
}
