//! The operations of clusters of several nodes, to be disturbed.

use serde_json::json;

use super::{Later, Scenario, agrees, later};
use crate::common::{Bench, DUO};

/// `duo@main` has a full snapshot `v1` in which its nodes hold `a=1`, and now hold `a=2`; `duo@side`
/// comes from `v1`. `fresh`, which is defined the same way, was never started.
pub(super) async fn base() -> Bench {
    let bench = Bench::with_cluster().await;
    for node in ["db", "web"] {
        bench.exec(&format!("duo@main/{node}"), "set-mem a 1").await;
        bench.exec(&format!("duo@main/{node}"), "set-disk d 1").await;
    }
    bench.exec("duo@main/db", "set-extra data e 1").await;
    let full = json!({"cluster_name": "duo", "snapshot_name": "v1", "include_memory": true});
    bench.ok("snapshot_create", full).await;
    for node in ["db", "web"] {
        bench.exec(&format!("duo@main/{node}"), "set-mem a 2").await;
        bench.exec(&format!("duo@main/{node}"), "set-disk d 2").await;
    }
    bench.exec("duo@main/db", "set-extra data e 2").await;
    bench.ok("branch_create", json!({"from": "duo@v1", "name": "side"})).await;
    let fresh = DUO.replace("name: duo", "name: fresh").replace("18080", "18081");
    bench.ok("cluster_define", json!({"topology": fresh})).await;
    bench.engine.idle().await;
    bench
}

async fn holds(bench: &Bench, branch: &str, a: &str) {
    for node in ["db", "web"] {
        assert_eq!(bench.mem(&format!("{branch}/{node}"), "a").await, a, "{branch}/{node}");
    }
    assert_eq!(bench.exec(&format!("{branch}/db"), "get-extra data e").await, a, "{branch}");
}

async fn intact(bench: &Bench) {
    holds(bench, "duo@main", "2").await;
    holds(bench, "duo@side", "1").await;
}

async fn state_of(bench: &Bench, branch: &str) -> String {
    let status = bench.ok("cluster_status", json!({"cluster_name": branch})).await;
    status["state"].as_str().unwrap().to_owned()
}

/// Kills a node of `duo@side`, for good.
async fn crash_db_of_side(bench: &Bench) {
    let params = json!({"cluster_name": "duo@side", "node": "db", "restart_after": false});
    bench.ok("node_crash", params).await;
}

async fn snapshots(bench: &Bench) -> u64 {
    bench.ok("snapshot_list", json!({"cluster_name": "duo"})).await["total"].as_u64().unwrap()
}

