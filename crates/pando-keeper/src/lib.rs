//! The keeper of one branch: a process of its own, parent of the branch's machines.
//!
//! ```text
//!   daemon ──unix socket──▶ server   one thread a connection
//!                             │ reads (exec, facts, observe) go straight to the guest's link
//!                             │ commands (pause, cut, stop …) go to the owner
//!                             ▼
//!                           owner    the main thread: the only one that touches machines
//!                             │ spawns them (they die with this thread), watches their ends
//!                             ▼
//!                   node: machine + guest link + memory base
//!                   network: the branch's switch, and the nodes' ways to the outside
//! ```
//!
//! Invariants:
//! - Machines are spawned by the main thread only: their parent-death signal is tied to it.
//! - A cut ends in the guests going on, whatever happens to the client that asked for it; its
//!   result waits in the spool.
//! - The keeper holds `keeper.lock` for as long as it lives; whoever can take the lock knows that
//!   no machine of this branch runs.
//!
//! No async: a branch has few threads, most of them asleep, and a keeper must stay small.

mod clock;
mod console;
mod cut;
#[cfg(test)]
mod fake;
mod forward;
mod limits;
mod network;
mod node;
mod owner;
mod plan;
mod procfs;
mod published;
mod server;
mod spool;
mod standstill;
mod trouble;

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use pando_machine::{Hypervisor, Switches};
use pando_model::host::BranchSpec;
use pando_model::{BranchId, Layout};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use spool::{SpoolState, adopt, inspect};

/// What a keeper is started with.
pub struct KeeperConfig {
    /// Where files are.
    pub layout: Layout,
    /// Which branch.
    pub branch: BranchId,
    /// Starts machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Opens the branch's switch.
    pub switches: Arc<dyn Switches>,
    /// The socket to serve, bound by the starter, so that it could connect from the first moment.
    pub listener: UnixListener,
}

/// Why a keeper could not begin.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("another keeper of this branch is alive")]
    Locked,
    #[error("cannot lock the branch")]
    Lock(#[source] std::io::Error),
    #[error("cannot read the branch's spec")]
    Read(#[source] std::io::Error),
    #[error("the branch's spec is not one")]
    Spec(#[source] serde_json::Error),
}

/// Runs a keeper until its branch ends. Call it on the process' main thread.
pub fn run(config: KeeperConfig) -> ExitCode {
    raise_file_limit();
    match begin(&config) {
        Ok((spec, lock)) => {
            let code = owner::run(config, spec);
            drop(lock);
            code
        }
        Err(error) => {
            tracing::error!(branch = %config.branch, error = &error as &dyn std::error::Error, "no start");
            ExitCode::FAILURE
        }
    }
}

/// Lets this process open as many files as it may need, where the host allows.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(limits::OPEN_FILES);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "few files can be open at once");
    }
}

fn begin(config: &KeeperConfig) -> Result<(BranchSpec, File), BeginError> {
    let mut lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(config.layout.keeper_lock(&config.branch))
        .map_err(BeginError::Lock)?;
    take(&lock)?;
    // Whoever finds the lock held and us silent may end us by this number.
    lock.set_len(0)
        .and_then(|()| write!(lock, "{}", std::process::id()))
        .map_err(BeginError::Lock)?;
    let spec =
        std::fs::read(config.layout.branch_spec(&config.branch)).map_err(BeginError::Read)?;
    Ok((serde_json::from_slice(&spec).map_err(BeginError::Spec)?, lock))
}

/// Takes the lock. Whoever looks whether a keeper lives holds it for a moment.
fn take(lock: &File) -> Result<(), BeginError> {
    let deadline = Instant::now() + limits::LOCK_LOOKED_AT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(BeginError::Lock(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(BeginError::Locked);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(limits::LOCK_POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_may_open_as_many_files_as_it_has_clients() {
        let few = Rlimit { current: Some(64), maximum: getrlimit(Resource::Nofile).maximum };
        setrlimit(Resource::Nofile, few).unwrap();
        raise_file_limit();
        let raised = getrlimit(Resource::Nofile);
        let allowed = raised.maximum.unwrap_or(u64::MAX);
        assert_eq!(raised.current, Some(allowed.min(limits::OPEN_FILES)));
    }
}
