//! Power cuts: a file system that loses, at one instant, whatever was not synced.

use std::time::Duration;

use crate::support::disk::{Disk, in_namespace};
use crate::support::{Home, text};

/// Room for everything, and what pando keeps in reserve.
const SIZE: u64 = 3 << 30;

/// What a commit must bring back, on disk and in memory, unsynced in the guest.
fn change(home: &Home, what: &str) {
    home.sh("shop", &format!("echo {what} >/root/note; echo {what} >/dev/shm/note"));
}

fn assert_holds(home: &Home, commit: &str, what: &str) {
    assert_eq!(home.ok(&["verify", commit])["intact"], true);
    home.ok(&["branch", commit, "--name", "copy"]);
    assert_eq!(home.sh("shop@copy", "cat /root/note /dev/shm/note"), format!("{what}\n{what}"));
    home.ok(&["rm", "--force", "shop@copy"]);
}

/// Brings the host up again after a power cut.
fn reboot(home: &Home, disk: &Disk) {
    home.kill_everything();
    disk.mount_again();
    // The kernel is the same, which the home must not know.
    std::fs::write(home.path().join("memory.boot"), "the boot before").unwrap();
    home.settle();
}

#[test]
fn an_acknowledged_commit_survives_a_power_cut() {
    if !in_namespace("power::an_acknowledged_commit_survives_a_power_cut") {
        return;
    }
    let disk = Disk::with_journal(SIZE);
    let home = Home::inside(disk.path());
    disk.sync();
    home.create_shop();
    change(&home, "first");
    let first = home.ok(&["commit", "shop", "-t", "first"]);
    change(&home, "second");
    let second = home.ok(&["commit", "shop"]);
    disk.cut_power();
    reboot(&home, &disk);
    assert_holds(&home, text(&first, "commit_id"), "first");
    assert_holds(&home, text(&second, "commit_id"), "second");
    // The machine itself comes back in place.
    home.ok(&["rollback", "shop", text(&second, "commit_id"), "--no-save"]);
    assert_eq!(home.sh("shop", "cat /root/note /dev/shm/note"), "second\nsecond");
    home.assert_nothing_left();
}

#[test]
fn a_power_cut_during_a_commit_leaves_it_whole_or_nothing_of_it() {
    if !in_namespace("power::a_power_cut_during_a_commit_leaves_it_whole_or_nothing_of_it") {
        return;
    }
    let disk = Disk::with_journal(SIZE);
    let home = Home::inside(disk.path());
    disk.sync();
    home.create_shop();
    change(&home, "kept");
    home.ok(&["commit", "shop", "-t", "kept"]);
    for after_ms in [30, 90, 200, 450] {
        change(&home, "next");
        home.sh("shop", "head -c 30000000 /dev/urandom >/dev/shm/change");
        let committing = home.spawn(&["commit", "shop", "--json"]);
        std::thread::sleep(Duration::from_millis(after_ms));
        disk.cut_power();
        home.kill_everything();
        let acknowledged = crate::support::finish(committing).status.success();
        reboot(&home, &disk);
        let commits = home.ok(&["log", "shop"])["commits"].as_array().unwrap().clone();
        let next =
            commits.iter().find(|commit| commit["tags"].as_array().is_none_or(Vec::is_empty));
        assert!(!acknowledged || next.is_some(), "after {after_ms} ms: {commits:#?}");
        if let Some(next) = next {
            assert_holds(&home, text(next, "id"), "next");
        }
        assert_holds(&home, "shop@kept", "kept");
        home.ok(&["rollback", "shop", "kept", "--no-save"]);
        if let Some(next) = next {
            home.ok(&["rm", "--force", text(next, "id")]);
        }
        home.assert_consistent();
    }
    home.assert_nothing_left();
}
