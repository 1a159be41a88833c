//! Kill -9 of the daemon, of keepers and of machines. Whatever was under way is finished or undone,
//! and everything else goes on.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Home, envelope, finish, kill, text, until};

/// Instants over one call.
const INSTANTS: u32 = 8;

/// One call that lost its daemon half-way.
pub struct Struck<'a> {
    home: &'a Home,
    /// When the daemon is killed, after the call's beginning.
    after: Duration,
}

impl Struck<'_> {
    /// Makes the call; returns its result, or nothing where it failed and so changed nothing. The
    /// client starts a new daemon itself and asks for its operation again.
    pub fn call(&self, arguments: &[&str]) -> Option<Value> {
        let child = self.home.spawn(&[&["--json"], arguments].concat());
        std::thread::sleep(self.after);
        self.home.kill_daemon();
        let mut envelope = envelope(&finish(child));
        println!("{arguments:?} after {:?}: {}", self.after, envelope["error"]["code"]);
        self.home.assert_consistent();
        if envelope["success"] == true {
            return Some(envelope["result"].take());
        }
        let error = &envelope["error"];
        assert!(error["code"] != "internal" && error["code"] != "stuck", "{error}");
        None
    }
}

/// Does something undisturbed, to see how long it takes, then again and again with a kill in it,
/// each time a little later.
fn at_every_instant(home: &Home, usual: impl FnMut(), struck: impl FnMut(&Struck<'_>)) {
    at_instants(INSTANTS, home, usual, struck);
}

/// As [`at_every_instant`], at so many of them.
pub fn at_instants(
    number: u32,
    home: &Home,
    mut usual: impl FnMut(),
    mut struck: impl FnMut(&Struck<'_>),
) {
    let began = Instant::now();
    usual();
    let usual = began.elapsed();
    for instant in 0..number {
        struck(&Struck { home, after: usual * (2 * instant + 1) / (2 * number) });
    }
}

fn machines(home: &Home) -> Vec<String> {
    let list = home.ok(&["vm", "list"]);
    list["vms"].as_array().unwrap().iter().map(|vm| text(vm, "name").to_owned()).collect()
}

fn branches(home: &Home) -> Vec<String> {
    let list = home.ok(&["branches", "shop"]);
    list["branches"].as_array().unwrap().iter().map(|row| text(row, "address").to_owned()).collect()
}

#[test]
fn a_daemon_killed_at_any_instant_of_vm_create_makes_a_whole_machine_or_none() {
    let home = Home::new();
    let create = ["vm", "create", "shop", "--memory", "256MiB"];
    let usual = || {
        home.ok(&create);
    };
    at_every_instant(&home, usual, |struck| {
        home.remove("shop");
        match struck.call(&create) {
            Some(_) => assert_eq!(home.sh("shop", "hostname"), "shop"),
            None => {
                assert_eq!(machines(&home), Vec::<String>::new());
                home.ok(&create);
            }
        }
    });
    home.assert_nothing_left();
}

#[test]
fn a_daemon_killed_at_any_instant_of_commit_create_loses_no_acknowledged_commit() {
    let home = Home::with_shop();
    let before = home.guest("shop");
    let commits = || home.ok(&["log", "shop"])["commits"].as_array().unwrap().clone();
    let change = || home.sh("shop", "head -c 8000000 /dev/urandom >/dev/shm/change");
    change();
    let usual = || {
        home.ok(&["commit", "shop"]);
    };
    at_every_instant(&home, usual, |struck| {
        change();
        let known = commits().len();
        let made = struck.call(&["commit", "shop"]);
        assert_eq!(commits().len(), known + usize::from(made.is_some()), "{made:?}");
        home.assert_goes_on("shop", &before);
    });
    for commit in commits() {
        assert_eq!(home.ok(&["verify", text(&commit, "id")])["intact"], true);
    }
    let last = commits()[0].clone();
    home.ok(&["branch", text(&last, "id"), "--name", "last"]);
    home.assert_goes_on("shop@last", &before);
    home.assert_nothing_left();
}

#[test]
fn a_daemon_killed_at_any_instant_of_branch_create_makes_whole_branches_or_none() {
    let home = Home::with_shop();
    let before = home.guest("shop");
    let remove = || {
        for address in branches(&home).iter().filter(|address| *address != "shop@main") {
            home.ok(&["rm", address, "--force"]);
        }
    };
    let four = ["branch", "shop", "-n", "4"];
    let usual = || {
        assert_eq!(home.ok(&four)["succeeded"], 4);
    };
    at_every_instant(&home, usual, |struck| {
        remove();
        let made = struck.call(&four);
        let expected = made.map_or(0, |made| made["succeeded"].as_u64().unwrap());
        assert_eq!(branches(&home).len() as u64, 1 + expected);
        for address in branches(&home) {
            home.assert_goes_on(&address, &before);
        }
    });
    home.assert_nothing_left();
}

#[test]
fn a_daemon_killed_at_any_instant_of_branch_rollback_leaves_the_old_state_or_the_new() {
    let home = Home::with_shop();
    let before = home.guest("shop");
    home.sh("shop", "echo one >/dev/shm/state; echo one >/srv/state");
    home.ok(&["commit", "shop", "-t", "v1"]);
    let back = ["rollback", "shop", "v1"];
    let usual = || {
        home.ok(&back);
    };
    at_every_instant(&home, usual, |struck| {
        home.sh("shop", "echo two >/dev/shm/state; echo two >/srv/state");
        let state = if struck.call(&back).is_some() { "one\none" } else { "two\ntwo" };
        assert_eq!(home.sh("shop", "cat /dev/shm/state /srv/state"), state);
        home.assert_goes_on("shop", &before);
    });
    home.assert_nothing_left();
}

#[test]
fn a_daemon_killed_at_any_instant_of_vm_delete_leaves_a_whole_machine_or_none() {
    let home = Home::new();
    let create = || home.ok(&["vm", "create", "shop", "--memory", "256MiB"]);
    let delete = ["rm", "shop", "--force", "--disks"];
    create();
    let usual = || {
        home.ok(&delete);
    };
    at_every_instant(&home, usual, |struck| {
        if machines(&home).is_empty() {
            create();
            home.ok(&["commit", "shop", "-t", "v1"]);
        }
        match struck.call(&delete) {
            Some(_) => assert_eq!(machines(&home), Vec::<String>::new()),
            None => assert_eq!(home.ok(&["verify", "v1"])["intact"], true),
        }
    });
    home.assert_nothing_left();
}

/// Waits until a branch is known to have stopped, and returns why.
fn reason(home: &Home, address: &str) -> String {
    until("the stop is noticed", || {
        let rows = home.ok(&["branches", "shop"]);
        let rows = rows["branches"].as_array().unwrap();
        let row = rows.iter().find(|row| row["address"] == address).unwrap();
        (row["state"] == "stopped").then(|| text(row, "reason").to_owned())
    })
}

#[test]
fn a_killed_keeper_or_machine_stops_its_own_branch_only_and_can_be_started_again() {
    let home = Home::with_shop();
    let before = home.guest("shop");
    home.ok(&["branch", "shop", "a", "b"]);
    for (address, victim) in [("shop@a", home.keeper("shop@a")), ("shop@b", home.machine("shop@b"))]
    {
        home.sh(address, &format!("echo {address} >/srv/kept; sync"));
        kill(victim.pid);
        let why = reason(&home, address);
        assert!(why.contains("keeper") || why.contains("machine"), "{why}");
        home.fails(&["exec", address, "-n", "--", "true"], "wrong_state");
        home.assert_consistent();
        home.assert_goes_on("shop@main", &before);
    }
    for address in ["shop@a", "shop@b"] {
        home.ok(&["vm", "control", address, "start"]);
        assert_eq!(home.sh(address, "cat /srv/kept"), address);
        let boot = home.sh(address, "cat /proc/sys/kernel/random/boot_id");
        assert_ne!(boot, before.boot, "memory is lost with a machine");
    }
    home.assert_goes_on("shop@main", &before);
    home.assert_nothing_left();
}

#[test]
fn everything_killed_at_once_comes_back_from_disks_and_commits() {
    let home = Home::with_shop();
    home.sh("shop", "echo one >/dev/shm/state; echo one >/srv/state; sync");
    home.ok(&["commit", "shop", "-t", "v1"]);
    home.kill_everything();
    assert!(!reason(&home, "shop@main").is_empty());
    home.ok(&["start", "shop"]);
    assert_eq!(home.sh("shop", "cat /srv/state"), "one");
    home.ok(&["rollback", "shop", "v1", "--no-save"]);
    assert_eq!(home.sh("shop", "cat /dev/shm/state"), "one");
    home.assert_nothing_left();
}
