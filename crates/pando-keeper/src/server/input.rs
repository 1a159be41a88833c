//! Input of a command, on its way from the client. A command may read none of it for as long as it
//! runs; signals pass what waits, and a client that hangs up is noticed.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use pando_link::LinkError;
use pando_wire::keeper::{Control, Frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{ConnectionError, Job};
use crate::limits;

/// What a command has not taken yet, in order.
#[derive(Default)]
pub struct Input {
    waiting: VecDeque<Piece>,
    /// Bytes in it.
    bytes: usize,
    /// Whether the command takes none any more.
    over: bool,
}

enum Piece {
    Data(Vec<u8>),
    End,
}

/// What there is to know of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It has said something that was not read.
    Words,
    /// It has not.
    Nothing,
    /// It has hung up, whatever it said before.
    Gone,
}

impl Input {
    /// Takes in what a client says to its command; signals and sizes reach it at once.
    pub fn take_in(&mut self, frame: Frame, job: &Job) -> Result<(), ConnectionError> {
        let told = match frame {
            Frame::Data(_, bytes) => {
                self.keep(Piece::Data(bytes));
                Ok(())
            }
            Frame::Message(_) => match frame.parse()? {
                Control::Eof => {
                    self.keep(Piece::End);
                    Ok(())
                }
                Control::Signal { signal } => job.handle.signal(signal, job.deadline),
                Control::Resize { size } => job.handle.resize(size, job.deadline),
            },
        };
        if let Err(error) = told {
            self.stop(&error);
        }
        Ok(())
    }

    fn keep(&mut self, piece: Piece) {
        if self.over {
            return;
        }
        if let Piece::Data(bytes) = &piece {
            if bytes.is_empty() {
                return;
            }
            self.bytes += bytes.len();
        }
        self.waiting.push_back(piece);
    }

    /// Whether something waits for the command to take it.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether more may be taken in.
    pub fn has_room(&self) -> bool {
        self.bytes < limits::INPUT_AHEAD && self.waiting.len() < limits::INPUT_AHEAD_PIECES
    }

    /// Gives the command what it takes of the first piece, and waits no longer than a moment for it.
    pub fn give(&mut self, job: &Job) {
        let patience = Instant::now() + limits::INPUT_SLICE;
        let given = match self.waiting.front_mut() {
            None => return,
            Some(Piece::End) => job.handle.close_stdin(job.deadline).map(|()| true),
            Some(Piece::Data(bytes)) => {
                let taken = job.handle.write_some(bytes, patience, job.deadline);
                taken.map(|taken| {
                    bytes.drain(..taken);
                    self.bytes -= taken;
                    bytes.is_empty()
                })
            }
        };
        match given {
            Ok(true) => drop(self.waiting.pop_front()),
            Ok(false) => {}
            Err(error) => self.stop(&error),
        }
    }

    /// Gives up the rest: the command no longer reads. What it still says is the pump's.
    fn stop(&mut self, error: &LinkError) {
        tracing::debug!(%error, "a command takes no input");
        *self = Self { over: true, ..Self::default() };
    }
}

/// Whether a frame is for a command, and no request.
pub fn is_input(frame: &Frame) -> bool {
    matches!(frame, Frame::Data(..)) || frame.parse::<Control>().is_ok()
}

/// Looks at a client without waiting.
pub fn look(client: &UnixStream) -> io::Result<Seen> {
    let mut fds = [PollFd::new(client, PollFlags::IN | PollFlags::RDHUP)];
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let seen = fds[0].revents();
    Ok(if seen.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
        Seen::Gone
    } else if seen.contains(PollFlags::IN) {
        Seen::Words
    } else {
        Seen::Nothing
    })
}
