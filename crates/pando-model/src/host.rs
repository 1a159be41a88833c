//! What is asked of a branch host and what it answers, as plain data: it crosses both the engine's
//! driver contract and the keeper protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::branch::BranchState;
use crate::cluster::Uplink;
use crate::commit::{CommitKind, CommitMemory};
use crate::disk::NodeLayers;
use crate::guest::{Identity, Inherited};
use crate::image::BootMethod;
use crate::machine::{Accelerator, MachineProfile, NodeShape};
use crate::network::{CommitNetwork, NetworkSpec};
use crate::{BranchId, ByteCount, ClusterId, CommitId, ImageId, Name};

/// Why a host could not do what it was asked. Crosses the keeper protocol, so it is data only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum HostError {
    /// The branch has no keeper.
    #[error("the branch {branch} is not running")]
    NotRunning {
        /// The branch.
        branch: BranchId,
    },
    /// The keeper exists, and does not answer or ended in the middle of the call.
    #[error("the keeper of {branch} does not answer: {detail}")]
    KeeperLost {
        /// The branch.
        branch: BranchId,
        /// What was seen.
        detail: String,
    },
    /// The branch has no such node.
    #[error("the branch {branch} has no node `{node}`")]
    NoSuchNode {
        /// The branch.
        branch: BranchId,
        /// The name that was given.
        node: String,
    },
    /// The node's machine ended or could not start.
    #[error("the machine of `{node}` failed: {detail}")]
    Machine {
        /// The node.
        node: String,
        /// What happened, with the hypervisor's words.
        detail: String,
    },
    /// A program that the call needs is not installed.
    #[error("{tool} was not found (it is in the package {package})")]
    ToolMissing {
        /// The program.
        tool: String,
        /// Debian's and Ubuntu's package that has it.
        package: String,
    },
    /// The guest program did not answer.
    #[error("the guest of `{node}` did not {what} within {waited_ms} ms")]
    GuestSilent {
        /// The node.
        node: String,
        /// What was waited for, as a verb phrase.
        what: String,
        /// How long, in milliseconds.
        waited_ms: u64,
    },
    /// The guest program is another release's.
    #[error("the guest program of `{node}` speaks version {speaks} of its protocol, not {wanted}")]
    GuestVersion {
        /// The node.
        node: String,
        /// Its version.
        speaks: u32,
        /// Ours.
        wanted: u32,
    },
    /// The guest program answered that it cannot.
    #[error("the guest of `{node}` could not {what}: {detail}")]
    GuestRefused {
        /// The node.
        node: String,
        /// What was asked, as a verb phrase.
        what: String,
        /// Its words.
        detail: String,
    },
    /// A port of this host that was asked for is another's.
    #[error("port {port} of this host's loopback is taken")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The branch has no switch: its only node has a network to itself.
    #[error("the branch {branch} has no switch")]
    NoSwitch {
        /// The branch.
        branch: BranchId,
    },
    /// The branch's switch could not do what it was asked, or has ended.
    #[error("the network of {branch} failed: {detail}")]
    Network {
        /// The branch.
        branch: BranchId,
        /// The switch's words.
        detail: String,
    },
    /// The call needs another state: "running", "paused".
    #[error("the branch {branch} is {is}, not {wanted}")]
    WrongState {
        /// The branch.
        branch: BranchId,
        /// Its state.
        is: String,
        /// The state it should be in.
        wanted: String,
    },
    /// The branch was restored again while the call ran.
    #[error("the branch {branch} was restored while the call ran")]
    Restored {
        /// The branch.
        branch: BranchId,
    },
    /// No clean cut was possible; the branch goes on unchanged.
    #[error("no clean cut of {branch}: {detail}")]
    CutUnclean {
        /// The branch.
        branch: BranchId,
        /// Which guard failed.
        detail: String,
    },
    /// The commit was saved by a machine that this host cannot provide.
    #[error("the commit {commit} needs {difference}")]
    Incompatible {
        /// The commit.
        commit: CommitId,
        /// What differs, in words.
        difference: String,
    },
    /// Stored data does not match its checksum.
    #[error("{what} is damaged: {detail}")]
    Corrupt {
        /// The file or object.
        what: String,
        /// What does not match.
        detail: String,
    },
    /// A file that must exist does not.
    #[error("{what} is missing")]
    Missing {
        /// The file or object.
        what: String,
    },
    /// The disk is full.
    #[error("no space left for {what}")]
    DiskFull {
        /// The file or object.
        what: String,
    },
    /// The host has not enough memory.
    #[error("not enough memory: {needed} needed, {available} available")]
    MemoryFull {
        /// What the call needs.
        needed: ByteCount,
        /// What there is.
        available: ByteCount,
    },
    /// A wait passed its deadline.
    #[error("{what} was not done within {waited_ms} ms")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long, in milliseconds.
        waited_ms: u64,
    },
    /// The reporter was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The operating system refused something else.
    #[error("cannot {what}: {detail}")]
    Io {
        /// What was being done, as a verb phrase.
        what: String,
        /// The system's words.
        detail: String,
    },
    /// The other side broke the keeper protocol.
    #[error("keeper protocol: {detail}")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
    /// The call needs the node's machine, which has ended.
    #[error("`{node}` does not run")]
    NodeDown {
        /// The node.
        node: String,
    },
}

