//! What is done again after a failure, and what must not be: time has passed, and others worked on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::Bench;
use pando_api::{Call, Control};
use pando_driver::sim::Fault;
use pando_driver::store::Query;
use pando_model::{Branch, BranchRole};
use serde_json::{Value, json};

fn parsed(verb: &str, params: Value) -> Call {
    Call::parse(verb, params).unwrap()
}

/// Returns at which of its calls of a driver, counted from 0, a verb calls `name` for the last time.
async fn last_call(prepared: &Bench, verb: &str, params: &Value, name: &str) -> u64 {
    let bench = prepared.fork().await;
    bench.world.faults().clear();
    bench.ok(verb, params.clone()).await;
    let calls = bench.world.faults().calls();
    let at = calls.iter().rposition(|call| call == name);
    u64::try_from(at.unwrap_or_else(|| panic!("{verb}: {calls:?}"))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_was_made_is_not_made_again() {
    let bench = Bench::with_cluster().await;
    let params = json!({"cluster_name": "duo", "snapshot_name": "s1", "include_memory": true});
    let at = last_call(&bench, "snapshot_create", &params, "host.list_layers").await;
    bench.world.faults().at(at, Fault::Fail);
    let made = bench.ok("snapshot_create", params).await;
    assert!(bench.world.faults().struck().is_some());
    bench.world.faults().clear();
    assert!(made["commit_id"].is_string(), "{made}");
    bench.engine.idle().await;
    bench.assert_consistent("made once").await;
    bench.ok("snapshot_revert", json!({"cluster_name": "duo", "snapshot_name": "s1"})).await;
}

/// Rolls a machine back and lets that get stuck at its last step. Returns its id.
async fn stuck_rollback(bench: &mut Bench) -> String {
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    let params = json!({"branch": "shop", "target": "v1"});
    // Ending the old incarnation is the last thing that it does, and fails as often as it is tried.
    bench.world.faults().clear();
    bench.world.hang("host.move_capture");
    let id = bench.engine.start(&bench.caller, parsed("branch_rollback", params)).await.unwrap();
    let view = bench.ok("operation_wait", json!({"id": id, "timeout_s": 3600})).await;
    bench.world.hang("");
    assert_eq!(view["status"], "stuck", "{view:#}");
    id.to_string()
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_is_finished_if_nothing_came_after_it() {
    let mut bench = Bench::with_vm().await;
    let id = stuck_rollback(&mut bench).await;
    let view = bench.ok("operation_cancel", json!({"id": id})).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    bench.engine.idle().await;
    bench.assert_consistent("finished").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_is_not_done_over_what_came_after_it() {
    let mut bench = Bench::with_vm().await;
    let id = stuck_rollback(&mut bench).await;
    bench.exec("shop", "set-mem price 2").await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v2"})).await;
    bench.exec("shop", "set-mem price 3").await;
    let view = bench.ok("operation_cancel", json!({"id": id})).await;
    assert_eq!(
        (&view["status"], &view["error"]["code"]),
        (&"failed".into(), &"wrong_state".into())
    );
    assert_eq!(bench.mem("shop", "price").await, "3");
    bench.ok("branch_rollback", json!({"branch": "shop", "target": "v2"})).await;
    assert_eq!(bench.mem("shop", "price").await, "2");
    bench.ok("gc", json!({})).await;
    bench.engine.idle().await;
    bench.assert_consistent("left alone").await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_took_place_is_not_started_again() {
    let mut bench = Bench::with_vm().await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    let params = json!({"branch": "shop", "target": "v1", "save": false});
    let at = last_call(&bench, "branch_rollback", &params, "host.move_capture").await;
    bench.world.faults().at(at, Fault::CrashBefore);
    let crashed = bench.world.faults().crashed();
    tokio::select! {
        biased;
        () = crashed => {}
        done = bench.call("branch_rollback", params) => panic!("{done:?}"),
    }
    bench.world.faults().clear();
    // With the daemon its keepers die too, as in an accident of the whole host.
    bench.world.reboot();
    bench.restart().await;
    bench.engine.idle().await;
    let started = bench.world.faults().calls();
    assert!(!started.iter().any(|call| call == "host.start"), "{started:?}");
    let status = bench.ok("vm_status", json!({"address": "shop"})).await;
    assert_eq!(status["state"], "stopped", "{status:#}");
    bench.assert_consistent("after the swap").await;
    bench.ok("vm_control", json!({"address": "shop", "action": "start"})).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_no_name_gets_one_beside_others() {
    let bench = Bench::with_vm().await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    let make = || bench.call("branch_create", json!({"from": "shop@v1"}));
    let (a, b, c) = tokio::join!(make(), make(), make());
    let mut names: Vec<String> =
        [a, b, c].map(|made| made.unwrap()["branches"][0]["name"].to_string()).into();
    names.sort();
    assert_eq!(names, ["\"try-1\"", "\"try-2\"", "\"try-3\""]);
    bench.assert_consistent("names").await;
}

#[tokio::test(start_paused = true)]
async fn one_name_is_one_snapshot() {
    let bench = Bench::with_cluster().await;
    bench.ok("branch_create", json!({"from": "duo", "name": "other"})).await;
    let make = |cluster: &str| {
        bench.call("snapshot_create", json!({"cluster_name": cluster, "snapshot_name": "s1"}))
    };
    let (one, other) = tokio::join!(make("duo@main"), make("duo@other"));
    let refused = [one, other].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].code.as_str(), "already_exists");
    let refused = bench.fails("commit_create", json!({"branch": "duo", "tag": "other"})).await;
    assert_eq!(refused.code.as_str(), "already_exists");
}

#[tokio::test(start_paused = true)]
async fn a_detached_command_that_is_asked_for_again_is_not_waited_for() {
    let mut bench = Bench::with_vm().await;
    bench.caller.idempotency_key = Some("k".into());
    let params = json!({"address": "shop", "command": "sleep-forever", "detach": true});
    let first = bench.ok("exec_run", params.clone()).await;
    assert_eq!(bench.ok("exec_run", params).await, first);
    bench.caller.idempotency_key = None;
    let id = first["operation_id"].clone();
    bench.ok("operation_cancel", json!({"id": id})).await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_copy_that_died_is_no_reason_to_fail() {
    let bench = Bench::with_vm().await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1", "warm": 1})).await;
    bench.engine.idle().await;
    let branches: Vec<Branch> = bench.world.connect().store().list(&Query::all()).await.unwrap();
    let parked = branches.iter().find(|branch| branch.role == BranchRole::Parked).unwrap();
    assert!(bench.world.kill_keeper(&parked.host_id));
    let made = bench.ok("branch_create", json!({"from": "shop@v1"})).await;
    assert_eq!(made["branches"][0]["warm"], false, "{made:#}");
}
