//! Clusters of several nodes: parameters and results of the `cluster_*` verbs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pando_model::{Address, BranchId, BranchState, ClusterId, ClusterState, CommitId, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::page::{Page, default_limit, yes};
use crate::topology::Drift;

const fn shutdown() -> StopMode {
    StopMode::Shutdown
}

pub(crate) const fn ssh_timeout() -> u64 {
    crate::limits::DEFAULT_SSH_TIMEOUT_S
}

const fn shutdown_timeout() -> u64 {
    crate::limits::DEFAULT_SHUTDOWN_TIMEOUT_S
}

/// Define a cluster from a topology: make its disks and ready states. Nothing runs yet. Defining it
/// again changes nothing; what differs by then is returned as `drift`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterDefineParams {
    /// A name that `topology_list` shows, or the YAML (or JSON) itself. No path: pass what the file
    /// holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// The same, under the name of vmcluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_name: Option<String>,
}

/// What a node's machine does, in libvirt's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DomainState {
    /// It runs.
    #[serde(rename = "running")]
    Running,
    /// It does not run.
    #[serde(rename = "shut off")]
    ShutOff,
    /// It is paused.
    #[serde(rename = "paused")]
    Paused,
    /// It ended without being asked to.
    #[serde(rename = "crashed")]
    Crashed,
    /// Not known.
    #[serde(rename = "unknown")]
    Unknown,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub role: String,
    /// Its first address.
    pub ip: String,
    /// Its machine.
    pub domain_state: DomainState,
    /// Whether its guest program answered the latest question.
    pub answers: bool,
    /// Whether an SSH server answers behind its forwarded port.
    pub ssh_reachable: bool,
    /// Services that failed in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_services: Vec<String>,
    /// Why it ended, or does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A cluster on one of its branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterStatusResult {
    /// Its name.
    pub cluster_name: Name,
    /// Its id.
    pub cluster_id: ClusterId,
    /// `CLUSTER@BRANCH` that is shown.
    pub address: String,
    /// That branch.
    pub branch_id: BranchId,
    /// What the branch does.
    pub state: BranchState,
    /// Its incarnation: it grows with each start and rollback.
    pub generation: u64,
    /// Its latest commit, or the one it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<CommitId>,
    /// Whether it was never started.
    pub fresh: bool,
    /// Whether its network forwards frames.
    pub network_active: bool,
    /// Faults that work in its network.
    pub active_faults: u32,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Branches of the cluster.
    pub branches: u32,
    /// Of those, how many run.
    pub running_branches: u32,
}

/// A cluster that is defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterDefineResult {
    /// The cluster.
    #[serde(flatten)]
    pub status: ClusterStatusResult,
    /// Whether this call defined it.
    pub created: bool,
    /// BLAKE3 of the topology that it is defined from, in hex.
    pub topology_digest: String,
    /// How this topology differs from that one. Nothing was changed.
    pub drift: Vec<Drift>,
    /// What the topology has and what has no effect here.
    pub notes: Vec<String>,
    /// From the request until it was defined, in milliseconds.
    pub duration_ms: u64,
}

/// Start all nodes of a cluster that do not run. The first start continues from ready states, then
/// writes the topology's files and runs its commands; later ones boot the disks. If one node fails,
/// none is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterStartParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// Wait until SSH answers on every node too.
    #[serde(default = "yes")]
    pub wait_for_ssh: bool,
    /// How long to wait for it, in seconds.
    #[serde(default = "ssh_timeout")]
    #[schemars(range(min = 1, max = crate::limits::MAX_WAIT_S))]
    pub ssh_timeout_s: u64,
}

/// A cluster that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterStartResult {
    /// The cluster.
    #[serde(flatten)]
    pub status: ClusterStatusResult,
    /// Nodes that this call started.
    pub started: Vec<Name>,
    /// Nodes on which no SSH server answered in time, and why; they were started all the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ssh_missing: BTreeMap<Name, String>,
    /// What to do about those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether they continued from ready states.
    pub warm: bool,
    /// From the request until every guest answered, in milliseconds; 0 if all ran.
    pub ready_ms: u64,
    /// Files, scripts, commands and services of the topology that were set up.
    pub set_up: u32,
}

/// How nodes are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Their guests are asked to shut down.
    Shutdown,
    /// Their power is cut.
    Destroy,
}

/// Stop all nodes of a branch of a cluster. Its disks stay, its memory does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterStopParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// How.
    #[serde(default = "shutdown")]
    pub mode: StopMode,
    /// How long guests may take to shut down, in seconds, before they are killed.
    #[serde(default = "shutdown_timeout")]
    #[schemars(range(min = 1, max = crate::limits::MAX_WAIT_S))]
    pub timeout_s: u64,
}

/// Stop all branches of a cluster; with `remove_overlays`, also remove its disks, snapshots, keys
/// and name, for good. Without, it can be started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterDestroyParams {
    /// Name or id.
    pub cluster_name: String,
    /// Remove everything of it.
    #[serde(default)]
    pub remove_overlays: bool,
}

/// A cluster that was destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterDestroyResult {
    /// Its name.
    pub cluster_name: Name,
    /// Its id.
    pub cluster_id: ClusterId,
    /// Whether its network forwards frames: never.
    pub network_active: bool,
    /// Its nodes, none of which runs.
    pub nodes: Vec<NodeStatus>,
    /// Branches that were stopped.
    pub stopped_branches: u32,
    /// Commits that were kept.
    pub kept_commits: u32,
    /// Whether its disks and commits were removed.
    pub removed_overlays: bool,
}

/// Show a cluster's nodes: what their machines do, and whether they answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterStatusParams {
    /// `CLUSTER[@BRANCH]`; the only cluster if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<Address>,
}

/// Return how to work with a running cluster: its nodes' addresses, the ports of this host that
/// lead to them, who logs in with which key, the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterHandleParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
}

/// How to log in to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeHandle {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub role: String,
    /// Its first address, inside the cluster.
    pub ip: String,
    /// Where this host's SSH client connects to.
    pub ssh_host: String,
    /// The port there; it leads to the node's port 22.
    pub ssh_port: u16,
    /// Who logs in.
    pub ssh_user: String,
    /// The private key's file: the topology's while its file has that key, else the cluster's.
    pub ssh_key_path: String,
    /// Other ports of the node that the topology forwards: guest's → this host's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forwards: BTreeMap<u16, u16>,
}

/// How to work with a running cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterHandleResult {
    /// Its name.
    pub cluster_name: Name,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// Where artifacts are put in its nodes.
    pub artifact_path: String,
    /// The kernel of the first node that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_version: Option<String>,
    /// The host keys of its nodes, for `UserKnownHostsFile`.
    pub known_hosts_path: String,
    /// Its nodes.
    pub nodes: Vec<NodeHandle>,
}

/// List clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterListParams {
    /// Only those whose name begins with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
    /// Most clusters to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One cluster of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterRow {
    /// Its name.
    pub name: Name,
    /// Its id.
    pub cluster_id: ClusterId,
    /// Where it is in its life.
    pub state: ClusterState,
    /// Its nodes.
    pub nodes: Vec<Name>,
    /// Its networks.
    pub networks: Vec<Name>,
    /// Its branches.
    pub branches: u32,
    /// Of those, how many run.
    pub running: u32,
    /// BLAKE3 of the topology that it is defined from; absent for a machine by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_digest: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
}

/// Some clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterListResult {
    /// By name.
    pub clusters: Vec<ClusterRow>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}
