//! The few system calls that have no safe wrapper in our dependencies. The only unsafe code of the
//! guest program.

#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Gid, Uid};

/// What a command needs of its process between fork and exec.
#[derive(Debug, Clone, Default)]
pub struct ChildSetup {
    /// Become leader of a session whose terminal is standard input.
    pub terminal: bool,
    /// Become this user.
    pub user: Option<ChildUser>,
}

/// A user to become.
#[derive(Debug, Clone)]
pub struct ChildUser {
    /// User.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// Supplementary groups.
    pub groups: Vec<Gid>,
}

/// Makes `command` do `setup` in its process. Costs a fork where the command would otherwise be
/// started without copying this process's page tables.
pub fn set_up_child(command: &mut Command, setup: ChildSetup) {
    let run = move || -> io::Result<()> {
        if setup.terminal {
            rustix::process::setsid()?;
            // SAFETY: the child's standard input is the terminal's slave and stays open here.
            let stdin = unsafe { BorrowedFd::borrow_raw(0) };
            rustix::process::ioctl_tiocsctty(stdin)?;
        }
        if let Some(user) = &setup.user {
            rustix::thread::set_thread_groups(&user.groups)?;
            rustix::thread::set_thread_res_gid(user.gid, user.gid, user.gid)?;
            rustix::thread::set_thread_res_uid(user.uid, user.uid, user.uid)?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes locks.
    unsafe { command.pre_exec(run) };
}

/// The descriptor that [`wake_on`] writes to.
static WAKE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn wake(_signal: libc::c_int) {
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
