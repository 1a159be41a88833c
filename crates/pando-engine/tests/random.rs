//! Seeded simulation: random verbs under random faults and crashes, against a model of what should
//! be. Whatever succeeded happened, whatever failed did not, and after a crash one of the two is
//! true. A failure prints its seed; `PANDO_SEED=N` runs that one again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "random/clusters.rs"]
mod clusters;
mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;

use common::Bench;
use pando_driver::sim::Fault;
use pando_driver::store::Query;
use pando_model::commit::Tag;
use pando_model::{Branch, BranchState, Cluster, Commit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Seeds of one run of the suite.
const SEEDS: std::ops::Range<u64> = 0..10;
/// Verbs for each seed.
const STEPS: u32 = 120;

/// How many of a thousand driver calls and transactions are disturbed.
const FAULTS_PER_MILLE: u64 = 70;

/// What a branch or a commit holds: the value of `a` in memory, of `d` on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    memory: Option<String>,
    disk: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    state: BranchState,
    held: Held,
}

/// What should be: branches by address, tags with what they restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    branches: BTreeMap<String, Line>,
    tags: BTreeMap<String, Held>,
}

/// A verb with what it does to the model.
struct Step<M> {
    verb: &'static str,
    params: Value,
    after: M,
}

/// What should be, of one kind of things that verbs are about.
trait Modelled: Clone + Debug + Default + PartialEq {
    /// Verbs that may have had their effect although they failed.
    const TELLTALE: &[&str];

    /// Returns a random verb that makes sense, with what it makes of the model.
    fn step(&self, rng: &mut StdRng, count: u32) -> Option<Step<Self>>;

    /// Returns what is, from the records and the world.
    async fn look(bench: &Bench) -> Self;

    /// Asserts that every commit restores what it holds.
    async fn restored(&self, bench: &Bench, context: &str);
}

const CLUSTERS: [&str; 2] = ["ash", "elm"];
const TAGS: [&str; 4] = ["t1", "t2", "t3", "t4"];
const BRANCHES: [&str; 4] = ["main", "b1", "b2", "b3"];

fn pick<'a, T>(rng: &mut StdRng, of: &'a [T]) -> &'a T {
    &of[rng.random_range(0..of.len())]
}

fn stopped(held: &Held) -> Line {
    let held = Held { memory: None, disk: held.disk.clone() };
    Line { state: BranchState::Stopped, held }
}

impl Model {
    fn has(&self, cluster: &str) -> bool {
        let prefix = format!("{cluster}@");
        self.branches.keys().any(|address| address.starts_with(&prefix))
    }
}

impl Modelled for Model {
    const TELLTALE: &[&str] = &["exec_run"];

