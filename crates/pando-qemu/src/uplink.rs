//! A network interface's way to the outside: one `passt` process, and two threads between it and
//! QEMU, of which the one that carries the guest's frames drops what is not for the outside.
//!
//! ```text
//!   QEMU ─ socketpair ─▶ filter ─ socketpair ─▶ passt ─▶ sockets of the host
//!        ◀───────────────────────────────────────────
//! ```
//!
//! `passt` needs no privileges, shuts itself off (user, mount and other namespaces, seccomp) and
//! ends when its socket is closed. That, and not the parent-death signal, is what ends it with its
//! keeper: the kernel forgets that signal when a process started by root becomes another user.

mod filter;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use pando_model::network::{ADDRESS, GATEWAY, NAME_SERVER, PREFIX_BITS};
use rustix::event::{PollFd, PollFlags};

pub use self::filter::{Outgoing, may_leave};
use crate::limits::{END_GRACE, MAX_FRAME_BYTES, RELAY_BYTES, RELAY_STACK_BYTES};
use crate::process::Process;
use crate::wait;

/// The program.
pub const PROGRAM: &str = "passt";
/// The package of Debian and Ubuntu that has it.
pub const PACKAGE: &str = "passt";

/// The gateway's MAC address: the same in every branch, because a restored guest remembers it.
const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];
/// What a guest's interface carries in one packet, in bytes.
const MTU: u16 = 1500;

/// Why an uplink does not work.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The process ended.
    #[error("{PROGRAM} ended: {0}")]
    Ended(String),
    /// It did not answer in time.
    #[error("{PROGRAM} did not answer")]
    Deadline,
    /// The operating system refused something.
    #[error("{PROGRAM} cannot be reached")]
    Io(#[from] io::Error),
}

/// A running `passt` and what ties it to QEMU. Dropping it ends and reaps all of it.
#[derive(Debug)]
pub struct Uplink {
    process: Process,
    /// Ours, of the two socket pairs.
    guest: UnixStream,
    outside: UnixStream,
    log: PathBuf,
    /// Whether an end is ours, or QEMU's, and no news.
    over: Arc<AtomicBool>,
    /// Empty until it is ready.
    relays: Vec<JoinHandle<()>>,
}

impl Uplink {
    /// Starts `program`, and returns the socket for QEMU as well. As [`Process::spawn`], from the
    /// main thread only.
    pub fn spawn(program: &Path, log: &Path) -> io::Result<(Self, UnixStream)> {
        let (guest, qemu) = UnixStream::pair()?;
        let (outside, passt) = UnixStream::pair()?;
        let process =
            Process::spawn(program, &arguments(passt.as_raw_fd()), log, &[passt.as_fd()])?;
        let (log, over) = (log.to_owned(), Arc::default());
        Ok((Self { process, guest, outside, log, over, relays: Vec::new() }, qemu))
    }

    /// Waits until `passt` answers, then lets frames through.
    pub fn wait_ready(&mut self, deadline: Instant) -> Result<(), UplinkError> {
        if !self.relays.is_empty() {
            return Ok(());
        }
        let asked = self.outside.write_all(&who_has_gateway());
        if let Err(error) = asked.and_then(|()| self.read_answer(deadline)) {
            return Err(match error.kind() {
                io::ErrorKind::TimedOut => UplinkError::Deadline,
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset => self.ended(),
                _ => UplinkError::Io(error),
            });
        }
        Ok(self.relay()?)
    }

    /// Reads the first frame, which is the answer: nothing else was asked yet.
    fn read_answer(&mut self, deadline: Instant) -> io::Result<()> {
        let mut prefix = [0; 4];
        self.read_exact(&mut prefix, deadline)?;
        let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        if length > MAX_FRAME_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.read_exact(&mut vec![0; length], deadline)
    }

