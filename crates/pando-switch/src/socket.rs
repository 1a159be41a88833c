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

/// What the kernel takes at least for each write besides its bytes: `struct sk_buff` and
/// `struct skb_shared_info`.
const BUFFER_OVERHEAD_BYTES: usize = 512;
/// A socket takes one more buffer while it is not full.
const LAST_BUFFER_BYTES: usize = 128 << 10;

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
    /// Frames that may be in the socket, each with the kernel's memory that it takes at least.
    written: VecDeque<(LinkNumber, usize)>,
    written_memory: usize,
    /// Whether a write has begun a buffer of the kernel that no frame stands for yet.
    is_buffer_begun: bool,
    /// Most memory of the kernel for one socket.
    capacity: usize,
}

impl Socket {
    /// Takes over a socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let capacity = sockopt::socket_send_buffer_size(&stream)? + LAST_BUFFER_BYTES;
        Ok(Self {
            stream,
            partial: Vec::new(),
            is_full: false,
            interest: EventFlags::IN,
            written: VecDeque::new(),
            written_memory: 0,
            is_buffer_begun: false,
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
            self.is_buffer_begun = true;
            self.is_full = outcome != WriteOutcome::Bytes(bytes.len());
            return outcome;
        }
    }

    /// Takes note of a frame that is wholly written.
    pub fn wrote(&mut self, link: LinkNumber, length: usize) {
        let buffer = if self.is_buffer_begun { BUFFER_OVERHEAD_BYTES } else { 0 };
        self.is_buffer_begun = false;
        let memory = PREFIX_BYTES + length + buffer;
        self.written.push_back((link, memory));
        self.written_memory += memory;
        self.forget_beyond(self.capacity);
    }

    /// Whether its reader has read all that was written.
    pub fn is_drained(&mut self) -> bool {
        // A socket that cannot be asked has no reader.
        let unread = outq::unread(&self.stream).unwrap_or(0);
        if unread == 0 {
            self.written.clear();
            self.written_memory = 0;
        }
        unread == 0
    }

    /// Returns the links of the frames that its reader has not read, and of a few more: what the kernel
    /// tells is its memory for them.
    pub fn unread(&mut self) -> impl Iterator<Item = LinkNumber> {
        self.forget_beyond(outq::unread(&self.stream).unwrap_or(0));
        self.written.iter().map(|(link, _)| *link)
    }

    /// Forgets the oldest frames that cannot be in this much memory of the kernel any more. One of
    /// which the beginning was read stays.
    fn forget_beyond(&mut self, memory: usize) {
        while let Some((_, first)) = self.written.front()
            && self.written_memory - first >= memory
        {
            self.written_memory -= first;
            self.written.pop_front();
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Writes so many times so many frames, of which a reader reads the first half, and compares what
    /// is said to be unread with what is.
    fn compare(length: usize, in_a_write: usize, writes: usize) {
        let (stream, mut reader) = UnixStream::pair().unwrap();
        let mut socket = Socket::new(stream).unwrap();
        let framed = PREFIX_BYTES + length;
        let burst = vec![0; framed * in_a_write];
        let mut write = |times| {
            for _ in 0..times {
                assert_eq!(socket.write(&burst), WriteOutcome::Bytes(burst.len()));
                (0..in_a_write).for_each(|_| socket.wrote(LinkNumber(0), length));
            }
        };
        for _ in 0..20 {
            write(writes);
            reader.read_exact(&mut vec![0; burst.len() * writes]).unwrap();
        }
        write(writes);
        let frames = in_a_write * writes;
        reader.read_exact(&mut vec![0; frames / 2 * framed]).unwrap();
        let (unread, said) = (frames - frames / 2, socket.unread().count());
        assert!(unread <= said, "{said} of {unread} at {length}");
        // Of a buffer that was begun to be read, nothing is known.
        assert!(said <= unread * 5 / 3 + in_a_write, "{said} of {unread} at {length}");
    }

    #[test]
    fn what_is_said_to_be_unread_is_little_more_than_what_is() {
        compare(60, 1, 200);
        compare(1514, 1, 60);
        compare(60, 900, 2);
        compare(1514, 40, 2);
    }
}
