//! A branch host: runs branches, each under a keeper of its own, and keeps the files of branches,
//! commits and disk layers. All paths are its own business; the engine speaks in ids.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use pando_model::capture::{Aspect, Capture};
use pando_model::commit::Layer;
use pando_model::fault::Fault;
pub use pando_model::guest::{ExecInput, ExecOutput};
use pando_model::guest::{ExecOutcome, ExecSpec, FileFacts, GuestFacts, PushSpec};
pub use pando_model::host::*;
use pando_model::machine::MachineProfile;
use pando_model::network::{
    CaptureLimits, CommitNetwork, FrameCapture, NetworkObservation, ProbeResult, ProbeTarget,
};
use pando_model::{BranchId, ByteCount, CommitId, DiskRole, KernelNetwork, LayerId, Name};
use tokio::sync::mpsc;

use crate::progress::Reporter;

/// The two ends of a running command that the caller holds. Dropping `input`'s sender means no
/// more input; dropping `output`'s receiver kills the command.
pub struct ExecIo {
    /// What the caller sends.
    pub input: mpsc::Receiver<ExecInput>,
    /// What the caller receives; bounded, so a slow caller slows the command down.
    pub output: mpsc::Sender<ExecOutput>,
}

/// Runs branches and keeps their files. See the crate's law: every call may be repeated.
#[async_trait]
pub trait BranchHost: Send + Sync {
    /// Returns what a machine started now would record, for the accelerator that works best here.
    ///
    /// # Errors
    /// [`HostError::Machine`] when no usable hypervisor is installed.
    async fn profile(&self) -> Result<MachineProfile, HostError>;

    /// Returns what there is room for.
    async fn capacity(&self) -> Result<Capacity, HostError>;

    /// Returns what the kernel can do for networks, tried now.
    async fn kernel_network(&self) -> Result<KernelNetwork, HostError>;

    /// Starts a branch and returns when every guest answers and `spec.after` holds. If the keeper
    /// of this generation already runs, waits for it and returns the same report. On an error
    /// nothing of the incarnation is left running.
    async fn start(&self, spec: &BranchSpec, reporter: &Reporter)
    -> Result<StartReport, HostError>;

    /// Returns what the branch is doing, or `None` when it has no keeper.
    async fn observe(&self, branch: &BranchId) -> Result<Option<Observation>, HostError>;

    /// As [`observe`](Self::observe), with the memory of the branch's processes, which takes
    /// milliseconds for each of them.
    async fn measure(&self, branch: &BranchId) -> Result<Option<Observation>, HostError>;

    /// Returns how machines of a branch ended whose keeper has ended since; nothing of a keeper that
    /// was killed.
    async fn ends(&self, branch: &BranchId) -> Result<BTreeMap<Name, NodeEnd>, HostError>;

    /// Returns every branch that has a keeper or files, known to the engine or not.
    async fn list(&self) -> Result<Vec<BranchId>, HostError>;

    /// Stops the guests; all state stays.
    async fn pause(&self, branch: &BranchId) -> Result<(), HostError>;

    /// Lets the guests go on.
    async fn resume(&self, branch: &BranchId, clock: Clock) -> Result<(), HostError>;

    /// Ends the machines and the keeper; disks and logs stay. No keeper is success.
    async fn stop(&self, branch: &BranchId, mode: StopMode) -> Result<(), HostError>;

    /// Removes a stopped branch's own files, cuts that nobody adopted included. Layers are not its
    /// own files.
    async fn discard_branch(&self, branch: &BranchId) -> Result<(), HostError>;

    /// Cuts a running or paused branch: the whole protocol of a commit, in one call, which ends in
    /// the guests going on whatever happens to the caller.
    async fn cut(
        &self,
        branch: &BranchId,
        spec: &CutSpec,
        reporter: &Reporter,
    ) -> Result<CutReport, HostError>;

    /// Makes a finished cut's files the commit's own and returns its report; waits for a cut that
    /// is still under way. `None` if no such cut was made.
    async fn adopt_cut(
        &self,
        branch: &BranchId,
        commit: &CommitId,
    ) -> Result<Option<CutReport>, HostError>;

    /// Gets a branch's new node from an image ready to be cut for a ready state: waits until its
    /// boot is complete, then removes every trace of identity from it.
    async fn make_anonymous(
        &self,
        branch: &BranchId,
        node: &Name,
        timeout: Duration,
    ) -> Result<(), HostError>;

    /// Makes the flat memory of a commit's node, if it is not there.
    async fn materialise(&self, chain: &MemoryChain, reporter: &Reporter) -> Result<(), HostError>;

    /// Checks every byte of a commit's files against their checksums.
    async fn verify(&self, chain: &MemoryChain, device_digest: &str) -> Result<(), HostError>;

    /// Checks a commit's network state against its digest.
    async fn verify_network(
        &self,
        commit: &CommitId,
        network: &CommitNetwork,
    ) -> Result<(), HostError>;

    /// Gives up flat memory that nothing runs on until at most `budget` is used by the cache.
    /// Returns what was freed.
    async fn trim_memory(&self, budget: ByteCount) -> Result<ByteCount, HostError>;

    /// Removes a commit's files.
    async fn discard_commit(&self, commit: &CommitId) -> Result<(), HostError>;

    /// Returns every commit that has files.
    async fn list_commits(&self) -> Result<Vec<CommitId>, HostError>;

    /// Makes a layer's file, empty, unless it is there.
    async fn create_layer(&self, layer: &Layer) -> Result<(), HostError>;

    /// Makes layers that nothing writes to any more durable: what they hold survives a power cut.
    async fn sync_layers(&self, layers: &[LayerId]) -> Result<(), HostError>;

