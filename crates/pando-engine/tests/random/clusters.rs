//! Clusters of two nodes on a network: what each node holds, which nodes are down, and what the
//! network of each branch does wrong, in its record and in its switch.

use std::collections::{BTreeMap, BTreeSet};

use pando_driver::store::Query;
use pando_model::commit::Tag;
use pando_model::fault::Fault;
use pando_model::{Branch, BranchRole, BranchState, Cluster, Commit};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::common::Bench;
use super::{BRANCHES, Modelled, Step, TAGS, pick};

const TOPOLOGY: &str = "\
name: oak
image: default
network: {name: lan, subnet: 10.7.0.0/24}
nodes: [{name: db, memory: 256 MiB}, {name: web, memory: 256 MiB}]
";
const NODES: [&str; 2] = ["db", "web"];
const LABELS: [&str; 3] = ["f1", "f2", "f3"];

/// What a node holds: the value of `a` in memory, of `d` on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    memory: Option<String>,
    disk: Option<String>,
}

/// Labels of faults.
type Faults = BTreeSet<String>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    state: BranchState,
    fresh: bool,
    held: [Held; 2],
    /// Nodes whose machine has ended while the branch runs.
    down: [bool; 2],
    faults: Faults,
    /// What the switch does, where there is one.
    switch: Option<Faults>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Saved {
    held: [Held; 2],
    faults: Faults,
}

/// What should be: the branches of the only cluster, tags with what they restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    branches: BTreeMap<String, Line>,
    tags: BTreeMap<String, Saved>,
}

fn forget(held: &[Held; 2]) -> [Held; 2] {
    held.clone().map(|held| Held { memory: None, ..held })
}

fn address(branch: &str) -> String {
    format!("oak@{branch}")
}

impl Line {
    fn begun(saved: &Saved, state: BranchState) -> Self {
        Self {
            state,
            fresh: false,
            held: saved.held.clone(),
            down: [false; 2],
            faults: saved.faults.clone(),
            switch: Some(saved.faults.clone()),
        }
    }

    fn stopped(&self) -> Self {
        Self {
            state: BranchState::Stopped,
            held: forget(&self.held),
            down: [false; 2],
            switch: None,
            ..self.clone()
        }
    }

    fn started(&self) -> Self {
        Self {
            state: BranchState::Running,
            fresh: false,
            down: [false; 2],
            switch: Some(self.faults.clone()),
            ..self.clone()
        }
    }

    fn with_faults(&self, faults: Faults) -> Self {
        let switch = self.switch.is_some().then(|| faults.clone());
        Self { faults, switch, ..self.clone() }
    }

    fn is_whole(&self) -> bool {
        self.down == [false; 2]
    }

    /// Returns what a commit of it restores.
    fn saved(&self, full: bool) -> Saved {
        match full {
            true => Saved { held: self.held.clone(), faults: self.faults.clone() },
            false => Saved { held: forget(&self.held), faults: Faults::new() },
        }
    }

    fn crashed(&self, node: usize, restart: bool) -> Self {
        let mut after = self.clone();
        after.held[node].memory = None;
        after.down[node] = !restart;
        after
    }
}

