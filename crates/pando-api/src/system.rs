//! The daemon and the host: parameters and results of `gc` and `system_status`.

use jiff::Timestamp;
use pando_model::MachineProfile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Remove what nothing refers to: files of deleted commits and branches, caches over their budget,
/// leftovers of crashes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcParams {
    /// Only say what would be removed.
    #[serde(default)]
    pub dry_run: bool,
}

/// One thing that was or would be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GcItem {
    /// What kind of thing: `commit`, `layer`, `branch`, `memory`, `image`, `operation`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Why nothing needs it.
    pub reason: String,
}

/// What was or would be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GcResult {
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// The things, at most 200 of them.
    pub removed: Vec<GcItem>,
    /// How many there are.
    pub count: u64,
    /// Bytes that were or would be freed.
    pub freed_bytes: u64,
}

/// Show the daemon: version, home, what there is and what there is room for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemStatusParams {}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Clusters.
    pub clusters: u64,
    /// Branches.
    pub branches: u64,
    /// Branches that run.
    pub running: u64,
    /// Branches that are paused.
    pub paused: u64,
    /// Commits.
    pub commits: u64,
    /// Images.
    pub images: u64,
    /// Operations under way.
    pub operations: u64,
    /// Operations that are stuck.
    pub stuck_operations: u64,
}

/// What there is room for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CapacityView {
    /// RAM of the host, in MiB.
    pub memory_total_mib: u64,
    /// RAM that could be used now, in MiB.
    pub memory_available_mib: u64,
    /// Size of the file system that holds the home, in MiB.
    pub disk_total_mib: u64,
    /// Free space on it, in MiB.
    pub disk_free_mib: u64,
    /// Processors.
    pub processors: u32,
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SystemStatusResult {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its home directory.
    pub home: String,
    /// Where it listens on TCP, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// What there is.
    pub counts: Counts,
    /// What there is room for.
    pub capacity: CapacityView,
    /// What machines started now would record; absent when no usable QEMU was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<MachineProfile>,
    /// What is not as it should be, in words.
    pub warnings: Vec<String>,
}
