//! Tracing a stopped child of this thread: its registers, and letting it go on. Its memory is a file,
//! `/proc/PID/mem`.

use std::io;

pub use libc::user_regs_struct as Registers;

/// Has a traced child die with this process.
pub fn die_with_us(pid: i32) -> io::Result<()> {
    // SAFETY: an option takes no address.
    check(unsafe {
        libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::c_long::from(libc::PTRACE_O_EXITKILL))
    })
}

/// Returns the registers of a stopped child.
pub fn registers(pid: i32) -> io::Result<Registers> {
    // SAFETY: integers only; the kernel fills all of it, or says that it did not.
    unsafe {
        let mut registers = std::mem::zeroed::<Registers>();
        check(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers))?;
        Ok(registers)
    }
}

/// Changes the registers of a stopped child.
pub fn set_registers(pid: i32, registers: &Registers) -> io::Result<()> {
    // SAFETY: the kernel reads a structure that outlives the call.
    check(unsafe {
        libc::ptrace(libc::PTRACE_SETREGS, pid, 0, std::ptr::from_ref(registers).cast_mut())
    })
}

/// Lets a stopped child run until it stops again.
pub fn go_on(pid: i32) -> io::Result<()> {
    // SAFETY: no signal is passed on, and no address.
    check(unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, 0) })
}

/// Lets a stopped child run, and traces it no longer.
pub fn let_go(pid: i32) -> io::Result<()> {
    // SAFETY: as above.
    check(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