/// How a node of a new incarnation comes to life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStart {
    /// Boots its disk with empty memory.
    Boot,
    /// Continues from a full commit's memory and devices.
    Restore {
        /// The commit.
        commit: CommitId,
        /// The node's name in that commit (an image's ready state has its own).
        saved_as: Name,
    },
}

/// How long something that is tried again may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// One attempt.
    pub each: Duration,
    /// All of them.
    pub total: Duration,
}

/// What happens to a guest's clock when it continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// It is set to the host's time.
    Step,
    /// It continues from the commit's time.
    Frozen,
}

/// What a branch does once it is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterStart {
    /// It runs.
    Run,
    /// One command is run in every guest to warm it up, then all stop: a parked copy.
    Park,
    /// It stays as it was restored, stopped.
    Hold,
}

/// One node of an incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name.
    pub name: Name,
    /// Its hardware.
    pub shape: NodeShape,
    /// The image whose kernel or firmware starts it.
    pub image: ImageId,
    /// How it boots.
    pub boot: BootMethod,
    /// What runs as process 1, for messages; the image's kernel command line decides.
    pub init: String,
    /// Writable tops of its disks' chains; the files exist.
    #[serde(flatten)]
    pub layers: NodeLayers,
    /// How it comes to life.
    pub start: NodeStart,
    /// MAC addresses, one per interface.
    pub macs: Vec<String>,
    /// What its first interface reaches in a branch without a switch; the others reach nothing.
    #[serde(default)]
    pub uplink: Uplink,
    /// Set on new nodes from an image, once they answer.
    pub identity: Option<Identity>,
    /// Contents of a NoCloud seed made for this node: file name → contents.
    pub seed: Option<BTreeMap<String, String>>,
}

/// One incarnation of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchSpec {
    /// The branch.
    pub branch: BranchId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// For messages: `CLUSTER@BRANCH`.
    pub title: String,
    /// The incarnation.
    pub generation: u64,
    /// Secret that the keeper proves itself with.
    pub token: String,
    /// How guest code runs.
    pub accelerator: Accelerator,
    /// Its nodes.
    pub nodes: Vec<NodeSpec>,
    /// What its switch is told. `None`: each node has a network to itself.
    #[serde(default)]
    pub network: Option<NetworkSpec>,
    /// What happens to the guests' clocks.
    pub clock: Clock,
    /// What happens once all nodes answer.
    pub after: AfterStart,
    /// Whether disk flushes reach the host's disk.
    pub durable_disk: bool,
    /// How long the nodes may take to answer.
    pub ready_timeout: Duration,
}

/// How a start went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartReport {
    /// From spawning the machines until every guest program answered, in microseconds.
    #[serde(default)]
    pub answered_us: u64,
    /// Until, beyond that, booting guests had booted and identities were set, in microseconds.
    pub ready_us: u64,
    /// Commands that were running at the cut and run on, by node.
    pub inherited: BTreeMap<Name, Vec<Inherited>>,
}

