//! A cluster of three nodes, as the quick start of cluster tools has it: defined, started, used,
//! snapshotted, branched, rolled back, stopped and destroyed.

use crate::support::{Home, text};

const TRIO: &str = "name: trio
image: default
network: {name: lan, subnet: 10.9.0.0/24, subnet6: 'fd00:9::/64'}
nodes:
  - {name: a, memory: 256 MiB, commands: ['echo seeded >/srv/seed']}
  - {name: b, memory: 256 MiB}
  - {name: c, memory: 256 MiB}
";

/// What an SSH server on another node says first, asked for by name.
const GREET: &str = "bash -c 'exec 3<>/dev/tcp/b/22 && head -c 4 <&3'";

#[test]
fn a_cluster_is_defined_started_used_snapshotted_branched_and_destroyed() {
    let home = Home::new();
    let file = home.path().with_extension("yaml");
    std::fs::write(&file, TRIO).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(home.ok(&["cluster", "define", file])["created"], true);
    assert_eq!(home.ok(&["cluster", "define", file])["created"], false);
    let started = home.ok(&["cluster", "start", "trio"]);
    assert_eq!((&started["warm"], &started["set_up"]), (&true.into(), &1.into()));
    let reached = |status: &serde_json::Value| {
        let nodes = status["nodes"].as_array().unwrap().clone();
        nodes.len() == 3 && nodes.iter().all(|node| node["ssh_reachable"] == true)
    };
    assert!(reached(&started), "{started}");
    assert!(reached(&home.ok(&["cluster", "status", "trio"])));
    let handle = home.ok(&["cluster", "handle", "trio"]);
    assert!(text(&handle, "kernel_version").starts_with(|c: char| c.is_ascii_digit()));
    let macs = home.ok(&["node", "exec-all", "trio", "cat /sys/class/net/e*/address"]);
    let mac = |node: &str| text(&macs["results"][node], "stdout").to_owned();
    assert!(mac("a") != mac("b") && mac("b") != mac("c"), "{macs}");
    let greeted = |branch: &str| {
        let ran = home.ok(&["node", "exec", branch, "a", GREET]);
        assert_eq!(ran["stdout"], "SSH-", "{branch}: {ran}");
    };
    greeted("trio");
    let ended = home.run(&["node", "exec", "trio", "b", "exit 7"]);
    assert_eq!(ended.status.code(), Some(7));

    home.ok(&["snapshot", "create", "trio", "baseline"]);
    home.ok(&["node", "exec-all", "trio", "echo one >/dev/shm/state"]);
    home.ok(&["commit", "trio", "-t", "v1"]);
    home.ok(&["node", "exec-all", "trio", "echo two >/dev/shm/state"]);
    home.ok(&["branch", "trio@v1", "-n", "3"]);
    for branch in ["trio@try-1", "trio@try-2", "trio@try-3"] {
        greeted(branch);
        let state = home.ok(&["node", "exec-all", branch, "cat /dev/shm/state"]);
        for node in ["a", "b", "c"] {
            assert_eq!(state["results"][node]["stdout"], "one\n", "{branch}/{node}");
        }
    }
    home.ok(&["rollback", "trio", "v1"]);
    greeted("trio@main");

    home.ok(&["cluster", "stop", "trio"]);
    home.ok(&["cluster", "destroy", "trio", "--remove-overlays"]);
    home.assert_nothing_left();
}