/// What a verb is called with, and the branch as it leaves it; `None` where it makes no sense.
type Change = Option<(&'static str, Value, Line)>;

fn command(rng: &mut StdRng, branch: &str, line: &Line, count: u32) -> Change {
    let node = rng.random_range(0..NODES.len());
    if line.state != BranchState::Running || line.down[node] {
        return None;
    }
    let (value, mut after) = (format!("v{count}"), line.clone());
    let held = &mut after.held[node];
    let key = if rng.random_bool(0.5) {
        held.memory = Some(value.clone());
        "set-mem a"
    } else {
        held.disk = Some(value.clone());
        "set-disk d"
    };
    let params = json!({
        "cluster_name": address(branch), "node_name": NODES[node],
        "command": format!("{key} {value}"),
    });
    Some(("node_exec", params, after))
}

fn crash(rng: &mut StdRng, branch: &str, line: &Line) -> Change {
    let node = rng.random_range(0..NODES.len());
    let restart = rng.random_bool(0.5);
    // With its last node, a branch stops.
    let is_last = line.down[1 - node];
    if line.state != BranchState::Running || is_last && !restart {
        return None;
    }
    let params = json!({
        "cluster_name": address(branch), "node": NODES[node], "restart_after": restart,
    });
    Some(("node_crash", params, line.crashed(node, restart)))
}

fn fault(rng: &mut StdRng, branch: &str, line: &Line) -> Change {
    let label = *pick(rng, &LABELS);
    let mut faults = line.faults.clone();
    let cluster = address(branch);
    let (verb, params) = match (faults.contains(label), rng.random_range(0..4)) {
        (true, 0..3) => {
            faults.remove(label);
            ("net_heal", json!({"cluster_name": cluster, "fault_handle": label}))
        }
        (_, 3) => {
            faults.clear();
            ("net_heal_all", json!({"cluster_name": cluster}))
        }
        (false, 0) => {
            faults.insert(label.to_owned());
            let params = json!({
                "cluster_name": cluster, "source_node": "db", "loss_pct": 10, "label": label,
            });
            ("net_impair", params)
        }
        _ => {
            faults.insert(label.to_owned());
            let direction = *pick(rng, &["both", "a_to_b", "b_to_a"]);
            let params = json!({
                "cluster_name": cluster, "partition_a": ["db"], "label": label,
                "direction": direction,
            });
            ("net_partition", params)
        }
    };
    Some((verb, params, line.with_faults(faults)))
}

fn control(rng: &mut StdRng, branch: &str, line: &Line) -> Change {
    let address = address(branch);
    let start = || ("cluster_start", json!({"cluster_name": address}), line.started());
    let stop =
        |mode| ("cluster_stop", json!({"cluster_name": address, "mode": mode}), line.stopped());
    let vm = |action: &str| json!({"address": address, "action": action});
    Some(match (line.state, rng.random_range(0..4)) {
        (BranchState::Stopped, _) => start(),
        (BranchState::Running, _) if !line.is_whole() => start(),
        (BranchState::Running, 0) => stop("shutdown"),
        (BranchState::Running, 1) => stop("destroy"),
        (BranchState::Running, 2) => ("vm_control", vm("restart"), line.stopped().started()),
        (BranchState::Running, _) => {
            ("vm_control", vm("pause"), Line { state: BranchState::Paused, ..line.clone() })
        }
        (BranchState::Paused, 0) => stop("destroy"),
        (BranchState::Paused, 1) => start(),
        (BranchState::Paused, _) => {
            ("vm_control", vm("resume"), Line { state: BranchState::Running, ..line.clone() })
        }
    })
}

impl Model {
    /// Commits a branch; a snapshot is the same.
    fn commit(&self, rng: &mut StdRng, branch: &str, line: &Line) -> Option<Step<Self>> {
        let (tag, full) = (*pick(rng, &TAGS), rng.random_bool(0.8));
        if line.state == BranchState::Stopped || full && !line.is_whole() {
            return None;
        }
        let mut after = self.clone();
        after.tags.insert(tag.to_owned(), line.saved(full));
        let (verb, params) = if rng.random_bool(0.5) && !self.tags.contains_key(tag) {
            let params = json!({
                "cluster_name": address(branch), "snapshot_name": tag, "include_memory": full,
            });
            ("snapshot_create", params)
        } else {
            let kind = if full { "full" } else { "disk" };
            let warm = u32::from(full && rng.random_bool(0.3));
            let params = json!({
                "branch": address(branch), "tag": tag, "kind": kind, "warm": warm,
            });
            ("commit_create", params)
        };
        Some(Step { verb, params, after })
    }

    /// Branches a tag, or a branch as it is.
    fn branch(&self, rng: &mut StdRng, branch: &str, line: &Line) -> Option<Step<Self>> {
        let (name, tag) = (*pick(rng, &BRANCHES), *pick(rng, &TAGS));
        if self.branches.contains_key(name) {
            return None;
        }
        let (from, saved) = match self.tags.get(tag) {
            Some(saved) if rng.random_bool(0.6) => (address(tag), saved.clone()),
            _ if !line.is_whole() || line.fresh => return None,
            _ => (address(branch), line.saved(line.state != BranchState::Stopped)),
        };
        let mut after = self.clone();
        after.branches.insert(name.to_owned(), Line::begun(&saved, BranchState::Running));
        let params = json!({"from": from, "name": name});
        Some(Step { verb: "branch_create", params, after })
    }

    fn rollback(&self, rng: &mut StdRng, branch: &str, line: &Line) -> Option<Step<Self>> {
        let tag = *pick(rng, &TAGS);
        let saved = self.tags.get(tag)?;
        let save = rng.random_bool(0.5);
        let state = match line.state {
            BranchState::Paused => BranchState::Paused,
            _ => BranchState::Running,
        };
        let mut after = self.clone();
        after.branches.insert(branch.to_owned(), Line::begun(saved, state));
        let params = json!({"branch": address(branch), "target": address(tag), "save": save});
        Some(Step { verb: "branch_rollback", params, after })
    }

    /// Destroys the cluster, or puts it to rest.
    fn destroy(&self, rng: &mut StdRng) -> Step<Self> {
        let remove = rng.random_bool(0.5);
        let after = match remove {
            true => Self::default(),
            false => {
                let mut after = self.clone();
                for line in after.branches.values_mut() {
                    *line = line.stopped();
                }
                after
            }
        };
        let params = json!({"cluster_name": "oak", "remove_overlays": remove});
        Step { verb: "cluster_destroy", params, after }
    }

    fn define() -> Step<Self> {
        let saved = Saved { held: Default::default(), faults: Faults::new() };
        let line = Line { fresh: true, ..Line::begun(&saved, BranchState::Running).stopped() };
        let after = Self { branches: [("main".to_owned(), line)].into(), tags: BTreeMap::new() };
        Step { verb: "cluster_define", params: json!({"topology": TOPOLOGY}), after }
    }

    fn changed(&self, branch: &str, change: Change) -> Option<Step<Self>> {
        let (verb, params, line) = change?;
        let mut after = self.clone();
        after.branches.insert(branch.to_owned(), line);
        Some(Step { verb, params, after })
    }
}

/// Returns the labels of faults.
fn labels(faults: &[Fault]) -> Faults {
    faults.iter().map(|fault| fault.label.clone().unwrap_or_default()).collect()
}

async fn line(bench: &Bench, branch: &Branch) -> Line {
    let host = bench.world.connect().host();
    let names = NODES.map(|name| name.parse().unwrap());
    let layer =
        |name: &_| &branch.nodes.iter().find(|node| node.name == *name).unwrap().layers.root;
    let held = names.each_ref().map(|name| Held {
        memory: bench.world.memory_value(&branch.host_id, name, "a"),
        disk: bench.world.disk_value(layer(name), "d"),
    });
    let runs = branch.state != BranchState::Stopped;
    let down = names.each_ref().map(|name| runs && !bench.world.runs(&branch.host_id, name));
    let observed = host.network(&branch.host_id).await.ok();
    Line {
        state: branch.state,
        fresh: branch.fresh,
        held,
        down,
        faults: labels(&branch.faults),
        switch: observed.map(|observed| labels(&observed.faults)),
    }
}

impl Modelled for Model {
    const TELLTALE: &[&str] = &["node_exec", "node_crash"];

    fn step(&self, rng: &mut StdRng, count: u32) -> Option<Step<Self>> {
        let branch = *pick(rng, &BRANCHES);
        let roll = rng.random_range(0..100);
        if self.branches.is_empty() {
            return Some(Self::define());
        }
        let line = self.branches.get(branch)?;
        match roll {
            0..20 => self.changed(branch, command(rng, branch, line, count)),
            20..30 => self.changed(branch, crash(rng, branch, line)),
            30..45 => self.changed(branch, fault(rng, branch, line)),
            45..60 => self.changed(branch, control(rng, branch, line)),
            60..72 => self.commit(rng, branch, line),
            72..82 => self.branch(rng, branch, line),
            82..90 => self.rollback(rng, branch, line),
            90..93 if branch != "main" => {
                let mut after = self.clone();
                after.branches.remove(branch);
                let params = json!({"branch": address(branch), "force": true});
                Some(Step { verb: "branch_delete", params, after })
            }
            93..95 => {
                let tag = *pick(rng, &TAGS);
                let mut after = self.clone();
                after.tags.remove(tag)?;
                let params = json!({"commit": address(tag), "force": true});
                Some(Step { verb: "commit_delete", params, after })
            }
            95..97 => Some(self.destroy(rng)),
            97..100 => Some(Step { verb: "gc", params: json!({}), after: self.clone() }),
            _ => None,
        }
    }

    async fn look(bench: &Bench) -> Self {
        let store = bench.world.connect().store();
        let mut model = Self::default();
        let clusters: Vec<Cluster> = store.list(&Query::all()).await.unwrap();
        for cluster in clusters {
            let scope = Query::scope(cluster.id.as_str());
            let branches: Vec<Branch> = store.list(&scope).await.unwrap();
            for branch in branches.iter().filter(|branch| branch.role == BranchRole::Live) {
                model.branches.insert(branch.name.to_string(), line(bench, branch).await);
            }
            let tags: Vec<Tag> = store.list(&scope).await.unwrap();
            for tag in tags {
                let commit: Commit = store.get(tag.commit.as_str()).await.unwrap().unwrap();
                let held = NODES.map(|name| {
                    let name = name.parse().unwrap();
                    let node = commit.nodes.iter().find(|node| node.name == name).unwrap();
                    Held {
                        memory: bench.world.commit_value(&commit.id, &name, "a"),
                        disk: bench.world.disk_value(&node.layers.root, "d"),
                    }
                });
                let faults = commit.network.map(|network| labels(&network.faults));
                let saved = Saved { held, faults: faults.unwrap_or_default() };
                model.tags.insert(tag.name.to_string(), saved);
            }
        }
        model
    }

    async fn restored(&self, bench: &Bench, context: &str) {
        for (tag, saved) in &self.tags {
            bench.ok("commit_verify", json!({"commit": address(tag)})).await;
            let params = json!({"from": address(tag), "name": "check"});
            bench.ok("branch_create", params).await;
            let seen = Self::look(bench).await;
            let expected = Line::begun(saved, BranchState::Running);
            assert_eq!(seen.branches["check"], expected, "{context}: {tag}");
            bench.ok("branch_delete", json!({"branch": "oak@check", "force": true})).await;
        }
    }
}
