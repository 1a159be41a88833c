//! Clusters and faults for agents: the workflows of vmcluster-mcp, in its order and its words, and
//! a network broken in one branch and not in the next, over MCP with real machines and the daemon
//! killed in between. Afterwards nothing is left.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod agents;
#[path = "agents/follow.rs"]
mod follow;
#[allow(dead_code, unused_imports, reason = "other journeys use the rest")]
mod real {
    pub mod support;
}
#[path = "agents/stdio.rs"]
mod stdio;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agents::{Agent, Era};
use crate::real::support::Home;

const DUO: &str = "name: duo
networks: [{name: lan, subnet: 10.9.0.0/24}]
nodes:
  - {name: a, memory: 256 MiB}
  - {name: b, memory: 256 MiB}
";

/// How many of the addresses that `a` asks for answer, and how many do not.
fn reached(agent: &Agent, branch: &str) -> (u64, u64) {
    let probe = json!({"cluster_name": branch, "sources": ["a"], "targets": ["b"]});
    let probed = agent.ok("net_probe", &probe);
    (probed["reachable"].as_u64().unwrap(), probed["unreachable"].as_u64().unwrap())
}

#[test]
fn an_agent_runs_a_cluster_and_breaks_one_branch_of_it() {
    let mut home = Home::new();
    home.set("PANDO_HTTP_LISTEN", "127.0.0.1:0");
    home.ok(&["daemon", "start"]);
    let url = home.ok(&["daemon", "status"])["url"].as_str().unwrap().to_owned();
    // The next daemon takes the same port.
    home.set("PANDO_HTTP_LISTEN", url.strip_prefix("http://").unwrap());
    let token = home.ok(&["token", "show"])["token"].as_str().unwrap().to_owned();
    let toolsets = format!("{url}/mcp?toolset=cluster,fault,branch,commit,operation");
    let agent = Agent::connect(&toolsets, Some(&token), Era::Modern).expect("a session");

    agent.ok("cluster_define", &json!({"topology": DUO}));
    let started = agent.ok("cluster_start", &json!({"cluster_name": "duo"}));
    let reachable = |node: &Value| node["ssh_reachable"] == true;
    assert!(started["nodes"].as_array().unwrap().iter().all(reachable), "{started:#}");
    let handle = agent.ok("cluster_handle", &json!({"cluster_name": "duo"}));
    assert_eq!(handle["nodes"].as_array().unwrap().len(), 2, "{handle:#}");
    let run = json!({"cluster_name": "duo", "node_name": "a", "command": "uname -r"});
    assert_eq!(agent.ok("node_exec", &run)["exit_code"], 0);
    let snapshot = json!({"cluster_name": "duo", "snapshot_name": "baseline"});
    agent.ok("snapshot_create", &snapshot);

    agent.ok("commit_create", &json!({"branch": "duo", "tag": "whole"}));
    agent.ok("branch_create", &json!({"from": "duo@whole", "names": ["left", "right"]}));
    let all = reached(&agent, "duo@left");
    assert!(all.0 > 0 && all.1 == 0, "{all:?}");
    let cut = json!({"cluster_name": "duo@left", "partition_a": ["a"], "partition_b": ["b"]});
    let fault = agent.ok("net_partition", &cut);
    assert_eq!(fault["verified"], "yes", "{fault:#}");
    assert_eq!(reached(&agent, "duo@left").0, 0);
    assert_eq!(reached(&agent, "duo@right"), all, "a branch of its own");
    assert_eq!(reached(&agent, "duo@main"), all);

    // What is broken stays broken without the daemon, and is healed through the next one.
    home.kill_daemon();
    home.ok(&["daemon", "start"]);
    home.assert_consistent();
    assert_eq!(reached(&agent, "duo@left").0, 0);
    let faults = agent.ok("net_fault_list", &json!({"cluster_name": "duo@left"}));
    let handle = faults["faults"][0]["handle_id"].clone();
    agent.ok("net_heal", &json!({"cluster_name": "duo@left", "fault_handle": handle}));
    assert_eq!(reached(&agent, "duo@left"), all);

    // A slow way there is slow as long as the branch has the fault, and not after a rollback.
    let slow = json!({"cluster_name": "duo@right", "source_node": "a", "latency_ms": 80});
    agent.ok("net_impair", &slow);
    let probe = json!({"cluster_name": "duo@right", "sources": ["a"], "targets": ["b"]});
    let probed = agent.ok("net_probe", &probe);
    for row in probed["rows"].as_array().unwrap() {
        assert!(row["rtt_ms"].as_f64().unwrap() > 75.0, "{row:#}");
    }
    let back = json!({"branch": "duo@right", "target": "whole", "save": false});
    agent.ok("branch_rollback", &back);
    let faults = agent.ok("net_fault_list", &json!({"cluster_name": "duo@right"}));
    assert_eq!(faults["faults"], json!([]));
    assert_eq!(reached(&agent, "duo@right"), all);

    // A power failure right after the first start: the node is who it was.
    agent.ok("node_crash", &json!({"cluster_name": "duo", "node": "b"}));
    assert_eq!(reached(&agent, "duo@main"), all);
    let named = json!({"cluster_name": "duo", "node_name": "b", "command": "hostname"});
    assert_eq!(agent.ok("node_exec", &named)["stdout"], "b\n");
    agent.ok("cluster_stop", &json!({"cluster_name": "duo", "mode": "shutdown"}));
    agent.ok("cluster_destroy", &json!({"cluster_name": "duo", "remove_overlays": true}));
    assert_eq!(agent.ok("cluster_list", &json!({}))["total"], 0);
    agent.end();
    home.assert_nothing_left();
}

