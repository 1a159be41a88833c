//! Ends the daemon of a home. Branches go on: their keepers do not need it.

use std::os::unix::net::UnixStream;

use pando_api::ApiError;
use pando_model::{ErrorCode, Layout};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::limits::DAEMON_STOP;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// A daemon ran and has ended.
    Ended,
    /// None ran.
    NoneRan,
}

/// Asks the daemon to end and waits until it has.
///
/// # Errors
/// `deadline_exceeded` when it does not end in time.
pub fn stop(layout: &Layout) -> Result<Stopped, ApiError> {
    let Ok(connection) = UnixStream::connect(layout.daemon_socket()) else {
        return Ok(Stopped::NoneRan);
    };
    let failed = |detail: String| {
        ApiError::new(ErrorCode::DaemonUnreachable, format!("cannot end the daemon: {detail}"))
    };
    // Who listens there is known to the kernel; while the connection is open the process lives, so
    // the descriptor is its own and not that of a later one with the same number.
    let peer = socket_peercred(&connection).map_err(|error| failed(error.to_string()))?;
    let process = pidfd_open(peer.pid, PidfdFlags::empty());
    let process = process.map_err(|error| failed(error.to_string()))?;
    pidfd_send_signal(&process, Signal::TERM).map_err(|error| failed(error.to_string()))?;
    drop(connection);
    let limit = Timespec::try_from(DAEMON_STOP).map_err(|error| failed(error.to_string()))?;
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    match poll(&mut ended, Some(&limit)) {
        Ok(0) => Err(ApiError::new(
            ErrorCode::DeadlineExceeded,
            format!("the daemon did not end within {} s", DAEMON_STOP.as_secs()),
        )
        .hint("pando logs")),
        Ok(_) => Ok(Stopped::Ended),
        Err(error) => Err(failed(error.to_string())),
    }
}
