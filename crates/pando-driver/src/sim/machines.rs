//! Machines of a simulated world: how they start, are cut and observed, and what they refuse.

use std::collections::{BTreeMap, BTreeSet};

use pando_model::commit::{Below, CommitMemory};
use pando_model::host::*;
use pando_model::machine::{Accelerator, MachineProfile};
use pando_model::{BranchId, BranchState, ByteCount, CommitId, CommitKind, LayerId, Name, Uplink};

use super::network;
use super::state::{CommitFiles, Contents, Keeper, Node, SavedNode, State, missing, refused};

pub(crate) fn profile(state: &State) -> MachineProfile {
    MachineProfile {
        qemu_version: state.qemu_version.clone(),
        machine: "q35".to_owned(),
        cpu: "max".to_owned(),
        accelerator: Accelerator::Tcg,
    }
}

/// Returns the values of `now` that `before` has not, and `None` for those that went.
fn difference(before: &Contents, now: &Contents) -> BTreeMap<String, Option<String>> {
    let gone = before.keys().filter(|key| !now.contains_key(*key));
    let changed = now.iter().filter(|(key, value)| before.get(*key) != Some(value));
    gone.map(|key| (key.clone(), None))
        .chain(changed.map(|(key, value)| (key.clone(), Some(value.clone()))))
        .collect()
}

/// Checks that a layer may become a machine's writable disk.
fn writable(state: &State, layer: &LayerId) -> Result<(), HostError> {
    if !state.layers.contains_key(layer) {
        return Err(missing(layer));
    }
    if let Some(user) = state.layer_user(layer) {
        return Err(refused("open a disk", format!("{layer}: {user}")));
    }
    let committed = state
        .commits
        .iter()
        .find(|(_, files)| files.nodes.values().any(|n| n.layers.iter().any(|id| id == layer)));
    match committed {
        Some((commit, _)) => Err(refused("open a disk", format!("{layer} is {commit}'s"))),
        None => Ok(()),
    }
}

fn start_node(state: &State, spec: &NodeSpec) -> Result<Node, HostError> {
    if !state.images.contains_key(&spec.image) {
        return Err(missing(&spec.image));
    }
    for layer in spec.layers.iter() {
        writable(state, layer)?;
    }
    if spec.layers.extra.len() != spec.shape.extra_disks.len() {
        return Err(refused("start", format!("{} has other disks than its shape", spec.name)));
    }
    let (mut memory, base) = match &spec.start {
        NodeStart::Boot => (Contents::new(), None),
        NodeStart::Restore { commit, saved_as } => {
            let files = state.commits.get(commit).ok_or_else(|| missing(commit))?;
            let saved = files.nodes.get(saved_as).ok_or_else(|| missing(saved_as))?;
            let on_the_commits = spec.layers.disks().all(|(disk, layer)| {
                let below = state.layers.get(layer).map(|file| &file.layer.below);
                saved.layers.get(disk).cloned().map(Below::Layer).as_ref() == below
            });
            if !on_the_commits || !spec.layers.fits(&saved.layers) {
                let what = format!("the disks of {} for {commit}", spec.name);
                return Err(HostError::Corrupt { what, detail: "not the commit's".to_owned() });
            }
            if files.qemu_version != state.qemu_version {
                return Err(HostError::Incompatible {
                    commit: commit.clone(),
                    difference: format!("QEMU {}", files.qemu_version),
                });
            }
            let flat = state.flat.get(&(commit.clone(), saved_as.clone()));
            let flat = flat.ok_or_else(|| missing(format!("the flat memory of {commit}")))?;
            (flat.clone(), Some(commit.clone()))
        }
    };
    let base_memory = memory.clone();
    if let Some(identity) = &spec.identity {
        memory.insert("hostname".to_owned(), identity.hostname.clone());
        memory.insert("login.root".to_owned(), identity.authorized_keys.join("\n"));
        memory.insert("machine-id".to_owned(), identity.machine_id.clone());
        for dns in identity.interfaces.iter().flat_map(|interface| &interface.dns) {
            memory.insert("name-server".to_owned(), dns.clone());
        }
    }
    if spec.uplink == Uplink::Nat {
        // What each start of such a node counts up.
        let starts = memory.get("uplinks").and_then(|count| count.parse().ok()).unwrap_or(0);
        memory.insert("uplinks".to_owned(), (starts + 1_u32).to_string());
    }
    Ok(Node {
        memory,
        delta_base: base.clone(),
        base,
        base_memory,
        layers: spec.layers.clone(),
        crashed: false,
        powered_off: false,
    })
}

