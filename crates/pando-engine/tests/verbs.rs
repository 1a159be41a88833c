//! What each verb does when nothing goes wrong, and what it refuses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Bench, config};
use pando_driver::sim::SimWorld;
use pando_driver::store::{Query, Transaction};
use pando_engine::{Drivers, Engine};
use pando_model::{Operation, OperationId};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_machine_is_committed_branched_and_rolled_back_with_its_memory() {
    let bench = Bench::new().await;
    let created = bench.ok("vm_create", json!({"name": "shop"})).await;
    assert_eq!(created["state"], "running");
    assert_eq!(created["warm"], true);
    assert_eq!(bench.mem("shop", "hostname").await, "shop");

    bench.exec("shop", "set-mem price 1").await;
    let commit = bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    bench.exec("shop", "set-mem price 2").await;
    let made = bench.ok("branch_create", json!({"from": "shop@v1", "count": 3})).await;
    assert_eq!(made["succeeded"], 3);
    for branch in made["branches"].as_array().unwrap() {
        let address = branch["address"].as_str().unwrap();
        assert_eq!(bench.mem(address, "price").await, "1");
        bench.exec(address, "set-mem price 3").await;
    }
    assert_eq!(bench.mem("shop@main", "price").await, "2");

    let back = bench.ok("branch_rollback", json!({"branch": "shop", "target": "v1"})).await;
    assert_eq!(back["rolled_back_to"], commit["commit_id"]);
    assert_eq!(bench.mem("shop@main", "price").await, "1");
    let saved = back["saved_as"].as_str().unwrap();
    bench.ok("branch_create", json!({"from": saved, "name": "saved"})).await;
    assert_eq!(bench.mem("shop@saved", "price").await, "2");
    bench.assert_consistent("journey").await;

    let refused = bench.fails("vm_delete", json!({"name": "shop", "remove_overlays": true})).await;
    assert_eq!(refused.code.as_str(), "in_use");
    bench.ok("vm_delete", json!({"name": "shop", "remove_overlays": true, "force": true})).await;
    assert_eq!(bench.ok("vm_list", json!({})).await["total"], 0);
    bench.assert_consistent("after the end").await;
}

/// A database that was lost, or never there: images say themselves what they are. One that only a
/// crash can have left is not taken up.
#[tokio::test(start_paused = true)]
async fn images_are_taken_up_by_a_new_database_and_by_no_other() {
    let bench = Bench::new().await;
    let image = bench.ok("image_show", json!({"image": "default"})).await;
    let (images, fresh) = (bench.world.connect(), SimWorld::new());
    let home = tempfile::tempdir().unwrap();
    let start = async || {
        let connection = fresh.connect();
        let drivers = Drivers {
            host: connection.host(),
            images: images.images(),
            store: connection.store(),
            journal: connection.journal(),
        };
        let engine = Engine::start(drivers, config(home.path())).await.unwrap();
        let (world, caller) = (fresh.clone(), bench.caller.clone());
        Bench { world, engine, home: tempfile::tempdir().unwrap(), caller }
    };
    let other = start().await;
    assert_eq!(other.ok("image_show", json!({"image": "default"})).await, image);

    bench.ok("image_build", json!({"name": "later", "packages": ["nginx"]})).await;
    let again = start().await;
    assert_eq!(again.ok("image_list", json!({})).await["total"], 1);
}

/// Returns how many transactions a call costs before it is answered.
async fn transactions(bench: &Bench, verb: &str, params: serde_json::Value) -> usize {
    bench.engine.idle().await;
    bench.world.faults().clear();
    bench.ok(verb, params).await;
    let calls = bench.world.faults().calls();
    bench.engine.idle().await;
    calls.iter().filter(|call| *call == "store.write").count()
}

#[tokio::test(start_paused = true)]
async fn the_fast_paths_cost_two_transactions_and_a_command_none() {
    let bench = Bench::with_vm().await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1", "warm": 1})).await;
    let cases = [
        ("exec_run", json!({"address": "shop", "command": "true"}), 0),
        ("vm_create", json!({"name": "other"}), 2),
        ("commit_create", json!({"branch": "shop"}), 2),
        ("branch_create", json!({"from": "shop@v1", "name": "warm"}), 2),
        ("branch_create", json!({"from": "shop@v1", "count": 5, "exact": true}), 2),
        ("tag_set", json!({"commit": "shop@v1", "tag": "v2"}), 1),
        ("vm_control", json!({"address": "shop", "action": "pause"}), 2),
    ];
    for (verb, params, most) in cases {
        let cost = transactions(&bench, verb, params.clone()).await;
        assert!(cost <= most, "{verb} {params} cost {cost} transactions");
    }
}

