//! Clusters and faults for agents: the workflows of cluster tools, and a network broken in one branch
//! and not in the next, over MCP with real machines and the daemon killed in between. Afterwards
//! nothing is left.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod agents;
#[allow(dead_code, unused_imports, reason = "other journeys use the rest")]
mod real {
    pub mod support;
}

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
