//! What the engine knows of a branch's network: who can be named, where nodes are, and how faults
//! are told in a client's words. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use pando_api::ApiError;
use pando_api::commit::{CommitNetworkView, StalledPort};
use pando_api::network::{
    ALL, Direction, FaultCounters, FaultType, GATEWAY, NetFaultInfo, NetImpairParams,
};
use pando_model::fault::{Burst, Effect, Fault, Impairment, PerMillion};
use pando_model::network::{End, FaultCounts, Link, ProbeMethod, ProbeTarget};
use pando_model::{Cluster, Commit, ErrorCode, Name};
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result};
use crate::kernel;
use crate::resolve::Place;

/// Returns those faults that have not ended by themselves.
pub(crate) fn working(faults: &[Fault], now: Timestamp) -> Vec<Fault> {
    let works = |fault: &&Fault| fault.expires_at.is_none_or(|end| end > now);
    faults.iter().filter(works).cloned().collect()
}

/// Refuses a place whose nodes have no network between them.
pub(crate) fn must_have_network(place: &Place) -> Result<()> {
    if !place.cluster.networks.is_empty() {
        return Ok(());
    }
    let message = format!("{} has no network between nodes", place.cluster.name);
    Err(Failure::new(ErrorCode::WrongState, message)
        .subject(place.address())
        .hint("a cluster that is defined from a topology has: `pando cluster define TOPOLOGY`"))
}

/// Returns the end of links that somebody names.
pub(crate) fn end(place: &Place, text: &str) -> Result<End> {
    if text == GATEWAY && place.cluster.is_bridged() {
        let message =
            format!("{} has no gateway: the kernel carries its frames", place.cluster.name);
        return Err(Failure::new(ErrorCode::NotFound, message)
            .subject(GATEWAY)
            .hint("name nodes; with `mode: switch` a network has a gateway"));
    }
    if text == GATEWAY {
        return Ok(End::Gateway);
    }
    let mut nodes = place.branch.nodes.iter().map(|node| &node.name);
    if let Some(name) = nodes.find(|name| name.as_str() == text) {
        return Ok(End::Node(name.clone()));
    }
    let names: Vec<&str> = place.branch.nodes.iter().map(|node| node.name.as_str()).collect();
    Err(Failure::not_found("node", text).hint(format!(
        "{} has {} and `{GATEWAY}`",
        place.address(),
        names.join(", ")
    )))
}

/// Returns the network that somebody names.
pub(crate) fn network(place: &Place, text: &str) -> Result<Name> {
    let mut names = place.cluster.networks.iter().map(|segment| &segment.name);
    if let Some(name) = names.find(|name| name.as_str() == text) {
        return Ok(name.clone());
    }
    let names: Vec<String> =
        place.cluster.networks.iter().map(|segment| format!("`{}`", segment.name)).collect();
    let has = format!("{} has {}", place.cluster.name, names.join(", "));
    Err(Failure::not_found("network", text).hint(has))
}

/// Returns the end of links in a network, if it is in one, that somebody names.
pub(crate) fn end_in(place: &Place, network: Option<&Name>, text: &str) -> Result<End> {
    let end = end(place, text)?;
    match network {
        Some(network) if !is_in(place, network, &end) => {
            let message = format!("`{text}` is not in the network `{network}`");
            Err(ApiError::parameter("network", message)
                .hint("leave it out, or name nodes that are in it")
                .into())
        }
        _ => Ok(end),
    }
}

fn is_in(place: &Place, network: &Name, end: &End) -> bool {
    let End::Node(name) = end else { return true };
    let mut interfaces = place.cluster.node(name).into_iter().flat_map(|node| &node.interfaces);
    interfaces.any(|interface| interface.network == *network)
}