#[tokio::test(start_paused = true)]
async fn a_warm_commit_serves_branches_from_parked_copies_and_makes_new_ones() {
    let mut bench = Bench::with_vm().await;
    bench.exec("shop", "set-mem a 1").await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1", "warm": 2})).await;
    bench.engine.idle().await;
    assert_eq!(bench.ok("commit_show", json!({"commit": "shop@v1"})).await["warm_ready"], 2);
    assert_eq!(bench.ok("branch_list", json!({})).await["total"], 1, "parked copies are hidden");
    let made = bench.ok("branch_create", json!({"from": "shop@v1", "count": 3})).await;
    let warm: Vec<bool> =
        made["branches"].as_array().unwrap().iter().map(|b| b["warm"] == true).collect();
    assert_eq!(warm, [true, true, false]);
    for n in 1..=3 {
        assert_eq!(bench.mem(&format!("shop@try-{n}"), "a").await, "1");
    }
    bench.engine.idle().await;
    assert_eq!(bench.ok("commit_show", json!({"commit": "shop@v1"})).await["warm_ready"], 2);
    let exact = bench.ok("branch_create", json!({"from": "shop@v1", "exact": true})).await;
    assert_eq!(exact["branches"][0]["warm"], false);
    bench.world.reboot();
    bench.restart().await;
    bench.assert_consistent("after a reboot").await;
    bench.ok("vm_control", json!({"address": "shop@main", "action": "start"})).await;
    bench.restart().await;
    assert_eq!(bench.ok("commit_show", json!({"commit": "shop@v1"})).await["warm_ready"], 2);
    bench.ok("commit_delete", json!({"commit": "shop@v1", "force": true})).await;
    bench.assert_consistent("after the commit").await;
}