    fn step(&self, rng: &mut StdRng, count: u32) -> Option<Step<Self>> {
        let mut after = self.clone();
        let cluster = *pick(rng, &CLUSTERS);
        let address = format!("{cluster}@{}", pick(rng, &BRANCHES));
        let tag = format!("{cluster}@{}", pick(rng, &TAGS));
        let other = format!("{cluster}@{}", pick(rng, &BRANCHES));
        let name = other.split('@').nth(1).unwrap_or_default().to_owned();
        let line = self.branches.get(&address).cloned();
        let exists = self.branches.contains_key(&other);
        let (verb, params) = match (rng.random_range(0..100), line) {
            (0..12, _) if !self.has(cluster) => {
                let held = Held { memory: None, disk: None };
                let line = Line { state: BranchState::Running, held };
                after.branches.insert(format!("{cluster}@main"), line);
                ("vm_create", json!({"name": cluster}))
            }
            (0..25, Some(line)) if line.state == BranchState::Running => {
                let value = format!("v{count}");
                let held = &mut after.branches.get_mut(&address)?.held;
                let key = if rng.random_bool(0.5) {
                    held.memory = Some(value.clone());
                    "set-mem a"
                } else {
                    held.disk = Some(value.clone());
                    "set-disk d"
                };
                ("exec_run", json!({"address": address, "command": format!("{key} {value}")}))
            }
            (25..40, Some(line)) if line.state != BranchState::Stopped => {
                let full = rng.random_bool(0.8);
                let memory = line.held.memory.clone().filter(|_| full);
                let held = Held { memory, disk: line.held.disk };
                after.tags.insert(tag.clone(), held);
                let kind = if full { "full" } else { "disk" };
                let warm = u32::from(full && rng.random_bool(0.3));
                let name = tag.split('@').nth(1).unwrap_or_default();
                let params = json!({"branch": address, "tag": name, "kind": kind, "warm": warm});
                ("commit_create", params)
            }
            (40..52, _) if self.tags.contains_key(&tag) && !exists => {
                let held = self.tags.get(&tag)?.clone();
                after.branches.insert(other, Line { state: BranchState::Running, held });
                ("branch_create", json!({"from": tag, "name": name}))
            }
            (52..60, Some(line)) if !exists => {
                let held = match line.state {
                    BranchState::Stopped => stopped(&line.held).held,
                    _ => line.held,
                };
                after.branches.insert(other, Line { state: BranchState::Running, held });
                ("branch_create", json!({"from": address, "name": name}))
            }
            (60..70, Some(line)) if self.tags.contains_key(&tag) => {
                let held = self.tags.get(&tag)?.clone();
                let state = match line.state {
                    BranchState::Paused => BranchState::Paused,
                    _ => BranchState::Running,
                };
                after.branches.insert(address.clone(), Line { state, held });
                let save = rng.random_bool(0.5);
                ("branch_rollback", json!({"branch": address, "target": tag, "save": save}))
            }
            (70..75, Some(_)) if self.branches.len() > 1 && !address.ends_with("@main") => {
                after.branches.remove(&address);
                ("branch_delete", json!({"branch": address, "force": true}))
            }
            (75..90, Some(line)) => {
                let (action, line) = match (line.state, rng.random_range(0..3)) {
                    (BranchState::Running, 0) => {
                        ("pause", Line { state: BranchState::Paused, held: line.held })
                    }
                    (BranchState::Running, 1) => ("stop", stopped(&line.held)),
                    (BranchState::Running, _) => {
                        ("restart", Line { state: BranchState::Running, ..stopped(&line.held) })
                    }
                    (BranchState::Paused, 0) => ("kill", stopped(&line.held)),
                    (BranchState::Paused, _) => {
                        ("resume", Line { state: BranchState::Running, held: line.held })
                    }
                    (BranchState::Stopped, _) => {
                        ("start", Line { state: BranchState::Running, held: line.held })
                    }
                };
                after.branches.insert(address.clone(), line);
                ("vm_control", json!({"address": address, "action": action}))
            }
            (90..94, _) if self.tags.contains_key(&tag) => {
                // Two tags never name one commit here, so only this one goes.
                after.tags.remove(&tag);
                ("commit_delete", json!({"commit": tag, "force": true}))
            }
            (94..96, _) if self.has(cluster) => {
                let prefix = format!("{cluster}@");
                after.branches.retain(|address, _| !address.starts_with(&prefix));
                after.tags.retain(|tag, _| !tag.starts_with(&prefix));
                let params = json!({"name": cluster, "force": true, "remove_overlays": true});
                ("vm_delete", params)
            }
            (96..100, _) => ("gc", json!({})),
            _ => return None,
        };
        Some(Step { verb, params, after })
    }

    async fn look(bench: &Bench) -> Self {
        let connection = bench.world.connect();
        let store = connection.store();
        let clusters: Vec<Cluster> = store.list(&Query::all()).await.unwrap();
        let mut model = Self::default();
        for cluster in clusters {
            let scope = Query::scope(cluster.id.as_str());
            let branches: Vec<Branch> = store.list(&scope).await.unwrap();
            for branch in branches.into_iter().filter(|b| b.role == pando_model::BranchRole::Live) {
                let layer = &branch.nodes[0].layers.root;
                let held = Held {
                    memory: bench.world.memory_value(&branch.host_id, &branch.nodes[0].name, "a"),
                    disk: bench.world.disk_value(layer, "d"),
                };
                let address = format!("{}@{}", cluster.name, branch.name);
                model.branches.insert(address, Line { state: branch.state, held });
            }
            let tags: Vec<Tag> = store.list(&scope).await.unwrap();
            for tag in tags {
                let commit: Commit = store.get(tag.commit.as_str()).await.unwrap().unwrap();
                let held = Held {
                    memory: bench.world.commit_value(&commit.id, &commit.nodes[0].name, "a"),
                    disk: bench.world.disk_value(&commit.nodes[0].layers.root, "d"),
                };
                model.tags.insert(format!("{}@{}", cluster.name, tag.name), held);
            }
        }
        model
    }