    /// Removes a layer's file.
    async fn discard_layer(&self, layer: &LayerId) -> Result<(), HostError>;

    /// Returns every layer that has a file, with the bytes it takes.
    async fn list_layers(&self) -> Result<BTreeMap<LayerId, ByteCount>, HostError>;

    /// Moves everything between `keep` and the writable top of a running node's disk into the top,
    /// so that the top lies on `keep` directly.
    async fn flatten(
        &self,
        branch: &BranchId,
        node: &Name,
        disk: DiskRole,
        keep: &pando_model::commit::Below,
        reporter: &Reporter,
    ) -> Result<(), HostError>;

    /// Runs a command in a guest until it ends.
    async fn exec(
        &self,
        branch: &BranchId,
        node: &Name,
        spec: &ExecSpec,
        io: ExecIo,
    ) -> Result<ExecOutcome, HostError>;

    /// Writes a file in a guest from chunks; nothing appears unless all `spec.size` bytes arrived.
    async fn push(
        &self,
        branch: &BranchId,
        node: &Name,
        spec: &PushSpec,
        chunks: mpsc::Receiver<Vec<u8>>,
    ) -> Result<FileFacts, HostError>;

    /// Reads a file from a guest into chunks.
    async fn pull(
        &self,
        branch: &BranchId,
        node: &Name,
        path: &str,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> Result<FileFacts, HostError>;

    /// Asks a guest about itself.
    async fn facts(&self, branch: &BranchId, node: &Name) -> Result<GuestFacts, HostError>;

    /// Asks a guest for its state. Its size is bounded, whatever the guest says.
    async fn capture(
        &self,
        branch: &BranchId,
        node: &Name,
        aspects: &[Aspect],
    ) -> Result<Capture, HostError>;

    /// Asks a guest for the digests of regular files' contents; what could not be read is left
    /// out.
    async fn digests(
        &self,
        branch: &BranchId,
        node: &Name,
        paths: &[String],
    ) -> Result<BTreeMap<String, String>, HostError>;

    /// Opens a port on the host's loopback that leads to a port of the guest's loopback, or returns
    /// the one that is open: `host_port`, or any free one. It ends with the incarnation.
    ///
    /// # Errors
    /// [`HostError::PortTaken`].
    async fn forward(
        &self,
        branch: &BranchId,
        node: &Name,
        guest_port: u16,
        host_port: Option<u16>,
    ) -> Result<u16, HostError>;

    /// Checks that these ports of the host's loopback are free.
    ///
    /// # Errors
    /// [`HostError::PortTaken`] for the first that is not.
    async fn check_ports(&self, ports: &[u16]) -> Result<(), HostError>;

    /// Returns the first bytes that a server on a port of the guest's loopback says by itself,
    /// asked through its forward; tries again as long as there is patience.
    async fn greeting(
        &self,
        branch: &BranchId,
        node: &Name,
        guest_port: u16,
        patience: Patience,
    ) -> Result<Vec<u8>, HostError>;

    /// Returns up to `limit` bytes of a node's serial console from byte `offset` (negative: from
    /// the end), and the offset of their end.
    async fn console(
        &self,
        branch: &BranchId,
        node: &Name,
        offset: i64,
        limit: u64,
    ) -> Result<(Vec<u8>, u64), HostError>;

    /// Makes these the faults that work in a branch's switch; returns once no frame is forwarded by
    /// the former ones. A fault that worked before goes on in its sequence of decisions.
    ///
    /// # Errors
    /// [`HostError::NoSwitch`], as for everything here that needs one.
    async fn set_faults(&self, branch: &BranchId, faults: &[Fault]) -> Result<(), HostError>;

    /// Returns what a branch's switch does and did.
    async fn network(&self, branch: &BranchId) -> Result<NetworkObservation, HostError>;

    /// Kills a node's machine, as a power failure would; the branch goes on, even without any other
    /// node. No machine is success.
    async fn crash_node(&self, branch: &BranchId, node: &Name) -> Result<(), HostError>;

    /// Boots a node whose machine has ended on its disk, and returns when its guest has booted; its
    /// identity stays. A machine that runs is left alone, and waited for.
    ///
    /// # Errors
    /// [`HostError::WrongState`] when the branch is paused, [`HostError::GuestSilent`].
    async fn boot_node(
        &self,
        branch: &BranchId,
        node: &Name,
        timeout: Duration,
    ) -> Result<(), HostError>;

    /// Lets a guest measure the way to others: it asks each target `count` times, and waits for the
    /// answers for at most `timeout`. Results are in the order of the targets.
    async fn probe(
        &self,
        branch: &BranchId,
        node: &Name,
        targets: &[ProbeTarget],
        count: u32,
        timeout: Duration,
    ) -> Result<Vec<ProbeResult>, HostError>;

    /// Copies a branch's frames to a pcap file, in place of an earlier one, until a limit is
    /// reached or [`BranchHost::end_capture`].
    async fn begin_capture(
        &self,
        branch: &BranchId,
        limits: CaptureLimits,
    ) -> Result<(), HostError>;

    /// Ends a capture of frames and returns what it took; `None` if there is none.
    async fn end_capture(&self, branch: &BranchId) -> Result<Option<FrameCapture>, HostError>;

    /// Hands a branch's pcap file to another branch; does nothing if there is none, or if the other
    /// has one of its own.
    async fn move_capture(&self, from: &BranchId, to: &BranchId) -> Result<(), HostError>;

    /// Returns up to `limit` bytes of a branch's pcap file from byte `offset`, and the offset of
    /// their end.
    ///
    /// # Errors
    /// [`HostError::Missing`] if there is no such file.
    async fn read_capture(
        &self,
        branch: &BranchId,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<u8>, u64), HostError>;
}
