//! From a topology to a cluster's record, and what differs between two of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pando_api::topology::Drift;
use pando_model::cluster::{Interface, TopologySource};
use pando_model::fault::{Effect, Fault};
use pando_model::network::{End, Link, Segment};
use pando_model::{
    BootMethod, Cluster, ClusterId, ClusterState, ErrorCode, FaultId, Image, Name, NodeDef,
    NodeShape, Uplink,
};
use pando_topology::{Limits, Network, Node, Ssh, Topology};

use crate::failure::{Failure, Result};
use crate::faults::seed_of;

/// Most differences that are told.
const MAX_DRIFT: usize = 100;

/// Returns what a cluster was defined from.
pub(crate) fn read(source: &TopologySource) -> Result<Topology> {
    pando_topology::parse(&source.text, &Limits::default(), &source.ssh).map_err(|errors| {
        Failure::new(ErrorCode::Corrupt, format!("the recorded topology is not one: {errors}"))
    })
}

/// Returns what a cluster was defined from; `None` for one that `vm_create` made.
pub(crate) fn of(cluster: &Cluster) -> Result<Option<Topology>> {
    cluster.topology.as_ref().map(read).transpose()
}

/// Returns how to log in to a cluster's nodes.
pub(crate) fn ssh(cluster: &Cluster) -> Result<Ssh> {
    Ok(of(cluster)?.map(|topology| topology.ssh).unwrap_or_default())
}

fn segment_of(network: &Network) -> Segment {
    Segment {
        name: network.name.clone(),
        subnet: network.subnet,
        prefix_bits: network.prefix_bits,
        gateway: network.gateway,
        gateway6: network.ipv6.map(|ipv6| (ipv6.gateway, ipv6.prefix_bits)),
        uplink: network.uplink,
        bridge: network.bridge.clone(),
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
        extra_disks: node.extra_disks.clone(),
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

fn link_default_label(network: &Name) -> String {
    format!("links of {network}")
}

/// Whether a fault is what its cluster's topology says of a network's links: no fault to be healed with
/// the others, unless it is named.
pub(crate) fn is_link_default(fault: &Fault) -> bool {
    let label = fault.segment.as_ref().map(link_default_label);
    label.is_some() && fault.label == label && matches!(fault.effect, Effect::Impair(_))
}

/// Returns the faults that a topology's link defaults are. Their seeds follow from the text, so that
/// defining it again elsewhere loses the same frames.
fn faults_of(topology: &Topology, text: &str, now: Timestamp) -> Vec<Fault> {
    let networks =
        topology.networks.iter().filter_map(|network| Some((network, network.link.clone()?)));
    let fault = |(network, impairment): (&Network, _)| {
        let seed = blake3::hash(format!("{}\n{text}", network.name).as_bytes());
        Fault {
            id: FaultId::random(),
            label: Some(link_default_label(&network.name)),
            effect: Effect::Impair(impairment),
            links: links_in(&topology.nodes, &network.name),
            segment: Some(network.name.clone()),
            seed: seed_of(&seed),
            ordinal: 0,
            created_at: now,
            expires_at: None,
        }
    };
    networks.map(fault).filter(|fault| !fault.links.is_empty()).collect()
}

/// Returns the record of a cluster that is still to be made; `images` are its nodes'.
pub(crate) fn cluster_of(
    topology: &Topology,
    source: TopologySource,
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
        faults: faults_of(topology, &source.text, now),
        topology: Some(source),
        snapshots: topology.snapshots.iter().map(|(key, tag)| (names(key), names(tag))).collect(),
        labels: topology.labels.clone(),
        created_at: now,
        created_by: actor.to_owned(),
    })
}

/// Returns how a topology differs from the one that a cluster is defined from.
pub(crate) fn drift(defined: &Topology, now: &Topology) -> Vec<Drift> {
    let mut drift = pando_topology::diff(defined, now);
    drift.truncate(MAX_DRIFT);
    drift
}
