//! The few system calls that have no safe wrapper in our dependencies. The only unsafe code of the
//! guest program.

#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit, setrlimit};

pub mod trace;

/// Where a process says how likely the out-of-memory killer is to choose it.
pub const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";
/// Never, unless it is the last one.
pub const PROTECTED: &str = "-1000";
/// As likely as its size makes it.
pub const UNPROTECTED: &str = "0";

/// A program to start, in all its parts.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Its file.
    pub program: &'a CStr,
    /// Its arguments, the first one its name.
    pub argv: &'a [CString],
    /// Its environment, `NAME=value` each.
    pub env: &'a [CString],
    /// Its working directory, unless it is ours.
    pub cwd: Option<&'a CStr>,
    /// Its standard descriptors; none of ours is below 3.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Whether it leads a group of its own, or a session whose terminal is its standard input.
    pub leads: Leads,
    /// The user it becomes, unless it is ours.
    pub user: Option<ChildUser>,
    /// Whether it stops for this thread to trace it, when it has executed the program.
    pub traced: bool,
}

/// What a new process leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// A process group.
    Group,
    /// A session, with a terminal.
    Session,
}

/// A user to become.
#[derive(Debug, Clone)]
pub struct ChildUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// Stack of a new process until it executes its program, in bytes.
const CHILD_STACK: usize = 64 * 1024;

/// The limit on open files that programs start with, where we have raised our own.
static FILES: AtomicU64 = AtomicU64::new(0);

/// Raises the number of files that this process may have open as far as it may; programs that it
/// starts get what they had.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    if let (Some(before), Ok(())) = (before, setrlimit(Resource::Nofile, limit)) {
        FILES.store(before, Ordering::Relaxed);
    }
}

/// What the parent hands to the child, and the child to the parent.
struct ChildPlan<'a> {
    launch: &'a Launch<'a>,
    argv: &'a [*const libc::c_char],
    env: &'a [*const libc::c_char],
    error: libc::c_int,
}

/// Starts a program. The child borrows this process's memory until it executes the program, and
/// this thread sleeps so long: nothing is copied, which is what makes it quick.
pub fn launch(launch: &Launch<'_>) -> io::Result<i32> {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        let each = strings.iter().map(|string| string.as_ptr());
        each.chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(launch.argv), pointers(launch.env));
    let mut plan = ChildPlan { launch, argv: &argv, env: &env, error: 0 };
    let mut stack = Vec::<u128>::with_capacity(CHILD_STACK / size_of::<u128>());
    // SAFETY: the child runs on a stack of its own, which outlives it because CLONE_VFORK keeps this
    // thread asleep until the child has executed or ended. `child` only makes system calls, and
    // writes to nothing of ours but the plan. It may run our signal handlers, which are as harmless
    // there as here.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity());
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        libc::clone(child, top.cast(), flags, (&raw mut plan).cast())
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the child, which has written it, is past its use of this memory.
    let error = unsafe { std::ptr::read_volatile(&raw const plan.error) };
    if error != 0 {
        // SAFETY: it is our child and has ended; nobody else has been told of it.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        return Err(io::Error::from_raw_os_error(error));
    }
    Ok(pid)
}

/// The new process: becomes what the plan says, and executes. Returns only to fail.
extern "C" fn child(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `launch` passes its plan and sleeps.
    unsafe {
        let plan = plan.cast::<ChildPlan<'_>>();
        become_and_execute(&*plan);
        (*plan).error = *libc::__errno_location();
        libc::_exit(127)
    }
}

/// Returns when a step has failed; `errno` then says why.
///
/// # Safety
/// To be called in a process made for it: it replaces its descriptors, user and program.
unsafe fn become_and_execute(plan: &ChildPlan<'_>) {
    let launch = plan.launch;
    // SAFETY: plain system calls on values that live as long as the plan. The raw calls for ids
    // change this process only; the library's would look for its other threads.
    unsafe {
        for (to, from) in (0..).zip(&launch.stdio) {
            if libc::dup2(from.as_raw_fd(), to) < 0 {
                return;
            }
        }
        let led = match launch.leads {
            Leads::Group => libc::setpgid(0, 0) == 0,
            Leads::Session => libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0,
        };
        if !led {
            return;
        }
        if let Some(user) = &launch.user {
            let ids = [user.gid, user.uid].map(libc::c_long::from);
            if libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) < 0
                || libc::syscall(libc::SYS_setresgid, ids[0], ids[0], ids[0]) < 0
                || libc::syscall(libc::SYS_setresuid, ids[1], ids[1], ids[1]) < 0
            {
                return;
            }
        }
        if launch.cwd.is_some_and(|cwd| libc::chdir(cwd.as_ptr()) < 0) {
            return;
        }
        let files = FILES.load(Ordering::Relaxed);
        if files != 0 {
            let mut limit = std::mem::zeroed::<libc::rlimit>();
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
                limit.rlim_cur = files;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            }
        }
        // We ignore it, and that would be inherited.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        // Last: a signal would stop it from here on, with this process waiting for its execution.
        if launch.traced && libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) < 0 {
            return;
        }
        libc::execve(launch.program.as_ptr(), plan.argv.as_ptr(), plan.env.as_ptr());
    }
}