    async fn restored(&self, bench: &Bench, context: &str) {
        for (tag, held) in &self.tags {
            bench.ok("commit_verify", json!({"commit": tag})).await;
            let made = bench.ok("branch_create", json!({"from": tag, "name": "check"})).await;
            let address = made["branches"][0]["address"].as_str().unwrap().to_owned();
            let seen = Self::look(bench).await;
            assert_eq!(seen.branches[&address].held, *held, "{context}: {tag}");
            bench.ok("branch_delete", json!({"branch": address, "force": true})).await;
        }
    }
}

/// Ends stuck operations the way their remedy says, without further faults. Returns whether there
/// were any.
async fn repair(bench: &Bench) -> bool {
    let stuck = bench.ok("operation_list", json!({"status": "stuck", "limit": 500})).await;
    let stuck = stuck["operations"].as_array().unwrap().clone();
    for operation in &stuck {
        let view = bench.ok("operation_cancel", json!({"id": operation["operation_id"]})).await;
        assert_ne!(view["status"], "stuck", "{view}");
    }
    bench.engine.idle().await;
    !stuck.is_empty()
}

async fn simulate<M: Modelled>(seed: u64) {
    let mut bench = Bench::new().await;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = M::default();
    let mut history: Vec<String> = Vec::new();
    for count in 0..STEPS {
        let step = loop {
            if let Some(step) = model.step(&mut rng, count) {
                break step;
            }
        };
        let said = format!("{count}: {} {}", step.verb, step.params);
        let kinds = if rng.random_bool(0.8) { Fault::ALL } else { &[] };
        bench.world.faults().random(rng.random(), FAULTS_PER_MILLE, kinds);
        let crashed = bench.world.faults().crashed();
        let result = tokio::select! {
            biased;
            () = crashed => None,
            result = async {
                let result = bench.call(step.verb, step.params.clone()).await;
                bench.engine.idle().await;
                result
            } => Some(result),
        };
        bench.world.faults().clear();
        let ended = match &result {
            None => "crashed".to_owned(),
            Some(Ok(_)) => "done".to_owned(),
            Some(Err(error)) => format!("failed: {}", error.message),
        };
        history.push(format!("{said} → {ended}"));
        if result.is_none() {
            bench.restart().await;
        }
        let context = format!("PANDO_SEED={seed}\n{}", history.join("\n"));
        let mut unknown = result.is_none() || M::TELLTALE.contains(&step.verb);
        unknown |= repair(&bench).await;
        // What an unmaking could not unmake within its attempts is gc's.
        bench.ok("gc", json!({})).await;
        bench.assert_consistent(&context).await;
        let seen = M::look(&bench).await;
        let done = seen == step.after;
        let undone = seen == model;
        match &result {
            _ if unknown => assert!(done || undone, "{context}\n{seen:#?}\n{model:#?}"),
            Some(Ok(_)) => assert!(done, "{context}\n{seen:#?}\n{:#?}", step.after),
            _ => assert!(undone, "{context}\n{seen:#?}\n{model:#?}"),
        }
        if done {
            model = step.after;
        }
    }
    let ended = |how: &str| history.iter().filter(|line| line.contains(how)).count();
    let (done, failed, crashed) = (ended("→ done"), ended("→ failed"), ended("→ crashed"));
    println!(
        "{}\nseed {seed}: {done} done, {failed} failed, {crashed} crashed",
        history.join("\n")
    );
    assert!(done > 5 && failed + crashed > 0, "PANDO_SEED={seed}: too little happened");
    let context = format!("PANDO_SEED={seed}");
    model.restored(&bench, &context).await;
    bench.assert_consistent(&context).await;
}

async fn simulate_share<M: Modelled>(share: usize, shares: usize) {
    let seeds = match std::env::var("PANDO_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("PANDO_SEED is a number");
            seed..seed + 1
        }
        Err(_) => SEEDS,
    };
    for seed in seeds.skip(share).step_by(shares) {
        simulate::<M>(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn random_verbs_under_random_faults_do_what_the_model_says_part_1() {
    simulate_share::<Model>(0, 2).await;
}

#[tokio::test(start_paused = true)]
async fn random_verbs_under_random_faults_do_what_the_model_says_part_2() {
    simulate_share::<Model>(1, 2).await;
}

#[tokio::test(start_paused = true)]
async fn random_verbs_on_several_nodes_under_random_faults_do_what_the_model_says_part_1() {
    simulate_share::<clusters::Model>(0, 2).await;
}

#[tokio::test(start_paused = true)]
async fn random_verbs_on_several_nodes_under_random_faults_do_what_the_model_says_part_2() {
    simulate_share::<clusters::Model>(1, 2).await;
}
