//! Process trees: who descends from a command, however it hid, and the end of all of them.
//!
//! A descendant is found by its parents, by its process group or session, or by the mark that
//! every command carries in its environment. The last one finds daemons: their parent is gone and
//! they made a session of their own. A daemon that also emptied its environment *before* it
//! started its last program escapes; only a cgroup would hold it, and not every guest has them.

use std::collections::HashSet;
use std::fs;
use std::io::Read;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::limits::{KILL_ROUNDS, MAX_FACT_FILE_BYTES};

/// The environment variable that marks a command and its descendants.
pub const MARK: &str = "PANDO_COMMAND";

/// One process, as `/proc/PID/stat` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: i32,
    zombie: bool,
    parent: i32,
    group: i32,
    session: i32,
    /// In clock ticks since boot; tells a process from a later one with the same id.
    started: u64,
}

/// Kills the command `root` and all its descendants. Returns the processes that were killed.
/// `mark` is the value of [`MARK`] in its environment.
pub fn kill(root: i32, mark: &str) -> HashSet<i32> {
    let mut killed = HashSet::new();
    for _ in 0..KILL_ROUNDS {
        let members = members(&snapshot(), root, mark);
        // A process that was sent SIGKILL cannot fork any more, however long it takes to die.
        if members.iter().all(|process| killed.contains(&process.pid)) {
            break;
        }
        for process in members {
            if end(&process) {
                killed.insert(process.pid);
            }
        }
    }
    killed
}

/// Kills exactly this process, and not another that has its id by now.
fn end(process: &Process) -> bool {
    let Some(pid) = Pid::from_raw(process.pid) else { return false };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => {
            let same = stat(process.pid).is_some_and(|now| now.started == process.started);
            same && pidfd_send_signal(fd, Signal::KILL).is_ok()
        }
        // Kernels before 5.3.
        Err(Errno::NOSYS) => kill_process(pid, Signal::KILL).is_ok(),
        Err(_) => false,
    }
}

/// Returns the living members of the tree.
fn members(all: &[Process], root: i32, mark: &str) -> Vec<Process> {
    let ourselves = i32::try_from(std::process::id()).unwrap_or(0);
    let mut found = HashSet::from([root]);
    for process in all {
        if process.group == root || process.session == root || is_marked(process.pid, mark) {
            found.insert(process.pid);
        }
    }
    loop {
        let before = found.len();
        found.extend(
            all.iter()
                .filter(|one| found.contains(&one.parent))
                .map(|one| one.pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            break;
        }
    }
    let is_member = |one: &&Process| {
        found.contains(&one.pid) && !one.zombie && one.pid != ourselves && one.pid != 1
    };
    all.iter().filter(is_member).cloned().collect()
}

/// Returns all processes that can be seen.
fn snapshot() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(stat).collect()
}

fn stat(pid: i32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses `proc_pid_stat(5)`. The name in parentheses may contain anything.
fn parse(text: &str) -> Option<Process> {
    let (pid, rest) = text.split_once(" (")?;
    let (_, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { pid: pid.parse().ok()?, zombie, parent, group, session, started })
}

fn is_marked(pid: i32, mark: &str) -> bool {
    let Ok(file) = fs::File::open(format!("/proc/{pid}/environ")) else { return false };
    let mut environ = Vec::new();
    // A partial read still shows the mark if it is in there.
    let _ = file.take(MAX_FACT_FILE_BYTES).read_to_end(&mut environ);
    let wanted = format!("{MARK}={mark}");
    environ.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, group: i32, session: i32) -> Process {
        Process { pid, zombie: false, parent, group, session, started: 0 }
    }

    #[test]
    fn stat_lines_are_parsed_whatever_the_name() {
        let line = "42 (a) b (c) S 1 40 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1000";
        let parsed = parse(line).unwrap();
        assert_eq!((parsed.pid, parsed.parent, parsed.group, parsed.session), (42, 1, 40, 41));
        assert_eq!(parsed.started, 777);
        assert!(!parsed.zombie);
        for broken in ["", "42", "42 (x", "42 (x) S", "42 (x) S 1 2"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
        assert_eq!(
            stat(std::process::id().cast_signed()).unwrap().pid,
            std::process::id().cast_signed()
        );
    }

    #[test]
    fn a_tree_is_parents_groups_and_sessions_and_nothing_else() {
        let mut all = vec![
            process(1, 0, 1, 1),
            process(100, 50, 100, 9),
            process(101, 100, 100, 9),
            process(102, 101, 102, 102),
            process(103, 7, 100, 9),
            process(104, 7, 104, 100),
            process(200, 50, 200, 9),
            process(201, 200, 200, 9),
        ];
        all.push(Process { zombie: true, ..process(105, 100, 100, 9) });
        let pids: Vec<i32> = members(&all, 100, "no-mark").iter().map(|one| one.pid).collect();
        assert_eq!(pids, [100, 101, 102, 103, 104]);
    }
}
