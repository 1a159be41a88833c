//! What a topology says once everything is decided: defaults filled in, addresses and MACs given,
//! names checked. Two files that mean the same are equal here.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

pub use pando_model::disk::ExtraDisk;
use pando_model::fault::Impairment;
use pando_model::guest::Command;
use pando_model::network::MacAddress;
use pando_model::{BridgeName, ByteCount, Name, Uplink};
use serde::{Deserialize, Serialize};

use crate::error::Note;

/// A cluster as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The cluster's name.
    pub name: Name,
    /// What it is for; empty if nothing is said.
    pub description: String,
    /// Its networks, at least one, in the order of the file.
    pub networks: Vec<Network>,
    /// Its nodes, at least one, in the order of the file.
    pub nodes: Vec<Node>,
    /// Ports of this host that lead to nodes.
    pub forwards: Vec<Forward>,
    /// How people and programs log in.
    pub ssh: Ssh,
    /// Names that stand for tags: `snapshot_revert` of the key means the tag.
    pub snapshots: BTreeMap<Name, Name>,
    /// Free labels of the cluster, for filters.
    pub labels: BTreeMap<String, String>,
    /// What is in the file and has no effect, or another than one might think. No part of the
    /// digest, nor of the canonical form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// One layer-2 network of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name, unique in the cluster.
    pub name: Name,
    /// Its IPv4 network's address.
    pub subnet: Ipv4Addr,
    /// Bits of that network's prefix.
    pub prefix_bits: u8,
    /// The switch's own address.
    pub gateway: Ipv4Addr,
    /// Its IPv6 network, if it has one.
    pub ipv6: Option<Network6>,
    /// Whether its nodes reach the outside.
    pub uplink: Uplink,
    /// What every frame between two of its nodes suffers, in both directions, from the beginning.
    pub link: Option<Impairment>,
    /// The kernel's bridge that it is, in place of a user-space switch.
    #[serde(default)]
    pub bridge: Option<BridgeName>,
}

/// The IPv6 side of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network6 {
    /// The network's address.
    pub subnet: Ipv6Addr,
    /// Bits of its prefix.
    pub prefix_bits: u8,
    /// The switch's own address.
    pub gateway: Ipv6Addr,
}

/// One virtual machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, unique in the cluster; also its host name.
    pub name: Name,
    /// What it is for, in one word; `node` unless the file says more.
    pub role: String,
    /// What it starts from.
    pub image: ImageRef,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// RAM.
    pub memory: ByteCount,
    /// Size of its root disk; the image's own if `None`.
    pub disk: Option<ByteCount>,
    /// Disks beside the root disk, empty at first, in the order that the machine sees them.
    pub extra_disks: Vec<ExtraDisk>,
    /// Its interfaces; the first one has the default route.
    pub interfaces: Vec<Interface>,
    /// Environment of every command run in it, and of its services.
    pub env: BTreeMap<String, String>,
    /// A script (`#!…`) run once after the first start, or cloud-config for images with cloud-init.
    pub user_data: Option<String>,
    /// Files written before anything runs.
    pub files: Vec<File>,
    /// Set-up: run once after the first start, in order, each only if the one before exited with 0.
    pub commands: Vec<Command>,
    /// What runs in it, started after set-up.
    pub services: Vec<Service>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// An image, as a topology names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageRef {
    /// Its name or id.
    pub name: String,
    /// The disk file that the topology named instead (`base_image: /…/debian-12.qcow2`); `name` is
    /// then made of the file's. If there is no such image, this is what has to be imported.
    pub file: Option<String>,
}

/// One interface of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The network that it is plugged into.
    pub network: Name,
    /// Its MAC address, unique in the cluster.
    pub mac: MacAddress,
    /// Its IPv4 address, unique in the cluster.
    pub address: Ipv4Addr,
    /// Its IPv6 address, if the network has IPv6.
    pub address6: Option<Ipv6Addr>,
}

/// A file of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Absolute path in the guest, without `..`; missing directories are made.
    pub path: String,
    /// Its contents.
    pub contents: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as user name or number; root if `None`.
    pub owner: Option<String>,
}

/// When a service that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    No,
    /// Unless it exited with 0.
    OnFailure,
    /// Always.
    Always,
}

/// A program that runs in a node as long as the node does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, unique in the node.
    pub name: Name,
    /// What runs.
    pub command: Command,
    /// Environment, over the node's.
    pub env: BTreeMap<String, String>,
    /// Working directory; the user's home if `None`.
    pub cwd: Option<String>,
    /// User name or number; root if `None`.
    pub user: Option<String>,
    /// When it is started again.
    pub restart: Restart,
    /// Services of the same node that are started before it.
    pub after: Vec<Name>,
}

/// A TCP port of this host's loopback address that leads to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The port on this host; a free one of each branch's own if `None`. A fixed one is that of the
    /// branch that the definition made, while it runs; the others get free ones.
    pub host_port: Option<u16>,
    /// The node.
    pub node: Name,
    /// The port in the guest.
    pub guest_port: u16,
}

/// How people and programs log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ssh {
    /// The user.
    pub user: String,
    /// The file of a private key on this host, beside the cluster's own.
    #[serde(default)]
    pub key_path: Option<String>,
    /// How long a connection may take, in seconds.
    pub connect_timeout_s: u32,
}

impl Default for Ssh {
    fn default() -> Self {
        Self { user: "root".to_owned(), key_path: None, connect_timeout_s: 30 }
    }
}

impl Topology {
    /// Returns the node of this name.
    pub fn node(&self, name: &Name) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// Returns the network of this name.
    pub fn network(&self, name: &Name) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == *name)
    }
}
