//! What the switch decides, without sockets, clocks or threads: frames and the time go in, and what
//! is to be written to each machine comes out.
//!
//! ```text
//!   input ─▶ held?  ─ yes ─▶ held list ─ release ─┐
//!              │ no                               │
//!              ▼◀─────────────────────────────────┘
//!         learn, look up ─▶ each link: count, faults ─▶ delay line ─┐
//!                                        │ no delay                 │ due
//!                                        ▼◀─────────────────────────┘
//!                              queue of a port │ the gateway's services │ queue of an uplink
//! ```
//!
//! Invariants:
//! - On each link, sent = delivered + held + dropped, after every call.
//! - Frames of one link that wait equally long keep their order.
//! - What a port does not read fills its own queue, and delays nobody else's frames.
//! - While held, only frames come in; nothing else changes.

mod faults;
mod forward;
mod saved;
#[cfg(test)]
mod tests;

use std::time::Duration;

use pando_model::Name;
use pando_model::fault::Fault;
use pando_model::network::{
    DropReason, GATEWAY_MAC, MacAddress, NetworkObservation, NetworkSpec, Port,
};

use crate::delay::{self, DelayLine};
use crate::fault::{Copy, LinkFault};
use crate::fdb::ForwardingTable;
use crate::held::Held;
use crate::limits::MAX_PORTS;
use crate::links::{EndNumber, LinkNumber, Links};
use crate::pcap::Recorder;
use crate::queue::OutputQueue;

/// Where a frame goes, once its link has let it through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To the machine at a port.
    Port(usize),
    /// To the gateway, which answers through this port.
    Gateway(usize),
}

/// Why a network cannot be switched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There are too many ports.
    #[error("carry {0} ports (at most {MAX_PORTS})")]
    TooManyPorts(usize),
    /// A port is in a segment that is not there.
    #[error("plug `{node}` into the segment `{segment}`, which this network does not have")]
    NoSegment {
        /// The port's node.
        node: Name,
        /// The segment.
        segment: Name,
    },
    /// Two ports of a segment have one address, or one has the gateway's or a group's.
    #[error("give `{node}` the address {address} in the segment `{segment}`: it is not its own")]
    Address {
        /// The port's node.
        node: Name,
        /// The segment.
        segment: Name,
        /// The address.
        address: MacAddress,
    },
    /// A fault names a node that is not there.
    #[error("apply the fault {fault} to `{node}`, which this network does not have")]
    NoNode {
        /// The fault.
        fault: pando_model::FaultId,
        /// The node.
        node: pando_model::network::End,
    },
    /// A fault names a segment that is not there.
    #[error("apply the fault {fault} in `{segment}`, which this network does not have")]
    NoFaultSegment {
        /// The fault.
        fault: pando_model::FaultId,
        /// The segment.
        segment: Name,
    },
    /// There are more faults than can be applied.
    #[error("apply {0} faults or links of faults at a time")]
    TooManyFaults(usize),
}

#[derive(Debug)]
struct PortState {
    node: EndNumber,
    segment: usize,
    mac: MacAddress,
}

#[derive(Debug)]
struct SegmentState {
    ports: Vec<usize>,
    table: ForwardingTable,
}

/// One socket's worth of output.
#[derive(Debug)]
struct Output {
    queue: OutputQueue,
    is_open: bool,
    /// Whether it is in the list of those with something new.
    is_listed: bool,
    /// What to say of frames for it while it is closed.
    closed: DropReason,
}

/// The switch of a branch. Outputs are numbered: first the ports as in the specification, then the
/// uplinks by the number of their node.
#[derive(Debug)]
pub struct Core {
    spec: NetworkSpec,
    ports: Vec<PortState>,
    segments: Vec<SegmentState>,
    links: Links,
    outputs: Vec<Output>,
    /// Outputs with something new to write.
    listed: Vec<usize>,
    faults: Vec<Fault>,
    delays: DelayLine,
    held: Held,
    is_held: bool,
    /// Frames that were sent under another port's address.
    spoofed: u64,
    recorder: Option<Recorder>,
    /// Kept for the next frame.
    copies: Vec<Copy>,
    scratch: Vec<u8>,
}

