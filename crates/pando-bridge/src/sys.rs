//! What no tool does: a namespace for this thread, and an open tap.
#![expect(unsafe_code, reason = "the kernel's interface for taps is an ioctl")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The device that taps are made with.
pub const TUN: &str = "/dev/net/tun";

/// Where IPv6 is silenced.
const SILENCE: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

/// Why a thread has no namespace of its own that is silent.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// It could not be made.
    #[error("no network namespace can be made: {0}")]
    Made(io::Error),
    /// It would speak by itself.
    #[error("{SILENCE} cannot be written: {0}")]
    Silenced(io::Error),
}

/// Gives the calling thread a network namespace of its own, without devices that speak by
/// themselves. It ends with the thread and the last open tap.
pub fn enter_own_namespace() -> Result<(), NamespaceError> {
    // SAFETY: of what can be unshared, only the descriptor table could surprise other code.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|error| NamespaceError::Made(error.into()))?;
    // The kernel would announce IPv6 addresses of its bridges and taps to the guests.
    match std::fs::write(SILENCE, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NamespaceError::Silenced(error))
        }
        _ => Ok(()),
    }
}

/// Makes a tap in the calling thread's namespace. It ends when its last descriptor is closed.
pub fn open_tap(device: &str) -> io::Result<OwnedFd> {
    let file: File = OpenOptions::new().read(true).write(true).open(TUN)?;
    // SAFETY: all zeros is a value of this structure of numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = byte.cast_signed();
    }
    // Whole frames without a header before them: the machine has the same features on a switch.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or(libc::c_short::MAX);
    // SAFETY: the kernel reads and writes the structure, which lives until after the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made < 0 { Err(io::Error::last_os_error()) } else { Ok(file.into()) }
}
