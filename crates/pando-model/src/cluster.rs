//! Clusters: what was asked for. What is running is a branch's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, ImageId};
use crate::machine::NodeShape;
use crate::name::Name;

/// Whether a cluster still runs branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// Its first branch is being made.
    Creating,
    /// It can be used.
    Ready,
    /// It is being removed.
    Deleting,
}

/// Whether nodes reach the outside. Never the host's loopback or link-local addresses.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Uplink {
    /// The node's network ends at its own segment.
    #[default]
    None,
    /// Its first interface opens connections to the outside, as the host would (`passt`). Those
    /// that are open at a cut live on in the parent only.
    Nat,
}

/// One node of a cluster as it was defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDef {
    /// Unique in the cluster; also its host name.
    pub name: Name,
    /// Its hardware.
    pub shape: NodeShape,
    /// What it starts from.
    pub image: ImageId,
    /// Environment of every command run in it, and of its services.
    pub env: BTreeMap<String, String>,
    /// A script (`#!…`) run once after the first start, or cloud-config for images with cloud-init.
    pub user_data: Option<String>,
    /// Its SSH host key's public half, as one line; every branch has the same.
    #[serde(default)]
    pub host_key: Option<String>,
}

/// The record of a cluster. A single VM is a cluster of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Unique among clusters.
    pub name: Name,
    /// Where it is in its life.
    pub state: ClusterState,
    /// Its nodes, at least one.
    pub nodes: Vec<NodeDef>,
    /// Whether its nodes reach the outside.
    pub uplink: Uplink,
    /// Free labels, for filters.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
}
