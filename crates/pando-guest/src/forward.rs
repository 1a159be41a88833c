//! One TCP connection to the guest itself, relayed through a stream of the channel.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pando_wire::guest::{Refusal, RefusalKind};
use pando_wire::limits::MAX_CHUNK_BYTES;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::sockopt::{set_tcp_nodelay, socket_error};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, connect, ipproto, shutdown, socket_with,
};

use crate::flow::Flow;

/// A connection that is being made or has been made.
#[derive(Debug)]
pub struct Forward {
    socket: OwnedFd,
    target: SocketAddr,
    connecting: bool,
    /// Credit of its stream.
    pub flow: Flow,
    /// From the host, for the socket.
    waiting: Vec<u8>,
    host_ended: bool,
    guest_ended: bool,
}

/// What the socket gave.
#[derive(Debug)]
pub enum Event {
    /// The connection is made.
    Connected,
    /// Bytes for the host.
    Bytes(Vec<u8>),
    /// The other side says no more.
    Eof,
    /// Nothing now.
    Nothing,
    /// The connection broke, or was never made.
    Broken(Refusal),
}

impl Forward {
    /// Begins to connect.
    pub fn connect(address: &str, port: u16) -> Result<Self, Refusal> {
        let address: IpAddr = address.parse().map_err(|_| {
            Refusal::new(RefusalKind::Invalid, format!("`{address}` is not an IP address"))
        })?;
        let target = SocketAddr::new(address, port);
        let refuse = |error: Errno| Refusal::from_io(target, &error.into());
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).map_err(refuse)?;
        // Only a matter of speed.
        let _ = set_tcp_nodelay(&socket, true);
        match connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(refuse(error)),
        }
        Ok(Self {
            socket,
            target,
            connecting: true,
            flow: Flow::default(),
            waiting: Vec::new(),
            host_ended: false,
            guest_ended: false,
        })
    }

    /// The socket, and whether reading and writing are wanted.
    pub fn interest(&self) -> (BorrowedFd<'_>, bool, bool) {
        let read = !self.connecting && !self.guest_ended && self.flow.sendable > 0;
        let write = self.connecting || !self.waiting.is_empty();
        (self.socket.as_fd(), read, write)
    }

    /// Takes in bytes from the host.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The host says no more.
    pub fn end_input(&mut self) {
        self.host_ended = true;
        self.half_close();
    }

    /// Writes what waits. Returns how many bytes are used up.
    pub fn write(&mut self) -> Result<usize, Refusal> {
        let mut written = 0;
        while let Some(rest) =
            self.waiting.get(written..).filter(|rest| !rest.is_empty() && !self.connecting)
        {
            match rustix::net::send(&self.socket, rest, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(self.broken(error)),
            }
        }
        self.waiting.drain(..written);
        self.half_close();
        Ok(written)
    }

    /// Reads, or learns what became of connecting.
    pub fn read(&mut self) -> Event {
        if self.connecting {
            return match socket_error(&self.socket) {
                Ok(Ok(())) => {
                    self.connecting = false;
                    self.half_close();
                    Event::Connected
                }
                Ok(Err(error)) | Err(error) => Event::Broken(self.broken(error)),
            };
        }
        let limit = MAX_CHUNK_BYTES.min(self.flow.sendable as usize);
        if limit == 0 || self.guest_ended {
            return Event::Nothing;
        }
        let mut bytes = Vec::with_capacity(limit);
        match rustix::io::read(&self.socket, spare_capacity(&mut bytes)) {
            Ok(0) => {
                self.guest_ended = true;
                Event::Eof
            }
            Ok(count) => {
                self.flow.send(count);
                Event::Bytes(bytes)
            }
            Err(Errno::AGAIN | Errno::INTR) => Event::Nothing,
            Err(error) => Event::Broken(self.broken(error)),
        }
    }

    /// Whether it is still being made.
    pub fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// Whether both directions have ended.
    pub fn is_over(&self) -> bool {
        self.guest_ended && self.host_ended && self.waiting.is_empty()
    }

    fn half_close(&mut self) {
        if self.host_ended && self.waiting.is_empty() && !self.connecting {
            // If the other side is gone already, reading says so.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
    }

    fn broken(&self, error: Errno) -> Refusal {
        Refusal::from_io(self.target, &io::Error::from(error))
    }
}
