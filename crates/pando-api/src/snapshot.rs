//! Snapshots: tagged commits, under the names that cluster tools give them.

use jiff::Timestamp;
use pando_model::commit::CommitKind;
use pando_model::{Address, CommitId, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::{ClusterStatusResult, ssh_timeout};
use crate::commit::StalledPort;
use crate::page::{Page, default_limit, yes};

/// Snapshot all nodes of a cluster at one instant: a commit with a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreateParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// Its name, unique in the cluster.
    pub snapshot_name: Name,
    /// Keep memory, devices and network too, not the disks only.
    #[serde(default)]
    pub include_memory: bool,
}

/// One node's share of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotNode {
    /// The node.
    pub node_name: Name,
    /// Its frozen disk.
    pub disk_path: String,
    /// Bytes of that disk's file.
    pub size_bytes: u64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotInfo {
    /// Its name: a tag.
    pub snapshot_name: Name,
    /// Whose it is.
    pub cluster_name: Name,
    /// The commit.
    pub commit_id: CommitId,
    /// What it holds.
    pub kind: CommitKind,
    /// The branch that it was cut from, by name.
    pub branch: Name,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its nodes.
    pub per_node: Vec<SnapshotNode>,
    /// Interfaces that did not take in all that was sent to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stalled: Vec<StalledPort>,
    /// What of the network it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// List a cluster's snapshots: its tagged commits, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotListParams {
    /// Name or id; the only cluster if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Most snapshots to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Some snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotListResult {
    /// Newest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}

/// Return all nodes of a cluster, in place, to a snapshot: all of them or none. The state before is
/// kept as a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRevertParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// Its name, the topology's name for it, or a commit's id.
    pub snapshot_name: String,
    /// Commit the state before, so that nothing is lost.
    #[serde(default = "yes")]
    pub save: bool,
    /// Run afterwards; otherwise the cluster is stopped, on the snapshot's disks.
    #[serde(default = "yes")]
    pub restart_after: bool,
    /// Then wait until SSH answers on every node too.
    #[serde(default = "yes")]
    pub wait_for_ssh: bool,
    /// How long to wait for it, in seconds.
    #[serde(default = "ssh_timeout")]
    #[schemars(range(min = 1, max = crate::limits::MAX_WAIT_S))]
    pub ssh_timeout_s: u64,
}

/// A cluster that was reverted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotRevertResult {
    /// The cluster.
    #[serde(flatten)]
    pub status: ClusterStatusResult,
    /// The snapshot's commit.
    pub reverted_to: CommitId,
    /// The state before, as a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_as: Option<CommitId>,
    /// What of that state it does not hold, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save_note: Option<String>,
    /// From the request until every guest answered, in milliseconds.
    pub ready_ms: u64,
}

/// Delete a snapshot on all nodes. Refused while a branch stands on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotDeleteParams {
    /// Name or id of the cluster.
    pub cluster_name: String,
    /// Its name, or the topology's name for it.
    pub snapshot_name: String,
}

/// A snapshot that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotDeleteResult {
    /// Its name.
    pub snapshot_name: Name,
    /// Its commit.
    pub commit_id: CommitId,
    /// Nodes whose share was deleted.
    pub deleted_nodes: Vec<Name>,
    /// Bytes that were freed.
    pub freed_bytes: u64,
}
