//! The contract, verb by verb; the work is in the modules.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use pando_driver::BranchHost;
use pando_driver::host::{
    BranchSpec, Capacity, Clock, CutReport, CutSpec, ExecIo, HostError, MemoryChain, NodeEnd,
    Observation, Patience, StartReport, StopMode,
};
use pando_driver::progress::Reporter;
use pando_model::capture::{Aspect, Capture};
use pando_model::commit::{Below, Layer};
use pando_model::fault::Fault;
use pando_model::guest::{ExecOutcome, ExecSpec, FileFacts, GuestFacts, PushSpec};
use pando_model::machine::MachineProfile;
use pando_model::network::{
    CaptureLimits, CommitNetwork, FrameCapture, NetworkObservation, ProbeResult, ProbeTarget,
};
use pando_model::{BranchId, ByteCount, CommitId, DiskRole, KernelNetwork, LayerId, Name};
use pando_wire::keeper::{Reply, Request};
use tokio::sync::mpsc;

use crate::client::unexpected;
use crate::{LocalHost, files, keepers, limits, memory, trouble};

#[async_trait]
impl BranchHost for LocalHost {
    async fn profile(&self) -> Result<MachineProfile, HostError> {
        let source = self.config.profile.clone();
        trouble::blocking("look at this machine", move || source()).await
    }

    async fn kernel_network(&self) -> Result<KernelNetwork, HostError> {
        let probe = self.config.kernel_network.clone();
        trouble::blocking("look at the kernel", move || Ok(probe())).await
    }

    async fn capacity(&self) -> Result<Capacity, HostError> {
        memory::capacity(self.layout())
    }

    async fn start(
        &self,
        spec: &BranchSpec,
        reporter: &Reporter,
    ) -> Result<StartReport, HostError> {
        self.start_branch(spec, reporter).await
    }

    async fn observe(&self, branch: &BranchId) -> Result<Option<Observation>, HostError> {
        self.observe_branch(branch, false).await
    }

    async fn measure(&self, branch: &BranchId) -> Result<Option<Observation>, HostError> {
        self.observe_branch(branch, true).await
    }

