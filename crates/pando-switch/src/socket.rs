//! One unix stream socket of the switch: what of a frame has come in, and which frames its reader may
//! not have read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll::EventFlags;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use crate::frame::PREFIX_BYTES;
use crate::links::LinkNumber;
use crate::outq;

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes are in the buffer, those of an earlier read included.
    Bytes(usize),
    /// There is nothing to read.
    Empty,
    /// Nothing more will come.
    Over,
}

/// What a write came to.
#[derive(Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// So many bytes were taken.
    Bytes(usize),
    /// There is no reader any more.
    Over,
}

/// A non-blocking socket.
#[derive(Debug)]
pub struct Socket {
    stream: UnixStream,
    /// The beginning of a frame whose end is not there yet.
    partial: Vec<u8>,
    /// Whether it did not take all that it was given.
    pub is_full: bool,
    /// What is waited for.
    pub interest: EventFlags,
    /// Frames that may be in the socket: no more than fit there.
    written: VecDeque<(LinkNumber, usize)>,
    written_bytes: usize,
    capacity: usize,
}

impl Socket {
    /// Takes over a socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let capacity = sockopt::socket_send_buffer_size(&stream)?;
        Ok(Self {
            stream,
            partial: Vec::new(),
            is_full: false,
            interest: EventFlags::IN,
            written: VecDeque::new(),
            written_bytes: 0,
            capacity,
        })
    }

    /// Reads into `buffer`, behind what an earlier read left over. The buffer is longer than any
    /// frame.
    pub fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        let kept = self.partial.len();
        let Some((front, free)) = buffer.split_at_mut_checked(kept) else {
            return ReadOutcome::Over;
        };
        front.copy_from_slice(&self.partial);
        loop {
            return match recv(&self.stream, &mut *free, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => ReadOutcome::Over,
                Ok((_, count)) => ReadOutcome::Bytes(kept + count),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => ReadOutcome::Empty,
                Err(_) => ReadOutcome::Over,
            };
        }
    }

    /// Keeps what is left over of a read for the next one.
    pub fn keep(&mut self, rest: &[u8]) {
        self.partial.clear();
        self.partial.extend_from_slice(rest);
    }

    /// Bytes of a frame whose end is not there yet.
    pub fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Writes what the socket takes.
    pub fn write(&mut self, bytes: &[u8]) -> WriteOutcome {
        loop {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let outcome = match send(&self.stream, bytes, flags) {
                Ok(count) => WriteOutcome::Bytes(count),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => WriteOutcome::Bytes(0),
                Err(_) => WriteOutcome::Over,
            };
            self.is_full = outcome != WriteOutcome::Bytes(bytes.len());
            return outcome;
        }
    }

    /// Takes note of a frame that is wholly written.
    pub fn wrote(&mut self, link: LinkNumber, length: usize) {
        self.written.push_back((link, PREFIX_BYTES + length));
        self.written_bytes += PREFIX_BYTES + length;
        self.forget_beyond(self.capacity);
    }

    /// Whether its reader has read all that was written.
    pub fn is_drained(&mut self) -> bool {
        // A socket that cannot be asked has no reader.
        let unread = outq::unread(&self.stream).unwrap_or(0);
        if unread == 0 {
            self.written.clear();
            self.written_bytes = 0;
        }
        unread == 0
    }

    /// Returns the links of the frames that its reader may not have read: at least all that it has
    /// not, since what the kernel tells is its memory for them.
    pub fn unread(&mut self) -> impl Iterator<Item = LinkNumber> {
        self.forget_beyond(outq::unread(&self.stream).unwrap_or(0));
        self.written.iter().map(|(link, _)| *link)
    }

    /// Forgets the oldest frames that cannot be in `room` bytes of socket any more.
    fn forget_beyond(&mut self, room: usize) {
        while let Some((_, bytes)) = self.written.front()
            && self.written_bytes - bytes >= room
        {
            self.written_bytes -= bytes;
            self.written.pop_front();
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
