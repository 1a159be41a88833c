//! The switch of a simulated branch: it remembers its faults and answers probes by them. No frame
//! is ever on its way.

use std::net::IpAddr;

use jiff::Timestamp;
use pando_model::fault::{Effect, Fault};
use pando_model::host::*;
use pando_model::network::{
    CommitNetwork, End, FaultCounts, Link, NetworkObservation, NetworkSpec, ProbeResult,
    ProbeTarget, RoundTrips,
};
use pando_model::{BranchId, BranchState, CommitId, CommitKind, FaultId, Name};

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

/// Checks that every machine of a branch runs: what a cut with memory needs.
pub(crate) fn all_run(
    state: &mut State,
    branch: &BranchId,
    kind: CommitKind,
) -> Result<(), HostError> {
    if kind == CommitKind::Disk {
        return Ok(());
    }
    match state.keeper(branch)?.nodes.iter().find(|(_, node)| node.crashed) {
        Some((name, _)) => Err(no_machine(name)),
        None => Ok(()),
    }
}

fn no_machine(node: &Name) -> HostError {
    HostError::NodeDown { node: node.to_string() }
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
        cut_at: Some(Timestamp::now()),
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
    let counts = keeper.met.iter().map(|((fault, link), &(frames, dropped))| FaultCounts {
        fault: fault.clone(),
        link: link.clone(),
        frames,
        dropped,
    });
    Ok(NetworkObservation {
        faults: working(&keeper.faults),
        fault_counts: counts.collect(),
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
    let keeper = state.keeper(branch)?;
    if super::machines::observation(keeper).state == BranchState::Paused {
        return Err(HostError::WrongState {
            branch: branch.clone(),
            is: "paused".to_owned(),
            wanted: "running".to_owned(),
        });
    }
    // It may have been paused when its last machine ended.
    keeper.state = BranchState::Running;
    let node = state.node(branch, name)?;
    if node.crashed {
        (node.crashed, node.powered_off) = (false, false);
        node.base = None;
        node.delta_base = None;
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
    let from = End::Node(node.clone());
    let mut met = Vec::new();
    let results = targets.iter().map(|target| {
        let to = at(keeper, target.address);
        let rtt_us = to.and_then(|to| round_trip(keeper, &faults, &from, &to, &mut met));
        ProbeResult {
            target: target.clone(),
            sent: count,
            received: if rtt_us.is_some() { count } else { 0 },
            rtt: rtt_us.map(|us| RoundTrips { min_us: us, avg_us: us, max_us: us }),
        }
    });
    let results = results.collect();
    for Met { fault, link, drops } in met {
        let (frames, dropped) = keeper.met.entry((fault, link)).or_default();
        *frames += u64::from(count);
        *dropped += if drops { u64::from(count) } else { 0 };
    }
    Ok(results)
}

/// Returns who has an address, and in which segment.
fn at(keeper: &Keeper, address: IpAddr) -> Option<(End, Name)> {
    let NetworkSpec { ports, segments, .. } = keeper.spec.network.as_ref()?;
    let port = ports.iter().find(|port| {
        port.address.map(IpAddr::V4) == Some(address)
            || port.address6.map(IpAddr::V6) == Some(address)
    });
    let gateway = || {
        segments.iter().find(|segment| {
            IpAddr::V4(segment.gateway) == address
                || segment.gateway6.is_some_and(|(gateway, _)| IpAddr::V6(gateway) == address)
        })
    };
    port.map(|port| (End::Node(port.node.clone()), port.segment.clone()))
        .or_else(|| gateway().map(|segment| (End::Gateway, segment.name.clone())))
}

/// A frame and a fault on its way.
struct Met {
    fault: FaultId,
    link: Link,
    drops: bool,
}

/// Returns how long a question and its answer take, in microseconds; `None` if either is lost.
fn round_trip(
    keeper: &Keeper,
    faults: &[Fault],
    from: &End,
    (to, segment): &(End, Name),
    met: &mut Vec<Met>,
) -> Option<u64> {
    let link = |from: &End, to: &End| Link { from: from.clone(), to: to.clone() };
    let there = one_way(faults, &link(from, to), segment, met)?;
    if let End::Node(name) = to
        && keeper.nodes.get(name).is_none_or(|node| node.crashed)
    {
        return None;
    }
    let back = one_way(faults, &link(to, from), segment, met)?;
    Some(there + back)
}

fn one_way(faults: &[Fault], link: &Link, segment: &Name, met: &mut Vec<Met>) -> Option<u64> {
    let mut us = Some(WAY_US);
    for fault in faults.iter().filter(|fault| fault.works_on(link, segment)) {
        let delay_us = match &fault.effect {
            Effect::Impair(impairment) if impairment.loss.0 < 1_000_000 => {
                Some(impairment.latency_us)
            }
            Effect::Impair(_) | Effect::Partition => None,
        };
        // It meets each fault, whatever the others do to it.
        let drops = us.is_some() && delay_us.is_none();
        met.push(Met { fault: fault.id.clone(), link: link.clone(), drops });
        us = us.zip(delay_us).map(|(us, delay_us)| us + delay_us);
    }
    us
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use pando_model::machine::Accelerator;
    use pando_model::network::{GATEWAY_MAC, Port, ProbeMethod};
    use pando_model::{ClusterId, FaultId, LayerId, NodeLayers};

    use super::super::SimWorld;
    use super::super::state::Node;
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn port(node: &str, last: u8) -> Port {
        Port {
            node: name(node),
            nic: 0,
            segment: name("lan"),
            mac: GATEWAY_MAC,
            address: Some([10, 20, 0, last].into()),
            address6: None,
        }
    }

    /// Returns a world in which a branch of two nodes runs on a switch.
    fn running() -> (SimWorld, BranchId) {
        let world = SimWorld::new();
        let branch = BranchId::random();
        let ports = vec![port("web", 11), port("db", 12)];
        let spec = BranchSpec {
            branch: branch.clone(),
            cluster: ClusterId::random(),
            title: "shop@main".to_owned(),
            generation: 1,
            token: String::new(),
            accelerator: Accelerator::Tcg,
            nodes: Vec::new(),
            network: Some(NetworkSpec { ports, ..NetworkSpec::default() }),
            clock: Clock::Step,
            after: AfterStart::Run,
            durable_disk: false,
            ready_timeout: Duration::from_secs(1),
        };
        let node = || Node {
            memory: Contents::from([("hostname".to_owned(), "db".to_owned())]),
            base: None,
            delta_base: None,
            base_memory: Contents::new(),
            layers: NodeLayers::of_root(LayerId::random()),
            crashed: false,
            powered_off: false,
        };
        let keeper = Keeper {
            spec,
            state: BranchState::Running,
            nodes: BTreeMap::from([(name("web"), node()), (name("db"), node())]),
            faults: Vec::new(),
            met: BTreeMap::new(),
            copies_frames: false,
            ports: Default::default(),
        };
        world.state().keepers.insert(branch.clone(), keeper);
        (world, branch)
    }

    fn partition(expires_at: Option<Timestamp>) -> Fault {
        Fault {
            id: FaultId::random(),
            label: None,
            effect: Effect::Partition,
            links: vec![Link { from: End::Node(name("db")), to: End::Node(name("web")) }],
            segment: None,
            seed: 1,
            ordinal: 0,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at,
        }
    }

    #[tokio::test]
    async fn probes_follow_faults_and_crashes() {
        let (world, branch) = running();
        let host = world.connect().host();
        let target = ProbeTarget {
            name: "db".to_owned(),
            address: IpAddr::from([10, 20, 0, 12]),
            method: ProbeMethod::Icmp,
        };
        let received = async || {
            let (web, soon) = (name("web"), Duration::from_secs(1));
            let targets = std::slice::from_ref(&target);
            host.probe(&branch, &web, targets, 3, soon).await.unwrap()[0].received
        };
        assert_eq!(received().await, 3);
        host.set_faults(&branch, &[partition(None)]).await.unwrap();
        assert_eq!(received().await, 0, "the answer does not come back");
        host.set_faults(&branch, &[partition(Some(Timestamp::UNIX_EPOCH))]).await.unwrap();
        assert_eq!(received().await, 3, "it has expired");
        assert_eq!(host.network(&branch).await.unwrap().faults, []);

        let db = name("db");
        host.crash_node(&branch, &db).await.unwrap();
        assert_eq!(received().await, 0);
        assert!(matches!(host.facts(&branch, &db).await, Err(HostError::Machine { .. })));
        let refused = all_run(&mut world.state(), &branch, CommitKind::Full);
        assert!(matches!(refused, Err(HostError::NodeDown { node }) if node == "db"));
        all_run(&mut world.state(), &branch, CommitKind::Disk).unwrap();
        host.boot_node(&branch, &db, Duration::from_secs(1)).await.unwrap();
        assert_eq!(received().await, 3);
        assert_eq!(host.facts(&branch, &db).await.unwrap().hostname, "db", "it is who it was");
    }

    #[tokio::test]
    async fn a_branch_without_a_switch_says_so() {
        let (world, branch) = running();
        world.state().keepers.get_mut(&branch).unwrap().spec.network = None;
        let host = world.connect().host();
        assert!(matches!(host.network(&branch).await, Err(HostError::NoSwitch { .. })));
        let refused = host.set_faults(&branch, &[]).await;
        assert!(matches!(refused, Err(HostError::NoSwitch { .. })));
    }
}