/// What a keeper says of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeObservation {
    /// The node.
    pub name: Name,
    /// Running, paused, or stopped when its machine has ended.
    pub state: BranchState,
    /// How its machine ended.
    pub ended: Option<NodeEnd>,
    /// What stopped its guest without being asked to, such as a full disk of the host; resuming it
    /// tries again.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Process id of its machine.
    pub pid: Option<u32>,
    /// Writable tops of its disks' chains: the truth after a cut.
    #[serde(flatten)]
    pub layers: NodeLayers,
    /// Proportional memory of its machine, where that was asked for.
    pub memory_used: Option<ByteCount>,
    /// Processor time of its machine, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes of its writable disk layers.
    pub disk_used: ByteCount,
    /// Whether the guest answered the latest question.
    pub answers: bool,
    /// Milliseconds since this incarnation's machine started.
    pub up_ms: u64,
}

/// How a node's machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndKind {
    /// Its guest switched it off.
    PoweredOff,
    /// In any other way.
    Crashed,
}

/// The end of a node's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEnd {
    /// How.
    pub kind: EndKind,
    /// Why, in words.
    pub why: String,
}

/// What a keeper says of its branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Running while any node runs.
    pub state: BranchState,
    /// The incarnation.
    pub generation: u64,
    /// How its machines' code runs; unknown of a keeper of an older pando.
    #[serde(default)]
    pub accelerator: Option<Accelerator>,
    /// The keeper's process id.
    pub keeper_pid: u32,
    /// The keeper's own memory.
    pub keeper_memory: Option<ByteCount>,
    /// Its processor time, in milliseconds.
    #[serde(default)]
    pub keeper_cpu_ms: u64,
    /// Its nodes.
    pub nodes: Vec<NodeObservation>,
    /// Why its switch no longer works, in words; its nodes then have no network.
    #[serde(default)]
    pub network_ended: Option<String>,
}

/// One node's part of a cut that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutNode {
    /// The node.
    pub name: Name,
    /// The layers that become the writable tops of its disks; the files exist and are empty.
    pub next: NodeLayers,
}

/// A cut that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutSpec {
    /// The commit that it becomes; names the spool.
    pub commit: CommitId,
    /// What is saved.
    pub kind: CommitKind,
    /// The nodes.
    pub nodes: Vec<CutNode>,
    /// Whether the branch ends with the cut instead of going on (its memory is then final).
    pub then: AfterCut,
    /// How long it may take in all, saving included.
    pub timeout: Duration,
}

/// What a branch does after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterCut {
    /// It goes on as it was.
    Continue,
    /// It stays stopped.
    StayPaused,
}

/// One node's part of a cut that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutNodeReport {
    /// The node.
    pub name: Name,
    /// The layers that were frozen: the commit's.
    #[serde(flatten)]
    pub layers: NodeLayers,
    /// Its memory, in a full cut.
    pub memory: Option<CommitMemory>,
    /// What restores it, in a full cut.
    pub profile: Option<MachineProfile>,
    /// Bytes that the frozen layers take on the host.
    pub disk_bytes: ByteCount,
}

/// A cut that was made. If `failed` is set, the disks moved on to their next layers but nothing
/// durable came of it: there is no commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutReport {
    /// The commit.
    pub commit: CommitId,
    /// How long the guests stood still, in microseconds.
    pub pause_us: u64,
    /// From the request until everything was durable, in microseconds.
    pub total_us: u64,
    /// The nodes.
    pub nodes: Vec<CutNodeReport>,
    /// The switch's part, in a full cut of a branch that has one.
    #[serde(default)]
    pub network: Option<CommitNetwork>,
    /// Why no commit came of it.
    pub failed: Option<HostError>,
}

/// How a branch is brought to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Asks the guests to shut down; what still runs after this time is killed.
    Shutdown {
        /// How long to wait.
        timeout: Duration,
    },
    /// Kills the machines, as a power failure would.
    Kill,
}

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// RAM of the host.
    pub memory_total: ByteCount,
    /// RAM that could be used now.
    pub memory_available: ByteCount,
    /// Size of the file system that holds the home.
    pub disk_total: ByteCount,
    /// Free space on it.
    pub disk_free: ByteCount,
    /// Processors.
    pub processors: u32,
}

/// One step of a memory chain, from the newest commit to the oldest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLink {
    /// The commit that has the delta.
    pub commit: CommitId,
    /// The node's name in that commit.
    pub node: Name,
    /// The digest that its index must have, in hex.
    pub digest: String,
}

/// The memory of one node of a commit: its delta and those below it, down to zero memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryChain {
    /// Newest first; never empty.
    pub links: Vec<MemoryLink>,
    /// RAM size.
    pub size: ByteCount,
}
