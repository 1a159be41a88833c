//! What machines take of their host: parameters and result of `vm_usage`.

use jiff::Timestamp;
use pando_model::branch::BranchState;
use pando_model::{BranchId, ClusterId, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::page::{Page, default_limit};

/// List what running and paused machines take of this host, as the kernel counts it. No guest is
/// asked. Processor time only grows: ask twice for how busy a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmUsageParams {
    /// Only branches of this cluster, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Most machines to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What one machine takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmUsageRow {
    /// `CLUSTER@BRANCH/NODE`.
    pub address: String,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its branch.
    pub branch_id: BranchId,
    /// Its node's name.
    pub node: Name,
    /// What it is doing.
    pub state: BranchState,
    /// Time since this incarnation started, in milliseconds.
    pub uptime_ms: u64,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Processor time of the host that it took, in milliseconds.
    pub cpu_ms: u64,
    /// RAM, in MiB.
    pub memory_mib: u64,
    /// Memory of the host that it takes (its proportional share), in bytes.
    pub host_memory_bytes: u64,
    /// Bytes that it wrote to its disk since its latest commit, or its base.
    pub host_disk_bytes: u64,
    /// Memory of the host that its keeper takes beside it, in bytes; nodes of a branch share one.
    pub keeper_memory_bytes: u64,
    /// Processor time of the branch's keeper, in milliseconds.
    pub keeper_cpu_ms: u64,
    /// Commands that run in it and are waited for; detached ones are operations.
    pub commands: u32,
}

/// What machines take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmUsageResult {
    /// When it was counted.
    pub counted_at: Timestamp,
    /// Sorted by address.
    pub nodes: Vec<VmUsageRow>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}
