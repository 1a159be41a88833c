//! What a child does between fork and exec.
#![expect(
    unsafe_code,
    reason = "between fork and exec only system calls are sound, which the standard library can \
              only take on trust"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal, setsid};
use rustix::thread::disable_transparent_huge_pages;

/// Makes the child die with its parent, lead a session of its own, take memory in small pages, and
/// inherit `keep` only.
pub fn arrange(command: &mut Command, keep: &[BorrowedFd<'_>]) {
    let parent = getpid();
    let keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    let prepare = move || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that died before the call above sends no signal.
        if getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        setsid()?;
        // QEMU asks for huge ones for its translated code and fills few of them: 3.5 MB a machine,
        // and no faster here. A kernel without them refuses, which is as good.
        let _ = disable_transparent_huge_pages(true);
        close_all_on_exec()?;
        for &fd in &keep {
            // SAFETY: the caller of `arrange` spawns while it still owns these descriptors, and
            // the child has copies of them under the same numbers.
            fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: `prepare` makes system calls only: it takes no lock and does not allocate (errors
    // carry a number).
    unsafe { command.pre_exec(prepare) };
}

fn close_all_on_exec() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: marking descriptors close-on-exec closes none of them now.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
