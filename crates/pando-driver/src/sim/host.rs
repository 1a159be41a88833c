//! The branch host of a simulated world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use pando_model::commit::{Below, CommitMemory, Layer};
use pando_model::guest::{
    ExecOutcome, ExecSpec, FileFacts, FileKind, GuestFacts, InterfaceFacts, PushSpec,
};
use pando_model::host::*;
use pando_model::machine::{Accelerator, MachineProfile};
use pando_model::{BranchId, BranchState, ByteCount, CommitId, CommitKind, LayerId, Name, Uplink};
use tokio::sync::mpsc;

use super::Connection;
use super::faults::Outcome;
use super::guest;
use super::state::{
    CommitFiles, Contents, Keeper, LayerFile, Node, SavedNode, State, missing, refused,
};
use crate::host::{BranchHost, ExecIo};
use crate::progress::Reporter;

struct SimHost(Connection);

impl Connection {
    /// Returns the world's branch host.
    pub fn host(&self) -> Arc<dyn BranchHost> {
        Arc::new(SimHost(self.clone()))
    }
}

impl SimHost {
    /// Runs one call's effect under the fault plan.
    async fn act<T: Send>(
        &self,
        name: &str,
        effect: impl FnOnce(&mut State) -> Result<T, HostError> + Send,
    ) -> Result<T, HostError> {
        let failed = || refused(name, "simulated failure");
        tokio::task::yield_now().await;
        self.0.world.faults.may_begin(name).await;
        let (before, after) = self.0.world.faults.decide(name, self.0.life);
        match before {
            Outcome::Go => {}
            Outcome::Fail => return Err(failed()),
            Outcome::Hang => std::future::pending().await,
        }
        let result = effect(&mut self.0.world.state());
        match after {
            Outcome::Go => result,
            Outcome::Fail => result.and_then(|_| Err(failed())),
            Outcome::Hang => {
                self.0.world.faults.crash();
                std::future::pending().await
            }
        }
    }
}

fn profile(state: &State) -> MachineProfile {
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
        .find(|(_, files)| files.nodes.values().any(|node| node.layer == *layer));
    match committed {
        Some((commit, _)) => Err(refused("open a disk", format!("{layer} is {commit}'s"))),
        None => Ok(()),
    }
}

