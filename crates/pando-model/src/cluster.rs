//! Clusters: what was asked for. What is running is a branch's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::id::{ClusterId, ImageId};
use crate::machine::NodeShape;
use crate::name::Name;
use crate::network::{MacAddress, Segment};

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

/// One interface of a node, the same in every branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The segment that it is plugged into.
    pub network: Name,
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its address in the segment's network.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address, in the network of the segment's gateway.
    pub address6: Option<Ipv6Addr>,
}

/// How people log in where a topology does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SshDefaults {
    /// The user; root if `None`.
    pub user: Option<String>,
    /// The file of a private key; none beside the cluster's own if `None`.
    pub key_path: Option<String>,
}

/// A key of the user's own, as its file was when a cluster was defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginKey {
    /// The private half's file.
    pub path: String,
    /// The public half, as one line without a comment.
    pub public: String,
}

/// What a cluster was defined from: later changes of settings and files do not reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologySource {
    /// The whole text.
    pub text: String,
    /// BLAKE3 of what the text means, in hex.
    pub digest: String,
    /// What held where the text says nothing.
    #[serde(default)]
    pub ssh: SshDefaults,
    /// The key that its nodes let in beside the cluster's own.
    #[serde(default)]
    pub login_key: Option<LoginKey>,
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
    /// What it is for, in the topology's words.
    #[serde(default)]
    pub role: String,
    /// Its interfaces, by number; empty in a cluster without segments, whose nodes each have a
    /// network to themselves.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
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
    /// Whether its nodes reach the outside, where it has no segments.
    pub uplink: Uplink,
    /// Its segments; none where each node has a network to itself.
    #[serde(default)]
    pub networks: Vec<Segment>,
    /// What it was defined from, if from a topology.
    #[serde(default)]
    pub topology: Option<TopologySource>,
    /// What its network does wrong from the beginning.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Other names of its tags.
    #[serde(default)]
    pub snapshots: BTreeMap<String, String>,
    /// Free labels, for filters.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
}

impl Cluster {
    /// Returns a node by name.
    pub fn node(&self, name: &Name) -> Option<&NodeDef> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// Returns whether the kernel carries its networks, in place of a user-space switch.
    pub fn is_bridged(&self) -> bool {
        self.networks.iter().any(|segment| segment.bridge.is_some())
    }

    /// Returns a segment by name.
    pub fn network(&self, name: &Name) -> Option<&Segment> {
        self.networks.iter().find(|segment| segment.name == *name)
    }
}
