//! The branch host of a simulated world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use pando_model::capture::{Aspect, Capture};
use pando_model::commit::{Below, Layer};
use pando_model::fault::Fault;
use pando_model::guest::{
    ExecOutcome, ExecSpec, FileFacts, FileKind, GuestFacts, InterfaceFacts, PushSpec,
};
use pando_model::host::*;
use pando_model::machine::MachineProfile;
use pando_model::network::{
    CaptureLimits, CommitNetwork, FrameCapture, NetworkObservation, ProbeResult, ProbeTarget,
};
use pando_model::{
    BranchId, BranchState, ByteCount, CommitId, DiskRole, KernelNetwork, LayerId, Name,
};
use tokio::sync::mpsc;

use super::Connection;
use super::faults::Outcome;
use super::state::{LayerFile, State, missing, refused};
use super::{guest, machines, network};
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

fn facts_of_file(path: &str, mode: u32, size: u64) -> FileFacts {
    FileFacts { path: path.to_owned(), kind: FileKind::File, mode, size, uid: 0, gid: 0 }
}

#[async_trait]
impl BranchHost for SimHost {
    async fn profile(&self) -> Result<MachineProfile, HostError> {
        Ok(machines::profile(&self.0.world.state()))
    }

    async fn kernel_network(&self) -> Result<KernelNetwork, HostError> {
        Ok(self.0.world.state().kernel_network.clone())
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
        self.act("host.start", |state| machines::start(state, spec)).await
    }

    async fn observe(&self, branch: &BranchId) -> Result<Option<Observation>, HostError> {
        self.act("host.observe", |state| Ok(state.keepers.get(branch).map(machines::observation)))
            .await
    }

    async fn measure(&self, branch: &BranchId) -> Result<Option<Observation>, HostError> {
        self.observe(branch).await
    }

