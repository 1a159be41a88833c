//! Commands: started, fed, emptied, reaped.

use std::time::Instant;

use pando_model::guest::{ExecOutcome, ExecSpec, ExecStatus, Stdin};
use pando_wire::guest::{GuestMessage, Refusal, RefusalKind, Reply, StreamId};
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, wait, waitpid};

use super::{Activity, Server};
use crate::boot;
use crate::command::{Command, Pumped};
use crate::limits::{FED_STARTED_DELAY, MAX_LINGERING, SPARE_DELAY, STARTED_DELAY};
use crate::spawn::{is_hung_up, next_number};
use crate::sys::{self, Async};

impl Server {
    pub(super) fn command_of(&mut self, stream: StreamId) -> Option<&mut Command> {
        match self.streams.get(&stream) {
            Some(Activity::Command(number) | Activity::Boot { number, .. }) => {
                self.commands.get_mut(number)
            }
            _ => None,
        }
    }

    pub(super) fn start_command(
        &mut self,
        stream: StreamId,
        spec: &ExecSpec,
    ) -> Result<Activity, Refusal> {
        let number = self.launch(stream, spec)?;
        let is_fed = spec.stdin == Stdin::Open || spec.terminal.is_some();
        let delay = if is_fed { FED_STARTED_DELAY } else { STARTED_DELAY };
        self.channel.post_within(&GuestMessage::Started { stream }, delay);
        Ok(Activity::Command(number))
    }

    pub(super) fn ask_about_boot(&mut self, stream: StreamId, left_ms: u64) {
        match self.launch(stream, &boot::question(left_ms)) {
            Ok(number) => {
                let output = Vec::new();
                self.streams.insert(stream, Activity::Boot { number, output });
            }
            Err(refusal) => self.finish(stream, &Err(refusal)),
        }
    }

    /// Starts a command's process and watches it.
    pub(super) fn launch(&mut self, stream: StreamId, spec: &ExecSpec) -> Result<u64, Refusal> {
        let spawned = self.starter.spawn(spec)?;
        self.spare_due = None;
        let number = spawned.number;
        let mut command = Command::new(spec, spawned, stream);
        if self.signals.is_none() {
            let pid = Pid::from_raw(command.pid);
            let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            if pidfd.is_none() {
                command.condemn();
                return Err(Refusal::new(RefusalKind::Io, "the command cannot be watched"));
            }
            command.pidfd = pidfd;
        }
        self.commands.insert(number, command);
        Ok(number)
    }

    pub(super) fn pump(&mut self, number: u64, index: usize) {
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

    pub(super) fn on_signal(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            if self.starter.changed(pid, status) {
                continue;
            }
            let number = self.commands.iter().find(|(_, command)| command.pid == pid);
            if let Some(number) = number.map(|(&number, _)| number) {
                self.exited(number, status);
            }
        }
        if self.away && is_hung_up(&self.channel.port()).is_ok_and(|hung_up| !hung_up) {
            self.away = false;
            // If it cannot be switched off, a signal too many is all that happens.
            let _ = sys::set_async(self.channel.port(), Async::Off);
        }
    }

    pub(super) fn on_pidfd(&mut self, number: u64) {
        let Some(command) = self.commands.get_mut(&number) else { return };
        if let Ok(Some((_, status))) = waitpid(Pid::from_raw(command.pid), WaitOptions::NOHANG) {
            command.pidfd = None;
            self.exited(number, status);
        }
    }

    pub(super) fn exited(&mut self, number: u64, status: WaitStatus) {
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

    pub(super) fn end_command(&mut self, number: u64, outcome: ExecOutcome) {
        let Some(command) = self.commands.remove(&number) else { return };
        if let Some(stream) = command.stream {
            let answer = match self.streams.get(&stream) {
                Some(Activity::Boot { output, .. }) => boot::verdict(&outcome, output),
                _ => Ok(Reply::Exec(outcome)),
            };
            self.finish(stream, &answer);
        }
        for pipe in command.into_lingering() {
            self.lingering.insert(next_number(), pipe);
        }
        while self.lingering.len() > MAX_LINGERING {
            self.lingering.pop_first();
        }
        if self.commands.is_empty() {
            self.spare_due = Some(Instant::now() + SPARE_DELAY);
        }
    }

    /// Starts a shell ahead of the next command when it is time to, and tells those who wait for one.
    pub(super) fn tick_spare(&mut self, now: Instant) {
        if self.spare_due.is_some_and(|due| now >= due) {
            self.spare_due = None;
            self.starter.prepare();
        } else if self.starter.is_preparing() {
            self.starter.advance(now);
        }
        if !self.starter.is_preparing() {
            let settled = |(&stream, activity): (&StreamId, &Activity)| {
                matches!(activity, Activity::Settling).then_some(stream)
            };
            for stream in self.streams.iter().filter_map(settled).collect::<Vec<_>>() {
                self.finish(stream, &Ok(Reply::Done));
            }
        }
    }

    /// Prepares for the next command, and tells when that is done.
    pub(super) fn settle(&mut self) -> Activity {
        self.spare_due = None;
        self.starter.prepare();
        Activity::Settling
    }

    pub(super) fn empty_lingering(&mut self, key: u64) {
        let Some(pipe) = self.lingering.get(&key) else { return };
        match rustix::io::read(pipe, &mut [0; 4 * 1024]) {
            Ok(1..) | Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => drop(self.lingering.remove(&key)),
        }
    }
}