/// Returns all nodes of a network, if it is in one, that are not in a group; `parameter` asks for them.
pub(crate) fn other_nodes(
    place: &Place,
    network: Option<&Name>,
    group: &[End],
    parameter: &str,
) -> Result<Vec<End>> {
    let nodes = place.branch.nodes.iter().map(|node| End::Node(node.name.clone()));
    let within = |node: &End| network.is_none_or(|network| is_in(place, network, node));
    let others: Vec<End> = nodes.filter(|node| !group.contains(node)).filter(within).collect();
    if others.is_empty() {
        let all = network.map_or_else(|| place.address(), |network| format!("`{network}`"));
        let message = format!("nobody is left for `{parameter}`: {all} has no other node");
        return Err(ApiError::parameter(parameter, message)
            .hint(format!("`{GATEWAY}` is the way outside and the names"))
            .into());
    }
    Ok(others)
}

/// Returns all ends that links of a branch can have.
pub(crate) fn every_end(place: &Place) -> BTreeSet<End> {
    let nodes = place.branch.nodes.iter().map(|node| End::Node(node.name.clone()));
    let gateway = (!place.cluster.is_bridged()).then_some(End::Gateway);
    nodes.chain(gateway).collect()
}

/// Returns the links of a partition.
pub(crate) fn partition_links(a: &[End], b: &[End], direction: Direction) -> Vec<Link> {
    let mut links = BTreeSet::new();
    for (a, b) in a.iter().flat_map(|a| b.iter().map(move |b| (a, b))) {
        if direction != Direction::BToA {
            links.insert(Link { from: a.clone(), to: b.clone() });
        }
        if direction != Direction::AToB {
            links.insert(Link { from: b.clone(), to: a.clone() });
        }
    }
    links.into_iter().collect()
}

/// Returns the links that an impairment is asked for.
pub(crate) fn impaired_links(
    place: &Place,
    network: Option<&Name>,
    params: &NetImpairParams,
) -> Result<Vec<Link>> {
    let source = end_in(place, network, &params.source_node)?;
    let targets = match params.target_node.as_str() {
        ALL => other_nodes(place, network, std::slice::from_ref(&source), "target_node")?,
        one => vec![end_in(place, network, one)?],
    };
    let direction = if params.both_directions { Direction::Both } else { Direction::AToB };
    Ok(partition_links(&[source], &targets, direction))
}

/// Returns what an impairment's parameters, which were checked, ask for.
pub(crate) fn impairment(params: &NetImpairParams) -> Impairment {
    #[expect(clippy::cast_possible_truncation, reason = "checked: at most a minute")]
    #[expect(clippy::cast_sign_loss, reason = "checked: not negative")]
    let us = |ms: f64| (ms * 1000.0).round() as u64;
    #[expect(clippy::cast_possible_truncation, reason = "checked: at most 100 per cent")]
    #[expect(clippy::cast_sign_loss, reason = "checked: not negative")]
    let share = |pct: f64| PerMillion((pct * 10_000.0).round() as u32);
    Impairment {
        latency_us: us(params.latency_ms),
        jitter_us: us(params.jitter_ms),
        distribution: params.distribution,
        loss: share(params.loss_pct),
        burst: params.loss_burst.map(|mean_frames| Burst { mean_frames }),
        duplicate: share(params.duplicate_pct),
        corrupt: share(params.corrupt_pct),
        reorder: share(params.reorder_pct),
        rate_bps: params.rate_kbit.map(|rate| rate.saturating_mul(1000)),
    }
}

/// Returns a fault in a client's words.
pub(crate) fn fault_info(fault: &Fault, counts: Option<&[FaultCounts]>) -> NetFaultInfo {
    let nodes: BTreeSet<String> = fault
        .links
        .iter()
        .flat_map(|link| [&link.from, &link.to])
        .filter(|end| **end != End::Gateway)
        .map(End::to_string)
        .collect();
    NetFaultInfo {
        handle_id: fault.id.clone(),
        fault_type: match fault.effect {
            Effect::Partition => FaultType::Partition,
            Effect::Impair(_) => FaultType::Impairment,
        },
        affected_nodes: nodes.into_iter().collect(),
        links: fault.links.iter().map(|link| format!("{}>{}", link.from, link.to)).collect(),
        network: fault.segment.as_ref().map(Name::to_string),
        created_at: fault.created_at,
        parameters: parameters(fault),
        seed: Some(fault.seed),
        label: fault.label.clone(),
        expires_at: fault.expires_at,
        counters: counts.map(|counts| counters(fault, counts)),
    }
}