/// As vmcluster-mcp has it, but for the sizes: machines of these are in the golden home.
const LAB: &str = "cluster_name: lab
base_image: /var/lib/vmcluster/images/default.qcow2
overlay_dir: /var/lib/vmcluster/overlays
network: {name: lab-net, bridge: virbr-lab, subnet: 192.168.100.0/24, dhcp: false, rdma: false}
nodes:
  - {name: server-1, role: server, vcpus: 1, memory_mb: 256, ip: 192.168.100.11}
  - {name: client-1, role: client, vcpus: 1, memory_mb: 256, ip: 192.168.100.21}
ssh: {key_path: /etc/vmcluster/ssh/vmcluster_id_ed25519, user: root, connect_timeout_s: 30}
snapshots: {baseline: clean-boot}
";
const LAB_NODES: [(&str, &str, &str); 2] =
    [("server-1", "server", "192.168.100.11"), ("client-1", "client", "192.168.100.21")];
/// The tools of vmcluster-mcp that concern clusters, commands, snapshots and faults.
const THEIRS: [&str; 19] = [
    "cluster_define",
    "cluster_start",
    "cluster_stop",
    "cluster_destroy",
    "cluster_status",
    "cluster_handle",
    "node_exec",
    "node_exec_all",
    "node_crash",
    "snapshot_create",
    "snapshot_list",
    "snapshot_revert",
    "snapshot_delete",
    "net_partition",
    "net_impair",
    "net_heal",
    "net_heal_all",
    "net_fault_list",
    "topology_list",
];

