//! One running command: its pipes, its time limit, its end.
//!
//! ```text
//!   running ──(process ends)──▶ draining ──(pipes empty)──▶ over
//!      │ time limit, close: the process tree is killed ──▶ (process ends)
//! ```
//!
//! The end is the *process's*, not its pipes': a background child may hold them for ever. What was
//! in a pipe when the process ended is still delivered; later output of such a child goes nowhere,
//! but its pipe stays open, so that it is not killed by writing to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use pando_model::guest::{
    ExecOutcome, ExecSpec, ExecStatus, Inherited, OutputStream, TerminalSize,
};
use pando_model::limits::MAX_EXEC_TIMEOUT_S;
use pando_wire::guest::StreamId;
use pando_wire::limits::{MAX_CHUNK_BYTES, MAX_INHERITED_COMMAND_BYTES};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::flow::Flow;
use crate::limits::TERMINAL_GRACE;
use crate::spawn::{self, Spawned};
use crate::tree;

/// A command that was started and whose end has not been told.
#[derive(Debug)]
pub struct Command {
    /// Its process, and process group.
    pub pid: i32,
    /// Where its output goes; nowhere once its epoch is over.
    pub stream: Option<StreamId>,
    /// Credit of that stream.
    pub flow: Flow,
    /// Becomes readable when the process ends, where no signal tells.
    pub pidfd: Option<OwnedFd>,
    mark: String,
    line: String,
    started: Instant,
    timeout: Duration,
    is_terminal: bool,
    stdin: Option<OwnedFd>,
    input: Vec<u8>,
    input_ended: bool,
    outputs: [Output; 2],
    /// The other ends of its outputs: while we hold them too, their end, which comes just before the
    /// process's, wakes nobody.
    held: Vec<OwnedFd>,
    status: Option<ExecStatus>,
    /// How long the process ran; until its end is seen, nothing.
    duration: Duration,
    timed_out: bool,
    /// Nobody wants to know its end.
    condemned: bool,
    /// Processes that were killed, whoever their parents are.
    pub killed: Vec<i32>,
    grace_ends: Option<Instant>,
}

/// One of a command's outputs.
#[derive(Debug)]
struct Output {
    stream: OutputStream,
    fd: Option<OwnedFd>,
    /// After the process's end: bytes that were in the pipe then and must still be delivered.
    left: Option<u64>,
}

/// What reading an output came to.
#[derive(Debug)]
pub enum Pumped {
    /// Bytes for the host.
    Bytes(OutputStream, Vec<u8>),
    /// Nothing now.
    Nothing,
}

impl Command {
    /// Takes charge of a process that was started.
    pub fn new(spec: &ExecSpec, spawned: Spawned, stream: StreamId) -> Self {
        let Spawned { number, pid, stdin, stdout, stderr, held } = spawned;
        let output = |stream, fd| Output { stream, fd, left: None };
        Self {
            pid,
            stream: Some(stream),
            flow: Flow::default(),
            pidfd: None,
            mark: spawn::mark(number),
            line: spawn::command_line(&spec.command),
            started: Instant::now(),
            timeout: Duration::from_millis(spec.timeout_ms)
                .min(Duration::from_secs(MAX_EXEC_TIMEOUT_S)),
            is_terminal: spec.terminal.is_some(),
            stdin,
            input: Vec::new(),
            input_ended: false,
            outputs: [
                output(OutputStream::Stdout, Some(stdout)),
                output(OutputStream::Stderr, stderr),
            ],
            held,
            status: None,
            duration: Duration::ZERO,
            timed_out: false,
            condemned: false,
            killed: Vec::new(),
            grace_ends: None,
        }
    }