/// Returns a fault of a cluster in a client's words: where the kernel decides, no seed does.
pub(crate) fn fault_of(
    cluster: &Cluster,
    fault: &Fault,
    counts: Option<&[FaultCounts]>,
) -> NetFaultInfo {
    let seed = (!cluster.is_bridged()).then_some(fault.seed);
    NetFaultInfo { seed, ..fault_info(fault, counts) }
}

/// Returns the interfaces of a commit that did not take in all that was sent to them.
pub(crate) fn stalled(commit: &Commit) -> Vec<StalledPort> {
    let ports = commit.network.iter().flat_map(|network| &network.stalled);
    ports.map(|(node, nic)| StalledPort { node: node.clone(), nic: *nic }).collect()
}

/// Returns what a commit holds of its network.
pub(crate) fn network_view(cluster: &Cluster, commit: &Commit) -> Option<CommitNetworkView> {
    let network = commit.network.as_ref()?;
    let faults = network.faults.iter().map(|fault| fault_of(cluster, fault, None));
    Some(CommitNetworkView {
        frames_held: network.frames,
        stalled: stalled(commit),
        faults: faults.collect(),
        note: kernel::not_in(cluster, commit),
    })
}

/// Returns what a fault did on all its links.
pub(crate) fn counters(fault: &Fault, counts: &[FaultCounts]) -> FaultCounters {
    let own = counts.iter().filter(|count| count.fault == fault.id);
    own.fold(FaultCounters::default(), |sum, count| FaultCounters {
        frames: sum.frames + count.frames,
        dropped: sum.dropped + count.dropped,
    })
}

/// Returns the parameters that ask for this fault. The groups follow from its links, which are all
/// those from one group to another, and perhaps back. Those of a topology's link default are not:
/// no call asks for them at once, and no groups are told.
fn parameters(fault: &Fault) -> Value {
    let mut map = Map::new();
    if let Some(network) = &fault.segment {
        map.insert("network".to_owned(), json!(network));
    }
    let groups = groups(&fault.links);
    match &fault.effect {
        Effect::Partition => {
            if let Some((a, b, direction)) = groups {
                map.insert("partition_a".to_owned(), json!(names(&a)));
                map.insert("partition_b".to_owned(), json!(names(&b)));
                map.insert("direction".to_owned(), json!(direction));
            }
        }
        Effect::Impair(impairment) => {
            if let Some(([source], targets, direction)) =
                groups.as_ref().map(|(sources, targets, way)| (sources.as_slice(), targets, way))
            {
                // Several targets are all other nodes: nothing else asks for several.
                let target = match targets.as_slice() {
                    [one] => one.to_string(),
                    _ => ALL.to_owned(),
                };
                map.insert("source_node".to_owned(), json!(source.to_string()));
                map.insert("target_node".to_owned(), json!(target));
                map.insert("both_directions".to_owned(), json!(*direction == Direction::Both));
            }
            map.extend(impairment_parameters(impairment));
        }
    }
    Value::Object(map)
}

fn names(ends: &[End]) -> Vec<String> {
    ends.iter().map(End::to_string).collect()
}