/// Asserts that a result is vmcluster's ClusterStatus: all nodes in this state, with or without
/// SSH.
fn assert_status(result: &Value, state: &str, reachable: bool) {
    assert_eq!(result["cluster_name"], "lab", "{result:#}");
    assert_eq!(result["network_active"], state == "running", "{result:#}");
    let nodes = result["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), LAB_NODES.len());
    for (node, (name, role, ip)) in nodes.iter().zip(LAB_NODES) {
        let facts = ["name", "role", "ip"].map(|field| node[field].as_str().unwrap());
        assert_eq!(facts, [name, role, ip], "{result:#}");
        assert_eq!(
            (&node["domain_state"], &node["ssh_reachable"]),
            (&state.into(), &reachable.into())
        );
    }
}

/// Defines the cluster by its topology's name, and starts it.
fn defined_and_started(agent: &mut stdio::Agent) {
    let by_name = json!({"topology_name": "lab"});
    let defined = agent.ok("cluster_define", &by_name);
    assert_status(&defined, "shut off", false);
    assert_eq!(defined["created"], true);
    let again = agent.ok("cluster_define", &by_name);
    assert_eq!((&again["created"], &again["drift"]), (&json!(false), &json!([])));
    let start = json!({"cluster_name": "lab", "wait_for_ssh": true, "ssh_timeout_s": 120});
    assert_status(&agent.ok("cluster_start", &start), "running", true);
}

/// Stops the cluster, then destroys it with everything of it.
fn stopped_and_destroyed(agent: &mut stdio::Agent) {
    let stop = json!({"cluster_name": "lab", "mode": "shutdown"});
    assert_status(&agent.ok("cluster_stop", &stop), "shut off", false);
    let destroy = json!({"cluster_name": "lab", "remove_overlays": true});
    let destroyed = agent.ok("cluster_destroy", &destroy);
    assert_status(&destroyed, "shut off", false);
    assert_eq!(destroyed["removed_overlays"], true);
    let gone = agent.envelope("cluster_status", &json!({"cluster_name": "lab"}));
    assert_eq!((&gone["success"], &gone["error"]["code"]), (&false.into(), &"not_found".into()));
}

fn canonical_workflow(agent: &mut stdio::Agent) {
    defined_and_started(agent);
    let handle = agent.ok("cluster_handle", &json!({"cluster_name": "lab"}));
    assert_eq!(handle["cluster_name"], "lab");
    assert_eq!(handle["artifact_path"], "/opt/vmcluster/artifacts");
    let kernel = handle["kernel_version"].as_str().unwrap();
    assert!(kernel.starts_with(|first: char| first.is_ascii_digit()), "{handle:#}");
    for (node, (name, role, ip)) in handle["nodes"].as_array().unwrap().iter().zip(LAB_NODES) {
        let facts = ["name", "role", "ip", "ssh_user"].map(|field| node[field].as_str().unwrap());
        assert_eq!(facts, [name, role, ip, "root"]);
        let key = std::fs::read_to_string(node["ssh_key_path"].as_str().unwrap()).unwrap();
        assert!(key.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
        let port = u16::try_from(node["ssh_port"].as_u64().unwrap()).unwrap();
        let mut server = TcpStream::connect((node["ssh_host"].as_str().unwrap(), port)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut greeting = [0; 8];
        server.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"SSH-2.0-");
    }
    assert_status(&agent.ok("cluster_status", &json!({"cluster_name": "lab"})), "running", true);
    stopped_and_destroyed(agent);
}

fn quick_start(agent: &mut stdio::Agent) {
    defined_and_started(agent);
    assert_status(&agent.ok("cluster_status", &json!({"cluster_name": "lab"})), "running", true);
    let run = json!({"cluster_name": "lab", "node_name": "server-1", "command": "uname -r"});
    let ran = agent.ok("node_exec", &run);
    assert_eq!(
        (&ran["exit_code"], &ran["stderr"], &ran["timed_out"]),
        (&json!(0), &json!(""), &json!(false))
    );
    assert!(ran["stdout"].as_str().unwrap().starts_with(|first: char| first.is_ascii_digit()));
    assert!(ran["duration_s"].as_f64().unwrap() > 0.0);
    let create = json!({"cluster_name": "lab", "snapshot_name": "baseline"});
    let made = agent.ok("snapshot_create", &create);
    assert_eq!((&made["snapshot_name"], &made["kind"]), (&"baseline".into(), &"disk".into()));
    stopped_and_destroyed(agent);
}

/// Runs a line on both nodes; returns what each printed.
fn on_both(agent: &mut stdio::Agent, line: &str) -> [String; 2] {
    let run = json!({"cluster_name": "lab", "command": line, "require_all": true, "timeout_s": 30});
    let ran = agent.ok("node_exec_all", &run);
    assert_eq!(
        (&ran["all_succeeded"], &ran["failed_nodes"]),
        (&true.into(), &json!({})),
        "{ran:#}"
    );
    LAB_NODES.map(|(name, ..)| ran["results"][name]["stdout"].as_str().unwrap().to_owned())
}

fn snapshots(agent: &mut stdio::Agent) {
    defined_and_started(agent);
    on_both(agent, "echo one >/root/state; sync");
    let named = |name: &str| json!({"cluster_name": "lab", "snapshot_name": name});
    let mut create = named("clean-boot");
    create["include_memory"] = true.into();
    agent.ok("snapshot_create", &create);
    agent.ok("snapshot_create", &named("later"));
    on_both(agent, "echo two >/root/state");

    let listed = agent.ok("snapshot_list", &json!({"cluster_name": "lab"}));
    let listed = listed["snapshots"].as_array().unwrap();
    let names: Vec<&Value> = listed.iter().map(|one| &one["snapshot_name"]).collect();
    assert_eq!(names, ["later", "clean-boot"]);
    for one in listed {
        assert_eq!(one["cluster_name"], "lab");
        one["created_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        for (node, (name, ..)) in one["per_node"].as_array().unwrap().iter().zip(LAB_NODES) {
            assert_eq!(node["node_name"], name);
            let disk = std::fs::metadata(node["disk_path"].as_str().unwrap()).unwrap();
            assert_eq!(node["size_bytes"], disk.blocks() * 512);
        }
    }

    // The topology's name for it leads to the same.
    let mut revert = named("baseline");
    revert["restart_after"] = true.into();
    revert["wait_for_ssh"] = true.into();
    revert["ssh_timeout_s"] = 120.into();
    assert_status(&agent.ok("snapshot_revert", &revert), "running", true);
    assert_eq!(on_both(agent, "cat /root/state"), ["one\n", "one\n"]);

    // What the cluster stands on stays; the other goes, on all nodes.
    let refused = agent.envelope("snapshot_delete", &named("clean-boot"));
    assert_eq!(refused["error"]["code"], "in_use", "{refused:#}");
    assert_eq!(refused["error"]["recoverable"], true, "{refused:#}");
    let deleted = agent.ok("snapshot_delete", &named("later"));
    assert_eq!(deleted["deleted_nodes"], json!(["server-1", "client-1"]), "{deleted:#}");
    let crash = json!({
        "cluster_name": "lab", "node": "client-1", "restart_after": true, "wait_for_ssh": true,
        "ssh_timeout_s": 120,
    });
    let crashed = agent.ok("node_crash", &crash);
    assert_eq!(
        (&crashed["name"], &crashed["domain_state"]),
        (&"client-1".into(), &"running".into())
    );
    assert_eq!(crashed["ssh_reachable"], true);
    assert_eq!(on_both(agent, "cat /root/state"), ["one\n", "one\n"]);
    stopped_and_destroyed(agent);
}

#[test]
fn the_workflows_of_vmcluster_run_in_its_order_with_its_words() {
    let mut home = Home::new();
    let topologies = home.path().join("their-topologies");
    std::fs::create_dir(&topologies).unwrap();
    std::fs::write(topologies.join("lab.yaml"), LAB).unwrap();
    home.set("VMCLUSTER_TOPOLOGY_DIR", topologies.to_str().unwrap());
    let options = ["--compat", "--toolset", "cluster,fault"];
    let mut agent = stdio::Agent::start(&home, stdio::Era::Legacy, &options);
    let listed = agent.request("tools/list", json!({}));
    let listed = listed["result"]["tools"].as_array().unwrap();
    let listed: BTreeSet<&str> = listed.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(listed.is_superset(&THEIRS.into()), "{listed:?}");
    canonical_workflow(&mut agent);
    quick_start(&mut agent);
    snapshots(&mut agent);
    agent.end();
    home.assert_nothing_left();
}