impl Core {
    /// Returns a switch, held, whose ports are open.
    pub fn new(spec: NetworkSpec) -> Result<Self, SpecError> {
        if spec.ports.len() > MAX_PORTS {
            return Err(SpecError::TooManyPorts(spec.ports.len()));
        }
        let links = Links::new(spec.ports.iter().map(|port| port.node.clone()).collect());
        let ports = ports(&spec, &links)?;
        let segments = segments(&spec, &ports);
        let output = |is_open, closed| Output {
            queue: OutputQueue::default(),
            is_open,
            is_listed: false,
            closed,
        };
        let outputs = ports
            .iter()
            .map(|_| output(true, DropReason::NoReader))
            .chain(links.nodes().iter().map(|_| output(false, DropReason::NoRoute)))
            .collect();
        let mut core = Self {
            ports,
            segments,
            links,
            outputs,
            listed: Vec::new(),
            faults: Vec::new(),
            delays: DelayLine::default(),
            held: Held::default(),
            is_held: true,
            spoofed: 0,
            recorder: None,
            copies: Vec::new(),
            scratch: Vec::new(),
            spec,
        };
        let faults = std::mem::take(&mut core.spec.faults);
        core.set_faults(faults)?;
        Ok(core)
    }

    /// The ports, as they were specified.
    pub fn ports(&self) -> &[Port] {
        &self.spec.ports
    }

    /// How many outputs there are.
    pub fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// Returns the output that is a node's uplink, if there is such a node.
    pub fn uplink(&self, node: &Name) -> Option<usize> {
        self.links.node(node).map(|node| self.uplink_of(node))
    }

    fn uplink_of(&self, node: EndNumber) -> usize {
        self.ports.len() + usize::from(node.0)
    }

    /// Takes in a frame of the machine at `port`, or of the outside through an uplink.
    pub fn input(&mut self, now: Duration, from: usize, frame: &[u8]) {
        if self.is_held && from < self.ports.len() {
            self.held.push(from, frame);
        } else {
            self.forward(now, from, frame);
        }
    }

    /// Takes note that a stream ended amid a frame, or went on with something that is none.
    pub fn malformed(&mut self, from: usize, length: usize) {
        let gateway = self.links.gateway();
        let link = match self.ports.get(from) {
            Some(port) => self.links.between(port.node, gateway),
            None => {
                let node = from - self.ports.len();
                self.links.between(gateway, EndNumber(u16::try_from(node).unwrap_or(u16::MAX)))
            }
        };
        let counts = self.links.counts(link);
        counts.send(length);
        counts.drop(DropReason::Malformed);
    }

    /// Lets frames go on that have waited long enough, unless a partition began meanwhile.
    pub fn advance(&mut self, now: Duration) {
        if self.is_held {
            return;
        }
        while let Some(delayed) = self.delays.pop(now) {
            let segment = self.segment_of(delayed.target);
            let state = self.links.state(delayed.link);
            state.delayed_bytes -= delay::cost(delayed.frame.len());
            let stops = |fault: &&mut LinkFault| fault.is_partition() && fault.works_in(segment);
            if let Some(partition) = state.faults.iter_mut().find(stops) {
                partition.progress.dropped += 1;
                state.counts.drop_held(DropReason::Partition);
                continue;
            }
            state.counts.held -= 1;
            self.deliver(now, delayed.link, delayed.target, &delayed.frame);
        }
    }

    /// When [`Self::advance`] has something to do; `None` while nothing waits or may go on.
    pub fn next_due(&self) -> Option<Duration> {
        if self.is_held { None } else { self.delays.next_due() }
    }

    /// Stops forwarding.
    pub fn hold(&mut self) {
        self.is_held = true;
    }

    /// Whether it does not forward.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Whether more came in while held than there is room for.
    pub fn is_overfull(&self) -> bool {
        self.held.is_full()
    }

    /// Goes on. What is queued for an uplink that is not there has no way to the outside.
    pub fn release(&mut self) {
        self.is_held = false;
        for output in self.ports.len()..self.outputs.len() {
            if !self.outputs[output].is_open {
                self.clear(output);
            }
        }
    }

