//! Virtual machines: parameters and results of the `vm_*` verbs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pando_model::branch::BranchState;
use pando_model::guest::{GuestFacts, InterfaceFacts};
use pando_model::{
    Accelerator, Address, BranchId, ClusterId, CommitId, ImageId, Name, OperationId, Uplink,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exec::ExecRunResult;
use crate::limits::{DEFAULT_READY_TIMEOUT_S, DEFAULT_SHUTDOWN_TIMEOUT_S};
use crate::page::{Page, default_limit, yes};

fn default_image() -> String {
    "default".to_owned()
}

const fn one() -> u8 {
    1
}

const fn default_memory() -> u64 {
    512
}

const fn ready_timeout() -> u64 {
    DEFAULT_READY_TIMEOUT_S
}

const fn shutdown_timeout() -> u64 {
    DEFAULT_SHUTDOWN_TIMEOUT_S
}

/// Create a virtual machine and start it from its image's ready state; the first of a shape boots
/// once to make that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCreateParams {
    /// Its name; also its host name.
    pub name: Name,
    /// Image, by name or id.
    #[serde(default = "default_image")]
    pub image: String,
    /// Virtual CPUs.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_VCPUS))]
    pub vcpus: u8,
    /// RAM, in MiB.
    #[serde(default = "default_memory")]
    #[schemars(range(min = pando_model::limits::MIN_MEMORY.mib(), max = pando_model::limits::MAX_MEMORY.mib()))]
    pub memory_mib: u64,
    /// Root disk, in GiB; the image's size if left out, never less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_DISK.gib()))]
    pub disk_gib: Option<u64>,
    /// Network interfaces.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = crate::limits::MAX_NICS))]
    pub nics: u8,
    /// `nat`: the outside, never this host's loopback; its connections stay with the parent.
    #[serde(default)]
    pub uplink: Uplink,
    /// Environment of its commands.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Labels, for filters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A script (`#!…`) to run once after the first start, or cloud-config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Boot it, even where a ready state is faster.
    #[serde(default)]
    pub cold: bool,
    /// Wait until it answers; else return the operation.
    #[serde(default = "yes")]
    pub wait: bool,
    /// How long it may take to answer, in seconds.
    #[serde(default = "ready_timeout")]
    #[schemars(range(min = 1, max = crate::limits::MAX_WAIT_S))]
    pub timeout_s: u64,
}

/// A machine that was created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VmCreateResult {
    /// Its cluster, which has only this node.
    pub cluster_id: ClusterId,
    /// Its first branch, `main`.
    pub branch_id: BranchId,
    /// An address that names this machine whatever is checked out.
    pub vm_id: String,
    /// Its name.
    pub name: Name,
    /// Its node's name.
    pub node: Name,
    /// Where to send commands: `NAME@BRANCH`.
    pub address: String,
    /// The image that it started from.
    pub image_id: ImageId,
    /// What it is doing.
    pub state: BranchState,
    /// Whether it started from a ready state.
    pub warm: bool,
    /// Whether that ready state was made first: the image had not booted with such hardware before.
    #[serde(default)]
    pub first_of_its_kind: bool,
    /// From the request until it was ready, its boot complete, in milliseconds.
    pub ready_ms: u64,
    /// From the start of its machine until its guest answered, in milliseconds.
    #[serde(default)]
    pub answered_ms: u64,
    /// How its user data script ended, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<ExecRunResult>,
    /// The operation; with `wait: false` it is still under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
    /// The command that logs in over SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_hint: Option<String>,
}

/// List machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmListParams {
    /// Only those whose name starts so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
    /// Only those whose current branch is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BranchState>,
    /// Only those with this label: `KEY` or `KEY=VALUE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Only those of this image, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Most machines to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One machine of a list: its checked-out branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmRow {
    /// An address that names this machine whatever is checked out.
    pub vm_id: String,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its name.
    pub name: Name,
    /// Its node's name.
    pub node: Name,
    /// The caller's checked-out branch.
    pub branch: Name,
    /// That branch's id.
    pub branch_id: BranchId,
    /// What that branch is doing.
    pub state: BranchState,
    /// Branches that it has.
    pub branches: u32,
    /// How many of them run.
    pub running: u32,
    /// Its image's name, or the id when the name has moved on.
    pub image: String,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// RAM, in MiB.
    pub memory_mib: u64,
    /// Size of the root disk, in GiB, rounded up.
    pub disk_gib: u64,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Who created it.
    pub created_by: String,
}

/// Some machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmListResult {
    /// Sorted by name.
    pub vms: Vec<VmRow>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}