async fn clusters(bench: &Bench) -> u64 {
    bench.ok("cluster_list", json!({})).await["total"].as_u64().unwrap()
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario =
        |name, verb, params, prepare, check| Scenario { name, prepare, verb, params, check };
    let nothing: for<'a> fn(&'a Bench) -> Later<'a> = later!(|_bench| {});
    let third =
        DUO.replace("name: duo", "name: third").replace("256", "384").replace("18080", "18082");
    vec![
        scenario(
            "cluster definition",
            "cluster_define",
            json!({"topology": third}),
            nothing,
            later!(|bench, done| {
                agrees(done, clusters(bench).await == 3, "a third cluster");
                if clusters(bench).await == 3 {
                    bench.ok("cluster_start", json!({"cluster_name": "third"})).await;
                    assert_eq!(bench.mem("third/web", "hostname").await, "web");
                }
                intact(bench).await;
            }),
        ),
        scenario(
            "first start",
            "cluster_start",
            json!({"cluster_name": "fresh"}),
            nothing,
            later!(|bench, done| {
                agrees(done, state_of(bench, "fresh").await == "running", "fresh runs");
                // Undone whole, it can be done again.
                bench.ok("cluster_start", json!({"cluster_name": "fresh"})).await;
                assert_eq!(bench.exec("fresh/db", "get-disk seeded").await, "yes");
                intact(bench).await;
            }),
        ),
        scenario(
            "later start",
            "cluster_start",
            json!({"cluster_name": "duo@side"}),
            later!(|bench| {
                let params = json!({"cluster_name": "duo@side", "mode": "destroy"});
                bench.ok("cluster_stop", params).await;
            }),
            later!(|bench, done| {
                agrees(done, state_of(bench, "duo@side").await == "running", "side runs");
                holds(bench, "duo@main", "2").await;
            }),
        ),
        scenario(
            "start of the node that is down",
            "cluster_start",
            json!({"cluster_name": "duo@side"}),
            later!(|bench| {
                crash_db_of_side(bench).await;
            }),
            later!(|bench, _done| {
                assert_eq!(bench.mem("duo@side/web", "a").await, "1");
                bench.ok("cluster_start", json!({"cluster_name": "duo@side"})).await;
                assert_eq!(bench.exec("duo@side/db", "get-disk d").await, "1");
            }),
        ),
        scenario(
            "start of a paused cluster with a node down",
            "cluster_start",
            json!({"cluster_name": "duo@side"}),
            later!(|bench| {
                crash_db_of_side(bench).await;
                let params = json!({"address": "duo@side", "action": "pause"});
                bench.ok("vm_control", params).await;
            }),
            later!(|bench, done| {
                let state = state_of(bench, "duo@side").await;
                agrees(done, state == "running", "side goes on");
                assert!(["running", "paused"].contains(&state.as_str()), "{state}");
                bench.ok("cluster_start", json!({"cluster_name": "duo@side"})).await;
                assert_eq!(bench.mem("duo@side/web", "a").await, "1");
                assert_eq!(bench.exec("duo@side/db", "get-disk d").await, "1");
            }),
        ),
        scenario(
            "cluster stop",
            "cluster_stop",
            json!({"cluster_name": "duo@side"}),
            nothing,
            later!(|bench, done| {
                agrees(done, state_of(bench, "duo@side").await == "stopped", "side is stopped");
                holds(bench, "duo@main", "2").await;
            }),
        ),
        scenario(
            "cluster put to rest",
            "cluster_destroy",
            json!({"cluster_name": "duo"}),
            nothing,
            later!(|bench, done| {
                agrees(done, state_of(bench, "duo").await == "stopped", "main is stopped");
                assert_eq!(snapshots(bench).await, 1);
            }),
        ),
        scenario(
            "cluster removal",
            "cluster_destroy",
            json!({"cluster_name": "duo", "remove_overlays": true}),
            nothing,
            later!(|bench, done| {
                agrees(done, clusters(bench).await == 1, "duo is gone");
            }),
        ),
        scenario(
            "removal of a cluster that was never started",
            "cluster_destroy",
            json!({"cluster_name": "fresh", "remove_overlays": true}),
            nothing,
            later!(|bench, done| {
                agrees(done, clusters(bench).await == 1, "fresh is gone");
                intact(bench).await;
            }),
        ),
        scenario(
            "node crash",
            "node_crash",
            json!({"cluster_name": "duo@side", "node": "db"}),
            nothing,
            later!(|bench, _done| {
                // A crash that was begun is finished, and one that was not may be missing.
                assert_eq!(state_of(bench, "duo@side").await, "running");
                assert_eq!(bench.mem("duo@side/web", "a").await, "1");
                assert_eq!(bench.exec("duo@side/db", "get-disk d").await, "1");
                holds(bench, "duo@main", "2").await;
            }),
        ),
        scenario(
            "disk snapshot",
            "snapshot_create",
            json!({"cluster_name": "duo", "snapshot_name": "s"}),
            nothing,
            later!(|bench, done| {
                agrees(done, snapshots(bench).await == 2, "a second snapshot");
                intact(bench).await;
            }),
        ),
        scenario(
            "snapshot with memory",
            "snapshot_create",
            json!({"cluster_name": "duo", "snapshot_name": "s", "include_memory": true}),
            nothing,
            later!(|bench, done| {
                agrees(done, snapshots(bench).await == 2, "a second snapshot");
                if snapshots(bench).await == 2 {
                    bench.ok("branch_create", json!({"from": "duo@s", "name": "x"})).await;
                    holds(bench, "duo@x", "2").await;
                }
                intact(bench).await;
            }),
        ),
        scenario(
            "revert",
            "snapshot_revert",
            json!({"cluster_name": "duo", "snapshot_name": "v1"}),
            nothing,
            later!(|bench, done| {
                let a = bench.mem("duo@main/db", "a").await;
                agrees(done, a == "1", "reverted");
                holds(bench, "duo@main", &a).await;
                holds(bench, "duo@side", "1").await;
            }),
        ),
        scenario(
            "revert of a branch with a node down",
            "snapshot_revert",
            json!({"cluster_name": "duo", "snapshot_name": "v1"}),
            later!(|bench| {
                let params = json!({"cluster_name": "duo", "node": "db", "restart_after": false});
                bench.ok("node_crash", params).await;
            }),
            later!(|bench, done| {
                let a = bench.mem("duo@main/web", "a").await;
                agrees(done, a == "1", "reverted");
                bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
                assert_eq!(bench.exec("duo@main/db", "get-disk d").await, a);
                holds(bench, "duo@side", "1").await;
            }),
        ),
        scenario(
            "revert that rests",
            "snapshot_revert",
            json!({"cluster_name": "duo", "snapshot_name": "v1", "restart_after": false}),
            nothing,
            later!(|bench, done| {
                let stopped = state_of(bench, "duo").await == "stopped";
                agrees(done, stopped, "reverted");
                if stopped {
                    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
                    assert_eq!(bench.exec("duo@main/db", "get-disk d").await, "1");
                } else {
                    holds(bench, "duo@main", "2").await;
                }
            }),
        ),
        scenario(
            "snapshot removal",
            "snapshot_delete",
            json!({"cluster_name": "duo", "snapshot_name": "old"}),
            later!(|bench| {
                let params = json!({"cluster_name": "duo", "snapshot_name": "old"});
                bench.ok("snapshot_create", params).await;
                bench.ok("commit_create", json!({"branch": "duo"})).await;
            }),
            later!(|bench, done| {
                agrees(done, snapshots(bench).await == 1, "one snapshot");
                intact(bench).await;
            }),
        ),
        scenario(
            "look into a commit of a cluster",
            "state_diff",
            json!({"from": "duo@v1", "to": "duo@main"}),
            nothing,
            later!(|bench, _done| {
                intact(bench).await;
            }),
        ),
        scenario(
            "branches of a cluster",
            "branch_create",
            json!({"from": "duo@main", "names": ["x", "y"]}),
            nothing,
            later!(|bench, _done| {
                let list = bench.ok("branch_list", json!({"cluster": "duo"})).await;
                for row in list["branches"].as_array().unwrap() {
                    let address = row["address"].as_str().unwrap();
                    let a = if address == "duo@side" { "1" } else { "2" };
                    holds(bench, address, a).await;
                }
            }),
        ),
    ]
}
