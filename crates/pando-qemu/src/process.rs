//! A child process: started so that it cannot outlive its parent, held by a pidfd, always reaped.

mod before_exec;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::limits::{END_GRACE, LOG_TAIL_BYTES};
use crate::wait;

/// A process of ours. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
    log: PathBuf,
    log_start: u64,
}

impl Process {
    /// Starts `program` in a session of its own, its output appended to `log`, which stays locked
    /// (shared) until the process is gone. It inherits `keep` under their present numbers, and
    /// nothing else, and gets SIGKILL when the calling thread ends.
    pub fn spawn(
        program: &Path,
        arguments: &[OsString],
        log: &Path,
        keep: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        let output = OpenOptions::new().append(true).create(true).open(log)?;
        output.lock_shared()?;
        let log_start = output.metadata()?.len();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        before_exec::arrange(&mut command, keep);
        let mut child = command.spawn()?;
        // The child is not reaped, so the number is still its own.
        let pidfd = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error.into());
            }
        };
        Ok(Self { child, pidfd, status: None, log: log.to_owned(), log_start })
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end and reaps; `None` when the deadline passes first.
    pub fn wait(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            if wait::poll(&mut fds, deadline)? {
                self.status = Some(self.child.wait()?);
            }
        }
        Ok(self.status)
    }

    /// Sends SIGKILL, waits for the end and reaps.
    pub fn kill(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            match pidfd_send_signal(&self.pidfd, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.wait(Instant::now() + END_GRACE)
    }

    /// Returns the last lines that this process wrote to its log.
    pub fn log_tail(&self) -> String {
        let tail = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let end = file.metadata()?.len();
            let start = end.saturating_sub(LOG_TAIL_BYTES).max(self.log_start);
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        tail().unwrap_or_else(|error| format!("(the log cannot be read: {error})"))
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to tell, and the parent-death signal remains.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt as _;
    use std::time::Duration;

    use super::*;

    fn start(script: &str, log: &Path, keep: &[BorrowedFd<'_>]) -> Process {
        let arguments = ["-c", script].map(OsString::from);
        Process::spawn(Path::new("/bin/sh"), &arguments, log, keep).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn only_the_given_descriptors_are_inherited() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let (a, b) = UnixStream::pair().unwrap();
        // Inheritable, as a careless library would leave it.
        let stray = rustix::io::fcntl_dupfd_cloexec(&a, 200).unwrap();
        rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
        let mut process = start("cd /proc/self/fd && echo *", &log, &[a.as_fd(), b.as_fd()]);
        assert!(process.wait(soon()).unwrap().unwrap().success());
        let seen: Vec<i32> = process.log_tail().split(' ').map(|fd| fd.parse().unwrap()).collect();
        use std::os::fd::AsRawFd as _;
        for fd in [0, 1, 2, a.as_raw_fd(), b.as_raw_fd()] {
            assert!(seen.contains(&fd), "{fd} in {seen:?}");
        }
        assert!(!seen.contains(&stray.as_raw_fd()), "{seen:?}");
    }

    #[test]
    fn the_log_tail_is_of_this_process_only() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        std::fs::write(&log, "from another time\n").unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        let mut process = start("echo out; echo wrong >&2; exit 3", &log, &[a.as_fd(), b.as_fd()]);
        assert_eq!(process.wait(soon()).unwrap().unwrap().code(), Some(3));
        assert_eq!(process.log_tail(), "out\nwrong");
    }

    #[test]
    fn the_log_is_locked_until_the_process_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut process = start("exec cat /dev/zero > /dev/null", &log, &[]);
        let held = || File::open(&log).unwrap().try_lock().is_err();
        assert!(held());
        process.kill().unwrap();
        assert!(!held());
    }

    #[test]
    fn a_process_dies_with_the_thread_that_started_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut process = std::thread::spawn(move || {
            let (a, b) = UnixStream::pair().unwrap();
            start(
                "exec cat /proc/self/stat - < /dev/zero > /dev/null",
                &log,
                &[a.as_fd(), b.as_fd()],
            )
        })
        .join()
        .unwrap();
        assert_eq!(process.wait(soon()).unwrap().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_missing_program_is_an_error_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        let spawned = Process::spawn(
            Path::new("/nonexistent/qemu"),
            &[],
            &directory.path().join("log"),
            &[a.as_fd(), b.as_fd()],
        );
        assert_eq!(spawned.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
