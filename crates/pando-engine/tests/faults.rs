//! Fail at every step: each operation runs with every driver call and every transaction failing
//! before its effect, failing after it, and with the daemon dying before and after it. Afterwards
//! nothing leaks, records and world agree, what was there before is intact, the operation is done
//! or undone, and another start of the daemon finds nothing to do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "faults/clusters.rs"]
mod clusters;
mod common;

use std::pin::Pin;

use common::Bench;
use pando_driver::sim::Fault;
use serde_json::{Value, json};

type Later<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// An operation that is to be disturbed.
struct Scenario {
    name: &'static str,
    /// Brings the bench to where the operation makes sense.
    prepare: for<'a> fn(&'a Bench) -> Later<'a>,
    verb: &'static str,
    params: Value,
    /// Checks what must hold afterwards; whether it was done is unknown after a crash.
    check: for<'a> fn(&'a Bench, Option<bool>) -> Later<'a>,
}

/// A closure that returns a boxed future on the bench.
macro_rules! later {
    (|$bench:ident| $body:expr) => {
        |$bench: &Bench| -> Later<'_> { Box::pin(async move { $body }) }
    };
    (|$bench:ident, $done:ident| $body:expr) => {
        |$bench: &Bench, $done: Option<bool>| -> Later<'_> { Box::pin(async move { $body }) }
    };
}

pub(crate) use later;

/// `shop@main` has committed `a=1` as `v1` and has `a=2`; `shop@side` comes from `v1` and has
/// `a=3`.
async fn base() -> Bench {
    let bench = Bench::with_vm().await;
    bench.exec("shop@main", "set-mem a 1").await;
    bench.exec("shop@main", "set-disk d 1").await;
    bench.ok("commit_create", json!({"branch": "shop@main", "tag": "v1"})).await;
    bench.exec("shop@main", "set-mem a 2").await;
    bench.exec("shop@main", "set-disk d 2").await;
    bench.ok("branch_create", json!({"from": "shop@v1", "name": "side"})).await;
    bench.exec("shop@side", "set-mem a 3").await;
    bench.engine.idle().await;
    bench
}

async fn main_is_intact(bench: &Bench) {
    assert_eq!(bench.mem("shop@main", "a").await, "2");
    assert_eq!(bench.exec("shop@main", "get-disk d").await, "2");
}

async fn side_is_intact(bench: &Bench) {
    assert_eq!(bench.mem("shop@side", "a").await, "3");
}

async fn names(bench: &Bench) -> Vec<String> {
    let list = bench.ok("branch_list", json!({"cluster": "shop"})).await;
    let rows = list["branches"].as_array().unwrap();
    rows.iter().map(|row| row["alias"].as_str().unwrap().to_owned()).collect()
}

async fn state_of(bench: &Bench, branch: &str) -> String {
    let list = bench.ok("branch_list", json!({"cluster": "shop"})).await;
    let rows = list["branches"].as_array().unwrap();
    let row = rows.iter().find(|row| row["alias"] == branch).unwrap();
    row["state"].as_str().unwrap().to_owned()
}

async fn commits(bench: &Bench) -> u64 {
    bench.ok("commit_list", json!({"cluster": "shop"})).await["total"].as_u64().unwrap()
}

/// Asserts that something is so if the operation was done, and not so if it was undone.
fn agrees(done: Option<bool>, is: bool, what: &str) {
    assert!(done.is_none_or(|done| done == is), "{what}: done {done:?}, found {is}");
}

/// A branch with the name exists exactly if the operation was done, with this memory.
async fn branch_agrees(bench: &Bench, done: Option<bool>, name: &str, a: &str) {
    let there = names(bench).await.contains(&name.to_owned());
    agrees(done, there, name);
    if there {
        assert_eq!(bench.mem(&format!("shop@{name}"), "a").await, a, "{name}");
    }
}