pub(crate) fn start(state: &mut State, spec: &BranchSpec) -> Result<StartReport, HostError> {
    let report =
        StartReport { answered_us: 100_000, ready_us: 150_000, inherited: BTreeMap::new() };
    if let Some(keeper) = state.keepers.get(&spec.branch) {
        if keeper.spec == *spec {
            return Ok(report);
        }
        return Err(HostError::WrongState {
            branch: spec.branch.clone(),
            is: format!("running as generation {}", keeper.spec.generation),
            wanted: "stopped".to_owned(),
        });
    }
    let mut nodes = BTreeMap::new();
    for node in &spec.nodes {
        nodes.insert(node.name.clone(), start_node(state, node)?);
    }
    let after = match spec.after {
        AfterStart::Run => BranchState::Running,
        AfterStart::Park | AfterStart::Hold => BranchState::Paused,
    };
    let faults = network::first_faults(state, spec)?;
    state.branch_dirs.insert(spec.branch.clone());
    state.ends.remove(&spec.branch);
    let met = BTreeMap::new();
    let keeper = Keeper {
        spec: spec.clone(),
        state: after,
        nodes,
        faults,
        met,
        copies_frames: false,
        ports: BTreeSet::new(),
    };
    state.keepers.insert(spec.branch.clone(), keeper);
    Ok(report)
}

pub(crate) fn cut(
    state: &mut State,
    branch: &BranchId,
    spec: &CutSpec,
) -> Result<CutReport, HostError> {
    let made = state.spools.get(&(branch.clone(), spec.commit.clone()));
    if made.is_some() || state.commits.contains_key(&spec.commit) {
        // Its overlays are the disks' tops by now, and cannot be opened again.
        return Err(refused("cut", format!("{} was made already", spec.commit)));
    }
    let profile = profile(state);
    network::all_run(state, branch, spec.kind)?;
    let network = network::saved(state, branch, spec)?;
    let mut saved = BTreeMap::new();
    let mut reports = Vec::new();
    for wanted in &spec.nodes {
        let node = state.node(branch, &wanted.name)?;
        let tops = node.layers.clone();
        let (base, base_memory, memory) =
            (node.delta_base.clone(), node.base_memory.clone(), node.memory.clone());
        if !wanted.next.fits(&tops) {
            return Err(refused("cut", format!("{} has other disks", wanted.name)));
        }
        for (next, top) in wanted.next.iter().zip(tops.iter()) {
            let file = state.layers.get(next).ok_or_else(|| missing(next))?;
            if file.layer.below != Below::Layer(top.clone()) || !file.data.is_empty() {
                return Err(refused("cut", format!("{next} is not an empty overlay")));
            }
        }
        let delta = difference(&base_memory, &memory);
        let full = (spec.kind == CommitKind::Full).then(|| CommitMemory {
            base,
            pages: delta.len() as u64,
            bytes: ByteCount(4096 * delta.len() as u64),
            digest: format!("{}-{}", spec.commit, wanted.name),
            device_digest: "device".to_owned(),
        });
        reports.push(CutNodeReport {
            name: wanted.name.clone(),
            layers: tops.clone(),
            memory: full.clone(),
            profile: full.as_ref().map(|_| profile.clone()),
            disk_bytes: ByteCount(4096),
        });
        saved.insert(wanted.name.clone(), SavedNode { memory: full, delta, layers: tops });
    }
    for wanted in &spec.nodes {
        let node = state.node(branch, &wanted.name)?;
        node.layers = wanted.next.clone();
        if spec.kind == CommitKind::Full {
            node.delta_base = Some(spec.commit.clone());
            node.base_memory = node.memory.clone();
        }
    }
    if spec.then == AfterCut::StayPaused {
        state.keeper(branch)?.state = BranchState::Paused;
    }
    let report = CutReport {
        commit: spec.commit.clone(),
        pause_us: 12_000,
        total_us: 40_000,
        nodes: reports,
        network,
        failed: None,
    };
    let files = CommitFiles {
        report: report.clone(),
        nodes: saved,
        qemu_version: state.qemu_version.clone(),
        damaged: false,
    };
    state.spools.insert((branch.clone(), spec.commit.clone()), files);
    Ok(report)
}

