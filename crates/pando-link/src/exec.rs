//! Commands: a handle to one that runs in the guest.

use std::time::Instant;

use pando_model::guest::{ExecOutcome, ExecSpec, OutputStream, TerminalSize};
use pando_wire::guest::{HostMessage, Reply, Request};

use crate::error::LinkError;
use crate::link::{GuestLink, OpenStream};

/// What a command did next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// It wrote something; never empty.
    Output {
        /// Where.
        stream: OutputStream,
        /// What.
        bytes: Vec<u8>,
    },
    /// It ended; all its output was given before.
    Ended(ExecOutcome),
}

/// A command in the guest. One thread may feed it while another takes its events. Dropping it
/// before its end kills the command's process tree.
#[derive(Debug)]
pub struct ExecHandle {
    open: OpenStream,
}

impl GuestLink {
    /// Starts a command; returns when it runs. Its time limit is the spec's own.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when the program, user or directory does not exist;
    /// [`LinkError::Deadline`] when it has not started by `deadline` (it is then killed);
    /// [`LinkError::Closed`], [`LinkError::EpochEnded`], [`LinkError::Protocol`].
    pub fn exec(&self, spec: &ExecSpec, deadline: Instant) -> Result<ExecHandle, LinkError> {
        let request = Request::Exec(spec.clone());
        let open = self.shared.open(&request, "start the command", deadline)?;
        open.wait_started(deadline)?;
        Ok(ExecHandle { open })
    }
}

impl ExecHandle {
    /// Waits for the next event.
    ///
    /// # Errors
    /// [`LinkError::Deadline`] (nothing is lost, call again), [`LinkError::Closed`],
    /// [`LinkError::EpochEnded`], [`LinkError::Protocol`].
    pub fn next_event(&self, deadline: Instant) -> Result<ExecEvent, LinkError> {
        let event = self.open.stream.wait(deadline, |inbox| match inbox.take() {
            Some((stream, bytes)) => Some(Ok((stream, bytes))),
            None => inbox.end.clone().map(Err),
        });
        match event {
            None => Err(self.open.late()),
            Some(Ok((stream, bytes))) => {
                self.open.grant();
                Ok(ExecEvent::Output { stream, bytes })
            }
            Some(Err(end)) => match self.open.end_error(end)? {
                Reply::Exec(outcome) => Ok(ExecEvent::Ended(outcome)),
                _ => Err(self.open.wrong_reply()),
            },
        }
    }

    /// Writes to the command's standard input, as fast as it reads. What a command that closed its
    /// input no longer reads is dropped.
    ///
    /// # Errors
    /// [`LinkError::Ended`] when the command has ended; [`LinkError::Deadline`] (a part may have
    /// been written), [`LinkError::Closed`], [`LinkError::EpochEnded`], [`LinkError::Protocol`].
    pub fn write_stdin(&self, bytes: &[u8], deadline: Instant) -> Result<(), LinkError> {
        self.open.send_data(bytes, "command", deadline)
    }

    /// Writes what the command's standard input takes of `bytes`, which are not empty, once it takes
    /// any, and returns how many bytes those are: 0 if it has taken none by `patience`.
    ///
    /// # Errors
    /// As [`ExecHandle::write_stdin`].
    pub fn write_some(
        &self,
        bytes: &[u8],
        patience: Instant,
        deadline: Instant,
    ) -> Result<usize, LinkError> {
        self.open.send_some(bytes, "command", patience, deadline)
    }

    /// Ends the command's standard input; that of one that has ended already is.
    ///
    /// # Errors
    /// As [`ExecHandle::write_stdin`], but never [`LinkError::Ended`].
    pub fn close_stdin(&self, deadline: Instant) -> Result<(), LinkError> {
        if self.open.is_answered() {
            return Ok(());
        }
        self.open.send(&HostMessage::Eof { stream: self.open.stream.id }, deadline)
    }

    /// Sends a signal to the command's process group.
    ///
    /// # Errors
    /// As [`ExecHandle::write_stdin`].
    pub fn signal(&self, signal: i32, deadline: Instant) -> Result<(), LinkError> {
        self.open.send(&HostMessage::Signal { stream: self.open.stream.id, signal }, deadline)
    }

    /// Kills the command's process tree; whoever waits for it gets [`LinkError::Closed`].
    pub fn abort(&self) {
        self.open.abort();
    }

    /// Changes the size of the command's terminal.
    ///
    /// # Errors
    /// As [`ExecHandle::write_stdin`].
    pub fn resize(&self, size: TerminalSize, deadline: Instant) -> Result<(), LinkError> {
        self.open.send(&HostMessage::Resize { stream: self.open.stream.id, size }, deadline)
    }
}

impl OpenStream {
    /// Waits until the guest says that it has begun, or refuses.
    pub(crate) fn wait_started(&self, deadline: Instant) -> Result<(), LinkError> {
        use crate::stream::End;
        let begun = self.stream.wait(deadline, |inbox| match &inbox.end {
            // A short command's answer can overtake our look at `started`.
            Some(End::Answer(Ok(_))) => Some(Ok(())),
            Some(end) if !inbox.started => Some(Err(end.clone())),
            _ => inbox.started.then_some(Ok(())),
        });
        match begun {
            None => Err(self.late()),
            Some(Ok(())) => Ok(()),
            Some(Err(end)) => self.end_error(end).map(|_| ()),
        }
    }
}
