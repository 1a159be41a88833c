//! Clusters of several nodes on a simulated host: what each verb does when nothing goes wrong, and
//! what it refuses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
#[path = "clusters/starts.rs"]
mod starts;

use common::{Bench, DUO};
use pando_driver::store::Query;
use pando_model::commit::Layer;
use pando_model::{Branch, ByteCount, ErrorCode, KernelNetwork, Lack};
use serde_json::{Value, json};

fn node<'a>(status: &'a Value, name: &str) -> &'a Value {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("{name}: {status}"))
}

async fn on(bench: &Bench, cluster: &str, name: &str, command: &str) -> String {
    let params = json!({"cluster_name": cluster, "node_name": name, "command": command});
    let ran = bench.ok("node_exec", params).await;
    assert_eq!(ran["exit_code"], 0, "{cluster}/{name}: {command}: {ran}");
    ran["stdout"].as_str().unwrap().trim().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_parked_copy_of_a_cluster_counts_for_each_of_its_nodes() {
    let mut bench = Bench::with_cluster().await;
    let ready = async |bench: &Bench, tag: &str| {
        let shown = bench.ok("commit_show", json!({"commit": format!("duo@{tag}")})).await;
        shown["warm_ready"].clone()
    };
    // One more machine has room, and a copy is two.
    bench.world.set_free(ByteCount::from_mib(340), ByteCount::from_gib(8));
    bench.ok("commit_create", json!({"branch": "duo", "tag": "v1", "warm": 2})).await;
    bench.engine.idle().await;
    assert_eq!(ready(&bench, "v1").await, 0);

    bench.world.set_free(ByteCount::from_gib(8), ByteCount::from_gib(8));
    bench.park_at_most(3).await;
    bench.ok("commit_create", json!({"branch": "duo", "tag": "v2", "warm": 2})).await;
    bench.engine.idle().await;
    let both = [ready(&bench, "v1").await, ready(&bench, "v2").await];
    assert_eq!(both, [json!(1), json!(0)], "one copy is two machines, and a second would be four");
}

#[tokio::test(start_paused = true)]
async fn the_canonical_workflow_leaves_nothing() {
    let bench = Bench::new().await;
    let defined = bench.ok("cluster_define", json!({"topology": DUO})).await;
    assert_eq!((defined["created"].clone(), defined["fresh"].clone()), (true.into(), true.into()));
    assert_eq!(node(&defined, "db")["domain_state"], "shut off");
    assert_eq!(node(&defined, "db")["role"], "database");

    let started = bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    assert_eq!(started["warm"], true);
    assert_eq!(started["started"], json!(["db", "web"]));
    assert_eq!(started["set_up"], 4, "{started}");
    for name in ["db", "web"] {
        let shown = node(&started, name);
        assert_eq!(shown["domain_state"], "running");
        assert_eq!(shown["ssh_reachable"], true);
        assert_eq!(on(&bench, "duo", name, "get-mem hostname").await, name);
    }
    let ips: Vec<&Value> = ["db", "web"].map(|name| &node(&started, name)["ip"]).into();
    assert!(ips.iter().all(|ip| ip.as_str().unwrap().starts_with("10.7.0.")) && ips[0] != ips[1]);
    assert_eq!(on(&bench, "duo", "db", "get-disk seeded").await, "yes");
    assert_eq!(on(&bench, "duo", "db", "get-disk /etc/motd").await, "hello");
    let unit = on(&bench, "duo", "db", "get-disk /etc/systemd/system/store.service").await;
    assert!(unit.contains("ExecStart="), "{unit}");

    let handle = bench.ok("cluster_handle", json!({"cluster_name": "duo"})).await;
    assert_eq!(handle["artifact_path"], "/opt/vmcluster/artifacts");
    assert!(handle["kernel_version"].as_str().is_some_and(|version| !version.is_empty()));
    assert_eq!(node(&handle, "web")["ssh_user"], "ops");
    let info = bench.ok("connect_info", json!({"address": "duo/web"})).await;
    assert_eq!(info["user"], "ops");
    assert!(info["command"].as_str().unwrap().ends_with(" ops@127.0.0.1"), "{info}");
    let login = on(&bench, "duo", "web", "get-disk login.ops").await;
    let public = format!("{}.pub", info["key_path"].as_str().unwrap());
    assert_eq!(login, std::fs::read_to_string(public).unwrap().trim());
    let key = node(&handle, "web")["ssh_key_path"].as_str().unwrap();
    assert!(std::fs::metadata(key).is_ok(), "{key}");
    let status = bench.ok("cluster_status", json!({"cluster_name": "duo@main"})).await;
    assert_eq!(status["network_active"], true);
    assert_eq!(node(&status, "web")["answers"], true);

    let all = bench.ok("node_exec_all", json!({"cluster_name": "duo", "command": "true"})).await;
    assert_eq!(all["all_succeeded"], true);
    assert_eq!(all["results"].as_object().unwrap().len(), 2);

    let stopped = bench.ok("cluster_stop", json!({"cluster_name": "duo"})).await;
    assert_eq!(node(&stopped, "db")["domain_state"], "shut off");
    let status = bench.ok("cluster_status", json!({"cluster_name": "duo"})).await;
    assert_eq!(node(&status, "db")["domain_state"], "shut off");
    let again = bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    assert_eq!((again["warm"].clone(), again["set_up"].clone()), (false.into(), 0.into()));
    assert_eq!(on(&bench, "duo", "db", "get-disk seeded").await, "yes");

    let params = json!({"cluster_name": "duo", "remove_overlays": true});
    let destroyed = bench.ok("cluster_destroy", params).await;
    assert_eq!(destroyed["removed_overlays"], true);
    assert_eq!(bench.ok("cluster_list", json!({})).await["total"], 0);
    assert_eq!(std::fs::read_dir(bench.home.path().join("keys")).unwrap().count(), 0);
    bench.assert_consistent("after the end").await;
}

#[tokio::test(start_paused = true)]
async fn defining_again_says_what_differs_and_changes_nothing() {
    let bench = Bench::new().await;
    let first = bench.ok("cluster_define", json!({"topology": DUO})).await;
    let same = format!("# with a comment\n{DUO}");
    let again = bench.ok("cluster_define", json!({"topology": same})).await;
    assert_eq!((again["created"].clone(), again["drift"].clone()), (false.into(), json!([])));
    let other = DUO.replace("role: database", "role: store");
    let drifted = bench.ok("cluster_define", json!({"topology": other})).await;
    assert_eq!(drifted["drift"].as_array().unwrap().len(), 1, "{drifted}");
    assert_eq!(drifted["drift"][0]["defined"], "database");
    assert_eq!(drifted["drift"][0]["file"], "store");
    assert_eq!(drifted["topology_digest"], first["topology_digest"]);
    let row = bench.ok("cluster_status", json!({"cluster_name": "duo"})).await;
    assert_eq!(node(&row, "db")["role"], "database");
    let list = bench.ok("cluster_list", json!({})).await;
    assert_eq!(
        (list["total"].clone(), list["clusters"][0]["branches"].clone()),
        (1.into(), 1.into())
    );
    bench.assert_consistent("defined three times").await;
}

#[tokio::test(start_paused = true)]
async fn a_topology_is_read_from_the_topology_directory_and_from_nowhere_else() {
    let bench = Bench::new().await;
    let directory = bench.home.path().join("topologies");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("two.yaml"), DUO).unwrap();
    std::fs::write(bench.home.path().join("secret.yaml"), DUO).unwrap();
    for name in ["../secret", "/etc/passwd", "nothing"] {
        let error = bench.fails("cluster_define", json!({"topology_name": name})).await;
        assert!(
            matches!(error.code.as_str(), "invalid_parameter" | "not_found" | "topology_invalid"),
            "{name}: {error:?}"
        );
        assert!(error.hint.is_some(), "{name}");
    }
    let defined = bench.ok("cluster_define", json!({"topology_name": "two"})).await;
    assert_eq!(defined["cluster_name"], "duo");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_before_anything_happens() {
    let bench = Bench::new().await;
    let before = bench.world.fingerprint();
    let thousand: String = (0..1000).map(|n| format!("  - {{name: n{n}}}\n")).collect();
    let wrong = [
        ("nodes: []".to_owned(), "topology_invalid"),
        (
            format!(
                "name: big\nimage: default\nnetwork: {{name: lan, subnet: 10.0.0.0/8}}\nnodes:\n{thousand}"
            ),
            "topology_invalid",
        ),
        (DUO.replace("name: web", "name: db"), "topology_invalid"),
        (DUO.replace("256 MiB", "-1"), "topology_invalid"),
        (DUO.replace("image: default", "image: nothing"), "not_found"),
        (DUO.replace("image: default", "base_image: /srv/disks/other.qcow2"), "not_found"),
        (DUO.replace("#!/bin/sh", "#cloud-config"), "invalid_parameter"),
    ];
    for (text, code) in wrong {
        let error = bench.fails("cluster_define", json!({"topology": text})).await;
        assert_eq!(error.code.as_str(), code, "{error:?}");
        // What is wrong with a text is said with its fix, in the message.
        assert!(error.hint.is_some() || code == "topology_invalid", "{error:?}");
    }
    assert_eq!(bench.world.fingerprint(), before);
    bench.ok("vm_create", json!({"name": "duo"})).await;
    let error = bench.fails("cluster_define", json!({"topology": DUO})).await;
    assert_eq!(error.code.as_str(), "already_exists");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_on_one_node_starts_none() {
    let bench = Bench::new().await;
    let broken = DUO.replace("set-disk seeded yes", "false");
    bench.ok("cluster_define", json!({"topology": broken})).await;
    let error = bench.fails("cluster_start", json!({"cluster_name": "duo"})).await;
    assert!(error.message.contains("`false`") && error.message.contains("db"), "{error:?}");
    let status = bench.ok("cluster_status", json!({"cluster_name": "duo"})).await;
    assert_eq!((status["fresh"].clone(), status["state"].clone()), (true.into(), "stopped".into()));
    bench.assert_consistent("after a start that failed").await;
    // A command that cannot be run would make the next start fail in the same way; nothing of the
    // first is left in its disks.
    let history = bench.ok("journal_list", json!({"address": "duo@main/db"})).await;
    let acts = history["commands"].as_array().unwrap();
    assert!(acts.iter().any(|act| act["command"] == "false"), "{history}");
}

#[tokio::test(start_paused = true)]
async fn all_nodes_are_committed_branched_and_rolled_back_together() {
    let bench = Bench::with_cluster().await;
    for name in ["db", "web"] {
        on(&bench, "duo", name, &format!("set-mem who {name}")).await;
    }
    bench.ok("commit_create", json!({"branch": "duo", "tag": "v1"})).await;
    on(&bench, "duo", "db", "set-mem who changed").await;
    let made = bench.ok("branch_create", json!({"from": "duo@v1", "count": 3})).await;
    assert_eq!(made["succeeded"], 3);
    for branch in made["branches"].as_array().unwrap() {
        let address = branch["address"].as_str().unwrap();
        for name in ["db", "web"] {
            assert_eq!(on(&bench, address, name, "get-mem who").await, name);
            assert_eq!(on(&bench, address, name, "get-mem hostname").await, name);
        }
    }
    let everywhere = bench.ok("exec_fanout", json!({"cluster": "duo", "command": "true"})).await;
    assert_eq!(everywhere["succeeded"], 8, "{everywhere}");

    let error = bench.fails("exec_run", json!({"address": "duo", "command": "true"})).await;
    assert_eq!(error.code.as_str(), "ambiguous");
    assert!(error.hint.unwrap().contains("db, web"));
    let diff = bench.ok("state_diff", json!({"from": "duo@v1/db", "to": "duo@main"})).await;
    assert!(diff["equal"].is_boolean(), "{diff}");

    bench.ok("branch_rollback", json!({"branch": "duo", "target": "v1"})).await;
    assert_eq!(on(&bench, "duo", "db", "get-mem who").await, "db");
    bench.ok("branch_checkout", json!({"branch": "duo@try-1"})).await;
    let status = bench.ok("cluster_status", json!({"cluster_name": "duo"})).await;
    assert_eq!(status["address"], "duo@try-1");
    assert_eq!(bench.ok("vm_list", json!({})).await["total"], 2);
    bench.assert_consistent("branched").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_crashes_alone_and_comes_back_with_its_disk() {
    let bench = Bench::with_cluster().await;
    on(&bench, "duo", "db", "set-disk kept yes").await;
    on(&bench, "duo", "db", "set-mem lost yes").await;
    on(&bench, "duo", "web", "set-mem kept yes").await;
    let down = json!({"cluster_name": "duo", "node": "db", "restart_after": false});
    let crashed = bench.ok("node_crash", down).await;
    assert_eq!(crashed["domain_state"], "crashed");
    assert_eq!(on(&bench, "duo", "web", "get-mem kept").await, "yes");
    let all = json!({"cluster_name": "duo", "command": "true"});
    let error = bench.fails("node_exec_all", all.clone()).await;
    assert_eq!(error.code.as_str(), "wrong_state");
    let some = json!({"cluster_name": "duo", "command": "true", "require_all": false});
    let ran = bench.ok("node_exec_all", some).await;
    assert_eq!(ran["all_succeeded"], false);
    assert!(ran["failed_nodes"]["db"].is_string(), "{ran}");

    let started = bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    assert_eq!(started["started"], json!(["db"]));
    assert_eq!(on(&bench, "duo", "db", "get-disk kept").await, "yes");
    let back = bench.ok("node_crash", json!({"cluster_name": "duo", "node": "db"})).await;
    assert_eq!(
        (back["domain_state"].clone(), back["restarted"].clone()),
        ("running".into(), true.into())
    );
    assert_eq!(back["ssh_reachable"], true);
    let lost = json!({"cluster_name": "duo", "node_name": "db", "command": "get-mem lost"});
    assert_eq!(bench.ok("node_exec", lost).await["exit_code"], 1);
    assert_eq!(on(&bench, "duo", "web", "get-mem kept").await, "yes");
    bench.ok("node_exec_all", all).await;
    bench.assert_consistent("after crashes").await;
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_tagged_commits_of_all_nodes() {
    let bench = Bench::with_cluster().await;
    on(&bench, "duo", "db", "set-disk d 1").await;
    on(&bench, "duo", "web", "set-mem m 1").await;
    let disk = json!({"cluster_name": "duo", "snapshot_name": "first"});
    let first = bench.ok("snapshot_create", disk.clone()).await;
    assert_eq!(first["kind"], "disk");
    let per_node = first["per_node"].as_array().unwrap();
    assert!(per_node.iter().all(|node| node["size_bytes"].as_u64() > Some(0)), "{first}");
    assert_eq!(bench.fails("snapshot_create", disk).await.code.as_str(), "already_exists");
    let full = json!({"cluster_name": "duo", "snapshot_name": "all", "include_memory": true});
    bench.ok("snapshot_create", full).await;
    on(&bench, "duo", "db", "set-disk d 2").await;
    on(&bench, "duo", "web", "set-mem m 2").await;
    let list = bench.ok("snapshot_list", json!({"cluster_name": "duo"})).await;
    assert_eq!(list["total"], 2);
    assert_eq!(list["snapshots"][0]["snapshot_name"], "all");

    let standing = json!({"cluster_name": "duo", "snapshot_name": "all"});
    let error = bench.fails("snapshot_delete", standing.clone()).await;
    assert_eq!(error.code.as_str(), "in_use");
    let back = bench.ok("snapshot_revert", standing.clone()).await;
    assert_eq!(back["state"], "running");
    assert_eq!(on(&bench, "duo", "web", "get-mem m").await, "1");
    assert_eq!(on(&bench, "duo", "db", "get-disk d").await, "1");

    // By the topology's own name, and stopped.
    let rest = json!({"cluster_name": "duo", "snapshot_name": "clean", "restart_after": false});
    let reverted = bench.ok("snapshot_revert", rest).await;
    assert_eq!(
        (reverted["state"].clone(), reverted["reverted_to"].clone()),
        ("stopped".into(), first["commit_id"].clone())
    );
    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    assert_eq!(on(&bench, "duo", "db", "get-disk d").await, "1");
    let deleted = bench.ok("snapshot_delete", standing).await;
    assert_eq!(deleted["deleted_nodes"], json!(["db", "web"]));
    assert_eq!(bench.ok("snapshot_list", json!({"cluster_name": "duo"})).await["total"], 1);
    bench.assert_consistent("after snapshots").await;
}

#[tokio::test(start_paused = true)]
async fn a_revert_whose_nodes_do_not_all_answer_changes_nothing() {
    let bench = Bench::with_cluster().await;
    on(&bench, "duo", "web", "set-mem no-ssh yes").await;
    let full = json!({"cluster_name": "duo", "snapshot_name": "mute", "include_memory": true});
    bench.ok("snapshot_create", full).await;
    on(&bench, "duo", "web", "del-mem no-ssh").await;
    on(&bench, "duo", "web", "set-mem here yes").await;
    let error = bench
        .fails("snapshot_revert", json!({"cluster_name": "duo", "snapshot_name": "mute"}))
        .await;
    assert_eq!(error.code.as_str(), "deadline_exceeded", "{error:?}");
    assert!(error.hint.unwrap().contains("wait_for_ssh"));
    assert_eq!(on(&bench, "duo", "web", "get-mem here").await, "yes");
    bench.assert_consistent("after a revert that failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_never_started_has_nothing_to_commit_or_boot() {
    let bench = Bench::new().await;
    bench.ok("cluster_define", json!({"topology": DUO})).await;
    for (verb, params) in [
        ("commit_create", json!({"branch": "duo", "kind": "disk"})),
        ("branch_create", json!({"from": "duo"})),
        ("vm_control", json!({"address": "duo", "action": "start"})),
        ("branch_checkout", json!({"branch": "duo@main"})),
        ("node_exec", json!({"cluster_name": "duo", "node_name": "db", "command": "true"})),
    ] {
        let error = bench.fails(verb, params).await;
        assert_eq!(error.code.as_str(), "wrong_state", "{verb}: {error:?}");
        assert!(error.hint.unwrap_or_default().contains("start"), "{verb}");
    }
    bench.assert_consistent("refused").await;
}

/// Whatever is done to a root disk is done to the disks beside it.
#[tokio::test(start_paused = true)]
async fn extra_disks_are_committed_branched_and_shortened_as_the_root_disk_is() {
    let bench = Bench::with_cluster().await;
    bench.exec("duo/db", "set-extra disk2 first yes").await;
    for turn in 0..=pando_model::limits::MAX_CHAIN_LAYERS {
        bench.exec("duo/db", &format!("set-extra data turn {turn}")).await;
        let tag = format!("t{turn}");
        bench.ok("commit_create", json!({"branch": "duo", "tag": tag})).await;
    }
    bench.engine.idle().await;
    let store = bench.world.connect().store();
    let layers: Vec<Layer> = store.list(&Query::all()).await.unwrap();
    let branches: Vec<Branch> = store.list(&Query::all()).await.unwrap();
    let main = branches.iter().find(|branch| branch.name.as_str() == "main").unwrap();
    let db = main.nodes.iter().find(|node| node.name.as_str() == "db").unwrap();
    assert_eq!(db.layers.disks().count(), 3);
    for layer in db.layers.iter() {
        let depth = layers.iter().find(|other| other.id == *layer).unwrap().depth;
        // How much shorter depends on the commit at which it was noticed.
        assert!(depth < pando_model::limits::MAX_CHAIN_LAYERS, "{layer} has {depth} layers");
    }
    let last = pando_model::limits::MAX_CHAIN_LAYERS.to_string();
    assert_eq!(bench.exec("duo/db", "get-extra data turn").await, last);
    assert_eq!(bench.exec("duo/db", "get-extra disk2 first").await, "yes");
    bench.ok("branch_create", json!({"from": "duo@t3", "name": "old"})).await;
    assert_eq!(bench.exec("duo@old/db", "get-extra data turn").await, "3");
    assert_eq!(bench.exec("duo@old/db", "get-extra disk2 first").await, "yes");
    bench.ok("branch_rollback", json!({"branch": "duo", "target": "t5", "save": false})).await;
    assert_eq!(bench.exec("duo/db", "get-extra data turn").await, "5");
    bench.assert_consistent("extra disks").await;
}

/// One program listens on a port: the branch that was defined, and no second cluster.
#[tokio::test(start_paused = true)]
async fn fixed_ports_are_the_first_branchs_and_are_refused_where_they_are_taken() {
    let bench = Bench::with_cluster().await;
    let ports = async |branch: &str| {
        let handle = bench.ok("cluster_handle", json!({"cluster_name": branch})).await;
        node(&handle, "db")["forwards"].clone()
    };
    assert_eq!(ports("duo").await, json!({"80": 18080, "5432": 25432}));
    bench.ok("branch_create", json!({"from": "duo", "name": "side"})).await;
    assert_eq!(ports("duo@side").await, json!({"80": 20080, "5432": 25432}));
    bench.ok("commit_create", json!({"branch": "duo", "tag": "t"})).await;
    bench.ok("branch_rollback", json!({"branch": "duo", "target": "t", "save": false})).await;
    assert_eq!(ports("duo").await, json!({"80": 18080, "5432": 25432}));

    bench.ok("vm_control", json!({"address": "duo", "action": "restart"})).await;
    assert_eq!(bench.world.ports(), [18080], "listened on before anybody asks");

    let other = DUO.replace("name: duo", "name: other");
    let defined = bench.ok("cluster_define", json!({"topology": other})).await;
    assert!(defined["notes"].to_string().contains("18080"), "{defined}");
    bench.engine.idle().await;
    let before = bench.world.fingerprint();
    let error = bench.fails("cluster_start", json!({"cluster_name": "other"})).await;
    assert_eq!(error.code.as_str(), "in_use", "{error:?}");
    assert!(error.hint.unwrap().contains("pando cluster stop duo"));
    assert_eq!(bench.world.fingerprint(), before);

    bench.ok("cluster_stop", json!({"cluster_name": "duo", "mode": "destroy"})).await;
    bench.ok("cluster_start", json!({"cluster_name": "other"})).await;
    assert_eq!(ports("other").await["80"], 18080);
    bench.ok("cluster_stop", json!({"cluster_name": "other", "mode": "destroy"})).await;
    bench.world.take_port(18080);
    let error = bench.fails("cluster_start", json!({"cluster_name": "duo"})).await;
    assert!(error.hint.unwrap().contains("host_port"), "somebody else's");
    bench.assert_consistent("fixed ports").await;
}

/// Two nodes whose frames the kernel carries.
const BRIDGED: &str = "name: duo\nimage: default\nnetwork: {mode: kernel, subnet: 10.7.0.0/24}\n\
                       nodes: [{name: db, memory: 128M}, {name: web, memory: 128M}]\n";

#[tokio::test(start_paused = true)]
async fn a_cluster_that_asks_for_the_kernels_network_is_refused_where_there_is_none() {
    let bench = Bench::new().await;
    let lack = Lack { what: "`nft` is missing".into(), remedy: "apt-get install nftables".into() };
    let none = KernelNetwork { lacks: vec![lack], ..KernelNetwork::default() };
    bench.world.set_kernel_network(none.clone());
    let refused = |error: pando_api::ApiError| {
        assert_eq!(error.code, ErrorCode::ToolMissing);
        assert!(error.message.contains("`nft` is missing"), "{error:?}");
        assert!(error.hint.unwrap().contains("apt-get install nftables"));
    };
    let before = bench.world.fingerprint();
    refused(bench.fails("cluster_define", json!({"topology": BRIDGED})).await);
    assert_eq!(bench.world.fingerprint(), before);
    bench.world.set_kernel_network(KernelNetwork::default());
    bench.ok("cluster_define", json!({"topology": BRIDGED})).await;
    bench.world.set_kernel_network(none);
    refused(bench.fails("cluster_start", json!({"cluster_name": "duo"})).await);
    bench.world.set_kernel_network(KernelNetwork::default());
    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
}

/// To revert is what one does when something is down; what is lost with it is said.
#[tokio::test(start_paused = true)]
async fn a_revert_saves_the_disks_of_a_branch_with_a_node_down() {
    let bench = Bench::with_cluster().await;
    bench.ok("commit_create", json!({"branch": "duo", "tag": "v1"})).await;
    for name in ["db", "web"] {
        on(&bench, "duo", name, &format!("set-disk late {name}")).await;
    }
    let crash = json!({"cluster_name": "duo", "node": "db", "restart_after": false});
    bench.ok("node_crash", crash.clone()).await;
    let error = bench.fails("commit_create", json!({"branch": "duo"})).await;
    assert_eq!(error.code, ErrorCode::WrongState, "{error:?}");
    assert!(error.hint.unwrap().contains("pando cluster start duo"));

    let revert = json!({"cluster_name": "duo", "snapshot_name": "v1"});
    let done = bench.ok("snapshot_revert", revert.clone()).await;
    let note = done["save_note"].as_str().unwrap();
    assert!(note.contains("disks") && note.contains("`db`"), "{done}");
    assert_eq!(node(&done, "db")["domain_state"], "running");
    bench.ok("branch_create", json!({"from": done["saved_as"], "name": "before"})).await;
    for name in ["db", "web"] {
        assert_eq!(on(&bench, "duo@before", name, "get-disk late").await, name);
        let address = format!("duo/{name}");
        let late = json!({"address": address, "command": "get-disk late"});
        assert_eq!(bench.ok("exec_run", late).await["stdout"], "", "{name}");
    }
    bench.assert_consistent("reverted with a node down").await;

    bench.world.kill_keeper(&bench.host_id(done["branch_id"].as_str().unwrap()).await);
    let done = bench.ok("branch_rollback", json!({"branch": "duo", "target": "v1"})).await;
    assert!(done["save_note"].as_str().unwrap().contains("keeper"), "{done}");
    assert!(done["saved_as"].is_string(), "{done}");

    bench.ok("node_crash", crash).await;
    let mut plain = revert;
    plain["save"] = false.into();
    let done = bench.ok("snapshot_revert", plain).await;
    assert_eq!((&done["saved_as"], &done["save_note"]), (&Value::Null, &Value::Null));
    bench.assert_consistent("reverted without saving").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_with_an_underscore_in_its_name_has_a_host_name() {
    let bench = Bench::new().await;
    let other = DUO.replace("name: db", "name: my_db");
    bench.ok("cluster_define", json!({"topology": other})).await;
    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    assert_eq!(on(&bench, "duo", "my_db", "get-mem hostname").await, "my-db");
}

#[tokio::test(start_paused = true)]
async fn a_handle_needs_no_particular_node() {
    let bench = Bench::with_cluster().await;
    let crash = json!({"cluster_name": "duo", "node": "db", "restart_after": false});
    bench.ok("node_crash", crash).await;
    let handle = bench.ok("cluster_handle", json!({"cluster_name": "duo"})).await;
    assert!(handle["kernel_version"].is_string(), "{handle}");
    assert_eq!(handle["nodes"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_start_of_a_branch_whose_keeper_is_gone_boots_it() {
    let bench = Bench::with_cluster().await;
    let status = bench.ok("cluster_status", json!({"cluster_name": "duo"})).await;
    for state in ["running", "paused"] {
        if state == "paused" {
            bench.ok("vm_control", json!({"address": "duo", "action": "pause"})).await;
        }
        bench.world.kill_keeper(&bench.host_id(status["branch_id"].as_str().unwrap()).await);
        let started = bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
        assert_eq!(started["started"], json!(["db", "web"]), "{state}");
        assert_eq!(on(&bench, "duo", "db", "get-disk seeded").await, "yes");
    }
    bench.assert_consistent("started again").await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_switches_itself_off_did_not_crash() {
    let bench = Bench::with_cluster().await;
    let states = async || {
        let status = bench.ok("cluster_status", json!({"cluster_name": "duo"})).await;
        ["db", "web"].map(|name| node(&status, name)["domain_state"].as_str().unwrap().to_owned())
    };
    let status = bench.ok("cluster_status", json!({"cluster_name": "duo"})).await;
    let id = status["branch_id"].as_str().unwrap();
    let power_off = async |name: &str| {
        bench.world.power_off(&bench.host_id(id).await, &name.parse().unwrap());
    };
    power_off("db").await;
    assert_eq!(states().await, ["shut off", "running"]);
    let crash = json!({"cluster_name": "duo", "node": "web", "restart_after": false});
    bench.ok("node_crash", crash.clone()).await;
    assert_eq!(states().await, ["shut off", "crashed"]);

    // Both before and after it is recorded that the branch has stopped.
    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    assert_eq!(states().await, ["running", "running"]);
    for name in ["db", "web"] {
        power_off(name).await;
    }
    let reason = async || {
        let status = bench.ok("vm_status", json!({"address": "duo/db"})).await;
        status["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason().await, "its machine ended: the guest shut down");
    assert_eq!(states().await, ["shut off", "shut off"]);
    bench.engine.idle().await;
    assert_eq!(reason().await, "its machine ended: the guest shut down");
    assert_eq!(states().await, ["shut off", "shut off"]);
    bench.assert_consistent("switched off").await;

    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    bench.ok("node_crash", crash).await;
    power_off("db").await;
    assert_eq!(states().await, ["shut off", "crashed"]);
    bench.engine.idle().await;
    assert_eq!(states().await, ["shut off", "crashed"]);
    bench.assert_consistent("crashed").await;
}

const SHARED: &str = "
name: shared
networks:
  - {name: front, subnet: 10.1.0.0/24}
  - {name: back, subnet: 10.2.0.0/24, link: {latency_ms: 5}}
nodes:
  - {name: a, interfaces: [{network: front}, {network: back}]}
  - {name: b, interfaces: [{network: front}, {network: back}]}
  - {name: c, interfaces: [{network: front}]}
";

/// Returns the round trips between the nodes of `shared` that answer, by asker and address.
async fn answers(bench: &Bench) -> Vec<(String, String, f64)> {
    let params = json!({"cluster_name": "shared", "targets": ["a", "b", "c"]});
    let probed = bench.ok("net_probe", params).await;
    let rows = probed["rows"].as_array().unwrap();
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        Some((text("from"), text("address"), row["min_ms"].as_f64()?))
    };
    let mut answers: Vec<_> = rows.iter().filter_map(row).collect();
    answers.sort_by(|one, other| one.partial_cmp(other).unwrap());
    answers
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_one_network_leaves_what_nodes_share_beside_it_alone() {
    let bench = Bench::new().await;
    bench.ok("cluster_define", json!({"topology": SHARED})).await;
    bench.ok("cluster_start", json!({"cluster_name": "shared"})).await;
    let listed = bench.ok("net_fault_list", json!({"cluster_name": "shared"})).await;
    assert_eq!(listed["faults"][0]["network"], "back", "{listed}");
    assert_eq!(listed["faults"][0]["links"], json!(["a>b", "b>a"]));
    let whole = answers(&bench).await;
    assert_eq!(whole.len(), 8, "{whole:?}");
    let is_slow = |ms: f64| ms > 5.0;
    assert!(whole.iter().all(|(_, at, ms)| is_slow(*ms) == at.starts_with("10.2.")), "{whole:?}");

    let cut = json!({"cluster_name": "shared", "partition_a": ["a"], "network": "front"});
    let made = bench.ok("net_partition", cut).await;
    assert_eq!(made["verified"], "yes", "{made}");
    assert_eq!(made["links"].as_array().unwrap().len(), 4, "b and c: {made}");
    assert_eq!(made["parameters"]["network"], "front");
    let left = answers(&bench).await;
    let at = |from: &str, network: &str| {
        left.iter().filter(|(by, to, _)| by == from && to.starts_with(network)).count()
    };
    assert_eq!((at("a", "10.1."), at("a", "10.2."), at("b", "10.1.")), (0, 1, 1), "{left:?}");

    // What works on the other network is not in the way of looking.
    let healed = bench.ok(
        "net_heal",
        json!({
            "cluster_name": "shared", "fault_handle": made["handle_id"],
        }),
    );
    let healed = healed.await;
    assert_eq!(healed["verified"], "yes", "{healed}");
    assert_eq!(answers(&bench).await, whole);

    let all = json!({
        "cluster_name": "shared", "source_node": "a", "network": "back", "latency_ms": 50,
    });
    let made = bench.ok("net_impair", all).await;
    assert_eq!((made["links"].clone(), made["verified"].clone()), (json!(["a>b"]), json!("yes")));
    for (params, says) in [
        (json!({"partition_a": ["a"], "network": "side"}), "shared has `front`, `back`"),
        (json!({"partition_a": ["a"], "partition_b": ["c"], "network": "back"}), "`c` is not in"),
        (json!({"partition_a": ["a", "b"], "network": "back"}), "`back` has no other node"),
    ] {
        let mut params = params;
        params["cluster_name"] = json!("shared");
        let error = bench.fails("net_partition", params.clone()).await;
        assert!(serde_json::to_string(&error).unwrap().contains(says), "{params}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_topology_says_of_its_links_is_not_healed_with_the_faults() {
    let bench = Bench::new().await;
    bench.ok("cluster_define", json!({"topology": SHARED})).await;
    bench.ok("cluster_start", json!({"cluster_name": "shared"})).await;
    let named = json!({"cluster_name": "shared"});
    bench.ok("net_partition", json!({"cluster_name": "shared", "partition_a": ["a"]})).await;
    let healed = bench.ok("net_heal_all", named.clone()).await;
    assert_eq!((&healed["count"], &healed["remaining"]), (&1.into(), &1.into()), "{healed}");
    assert_eq!(healed["verified"], "yes", "a slow link answers: {healed}");
    let left = bench.ok("net_fault_list", named.clone()).await;
    assert_eq!(left["faults"][0]["label"], "links of back", "{left}");
    // Named, it goes.
    let one = json!({"cluster_name": "shared", "fault_handle": "links of back"});
    assert_eq!(bench.ok("net_heal", one).await["remaining"], 0);
}

#[tokio::test(start_paused = true)]
async fn defining_a_running_cluster_again_says_what_it_does() {
    let bench = Bench::new().await;
    bench.ok("cluster_define", json!({"topology": SHARED})).await;
    bench.ok("cluster_start", json!({"cluster_name": "shared"})).await;
    let again = bench.ok("cluster_define", json!({"topology": SHARED})).await;
    assert_eq!((&again["created"], &again["state"]), (&false.into(), &"running".into()));
    for node in again["nodes"].as_array().unwrap() {
        assert_eq!(node["domain_state"], "running", "{again}");
        assert_eq!(node["answers"], true, "{again}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_capture_is_under_way_at_a_time() {
    let bench = Bench::new().await;
    bench.ok("cluster_define", json!({"topology": SHARED})).await;
    bench.ok("cluster_start", json!({"cluster_name": "shared"})).await;
    let capture = |action: &str| json!({"cluster_name": "shared", "action": action});
    bench.ok("net_capture", capture("start")).await;
    let error = bench.fails("net_capture", capture("start")).await;
    assert_eq!(error.code, ErrorCode::WrongState, "{error:?}");
    assert!(error.hint.unwrap().contains("pando net capture shared@main stop"));
    let ended = bench.ok("net_capture", capture("stop")).await;
    assert!(ended["taken"].is_object(), "{ended}");
    bench.ok("net_capture", capture("start")).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_means_one_thing_behind_a_clusters() {
    let bench = Bench::with_vm().await;
    let commit = bench.ok("commit_create", json!({"branch": "shop", "message": "a"})).await;
    let tag = |name: &str| json!({"commit": commit["commit_id"], "tag": name});
    let error = bench.fails("tag_set", tag("main")).await;
    assert_eq!((error.code, error.subject.as_deref()), (ErrorCode::AlreadyExists, Some("main")));
    bench.ok("tag_set", tag("try-1")).await;
    let error = bench.fails("branch_create", json!({"from": "shop", "name": "try-1"})).await;
    assert_eq!(error.code, ErrorCode::AlreadyExists, "{error:?}");
    let made = bench.ok("branch_create", json!({"from": "shop"})).await;
    assert_eq!(made["branches"][0]["name"], "try-2", "{made}");
    let snapshot = json!({"cluster_name": "shop", "snapshot_name": "try-2"});
    let error = bench.fails("snapshot_create", snapshot).await;
    assert_eq!(error.code, ErrorCode::AlreadyExists, "{error:?}");
}
