//! Waiting on file descriptors with a deadline.

use std::io;
use std::time::Instant;

use rustix::event::{PollFd, Timespec};

/// Waits until one of `fds` is ready; `false` when the deadline passes first. With a deadline in
/// the past it only asks.
pub fn poll(fds: &mut [PollFd<'_>], deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match rustix::event::poll(fds, timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
