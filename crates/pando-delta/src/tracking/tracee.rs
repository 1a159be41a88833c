//! Another process, stopped to make system calls in our name, as debuggers do it (ptrace(2)).

use std::io;
use std::time::Instant;

use nix::libc::{c_long, user_regs_struct};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::limits;

/// A process whose main thread is stopped. The thread that holds it is its tracer: only that thread
/// may use it, and its end lets the process go.
pub struct Tracee {
    pid: Pid,
    /// What the thread was about to do.
    registers: user_regs_struct,
    /// Address of a `syscall` instruction.
    syscall: u64,
    /// A signal that came meanwhile; it gets it when it is let go.
    signal: Option<Signal>,
}

impl Tracee {
    /// Stops the main thread of a child of ours.
    pub fn stop(pid: rustix::process::Pid) -> io::Result<Self> {
        let pid = Pid::from_raw(pid.as_raw_nonzero().get());
        let syscall = find_syscall(pid)?;
        ptrace::seize(pid, ptrace::Options::empty())?;
        ptrace::interrupt(pid)?;
        let signal = wait_stopped(pid)?;
        Ok(Self { pid, registers: ptrace::getregs(pid)?, syscall, signal })
    }

    /// Makes it call `number` with one argument, and returns what the call returned.
    pub fn call(&mut self, number: c_long, [argument]: [u64; 1]) -> io::Result<u64> {
        ptrace::setregs(
            self.pid,
            user_regs_struct {
                rip: self.syscall,
                rax: number.cast_unsigned(),
                rdi: argument,
                // The call that it is in must not be taken up again from here.
                orig_rax: u64::MAX,
                ..self.registers
            },
        )?;
        let after = self.syscall + SYSCALL.len() as u64;
        loop {
            ptrace::step(self.pid, None)?;
            match wait_stopped(self.pid)? {
                Some(Signal::SIGTRAP) | None => {}
                other => self.signal = other,
            }
            let now = ptrace::getregs(self.pid)?;
            if now.rip == after {
                return returned(now.rax);
            }
        }
    }

    /// Lets it go on where it was.
    pub fn let_go(self) -> io::Result<()> {
        ptrace::setregs(self.pid, self.registers)?;
        Ok(ptrace::detach(self.pid, self.signal)?)
    }
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Returns what a system call returned: the kernel gives errors as small negative numbers.
fn returned(rax: u64) -> io::Result<u64> {
    match rax.cast_signed() {
        error @ -4095..0 => Err(io::Error::from_raw_os_error(i32::try_from(-error).unwrap_or(0))),
        _ => Ok(rax),
    }
}

/// Returns the address of a `syscall` instruction: the kernel maps code with some into each process.
fn find_syscall(pid: Pid) -> io::Result<u64> {
    let none = || io::Error::from(io::ErrorKind::Unsupported);
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).ok_or_else(none)?;
    let (start, end) =
        line.split_once(' ').and_then(|(range, _)| range.split_once('-')).ok_or_else(none)?;
    let parse = |text| usize::from_str_radix(text, 16).map_err(io::Error::other);
    let (start, end) = (parse(start)?, parse(end)?);
    let mut code = vec![0; end.saturating_sub(start)];
    let remote = [RemoteIoVec { base: start, len: code.len() }];
    process_vm_readv(pid, &mut [io::IoSliceMut::new(&mut code)], &remote)?;
    let at = code.windows(SYSCALL.len()).position(|bytes| bytes == SYSCALL).ok_or_else(none)?;
    Ok((start + at) as u64)
}

/// Waits until the process is stopped, and returns the signal that it was stopped by, if it was one.
fn wait_stopped(pid: Pid) -> io::Result<Option<Signal>> {
    let deadline = Instant::now() + limits::TRACEE_STOPS;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, signal) => return Ok(Some(signal)),
            WaitStatus::PtraceEvent(..) => return Ok(None),
            WaitStatus::StillAlive if Instant::now() < deadline => {
                std::thread::sleep(limits::TRACEE_POLL);
            }
            WaitStatus::StillAlive => return Err(io::ErrorKind::TimedOut.into()),
            ended => return Err(io::Error::other(format!("it ended: {ended:?}"))),
        }
    }
}
