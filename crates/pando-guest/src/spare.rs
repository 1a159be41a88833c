//! A shell that has started before its command is known.
//!
//! Fork, execute, load the libraries: three quarters of a short command is the start of its shell. So
//! one is started ahead, with a blank where its command goes, and held at its first own instruction:
//!
//! ```text
//!   executing ──(it has executed)──▶ loading ──(its libraries are loaded)──▶ named ──▶ held
//!   held ──(a command that suits it)──▶ the command is written over the blank, and it runs
//! ```
//!
//! From then on it is a shell as any other: the same arguments, environment, directory, descriptors and
//! parent, and no longer traced. Only its process began before its command did. It is part of a commit's
//! memory like any process, so that the first command of every copy finds it there.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use crate::capture::TICKS_PER_SECOND;
use crate::clock;
use crate::limits::SPARE_TIMEOUT;
use crate::spawn::Spawned;
use crate::sys::trace::{self, Registers};

/// What stands in the blank until there is a command: for people who list processes.
const WAITING: &CStr = c"# for the next command";

/// Most bytes of a command and its directory together, with a zero after each: longer commands are rare,
/// and this is a page of memory.
pub const BLANK: usize = 4000;

/// The shell, and what tells it which libraries to load. One that has changed since a spare began is
/// another shell.
const SOURCES: [&str; 3] = ["/bin/sh", "/etc/ld.so.cache", "/etc/ld.so.preload"];

/// Runs in the shell's place, at its first instruction: stops; then, with what the registers hold, changes
/// the directory, tells the kernel where the arguments end, and stops again. It needs no memory.
const STUB: [u8; 15] = [
    0xcc, // int3
    0x0f, 0x05, // syscall: chdir
    0x49, 0x89, 0xc4, // mov r12, rax
    0x4c, 0x89, 0xe8, // mov rax, r13
    0x4c, 0x89, 0xf7, // mov rdi, r14
    0x0f, 0x05, // syscall: prctl
    0xcc, // int3
];

/// Shells that became commands and are remembered, before those that have ended are forgotten.
const MAX_REMEMBERED: usize = 64;

/// A process's segment of 64-bit code, the only kind that the stub is for.
const CODE_64: u64 = 0x33;

/// Shells that have become commands: process, when it began, when its command did; the times in
/// milliseconds of the machine's.
static STARTED: Mutex<Vec<(u32, u64, u64)>> = Mutex::new(Vec::new());

/// A shell that waits for its command.
#[derive(Debug)]
pub struct Spare {
    /// Number of the command that it may become, which its environment has.
    pub number: u64,
    /// Its environment.
    pub env: Vec<CString>,
    spawned: Spawned,
    started: Instant,
    sources: [Option<Stamp>; SOURCES.len()],
    stage: Stage,
}

/// What a file was: its device, inode, and when that changed.
type Stamp = (u64, u64, i64, i64);

#[derive(Debug)]
enum Stage {
    /// It has not executed its program.
    Executing,
    /// Its libraries are being loaded.
    Loading(Body),
    /// It has come to its first instruction, with these registers, and says that it waits.
    Named(Body, Box<Registers>),
    /// It can become a command.
    Held(Body, Box<Registers>),
}

/// Where a process is to be changed.
#[derive(Debug)]
struct Body {
    memory: File,
    /// Address of its first instruction, and what is there.
    entry: u64,
    original: [u8; STUB.len()],
    /// Address of the blank.
    blank: u64,
    /// When the process began, as [`began_ms`] knows it.
    process_began_ms: u64,
}

impl Spare {
    /// Returns the one that was just started as `spawned`: traced, with the blank as its last argument.
    pub fn new(number: u64, env: Vec<CString>, spawned: Spawned) -> Self {
        let (sources, stage) = (SOURCES.map(stamp), Stage::Executing);
        Self { number, env, spawned, started: Instant::now(), sources, stage }
    }

    /// Its process.
    pub const fn pid(&self) -> i32 {
        self.spawned.pid
    }

    /// Whether it can become a command.
    pub const fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Held(..))
    }

    /// Whether it is not held although it has had the time: its disk may hang.
    pub fn is_late(&self, now: Instant) -> bool {
        !self.is_held() && now >= self.started + SPARE_TIMEOUT
    }

    /// Whether a shell that started now would be the same.
    pub fn is_current(&self) -> bool {
        self.sources == SOURCES.map(stamp)
    }

    /// Takes note of what became of its process. An error means that it is of no use.
    pub fn advance(&mut self, status: WaitStatus) -> io::Result<()> {
        let pid = self.pid();
        if status.stopping_signal() != Some(libc::SIGTRAP) {
            return Err(io::Error::other("it was sent a signal"));
        }
        let registers = trace::registers(pid)?;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Executing) {
            Stage::Executing if registers.cs == CODE_64 => {
                trace::die_with_us(pid)?;
                Stage::Loading(Body::prepare(pid)?)
            }
            Stage::Loading(body) if registers.rip == body.entry + 1 => {
                let registers = Registers { rip: body.entry, orig_rax: u64::MAX, ..registers };
                body.begin(pid, &registers, WAITING, c"/")?;
                Stage::Named(body, Box::new(registers))
            }
            Stage::Named(body, first) => {
                body.check(&registers)?;
                self.stage = Stage::Held(body, first);
                return Ok(());
            }
            _ => return Err(io::Error::other("it stopped where it should not")),
        };
        trace::go_on(pid)
    }

    /// Makes it the shell of `command`, in the directory `cwd`.
    pub fn run(self, command: &CStr, cwd: &CStr) -> io::Result<Spawned> {
        let pid = self.pid();
        let Stage::Held(body, first) = &self.stage else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        body.begin(pid, first, command, cwd)?;
        trace::go_on(pid)?;
        let stopped = waitpid(Pid::from_raw(pid), WaitOptions::empty())?;
        if stopped.is_none_or(|(_, status)| status.stopping_signal() != Some(libc::SIGTRAP)) {
            return Err(io::Error::other("it was sent a signal"));
        }
        body.check(&trace::registers(pid)?)?;
        body.memory.write_all_at(&body.original, body.entry)?;
        trace::set_registers(pid, first)?;
        remember(pid.cast_unsigned(), body.process_began_ms);
        trace::let_go(pid)?;
        Ok(self.spawned)
    }
}

