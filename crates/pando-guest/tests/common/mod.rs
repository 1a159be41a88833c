//! A real guest program in a process of its own, and a link to it.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command as Process};
use std::time::{Duration, Instant};

use pando_link::{ExecEvent, ExecHandle, GuestClock, GuestLink, LinkError};
use pando_model::guest::{Command, ExecOutcome, ExecSpec, ExecStatus, OutputStream, Stdin};

/// A guest program that ends with the test.
pub struct Guest {
    pub link: GuestLink,
    pub process: Reaped,
}

/// Kills and reaps a process when dropped.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Time enough for anything that should work.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Starts a guest program with its own files under `root`; returns it and the host's socket.
pub fn start_raw(root: &Path) -> (Reaped, UnixStream) {
    let (host, guest) = UnixStream::pair().unwrap();
    let process = Process::new(env!("CARGO_BIN_EXE_pando-guest"))
        .args(["--stdin", "--root"])
        .arg(root)
        .stdin(OwnedFd::from(guest))
        .current_dir("/")
        .spawn()
        .unwrap();
    (Reaped(process), host)
}

/// Starts a guest program and opens an epoch.
pub fn start_in(root: &Path) -> Guest {
    let (process, host) = start_raw(root);
    let link = GuestLink::new(host, "test").unwrap();
    link.hello(GuestClock::Keep, soon()).unwrap();
    Guest { link, process }
}

/// As [`start_in`], with this machine's own files.
pub fn start() -> Guest {
    start_in(Path::new("/"))
}

/// A command without anything special.
pub fn command(command: Command) -> ExecSpec {
    ExecSpec {
        command,
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        timeout_ms: 20_000,
        terminal: None,
        stdin: Stdin::Open,
    }
}

pub fn sh(line: &str) -> ExecSpec {
    command(Command::Shell(line.into()))
}

pub fn argv(argv: &[&str]) -> ExecSpec {
    command(Command::Argv(argv.iter().map(|&arg| arg.into()).collect()))
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub outcome: ExecOutcome,
}

impl Ran {
    pub fn code(&self) -> i32 {
        match self.outcome.status {
            ExecStatus::Exited(code) => code,
            other => panic!("{other:?}: {self:?}"),
        }
    }
}

/// Takes all events until the end.
pub fn finish(handle: &ExecHandle) -> Result<Ran, LinkError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match handle.next_event(soon())? {
            ExecEvent::Output { stream: OutputStream::Stdout, bytes } => stdout.extend(bytes),
            ExecEvent::Output { stream: OutputStream::Stderr, bytes } => stderr.extend(bytes),
            ExecEvent::Ended(outcome) => {
                return Ok(Ran {
                    stdout: String::from_utf8(stdout).unwrap(),
                    stderr: String::from_utf8(stderr).unwrap(),
                    outcome,
                });
            }
        }
    }
}

/// Runs a command with empty input.
pub fn run(link: &GuestLink, spec: &ExecSpec) -> Result<Ran, LinkError> {
    let handle = link.exec(spec, soon())?;
    handle.close_stdin(soon())?;
    finish(&handle)
}

/// Waits until `predicate` holds.
pub fn until(what: &str, mut predicate: impl FnMut() -> bool) {
    let deadline = soon();
    while !predicate() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}