/// Show what a machine is doing: state, health, resources, network, and what its guest says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmStatusParams {
    /// `CLUSTER[@BRANCH][/NODE]` or an id; the only machine if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Also what the guest says of itself in full.
    #[serde(default)]
    pub verbose: bool,
}

/// Whether a machine does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It runs, answers, and no service of it failed.
    Healthy,
    /// It runs and answers, and a service of it failed.
    Degraded,
    /// It runs and does not answer.
    Unreachable,
    /// It is paused.
    Paused,
    /// It does not run.
    Stopped,
    /// Not known.
    Unknown,
}

/// What a machine may use and uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// RAM, in MiB.
    pub memory_mib: u64,
    /// Size of the root disk, in GiB, rounded up.
    pub disk_gib: u64,
    /// Memory of the host that it takes (its proportional share), in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_memory_bytes: Option<u64>,
    /// Memory of the host that its keeper takes beside it, in bytes; nodes of a branch share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper_memory_bytes: Option<u64>,
    /// Processor time of the branch's keeper, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper_cpu_ms: Option<u64>,
    /// Bytes that it wrote to its disk since its base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_disk_bytes: Option<u64>,
    /// Processor time of the host that it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
}

/// A machine's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// MAC addresses, one per interface.
    pub macs: Vec<String>,
    /// Interfaces as the guest sees them; empty when it does not answer.
    pub interfaces: Vec<InterfaceFacts>,
    /// Whether it reaches the outside.
    pub uplink: Uplink,
}

/// What a machine is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmStatusResult {
    /// An address that names this machine whatever is checked out.
    pub vm_id: String,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// The branch that is shown.
    pub branch_id: BranchId,
    /// The cluster's name.
    pub name: Name,
    /// The branch's name.
    pub branch: Name,
    /// The node's name.
    pub node: Name,
    /// `NAME@BRANCH/NODE` in full.
    pub address: String,
    /// What it is doing, as observed.
    pub state: BranchState,
    /// What it should be doing.
    pub intended: BranchState,
    /// Why the two differ, or why it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it does its work.
    pub health: Health,
    /// Time since this incarnation started, in milliseconds; 0 when it does not run.
    pub uptime_ms: u64,
    /// Services that run in it.
    pub services: Vec<String>,
    /// Services that failed in it.
    pub failed_services: Vec<String>,
    /// What it may use and uses.
    pub resources: Resources,
    /// Its network.
    pub network: Network,
    /// Branches of its cluster.
    pub branches: u32,
    /// Its image's name, or the id when the name has moved on.
    pub image: String,
    /// The latest commit, or the one it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<CommitId>,
    /// How its code runs; absent when it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Accelerator>,
    /// Grows with every start, restore and rollback.
    pub generation: u64,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What the guest says of itself, when asked for with `verbose`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestFacts>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Who created it.
    pub created_by: String,
}

/// What to do with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Boot it from its disk.
    Start,
    /// Ask the guest to shut down; kill it when the time is up.
    Stop,
    /// Stop it and start it again.
    Restart,
    /// Let it stand still with all its state.
    Pause,
    /// Let it go on.
    Resume,
    /// Cut its power.
    Kill,
}

impl Action {
    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Kill => "kill",
        }
    }
}

/// Start, stop, restart, pause, resume or kill a branch of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmControlParams {
    /// `CLUSTER[@BRANCH]` or an id.
    pub address: Address,
    /// What to do.
    pub action: Action,
    /// How long a guest may take to shut down, in seconds, before it is killed.
    #[serde(default = "shutdown_timeout")]
    #[schemars(range(min = 1, max = crate::limits::MAX_WAIT_S))]
    pub timeout_s: u64,
}

/// A machine that was controlled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmControlResult {
    /// An address that names this machine whatever is checked out.
    pub vm_id: String,
    /// The branch.
    pub branch_id: BranchId,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// What it was doing.
    pub previous_state: BranchState,
    /// What it is doing.
    pub state: BranchState,
    /// From the request until it was so, in milliseconds.
    pub duration_ms: u64,
}

/// Delete a machine or cluster: stop all its branches; all stays under its name and can be started
/// again. With `remove_overlays`, disks, commits and name go too, unless it runs or has tagged
/// commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDeleteParams {
    /// Name or id of the cluster.
    pub name: String,
    /// Also when it runs or has tagged commits; guests are not asked to shut down then.
    #[serde(default)]
    pub force: bool,
    /// Remove its disks and commits for good.
    #[serde(default)]
    pub remove_overlays: bool,
}

/// A machine that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmDeleteResult {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its name.
    pub name: Name,
    /// Branches that were stopped.
    pub stopped_branches: u32,
    /// Commits that were kept.
    pub kept_commits: u32,
    /// Whether its disks and commits were removed.
    pub removed_overlays: bool,
}