fn start_node(state: &State, spec: &NodeSpec) -> Result<Node, HostError> {
    if !state.images.contains_key(&spec.image) {
        return Err(missing(&spec.image));
    }
    writable(state, &spec.layer)?;
    if let Some(vars) = &spec.vars_layer {
        writable(state, vars)?;
    }
    let (mut memory, base) = match &spec.start {
        NodeStart::Boot => (Contents::new(), None),
        NodeStart::Restore { commit, saved_as } => {
            let files = state.commits.get(commit).ok_or_else(|| missing(commit))?;
            let saved = files.nodes.get(saved_as).ok_or_else(|| missing(saved_as))?;
            let below = state.layers.get(&spec.layer).map(|file| &file.layer.below);
            if below != Some(&Below::Layer(saved.layer.clone())) {
                let what = format!("the disk of {} for {commit}", spec.name);
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
        base,
        base_memory,
        layer: spec.layer.clone(),
        vars_layer: spec.vars_layer.clone(),
    })
}

fn start(state: &mut State, spec: &BranchSpec) -> Result<StartReport, HostError> {
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
    state.branch_dirs.insert(spec.branch.clone());
    state.keepers.insert(spec.branch.clone(), Keeper { spec: spec.clone(), state: after, nodes });
    Ok(report)
}

fn cut(state: &mut State, branch: &BranchId, spec: &CutSpec) -> Result<CutReport, HostError> {
    let made = state.spools.get(&(branch.clone(), spec.commit.clone()));
    if let Some(files) = made.or_else(|| state.commits.get(&spec.commit)) {
        return Ok(files.report.clone());
    }
    let profile = profile(state);
    let mut saved = BTreeMap::new();
    let mut reports = Vec::new();
    for wanted in &spec.nodes {
        let node = state.node(branch, &wanted.name)?;
        let top = node.layer.clone();
        let (base, base_memory, memory) =
            (node.base.clone(), node.base_memory.clone(), node.memory.clone());
        let vars = node.vars_layer.clone();
        let next =
            state.layers.get(&wanted.next_layer).ok_or_else(|| missing(&wanted.next_layer))?;
        if next.layer.below != Below::Layer(top.clone()) || !next.data.is_empty() {
            return Err(refused("cut", format!("{} is not an empty overlay", wanted.next_layer)));
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
            layer: top.clone(),
            vars_layer: vars,
            memory: full.clone(),
            profile: full.as_ref().map(|_| profile.clone()),
            disk_bytes: ByteCount(4096),
        });
        saved.insert(wanted.name.clone(), SavedNode { memory: full, delta, layer: top });
    }
    for wanted in &spec.nodes {
        let node = state.node(branch, &wanted.name)?;
        node.layer = wanted.next_layer.clone();
        if wanted.next_vars_layer.is_some() {
            node.vars_layer.clone_from(&wanted.next_vars_layer);
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

fn discard_commit(state: &mut State, commit: &CommitId) -> Result<(), HostError> {
    let based = |memory: &Option<CommitMemory>| {
        memory.as_ref().is_some_and(|memory| memory.base.as_ref() == Some(commit))
    };
    for (other, files) in &state.commits {
        if other != commit && files.nodes.values().any(|node| based(&node.memory)) {
            return Err(refused("remove a commit", format!("{other} is a delta on {commit}")));
        }
    }
    for (branch, keeper) in &state.keepers {
        if keeper.nodes.values().any(|node| node.base.as_ref() == Some(commit)) {
            return Err(refused("remove a commit", format!("{branch} runs on {commit}")));
        }
    }
    state.commits.remove(commit);
    state.flat.retain(|(of, _), _| of != commit);
    Ok(())
}

fn observation(keeper: &Keeper) -> Observation {
    let nodes = keeper.nodes.iter().map(|(name, node)| NodeObservation {
        name: name.clone(),
        state: keeper.state,
        ended: None,
        trouble: None,
        pid: Some(4242),
        layer: node.layer.clone(),
        vars_layer: node.vars_layer.clone(),
        memory_used: ByteCount::from_mib(38),
        cpu_ms: 100,
        disk_used: ByteCount(4096),
        answers: keeper.state == BranchState::Running,
        up_ms: 1_000,
    });
    Observation {
        state: keeper.state,
        generation: keeper.spec.generation,
        keeper_pid: 4241,
        keeper_memory: ByteCount::from_mib(4),
        nodes: nodes.collect(),
    }
}

/// Checks that a branch's guests can answer.
fn answering(state: &mut State, branch: &BranchId) -> Result<(), HostError> {
    let keeper = state.keeper(branch)?;
    if keeper.state == BranchState::Running {
        return Ok(());
    }
    Err(HostError::WrongState {
        branch: branch.clone(),
        is: "paused".to_owned(),
        wanted: "running".to_owned(),
    })
}

fn facts_of_file(path: &str, mode: u32, size: u64) -> FileFacts {
    FileFacts { path: path.to_owned(), kind: FileKind::File, mode, size, uid: 0, gid: 0 }
}

#[async_trait]
impl BranchHost for SimHost {
    async fn profile(&self) -> Result<MachineProfile, HostError> {
        Ok(profile(&self.0.world.state()))
    }

    async fn capacity(&self) -> Result<Capacity, HostError> {
        let state = self.0.world.state();
        Ok(Capacity {
            memory_total: ByteCount::from_gib(64),
            memory_available: state.memory_free,
            disk_total: ByteCount::from_gib(64),
            disk_free: state.disk_free,
            processors: 2,
        })
    }

    async fn start(&self, spec: &BranchSpec, _: &Reporter) -> Result<StartReport, HostError> {
        self.act("host.start", |state| start(state, spec)).await
    }

    async fn observe(&self, branch: &BranchId) -> Result<Option<Observation>, HostError> {
        self.act("host.observe", |state| Ok(state.keepers.get(branch).map(observation))).await
    }

    async fn list(&self) -> Result<Vec<BranchId>, HostError> {
        self.act("host.list", |state| {
            let all: BTreeSet<&BranchId> = state.keepers.keys().chain(&state.branch_dirs).collect();
            Ok(all.into_iter().cloned().collect())
        })
        .await
    }

    async fn pause(&self, branch: &BranchId) -> Result<(), HostError> {
        self.act("host.pause", |state| {
            state.keeper(branch)?.state = BranchState::Paused;
            Ok(())
        })
        .await
    }

    async fn resume(&self, branch: &BranchId, _: Clock) -> Result<(), HostError> {
        self.act("host.resume", |state| {
            state.keeper(branch)?.state = BranchState::Running;
            Ok(())
        })
        .await
    }

    async fn stop(&self, branch: &BranchId, _: StopMode) -> Result<(), HostError> {
        self.act("host.stop", |state| {
            state.keepers.remove(branch);
            Ok(())
        })
        .await
    }

    async fn discard_branch(&self, branch: &BranchId) -> Result<(), HostError> {
        self.act("host.discard_branch", |state| {
            if state.keepers.contains_key(branch) {
                return Err(refused("remove a branch", format!("{branch} runs")));
            }
            state.branch_dirs.remove(branch);
            state.spools.retain(|(of, _), _| of != branch);
            Ok(())
        })
        .await
    }

    async fn cut(
        &self,
        branch: &BranchId,
        spec: &CutSpec,
        _: &Reporter,
    ) -> Result<CutReport, HostError> {
        self.act("host.cut", |state| cut(state, branch, spec)).await
    }

    async fn adopt_cut(
        &self,
        branch: &BranchId,
        commit: &CommitId,
    ) -> Result<Option<CutReport>, HostError> {
        self.act("host.adopt_cut", |state| {
            if let Some(files) = state.spools.remove(&(branch.clone(), commit.clone())) {
                state.commits.insert(commit.clone(), files);
            }
            Ok(state.commits.get(commit).map(|files| files.report.clone()))
        })
        .await
    }

    async fn make_anonymous(
        &self,
        branch: &BranchId,
        node: &Name,
        _: std::time::Duration,
    ) -> Result<(), HostError> {
        self.act("host.make_anonymous", |state| {
            let memory = &mut state.node(branch, node)?.memory;
            memory.insert("anonymous".to_owned(), "yes".to_owned());
            Ok(())
        })
        .await
    }

    async fn materialise(&self, chain: &MemoryChain, _: &Reporter) -> Result<(), HostError> {
        self.act("host.materialise", |state| {
            let memory = state.flatten(chain)?;
            let newest = chain.links.first().ok_or_else(|| missing("a link of the chain"))?;
            state.flat.insert((newest.commit.clone(), newest.node.clone()), memory);
            Ok(())
        })
        .await
    }

    async fn verify(&self, chain: &MemoryChain, _: &str) -> Result<(), HostError> {
        self.act("host.verify", |state| state.flatten(chain).map(|_| ())).await
    }

    async fn trim_memory(&self, budget: ByteCount) -> Result<ByteCount, HostError> {
        self.act("host.trim_memory", |state| {
            if budget > ByteCount(0) {
                return Ok(ByteCount(0));
            }
            let used: BTreeSet<CommitId> = state
                .keepers
                .values()
                .flat_map(|keeper| keeper.nodes.values().filter_map(|node| node.base.clone()))
                .collect();
            let before = state.flat.len();
            state.flat.retain(|(commit, _), _| used.contains(commit));
            Ok(ByteCount(4096 * (before - state.flat.len()) as u64))
        })
        .await
    }

    async fn discard_commit(&self, commit: &CommitId) -> Result<(), HostError> {
        self.act("host.discard_commit", |state| discard_commit(state, commit)).await
    }

    async fn list_commits(&self) -> Result<Vec<CommitId>, HostError> {
        self.act("host.list_commits", |state| Ok(state.commits.keys().cloned().collect())).await
    }

    async fn create_layer(&self, layer: &Layer) -> Result<(), HostError> {
        self.act("host.create_layer", |state| {
            match &layer.below {
                Below::Image(image) | Below::ImageVars(image) => {
                    state.images.get(image).ok_or_else(|| missing(image))?;
                }
                Below::Layer(below) => {
                    state.layers.get(below).ok_or_else(|| missing(below))?;
                }
            }
            let file = || LayerFile { layer: layer.clone(), data: BTreeMap::new() };
            let there = state.layers.entry(layer.id.clone()).or_insert_with(file);
            if there.layer != *layer {
                return Err(refused("make a layer", format!("{} exists, other", layer.id)));
            }
            Ok(())
        })
        .await
    }

    async fn discard_layer(&self, layer: &LayerId) -> Result<(), HostError> {
        self.act("host.discard_layer", |state| {
            if let Some(user) = state.layer_user(layer) {
                return Err(refused("remove a layer", format!("{layer}: {user}")));
            }
            state.layers.remove(layer);
            Ok(())
        })
        .await
    }

    async fn list_layers(&self) -> Result<BTreeMap<LayerId, ByteCount>, HostError> {
        self.act("host.list_layers", |state| {
            Ok(state.layers.keys().map(|id| (id.clone(), ByteCount(4096))).collect())
        })
        .await
    }

    async fn flatten(
        &self,
        branch: &BranchId,
        node: &Name,
        keep: &Below,
        _: &Reporter,
    ) -> Result<(), HostError> {
        self.act("host.flatten", |state| {
            let top = state.node(branch, node)?.layer.clone();
            let mut data = BTreeMap::new();
            for id in state.chain(&top).iter().rev() {
                let Some(file) = state.layers.get(id) else { continue };
                if *keep == Below::Layer(id.clone()) {
                    data.clear();
                } else {
                    data.extend(file.data.clone());
                }
            }
            let file = state.layers.get_mut(&top).ok_or_else(|| missing(&top))?;
            file.layer.below = keep.clone();
            file.data = data;
            Ok(())
        })
        .await
    }

    async fn exec(
        &self,
        branch: &BranchId,
        node: &Name,
        spec: &ExecSpec,
        io: ExecIo,
    ) -> Result<ExecOutcome, HostError> {
        let act = self
            .act("host.exec", |state| {
                answering(state, branch)?;
                guest::act(state, branch, node, spec)
            })
            .await?;
        Ok(guest::perform(act, spec, io).await)
    }

    async fn push(
        &self,
        branch: &BranchId,
        node: &Name,
        spec: &PushSpec,
        mut chunks: mpsc::Receiver<Vec<u8>>,
    ) -> Result<FileFacts, HostError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            bytes.extend(chunk);
        }
        self.act("host.push", |state| {
            answering(state, branch)?;
            if bytes.len() as u64 != spec.size {
                return Err(HostError::GuestRefused {
                    node: node.to_string(),
                    what: "write the file".to_owned(),
                    detail: "not all bytes arrived".to_owned(),
                });
            }
            let layer = state.node(branch, node)?.layer.clone();
            let file = state.layers.get_mut(&layer).ok_or_else(|| missing(&layer))?;
            file.data.insert(spec.path.clone(), Some(String::from_utf8_lossy(&bytes).into()));
            Ok(facts_of_file(&spec.path, spec.mode, spec.size))
        })
        .await
    }

    async fn pull(
        &self,
        branch: &BranchId,
        node: &Name,
        path: &str,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> Result<FileFacts, HostError> {
        let contents = self
            .act("host.pull", |state| {
                answering(state, branch)?;
                let layer = state.node(branch, node)?.layer.clone();
                state.disk(&layer).remove(path).ok_or_else(|| HostError::GuestRefused {
                    node: node.to_string(),
                    what: format!("read {path}"),
                    detail: "no such file".to_owned(),
                })
            })
            .await?;
        let size = contents.len() as u64;
        // Nobody has to listen.
        let _ = chunks.send(contents.into_bytes()).await;
        Ok(facts_of_file(path, 0o644, size))
    }

    async fn facts(&self, branch: &BranchId, node: &Name) -> Result<GuestFacts, HostError> {
        self.act("host.facts", |state| {
            answering(state, branch)?;
            let hostname = state.node(branch, node)?.memory.get("hostname").cloned();
            Ok(GuestFacts {
                hostname: hostname.unwrap_or_else(|| "localhost".to_owned()),
                kernel: "6.1.0".to_owned(),
                os: "Simulated Debian".to_owned(),
                boot_id: "boot".to_owned(),
                uptime_ms: 1_000,
                load_percent: 0,
                memory_total: ByteCount::from_mib(512),
                memory_available: ByteCount::from_mib(400),
                disk_total: ByteCount::from_gib(2),
                disk_free: ByteCount::from_gib(1),
                interfaces: vec![InterfaceFacts {
                    name: "eth0".to_owned(),
                    mac: "52:54:00:12:34:56".to_owned(),
                    up: true,
                    addresses: vec!["10.0.2.15/24".to_owned()],
                }],
                services: vec!["ssh.service".to_owned()],
                failed_services: Vec::new(),
                guest_version: "0.1.0".to_owned(),
            })
        })
        .await
    }

    async fn forward(&self, branch: &BranchId, node: &Name, port: u16) -> Result<u16, HostError> {
        self.act("host.forward", |state| {
            state.node(branch, node)?;
            Ok(20_000 + port)
        })
        .await
    }

    async fn console(
        &self,
        branch: &BranchId,
        _: &Name,
        offset: i64,
        limit: u64,
    ) -> Result<(Vec<u8>, u64), HostError> {
        self.act("host.console", |state| {
            if !state.branch_dirs.contains(branch) {
                return Err(missing(format!("the console of {branch}")));
            }
            let text = b"Linux version 6.1.0\nlogin: ";
            let start = match usize::try_from(offset) {
                Ok(start) => start.min(text.len()),
                Err(_) => text.len().saturating_sub(offset.unsigned_abs() as usize),
            };
            let end = text.len().min(start.saturating_add(limit as usize));
            Ok((text.get(start..end).unwrap_or_default().to_vec(), end as u64))
        })
        .await
    }
}
