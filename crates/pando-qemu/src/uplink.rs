//! A node's way to the outside: one `passt` process, and two threads between it and the node (QEMU
//! itself, or a switch), of which the one that carries the guest's frames drops what is not for the
//! outside.
//!
//! ```text
//!   node ─ socketpair ─▶ filter ─ socketpair ─▶ passt ─▶ sockets of the host
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

use pando_machine::{MachineError, Uplink, UplinkPlan};
use pando_model::network::{GATEWAY_MAC, NAME_SERVER};
use rustix::event::{PollFd, PollFlags};

pub use self::filter::{Addresses, Outgoing, may_leave};
use crate::hypervisor::find_in_path;
use crate::limits::{END_GRACE, MAX_FRAME_BYTES, RELAY_BYTES, RELAY_STACK_BYTES};
use crate::process::Process;
use crate::wait;

/// The program.
pub const PROGRAM: &str = "passt";
/// The package of Debian and Ubuntu that has it.
pub const PACKAGE: &str = "passt";

/// What a guest's interface carries in one packet, in bytes.
const MTU: u16 = 1500;

/// A running `passt` and what ties it to its node. Dropping it ends and reaps all of it.
#[derive(Debug)]
pub struct Passt {
    /// For messages: its node's machine.
    name: String,
    addresses: Addresses,
    process: Process,
    /// Ours, of the two socket pairs.
    guest: UnixStream,
    outside: UnixStream,
    log: PathBuf,
    /// Whether an end is ours, or the node's, and no news.
    over: Arc<AtomicBool>,
    /// Empty until it is ready.
    relays: Vec<JoinHandle<()>>,
}

impl Passt {
    /// Starts the program, and returns the node's socket as well. As [`Process::spawn`], from the
    /// main thread only.
    pub fn spawn(plan: &UplinkPlan) -> Result<(Self, UnixStream), MachineError> {
        let missing = MachineError::ToolMissing { tool: PROGRAM, package: PACKAGE };
        Self::start(&find_in_path(PROGRAM).ok_or(missing)?, plan).map_err(cannot_start)
    }

