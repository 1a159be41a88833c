//! Commits and tags: parameters and results of the `commit_*` and `tag_*` verbs.

use jiff::Timestamp;
use pando_model::commit::CommitKind;
use pando_model::{Address, BranchId, ClusterId, CommitId, MachineProfile, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::NetFaultInfo;
use crate::page::{Page, default_limit};
use crate::state::CommandRow;

const fn full() -> CommitKind {
    CommitKind::Full
}

/// Commit a branch: keep memory, devices, disks and network of all its nodes at one instant. It
/// goes on running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitCreateParams {
    /// `CLUSTER[@BRANCH]` or an id; the only cluster's current branch if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Address>,
    /// A name for the commit; moves if it named another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Name>,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What it holds: `full` or `disk`.
    #[serde(default = "full")]
    pub kind: CommitKind,
    /// Copies to keep ready, so that branches from it start at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = crate::limits::MAX_WARM))]
    pub warm: u32,
}

/// A node's interface that had not taken in all that was sent to it: those frames are lost to
/// branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StalledPort {
    /// The node.
    pub node: Name,
    /// Which of its interfaces, from 0.
    pub nic: u8,
}

/// A commit that was made. It is durable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommitCreateResult {
    /// The commit.
    pub commit_id: CommitId,
    /// Its tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Name>,
    /// The branch.
    pub branch_id: BranchId,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// The commit before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<CommitId>,
    /// What it holds.
    pub kind: CommitKind,
    /// How long the branch stood still, in milliseconds.
    pub pause_ms: f64,
    /// From the request until it was durable, in milliseconds.
    pub duration_ms: u64,
    /// Bytes that it added to the store.
    pub size_bytes: u64,
    /// Interfaces that did not take in all that was sent to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stalled: Vec<StalledPort>,
    /// What of the network it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// List commits, newest first, with their parents: a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitListParams {
    /// Only those of this cluster, by name or id; the only cluster if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Only those that this branch descends from: its name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Most commits to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One commit of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommitRow {
    /// The commit.
    pub id: CommitId,
    /// The commits before it.
    pub parents: Vec<CommitId>,
    /// Its tags.
    pub tags: Vec<Name>,
    /// Branches whose latest commit it is, by name.
    pub heads: Vec<Name>,
    /// The branch that it was cut from, by name.
    pub branch: Name,
    /// That branch.
    pub branch_id: BranchId,
    /// Whose state it is.
    pub cluster_id: ClusterId,
    /// An address that names the machine it was cut from.
    pub vm_id: String,
    /// What it is, for people.
    pub message: String,
    /// What it holds.
    pub kind: CommitKind,
    /// Bytes that it added to the store.
    pub size_bytes: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
}

/// Some commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommitListResult {
    /// Newest first; a commit never stands before one of its children.
    pub commits: Vec<CommitRow>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}

/// Show one commit: what it holds, what restores it, what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitShowParams {
    /// An id, or `CLUSTER@TAG`.
    pub commit: String,
}

/// One node's share of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommitNodeView {
    /// The node's name.
    pub name: Name,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// RAM, in MiB.
    pub memory_mib: u64,
    /// Pages of memory that it saved.
    pub memory_pages: u64,
    /// Bytes of memory that it saved.
    pub memory_bytes: u64,
    /// The commit whose memory this one's is a change of; all of it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_base: Option<CommitId>,
    /// What restores it; absent in a disk commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<MachineProfile>,
}

/// What a commit holds of its network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommitNetworkView {
    /// Frames on their way, which go on in every branch.
    pub frames_held: u64,
    /// Interfaces that did not take in all that was sent to them.
    pub stalled: Vec<StalledPort>,
    /// The faults that worked, which work in every branch.
    pub faults: Vec<NetFaultInfo>,
    /// What it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommitShowResult {
    /// The commit.
    #[serde(flatten)]
    pub commit: CommitRow,
    /// Its nodes.
    pub nodes: Vec<CommitNodeView>,
    /// Its network; absent in a disk commit and where nodes have none between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<CommitNetworkView>,
    /// What was done on its branch since the commit before it: the newest, oldest first.
    #[serde(default)]
    pub commands: Vec<CommandRow>,
    /// How much that was in all.
    #[serde(default)]
    pub commands_total: u64,
    /// How long the branch stood still, in milliseconds.
    pub pause_ms: f64,
    /// Copies that are kept ready.
    pub warm: u32,
    /// How many of them are ready.
    pub warm_ready: u32,
    /// Whether this host can restore it.
    pub restorable: bool,
    /// Why not, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restorable_reason: Option<String>,
}

/// Check every byte of a commit against its checksums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitVerifyParams {
    /// An id, or `CLUSTER@TAG`.
    pub commit: String,
}

/// A commit that was checked. Damage is the error `corrupt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommitVerifyResult {
    /// The commit.
    pub commit_id: CommitId,
    /// Always true; damage is an error.
    pub intact: bool,
    /// Commits whose files its memory is made from, itself included.
    pub commits_checked: u32,
    /// Bytes that were checked.
    pub bytes_checked: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// Delete a commit. Refused while a tag or branch needs it, unless forced; its bytes stay for as
/// long as other commits are made of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitDeleteParams {
    /// An id, or `CLUSTER@TAG`.
    pub commit: String,
    /// Also remove its tags and the notes that branches have of it.
    #[serde(default)]
    pub force: bool,
}

/// A commit that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommitDeleteResult {
    /// The commit.
    pub commit_id: CommitId,
    /// Bytes that were freed at once.
    pub freed_bytes: u64,
    /// Whether its files stay because other commits are made of them.
    pub kept_for_others: bool,
    /// Tags that went with it.
    pub removed_tags: Vec<Name>,
}

/// Name a commit. A tag that exists moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TagSetParams {
    /// An id, or `CLUSTER@TAG`.
    pub commit: String,
    /// The name.
    pub tag: Name,
}

/// A tag that was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TagSetResult {
    /// The name.
    pub tag: Name,
    /// The commit.
    pub commit_id: CommitId,
    /// What it named before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<CommitId>,
}

/// Remove a tag; the commit stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TagDeleteParams {
    /// Name or id of the cluster; the only cluster if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The name.
    pub tag: Name,
}

/// A tag that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TagDeleteResult {
    /// The name.
    pub tag: Name,
    /// What it named.
    pub commit_id: CommitId,
}