#[tokio::test(start_paused = true)]
async fn disk_chains_stay_short_over_many_commits() {
    let bench = Bench::with_vm().await;
    for n in 0..60 {
        bench.exec("shop", &format!("set-disk k{n} v{n}")).await;
        bench.ok("commit_create", json!({"branch": "shop", "tag": format!("t{n}")})).await;
        bench.engine.idle().await;
    }
    let layers: Vec<pando_model::commit::Layer> =
        bench.world.connect().store().list(&Default::default()).await.unwrap();
    let deepest = layers.iter().map(|layer| layer.depth).max().unwrap();
    assert!(deepest <= 30, "{deepest} layers");
    for n in [0, 23, 24, 59] {
        let made = bench.ok("branch_create", json!({"from": format!("shop@t{n}")})).await;
        let address = made["branches"][0]["address"].as_str().unwrap();
        assert_eq!(bench.exec(address, "get-disk k0").await, "v0");
        assert_eq!(bench.exec(address, &format!("get-disk k{n}")).await, format!("v{n}"));
    }
    bench.assert_consistent("after 60 commits").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_commit_stays_while_others_are_made_of_it() {
    let bench = Bench::with_vm().await;
    bench.exec("shop", "set-mem a 1").await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    bench.ok("branch_create", json!({"from": "shop@v1", "name": "child"})).await;
    bench.exec("shop@child", "set-mem b 2").await;
    bench.ok("commit_create", json!({"branch": "shop@child", "tag": "v2"})).await;
    let refused = bench.fails("commit_delete", json!({"commit": "shop@v1"})).await;
    assert_eq!(refused.code.as_str(), "in_use");
    let gone = bench.ok("commit_delete", json!({"commit": "shop@v1", "force": true})).await;
    assert_eq!(gone["kept_for_others"], true);
    assert_eq!(gone["removed_tags"], json!(["v1"]));
    bench.fails("branch_create", json!({"from": "shop@v1"})).await;
    bench.ok("branch_create", json!({"from": "shop@v2", "name": "again"})).await;
    assert_eq!(bench.mem("shop@again", "a").await, "1");
    assert_eq!(bench.mem("shop@again", "b").await, "2");
    let list = bench.ok("commit_list", json!({})).await;
    assert_eq!(list["total"], 1);
    assert_eq!(list["commits"][0]["parents"], json!([]), "the ready state is not of this graph");
    for branch in ["child", "again"] {
        bench.ok("branch_delete", json!({"branch": format!("shop@{branch}"), "force": true})).await;
    }
    bench.ok("vm_control", json!({"address": "shop", "action": "stop"})).await;
    bench.ok("commit_delete", json!({"commit": "shop@v2", "force": true})).await;
    bench.assert_consistent("after all").await;
    let commits: Vec<pando_model::Commit> =
        bench.world.connect().store().list(&Default::default()).await.unwrap();
    assert_eq!(commits.len(), 1, "only the ready state is left: {commits:#?}");
}

/// A running branch writes what changed since its latest commit, even if that is no longer wanted.
#[tokio::test(start_paused = true)]
async fn a_deleted_commit_stays_while_the_next_one_will_be_made_of_it() {
    let bench = Bench::with_vm().await;
    for (value, tag) in [("1", "v1"), ("2", "v2"), ("3", "v3")] {
        bench.exec("shop", &format!("set-mem {tag} {value}")).await;
        bench.ok("commit_create", json!({"branch": "shop", "tag": tag})).await;
        if tag != "v3" {
            let commit = format!("shop@{tag}");
            let gone = bench.ok("commit_delete", json!({"commit": commit, "force": true})).await;
            assert_eq!(gone["kept_for_others"], true, "{tag}");
        }
    }
    bench.ok("branch_create", json!({"from": "shop@v3", "name": "copy"})).await;
    for (value, tag) in [("1", "v1"), ("2", "v2"), ("3", "v3")] {
        assert_eq!(bench.mem("shop@copy", tag).await, value);
    }
    bench.assert_consistent("three commits, one kept").await;
}

#[tokio::test(start_paused = true)]
async fn a_checkout_pauses_what_nobody_else_has_checked_out() {
    let mut bench = Bench::with_vm().await;
    bench.ok("branch_create", json!({"from": "shop", "name": "try"})).await;
    let other = pando_api::Caller::local(1000);
    let own = bench.caller.clone();
    let first = bench.ok("branch_checkout", json!({"branch": "shop@try"})).await;
    assert_eq!(first["previous_branch"], "shop@main");
    assert_eq!(first["previous_paused"], true);
    assert_eq!(bench.ok("vm_status", json!({"address": "shop"})).await["branch"], "try");
    bench.caller = other.clone();
    assert_eq!(bench.ok("vm_status", json!({"address": "shop"})).await["branch"], "main");
    let second = bench.ok("branch_checkout", json!({"branch": "shop@try"})).await;
    assert_eq!(second["previous_paused"], false, "it is paused already");
    bench.caller = own;
    let third = bench.ok("branch_checkout", json!({"branch": "shop@main"})).await;
    assert_eq!(third["previous_paused"], false, "the other principal has it");
    assert_eq!(third["state"], "running");
    bench.caller = other;
    let fourth = bench.ok("branch_checkout", json!({"branch": "shop@main", "keep": true})).await;
    assert_eq!(fourth["previous_paused"], false);
    bench.assert_consistent("checkouts").await;
}

#[tokio::test(start_paused = true)]
async fn a_fanout_shows_a_result_for_every_branch() {
    let bench = Bench::with_vm().await;
    bench.ok("branch_create", json!({"from": "shop", "names": ["a", "b"]})).await;
    bench.ok("vm_control", json!({"address": "shop@b", "action": "pause"})).await;
    bench.exec("shop@a", "set-mem k 1").await;
    let params =
        json!({"branches": ["shop@main", "shop@a", "shop@b", "shop@no"], "command": "get-mem k"});
    let ran = bench.ok("exec_fanout", params).await;
    assert_eq!((ran["succeeded"].clone(), ran["failed"].clone()), (json!(1), json!(3)));
    let results = ran["results"].as_array().unwrap();
    assert_eq!(results[0]["exit_code"], 1);
    assert_eq!(results[1]["stdout"], "1\n");
    assert_eq!(results[2]["error"]["code"], "wrong_state");
    assert_eq!(results[3]["error"]["code"], "not_found");
    let all = bench.ok("exec_fanout", json!({"cluster": "shop", "command": "true"})).await;
    assert_eq!(all["succeeded"], 2);
    let none =
        bench.fails("exec_fanout", json!({"branches": ["shop@no"], "command": "true"})).await;
    assert_eq!(none.code.as_str(), "not_found");
}

#[tokio::test(start_paused = true)]
async fn files_consoles_and_logins_work() {
    let bench = Bench::with_vm().await;
    let pushed = bench
        .ok(
            "file_push",
            json!({"address": "shop", "path": "/etc/motd", "content": "hi", "mode": "600"}),
        )
        .await;
    assert_eq!(pushed["size_bytes"], 2);
    assert_eq!(pushed["mode"], "600");
    let pulled = bench.ok("file_pull", json!({"address": "shop", "path": "/etc/motd"})).await;
    assert_eq!(pulled["content"], "hi");
    let short = bench
        .ok("file_pull", json!({"address": "shop", "path": "/etc/motd", "max_bytes": 1}))
        .await;
    assert_eq!((&short["content"], &short["truncated"]), (&json!("h"), &json!(true)));
    let params = json!({"address": "shop", "path": "/b", "content_base64": "aGVsbG8="});
    bench.ok("file_push", params).await;
    let pulled = bench.ok("file_pull", json!({"address": "shop", "path": "/b"})).await;
    assert_eq!(pulled["content"], "hello");
    let wrong = json!({"address": "shop", "path": "/b", "content_base64": "!!"});
    assert_eq!(bench.fails("file_push", wrong).await.subject.unwrap(), "content_base64");
    let missing = bench.fails("file_pull", json!({"address": "shop", "path": "/none"})).await;
    assert_eq!(missing.code.as_str(), "guest_failed");

    let info = bench.ok("connect_info", json!({})).await;
    let key = info["key_path"].as_str().unwrap();
    assert!(std::fs::read_to_string(key).unwrap().contains("OPENSSH PRIVATE KEY"));
    let line = info["known_hosts_line"].as_str().unwrap();
    assert!(line.starts_with("[127.0.0.1]:20022 ssh-ed25519 "), "{line}");
    let console = bench.ok("console_read", json!({"tail_bytes": 7})).await;
    assert_eq!(console["text"], "login: ");
    let rest = json!({"offset": console["next_offset"]});
    assert_eq!(bench.ok("console_read", rest).await["text"], "");
}

#[tokio::test(start_paused = true)]
async fn a_new_machine_is_checked_before_anything_happens() {
    let bench = Bench::with_vm().await;
    let cases = [
        (json!({"name": "shop"}), "already_exists", "name"),
        (json!({"name": "b", "image": "nope"}), "not_found", "nope"),
        (json!({"name": "b", "disk_gib": 1}), "invalid_parameter", "disk"),
        (json!({"name": "b", "user_data": "#cloud-config\n"}), "invalid_parameter", "cloud-init"),
        (json!({"name": "b", "user_data": "rm -rf /"}), "invalid_parameter", "script"),
    ];
    for (params, code, word) in cases {
        let error = bench.fails("vm_create", params.clone()).await;
        assert_eq!(error.code.as_str(), code, "{params}");
        let said = format!("{} {:?}", error.message, error.hint);
        assert!(said.contains(word), "{params}: {said}");
    }
    let early = bench.ok("vm_create", json!({"name": "b", "wait": false})).await;
    assert_eq!(early["name"], "b");
    let id = early["operation_id"].as_str().unwrap();
    let view = bench.ok("operation_wait", json!({"id": id})).await;
    assert_eq!(view["result"]["branch_id"], early["branch_id"]);
    let script = json!({"name": "c", "user_data": "#!/bin/sh\ntrue", "env": {"A": "1"}});
    let made = bench.ok("vm_create", script).await;
    assert!(made["user_data"]["exit_code"].is_i64(), "{made}");
    bench.assert_consistent("new machines").await;
}

#[tokio::test(start_paused = true)]
async fn images_are_named_replaced_and_removed() {
    let bench = Bench::with_vm().await;
    let first = bench.ok("image_show", json!({"image": "default"})).await;
    let again = bench.ok("image_build", json!({})).await;
    assert_eq!(again["image_id"], first["image_id"], "the same content is the same image");
    let second = bench.ok("image_build", json!({"packages": ["vim"]})).await;
    assert_ne!(second["image_id"], first["image_id"]);
    let list = bench.ok("image_list", json!({})).await;
    assert_eq!(list["total"], 2);
    let old = bench.ok("image_show", json!({"image": first["image_id"]})).await;
    assert!(old["name"].as_str().unwrap().starts_with("default-"), "{old}");
    assert_eq!(old["machines"], 1);
    assert_eq!(bench.ok("vm_status", json!({})).await["image"], old["name"]);
    let used = bench.fails("image_remove", json!({"image": old["name"]})).await;
    assert_eq!(used.code.as_str(), "in_use");
    bench.ok("image_remove", json!({"image": "default"})).await;
    let none = bench.fails("vm_create", json!({"name": "b"})).await;
    assert_eq!(none.code.as_str(), "not_found");
    bench.assert_consistent("images").await;
}

#[tokio::test(start_paused = true)]
async fn what_another_qemu_saved_is_not_restored() {
    let bench = Bench::with_vm().await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    bench.world.set_qemu_version("11.0.0");
    let error = bench.fails("branch_create", json!({"from": "shop@v1"})).await;
    assert_eq!(error.code.as_str(), "incompatible");
    assert!(error.message.contains("10.0.2"), "{}", error.message);
    let shown = bench.ok("commit_show", json!({"commit": "shop@v1"})).await;
    assert_eq!(shown["restorable"], false);
    let made = bench.ok("vm_create", json!({"name": "new"})).await;
    assert_eq!(made["warm"], true, "from a ready state of this version");
    let image = bench.ok("image_show", json!({"image": "default"})).await;
    assert_eq!(image["ready"].as_array().unwrap().len(), 2);
    bench.assert_consistent("two versions").await;
}

#[tokio::test(start_paused = true)]
async fn damage_is_found_and_named() {
    let bench = Bench::with_vm().await;
    let made = bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    let verified = bench.ok("commit_verify", json!({"commit": "shop@v1"})).await;
    assert_eq!(verified["commits_checked"], 2, "with the ready state below it");
    bench.world.damage_commit(&made["commit_id"].as_str().unwrap().parse().unwrap());
    let error = bench.fails("commit_verify", json!({"commit": "shop@v1"})).await;
    assert_eq!(error.code.as_str(), "corrupt");
}

#[tokio::test(start_paused = true)]
async fn gc_forgets_operations_that_ended_long_ago_and_no_others() {
    const OLD: usize = 250;
    let bench = Bench::new().await;
    let store = bench.world.connect().store();
    let recent: Vec<Operation> = store.list(&Query::all()).await.unwrap();
    for number in 0..OLD {
        let created_at = jiff::Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
        let old = Operation { id: OperationId::random(), created_at, ..recent[0].clone() };
        store.write(Transaction::new().put(&old)).await.unwrap();
    }
    assert_eq!(bench.ok("gc", json!({})).await["count"], OLD);
    let left: Vec<Operation> = store.list(&Query::all()).await.unwrap();
    let left: Vec<_> = left.into_iter().map(|operation| operation.id).collect();
    assert!(recent.iter().all(|operation| left.contains(&operation.id)));
    assert_eq!(left.len(), recent.len() + 1, "and the gc itself");
}

#[tokio::test(start_paused = true)]
async fn gc_removes_what_nobody_names_and_says_so_first() {
    let bench = Bench::with_vm().await;
    let image = bench.ok("image_show", json!({"image": "default"})).await;
    bench.world.litter(&image["image_id"].as_str().unwrap().parse().unwrap());
    let dry = bench.ok("gc", json!({"dry_run": true})).await;
    assert_eq!(dry["count"], 2, "{dry}");
    let done = bench.ok("gc", json!({})).await;
    assert_eq!(done["removed"], dry["removed"]);
    assert_eq!(bench.ok("gc", json!({})).await["count"], 0);
    bench.assert_consistent("after gc").await;
}

#[tokio::test(start_paused = true)]
async fn addresses_are_resolved_or_explained() {
    let bench = Bench::new().await;
    let error = bench.fails("vm_status", json!({})).await;
    assert!(error.hint.unwrap().contains("pando vm create"));
    bench.ok("vm_create", json!({"name": "shop"})).await;
    bench.ok("vm_create", json!({"name": "mill"})).await;
    assert_eq!(bench.fails("vm_status", json!({})).await.code.as_str(), "ambiguous");
    let error = bench.fails("vm_status", json!({"address": "mell"})).await;
    assert!(error.hint.unwrap().contains("mill"));
    let error = bench.fails("vm_status", json!({"address": "shop@nope"})).await;
    assert!(error.hint.unwrap().contains("main"));
    let error = bench.fails("vm_status", json!({"address": "shop/db"})).await;
    assert!(error.hint.unwrap().contains("shop"));
    let status = bench.ok("vm_status", json!({"address": "shop", "verbose": true})).await;
    assert_eq!(status["health"], "healthy");
    assert_eq!(status["guest"]["hostname"], "shop");
    for id in ["branch_id", "vm_id"] {
        let again = bench.ok("vm_status", json!({"address": status[id]})).await;
        assert_eq!(again["address"], "shop@main/shop", "{id}");
    }
    let list = bench.ok("vm_list", json!({"limit": 1})).await;
    let next = json!({"limit": 1, "cursor": list["next_cursor"]});
    let rest = bench.ok("vm_list", next).await;
    assert_eq!(list["vms"][0]["name"], "mill");
    assert_eq!(rest["vms"][0]["name"], "shop");
    let system = bench.ok("system_status", json!({})).await;
    assert_eq!(system["counts"]["running"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_detached_command_that_the_daemon_did_not_survive_is_stuck_until_it_was_seen() {
    let mut bench = Bench::with_vm().await;
    let params = json!({"address": "shop", "command": "sleep-forever", "detach": true});
    let id = bench.ok("exec_run", params).await["operation_id"].as_str().unwrap().to_owned();
    bench.world.faults().crash();
    bench.restart().await;
    let view = bench.ok("operation_get", json!({"id": id})).await;
    assert_eq!(view["status"], "stuck", "{view}");
    assert!(view["error"]["remedy"].as_str().unwrap().contains(&id));
    let view = bench.ok("operation_cancel", json!({"id": id})).await;
    assert_eq!(view["status"], "failed", "{view}");
    bench.assert_consistent("seen").await;
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_may_hold_unsaved_changes_is_not_deleted_by_the_way() {
    let bench = Bench::with_vm().await;
    bench.ok("branch_create", json!({"from": "shop", "name": "try"})).await;
    let remove = json!({"branch": "shop@try"});
    for (action, word) in [("pause", "memory"), ("kill", "no commit has")] {
        let error = bench.fails("branch_delete", remove.clone()).await;
        assert_eq!(error.code.as_str(), "in_use");
        bench.ok("vm_control", json!({"address": "shop@try", "action": action})).await;
        let error = bench.fails("branch_delete", remove.clone()).await;
        assert!(error.message.contains(word), "{}", error.message);
    }
    bench.ok("commit_create", json!({"branch": "shop@try", "kind": "disk"})).await;
    let gone = bench.ok("branch_delete", remove).await;
    assert_eq!(gone["kept_commits"], 1);
    bench.assert_consistent("gone").await;
}

#[tokio::test(start_paused = true)]
async fn an_uplink_is_for_those_that_ask_and_for_their_branches() {
    let bench = Bench::with_vm().await;
    bench.ok("vm_create", json!({"name": "web", "uplink": "nat"})).await;
    assert_eq!(bench.mem("web", "name-server").await, "10.0.2.3");
    assert_eq!(bench.mem("web", "uplinks").await, "1");
    bench.ok("branch_create", json!({"from": "web", "name": "try"})).await;
    assert_eq!(bench.mem("web@try", "uplinks").await, "2", "an uplink of its own");
    for (address, uplink) in [("web@try", "nat"), ("shop", "none")] {
        let status = bench.ok("vm_status", json!({"address": address})).await;
        assert_eq!(status["network"]["uplink"], uplink, "{status}");
    }
    assert_eq!(bench.mem("shop", "uplinks").await, "");
    bench.assert_consistent("two worlds").await;
}