    /// Returns when [`Command::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        if self.status.is_some() {
            return self.grace_ends;
        }
        (!self.timed_out && !self.condemned).then(|| self.started + self.timeout)
    }

    /// Does what time demands.
    pub fn tick(&mut self, now: Instant) {
        if self.status.is_none()
            && !self.timed_out
            && !self.condemned
            && now >= self.started + self.timeout
        {
            self.timed_out = true;
            self.killed.extend(tree::kill(self.pid, &self.mark));
        }
        if self.grace_ends.is_some_and(|end| now >= end) {
            // What is there then is its own; what others write to its terminal later is not.
            for output in self.outputs.iter_mut().filter(|output| output.left.is_none()) {
                let waiting = output.fd.as_ref().map(rustix::io::ioctl_fionread);
                output.left = Some(waiting.and_then(Result::ok).unwrap_or(0));
            }
            self.grace_ends = None;
        }
    }

    /// Leaves the command running although its epoch is over: its output goes nowhere, its input
    /// ends.
    pub fn disinherit(&mut self) {
        self.stream = None;
        self.input.clear();
        self.stdin = None;
    }

    /// Kills the command and all its descendants; nobody wants to know its end.
    pub fn condemn(&mut self) {
        self.disinherit();
        self.condemned = true;
        self.held.clear();
        self.outputs.iter_mut().for_each(|output| output.fd = None);
        if self.status.is_none() {
            self.killed.extend(tree::kill(self.pid, &self.mark));
        }
    }

    /// Returns how a welcome lists it.
    pub fn inherited(&self) -> Option<Inherited> {
        if self.condemned || self.status.is_some() || self.stream.is_some() {
            return None;
        }
        let mut command = self.line.clone();
        command.truncate(command.floor_char_boundary(MAX_INHERITED_COMMAND_BYTES));
        Some(Inherited { pid: self.pid.cast_unsigned(), command })
    }

    /// Takes in bytes for standard input. Returns how many are used up already.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        if self.input_ended || (self.stdin.is_none() && !self.is_terminal) {
            return bytes.len();
        }
        self.input.extend_from_slice(bytes);
        self.write_input()
    }

    /// Ends standard input once what is waiting has been written. A terminal's user types its own
    /// end-of-file character.
    pub fn end_input(&mut self) {
        self.input_ended = true;
        if self.input.is_empty() {
            self.stdin = None;
        }
    }

    /// Writes what is waiting for standard input. Returns how many bytes are used up.
    pub fn write_input(&mut self) -> usize {
        let mut written = 0;
        loop {
            let target =
                if self.is_terminal { self.outputs[0].fd.as_ref() } else { self.stdin.as_ref() };
            let rest = self.input.get(written..).unwrap_or_default();
            let Some(target) = target.filter(|_| !rest.is_empty()) else { break };
            match rustix::io::write(target, rest) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // It reads no more: the rest is used up, too.
                Err(_) => {
                    written = self.input.len();
                    self.stdin = None;
                }
            }
        }
        self.input.drain(..written);
        if self.input_ended && self.input.is_empty() {
            self.stdin = None;
        }
        written
    }

    /// The descriptor that waiting input is written to, if there is any.
    pub fn wants_to_write(&self) -> Option<BorrowedFd<'_>> {
        let target =
            if self.is_terminal { self.outputs[0].fd.as_ref() } else { self.stdin.as_ref() };
        target.filter(|_| !self.input.is_empty()).map(AsFd::as_fd)
    }

    /// The descriptors from which output is wanted, with their index. Without credit there are
    /// none; a command that nobody listens to is emptied.
    pub fn wants_to_read(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let open = self.stream.is_none() || self.flow.sendable > 0;
        let outputs = self.outputs.iter().enumerate().filter(move |_| open);
        outputs.filter_map(|(index, output)| {
            let wanted = output.left.is_none_or(|left| left > 0);
            Some((index, output.fd.as_ref().filter(|_| wanted)?.as_fd()))
        })
    }

    /// Reads one of the outputs, at most one message's worth and no more than granted.
    pub fn pump(&mut self, index: usize) -> Pumped {
        let mut limit = MAX_CHUNK_BYTES;
        if self.stream.is_some() {
            limit = limit.min(self.flow.sendable as usize);
        }
        let Some(output) = self.outputs.get_mut(index) else { return Pumped::Nothing };
        let bytes = output.read(limit);
        if bytes.is_empty() {
            return Pumped::Nothing;
        }
        if self.stream.is_none() {
            return Pumped::Nothing;
        }
        self.flow.send(bytes.len());
        Pumped::Bytes(output.stream, bytes)
    }

    /// The process has ended.
    pub fn exited(&mut self, status: ExecStatus) {
        self.status = Some(status);
        self.duration = self.started.elapsed();
        self.stdin = None;
        self.held.clear();
        for output in &mut self.outputs {
            if let Some(fd) = &output.fd
                && !self.is_terminal
            {
                output.left = Some(rustix::io::ioctl_fionread(fd).unwrap_or(0));
            }
        }
        if self.is_terminal {
            self.grace_ends = Some(Instant::now() + TERMINAL_GRACE);
        }
    }

    /// Returns the outcome once the process has ended and its output was delivered.
    pub fn outcome(&self) -> Option<ExecOutcome> {
        let status = self.status?;
        let drained = |output: &Output| output.fd.is_none() || output.left == Some(0);
        if self.stream.is_some() && !self.outputs.iter().all(drained) {
            return None;
        }
        let duration_us = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX);
        let status = if self.timed_out { ExecStatus::TimedOut } else { status };
        Some(ExecOutcome { status, duration_us })
    }

    /// Returns the pipes that somebody else may still write to.
    pub fn into_lingering(self) -> impl Iterator<Item = OwnedFd> {
        let keep = !self.is_terminal && !self.condemned;
        let pipes = self.outputs.into_iter().filter_map(move |output| output.fd.filter(|_| keep));
        pipes.filter(|pipe| !spawn::is_hung_up(pipe).unwrap_or(true))
    }

    /// Sends a signal to the process group.
    pub fn signal(&self, number: i32) {
        let (Some(group), Some(signal)) = (Pid::from_raw(self.pid), Signal::from_named_raw(number))
        else {
            return;
        };
        if self.status.is_none() {
            // It may have ended this instant.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Changes the size of the terminal, if there is one.
    pub fn resize(&self, size: TerminalSize) {
        if let (true, Some(terminal)) = (self.is_terminal, &self.outputs[0].fd) {
            // Only cosmetic.
            let _ = spawn::resize(terminal, size);
        }
    }
}

impl Output {
    /// Reads up to `limit` bytes; closes itself at the end.
    fn read(&mut self, limit: usize) -> Vec<u8> {
        let left = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let limit = limit.min(left);
        let Some(fd) = self.fd.as_ref().filter(|_| limit > 0) else { return Vec::new() };
        let mut bytes = Vec::with_capacity(limit);
        match rustix::io::read(fd, spare_capacity(&mut bytes)) {
            Ok(0) => self.fd = None,
            Ok(count) => self.left = self.left.map(|left| left.saturating_sub(count as u64)),
            // Somebody else has read what was there when the process ended.
            Err(Errno::AGAIN | Errno::INTR) => self.left = self.left.map(|_| 0),
            // EIO: all users of the terminal are gone.
            Err(_) => self.fd = None,
        }
        bytes
    }
}