    fn start(program: &Path, plan: &UplinkPlan) -> io::Result<(Self, UnixStream)> {
        let (guest, node) = UnixStream::pair()?;
        let (outside, passt) = UnixStream::pair()?;
        let arguments = arguments(plan, passt.as_raw_fd());
        let process = Process::spawn(program, &arguments, &plan.log, &[passt.as_fd()])?;
        let uplink = Self {
            name: plan.name.clone(),
            addresses: Addresses::new(plan),
            process,
            guest,
            outside,
            log: plan.log.clone(),
            over: Arc::default(),
            relays: Vec::new(),
        };
        Ok((uplink, node))
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

    fn ended(&mut self) -> MachineError {
        let status = match self.process.wait(Instant::now() + END_GRACE) {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "it closed its socket, but still runs".to_owned(),
            Err(error) => error.to_string(),
        };
        let detail = format!("{PROGRAM} ended: {status}: {}", self.process.log_tail());
        MachineError::Ended { name: self.name.clone(), detail }
    }

    fn relay(&mut self) -> io::Result<()> {
        let (guest, outside) = (self.guest.try_clone()?, self.outside.try_clone()?);
        let over = Arc::clone(&self.over);
        let addresses = self.addresses.clone();
        self.relays.push(start("uplink-out", move || {
            // Whichever side is gone, the other has nobody to talk to.
            let _ = carry_out(addresses, &guest, &outside);
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

impl Uplink for Passt {
    fn wait_ready(&mut self, deadline: Instant) -> Result<(), MachineError> {
        if !self.relays.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let asked = self.outside.write_all(&who_has(&self.addresses));
        if let Err(error) = asked.and_then(|()| self.read_answer(deadline)) {
            return Err(match error.kind() {
                io::ErrorKind::TimedOut => MachineError::Deadline {
                    name: self.name.clone(),
                    what: "get its uplink",
                    waited: started.elapsed(),
                },
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset => self.ended(),
                _ => cannot_start(error),
            });
        }
        self.relay().map_err(cannot_start)
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        close(&self.guest, &self.outside);
        for relay in self.relays.drain(..) {
            // A relay has no result, and does not panic.
            let _ = relay.join();
        }
    }
}

fn cannot_start(source: io::Error) -> MachineError {
    MachineError::Spawn { program: PROGRAM.to_owned(), source }
}

fn arguments(plan: &UplinkPlan, socket: RawFd) -> Vec<OsString> {
    let options = [
        ("--fd", socket.to_string()),
        // A template for what is given below. Any other must have a default route at this moment,
        // and a host that is offline now may not be in a minute.
        ("--interface", "lo".to_owned()),
        ("--mac-addr", GATEWAY_MAC.to_string()),
        ("--address", plan.address.to_string()),
        ("--netmask", plan.prefix_bits.to_string()),
        ("--gateway", plan.gateway.to_string()),
        ("--dns-forward", NAME_SERVER.to_string()),
        ("--mtu", MTU.to_string()),
        ("--tcp-ports", "none".to_owned()),
        ("--udp-ports", "none".to_owned()),
    ];
    let flags = ["--foreground", "--stderr", "--quiet", "--ipv4-only", "--no-map-gw"];
    let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    flags.map(str::to_owned).into_iter().chain(options).map(OsString::from).collect()
}

/// Returns a node's question for the gateway's MAC address, framed (RFC 826).
fn who_has(addresses: &Addresses) -> Vec<u8> {
    const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0];
    let mut frame = vec![0, 0, 0, 42];
    frame.extend([0xff; 6]);
    frame.extend(GUEST_MAC);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(GUEST_MAC);
    frame.extend(addresses.node.octets());
    frame.extend([0; 6]);
    frame.extend(addresses.gateway.octets());
    frame
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(RELAY_STACK_BYTES).spawn(run)
}

/// Carries what may leave, until one side is gone.
fn carry_out(
    addresses: Addresses,
    mut guest: &UnixStream,
    mut outside: &UnixStream,
) -> io::Result<()> {
    let mut filter = Outgoing::new(addresses);
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

/// Ends both connections; the node has no way to the outside any more, `passt` ends.
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
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn plan(directory: &Path) -> UplinkPlan {
        UplinkPlan {
            name: "shop@main/db".to_owned(),
            address: Ipv4Addr::new(10, 7, 0, 11),
            prefix_bits: 16,
            gateway: Ipv4Addr::new(10, 7, 0, 1),
            inside: Vec::new(),
            log: directory.join("log"),
        }
    }

    #[test]
    fn its_end_closes_the_guests_side_and_is_noted() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(directory.path());
        let (mut uplink, mut qemu) = Passt::spawn(&plan).unwrap();
        uplink.wait_ready(soon()).unwrap();
        uplink.process.kill().unwrap();
        assert_eq!(qemu.read(&mut [0; 100]).unwrap(), 0);
        drop(uplink);
        assert!(std::fs::read_to_string(&plan.log).unwrap().contains("passt ended; the guest"));
    }

    #[test]
    fn a_closed_guest_side_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(directory.path());
        let (mut uplink, qemu) = Passt::spawn(&plan).unwrap();
        uplink.wait_ready(soon()).unwrap();
        drop(qemu);
        assert!(uplink.process.wait(soon()).unwrap().unwrap().success());
        drop(uplink);
        assert!(!std::fs::read_to_string(&plan.log).unwrap().contains("passt ended"));
    }

    #[test]
    fn the_gateway_answers_through_the_relays() {
        let directory = tempfile::tempdir().unwrap();
        let (mut uplink, mut qemu) = Passt::spawn(&plan(directory.path())).unwrap();
        uplink.wait_ready(soon()).unwrap();
        qemu.write_all(&who_has(&uplink.addresses)).unwrap();
        let mut answer = [0; 46];
        qemu.read_exact(&mut answer).unwrap();
        assert_eq!(answer[10..16], GATEWAY_MAC.0);
    }

    #[test]
    fn one_that_cannot_work_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(directory.path());
        // Takes none of the options.
        let (mut uplink, _qemu) = Passt::start(Path::new("/bin/false"), &plan).unwrap();
        let error = uplink.wait_ready(soon()).unwrap_err();
        assert!(error.to_string().contains("passt ended: exit status: 1"), "{error}");
    }
}
