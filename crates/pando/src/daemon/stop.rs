//! Ends the daemon of a home. Branches go on: their keepers do not need it.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use pando_api::ApiError;
use pando_model::{ErrorCode, Layout};
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
    wait_for_lock(layout)
}

/// Waits until the daemon's lock is free: it is held for the daemon's whole life.
fn wait_for_lock(layout: &Layout) -> Result<Stopped, ApiError> {
    let path = layout.daemon_lock();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let locked = File::options().write(true).open(&path).and_then(|file| file.lock());
        let _ = sender.send(locked);
    });
    match receiver.recv_timeout(DAEMON_STOP) {
        Ok(_) => Ok(Stopped::Ended),
        Err(_) => Err(ApiError::new(
            ErrorCode::DeadlineExceeded,
            format!("the daemon did not end within {} s", DAEMON_STOP.as_secs()),
        )
        .hint("pando logs")),
    }
}
