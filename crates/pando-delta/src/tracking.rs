//! Which pages a process wrote since one looked last: the kernel write-protects what was seen and
//! notes the next write by itself, without waking anybody (userfaultfd(2), `UFFD_FEATURE_WP_ASYNC`,
//! Linux 6.7). A commit needs to look at what changed since the one before only, and can read most of
//! it before the guest stands still.
//!
//! A userfaultfd belongs to the memory of the process that made it, and QEMU makes none for its own
//! memory. So the process is stopped for a moment and made to call `userfaultfd` ([`Tracee`]), and the
//! rest is done from here: any process that has the descriptor may use it. That takes no more rights
//! than reading the memory.
//!
//! Where something of it is missing (an older kernel, a container that forbids the call), there is no
//! tracker, and each commit reads all pages that were ever written.

mod tracee;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use self::tracee::Tracee;
use crate::DeltaError;
use crate::pages::{Look, look_and_protect};
use crate::runs::{PageRun, union};

/// The writes to one private file mapping of another process.
#[derive(Debug)]
pub struct WriteTracker {
    pid: u32,
    address: u64,
    length: u64,
    pagemap: File,
    /// The kernel tracks for as long as it is open.
    _userfault: OwnedFd,
    unsaved: Vec<PageRun>,
}

impl WriteTracker {
    /// Begins to track the private file mapping at `address` (`length` bytes) of a child of ours. The
    /// process stands still for some tens of microseconds. All pages that are its own count as written
    /// until the first look.
    ///
    /// # Errors
    /// [`DeltaError::Process`] when the process is gone, or the system does not permit or know it.
    pub fn start(pid: u32, address: u64, length: u64) -> Result<Self, DeltaError> {
        let fail = |source| DeltaError::Process { pid, source };
        // A thread of its own: whatever goes wrong, the process is let go when the thread ends.
        let made = thread::scope(|scope| scope.spawn(|| userfault_of(pid)).join());
        let userfault = made
            .unwrap_or_else(|_| Err(io::Error::other("a tracing thread panicked")))
            .map_err(fail)?;
        ioctl::enable(&userfault).map_err(|e| fail(e.into()))?;
        ioctl::register(&userfault, address, length).map_err(|e| fail(e.into()))?;
        let pagemap = File::open(format!("/proc/{pid}/pagemap")).map_err(fail)?;
        Ok(Self { pid, address, length, pagemap, _userfault: userfault, unsaved: Vec::new() })
    }

    /// Returns the process' own pages, and which of them it wrote since the last look.
    ///
    /// # Errors
    /// [`DeltaError::Process`].
    pub fn look(&mut self) -> Result<Look, DeltaError> {
        let look = look_and_protect(&self.pagemap, self.address, self.length)
            .map_err(|source| DeltaError::Process { pid: self.pid, source })?;
        self.unsaved = union(&self.unsaved, &look.written);
        Ok(look)
    }

    /// Returns the pages of all looks since they were last [saved](Self::saved).
    pub fn unsaved(&self) -> &[PageRun] {
        &self.unsaved
    }

    /// Notes that everything seen until the latest look is saved.
    pub fn saved(&mut self) {
        self.unsaved.clear();
    }
}

/// Tries all that tracking needs on a process that waits for nothing.
///
/// # Errors
/// What is missing: the system does not know it, or does not permit it.
pub fn try_out() -> io::Result<()> {
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = child.id();
    let tried = match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => try_on(pid, stdin, stdout),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    };
    child.wait()?;
    tried
}

fn try_on(pid: u32, mut stdin: ChildStdin, mut stdout: ChildStdout) -> io::Result<()> {
    // It has begun when it answers.
    stdin.write_all(b".")?;
    stdout.read_exact(&mut [0])?;
    let (start, end) = first_private(pid)?;
    let mut tracker = WriteTracker::start(pid, start, end - start).map_err(source)?;
    tracker.look().map(drop).map_err(source)
}

fn source(error: DeltaError) -> io::Error {
    match error {
        DeltaError::Process { source, .. } => source,
        other => io::Error::other(other),
    }
}

/// Returns where the first writable private mapping of a process begins and ends.
fn first_private(pid: u32) -> io::Result<(u64, u64)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let range = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = rest.starts_with("rw-p").then(|| range.split_once('-'))??;
        let parse = |text| u64::from_str_radix(text, 16).ok();
        Some((parse(start)?, parse(end)?))
    });
    range.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Makes a userfaultfd for the memory of another process, and returns our copy of it.
fn userfault_of(pid: u32) -> io::Result<OwnedFd> {
    /// Faults of the kernel are not ours to serve: without this, root only may ask.
    const USER_MODE_ONLY: u64 = 1;
    let cloexec = u64::from(rustix::fs::OFlags::CLOEXEC.bits());
    let target =
        i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(target, PidfdFlags::empty())?;
    let mut tracee = Tracee::stop(target)?;
    let theirs = tracee.call(nix::libc::SYS_userfaultfd, [USER_MODE_ONLY | cloexec])?;
    let ours = i32::try_from(theirs)
        .map_err(io::Error::other)
        .and_then(|fd| Ok(pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty())?));
    tracee.call(nix::libc::SYS_close, [theirs])?;
    tracee.let_go()?;
    ours
}

/// The requests of `linux/userfaultfd.h` that are used here.
mod ioctl {
    #![expect(unsafe_code, reason = "the ioctl wrappers that nix generates are unsafe fns")]
    use super::{AsRawFd, OwnedFd};

    const API: u64 = 0xaa;
    const FEATURE_WP_ASYNC: u64 = 1 << 15;
    const MODE_WP: u64 = 1 << 1;

    #[repr(C)]
    pub struct Api {
        api: u64,
        features: u64,
        ioctls: u64,
    }

    #[repr(C)]
    pub struct Register {
        start: u64,
        length: u64,
        mode: u64,
        ioctls: u64,
    }

    nix::ioctl_readwrite!(uffdio_api, 0xaa, 0x3f, Api);
    nix::ioctl_readwrite!(uffdio_register, 0xaa, 0x00, Register);

    pub(super) fn enable(userfault: &OwnedFd) -> nix::Result<()> {
        let mut api = Api { api: API, features: FEATURE_WP_ASYNC, ioctls: 0 };
        // SAFETY: `api` has the layout of `struct uffdio_api`, which the kernel reads and writes.
        unsafe { uffdio_api(userfault.as_raw_fd(), &raw mut api) }.map(drop)
    }

    pub(super) fn register(userfault: &OwnedFd, start: u64, length: u64) -> nix::Result<()> {
        let mut register = Register { start, length, mode: MODE_WP, ioctls: 0 };
        // SAFETY: `register` has the layout of `struct uffdio_register`, and the range lies in the
        // other process: protecting pages there asynchronously changes nothing that it can see.
        unsafe { uffdio_register(userfault.as_raw_fd(), &raw mut register) }.map(drop)
    }
}
