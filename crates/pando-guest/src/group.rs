//! A control group of our own, away from the service manager's.
//!
//! systemd takes whatever runs when it starts into its own group, `init.scope`, and ends that whole
//! group when the kernel kills any process of it because memory ran out. One greedy command would
//! so take this program with it, and the machine would never answer again.

use std::fs;
use std::io;
use std::path::Path;

use crate::boot::{self, Manager};
use crate::limits::MANAGER_TIMEOUT;

/// Waits until the service manager has taken this process in, and leaves its group. Where there is
/// no such manager, there is no such group.
pub fn settle(root: &Path) -> io::Result<()> {
    match boot::wait_for_manager(root, MANAGER_TIMEOUT) {
        Manager::Systemd => leave_init_scope(root),
        Manager::Starting | Manager::Other => Ok(()),
    }
}

/// Returns whether this process is where it stays.
pub fn is_settled() -> bool {
    fs::read_to_string("/proc/self/cgroup").is_ok_and(|groups| !groups.contains("/init.scope"))
}

fn leave_init_scope(root: &Path) -> io::Result<()> {
    let groups = root.join("sys/fs/cgroup");
    if !groups.join("init.scope").is_dir() {
        // The older kind of control groups: there, nobody is told who was killed.
        return Ok(());
    }
    let ours = groups.join("pando");
    match fs::create_dir(&ours) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Zero is whoever writes it, with all its threads.
    fs::write(ours.join("cgroup.procs"), "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_left_where_there_is_one() {
        let root = tempfile::tempdir().unwrap();
        leave_init_scope(root.path()).unwrap();
        let groups = root.path().join("sys/fs/cgroup");
        assert!(!groups.exists());
        fs::create_dir_all(groups.join("init.scope")).unwrap();
        // Again, as after a boot that found the group of the one before.
        for _ in 0..2 {
            leave_init_scope(root.path()).unwrap();
            assert_eq!(fs::read_to_string(groups.join("pando/cgroup.procs")).unwrap(), "0");
        }
    }
}