/// Returns the two groups between which links are all there are, and which way; `None` if they are
/// not.
fn groups(links: &[Link]) -> Option<(Vec<End>, Vec<End>, Direction)> {
    let there: BTreeSet<(&End, &End)> = links.iter().map(|link| (&link.from, &link.to)).collect();
    let &(first, _) = there.first()?;
    let both = there.iter().all(|(from, to)| there.contains(&(*to, *from)));
    let direction = if both { Direction::Both } else { Direction::AToB };
    let targets: BTreeSet<&End> =
        there.iter().filter(|(from, _)| *from == first).map(|(_, to)| *to).collect();
    let sources: BTreeSet<&End> =
        there.iter().filter(|(_, to)| targets.contains(to)).map(|(from, _)| *from).collect();
    let ends = |ends: BTreeSet<&End>| ends.into_iter().cloned().collect::<Vec<End>>();
    let (mut sources, mut targets) = (ends(sources), ends(targets));
    // An impairment has one source: of the two ways to read a symmetric fault, that one.
    if both && sources.len() > 1 && targets.len() == 1 {
        std::mem::swap(&mut sources, &mut targets);
    }
    let asked = partition_links(&sources, &targets, direction);
    (asked.len() == there.len() && asked.iter().all(|link| there.contains(&(&link.from, &link.to))))
        .then_some((sources, targets, direction))
}

fn impairment_parameters(impairment: &Impairment) -> Map<String, Value> {
    #[expect(clippy::cast_precision_loss, reason = "at most a minute")]
    let ms = |us: u64| us as f64 / 1000.0;
    let pct = |share: PerMillion| f64::from(share.0) / 10_000.0;
    let mut map = Map::new();
    for (name, value) in [
        ("latency_ms", ms(impairment.latency_us)),
        ("jitter_ms", ms(impairment.jitter_us)),
        ("loss_pct", pct(impairment.loss)),
        ("duplicate_pct", pct(impairment.duplicate)),
        ("corrupt_pct", pct(impairment.corrupt)),
        ("reorder_pct", pct(impairment.reorder)),
    ] {
        if value > 0.0 {
            map.insert(name.to_owned(), json!(value));
        }
    }
    if impairment.jitter_us > 0 {
        map.insert("distribution".to_owned(), json!(impairment.distribution));
    }
    if let Some(burst) = impairment.burst {
        map.insert("loss_burst".to_owned(), json!(burst.mean_frames));
    }
    if let Some(rate) = impairment.rate_bps {
        map.insert("rate_kbit".to_owned(), json!(rate / 1000));
    }
    map
}

/// A link in one segment, or in all that both its ends are in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub link: Link,
    pub segment: Option<Name>,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>{}", self.link.from, self.link.to)?;
        match &self.segment {
            Some(segment) => write!(f, " on {segment}"),
            None => Ok(()),
        }
    }
}

/// Returns the ways that a fault works on.
pub(crate) fn ways(fault: &Fault) -> impl Iterator<Item = Way> {
    let way = |link: &Link| Way { link: link.clone(), segment: fault.segment.clone() };
    fault.links.iter().map(way)
}

/// Returns the addresses at which one node can ask another, or the gateway: those on a segment that
/// both are in, and on no other than `segment` if it is one.
pub(crate) fn addresses(
    cluster: &Cluster,
    from: &Name,
    to: &End,
    segment: Option<&Name>,
) -> Vec<ProbeTarget> {
    let Some(from) = cluster.node(from) else { return Vec::new() };
    let near: BTreeSet<&Name> = from
        .interfaces
        .iter()
        .map(|one| &one.network)
        .filter(|network| segment.is_none_or(|only| only == *network))
        .collect();
    let mut found: Vec<IpAddr> = Vec::new();
    match to {
        End::Node(name) => {
            let interfaces = cluster.node(name).into_iter().flat_map(|node| &node.interfaces);
            for interface in interfaces.filter(|one| near.contains(&one.network)) {
                found.extend(interface.address.map(IpAddr::V4));
                found.extend(interface.address6.map(IpAddr::V6));
            }
        }
        End::Gateway => {
            for segment in cluster.networks.iter().filter(|one| near.contains(&one.name)) {
                found.push(segment.gateway.into());
                found.extend(segment.gateway6.map(|(address, _)| IpAddr::V6(address)));
            }
        }
    }
    let name = to.to_string();
    let target = |address| ProbeTarget { name: name.clone(), address, method: ProbeMethod::Icmp };
    found.into_iter().map(target).collect()
}

