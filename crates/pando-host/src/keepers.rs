//! Keeper processes: whether one lives, how one is started, how one that hangs is ended.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pando_driver::host::{BranchSpec, HostError};
use pando_model::{BranchId, Layout};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Peer;
use crate::{files, limits, trouble};

/// Returns whether a keeper of the branch lives: whether its lock is held.
pub fn is_alive(layout: &Layout, branch: &BranchId) -> Result<bool, HostError> {
    let path = layout.keeper_lock(branch);
    let lock = match File::options().write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        result => result.map_err(|e| trouble::path("open", &path, &e))?,
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(error)) => Err(trouble::path("lock", &path, &error)),
    }
}

/// Returns whether a keeper that was lost has ended: one that is killed lets go of its sockets a moment
/// before its lock.
pub async fn has_ended(layout: &Layout, branch: &BranchId) -> Result<bool, HostError> {
    let deadline = Instant::now() + limits::DYING;
    while is_alive(layout, branch)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(limits::LOCK_POLL).await;
    }
    Ok(true)
}

/// Returns whether a machine of the branch, or another process of its keeper, lives: whether the
/// log that it writes to is locked. Those of a keeper that was killed die with it, but not at once.
fn has_machines(layout: &Layout, branch: &BranchId) -> Result<bool, HostError> {
    let directory = layout.branch(branch);
    for name in files::ids_in::<String>(&directory, ".log")? {
        let path = directory.join(format!("{name}.log"));
        let log = File::open(&path).map_err(|e| trouble::path("open", &path, &e))?;
        match log.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(true),
            Err(fs::TryLockError::Error(error)) => {
                return Err(trouble::path("lock", &path, &error));
            }
        }
    }
    Ok(false)
}

/// Waits until no keeper of the branch lives, and no machine.
pub async fn wait_gone(
    layout: &Layout,
    branch: &BranchId,
    wait: Duration,
) -> Result<(), HostError> {
    let deadline = Instant::now() + wait;
    while is_alive(layout, branch)? || has_machines(layout, branch)? {
        if Instant::now() >= deadline {
            return Err(HostError::Deadline {
                what: format!("the end of the keeper of {branch} and of its machines"),
                waited_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            });
        }
        tokio::time::sleep(limits::LOCK_POLL).await;
    }
    Ok(())
}

/// Returns the spec that the branch's latest keeper was started with.
pub fn read_spec(layout: &Layout, branch: &BranchId) -> Result<Option<BranchSpec>, HostError> {
    let path = layout.branch_spec(branch);
    match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|error| HostError::Corrupt {
            what: path.display().to_string(),
            detail: error.to_string(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(trouble::path("read", &path, &error)),
    }
}

/// Returns who answers for the branch, if anybody was ever started.
pub fn peer(layout: &Layout, branch: &BranchId) -> Result<Option<Peer>, HostError> {
    Ok(read_spec(layout, branch)?.map(|spec| Peer { branch: branch.clone(), token: spec.token }))
}

/// Starts a keeper, which can be connected to at once.
pub fn spawn(layout: &Layout, program: &Path, branch: &BranchId) -> Result<Spawned, HostError> {
    let socket = layout.keeper_socket(branch);
    let make_socket = || -> io::Result<UnixListener> {
        if let Some(parent) = socket.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(&socket)
    };
    let listener = make_socket().map_err(|e| trouble::path("listen on", &socket, &e))?;
    let log_path = layout.keeper_log(branch);
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|e| trouble::path("open", &log_path, &e))?;
    let errors = log.try_clone().map_err(|e| trouble::path("open", &log_path, &e))?;
    let mut child = tokio::process::Command::new(program)
        .arg("keeper")
        .arg("--home")
        .arg(layout.home())
        .arg("--runtime")
        .arg(layout.runtime())
        .arg("--branch")
        .arg(branch.as_str())
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(errors))
        .spawn()
        .map_err(|e| trouble::path("start", program, &e))?;
    let process = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // Reaps it if it ends before us; it outlives us otherwise.
    let ended = tokio::spawn(async move {
        let _ = child.wait().await;
    });
    Ok(Spawned { process, ended })
}

/// A keeper that was just started, and need not hold its lock yet.
pub struct Spawned {
    process: Option<OwnedFd>,
    ended: JoinHandle<()>,
}

impl Spawned {
    /// Ends it, and waits until it has.
    pub async fn end(self) {
        if let Some(process) = &self.process {
            // It may have ended by itself.
            let _ = pidfd_send_signal(process, Signal::KILL);
            let _ = tokio::time::timeout(limits::GONE, self.ended).await;
        }
    }
}

/// Ends a keeper that does not answer, and waits until it is gone with its machines.
pub async fn kill(layout: &Layout, branch: &BranchId) -> Result<(), HostError> {
    if is_alive(layout, branch)? {
        signal(layout, branch)?;
    }
    wait_gone(layout, branch, limits::GONE).await
}

/// Sends SIGKILL to a keeper. Its lock holds its process id; the lock being held proves that the
/// process lives, and the command line that the number was not reused.
fn signal(layout: &Layout, branch: &BranchId) -> Result<(), HostError> {
    let path = layout.keeper_lock(branch);
    let text = fs::read_to_string(&path).map_err(|e| trouble::path("read", &path, &e))?;
    let Some(pid) = text.trim().parse::<i32>().ok().and_then(Pid::from_raw) else { return Ok(()) };
    let pidfd = pidfd_open(pid, PidfdFlags::empty());
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
    let is_ours = command.is_ok_and(|command| {
        command.split(|byte| *byte == 0).any(|word| word == branch.as_str().as_bytes())
    });
    if let (Ok(pidfd), true) = (pidfd, is_ours) {
        tracing::warn!(%branch, pid = pid.as_raw_nonzero(), "killing a keeper");
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
    Ok(())
}

/// Removes the socket of a keeper that is gone.
pub fn remove_socket(layout: &Layout, branch: &BranchId) -> Result<(), HostError> {
    let socket = layout.keeper_socket(branch);
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(trouble::path("remove", &socket, &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_keeper_that_lets_go_of_its_lock_last_has_ended() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path(), home.path().join("run"));
        let branch = BranchId::random();
        assert!(has_ended(&layout, &branch).await.unwrap(), "there never was one");

        fs::create_dir_all(layout.branch(&branch)).unwrap();
        let lock = File::create(layout.keeper_lock(&branch)).unwrap();
        lock.lock().unwrap();
        assert!(!has_ended(&layout, &branch).await.unwrap());
        let ends = tokio::spawn(async move {
            tokio::time::sleep(limits::DYING / 4).await;
            drop(lock);
        });
        assert!(has_ended(&layout, &branch).await.unwrap());
        ends.await.unwrap();
    }
}
