//! Connections: a TCP stream to a port in the guest, through the channel, without any network.

use std::time::Instant;

use pando_wire::guest::{HostMessage, Request};

use crate::error::LinkError;
use crate::link::{GuestLink, OpenStream};

/// A connection to a port in the guest. One thread may read while another writes. Dropping it
/// closes the guest's socket.
#[derive(Debug)]
pub struct TcpHandle {
    open: OpenStream,
}

impl GuestLink {
    /// Connects to `port` on the guest's loopback address; returns when the connection is made.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when nothing listens there; [`LinkError::Deadline`],
    /// [`LinkError::Closed`], [`LinkError::EpochEnded`], [`LinkError::Protocol`].
    pub fn connect(&self, port: u16, deadline: Instant) -> Result<TcpHandle, LinkError> {
        let request = Request::Connect { address: "127.0.0.1".into(), port };
        let open = self.shared.open(&request, "connect to the port", deadline)?;
        open.wait_started(deadline)?;
        Ok(TcpHandle { open })
    }
}

impl TcpHandle {
    /// Reads what has come, at least a byte; 0 at the end.
    ///
    /// # Errors
    /// [`LinkError::Deadline`] (nothing is lost, call again); [`LinkError::Refused`] when the
    /// guest's side broke; [`LinkError::Closed`], [`LinkError::EpochEnded`],
    /// [`LinkError::Protocol`].
    pub fn read(&self, buffer: &mut [u8], deadline: Instant) -> Result<usize, LinkError> {
        let read = self.open.stream.wait(deadline, |inbox| {
            let count = inbox.take_into(buffer);
            match &inbox.end {
                _ if count > 0 || inbox.eof || buffer.is_empty() => Some(Ok(count)),
                end => end.clone().map(Err),
            }
        });
        match read {
            None => Err(self.open.late()),
            Some(Ok(count)) => {
                self.open.grant();
                Ok(count)
            }
            Some(Err(end)) => self.open.end_error(end).map(|_| 0),
        }
    }

    /// Writes all of `bytes`, as fast as the guest's socket takes it.
    ///
    /// # Errors
    /// [`LinkError::Ended`] when the connection is over; [`LinkError::Deadline`] (a part may have
    /// been written), and as [`TcpHandle::read`].
    pub fn write_all(&self, bytes: &[u8], deadline: Instant) -> Result<(), LinkError> {
        self.open.send_data(bytes, "connection", deadline)
    }

    /// Says that nothing more will be written; reading goes on.
    ///
    /// # Errors
    /// As [`TcpHandle::write_all`].
    pub fn shutdown_write(&self, deadline: Instant) -> Result<(), LinkError> {
        self.open.send(&HostMessage::Eof { stream: self.open.stream.id }, deadline)
    }

    /// Ends the connection; whoever reads or writes gets [`LinkError::Closed`].
    pub fn abort(&self) {
        self.open.abort();
    }
}
