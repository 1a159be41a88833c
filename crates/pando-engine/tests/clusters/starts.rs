//! Starts of clusters that are not simply off: paused, with a node down, with SSH that is late.

use serde_json::{Value, json};

use crate::common::{Bench, DUO};
use crate::{node, on};

async fn crash(bench: &Bench, name: &str) {
    let down = json!({"cluster_name": "duo", "node": name, "restart_after": false});
    bench.ok("node_crash", down).await;
}

async fn start(bench: &Bench) -> Value {
    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await
}

async fn pause(bench: &Bench) {
    bench.ok("vm_control", json!({"address": "duo", "action": "pause"})).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_cluster_goes_on_with_the_node_that_was_down() {
    let bench = Bench::with_cluster().await;
    on(&bench, "duo", "db", "set-disk kept yes").await;
    on(&bench, "duo", "web", "set-mem kept yes").await;
    crash(&bench, "db").await;
    pause(&bench).await;

    let started = start(&bench).await;
    assert_eq!((&started["started"], &started["state"]), (&json!(["db"]), &"running".into()));
    for name in ["db", "web"] {
        assert_eq!(node(&started, name)["domain_state"], "running", "{started}");
    }
    assert_eq!(on(&bench, "duo", "db", "get-disk kept").await, "yes");
    assert_eq!(on(&bench, "duo", "web", "get-mem kept").await, "yes");

    // Nothing is down: it only goes on.
    pause(&bench).await;
    assert_eq!(start(&bench).await["started"], json!([]));
    assert_eq!(on(&bench, "duo", "web", "get-mem kept").await, "yes");
    bench.assert_consistent("after a pause").await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_cluster_whose_nodes_all_ended_is_started() {
    let bench = Bench::with_cluster().await;
    on(&bench, "duo", "db", "set-disk kept yes").await;
    crash(&bench, "db").await;
    crash(&bench, "web").await;
    pause(&bench).await;
    let started = start(&bench).await;
    assert_eq!(started["started"], json!(["db", "web"]));
    assert_eq!(node(&started, "web")["domain_state"], "running");
    assert_eq!(on(&bench, "duo", "db", "get-disk kept").await, "yes");
    bench.assert_consistent("after the end of all nodes").await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_ssh_is_late_runs_and_names_the_node() {
    let bench = Bench::new().await;
    let mute = DUO.replace("set-disk seeded yes", "set-mem no-ssh yes");
    assert_ne!(mute, DUO);
    bench.ok("cluster_define", json!({"topology": mute})).await;
    let started = start(&bench).await;
    assert_eq!((&started["state"], &started["fresh"]), (&"running".into(), &false.into()));
    let missing = started["ssh_missing"].as_object().unwrap();
    assert_eq!(missing.keys().collect::<Vec<_>>(), ["db"], "{started}");
    assert!(missing["db"].as_str().unwrap().contains("no SSH server answers on duo@main/db"));
    let hint = started["hint"].as_str().unwrap();
    for next in ["pando cluster status duo@main", "pando console duo@main/db", "ssh_timeout_s"] {
        assert!(hint.contains(next), "{hint}");
    }
    let reached = |name| (&node(&started, name)["answers"], &node(&started, name)["ssh_reachable"]);
    assert_eq!(reached("db"), (&true.into(), &false.into()));
    assert_eq!(reached("web"), (&true.into(), &true.into()));
    assert_eq!(on(&bench, "duo", "db", "get-mem no-ssh").await, "yes");

    on(&bench, "duo", "db", "del-mem no-ssh").await;
    let again = start(&bench).await;
    assert_eq!((again.get("ssh_missing"), again.get("hint")), (None, None), "{again}");
    assert_eq!(node(&again, "db")["ssh_reachable"], true);
    bench.assert_consistent("after a start whose SSH was late").await;
}
