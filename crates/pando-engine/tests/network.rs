//! The `net_*` verbs on a simulated switch: what they do, what they refuse, and that no failing call
//! and no crash leaves the switch with other faults than the record.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::Bench;
use pando_api::ApiError;
use pando_driver::sim::Fault as Strike;
use pando_driver::store::{Query, Transaction};
use pando_model::branch::BranchNode;
use pando_model::cluster::{Interface, Uplink};
use pando_model::network::{NetworkSpec, Port, Segment};
use pando_model::{Branch, Cluster, Commit, ErrorCode, KernelNetwork, Lack};
use serde_json::{Value, json};

/// `shop@main` and `shop@side`, each with its own switch; both nodes have an IPv6 address as well.
async fn bench() -> Bench {
    let bench = Bench::with_vm().await;
    bench.ok("branch_create", json!({"from": "shop", "name": "side"})).await;
    bench.engine.idle().await;
    let store = bench.world.connect().store();
    let mut cluster: Cluster = store.named("", "shop").await.unwrap().unwrap();
    let segment = Segment {
        name: "lan".parse().unwrap(),
        subnet: [10, 7, 0, 0].into(),
        prefix_bits: 24,
        gateway: [10, 7, 0, 1].into(),
        gateway6: Some(("fd00:7::1".parse().unwrap(), 64)),
        uplink: Uplink::None,
        bridge: None,
    };
    let own = Interface {
        network: segment.name.clone(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        address: Some([10, 7, 0, 10].into()),
        address6: Some("fd00:7::10".parse().unwrap()),
    };
    let node = cluster.nodes.first_mut().unwrap();
    node.interfaces = vec![own.clone()];
    let port = Port {
        node: node.name.clone(),
        nic: 0,
        segment: segment.name.clone(),
        mac: own.mac,
        address: own.address,
        address6: own.address6,
    };
    cluster.networks = vec![segment.clone()];
    store.write(Transaction::new().put(&cluster)).await.unwrap();
    let network =
        NetworkSpec { segments: vec![segment], ports: vec![port], ..NetworkSpec::default() };
    for name in ["main", "side"] {
        let branch: Branch = store.named(cluster.id.as_str(), name).await.unwrap().unwrap();
        bench.world.plug(&branch.host_id, network.clone());
    }
    bench
}

fn cut_off(branch: &str) -> Value {
    json!({"cluster_name": branch, "partition_a": ["shop"], "partition_b": ["gateway"]})
}

async fn faults(bench: &Bench, branch: &str) -> Vec<Value> {
    let list = bench.ok("net_fault_list", json!({"cluster_name": branch})).await;
    list["faults"].as_array().unwrap().clone()
}

/// Whether a branch's node reaches its gateway over all protocols, or over none.
async fn reaches(bench: &Bench, branch: &str) -> bool {
    let probe = bench.ok("net_probe", json!({"cluster_name": branch})).await;
    let counts = ["reachable", "unreachable", "unknown"].map(|name| probe[name].as_u64().unwrap());
    assert!(counts == [2, 0, 0] || counts == [0, 2, 0], "{probe}");
    counts[0] == 2
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_verified_and_touches_no_other_branch() {
    let bench = bench().await;
    assert!(reaches(&bench, "shop@main").await);
    let mut params = cut_off("shop@main");
    params["label"] = json!("no way out");
    let made = bench.ok("net_partition", params).await;
    assert_eq!(made["verified"], "yes", "{made}");
    assert!(made["evidence"].as_str().unwrap().contains("1 of 2 links"), "{made}");
    assert_eq!(made["fault_type"], "partition");
    assert_eq!(made["affected_nodes"], json!(["shop"]));
    assert_eq!(made["links"], json!(["shop>gateway", "gateway>shop"]));
    assert!(!reaches(&bench, "shop@main").await);
    assert!(reaches(&bench, "shop@side").await);
    let listed = faults(&bench, "shop@main").await;
    assert_eq!(listed[0]["handle_id"], made["handle_id"]);
    assert!(listed[0]["counters"]["dropped"].as_u64().unwrap() > 0, "{listed:?}");
    assert!(faults(&bench, "shop@side").await.is_empty());

    let params = json!({"cluster_name": "shop@main", "fault_handle": "no way out"});
    let healed = bench.ok("net_heal", params).await;
    assert_eq!((healed["count"].clone(), healed["verified"].clone()), (1.into(), "yes".into()));
    assert!(reaches(&bench, "shop@main").await);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_looked_at_is_unknown() {
    let bench = bench().await;
    let mut params = cut_off("shop@main");
    params["direction"] = json!("b_to_a");
    let made = bench.ok("net_partition", params).await;
    assert_eq!(made["links"], json!(["gateway>shop"]));
    assert_eq!(made["verified"], "unknown", "the gateway asks nobody: {made}");
    bench.ok("vm_control", json!({"address": "shop@side", "action": "pause"})).await;
    let made = bench.ok("net_partition", cut_off("shop@side")).await;
    assert_eq!(made["verified"], "unknown", "{made}");
    assert!(made["evidence"].as_str().unwrap().contains("paused"), "{made}");
}

#[tokio::test(start_paused = true)]
async fn faults_outlive_the_daemon_and_end_by_themselves() {
    let mut bench = bench().await;
    let mut params = cut_off("shop@main");
    params["expires_s"] = json!(3600);
    bench.ok("net_partition", params).await;
    let impair = json!({
        "cluster_name": "shop@main", "source_node": "shop", "target_node": "gateway",
        "latency_ms": 20, "seed": 7, "both_directions": true,
    });
    let made = bench.ok("net_impair", impair).await;
    assert_eq!(made["seed"], 7);
    assert_eq!(made["verified"], "unknown", "nothing gets through that could be late: {made}");
    assert_eq!(made["parameters"]["latency_ms"], 20.0);
    bench.restart().await;
    assert_eq!(faults(&bench, "shop@main").await.len(), 2);
    assert!(!reaches(&bench, "shop@main").await);

    let store = bench.world.connect().store();
    let cluster: Cluster = store.named("", "shop").await.unwrap().unwrap();
    let mut branch: Branch = store.named(cluster.id.as_str(), "main").await.unwrap().unwrap();
    branch.faults[0].expires_at = Some(jiff::Timestamp::UNIX_EPOCH);
    store.write(Transaction::new().put(&branch)).await.unwrap();
    assert_eq!(faults(&bench, "shop@main").await.len(), 1);
    bench.restart().await;
    let branch = bench.branch(branch.id.as_str()).await;
    assert_eq!(branch.faults.len(), 1, "its record has gone too");
    let probe = bench.ok("net_probe", json!({"cluster_name": "shop@main"})).await;
    assert!(probe["rows"][0]["rtt_ms"].as_f64().unwrap() >= 40.0, "{probe}");

    let healed = bench.ok("net_heal_all", json!({"cluster_name": "shop@main"})).await;
    assert_eq!((healed["count"].clone(), healed["remaining"].clone()), (1.into(), 0.into()));
    let healed = bench.ok("net_heal_all", json!({"cluster_name": "shop@main"})).await;
    assert_eq!(healed["count"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_has_ended_is_not_counted_where_nothing_runs() {
    let bench = bench().await;
    let made = bench.ok("net_partition", cut_off("shop@main")).await;
    bench.ok("vm_control", json!({"address": "shop@main", "action": "stop"})).await;
    let status = json!({"cluster_name": "shop@main"});
    assert_eq!(bench.ok("cluster_status", status.clone()).await["active_faults"], 1);
    let mut branch = bench.branch(made["branch_id"].as_str().unwrap()).await;
    branch.faults[0].expires_at = Some(jiff::Timestamp::UNIX_EPOCH);
    let store = bench.world.connect().store();
    store.write(Transaction::new().put(&branch)).await.unwrap();
    assert_eq!(bench.ok("cluster_status", status).await["active_faults"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_no_record_names_is_taken_away() {
    let mut bench = bench().await;
    let made = bench.ok("net_partition", cut_off("shop@main")).await;
    let id = made["branch_id"].as_str().unwrap();
    let stray = bench.branch(id).await.faults;
    bench.ok("net_heal_all", json!({"cluster_name": "shop@main"})).await;
    let host = bench.world.connect().host();
    host.set_faults(&bench.host_id(id).await, &stray).await.unwrap();
    assert!(!reaches(&bench, "shop@main").await);
    bench.restart().await;
    assert!(reaches(&bench, "shop@main").await);
    bench.assert_consistent("a stray fault").await;
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused() {
    let bench = bench().await;
    for (verb, params, says) in [
        (
            "net_partition",
            json!({"cluster_name": "shop", "partition_a": ["nosuch"], "partition_b": ["shop"]}),
            "there is no node `nosuch`",
        ),
        (
            "net_partition",
            json!({"cluster_name": "shop", "partition_a": ["shop"]}),
            "nobody is left",
        ),
        (
            "net_impair",
            json!({"cluster_name": "shop", "source_node": "shop", "target_node": "x", "loss_pct": 1}),
            "there is no node `x`",
        ),
        (
            "net_impair",
            json!({"cluster_name": "shop", "source_node": "shop", "loss_pct": 1}),
            "nobody is left for `target_node`",
        ),
        ("net_heal", json!({"cluster_name": "shop", "fault_handle": "x"}), "there is no fault"),
        ("net_heal_all", json!({"cluster_name": "shop/shop"}), "is a node"),
        ("net_probe", json!({"cluster_name": "shop", "sources": ["gateway"]}), "asks nobody"),
        ("net_heal_all", json!({"cluster_name": "other"}), "there is no"),
    ] {
        let error = bench.fails(verb, params).await;
        assert!(error.message.contains(says), "{verb}: {error:?}");
    }
    bench.ok("vm_create", json!({"name": "alone"})).await;
    let error = bench.fails("net_heal_all", json!({"cluster_name": "alone"})).await;
    assert!(error.message.contains("no network between nodes"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn frames_are_copied_to_a_file_that_can_be_read() {
    let bench = bench().await;
    let capture = |action: &str| json!({"cluster_name": "shop@main", "action": action});
    let none = bench.fails("net_capture", capture("read")).await;
    assert_eq!(none.code, ErrorCode::NotFound);
    assert!(none.hint.unwrap().contains("pando net capture shop@main start"));
    bench.ok("net_capture", capture("start")).await;
    let read = bench.ok("net_capture", capture("read")).await;
    assert!(read["content_base64"].as_str().unwrap().starts_with("1MOyoQ"), "{read}");
    assert_eq!(bench.ok("net_capture", capture("stop")).await["taken"]["frames"], 0);
    assert!(bench.ok("net_capture", capture("stop")).await["taken"].is_null());
}

#[tokio::test(start_paused = true)]
async fn what_was_captured_before_a_rollback_can_be_read_after_it() {
    let bench = Bench::with_cluster().await;
    bench.ok("commit_create", json!({"branch": "duo", "tag": "v1"})).await;
    let capture = |action: &str| json!({"cluster_name": "duo", "action": action});
    bench.ok("net_capture", capture("start")).await;
    let before = bench.ok("net_capture", capture("read")).await;
    bench.ok("branch_rollback", json!({"branch": "duo", "target": "v1"})).await;
    assert_eq!(bench.ok("net_capture", capture("read")).await, before);
    assert!(bench.ok("net_capture", capture("stop")).await["taken"].is_null(), "it ended");
}

/// Runs `verb` with a fault at one of its calls, and starts the engine anew. Returns what came of it,
/// `None` if it crashed, and whether the fault struck.
async fn struck(
    bench: &mut Bench,
    (strike, at): (Strike, u64),
    verb: &str,
    params: &Value,
) -> (Option<Result<Value, ApiError>>, bool) {
    bench.world.faults().at(at, strike);
    let crashed = bench.world.faults().crashed();
    let done = tokio::select! {
        biased;
        () = crashed => None,
        result = async {
            let result = bench.call(verb, params.clone()).await;
            bench.engine.idle().await;
            result
        } => Some(result),
    };
    let struck = bench.world.faults().struck().is_some();
    bench.world.faults().clear();
    if let Some(Err(error)) = &done {
        assert_ne!(error.code.as_str(), "stuck", "{verb}: {strike:?} at call {at}: {error:?}");
    }
    bench.restart().await;
    (done, struck)
}

/// Runs `verb` with a fault at each of its calls in turn; afterwards record and switch agree.
async fn survives(verb: &str, params: Value) {
    let base = bench().await;
    base.ok("net_partition", cut_off("shop@side")).await;
    if verb.starts_with("net_heal") {
        let mut params = cut_off("shop@main");
        params["label"] = json!("it");
        base.ok("net_partition", params).await;
    }
    let before = faults(&base, "shop@main").await.len();
    for strike in Strike::ALL {
        for at in 0.. {
            let context = format!("{verb}: {strike:?} at call {at}");
            let mut bench = base.fork().await;
            let (done, struck) = struck(&mut bench, (*strike, at), verb, &params).await;
            bench.assert_consistent(&context).await;
            let after = faults(&bench, "shop@main").await.len();
            let (undone, made) = match verb {
                "net_heal" | "net_heal_all" => (1, 0),
                _ => (before, before + 1),
            };
            match done {
                Some(Ok(_)) => assert_eq!(after, made, "{context}"),
                Some(Err(_)) => assert_eq!(after, undone, "{context}"),
                None => assert!(after == made || after == undone, "{context}: {after}"),
            }
            assert_eq!(reaches(&bench, "shop@main").await, after == 0, "{context}");
            assert_eq!(faults(&bench, "shop@side").await.len(), 1, "{context}");
            assert!(!reaches(&bench, "shop@side").await, "{context}");
            if !struck {
                assert!(at > 2, "{context}: the faults struck {at} times");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_survives_every_failure() {
    survives("net_partition", cut_off("shop@main")).await;
}

#[tokio::test(start_paused = true)]
async fn a_total_loss_survives_every_failure() {
    let params = json!({
        "cluster_name": "shop@main", "source_node": "shop", "target_node": "gateway",
        "loss_pct": 100,
    });
    survives("net_impair", params).await;
}

#[tokio::test(start_paused = true)]
async fn a_branch_under_a_new_seed_survives_every_failure() {
    let base = bench().await;
    base.ok("net_impair", lossy("shop@main", 7)).await;
    base.ok("commit_create", json!({"branch": "shop@main", "tag": "lossy", "warm": 1})).await;
    base.engine.idle().await;
    let params = json!({"from": "shop@lossy", "name": "x", "seed": 1});
    let whole = base.fork().await;
    whole.ok("branch_create", params.clone()).await;
    let expected = decides_by(&whole, "x").await;
    for strike in Strike::ALL {
        for at in 0.. {
            let context = format!("{strike:?} at call {at}");
            let mut bench = base.fork().await;
            let (done, struck) = struck(&mut bench, (*strike, at), "branch_create", &params).await;
            bench.assert_consistent(&context).await;
            let list = bench.ok("branch_list", json!({"cluster": "shop"})).await;
            let is_there =
                list["branches"].as_array().unwrap().iter().any(|one| one["alias"] == "x");
            if let Some(done) = done {
                assert_eq!(done.is_ok(), is_there, "{context}: {done:?}");
            }
            if is_there {
                assert_eq!(decides_by(&bench, "x").await, expected, "{context}");
            }
            if !struck {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_healing_survives_every_failure() {
    survives("net_heal", json!({"cluster_name": "shop@main", "fault_handle": "it"})).await;
    survives("net_heal_all", json!({"cluster_name": "shop@main"})).await;
}

/// [`bench`], with the kernel carrying the frames.
async fn bridged() -> Bench {
    let bench = bench().await;
    let store = bench.world.connect().store();
    let mut cluster: Cluster = store.named("", "shop").await.unwrap().unwrap();
    cluster.networks[0].bridge = Some("br0".parse().unwrap());
    store.write(Transaction::new().put(&cluster)).await.unwrap();
    bench
}

fn lack(what: &str, remedy: &str) -> Lack {
    Lack { what: what.to_owned(), remedy: remedy.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_the_kernel_cannot_make_is_refused_before_it_is_registered() {
    let bench = bridged().await;
    let store = bench.world.connect().store();
    let mut cluster: Cluster = store.named("", "shop").await.unwrap().unwrap();
    let mut second = cluster.nodes[0].clone();
    second.name = "db".parse().unwrap();
    cluster.nodes.push(second);
    let branch: Branch = store.named(cluster.id.as_str(), "main").await.unwrap().unwrap();
    let mut both = branch.clone();
    both.nodes.push(BranchNode { name: "db".parse().unwrap(), ..branch.nodes[0].clone() });
    store.write(Transaction::new().put(&cluster).put(&both)).await.unwrap();
    let no_netem = Some(lack("there is no netem", "modprobe sch_netem"));
    bench.world.set_kernel_network(KernelNetwork { no_netem, ..KernelNetwork::default() });
    let on = json!({"cluster_name": "shop@main", "source_node": "shop", "target_node": "db"});
    let with = |name: &str, value: u32| {
        let mut params = on.clone();
        params[name] = value.into();
        params
    };
    let error = bench.fails("net_impair", with("latency_ms", 5)).await;
    assert_eq!(error.code, ErrorCode::ToolMissing);
    assert!(error.message.contains("there is no netem"), "{error:?}");
    assert!(error.hint.unwrap().contains("modprobe sch_netem"));
    assert!(faults(&bench, "shop@main").await.is_empty());
    bench.ok("net_impair", with("rate_kbit", 500)).await;
    assert_eq!(faults(&bench, "shop@main").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_switch_does_is_refused_where_the_kernel_carries() {
    let bench = bridged().await;
    let error = bench.fails("net_partition", cut_off("shop@main")).await;
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(error.message.contains("no gateway"), "{error:?}");
    let probe = bench.ok("net_probe", json!({"cluster_name": "shop@main"})).await;
    assert_eq!(probe["rows"], json!([]), "nobody else is there: {probe}");
    let mut seeded = lossy("shop@main", 7);
    seeded["target_node"] = json!("all");
    for (verb, params) in [
        ("net_impair", seeded),
        ("branch_create", json!({"from": "shop@main", "name": "x", "seed": 7})),
    ] {
        let error = bench.fails(verb, params).await;
        assert_eq!(error.code, ErrorCode::WrongState);
        assert!(error.message.contains("decides by no seed"), "{error:?}");
    }
    let capture = json!({"cluster_name": "shop@main", "action": "start"});
    let error = bench.fails("net_capture", capture).await;
    assert_eq!(error.code, ErrorCode::WrongState);
    assert!(error.hint.unwrap().contains("tcpdump"));
}

/// Returns what the faults of a branch decide by: seed and number.
async fn decides_by(bench: &Bench, branch: &str) -> Vec<(u64, u32)> {
    let store = bench.world.connect().store();
    let cluster: Cluster = store.named("", "shop").await.unwrap().unwrap();
    let branch: Branch = store.named(cluster.id.as_str(), branch).await.unwrap().unwrap();
    let connection = bench.world.connect();
    let switch = connection.host().network(&branch.host_id).await.unwrap();
    assert_eq!(switch.faults, branch.faults, "the switch decides by what is recorded");
    branch.faults.iter().map(|fault| (fault.seed, fault.ordinal)).collect()
}

fn lossy(branch: &str, seed: u64) -> Value {
    json!({
        "cluster_name": branch, "source_node": "shop", "target_node": "gateway", "loss_pct": 50,
        "seed": seed,
    })
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_decides_the_same_in_another_branch_and_a_new_one_does_not() {
    let bench = bench().await;
    bench.ok("net_impair", lossy("shop@main", 7)).await;
    bench.ok("net_impair", lossy("shop@main", 7)).await;
    bench.ok("net_impair", lossy("shop@side", 7)).await;
    assert_eq!(decides_by(&bench, "main").await, [(7, 0), (7, 1)]);
    assert_eq!(decides_by(&bench, "side").await, [(7, 0)]);

    bench.ok("commit_create", json!({"branch": "shop@main", "tag": "lossy", "warm": 1})).await;
    bench.engine.idle().await;
    for (name, from, seed) in [
        ("warm", "shop@lossy", Some(1)),
        ("cold", "shop@lossy", Some(1)),
        ("live", "shop@main", Some(1)),
        ("other", "shop@lossy", Some(2)),
        ("alike", "shop@lossy", None),
    ] {
        let mut params = json!({"from": from, "name": name, "exact": name != "warm"});
        if let Some(seed) = seed {
            params["seed"] = seed.into();
        }
        let made = bench.ok("branch_create", params).await;
        assert_eq!(made["branches"][0]["warm"], name == "warm", "{made}");
    }
    let warm = decides_by(&bench, "warm").await;
    assert_eq!(decides_by(&bench, "alike").await, [(7, 0), (7, 1)]);
    assert_eq!(decides_by(&bench, "cold").await, warm);
    assert_eq!(decides_by(&bench, "live").await, warm);
    let other = decides_by(&bench, "other").await;
    assert!(other.iter().all(|one| !warm.contains(one)), "{other:?} {warm:?}");
    assert!(warm.iter().all(|(seed, _)| *seed != 7) && warm[0] != warm[1], "{warm:?}");
}

/// Returns how long the only fault of a branch still works, in seconds.
async fn time_left(bench: &Bench, branch: &str) -> i64 {
    let faults = faults(bench, branch).await;
    let end = faults[0]["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    end.duration_since(jiff::Timestamp::now()).as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_fault_has_the_time_left_in_a_branch_that_it_had_at_the_cut() {
    let bench = bench().await;
    let mut params = cut_off("shop@main");
    params["expires_s"] = json!(3600);
    bench.ok("net_partition", params).await;
    bench.ok("commit_create", json!({"branch": "shop@main", "tag": "cut", "warm": 1})).await;
    bench.engine.idle().await;
    // It was cut two hours ago, and the fault would have ended an hour ago.
    let store = bench.world.connect().store();
    let commits: Vec<Commit> = store.list(&Query::all()).await.unwrap();
    for mut commit in commits {
        let Some(network) = &mut commit.network else { continue };
        let long_ago = |at: jiff::Timestamp| at - jiff::SignedDuration::from_hours(2);
        network.cut_at = network.cut_at.map(long_ago);
        for fault in &mut network.faults {
            fault.expires_at = fault.expires_at.map(long_ago);
        }
        store.write(Transaction::new().put(&commit)).await.unwrap();
    }
    bench.ok("net_heal_all", json!({"cluster_name": "shop@main"})).await;
    for name in ["warm", "cold"] {
        let params = json!({"from": "shop@cut", "name": name, "exact": name == "cold"});
        let made = bench.ok("branch_create", params).await;
        assert_eq!(made["branches"][0]["warm"], name == "warm", "{made}");
        let branch = format!("shop@{name}");
        assert!((3000..=3600).contains(&time_left(&bench, &branch).await), "{branch}");
        assert!(!reaches(&bench, &branch).await, "{branch}");
        assert_eq!(decides_by(&bench, name).await.len(), 1);
    }
    bench.ok("branch_rollback", json!({"branch": "shop@main", "target": "cut"})).await;
    assert!((3000..=3600).contains(&time_left(&bench, "shop@main").await));
    assert!(!reaches(&bench, "shop@main").await);
}

#[tokio::test(start_paused = true)]
async fn a_commit_says_what_it_holds_of_the_network() {
    let bench = bench().await;
    let made = bench.ok("net_impair", lossy("shop@main", 7)).await;
    let commit = json!({"branch": "shop@main", "tag": "cut"});
    let made_commit = bench.ok("commit_create", commit.clone()).await;
    assert_eq!((&made_commit["stalled"], &made_commit["note"]), (&Value::Null, &Value::Null));
    let store = bench.world.connect().store();
    let id = made_commit["commit_id"].as_str().unwrap();
    let mut record: Commit = store.get(id).await.unwrap().unwrap();
    let network = record.network.as_mut().unwrap();
    (network.frames, network.stalled) = (3, vec![("shop".parse().unwrap(), 1)]);
    store.write(Transaction::new().put(&record)).await.unwrap();
    let stalled = json!([{"node": "shop", "nic": 1}]);
    let shown = bench.ok("commit_show", json!({"commit": "shop@cut"})).await;
    let network = &shown["network"];
    assert_eq!((&network["frames_held"], &network["stalled"]), (&json!(3), &stalled));
    assert_eq!(network["faults"][0]["handle_id"], made["handle_id"]);
    assert_eq!(network["faults"][0]["seed"], 7);
    let snapshots = bench.ok("snapshot_list", json!({"cluster_name": "shop"})).await;
    assert_eq!(snapshots["snapshots"][0]["stalled"], stalled, "{snapshots}");
    let disk = bench.ok("commit_create", json!({"branch": "shop@main", "kind": "disk"})).await;
    let shown = bench.ok("commit_show", json!({"commit": disk["commit_id"]})).await;
    assert_eq!(shown["network"], Value::Null);

    let bench = bridged().await;
    let made = bench.ok("commit_create", commit).await;
    assert!(made["note"].as_str().unwrap().contains("frames under way are not in it"), "{made}");
    let shown = bench.ok("commit_show", json!({"commit": "shop@cut"})).await;
    assert_eq!(shown["network"]["note"], made["note"]);
}

#[tokio::test(start_paused = true)]
async fn an_impairment_is_measured_and_so_is_its_end() {
    let bench = bench().await;
    let mut params = lossy("shop@main", 7);
    params["latency_ms"] = json!(20);
    let made = bench.ok("net_impair", params.clone()).await;
    assert_eq!((&made["verified"], &made["warning"]), (&json!("yes"), &Value::Null), "{made}");
    assert!(made["evidence"].as_str().unwrap().contains("answers in 20.5 ms"), "{made}");
    let handle =
        |fault: &Value| json!({"cluster_name": "shop@main", "fault_handle": fault["handle_id"]});
    let second = bench.ok("net_impair", params).await;
    let healed = bench.ok("net_heal", handle(&second)).await;
    assert_eq!(healed["verified"], "unknown", "another one is there: {healed}");
    let healed = bench.ok("net_heal", handle(&made)).await;
    assert_eq!(healed["verified"], "yes");
    assert!(healed["evidence"].as_str().unwrap().contains("answers in 0.5 ms"), "{healed}");
    let healed = bench.ok("net_heal_all", json!({"cluster_name": "shop@main"})).await;
    assert_eq!((&healed["verified"], &healed["count"]), (&json!("yes"), &json!(0)));
    let list = bench.ok("net_fault_list", json!({"cluster_name": "shop@main"})).await;
    assert_eq!(list["spoofed"], 0);
}