    /// Forwards the next frame that came in while held; `false` when there is none.
    pub fn forward_held(&mut self, now: Duration) -> bool {
        let mut frame = std::mem::take(&mut self.scratch);
        let port = self.held.pop(&mut frame);
        if let Some(port) = port {
            self.forward(now, port, &frame);
        }
        self.scratch = frame;
        port.is_some()
    }

    /// Takes the outputs that have something new to write since it was called last.
    pub fn take_listed(&mut self, into: &mut Vec<usize>) {
        into.clear();
        into.append(&mut self.listed);
        for output in into {
            self.outputs[*output].is_listed = false;
        }
    }

    /// What is to be written to an output. While held, only the rest of a frame that was begun.
    pub fn output(&self, output: usize) -> &[u8] {
        let queue = &self.outputs[output].queue;
        if self.is_held { queue.rest_of_frame() } else { queue.unwritten() }
    }

    /// Takes note of what was written to an output, and tells `ended` the link and length of each
    /// frame that is whole now.
    pub fn wrote(&mut self, output: usize, count: usize, mut ended: impl FnMut(LinkNumber, usize)) {
        let links = &mut self.links;
        self.outputs[output].queue.wrote(count, |link, length| {
            links.counts(link).deliver_held();
            ended(link, length);
        });
    }

    /// Says that there is a reader behind an output, and that it has read nothing yet.
    pub fn open(&mut self, output: usize) {
        let state = &mut self.outputs[output];
        state.is_open = true;
        state.queue.begin_again();
        self.list(output);
    }

    /// Says that there is no reader behind an output any more. What waits for it is given up.
    pub fn close(&mut self, output: usize) {
        self.outputs[output].is_open = false;
        self.clear(output);
    }

    /// What records the frames that are sent: each once, before faults.
    pub fn recorder(&mut self) -> &mut Option<Recorder> {
        &mut self.recorder
    }

    /// Returns what it does and did.
    pub fn observe(&self, now: Duration) -> NetworkObservation {
        let mut links: Vec<_> = self
            .links
            .iter()
            .filter(|state| state.counts.sent > 0)
            .map(|state| (self.links.link(state), state.counts.observe()))
            .collect();
        links.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let own = self.spec.ports.iter().map(|port| (port.mac, port));
        let heard = self.segments.iter().flat_map(|segment| segment.table.heard(now));
        let heard = heard
            .filter_map(|(address, port, _)| self.spec.ports.get(port).map(|port| (address, port)));
        let stations =
            own.chain(heard).map(|(address, port)| (address, port.node.clone(), port.nic));
        NetworkObservation {
            faults: self.faults.clone(),
            links,
            fault_counts: self.fault_counts(),
            stations: stations.collect(),
            spoofed: self.spoofed,
        }
    }

    fn clear(&mut self, output: usize) {
        let Output { queue, closed, .. } = &mut self.outputs[output];
        let links = &mut self.links;
        queue.clear(|link| links.counts(link).drop_held(*closed));
    }
}

fn ports(spec: &NetworkSpec, links: &Links) -> Result<Vec<PortState>, SpecError> {
    let port = |port: &Port| {
        let segment = spec.segments.iter().position(|segment| segment.name == port.segment);
        let address = || SpecError::Address {
            node: port.node.clone(),
            segment: port.segment.clone(),
            address: port.mac,
        };
        let same = |other: &&Port| other.segment == port.segment && other.mac == port.mac;
        if port.mac.is_group()
            || port.mac == GATEWAY_MAC
            || spec.ports.iter().filter(same).count() > 1
        {
            return Err(address());
        }
        match (segment, links.node(&port.node)) {
            (Some(segment), Some(node)) => Ok(PortState { node, segment, mac: port.mac }),
            _ => {
                Err(SpecError::NoSegment { node: port.node.clone(), segment: port.segment.clone() })
            }
        }
    };
    spec.ports.iter().map(port).collect()
}

fn segments(spec: &NetworkSpec, ports: &[PortState]) -> Vec<SegmentState> {
    let segment = |number| {
        let own: Vec<usize> =
            (0..ports.len()).filter(|port| ports[*port].segment == number).collect();
        let table = ForwardingTable::new(own.iter().map(|port| (ports[*port].mac, *port)));
        SegmentState { ports: own, table }
    };
    (0..spec.segments.len()).map(segment).collect()
}