fn scenarios() -> Vec<Scenario> {
    let scenario =
        |name, verb, params, prepare, check| Scenario { name, prepare, verb, params, check };
    let nothing: for<'a> fn(&'a Bench) -> Later<'a> = later!(|_bench| {});
    let both: for<'a> fn(&'a Bench, Option<bool>) -> Later<'a> = later!(|bench, _done| {
        main_is_intact(bench).await;
        side_is_intact(bench).await;
    });
    vec![
        scenario(
            "warm machine",
            "vm_create",
            json!({"name": "other"}),
            nothing,
            later!(|bench, done| {
                let there =
                    bench.ok("vm_list", json!({"name_prefix": "other"})).await["total"] == 1;
                agrees(done, there, "other");
                if there {
                    assert_eq!(bench.mem("other", "hostname").await, "other");
                }
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "first machine of a shape",
            "vm_create",
            json!({"name": "other", "memory_mib": 256, "user_data": "#!/bin/sh\ntrue"}),
            nothing,
            later!(|bench, done| {
                let there =
                    bench.ok("vm_list", json!({"name_prefix": "other"})).await["total"] == 1;
                agrees(done, there, "other");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "cold machine",
            "vm_create",
            json!({"name": "other", "cold": true}),
            nothing,
            both,
        ),
        scenario(
            "branches of a commit",
            "branch_create",
            json!({"from": "shop@v1", "names": ["x", "y"]}),
            nothing,
            later!(|bench, done| {
                let there = names(bench).await;
                for name in ["x", "y"] {
                    if there.contains(&name.to_owned()) {
                        assert_eq!(bench.mem(&format!("shop@{name}"), "a").await, "1");
                    }
                }
                agrees(done, there.len() > 2, "at least one branch");
                main_is_intact(bench).await;
                side_is_intact(bench).await;
            }),
        ),
        scenario(
            "branch of a live branch",
            "branch_create",
            json!({"from": "shop@main", "name": "x"}),
            nothing,
            later!(|bench, done| {
                branch_agrees(bench, done, "x", "2").await;
                agrees(done, commits(bench).await == 2, "the branch point");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "branch of a stopped branch",
            "branch_create",
            json!({"from": "shop@side", "name": "x"}),
            later!(|bench| {
                bench.ok("vm_control", json!({"address": "shop@side", "action": "stop"})).await;
            }),
            later!(|bench, done| {
                branch_agrees(bench, done, "x", "").await;
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "warm branch",
            "branch_create",
            json!({"from": "shop@warm", "name": "x"}),
            later!(|bench| {
                let params = json!({"branch": "shop@main", "tag": "warm", "warm": 1});
                bench.ok("commit_create", params).await;
            }),
            later!(|bench, done| {
                branch_agrees(bench, done, "x", "2").await;
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "checkout",
            "branch_checkout",
            json!({"branch": "shop@side"}),
            later!(|bench| {
                bench.ok("vm_control", json!({"address": "shop@side", "action": "pause"})).await;
            }),
            later!(|bench, done| {
                let done_now = state_of(bench, "side").await == "running";
                agrees(done, done_now, "side runs");
                let main = if done_now { "paused" } else { "running" };
                assert_eq!(state_of(bench, "main").await, main);
            }),
        ),
        scenario(
            "checkout of a stopped branch",
            "branch_checkout",
            json!({"branch": "shop@side", "keep": true}),
            later!(|bench| {
                bench.ok("vm_control", json!({"address": "shop@side", "action": "kill"})).await;
            }),
            later!(|bench, done| {
                agrees(done, state_of(bench, "side").await == "running", "side runs");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "rollback",
            "branch_rollback",
            json!({"branch": "shop@main", "target": "v1"}),
            nothing,
            later!(|bench, done| {
                let a = bench.mem("shop@main", "a").await;
                agrees(done, a == "1", "rolled back");
                assert!(a == "1" || a == "2", "{a}");
                assert_eq!(bench.exec("shop@main", "get-disk d").await, a);
                assert_eq!(commits(bench).await == 2, a == "1", "saved");
                side_is_intact(bench).await;
            }),
        ),
        scenario(
            "rollback without saving",
            "branch_rollback",
            json!({"branch": "shop@main", "target": "v1", "save": false}),
            nothing,
            later!(|bench, done| {
                let a = bench.mem("shop@main", "a").await;
                agrees(done, a == "1", "rolled back");
                assert!(a == "1" || a == "2", "{a}");
                assert_eq!(commits(bench).await, 1);
            }),
        ),
        scenario(
            "warm rollback",
            "branch_rollback",
            json!({"branch": "shop@main", "target": "warm"}),
            later!(|bench| {
                let params = json!({"branch": "shop@side", "tag": "warm", "warm": 1});
                bench.ok("commit_create", params).await;
            }),
            later!(|bench, done| {
                let a = bench.mem("shop@main", "a").await;
                agrees(done, a == "3", "rolled back");
                assert!(a == "3" || a == "2", "{a}");
            }),
        ),
        scenario(
            "rollback of a stopped branch",
            "branch_rollback",
            json!({"branch": "shop@side", "target": "v1"}),
            later!(|bench| {
                bench.ok("vm_control", json!({"address": "shop@side", "action": "stop"})).await;
            }),
            later!(|bench, done| {
                let runs = state_of(bench, "side").await == "running";
                agrees(done, runs, "side runs");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "branch removal",
            "branch_delete",
            json!({"branch": "shop@side", "force": true}),
            nothing,
            later!(|bench, done| {
                let gone = !names(bench).await.contains(&"side".to_owned());
                agrees(done, gone, "side is gone");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "commit",
            "commit_create",
            json!({"branch": "shop@main", "tag": "v2", "warm": 1}),
            nothing,
            later!(|bench, done| {
                agrees(done, commits(bench).await == 2, "a second commit");
                if commits(bench).await == 2 {
                    bench.ok("branch_create", json!({"from": "shop@v2", "name": "x"})).await;
                    assert_eq!(bench.mem("shop@x", "a").await, "2");
                }
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "disk commit",
            "commit_create",
            json!({"branch": "shop@main", "kind": "disk"}),
            nothing,
            later!(|bench, done| {
                agrees(done, commits(bench).await == 2, "a second commit");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "disk commit of a stopped branch",
            "commit_create",
            json!({"branch": "shop@side", "kind": "disk"}),
            later!(|bench| {
                bench.ok("vm_control", json!({"address": "shop@side", "action": "stop"})).await;
            }),
            later!(|bench, done| {
                agrees(done, commits(bench).await == 2, "a second commit");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "commit removal",
            "commit_delete",
            json!({"commit": "shop@v1", "force": true}),
            nothing,
            later!(|bench, done| {
                agrees(done, commits(bench).await == 0, "no commit");
                main_is_intact(bench).await;
                side_is_intact(bench).await;
            }),
        ),
        scenario(
            "removal of a warm commit",
            "commit_delete",
            json!({"commit": "shop@warm", "force": true}),
            later!(|bench| {
                let params = json!({"branch": "shop@side", "tag": "warm", "warm": 2});
                bench.ok("commit_create", params).await;
            }),
            both,
        ),
        scenario("tag", "tag_set", json!({"commit": "shop@v1", "tag": "good"}), nothing, both),
        scenario("tag removal", "tag_delete", json!({"tag": "v1"}), nothing, both),
        scenario(
            "stop",
            "vm_control",
            json!({"address": "shop@side", "action": "stop"}),
            nothing,
            later!(|bench, done| {
                agrees(done, state_of(bench, "side").await == "stopped", "side is stopped");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "restart",
            "vm_control",
            json!({"address": "shop@side", "action": "restart"}),
            nothing,
            later!(|bench, _done| {
                assert_eq!(state_of(bench, "side").await, "running");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "pause",
            "vm_control",
            json!({"address": "shop@side", "action": "pause"}),
            nothing,
            later!(|bench, done| {
                agrees(done, state_of(bench, "side").await == "paused", "side is paused");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "resume",
            "vm_control",
            json!({"address": "shop@side", "action": "resume"}),
            later!(|bench| {
                bench.ok("vm_control", json!({"address": "shop@side", "action": "pause"})).await;
            }),
            later!(|bench, done| {
                agrees(done, state_of(bench, "side").await == "running", "side runs");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "start",
            "vm_control",
            json!({"address": "shop@side", "action": "start"}),
            later!(|bench| {
                bench.ok("vm_control", json!({"address": "shop@side", "action": "kill"})).await;
            }),
            later!(|bench, done| {
                agrees(done, state_of(bench, "side").await == "running", "side runs");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "machine put to rest",
            "vm_delete",
            json!({"name": "shop"}),
            nothing,
            later!(|bench, done| {
                agrees(done, state_of(bench, "main").await == "stopped", "main is stopped");
                assert_eq!(commits(bench).await, 1);
            }),
        ),
        scenario(
            "machine removal",
            "vm_delete",
            json!({"name": "shop", "remove_overlays": true, "force": true}),
            later!(|bench| {
                let params = json!({"branch": "shop@side", "warm": 1});
                bench.ok("commit_create", params).await;
            }),
            later!(|bench, done| {
                let gone = bench.ok("vm_list", json!({})).await["total"] == 0;
                agrees(done, gone, "shop is gone");
            }),
        ),
        scenario(
            "image build",
            "image_build",
            json!({"packages": ["vim"]}),
            nothing,
            later!(|bench, done| {
                let images = bench.ok("image_list", json!({})).await["total"].clone();
                agrees(done, images == 2, "a second image");
                main_is_intact(bench).await;
            }),
        ),
        scenario(
            "image import",
            "image_import",
            json!({"name": "cloud", "path": "/tmp/cloud.qcow2", "kind": "disk"}),
            nothing,
            both,
        ),
        scenario(
            "image removal",
            "image_remove",
            json!({"image": "spare"}),
            later!(|bench| {
                bench.ok("image_build", json!({"name": "spare", "packages": ["x"]})).await;
                bench.ok("vm_create", json!({"name": "tmp", "image": "spare"})).await;
                let params = json!({"name": "tmp", "remove_overlays": true, "force": true});
                bench.ok("vm_delete", params).await;
            }),
            later!(|bench, done| {
                let images = bench.ok("image_list", json!({})).await["total"].clone();
                agrees(done, images == 1, "one image");
                main_is_intact(bench).await;
            }),
        ),
        scenario("gc", "gc", json!({}), nothing, both),
        scenario(
            "look into a commit",
            "state_diff",
            json!({"from": "shop@v1", "to": "shop@main"}),
            nothing,
            both,
        ),
    ]
}

/// One disturbed run. Returns whether the fault struck.
async fn run(scenario: &Scenario, prepared: &Bench, at: u64, fault: Fault) -> bool {
    let context = format!("{}: {fault:?} at call {at}", scenario.name);
    let mut bench = prepared.fork().await;
    bench.world.faults().at(at, fault);
    let crashed = bench.world.faults().crashed();
    let done = tokio::select! {
        biased;
        () = crashed => None,
        result = async {
            let result = bench.call(scenario.verb, scenario.params.clone()).await;
            bench.engine.idle().await;
            result
        } => Some(result),
    };
    let struck = bench.world.faults().struck();
    bench.world.faults().clear();
    let context = match &struck {
        Some((_, call)) => format!("{context} ({call})"),
        None => context,
    };
    let done = match done {
        Some(Ok(_)) => Some(true),
        Some(Err(error)) => {
            assert_ne!(error.code.as_str(), "stuck", "{context}: {error:?}");
            assert!(struck.is_some(), "{context}: failed by itself: {error:?}");
            Some(false)
        }
        None => {
            bench.restart().await;
            None
        }
    };
    bench.assert_consistent(&context).await;
    println!("{context}: {done:?}");
    (scenario.check)(&bench, done).await;
    bench.assert_consistent(&context).await;
    // The first start may make up for background work that the fault ended.
    bench.restart().await;
    let before = bench.world.fingerprint();
    bench.restart().await;
    let after = bench.world.fingerprint();
    assert!(before == after, "{context}: another start changed something");
    struck.is_some()
}

async fn matrix(base: Bench, scenarios: &[Scenario], share: usize, shares: usize) {
    for scenario in scenarios.iter().skip(share).step_by(shares) {
        let prepared = base.fork().await;
        (scenario.prepare)(&prepared).await;
        prepared.assert_consistent(scenario.name).await;
        let mut runs = 0;
        for fault in Fault::ALL {
            let mut at = 0;
            while run(scenario, &prepared, at, *fault).await {
                at += 1;
                runs += 1;
            }
        }
        assert!(runs >= 4, "{}: the faults struck {runs} times", scenario.name);
    }
}

/// The matrix in parts, so that the cores share it.
macro_rules! parts {
    ($($name:ident = $base:path, $scenarios:path, $share:literal of $shares:literal;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            matrix($base().await, &$scenarios(), $share, $shares).await;
        }
    )*};
}

parts! {
    every_operation_survives_every_fault_part_1 = base, scenarios, 0 of 4;
    every_operation_survives_every_fault_part_2 = base, scenarios, 1 of 4;
    every_operation_survives_every_fault_part_3 = base, scenarios, 2 of 4;
    every_operation_survives_every_fault_part_4 = base, scenarios, 3 of 4;
    every_operation_on_several_nodes_survives_every_fault_part_1 =
        clusters::base, clusters::scenarios, 0 of 2;
    every_operation_on_several_nodes_survives_every_fault_part_2 =
        clusters::base, clusters::scenarios, 1 of 2;
}
