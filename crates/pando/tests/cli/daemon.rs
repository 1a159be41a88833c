//! The daemon's life: started once however many want it, killed and started again, ended cleanly.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{finish, pando, shown};

/// A home whose daemon is ended with it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn spawn(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = pando(self.path());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        finish(self.spawn(arguments))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("home/daemon.log")).unwrap_or_default()
    }

    fn daemon(&self) -> Pid {
        let text = std::fs::read_to_string(self.path().join("home/daemon.lock")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    fn socket(&self) -> Option<PathBuf> {
        let homes = std::fs::read_dir(self.path().join("run/pando")).ok()?;
        let socket = homes.flatten().next()?.path().join("daemon.sock");
        socket.exists().then_some(socket)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["daemon", "stop"]);
    }
}

#[test]
fn twenty_commands_at_once_start_one_daemon() {
    let home = Home::new();
    let children: Vec<_> = (0..20).map(|_| home.spawn(&["ps"])).collect();
    for child in children {
        let output = finish(child);
        assert!(output.status.success(), "{}", shown(&output));
    }
    let served = home.log().matches("serving").count();
    assert_eq!(served, 1, "{}", home.log());
}

#[test]
fn a_killed_daemon_is_started_again_and_an_ended_one_leaves_nothing() {
    let home = Home::new();
    assert!(home.run(&["ps"]).status.success());
    let first = home.daemon();
    kill_process(first, Signal::KILL).unwrap();
    let output = home.run(&["status", "--json"]);
    let envelope: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(&output)));
    let second = home.daemon();
    assert_ne!(first, second);
    assert_eq!(envelope["result"]["pid"], second.as_raw_nonzero().get());

    let socket = home.socket().expect("a socket");
    let directory = socket.parent().unwrap();
    assert_eq!(std::fs::metadata(directory).unwrap().mode() & 0o777, 0o700);
    let output = home.run(&["daemon", "stop"]);
    assert_eq!(shown(&output), "the daemon has ended; running branches go on\n");
    let lock = std::fs::File::open(home.path().join("home/daemon.lock")).unwrap();
    assert!(lock.try_lock().is_ok(), "the daemon has ended");
    drop(lock);
    assert!(!directory.exists(), "and left nothing there");
    assert_eq!(home.run(&["daemon", "status"]).status.code(), Some(9));
    assert_eq!(shown(&home.run(&["daemon", "stop"])), "no daemon ran\n");
}

#[test]
fn a_second_daemon_of_a_home_is_refused() {
    let home = Home::new();
    assert!(home.run(&["daemon", "start"]).status.success());
    assert!(shown(&home.run(&["daemon", "start"])).contains("the daemon runs"));
    assert!(shown(&home.run(&["daemon", "restart"])).contains("runs again"));
    assert_eq!(home.log().matches("serving").count(), 2);
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let home = Home::new();
    std::fs::create_dir_all(home.path().join("home")).unwrap();
    std::fs::write(home.path().join("home/config.toml"), "[daemon]\nlgo = \"info\"\n").unwrap();
    let output = home.run(&["ps"]);
    assert_eq!(output.status.code(), Some(9));
    assert!(shown(&output).contains("daemon.lgo"), "{}", shown(&output));
}

#[test]
fn a_home_of_somebody_else_is_refused() {
    let home = Home::new();
    std::fs::create_dir_all(home.path().join("real")).unwrap();
    std::os::unix::fs::symlink(home.path().join("real"), home.path().join("home")).unwrap();
    let output = home.run(&["ps"]);
    assert_eq!(output.status.code(), Some(9), "{}", shown(&output));
}
