//! A cluster whose frames the kernel carries: the same verbs and the same results as on a switch,
//! and nothing left of it, however its keeper ends. Needs root and a kernel with bridges and
//! nftables.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{Home, kill, text, until};

const DUO: &str = "name: duo
image: default
network: {name: lan, mode: kernel, bridge: br-duo, subnet: 10.9.0.0/24, subnet6: 'fd00:9::/64'}
nodes:
  - {name: a, memory: 256 MiB}
  - {name: b, memory: 256 MiB}
";

/// Returns whether this host can, and says so if it cannot.
fn can(home: &Home) -> bool {
    let checks = home.run(&["--json", "doctor"]);
    let checks: Value = serde_json::from_slice(&checks.stdout).unwrap();
    let found = checks["result"]["checks"].as_array().unwrap().iter();
    let mut own = found.filter(|check| check["what"] == "kernel network");
    let check = own.next().unwrap_or_else(|| panic!("{checks}"));
    let lacks = check["found"].as_str().unwrap();
    let can = check["verdict"] == "fine" || lacks.starts_with("bridges and partitions work");
    if !can {
        eprintln!("SKIPPED: {check}");
    }
    can
}

/// Returns the devices and tables of the host's own namespace.
fn world() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let devices: BTreeSet<String> = fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    format!("{devices:?}\n{}", said("/usr/sbin/nft", &["list", "tables"]))
}

/// Returns the network namespaces of the threads of a process.
fn namespaces(pid: u32) -> BTreeSet<PathBuf> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    threads.filter_map(|thread| fs::read_link(thread.path().join("ns/net")).ok()).collect()
}

/// Returns those of every thread that there is.
fn all_namespaces() -> BTreeSet<PathBuf> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| fs::exists(format!("/proc/{pid}/task")).unwrap_or(false))
        .flat_map(|pid| {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            threads.filter_map(|thread| fs::read_link(thread.path().join("ns/net")).ok())
        })
        .collect()
}

/// Returns how many addresses answer, and how many do not.
fn probed(home: &Home, branch: &str) -> (u64, u64) {
    let probe = home.ok(&["net", "probe", branch]);
    (probe["reachable"].as_u64().unwrap(), probe["unreachable"].as_u64().unwrap())
}

#[test]
fn a_cluster_of_the_kernel_breaks_branches_and_ends_as_one_on_a_switch() {
    let home = Home::new();
    if !can(&home) {
        return;
    }
    let (before, namespaces_before) = (world(), all_namespaces());
    home.define(DUO);
    home.ok(&["cluster", "start", "duo"]);
    assert_eq!(probed(&home, "duo"), (4, 0));
    assert_eq!(home.sh("duo/a", "getent hosts b.duo | grep -c b"), "1", "names work without DNS");
    assert_eq!(world(), before, "all of it is in a namespace of its own");
    assert_eq!(namespaces(home.keeper("duo@main").pid).len(), 2);

    let one_way = home.ok(&["net", "partition", "duo", "a", "-b", "b", "--direction", "a_to_b"]);
    assert_ne!(one_way["verified"], "no", "{one_way}");
    assert_eq!(probed(&home, "duo"), (0, 4), "questions or answers are lost");
    home.ok(&["net", "heal", "duo", text(&one_way, "handle_id")]);
    assert_eq!(probed(&home, "duo"), (4, 0));
    let cut = home.ok(&["net", "partition", "duo", "a", "-b", "b"]);
    assert_ne!(cut["verified"], "no", "{cut}");
    assert_eq!(probed(&home, "duo"), (0, 4));

    home.ok(&["commit", "duo", "-t", "cut"]);
    home.ok(&["branch", "duo@cut", "--name", "side"]);
    assert_eq!(probed(&home, "duo@side"), (0, 4), "its faults are part of a commit");
    let ip = |branch: &str| {
        home.sh(&format!("{branch}/a"), "cat /sys/class/net/e*/address; hostname -I")
    };
    assert_eq!(ip("duo@main"), ip("duo@side"));
    home.ok(&["net", "heal-all", "duo@side"]);
    assert_eq!(probed(&home, "duo@side"), (4, 0));
    assert_eq!(probed(&home, "duo@main"), (0, 4), "worlds do not touch");
    home.ok(&["net", "heal-all", "duo@main"]);

    let refused = home.json(&["net", "impair", "duo", "a", "b", "--latency-ms", "5"]);
    if refused["success"] == false {
        assert_eq!(refused["error"]["code"], "tool_missing", "{refused}");
        let listed = home.ok(&["net", "faults", "duo"]);
        assert_eq!(listed["faults"].as_array().unwrap().len(), 0, "{listed}");
    }

    let slow = home.ok(&["net", "impair", "duo", "a", "b", "--rate-kbit", "64"]);
    assert_eq!(slow["verified"], "yes", "{slow}");
    // Four seconds of frames for a queue of a fifth of one: most are lost, some are late.
    home.sh("duo/a", "head -c 32000 /dev/zero | bash -c 'cat >/dev/udp/b/9'");
    let listed = home.ok(&["net", "faults", "duo"]);
    assert!(listed["faults"][0]["counters"]["frames"].as_u64().unwrap() > 0, "{listed}");
    home.ok(&["net", "heal-all", "duo"]);

    let keeper = home.keeper("duo@main").pid;
    kill(keeper);
    until("the branch is stopped", || {
        let status = home.ok(&["cluster", "status", "duo@main"]);
        (status["state"] == "stopped").then_some(())
    });
    home.ok(&["cluster", "start", "duo@main"]);
    assert_eq!(probed(&home, "duo@main"), (4, 0));
    assert_eq!(probed(&home, "duo@side"), (4, 0));

    home.ok(&["cluster", "destroy", "duo", "--remove-overlays"]);
    home.assert_nothing_left();
    assert_eq!(world(), before);
    // Other tests' may have come or gone; none of ours stays.
    let left = all_namespaces();
    assert!(
        left.is_subset(&namespaces_before) || left.len() <= namespaces_before.len(),
        "{left:?}"
    );
}
