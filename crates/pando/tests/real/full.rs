//! A disk without room, and a host without memory.

use crate::support::disk::{Disk, in_namespace};
use crate::support::{Home, text, until};

/// Size of the small disk: room for a copy of the golden home, a machine, and a little.
const SIZE: u64 = 420 << 20;

#[test]
fn a_full_disk_refuses_commits_and_branches_and_harms_nothing() {
    if !in_namespace("full::a_full_disk_refuses_commits_and_branches_and_harms_nothing") {
        return;
    }
    let disk = Disk::new(SIZE);
    for reserve in ["0", "16"] {
        let mut home = Home::inside(disk.path());
        home.set("PANDO_LIMITS_DISK_RESERVE_MIB", reserve);
        home.create_shop();
        let before = home.guest("shop");
        home.sh("shop", "head -c 60000000 /dev/urandom >/dev/shm/change");
        home.ok(&["exec", "shop", "-n", "--", "sync"]);
        let ballast = disk.fill(12 << 20);
        for arguments in [&["commit", "shop"][..], &["branch", "shop", "-n", "2"]] {
            let error = home.fails(arguments, "disk_full");
            assert!(text(&error, "hint").contains("gc"), "{error}");
            assert_eq!(error["recoverable"], true);
            home.assert_consistent();
            home.assert_goes_on("shop", &before);
        }
        std::fs::remove_file(ballast).unwrap();
        let commit = home.ok(&["commit", "shop"]);
        assert_eq!(home.ok(&["verify", text(&commit, "commit_id")])["intact"], true);
        home.assert_goes_on("shop", &before);
        home.assert_nothing_left();
        let path = home.path().to_owned();
        drop(home);
        std::fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn a_guest_that_writes_to_a_full_disk_waits_until_there_is_room() {
    if !in_namespace("full::a_guest_that_writes_to_a_full_disk_waits_until_there_is_room") {
        return;
    }
    let disk = Disk::new(SIZE);
    let mut home = Home::inside(disk.path());
    home.set("PANDO_LIMITS_DISK_RESERVE_MIB", "0");
    home.create_shop();
    let before = home.guest("shop");
    let ballast = disk.fill(8 << 20);
    let write = "head -c 40000000 /dev/urandom >/srv/much; sync; sha256sum /srv/much";
    let writing = home.spawn(&["exec", "shop", "-n", "--json", "-c", write]);
    until("the full disk is told", || {
        let status = home.ok(&["vm", "status", "shop"]);
        (status["state"] == "paused").then(|| {
            assert!(text(&status, "reason").contains("disk"), "{status}");
        })
    });
    std::fs::remove_file(ballast).unwrap();
    home.ok(&["resume", "shop"]);
    let ended = crate::support::envelope(&crate::support::finish(writing));
    assert_eq!(ended["result"]["exit_code"], 0, "{ended}");
    home.assert_goes_on("shop", &before);
    home.assert_nothing_left();
}

#[test]
fn a_start_without_memory_for_it_is_refused_before_anything_happens() {
    let mut home = Home::new();
    home.create_shop();
    let before = home.guest("shop");
    home.run(&["daemon", "stop"]);
    home.set("PANDO_LIMITS_MEMORY_RESERVE_MIB", "1000000000");
    let operations = || home.ok(&["operation", "list"])["total"].as_u64().unwrap();
    let known = operations();
    let create = ["vm", "create", "more", "--memory", "256MiB"];
    for arguments in [&create[..], &["branch", "shop", "-n", "2"]] {
        let error = home.fails(arguments, "memory_full");
        assert!(error["hint"].is_string(), "{error}");
    }
    assert_eq!(operations(), known, "a refusal is no operation");
    home.assert_consistent();
    home.assert_goes_on("shop", &before);
    home.assert_nothing_left();
}