    async fn ends(&self, branch: &BranchId) -> Result<BTreeMap<Name, NodeEnd>, HostError> {
        self.act("host.ends", |state| Ok(state.ends.get(branch).cloned().unwrap_or_default())).await
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
            state.frames.remove(branch);
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
        self.act("host.cut", |state| machines::cut(state, branch, spec)).await
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

    async fn verify_network(
        &self,
        commit: &CommitId,
        network: &CommitNetwork,
    ) -> Result<(), HostError> {
        self.act("host.verify_network", |state| network::verify(state, commit, network)).await
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
        self.act("host.discard_commit", |state| machines::discard_commit(state, commit)).await
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
                Below::Nothing => {}
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

    async fn sync_layers(&self, layers: &[LayerId]) -> Result<(), HostError> {
        self.act("host.sync_layers", |state| {
            match layers.iter().find(|layer| !state.layers.contains_key(*layer)) {
                Some(layer) => Err(HostError::Missing { what: layer.to_string() }),
                None => Ok(()),
            }
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
        disk: DiskRole,
        keep: &Below,
        _: &Reporter,
    ) -> Result<(), HostError> {
        self.act("host.flatten", |state| {
            let top = state.node(branch, node)?.layers.get(disk).cloned();
            let top = top.ok_or_else(|| missing(format!("the {disk:?} disk of {node}")))?;
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
                machines::answering(state, branch, node)?;
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
            machines::answering(state, branch, node)?;
            if bytes.len() as u64 != spec.size {
                return Err(HostError::GuestRefused {
                    node: node.to_string(),
                    what: "write the file".to_owned(),
                    detail: "not all bytes arrived".to_owned(),
                });
            }
            let layer = state.node(branch, node)?.layers.root.clone();
            state.write(&layer, &spec.path, String::from_utf8_lossy(&bytes).into())?;
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
                machines::answering(state, branch, node)?;
                let layer = state.node(branch, node)?.layers.root.clone();
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
            machines::answering(state, branch, node)?;
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

    async fn capture(
        &self,
        branch: &BranchId,
        node: &Name,
        aspects: &[Aspect],
    ) -> Result<Capture, HostError> {
        self.act("host.capture", |state| {
            machines::answering(state, branch, node)?;
            guest::capture(state, branch, node, aspects)
        })
        .await
    }

    async fn digests(
        &self,
        branch: &BranchId,
        node: &Name,
        paths: &[String],
    ) -> Result<BTreeMap<String, String>, HostError> {
        self.act("host.digests", |state| {
            machines::answering(state, branch, node)?;
            let layer = state.node(branch, node)?.layers.root.clone();
            let mut disk = state.disk(&layer);
            let digest = |path: &String| Some((path.clone(), format!("of {}", disk.remove(path)?)));
            Ok(paths.iter().filter_map(digest).collect())
        })
        .await
    }

    async fn forward(
        &self,
        branch: &BranchId,
        node: &Name,
        port: u16,
        host_port: Option<u16>,
    ) -> Result<u16, HostError> {
        self.act("host.forward", |state| {
            state.node(branch, node)?;
            let Some(wanted) = host_port else { return Ok(20_000 + port) };
            if state.keeper(branch)?.ports.contains(&wanted) {
                return Ok(wanted);
            }
            state.port_is_free(wanted)?;
            state.keeper(branch)?.ports.insert(wanted);
            Ok(wanted)
        })
        .await
    }

    async fn check_ports(&self, ports: &[u16]) -> Result<(), HostError> {
        self.act("host.check_ports", |state| {
            ports.iter().try_for_each(|port| state.port_is_free(*port))
        })
        .await
    }

    async fn greeting(
        &self,
        branch: &BranchId,
        node: &Name,
        port: u16,
        patience: Patience,
    ) -> Result<Vec<u8>, HostError> {
        self.act("host.greeting", |state| {
            machines::answering(state, branch, node)?;
            let silent = state.node(branch, node)?.memory.contains_key("no-ssh");
            if silent {
                let waited_ms = u64::try_from(patience.total.as_millis()).unwrap_or(u64::MAX);
                let Patience { each, .. } = patience;
                let what = format!("a greeting from port {port} of {node} within {each:?}");
                return Err(HostError::Deadline { what, waited_ms });
            }
            Ok(b"SSH-2.0-Simulated\r\n".to_vec())
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

    async fn set_faults(&self, branch: &BranchId, faults: &[Fault]) -> Result<(), HostError> {
        self.act("host.set_faults", |state| {
            state.switch(branch)?.faults = faults.to_vec();
            Ok(())
        })
        .await
    }

    async fn network(&self, branch: &BranchId) -> Result<NetworkObservation, HostError> {
        self.act("host.network", |state| network::observation(state, branch)).await
    }

    async fn crash_node(&self, branch: &BranchId, node: &Name) -> Result<(), HostError> {
        self.act("host.crash_node", |state| {
            state.node(branch, node)?.crashed = true;
            Ok(())
        })
        .await
    }

    async fn boot_node(
        &self,
        branch: &BranchId,
        node: &Name,
        _: std::time::Duration,
    ) -> Result<(), HostError> {
        self.act("host.boot_node", |state| network::boot_node(state, branch, node)).await
    }

    async fn probe(
        &self,
        branch: &BranchId,
        node: &Name,
        targets: &[ProbeTarget],
        count: u32,
        _: std::time::Duration,
    ) -> Result<Vec<ProbeResult>, HostError> {
        self.act("host.probe", |state| {
            machines::answering(state, branch, node)?;
            network::probe(state, branch, node, targets, count)
        })
        .await
    }

    async fn begin_capture(&self, branch: &BranchId, _: CaptureLimits) -> Result<(), HostError> {
        self.act("host.begin_capture", |state| {
            let copies = &mut state.switch(branch)?.copies_frames;
            if std::mem::replace(copies, true) {
                return Err(HostError::WrongState {
                    branch: branch.clone(),
                    is: "being captured".into(),
                    wanted: "free for a capture".into(),
                });
            }
            state.frames.insert(branch.clone());
            Ok(())
        })
        .await
    }

    async fn end_capture(&self, branch: &BranchId) -> Result<Option<FrameCapture>, HostError> {
        self.act("host.end_capture", |state| {
            let copied = std::mem::take(&mut state.switch(branch)?.copies_frames);
            let bytes = network::PCAP.len() as u64;
            Ok(copied.then_some(FrameCapture { bytes, ..FrameCapture::default() }))
        })
        .await
    }

    async fn move_capture(&self, from: &BranchId, to: &BranchId) -> Result<(), HostError> {
        self.act("host.move_capture", |state| {
            if state.frames.remove(from) {
                state.frames.insert(to.clone());
            }
            Ok(())
        })
        .await
    }

    async fn read_capture(
        &self,
        branch: &BranchId,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<u8>, u64), HostError> {
        self.act("host.read_capture", |state| {
            if !state.frames.contains(branch) {
                return Err(missing("a capture of frames"));
            }
            let place =
                |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(network::PCAP.len());
            let (start, end) = (place(offset), place(offset.saturating_add(limit)));
            Ok((network::PCAP[start..end].to_vec(), end as u64))
        })
        .await
    }
}
