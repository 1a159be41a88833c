//! From a topology to a cluster's record, and what differs between two of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pando_api::cluster::Drift;
use pando_model::cluster::{Interface, TopologySource};
use pando_model::fault::{Effect, Fault};
use pando_model::network::{End, Link, Segment};
use pando_model::{
    BootMethod, Cluster, ClusterId, ClusterState, ErrorCode, FaultId, Image, Name, NodeDef,
    NodeShape, Uplink,
};
use pando_topology::{Limits, Network, Node, Topology};

use crate::engine::Engine;
use crate::failure::{Failure, Result};

/// Most differences that are told.
const MAX_DRIFT: usize = 100;

/// Most bytes of a topology's file.
const MAX_FILE: u64 = pando_api::limits::MAX_TOPOLOGY_BYTES;

/// Returns what a topology's text says.
pub(crate) fn read(text: &str) -> Result<Topology> {
    pando_topology::parse(text, &Limits::default()).map_err(|errors| {
        Failure::new(ErrorCode::InvalidParameter, format!("the topology is refused: {errors}"))
            .subject("topology")
            .hint("`pando topology validate` checks a topology and changes nothing")
    })
}

impl Engine {
    /// Returns the text of a topology in the topology directory.
    pub(crate) async fn topology_file(&self, name: &str) -> Result<String> {
        let directory = &self.config.topology_dir;
        let shown: String = name.chars().take(64).collect();
        let name = name.strip_suffix(".yaml").unwrap_or(name).parse::<Name>();
        let name = name.map_err(|error| {
            Failure::new(ErrorCode::InvalidParameter, format!("`{shown}`: {error}"))
                .subject("topology_name")
                .hint("give the file's name without `.yaml`, or the text itself as `topology`")
        })?;
        let path = directory.join(format!("{name}.yaml"));
        let failed = |error: std::io::Error| {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorCode::NotFound,
                _ => ErrorCode::Internal,
            };
            Failure::new(code, format!("cannot read the topology {}: {error}", path.display()))
                .subject(name.as_str())
                .hint(format!(
                    "put it there, or `pando cluster define FILE`; {} is `topology_dir`",
                    directory.display()
                ))
        };
        let size = tokio::fs::metadata(&path).await.map_err(failed)?.len();
        if size > MAX_FILE {
            let message =
                format!("{} has {size} bytes, at most {MAX_FILE} are read", path.display());
            return Err(Failure::new(ErrorCode::LimitExceeded, message));
        }
        tokio::fs::read_to_string(&path).await.map_err(failed)
    }
}

fn segment_of(network: &Network) -> Segment {
    Segment {
        name: network.name.clone(),
        subnet: network.subnet,
        prefix_bits: network.prefix_bits,
        gateway: network.gateway,
        gateway6: network.ipv6.map(|ipv6| (ipv6.gateway, ipv6.prefix_bits)),
        uplink: network.uplink,
    }
}

fn node_of(node: &Node, image: &Image) -> Result<NodeDef> {
    let disk = node.disk.unwrap_or(image.disk_size);
    let refused = |message: String| {
        Failure::new(ErrorCode::InvalidParameter, format!("node `{}`: {message}", node.name))
            .subject(node.name.as_str())
    };
    if disk < image.disk_size {
        let message =
            format!("its disk is {disk}, but the image {} needs {}", image.name, image.disk_size);
        return Err(refused(message));
    }
    if let Some(data) = &node.user_data
        && !data.starts_with("#!")
        && matches!(image.boot, BootMethod::Direct { .. })
    {
        let message = format!("the image {} has no cloud-init to read cloud-config", image.name);
        return Err(refused(message).hint("give a script (`#!/bin/sh …`), or import a cloud image"));
    }
    let shape = NodeShape {
        vcpus: node.vcpus,
        memory: node.memory,
        disk,
        nics: u8::try_from(node.interfaces.len()).unwrap_or(u8::MAX),
    };
    shape.validate().map_err(|error| refused(error.to_string()))?;
    let interfaces = node.interfaces.iter().map(|own| Interface {
        network: own.network.clone(),
        mac: own.mac,
        address: Some(own.address),
        address6: own.address6,
    });
    Ok(NodeDef {
        name: node.name.clone(),
        shape,
        image: image.id.clone(),
        env: node.env.clone(),
        user_data: node.user_data.clone(),
        host_key: None,
        role: node.role.clone(),
        interfaces: interfaces.collect(),
    })
}

/// Returns the links of a network, in both directions.
fn links_in(nodes: &[Node], network: &Name) -> Vec<Link> {
    let within = |node: &&Node| node.interfaces.iter().any(|own| own.network == *network);
    let end = |node: &Node| End::Node(node.name.clone());
    let mut links = Vec::new();
    for from in nodes.iter().filter(within) {
        for to in nodes.iter().filter(within).filter(|to| to.name != from.name) {
            links.push(Link { from: end(from), to: end(to) });
        }
    }
    links
}

/// Returns the faults that a topology's link defaults are. Their seeds follow from the text, so that
/// defining it again elsewhere loses the same frames.
fn faults_of(topology: &Topology, text: &str, now: Timestamp) -> Vec<Fault> {
    let networks =
        topology.networks.iter().filter_map(|network| Some((network, network.link.clone()?)));
    let fault = |(network, impairment): (&Network, _)| {
        let seed = blake3::hash(format!("{}\n{text}", network.name).as_bytes());
        let mut low = [0; 8];
        low.copy_from_slice(&seed.as_bytes()[..8]);
        Fault {
            id: FaultId::random(),
            label: Some(format!("links of {}", network.name)),
            effect: Effect::Impair(impairment),
            links: links_in(&topology.nodes, &network.name),
            seed: u64::from_le_bytes(low),
            created_at: now,
            expires_at: None,
        }
    };
    networks.map(fault).filter(|fault| !fault.links.is_empty()).collect()
}

/// Returns the record of a cluster that is still to be made; `images` are its nodes'.
pub(crate) fn cluster_of(
    topology: &Topology,
    text: &str,
    images: &BTreeMap<Name, Image>,
    actor: &str,
) -> Result<Cluster> {
    let nodes = topology.nodes.iter().map(|node| {
        let image = images.get(&node.name);
        node_of(node, image.ok_or_else(|| Failure::internal("a node without image"))?)
    });
    let now = Timestamp::now();
    let names = |name: &Name| name.to_string();
    Ok(Cluster {
        id: ClusterId::random(),
        name: topology.name.clone(),
        state: ClusterState::Creating,
        nodes: nodes.collect::<Result<_>>()?,
        uplink: match topology.networks.iter().any(|network| network.uplink == Uplink::Nat) {
            true => Uplink::Nat,
            false => Uplink::None,
        },
        networks: topology.networks.iter().map(segment_of).collect(),
        topology: Some(TopologySource { text: text.to_owned(), digest: topology.digest() }),
        faults: faults_of(topology, text, now),
        snapshots: topology.snapshots.iter().map(|(key, tag)| (names(key), names(tag))).collect(),
        labels: topology.labels.clone(),
        created_at: now,
        created_by: actor.to_owned(),
    })
}

/// Returns how a topology differs from the one that a cluster is defined from.
pub(crate) fn drift(defined: &Topology, now: &Topology) -> Vec<Drift> {
    let differences = pando_topology::diff(defined, now).into_iter().take(MAX_DRIFT);
    let drift = |found: pando_topology::Drift| Drift {
        path: found.path,
        defined: found.defined,
        topology: found.file,
    };
    differences.map(drift).collect()
}
