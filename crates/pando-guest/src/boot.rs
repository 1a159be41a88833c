//! Who manages the system, and when its own boot is over. The latter is only asked when a ready
//! state is made, so that a child process is affordable: systemd itself knows best, and `systemctl`
//! can wait for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pando_model::guest::{Command, ExecOutcome, ExecSpec, ExecStatus, Stdin};
use pando_wire::guest::{Answer, Booted, Refusal, RefusalKind, Reply};

use crate::config::Config;
use crate::jobs::{Voice, What};
use crate::limits::BOOT_POLL;

/// `systemctl`'s longest answer is one word.
const MAX_ANSWER_BYTES: usize = 256;

/// Who runs the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// The first process has not become what it will be.
    Starting,
    /// systemd, which can be asked.
    Systemd,
    /// Something else, or nothing.
    Other,
}

/// Waits until it is clear who manages the system, and says what to do next.
pub fn wait_managed(config: &Config, timeout: Duration, voice: &Voice) {
    let started = Instant::now();
    voice.say(match wait_for_manager(&config.root, timeout) {
        Manager::Other => What::Done(Ok(Reply::Booted(Booted::Unmanaged))),
        Manager::Systemd => {
            let left = timeout.saturating_sub(started.elapsed());
            What::Managed { left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1) }
        }
        Manager::Starting => {
            let message = "the service manager has not started";
            What::Done(Err(Refusal::new(RefusalKind::TimedOut, message)))
        }
    });
}

/// Waits until the first process has become what it will be, or `timeout` has passed.
pub fn wait_for_manager(root: &Path, timeout: Duration) -> Manager {
    let started = Instant::now();
    loop {
        let manager = manager(root);
        if manager != Manager::Starting || started.elapsed() >= timeout {
            return manager;
        }
        std::thread::sleep(BOOT_POLL);
    }
}

fn manager(root: &Path) -> Manager {
    let first = fs::read_to_string(root.join("proc/1/comm")).unwrap_or_default();
    match first.trim() {
        // Its private socket is what `systemctl` talks to before there is a message bus.
        "systemd" if root.join("run/systemd/private").exists() => Manager::Systemd,
        "systemd" => Manager::Starting,
        _ if std::process::id() == 1 => Manager::Other,
        // The first process is this very program until it executes the real one, and systemd goes
        // by the name of its link until it has begun.
        "init" if is_ourselves(root) || is_systemd(root) => Manager::Starting,
        _ => Manager::Other,
    }
}

fn is_ourselves(root: &Path) -> bool {
    let first = fs::read_link(root.join("proc/1/exe"));
    let ours = fs::read_link(root.join("proc/self/exe"));
    matches!((first, ours), (Ok(first), Ok(ours)) if first == ours)
}

fn is_systemd(root: &Path) -> bool {
    fs::read_link(root.join("proc/1/exe")).is_ok_and(|program| program.ends_with("systemd"))
}

/// The command that waits for the boot's end.
pub fn question(left_ms: u64) -> ExecSpec {
    let argv = ["systemctl", "is-system-running", "--wait"];
    ExecSpec {
        command: Command::Argv(argv.map(str::to_owned).to_vec()),
        env: BTreeMap::new(),
        cwd: Some("/".into()),
        user: None,
        timeout_ms: left_ms,
        terminal: None,
        stdin: Stdin::Empty,
    }
}

/// Keeps a command's output, within bounds.
pub fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = MAX_ANSWER_BYTES.saturating_sub(kept.len());
    kept.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
}

/// Returns what the command's answer means.
pub fn verdict(outcome: &ExecOutcome, output: &[u8]) -> Answer {
    let said = String::from_utf8_lossy(output);
    let said = said.trim();
    match (outcome.status, said) {
        (ExecStatus::TimedOut, _) => {
            Err(Refusal::new(RefusalKind::TimedOut, "the boot did not complete in time"))
        }
        (_, "running") => Ok(Reply::Booted(Booted::Complete)),
        (_, "degraded") => Ok(Reply::Booted(Booted::Degraded)),
        (status, said) => {
            let message = format!("the service manager said {said:?} ({status:?})");
            Err(Refusal::new(RefusalKind::Io, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_asked_once_its_socket_is_there() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/1")).unwrap();
        let comm = |name: &str| fs::write(root.path().join("proc/1/comm"), name).unwrap();
        comm("busybox\n");
        assert_eq!(manager(root.path()), Manager::Other);
        comm("systemd\n");
        assert_eq!(manager(root.path()), Manager::Starting);
        fs::create_dir_all(root.path().join("run/systemd")).unwrap();
        fs::write(root.path().join("run/systemd/private"), "").unwrap();
        assert_eq!(manager(root.path()), Manager::Systemd);
    }

    #[test]
    fn the_managers_word_is_the_verdict() {
        let outcome = |status| ExecOutcome { status, duration_us: 1 };
        let ok = outcome(ExecStatus::Exited(0));
        assert_eq!(verdict(&ok, b"running\n"), Ok(Reply::Booted(Booted::Complete)));
        let degraded = outcome(ExecStatus::Exited(1));
        assert_eq!(verdict(&degraded, b"degraded\n"), Ok(Reply::Booted(Booted::Degraded)));
        assert_eq!(verdict(&degraded, b"").unwrap_err().kind, RefusalKind::Io);
        let late = outcome(ExecStatus::TimedOut);
        assert_eq!(verdict(&late, b"starting").unwrap_err().kind, RefusalKind::TimedOut);
        let mut kept = Vec::new();
        (0..100).for_each(|_| keep(&mut kept, b"0123456789"));
        assert_eq!(kept.len(), MAX_ANSWER_BYTES);
    }
}