pub(crate) fn discard_commit(state: &mut State, commit: &CommitId) -> Result<(), HostError> {
    let based = |memory: &Option<CommitMemory>| {
        memory.as_ref().is_some_and(|memory| memory.base.as_ref() == Some(commit))
    };
    for (other, files) in &state.commits {
        if other != commit && files.nodes.values().any(|node| based(&node.memory)) {
            return Err(refused("remove a commit", format!("{other} is a delta on {commit}")));
        }
    }
    for (branch, keeper) in &state.keepers {
        let needs = |node: &Node| [&node.base, &node.delta_base].contains(&&Some(commit.clone()));
        if keeper.nodes.values().any(needs) {
            return Err(refused("remove a commit", format!("{branch} runs on {commit}")));
        }
    }
    state.commits.remove(commit);
    state.flat.retain(|(of, _), _| of != commit);
    Ok(())
}

/// Returns how a node's machine ended.
pub(crate) fn end(node: &Node) -> NodeEnd {
    let (kind, why) = match node.powered_off {
        true => (EndKind::PoweredOff, "the guest shut down"),
        false => (EndKind::Crashed, "killed"),
    };
    NodeEnd { kind, why: why.to_owned() }
}

pub(crate) fn observation(keeper: &Keeper) -> Observation {
    let nodes = keeper.nodes.iter().map(|(name, node)| NodeObservation {
        name: name.clone(),
        state: if node.crashed { BranchState::Stopped } else { keeper.state },
        ended: node.crashed.then(|| end(node)),
        trouble: None,
        pid: (!node.crashed).then_some(4242),
        layers: node.layers.clone(),
        memory_used: Some(ByteCount::from_mib(38)),
        cpu_ms: 100,
        disk_used: ByteCount(4096),
        answers: keeper.state == BranchState::Running && !node.crashed,
        up_ms: 1_000,
    });
    Observation {
        state: if keeper.nodes.values().all(|node| node.crashed) {
            BranchState::Stopped
        } else {
            keeper.state
        },
        generation: keeper.spec.generation,
        accelerator: Some(keeper.spec.accelerator),
        keeper_pid: 4241,
        keeper_memory: Some(ByteCount::from_mib(4)),
        keeper_cpu_ms: 0,
        nodes: nodes.collect(),
        network_ended: None,
    }
}

/// Checks that a node's guest can answer.
pub(crate) fn answering(
    state: &mut State,
    branch: &BranchId,
    node: &Name,
) -> Result<(), HostError> {
    let crashed = state.node(branch, node)?.crashed;
    if crashed {
        return Err(HostError::Machine { node: node.to_string(), detail: "killed".to_owned() });
    }
    if state.keeper(branch)?.state == BranchState::Running {
        return Ok(());
    }
    Err(HostError::WrongState {
        branch: branch.clone(),
        is: "paused".to_owned(),
        wanted: "running".to_owned(),
    })
}
