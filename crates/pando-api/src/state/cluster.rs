//! What differs between two clusters: in their nodes, and between them.

use std::collections::BTreeMap;

use pando_model::change::Side;
use pando_model::{FaultId, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AspectCount;
use crate::network::FaultType;

/// What a node's machine does on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It does not run.
    #[serde(rename = "shut off")]
    ShutOff,
    /// It ended without being asked to.
    Crashed,
    /// It is in a commit.
    Saved,
}

impl NodeState {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ShutOff => "shut off",
            Self::Crashed => "crashed",
            Self::Saved => "saved",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn zero(number: &u64) -> bool {
    *number == 0
}

/// A node of a compared cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeDiff {
    /// Its name.
    pub node: Name,
    /// What it does on the side that is compared from; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NodeState>,
    /// The same of the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeState>,
    /// Whether it does the same, nothing in it differs, and nothing of it is unknown.
    pub equal: bool,
    /// How many of the differences are its own.
    #[serde(default, skip_serializing_if = "zero")]
    pub total: u64,
    /// How much differs, by aspect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<AspectCount>,
    /// Differences that no recorded command explains.
    #[serde(default, skip_serializing_if = "zero")]
    pub unexplained: u64,
    /// Why its inside could not be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
}

/// A fault that works on one side only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FaultDiff {
    /// On which.
    pub side: Side,
    /// Its id, for `net_heal`.
    pub handle_id: FaultId,
    /// What it is.
    pub fault_type: FaultType,
    /// What it was asked to do, with its nodes.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub parameters: Value,
    /// Free text of whoever made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Whether one node reaches another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// At each address.
    Yes,
    /// At some addresses.
    Partly,
    /// At none.
    No,
    /// It could not ask.
    Unknown,
}

impl Reach {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Partly => "partly",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether one node reaches another, or the gateway, on each side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinkDiff {
    /// `FROM>TO`.
    pub link: String,
    /// On the side that is compared from; absent where it was not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Reach>,
    /// The same of the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Reach>,
    /// The shortest round trip on the side that is compared from, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<f64>,
    /// The same of the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<f64>,
}

/// Who reaches whom, measured from inside the guests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReachDiff {
    /// Links that differ.
    pub differ: u64,
    /// All links.
    pub total: u64,
    /// Those that differ first; of many, not all.
    pub links: Vec<LinkDiff>,
    /// Why a side was not observed: by `from` and `to`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_observed: BTreeMap<String, String>,
}

/// What differs between nodes, and how to look closer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterDiff {
    /// Faults that work on one side only; of many, not all.
    pub faults: Vec<FaultDiff>,
    /// How many those are.
    pub faults_differ: u64,
    /// Faults that work on both sides.
    pub faults_on_both: u64,
    /// Who reaches whom.
    pub reachability: ReachDiff,
    /// The parameters that compare one node only.
    pub one_node: String,
}