    async fn ends(&self, branch: &BranchId) -> Result<BTreeMap<Name, NodeEnd>, HostError> {
        let path = self.layout().branch_ends(branch);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeMap::new());
            }
            read => read.map_err(|e| trouble::io(format!("read {}", path.display()), &e))?,
        };
        // A file that was half written says nothing.
        let ends: Vec<(Name, NodeEnd)> = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(ends.into_iter().collect())
    }

    async fn list(&self) -> Result<Vec<BranchId>, HostError> {
        files::ids_in(&self.layout().branches(), "")
    }

    async fn pause(&self, branch: &BranchId) -> Result<(), HostError> {
        self.pause_branch(branch).await
    }

    async fn resume(&self, branch: &BranchId, clock: Clock) -> Result<(), HostError> {
        self.resume_branch(branch, clock).await
    }

    async fn stop(&self, branch: &BranchId, mode: StopMode) -> Result<(), HostError> {
        self.stop_branch(branch, mode).await
    }

    async fn discard_branch(&self, branch: &BranchId) -> Result<(), HostError> {
        if keepers::is_alive(self.layout(), branch)? {
            return Err(HostError::WrongState {
                branch: branch.clone(),
                is: "running".into(),
                wanted: "stopped".into(),
            });
        }
        keepers::wait_gone(self.layout(), branch, limits::GONE).await?;
        keepers::remove_socket(self.layout(), branch)?;
        files::remove_tree(&self.layout().branch(branch))
    }

    async fn cut(
        &self,
        branch: &BranchId,
        spec: &CutSpec,
        reporter: &Reporter,
    ) -> Result<CutReport, HostError> {
        reporter.report("cutting", 0, 0);
        self.cut_branch(branch, spec).await
    }

    async fn adopt_cut(
        &self,
        branch: &BranchId,
        commit: &CommitId,
    ) -> Result<Option<CutReport>, HostError> {
        self.adopt(branch, commit).await
    }

    async fn make_anonymous(
        &self,
        branch: &BranchId,
        node: &Name,
        timeout: Duration,
    ) -> Result<(), HostError> {
        self.anonymise(branch, node, timeout).await
    }

    async fn materialise(&self, chain: &MemoryChain, reporter: &Reporter) -> Result<(), HostError> {
        self.make_flat(chain, reporter).await
    }

    async fn verify(&self, chain: &MemoryChain, device_digest: &str) -> Result<(), HostError> {
        self.verify_chain(chain, device_digest).await
    }

    async fn verify_network(
        &self,
        commit: &CommitId,
        network: &CommitNetwork,
    ) -> Result<(), HostError> {
        self.verify_network_state(commit, network).await
    }

    async fn trim_memory(&self, budget: ByteCount) -> Result<ByteCount, HostError> {
        self.trim(budget).await
    }

    async fn discard_commit(&self, commit: &CommitId) -> Result<(), HostError> {
        let (layout, commit) = (self.layout().clone(), commit.clone());
        trouble::blocking("remove a commit", move || {
            let prefix = format!("{commit}.");
            for directory in [layout.memory(), layout.captures()] {
                for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                    if entry.file_name().to_string_lossy().starts_with(&prefix) {
                        files::remove_file(&entry.path())?;
                    }
                }
            }
            files::remove_tree(&layout.commit(&commit))
        })
        .await
    }

    async fn list_commits(&self) -> Result<Vec<CommitId>, HostError> {
        files::ids_in(&self.layout().commits(), "")
    }

    async fn create_layer(&self, layer: &Layer) -> Result<(), HostError> {
        self.make_layer(layer).await
    }

    async fn sync_layers(&self, layers: &[LayerId]) -> Result<(), HostError> {
        let directory = self.layout().layers();
        let mut paths: Vec<_> = layers.iter().map(|layer| self.layout().layer(layer)).collect();
        // What is synced must also be found.
        paths.push(directory);
        trouble::blocking("sync layers", move || {
            let sync = |path: &PathBuf| {
                let synced = File::open(path).and_then(|file| file.sync_all());
                synced.map_err(|e| trouble::path("sync", path, &e))
            };
            paths.iter().try_for_each(sync)
        })
        .await
    }

    async fn discard_layer(&self, layer: &LayerId) -> Result<(), HostError> {
        files::remove_file(&self.layout().layer(layer))
    }

    async fn list_layers(&self) -> Result<BTreeMap<LayerId, ByteCount>, HostError> {
        self.all_layers().await
    }

    async fn flatten(
        &self,
        branch: &BranchId,
        node: &Name,
        disk: DiskRole,
        keep: &Below,
        reporter: &Reporter,
    ) -> Result<(), HostError> {
        self.flatten_disk(branch, node, disk, keep, reporter).await
    }

    async fn exec(
        &self,
        branch: &BranchId,
        node: &Name,
        spec: &ExecSpec,
        io: ExecIo,
    ) -> Result<ExecOutcome, HostError> {
        self.exec_in(branch, node, spec, io).await
    }

    async fn push(
        &self,
        branch: &BranchId,
        node: &Name,
        spec: &PushSpec,
        chunks: mpsc::Receiver<Vec<u8>>,
    ) -> Result<FileFacts, HostError> {
        self.push_to(branch, node, spec, chunks).await
    }

    async fn pull(
        &self,
        branch: &BranchId,
        node: &Name,
        path: &str,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> Result<FileFacts, HostError> {
        self.pull_from(branch, node, path, chunks).await
    }

    async fn facts(&self, branch: &BranchId, node: &Name) -> Result<GuestFacts, HostError> {
        let request = Request::Facts { node: node.clone() };
        match self.ask(branch, &request, limits::GUEST).await? {
            Reply::Facts { facts } => Ok(*facts),
            other => Err(unexpected(&other)),
        }
    }

    async fn capture(
        &self,
        branch: &BranchId,
        node: &Name,
        aspects: &[Aspect],
    ) -> Result<Capture, HostError> {
        self.capture_of(branch, node, aspects).await
    }

    async fn digests(
        &self,
        branch: &BranchId,
        node: &Name,
        paths: &[String],
    ) -> Result<BTreeMap<String, String>, HostError> {
        self.digests_of(branch, node, paths).await
    }

    async fn forward(
        &self,
        branch: &BranchId,
        node: &Name,
        guest_port: u16,
        host_port: Option<u16>,
    ) -> Result<u16, HostError> {
        let request = Request::Forward { node: node.clone(), port: guest_port, host_port };
        match self.ask(branch, &request, limits::ANSWER).await? {
            Reply::Forwarded { port } => Ok(port),
            other => Err(unexpected(&other)),
        }
    }

    async fn check_ports(&self, ports: &[u16]) -> Result<(), HostError> {
        for port in ports {
            let bound = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, *port));
            bound.map_err(|error| match error.kind() {
                std::io::ErrorKind::AddrInUse => HostError::PortTaken { port: *port },
                _ => trouble::io(format!("listen on port {port}"), &error),
            })?;
        }
        Ok(())
    }

    async fn greeting(
        &self,
        branch: &BranchId,
        node: &Name,
        guest_port: u16,
        patience: Patience,
    ) -> Result<Vec<u8>, HostError> {
        let port = self.forward(branch, node, guest_port, None).await?;
        let what = || format!("a greeting from port {guest_port} of {node}");
        crate::greeting::of(port, patience, what).await
    }

    async fn console(
        &self,
        branch: &BranchId,
        node: &Name,
        offset: i64,
        limit: u64,
    ) -> Result<(Vec<u8>, u64), HostError> {
        let path = self.layout().console(branch, node);
        files::read_part("read a console", path, offset, limit.min(limits::MAX_CONSOLE)).await
    }

    async fn set_faults(&self, branch: &BranchId, faults: &[Fault]) -> Result<(), HostError> {
        self.tell(branch, &Request::SetFaults { faults: faults.to_vec() }).await
    }

    async fn network(&self, branch: &BranchId) -> Result<NetworkObservation, HostError> {
        match self.ask(branch, &Request::Network, limits::ANSWER).await? {
            Reply::Network { observation } => Ok(*observation),
            other => Err(unexpected(&other)),
        }
    }

    async fn crash_node(&self, branch: &BranchId, node: &Name) -> Result<(), HostError> {
        self.tell(branch, &Request::CrashNode { node: node.clone() }).await
    }

    async fn boot_node(
        &self,
        branch: &BranchId,
        node: &Name,
        timeout: Duration,
    ) -> Result<(), HostError> {
        let request = Request::BootNode { node: node.clone(), timeout };
        match self.ask(branch, &request, timeout + limits::COMMAND).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn probe(
        &self,
        branch: &BranchId,
        node: &Name,
        targets: &[ProbeTarget],
        count: u32,
        timeout: Duration,
    ) -> Result<Vec<ProbeResult>, HostError> {
        let targets = targets.to_vec();
        let request = Request::Probe { node: node.clone(), targets, count, timeout };
        match self.ask(branch, &request, timeout + limits::GRACE).await? {
            Reply::Probed { results } => Ok(results),
            other => Err(unexpected(&other)),
        }
    }

    async fn begin_capture(
        &self,
        branch: &BranchId,
        limits: CaptureLimits,
    ) -> Result<(), HostError> {
        self.tell(branch, &Request::BeginCapture { limits }).await
    }

    async fn end_capture(&self, branch: &BranchId) -> Result<Option<FrameCapture>, HostError> {
        match self.ask(branch, &Request::EndCapture, limits::ANSWER).await? {
            Reply::CaptureEnded { capture } => Ok(capture),
            other => Err(unexpected(&other)),
        }
    }

    async fn move_capture(&self, from: &BranchId, to: &BranchId) -> Result<(), HostError> {
        let (from, to) = (self.layout().frames_file(from), self.layout().frames_file(to));
        trouble::blocking("move a capture", move || {
            // The keeper that still writes to it goes on: a name is all that changes.
            if !from.exists() || to.exists() {
                return Ok(());
            }
            // A branch that has not been started has no directory.
            let directory = to.parent().unwrap_or(&to);
            fs::create_dir_all(directory).map_err(|e| trouble::path("create", directory, &e))?;
            fs::rename(&from, &to).map_err(|e| trouble::path("rename", &from, &e))
        })
        .await
    }

    async fn read_capture(
        &self,
        branch: &BranchId,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<u8>, u64), HostError> {
        let path = self.layout().frames_file(branch);
        if !path.exists() {
            return Err(HostError::Missing { what: "a capture of frames".to_owned() });
        }
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        files::read_part("read a capture", path, offset, limit.min(limits::MAX_CONSOLE)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use pando_model::{Accelerator, Layout};
    use pando_qemu::Qcow2Layers;

    use super::*;
    use crate::HostConfig;

    /// KVM is believed once an image's kernel has run under it: a daemon that was asked before there
    /// was an image must not stay with what it said then.
    #[tokio::test]
    async fn what_machines_can_be_started_is_asked_each_time() {
        let has_image = Arc::new(AtomicBool::new(false));
        let profile = {
            let has_image = Arc::clone(&has_image);
            move || {
                Ok(MachineProfile {
                    qemu_version: "10.0.2".to_owned(),
                    machine: "q35".to_owned(),
                    cpu: "max".to_owned(),
                    accelerator: match has_image.load(Ordering::Relaxed) {
                        true => Accelerator::Kvm,
                        false => Accelerator::Tcg,
                    },
                })
            }
        };
        let host = LocalHost::new(HostConfig {
            layout: Layout::new("/nonexistent", "/nonexistent"),
            keeper_program: "/nonexistent/pando".into(),
            profile: Arc::new(profile),
            kernel_network: Arc::new(Default::default),
            disks: Arc::new(Qcow2Layers),
            seeds: Arc::new(|_| Ok(Vec::new())),
            memory_reserve: ByteCount(0),
        });
        assert_eq!(host.profile().await.unwrap().accelerator, Accelerator::Tcg);
        has_image.store(true, Ordering::Relaxed);
        assert_eq!(host.profile().await.unwrap().accelerator, Accelerator::Kvm);
    }
}