/// Returns when a process began as whoever ran it sees it: a spare with its command.
pub fn began_ms(pid: u32, process_began_ms: u64) -> u64 {
    let known = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut known = known.iter().rev();
    let found = known.find(|(of, began, _)| (*of, *began) == (pid, process_began_ms));
    found.map_or(process_began_ms, |(.., command)| *command)
}

fn remember(pid: u32, process_began_ms: u64) {
    let mut known = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MAX_REMEMBERED {
        known.retain(|(pid, ..)| Path::new(&format!("/proc/{pid}")).exists());
    }
    known.push((pid, process_began_ms, clock::up_ms()));
}

/// Ends the process of a spare that is of no use. It is our child, and reaped with the others.
pub fn end(pid: i32) {
    // It may have ended by itself.
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
}

impl Body {
    /// Puts the stub into a process that has just executed.
    fn prepare(pid: i32) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        let entry = auxiliary(&fs::read(format!("/proc/{pid}/auxv"))?, libc::AT_ENTRY);
        let entry = entry.ok_or_else(invalid)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let field = |number| stat_field(&stat, number).ok_or_else(invalid);
        let (ticks, end) = (field(22)?, field(49)?);
        let mut original = [0; STUB.len()];
        memory.read_exact_at(&mut original, entry)?;
        memory.write_all_at(&STUB, entry)?;
        // The blank is the last argument, and a zero ends it.
        let blank = end.checked_sub(BLANK as u64 + 1).ok_or_else(invalid)?;
        let process_began_ms = ticks * (1000 / TICKS_PER_SECOND);
        Ok(Self { memory, entry, original, blank, process_began_ms })
    }

    /// Prepares the stub to make `command` the last argument and `cwd` the directory, of a process whose
    /// registers at its first instruction were `first`.
    fn begin(&self, pid: i32, first: &Registers, command: &CStr, cwd: &CStr) -> io::Result<()> {
        let text = [command.to_bytes_with_nul(), cwd.to_bytes_with_nul()].concat();
        if text.len() > BLANK {
            return Err(io::ErrorKind::ArgumentListTooLong.into());
        }
        self.memory.write_all_at(&text, self.blank)?;
        let end = self.blank + command.to_bytes_with_nul().len() as u64;
        let calls = Registers {
            rip: self.entry + 1,
            rax: libc::SYS_chdir.cast_unsigned(),
            rdi: end,
            r13: libc::SYS_prctl.cast_unsigned(),
            r14: libc::PR_SET_MM as u64,
            rsi: libc::PR_SET_MM_ARG_END as u64,
            rdx: end,
            r10: 0,
            r8: 0,
            ..*first
        };
        trace::set_registers(pid, &calls)
    }

    /// Whether the stub has run to its end, and both of its calls have succeeded.
    fn check(&self, registers: &Registers) -> io::Result<()> {
        let results = (registers.rip, registers.r12, registers.rax);
        match results == (self.entry + STUB.len() as u64, 0, 0) {
            true => Ok(()),
            false => Err(io::Error::other("it did not become its command")),
        }
    }
}

/// Returns a value of a process's auxiliary vector.
fn auxiliary(vector: &[u8], wanted: u64) -> Option<u64> {
    let word = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_ne_bytes);
    let mut pairs = vector.chunks_exact(16).map(|pair| pair.split_at(8));
    pairs.find_map(|(key, value)| (word(key) == Some(wanted)).then(|| word(value)).flatten())
}

/// Returns a field of a line of `/proc/PID/stat` that is a number, by its number in proc(5): 3 and later.
fn stat_field(line: &str, number: usize) -> Option<u64> {
    line.rsplit_once(')')?.1.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn stamp(path: &str) -> Option<Stamp> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.dev(), facts.ino(), facts.ctime(), facts.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_where_it_is_to_be_changed() {
        let vector = fs::read("/proc/self/auxv").unwrap();
        assert_eq!(auxiliary(&vector, libc::AT_PAGESZ), Some(rustix::param::page_size() as u64));
        assert_eq!(auxiliary(&vector, 0x7777), None);
        assert_eq!(auxiliary(&vector[..7], libc::AT_PAGESZ), None);
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 90 0 0 0 0 0 0 0 20 0 1 0 4242 ";
        assert_eq!(stat_field(line, 4), Some(1));
        assert_eq!(stat_field(line, 22), Some(4242));
        assert_eq!(stat_field(line, 49), None);
        assert_eq!(stat_field("7", 4), None);
    }

    #[test]
    fn a_command_began_when_it_was_given_and_others_when_their_process_did() {
        remember(u32::MAX, 10);
        let given = began_ms(u32::MAX, 10);
        assert!(given > 10 && given <= clock::up_ms());
        assert_eq!(began_ms(u32::MAX, 11), 11, "a later process of that number");
        assert_eq!(began_ms(u32::MAX - 1, 10), 10);
        for _ in 0..2 * MAX_REMEMBERED {
            remember(u32::MAX, 10);
        }
        assert!(STARTED.lock().unwrap().len() <= MAX_REMEMBERED);
    }
}
