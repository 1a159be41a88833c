//! A branch's network and what it is made to do wrong: parameters and results of the `net_*` verbs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pando_model::fault::Distribution;
use pando_model::network::{DropReason, FrameCapture};
use pando_model::{Address, BranchId, FaultId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{
    DEFAULT_CAPTURE_BYTES, DEFAULT_CAPTURE_FRAMES, DEFAULT_PROBE_COUNT, DEFAULT_PROBE_TIMEOUT_MS,
    DEFAULT_SNAP_BYTES, MAX_CAPTURE_BYTES, MAX_CAPTURE_FRAMES, MAX_CAPTURE_READ_BYTES,
    MAX_FAULT_EXPIRY_S, MAX_LATENCY_MS, MAX_PROBE_COUNT, MAX_PROBE_TIMEOUT_MS, MAX_RATE_KBIT,
    MAX_SEED, MAX_SNAP_BYTES,
};

/// Which way a partition works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Neither group hears the other.
    #[default]
    Both,
    /// Nothing gets from the first group to the second.
    AToB,
    /// Nothing gets from the second group to the first.
    BToA,
}

/// Cut a branch's network in two: IPv4, IPv6, ARP and multicast alike. Returns when it works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetPartitionParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// Nodes of one group; `gateway`: the outside, DNS.
    pub partition_a: Vec<String>,
    /// The other group; all other nodes if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_b: Vec<String>,
    /// Which way.
    #[serde(default)]
    pub direction: Direction,
    /// Only on this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Heal after this many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_FAULT_EXPIRY_S))]
    pub expires_s: Option<u64>,
}

fn all() -> String {
    ALL.to_owned()
}

/// Every other node, without the gateway.
pub const ALL: &str = "all";
/// The switch's own services and, through them, the outside.
pub const GATEWAY: &str = "gateway";

/// Make the frames from one node to another get through worse, in one branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetImpairParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// Who sends: a node or `gateway`.
    pub source_node: String,
    /// Who receives: a node, `gateway`, or `all` other nodes.
    #[serde(default = "all")]
    pub target_node: String,
    /// Also the way back.
    #[serde(default)]
    pub both_directions: bool,
    /// Only on this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Delay of every frame.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_LATENCY_MS))]
    pub latency_ms: f64,
    /// Its variation.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_LATENCY_MS))]
    pub jitter_ms: f64,
    /// The form of the variation.
    #[serde(default)]
    pub distribution: Distribution,
    /// Frames lost.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub loss_pct: f64,
    /// Mean frames lost in a row; each by itself if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = crate::limits::MAX_LOSS_BURST))]
    pub loss_burst: Option<u32>,
    /// Frames delivered twice.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub duplicate_pct: f64,
    /// Frames with one bit changed.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub corrupt_pct: f64,
    /// Frames that skip the latency, and so overtake.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub reorder_pct: f64,
    /// Most kilobits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_RATE_KBIT))]
    pub rate_kbit: Option<u64>,
    /// Same seed, same decisions; chosen for you if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_SEED))]
    pub seed: Option<u64>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Heal after this many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_FAULT_EXPIRY_S))]
    pub expires_s: Option<u64>,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultType {
    /// Nothing gets through.
    Partition,
    /// Frames get through worse.
    Impairment,
}

/// What a fault did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FaultCounters {
    /// Frames that it decided on.
    pub frames: u64,
    /// Of those, it dropped so many.
    pub dropped: u64,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NetFaultInfo {
    /// Its id, for `net_heal`; the same in branches of a commit.
    pub handle_id: FaultId,
    /// What it is.
    pub fault_type: FaultType,
    /// The nodes that it concerns.
    pub affected_nodes: Vec<String>,
    /// Each directed link: `FROM>TO`.
    pub links: Vec<String>,
    /// The only network that it works on; absent if it works on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it was asked to do.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub parameters: Value,
    /// What its decisions follow from; absent where the kernel makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Free text of whoever made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What it did since the branch began; absent while the branch is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<FaultCounters>,
}

/// Whether an effect was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// It was.
    Yes,
    /// It was looked at, and is not so.
    No,
    /// It could not be looked at.
    #[default]
    Unknown,
}

/// A fault that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NetFaultResult {
    /// The fault.
    #[serde(flatten)]
    pub fault: NetFaultInfo,
    /// The branch that it is in.
    pub branch_id: BranchId,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// Whether its effect was seen, by the switch and by the guests.
    pub verified: Verified,
    /// What was measured, or why nothing could be.
    pub evidence: String,
    /// What to do when its effect is not as asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// From the request until the switch applied it, in milliseconds.
    pub applied_ms: f64,
    /// How long it took to see the effect, in milliseconds.
    pub verify_ms: f64,
}

/// Heal one fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetHealParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// Its `handle_id`, or its label if only one has it.
    pub fault_handle: String,
}

/// Heal all faults of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetHealAllParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
}