/// Returns whom each node is to ask so that every way is seen at work.
pub(crate) fn witnesses(
    cluster: &Cluster,
    ways: &[Way],
) -> BTreeMap<Name, Vec<(Way, Vec<ProbeTarget>)>> {
    let mut asked: BTreeMap<Name, Vec<(Way, Vec<ProbeTarget>)>> = BTreeMap::new();
    for way in ways {
        if let End::Node(from) = &way.link.from {
            let targets = addresses(cluster, from, &way.link.to, way.segment.as_ref());
            if !targets.is_empty() {
                asked.entry(from.clone()).or_default().push((way.clone(), targets));
            }
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use pando_model::FaultId;

    use super::*;

    fn node(name: &str) -> End {
        End::Node(name.parse().unwrap())
    }

    fn fault(effect: Effect, links: Vec<Link>) -> Fault {
        Fault {
            id: FaultId::random(),
            label: None,
            effect,
            links,
            segment: None,
            seed: 1,
            ordinal: 0,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
        }
    }

    #[test]
    fn a_partition_is_told_as_it_was_asked_for() {
        let (a, b) = ([node("a"), node("b")], [node("c"), End::Gateway]);
        for (direction, links, expected) in [
            (Direction::Both, 8, json!(["both", ["a", "b"], ["c", "gateway"]])),
            (Direction::AToB, 4, json!(["a_to_b", ["a", "b"], ["c", "gateway"]])),
            (Direction::BToA, 4, json!(["a_to_b", ["c", "gateway"], ["a", "b"]])),
        ] {
            let fault = fault(Effect::Partition, partition_links(&a, &b, direction));
            assert_eq!(fault.links.len(), links);
            let info = fault_info(&fault, None);
            let told = &info.parameters;
            let told = json!([told["direction"], told["partition_a"], told["partition_b"]]);
            assert_eq!(told, expected, "{direction:?}");
            assert_eq!(info.affected_nodes, ["a", "b", "c"]);
        }
    }

    #[test]
    fn an_impairment_is_told_as_it_was_asked_for() {
        for (asked, both) in [(Direction::AToB, false), (Direction::Both, true)] {
            let links = partition_links(&[node("x")], &[node("a"), node("b")], asked);
            let effect = Effect::Impair(Impairment {
                latency_us: 50_500,
                loss: PerMillion(100_000),
                burst: Some(Burst { mean_frames: 3 }),
                rate_bps: Some(1_000_000),
                ..Impairment::default()
            });
            let told = fault_info(&fault(effect, links), None).parameters;
            let expected = json!({
                "source_node": "x", "target_node": "all", "both_directions": both,
                "latency_ms": 50.5, "loss_pct": 10.0, "loss_burst": 3, "rate_kbit": 1000,
            });
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn links_that_no_call_asks_for_are_told_without_groups() {
        let ends = [node("a"), node("b"), node("c")];
        let mut every = partition_links(&ends, &ends, Direction::Both);
        every.retain(|link| link.from != link.to);
        let latency = Impairment { latency_us: 1000, ..Impairment::default() };
        let told = |links| fault_info(&fault(Effect::Impair(latency.clone()), links), None);
        assert_eq!(told(every).parameters, json!({"latency_ms": 1.0}));
        // Two nodes have no other links than those between them.
        let two = partition_links(&ends[..1], &ends[1..2], Direction::Both);
        let expected = json!({
            "source_node": "a", "target_node": "b", "both_directions": true, "latency_ms": 1.0,
        });
        assert_eq!(told(two).parameters, expected);
    }

    #[test]
    fn faults_end_by_themselves() {
        let now = Timestamp::UNIX_EPOCH;
        let mut one = fault(Effect::Partition, Vec::new());
        assert_eq!(working(std::slice::from_ref(&one), now).len(), 1);
        one.expires_at = Some(now);
        assert!(working(&[one], now).is_empty());
    }
}
