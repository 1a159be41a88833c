//! Topologies: parameters and results of the `topology_*` verbs.

use pando_model::Name;
pub use pando_topology::{Drift, Note, Place, TopologyError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::page::{Page, default_limit};

/// Check a topology: every error with its line, its path and its fix. Says what a cluster of it
/// would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopologyValidateParams {
    /// A name that `topology_list` shows, or the YAML (or JSON) itself; no path.
    pub topology: String,
}

/// What a topology describes, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologyView {
    /// The cluster's name.
    pub cluster: Name,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The nodes' names.
    pub nodes: Vec<Name>,
    /// The networks' names.
    pub networks: Vec<Name>,
    /// The images that it needs.
    pub images: Vec<String>,
    /// Virtual CPUs of all nodes.
    pub vcpus: u32,
    /// RAM of all nodes, in MiB.
    pub memory_mib: u64,
    /// BLAKE3 of what it means, in hex: the same for texts that mean the same.
    pub digest: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologyValidateResult {
    /// Whether a cluster can be defined from it.
    pub valid: bool,
    /// Its file, unless its text was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What it describes, if it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyView>,
    /// What is wrong, in the order of the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<TopologyError>,
    /// How many more errors there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_errors: u64,
    /// What is accepted and has no effect, or another than one might think.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// List the topologies that have a name: files `NAME.yaml` in the topology directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopologyListParams {
    /// Most topologies to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One topology of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologyRow {
    /// What verbs call it: the file's name without `.yaml`.
    pub name: String,
    /// Its file.
    pub path: String,
    /// What it describes, if it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyView>,
    /// The first error, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Some topologies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologyListResult {
    /// The directory.
    pub directory: String,
    /// Sorted by name.
    pub topologies: Vec<TopologyRow>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}

/// Show what a topology means: its YAML with no default and no address left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopologyShowParams {
    /// A name that `topology_list` shows, or the YAML (or JSON) itself; no path.
    pub topology: String,
}

/// What a topology means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologyShowResult {
    /// Its file, unless its text was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What it describes.
    pub topology: TopologyView,
    /// It, complete.
    pub yaml: String,
    /// What is accepted and has no effect, or another than one might think.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}
