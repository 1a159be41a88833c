//! The whole life of a cluster, again and again on one daemon: nothing of a cluster outlives it,
//! and the daemon does not grow.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{DEADLINE, Home, all_files, held_by, processes_of, resident_now, text, until};

/// Says how many cycles to run.
const CYCLES: &str = "PANDO_TEST_CYCLES";
/// How many are run unless that says: as many as it takes to compare two of them.
const DEFAULT_CYCLES: u32 = 2;
/// Before it is measured for the first time the daemon has seen all it will see.
const WARM_UP: u32 = 1;

/// What the daemon may have more of than after the first cycles: pages of its database, of which
/// each of five connections keeps 2 MB, and 4 MiB of answers.
const MORE_MEMORY: u64 = 14 << 20;

const PAIR: &str = "name: pair
image: default
network: {name: lan, subnet: 10.9.0.0/24, subnet6: 'fd00:9::/64', uplink: nat}
nodes:
  - {name: a, memory: 256 MiB}
  - {name: b, memory: 256 MiB}
";

/// What is there while no cluster is.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// Of the home and of its sockets' directory.
    files: BTreeSet<PathBuf>,
    /// Names in the kernel's list of bound unix sockets.
    sockets: usize,
    /// What the daemon has open, and the ports that it listens on.
    held: (Vec<String>, Vec<String>),
}

/// Returns what is there; nothing but the daemon may run.
fn left(home: &Home) -> Option<Left> {
    let daemon = home.only_process()?;
    let bound = fs::read_to_string("/proc/net/unix").unwrap();
    let ours = home.path().display().to_string();
    let sockets = bound.lines().filter(|line| line.contains(&ours)).count();
    let mut held = held_by(daemon.pid);
    // A few connections to the database, opened as they are wanted.
    held.0.retain(|name| !name.contains("/pando.db"));
    Some(Left { files: all_files(home), sockets, held })
}

/// Waits until nothing more is there than there was; says what is.
fn assert_gone(home: &Home, first: &Left) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let now = left(home);
        if now.as_ref() == Some(first) {
            return;
        }
        let is_late = Instant::now() >= deadline;
        assert!(!is_late, "{first:#?}\n{now:#?}\n{:#?}", processes_of(home.path()));
        sleep(Duration::from_millis(50));
    }
}

/// One life.
fn live(home: &Home, topology: &str) {
    home.ok(&["cluster", "define", topology]);
    home.ok(&["cluster", "start", "pair"]);
    home.ok(&["node", "exec-all", "pair", "echo one >/dev/shm/state"]);
    home.ok(&["commit", "pair", "-t", "v1"]);
    home.ok(&["node", "exec-all", "pair", "echo two >/dev/shm/state"]);
    assert_eq!(home.ok(&["branch", "pair@v1", "-n", "3"])["succeeded"], 3);
    let cut = home.ok(&["net", "partition", "pair@try-1", "a", "-b", "b"]);
    assert_eq!(cut["verified"], "yes", "{cut}");
    let healed = home.ok(&["net", "heal", "pair@try-1", text(&cut, "handle_id")]);
    assert_eq!(healed["verified"], "yes", "{healed}");
    home.ok(&["rollback", "pair@main", "v1"]);
    let state = home.ok(&["node", "exec-all", "pair@main", "cat /dev/shm/state"]);
    assert_eq!(state["results"]["b"]["stdout"], "one\n");
    home.ok(&["cluster", "destroy", "pair", "--remove-overlays"]);
    assert_eq!(home.ok(&["cluster", "list"])["clusters"], json!([]));
    home.assert_consistent();
}

#[test]
fn nothing_of_a_cluster_outlives_it_and_the_daemon_does_not_grow() {
    let cycles = std::env::var(CYCLES).map_or(DEFAULT_CYCLES, |number| number.parse().unwrap());
    let home = Home::new();
    let topology = home.path().with_extension("yaml");
    fs::write(&topology, PAIR).unwrap();
    let topology = topology.to_str().unwrap();
    for _ in 0..WARM_UP {
        live(&home, topology);
    }
    let daemon = home.daemon().unwrap().pid;
    let first = until("only the daemon is left", || left(&home));
    let resident = resident_now(daemon);
    for cycle in 1..=cycles {
        live(&home, topology);
        assert_gone(&home, &first);
        assert_eq!(home.daemon().unwrap().pid, daemon, "the same daemon all the time");
        let now = resident_now(daemon);
        let more = now.saturating_sub(resident);
        println!("cycle {cycle}: the daemon has {} KiB, {} more", now / 1024, more / 1024);
        assert!(more <= MORE_MEMORY, "cycle {cycle}: {more} bytes more");
    }
    home.assert_nothing_left();
}