/// The descriptor that [`wake_on`] writes to.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// A signal was delivered since [`signalled`] was asked last.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

/// Returns whether a signal of [`wake_on`] was delivered since this was asked last.
pub fn signalled() -> bool {
    SIGNALLED.load(Ordering::Relaxed) && SIGNALLED.swap(false, Ordering::Relaxed)
}

extern "C" fn wake(_signal: libc::c_int) {
    SIGNALLED.store(true, Ordering::Relaxed);
    let one = 1u64.to_ne_bytes();
    // SAFETY: write(2) is async-signal-safe and errno is put back; the descriptor is never closed.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(WAKE.load(Ordering::Relaxed), one.as_ptr().cast(), one.len());
        *libc::__errno_location() = errno;
    }
}

/// Returns an event counter that becomes readable when one of `signals` is delivered. To be called
/// once in a process. A handler and no signal mask, because commands would inherit the mask.
pub fn wake_on(signals: &[i32]) -> io::Result<BorrowedFd<'static>> {
    let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?.into_raw_fd();
    WAKE.store(counter, Ordering::Relaxed);
    for &signal in signals {
        // SAFETY: the handler only does what is allowed in one, and the structure is initialised.
        unsafe {
            let mut action = std::mem::zeroed::<libc::sigaction>();
            action.sa_sigaction = wake as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
            if libc::sigaction(signal, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    // SAFETY: the descriptor was just opened and is never closed.
    Ok(unsafe { BorrowedFd::borrow_raw(counter) })
}

/// Asks the kernel to signal this process (SIGIO) when `fd`'s state changes, or not to.
pub fn set_async(fd: BorrowedFd<'_>, wanted: Async) -> io::Result<()> {
    // SAFETY: `fd` is open; these commands take and return integers.
    unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        if flags < 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = match wanted {
            Async::On => flags | libc::O_ASYNC,
            Async::Off => flags & !libc::O_ASYNC,
        };
        if libc::fcntl(fd.as_raw_fd(), libc::F_SETOWN, libc::getpid()) < 0
            || libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether state changes are signalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Async {
    /// They are.
    On,
    /// They are not.
    Off,
}

/// Mixes `entropy` into the kernel's random number generator and has it reseeded from it at once.
pub fn add_entropy(random: &File, entropy: &[u8]) -> io::Result<()> {
    /// `_IOW('R', 0x03, int[2])`.
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    /// `_IO('R', 0x07)`.
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    /// The kernel's `struct rand_pool_info` with room for the most that a host sends.
    #[repr(C)]
    struct Pool {
        entropy_bits: libc::c_int,
        bytes: libc::c_int,
        buffer: [u8; 64],
    }
    let mut pool = Pool { entropy_bits: 0, bytes: 0, buffer: [0; 64] };
    for (to, from) in pool.buffer.iter_mut().zip(entropy) {
        *to = *from;
        pool.bytes += 1;
        pool.entropy_bits += 8;
    }
    // SAFETY: the pool is laid out as the kernel expects, and `bytes` counts what was filled.
    unsafe {
        if libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const pool) < 0
            || libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Grows the mounted ext4 file system that `directory` is on to `blocks` of its own blocks.
pub fn resize_ext4(directory: &File, blocks: u64) -> io::Result<()> {
    /// `_IOW('f', 16, __u64)`.
    const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
    // SAFETY: the argument is a pointer to a 64-bit number that outlives the call.
    if unsafe { libc::ioctl(directory.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends a packet of a protocol (Ethernet's number for it) to everybody beside an interface.
pub fn send_to_all(
    socket: BorrowedFd<'_>,
    interface: u32,
    protocol: u16,
    packet: &[u8],
) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    // SAFETY: both pointers are to values that outlive the call, with their own lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a real-time signal to the machine's first process.
pub fn signal_init_realtime(offset: i32) -> io::Result<()> {
    // SAFETY: plain system call.
    if unsafe { libc::kill(1, libc::SIGRTMIN() + offset) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Splits this process in two, which must have one thread only.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: with one thread, the child may do whatever the parent might.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent { child: pid }),
    }
}

/// Which of the two this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The new one.
    Child,
    /// The old one.
    Parent {
        /// Process id of the new one.
        child: i32,
    },
}