    fn read_exact(&mut self, mut into: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !into.is_empty() {
            let mut fds = [PollFd::new(&self.outside, PollFlags::IN)];
            if !wait::poll(&mut fds, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.outside.read(into)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => into = into.get_mut(count..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    fn ended(&mut self) -> UplinkError {
        let status = match self.process.wait(Instant::now() + END_GRACE) {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "it closed its socket, but still runs".to_owned(),
            Err(error) => error.to_string(),
        };
        UplinkError::Ended(format!("{status}: {}", self.process.log_tail()))
    }

    fn relay(&mut self) -> io::Result<()> {
        let (guest, outside) = (self.guest.try_clone()?, self.outside.try_clone()?);
        let over = Arc::clone(&self.over);
        self.relays.push(start("uplink-out", move || {
            // Whichever side is gone, the other has nobody to talk to.
            let _ = carry_out(&guest, &outside);
            over.store(true, Ordering::Relaxed);
            close(&guest, &outside);
        })?);
        let (guest, outside) = (self.guest.try_clone()?, self.outside.try_clone()?);
        let (over, log) = (Arc::clone(&self.over), self.log.clone());
        self.relays.push(start("uplink-in", move || {
            let _ = carry_in(&outside, &guest);
            if !over.swap(true, Ordering::Relaxed) {
                // A log that cannot be written has nobody to complain to.
                let _ = note_end(&log);
            }
            close(&guest, &outside);
        })?);
        Ok(())
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        close(&self.guest, &self.outside);
        for relay in self.relays.drain(..) {
            // A relay has no result, and does not panic.
            let _ = relay.join();
        }
    }
}

fn arguments(socket: RawFd) -> Vec<OsString> {
    let mac = GATEWAY_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let options = [
        ("--fd", socket.to_string()),
        // A template for what is given below. Any other must have a default route at this moment,
        // and a host that is offline now may not be in a minute.
        ("--interface", "lo".to_owned()),
        ("--mac-addr", mac),
        ("--address", ADDRESS.to_string()),
        ("--netmask", PREFIX_BITS.to_string()),
        ("--gateway", GATEWAY.to_string()),
        ("--dns-forward", NAME_SERVER.to_string()),
        ("--mtu", MTU.to_string()),
        ("--tcp-ports", "none".to_owned()),
        ("--udp-ports", "none".to_owned()),
    ];
    let flags = ["--foreground", "--stderr", "--quiet", "--ipv4-only", "--no-map-gw"];
    let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    flags.map(str::to_owned).into_iter().chain(options).map(OsString::from).collect()
}

/// Returns the guest's question for the gateway's MAC address, framed (RFC 826).
fn who_has_gateway() -> Vec<u8> {
    const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0];
    let mut frame = vec![0, 0, 0, 42];
    frame.extend([0xff; 6]);
    frame.extend(GUEST_MAC);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(GUEST_MAC);
    frame.extend(ADDRESS.octets());
    frame.extend([0; 6]);
    frame.extend(GATEWAY.octets());
    frame
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(RELAY_STACK_BYTES).spawn(run)
}

/// Carries what may leave, until one side is gone.
fn carry_out(mut guest: &UnixStream, mut outside: &UnixStream) -> io::Result<()> {
    let mut filter = Outgoing::default();
    let mut allowed = Vec::new();
    carry(&mut guest, |bytes| {
        allowed.clear();
        filter
            .push(bytes, &mut allowed)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        outside.write_all(&allowed)
    })
}

/// Carries everything to the guest, until one side is gone.
fn carry_in(mut outside: &UnixStream, mut guest: &UnixStream) -> io::Result<()> {
    carry(&mut outside, |bytes| guest.write_all(bytes))
}

fn carry(from: &mut &UnixStream, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; RELAY_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Ends both connections; QEMU tells the guest that its link is down, `passt` ends.
fn close(guest: &UnixStream, outside: &UnixStream) {
    for socket in [guest, outside] {
        // Closed by the other side already.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

fn note_end(log: &Path) -> io::Result<()> {
    let mut log = OpenOptions::new().append(true).create(true).open(log)?;
    writeln!(log, "{PROGRAM} ended; the guest reaches nothing until its machine starts again")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn its_end_closes_the_guests_side_and_is_noted() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let (mut uplink, mut qemu) = Uplink::spawn(Path::new(PROGRAM), &log).unwrap();
        uplink.wait_ready(soon()).unwrap();
        uplink.process.kill().unwrap();
        assert_eq!(qemu.read(&mut [0; 100]).unwrap(), 0);
        drop(uplink);
        assert!(std::fs::read_to_string(&log).unwrap().contains("passt ended; the guest"));
    }

    #[test]
    fn a_closed_guest_side_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let (mut uplink, qemu) = Uplink::spawn(Path::new(PROGRAM), &log).unwrap();
        uplink.wait_ready(soon()).unwrap();
        drop(qemu);
        assert!(uplink.process.wait(soon()).unwrap().unwrap().success());
        drop(uplink);
        assert!(!std::fs::read_to_string(&log).unwrap().contains("passt ended"));
    }

    #[test]
    fn the_gateway_answers_through_the_relays() {
        let directory = tempfile::tempdir().unwrap();
        let (mut uplink, mut qemu) =
            Uplink::spawn(Path::new(PROGRAM), &directory.path().join("log")).unwrap();
        uplink.wait_ready(soon()).unwrap();
        qemu.write_all(&who_has_gateway()).unwrap();
        let mut answer = [0; 46];
        qemu.read_exact(&mut answer).unwrap();
        assert_eq!(answer[10..16], GATEWAY_MAC);
    }

    #[test]
    fn one_that_cannot_work_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        // Takes none of the options.
        let (mut uplink, _qemu) = Uplink::spawn(Path::new("/bin/false"), &log).unwrap();
        let error = uplink.wait_ready(soon()).unwrap_err();
        assert!(error.to_string().starts_with("passt ended: exit status: 1"), "{error}");
    }
}
