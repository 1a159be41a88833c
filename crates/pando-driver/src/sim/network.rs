//! The switch of a simulated branch: it remembers its faults and answers probes by them. No frame is
//! ever on its way.

use std::net::IpAddr;

use jiff::Timestamp;
use pando_model::fault::{Effect, Fault};
use pando_model::host::*;
use pando_model::network::{
    CommitNetwork, End, Link, NetworkObservation, NetworkSpec, ProbeResult, ProbeTarget, RoundTrips,
};
use pando_model::{BranchId, BranchState, CommitId, CommitKind, Name};

use super::state::{Contents, Keeper, State, missing};

/// A pcap file without a frame: little endian, version 2.4, 65535 bytes of each frame, Ethernet.
pub(crate) const PCAP: &[u8] =
    b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00\0\0\0\0\0\0\0\0\xff\xff\0\0\x01\0\0\0";

/// What a frame takes from one node to another, in microseconds.
const WAY_US: u64 = 250;

/// Returns the faults that a new branch begins with.
pub(crate) fn first_faults(state: &State, spec: &BranchSpec) -> Result<Vec<Fault>, HostError> {
    let Some(network) = &spec.network else { return Ok(Vec::new()) };
    if let Some(commit) = &network.restore {
        let files = state.commits.get(commit).ok_or_else(|| missing(commit))?;
        let saved = files.report.network.as_ref();
        saved.ok_or_else(|| missing(format!("the network state of {commit}")))?;
    }
    Ok(network.faults.clone())
}

/// Checks that every machine of a branch runs: what a cut needs.
pub(crate) fn all_run(state: &mut State, branch: &BranchId) -> Result<(), HostError> {
    match state.keeper(branch)?.nodes.iter().find(|(_, node)| node.crashed) {
        Some((name, _)) => Err(no_machine(name)),
        None => Ok(()),
    }
}

fn no_machine(node: &Name) -> HostError {
    HostError::Machine { node: node.to_string(), detail: "it does not run".to_owned() }
}

/// Returns the switch's part of a cut.
pub(crate) fn saved(
    state: &mut State,
    branch: &BranchId,
    spec: &CutSpec,
) -> Result<Option<CommitNetwork>, HostError> {
    let keeper = state.keeper(branch)?;
    let saves = spec.kind == CommitKind::Full && keeper.spec.network.is_some();
    Ok(saves.then(|| CommitNetwork {
        faults: working(&keeper.faults),
        frames: 0,
        stalled: Vec::new(),
        bytes: 64,
        digest: format!("{}-network", spec.commit),
    }))
}

pub(crate) fn verify(
    state: &State,
    commit: &CommitId,
    network: &CommitNetwork,
) -> Result<(), HostError> {
    let what = format!("the network state of {commit}");
    let files = state.commits.get(commit).ok_or_else(|| missing(commit))?;
    let saved = files.report.network.as_ref().ok_or_else(|| missing(&what))?;
    if files.damaged || saved.digest != network.digest {
        return Err(HostError::Corrupt { what, detail: "wrong digest".to_owned() });
    }
    Ok(())
}

/// Returns those faults that have not expired.
fn working(faults: &[Fault]) -> Vec<Fault> {
    let now = Timestamp::now();
    let works = |fault: &&Fault| fault.expires_at.is_none_or(|end| end > now);
    faults.iter().filter(works).cloned().collect()
}

pub(crate) fn observation(
    state: &mut State,
    branch: &BranchId,
) -> Result<NetworkObservation, HostError> {
    let keeper = state.switch(branch)?;
    let ports = keeper.spec.network.iter().flat_map(|network| &network.ports);
    Ok(NetworkObservation {
        faults: working(&keeper.faults),
        stations: ports.map(|port| (port.mac, port.node.clone(), port.nic)).collect(),
        ..NetworkObservation::default()
    })
}

/// Boots a node on its disk: its memory is new, and what it is stays.
pub(crate) fn boot_node(
    state: &mut State,
    branch: &BranchId,
    name: &Name,
) -> Result<(), HostError> {
    state.node(branch, name)?;
    if state.keeper(branch)?.state == BranchState::Paused {
        return Err(HostError::WrongState {
            branch: branch.clone(),
            is: "paused".to_owned(),
            wanted: "running".to_owned(),
        });
    }
    let node = state.node(branch, name)?;
    if node.crashed {
        node.crashed = false;
        node.base = None;
        node.base_memory = Contents::new();
        node.memory
            .retain(|key, _| ["hostname", "machine-id", "name-server"].contains(&key.as_str()));
    }
    Ok(())
}

pub(crate) fn probe(
    state: &mut State,
    branch: &BranchId,
    node: &Name,
    targets: &[ProbeTarget],
    count: u32,
) -> Result<Vec<ProbeResult>, HostError> {
    let keeper = state.switch(branch)?;
    let faults = working(&keeper.faults);
    let results = targets.iter().map(|target| {
        let end = end_at(keeper, target.address);
        let rtt_us =
            end.and_then(|end| round_trip(keeper, &faults, &End::Node(node.clone()), &end));
        ProbeResult {
            target: target.clone(),
            sent: count,
            received: if rtt_us.is_some() { count } else { 0 },
            rtt: rtt_us.map(|us| RoundTrips { min_us: us, avg_us: us, max_us: us }),
        }
    });
    Ok(results.collect())
}

/// Returns who has an address.
fn end_at(keeper: &Keeper, address: IpAddr) -> Option<End> {
    let NetworkSpec { ports, segments, .. } = keeper.spec.network.as_ref()?;
    let port = ports.iter().find(|port| {
        port.address.map(IpAddr::V4) == Some(address)
            || port.address6.map(IpAddr::V6) == Some(address)
    });
    let gateway = || {
        segments.iter().any(|segment| {
            IpAddr::V4(segment.gateway) == address
                || segment.gateway6.is_some_and(|(gateway, _)| IpAddr::V6(gateway) == address)
        })
    };
    port.map(|port| End::Node(port.node.clone())).or_else(|| gateway().then_some(End::Gateway))
}

/// Returns how long a question and its answer take, in microseconds; `None` if either is lost.
fn round_trip(keeper: &Keeper, faults: &[Fault], from: &End, to: &End) -> Option<u64> {
    if let End::Node(name) = to
        && keeper.nodes.get(name).is_none_or(|node| node.crashed)
    {
        return None;
    }
    let there = one_way(faults, from, to)?;
    let back = one_way(faults, to, from)?;
    Some(there + back)
}

fn one_way(faults: &[Fault], from: &End, to: &End) -> Option<u64> {
    let link = Link { from: from.clone(), to: to.clone() };
    let mut us = WAY_US;
    for fault in faults.iter().filter(|fault| fault.links.contains(&link)) {
        match &fault.effect {
            Effect::Partition => return None,
            Effect::Impair(impairment) if impairment.loss.0 >= 1_000_000 => return None,
            Effect::Impair(impairment) => us += impairment.latency_us,
        }
    }
    Some(us)
}