/// What was healed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetHealResult {
    /// The branch.
    pub branch_id: BranchId,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// How many faults were healed.
    pub count: u32,
    /// Their handles.
    pub healed: Vec<FaultId>,
    /// How many are left.
    pub remaining: u32,
    /// Whether the switch has forgotten them and the guests reach one another.
    pub verified: Verified,
    /// What was measured, or why nothing could be.
    pub evidence: String,
    /// What to do when they may still work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// List a branch's faults and what they did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetFaultListParams {
    /// `CLUSTER[@BRANCH]`; the only cluster's current branch if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<Address>,
    /// Also count the frames of every link.
    #[serde(default)]
    pub links: bool,
}

/// What went over one directed link since the branch began.
/// `sent = delivered + held + dropped`; duplicates count as sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkInfo {
    /// Who sends.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// Frames that came in.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that were handed over.
    pub delivered: u64,
    /// Frames that are on their way.
    pub held: u64,
    /// Frames that were given up, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Frames that were made in addition.
    pub duplicated: u64,
    /// Frames of which a bit was changed.
    pub corrupted: u64,
    /// Frames that overtook others.
    pub reordered: u64,
    /// Frames that were delayed.
    pub delayed: u64,
}

/// A branch's faults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NetFaultListResult {
    /// The branch.
    pub branch_id: BranchId,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// In the order in which they were made.
    pub faults: Vec<NetFaultInfo>,
    /// Frames that were sent under another port's address; absent while the branch is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoofed: Option<u64>,
    /// Every link that frames went over, if asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkInfo>,
}

const fn probe_count() -> u32 {
    DEFAULT_PROBE_COUNT
}

const fn probe_timeout() -> u64 {
    DEFAULT_PROBE_TIMEOUT_MS
}

/// Measure, from inside the guests, who reaches whom and how fast, over each protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetProbeParams {
    /// `CLUSTER[@BRANCH]`; the only cluster's current branch if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<Address>,
    /// Only from these nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Only to these nodes, or `gateway`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Questions to each address.
    #[serde(default = "probe_count")]
    #[schemars(range(min = 1, max = MAX_PROBE_COUNT))]
    pub count: u32,
    /// How long to wait for answers.
    #[serde(default = "probe_timeout")]
    #[schemars(range(min = 10, max = MAX_PROBE_TIMEOUT_MS))]
    pub timeout_ms: u64,
}

/// What came of asking one address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeRow {
    /// Who asked.
    pub from: String,
    /// Who was asked.
    pub to: String,
    /// At which address.
    pub address: String,
    /// Whether anything came back; absent if the node could not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// Questions.
    pub sent: u32,
    /// Answers.
    pub received: u32,
    /// The mean round trip, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The shortest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ms: Option<f64>,
    /// The longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<f64>,
    /// Why the node could not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Who reaches whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NetProbeResult {
    /// The branch.
    pub branch_id: BranchId,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// Addresses that answered.
    pub reachable: u32,
    /// Addresses that did not.
    pub unreachable: u32,
    /// Those that nobody could ask.
    pub unknown: u32,
    /// Each asked address: first those that did not answer.
    pub rows: Vec<ProbeRow>,
    /// Whether rows are missing; narrow it with `sources` and `targets`.
    pub truncated: bool,
}

/// What to do with a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CaptureAction {
    /// Begin to copy frames, in place of an earlier capture.
    Start,
    /// End it.
    Stop,
    /// Read bytes of the pcap file, also while it grows.
    Read,
}

const fn capture_frames() -> u64 {
    DEFAULT_CAPTURE_FRAMES
}

const fn capture_bytes() -> u64 {
    DEFAULT_CAPTURE_BYTES
}

const fn snap_bytes() -> u32 {
    DEFAULT_SNAP_BYTES
}

const fn read_bytes() -> u64 {
    MAX_CAPTURE_READ_BYTES
}

/// Copy a branch's frames to a pcap file, for Wireshark and tcpdump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetCaptureParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// What to do.
    pub action: CaptureAction,
    /// Start: end after so many frames.
    #[serde(default = "capture_frames")]
    #[schemars(range(min = 1, max = MAX_CAPTURE_FRAMES))]
    pub max_frames: u64,
    /// Start: end when the file has so many bytes.
    #[serde(default = "capture_bytes")]
    #[schemars(range(min = 1024, max = MAX_CAPTURE_BYTES))]
    pub max_bytes: u64,
    /// Start: bytes kept of each frame.
    #[serde(default = "snap_bytes")]
    #[schemars(range(min = 14, max = MAX_SNAP_BYTES))]
    pub snap_bytes: u32,
    /// Read: from this byte.
    #[serde(default)]
    pub offset: u64,
    /// Read: at most so many bytes.
    #[serde(default = "read_bytes")]
    #[schemars(range(min = 1, max = MAX_CAPTURE_READ_BYTES))]
    pub limit: u64,
}

/// A capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetCaptureResult {
    /// The branch.
    pub branch_id: BranchId,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// Stop: what was taken; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    /// Read: bytes of the file, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Read: where the next bytes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
}

/// What a capture took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// Frames.
    pub frames: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Frames that the host's disk was too slow for.
    pub lost: u64,
    /// Whether a limit ended it.
    pub limited: bool,
}

impl From<FrameCapture> for Taken {
    fn from(capture: FrameCapture) -> Self {
        let FrameCapture { frames, bytes, lost, limited } = capture;
        Self { frames, bytes, lost, limited }
    }
}
