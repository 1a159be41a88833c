//! An agent's work with real machines, through `pando mcp` as a process of its own, in both eras of
//! the protocol. Afterwards nothing is left.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

#[allow(dead_code, unused_imports, reason = "other journeys use the rest")]
mod real {
    pub mod support;
}
#[path = "agents/follow.rs"]
mod follow;
#[path = "agents/stdio.rs"]
mod stdio;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::real::support::{Home, until};
use crate::stdio::{Agent, Era};

fn work(era: Era) {
    let home = Home::new();
    let mut agent = Agent::start(&home, era, &[]);

    let made = agent.ok("vm_create", &json!({"name": "shop", "memory_mib": 256}));
    assert_eq!(made["state"], "running");
    assert_eq!(agent.sh("shop", "echo one >/root/state; hostname").0, "shop");
    let commit = agent.ok("commit_create", &json!({"branch": "shop", "tag": "before"}));

    let branched = json!({"from": "shop@before", "names": ["a", "b"]});
    assert_eq!(agent.ok("branch_create", &branched)["succeeded"], 2);
    agent.sh("shop@a", "echo two >/root/state");
    let fanned = agent.ok("exec_fanout", &json!({"cluster": "shop", "command": "cat /root/state"}));
    let mut printed: Vec<&str> = fanned["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["stdout"].as_str().unwrap().trim())
        .collect();
    printed.sort_unstable();
    assert_eq!(printed, ["one", "one", "two"]);

    let back = agent.ok("branch_rollback", &json!({"branch": "shop@a", "target": "before"}));
    assert_eq!(back["rolled_back_to"], commit["commit_id"]);
    assert_eq!(agent.sh("shop@a", "cat /root/state").0, "one");
    assert!(agent.progress > 0, "long work told how far it was");

    // What is long is cut, and says so.
    let long = json!({"address": "shop", "command": "seq 1 100000"});
    let envelope = agent.envelope("exec_run", &long);
    assert!(envelope.to_string().len() < 8192, "{}", envelope.to_string().len());
    assert_eq!(envelope["cut"][0]["path"], "/stdout");
    assert!(envelope["result"]["stdout"].as_str().unwrap().ends_with("100000\n"));

    // Mistakes are explained, and the session goes on.
    let lost = agent.envelope("exec_run", &json!({"address": "shop@c", "command": "true"}));
    assert_eq!(lost["error"]["code"], "not_found");
    assert_eq!(lost["next"]["tool"], "branch_list");

    // A request that is taken back ends what it began.
    let slow = json!({"address": "shop", "command": "exec sleep 987", "timeout_s": 2000});
    let request = agent.send("tools/call", json!({"name": "exec_run", "arguments": slow}));
    until("the command runs", || (agent.sh("shop", "pgrep -f 'sleep [9]87'").1 == 0).then_some(()));
    let taken_back = json!({"requestId": request});
    agent.write(&json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": taken_back,
    }));
    until("the command ends", || (agent.sh("shop", "pgrep -f 'sleep [9]87'").1 == 1).then_some(()));
    let last = agent.ok("operation_list", &json!({"verb": "exec_run", "limit": 1}));
    assert_eq!(last["operations"][0]["status"], "cancelled", "{last:#}");

    // A session outlives the daemon. The first call may still reach the dying one: one that reads
    // is repeated.
    home.kill_daemon();
    assert_eq!(agent.ok("vm_list", &json!({}))["total"], 1);
    assert_eq!(agent.sh("shop", "cat /root/state").0, "one");

    let status = agent.request("resources/read", json!({"uri": "pando://machine/shop@b"}));
    assert!(status["result"]["contents"][0]["text"].as_str().unwrap().contains("\"running\""));

    let mut times: Vec<Duration> = (0..40)
        .map(|_| {
            let began = Instant::now();
            agent.ok("exec_run", &json!({"address": "shop@main", "argv": ["true"]}));
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("exec true through MCP: p50 {:?}, p90 {:?}", times[20], times[36]);

    agent.ok("branch_delete", &json!({"branch": "shop@b", "force": true}));
    let gone = json!({"name": "shop", "force": true, "remove_overlays": true});
    assert_eq!(agent.ok("vm_delete", &gone)["removed_overlays"], true);
    assert_eq!(agent.ok("vm_list", &json!({}))["total"], 0);
    agent.end();
    home.assert_nothing_left();
}

#[test]
fn an_agent_of_the_stateless_era_works_with_real_machines() {
    work(Era::Modern);
}

#[test]
fn an_agent_that_initializes_works_with_real_machines() {
    work(Era::Legacy);
}
