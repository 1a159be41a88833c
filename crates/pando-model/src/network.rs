//! Networks: the segments that a cluster's nodes are plugged into, and what a branch's switch is
//! told and tells of them.
//!
//! A *segment* is one layer-2 network. A *port* is one interface of one node, plugged into one
//! segment. A *link* is the directed way between two ends of the same branch; frames are counted,
//! and faults work, per link.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bridge::BridgeName;
use crate::cluster::Uplink;
use crate::fault::Fault;
use crate::id::{CommitId, FaultId};
use crate::name::Name;

/// The first interface of a node that has a network to itself.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Bits of that network's prefix.
pub const PREFIX_BITS: u8 = 24;
/// Its default route. With an uplink it forwards and does nothing else.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// With an uplink: passes questions on to the host's own name server.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// The gateway's MAC address on every segment, in every branch: a restored guest remembers it.
pub const GATEWAY_MAC: MacAddress = MacAddress([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);

/// A MAC address, written `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// A text is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address (six pairs of hex digits with colons between)")]
pub struct MacAddressError(String);

impl MacAddress {
    /// Every interface of a segment.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Returns whether it stands for several interfaces: broadcast or multicast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let error = || MacAddressError(text.chars().take(40).collect());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacAddressError;

    fn try_from(text: String) -> Result<Self, MacAddressError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

/// One layer-2 network of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name, unique in the cluster.
    pub name: Name,
    /// Its IPv4 network's address.
    pub subnet: Ipv4Addr,
    /// Bits of that network's prefix.
    pub prefix_bits: u8,
    /// The switch itself: it answers ARP, ping, DHCP and DNS here, and is the way to the outside.
    pub gateway: Ipv4Addr,
    /// The switch itself over IPv6, if the segment has such a network: address and prefix bits.
    pub gateway6: Option<(Ipv6Addr, u8)>,
    /// Whether its ports reach the outside.
    pub uplink: Uplink,
    /// The kernel's bridge that it is, in place of a user-space switch.
    #[serde(default)]
    pub bridge: Option<BridgeName>,
}

/// One interface of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The node.
    pub node: Name,
    /// Which of its interfaces, from 0.
    pub nic: u8,
    /// The segment that it is plugged into.
    pub segment: Name,
    /// Its MAC address.
    pub mac: MacAddress,
    /// What DHCP offers it and DNS tells of it.
    pub address: Option<Ipv4Addr>,
    /// What DNS tells of it.
    pub address6: Option<Ipv6Addr>,
}

/// All that a branch's switch is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Domain of the nodes' names: `db` is also `db.DOMAIN`.
    pub domain: String,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Its ports, by node and number of the interface.
    pub ports: Vec<Port>,
    /// The faults that work from the beginning. One that the commit has too goes on in its sequence
    /// of decisions; one that only the commit has does not work.
    pub faults: Vec<Fault>,
    /// The commit whose frames, tables and counts it continues with.
    pub restore: Option<CommitId>,
}

impl NetworkSpec {
    /// Returns whether the kernel carries its frames.
    pub fn is_bridged(&self) -> bool {
        self.segments.iter().any(|segment| segment.bridge.is_some())
    }
}

/// Where a frame comes from or goes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Any interface of a node.
    Node(Name),
    /// The switch's own services and, through them, the outside.
    Gateway,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => name.fmt(f),
            Self::Gateway => f.write_str("gateway"),
        }
    }
}

/// A directed way through the switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Link {
    /// Who sends.
    pub from: End,
    /// Who receives.
    pub to: End,
}

/// Why a frame was not delivered.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// A partition.
    Partition,
    /// A loss of an impairment.
    Loss,
    /// Its port's queue was full.
    QueueFull,
    /// A rate limit's queue was full.
    RateLimit,
    /// It was no frame: truncated, longer than the segment carries, or from nobody.
    Malformed,
    /// Its port's machine was not there, or did not read before a cut.
    NoReader,
    /// It was for the gateway, which had no use for it, or no way to the outside.
    NoRoute,
}

/// What went over a link since the branch began: `sent = delivered + held + dropped`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounts {
    /// Frames that came in for this link; one that goes to several is counted on each.
    pub sent: u64,
    /// Of those, in bytes.
    pub sent_bytes: u64,
    /// Frames handed to the receiver's machine.
    pub delivered: u64,
    /// Frames in queues and delay lines.
    pub held: u64,
    /// Frames given up, by reason.
    pub dropped: std::collections::BTreeMap<DropReason, u64>,
    /// Frames that an impairment made in addition; part of `sent`.
    pub duplicated: u64,
    /// Frames that an impairment changed a bit of.
    pub corrupted: u64,
    /// Frames that an impairment let overtake.
    pub reordered: u64,
    /// Frames that an impairment delayed.
    pub delayed: u64,
}

/// What one fault did on one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCounts {
    /// The fault.
    pub fault: FaultId,
    /// The link.
    pub link: Link,
    /// Frames of the link since it began, whatever other faults did to them: the index of the next.
    pub frames: u64,
    /// Of those, this one gave up so many: what another did is not among them.
    pub dropped: u64,
}

/// What a switch says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkObservation {
    /// The faults that work now; those that expired are gone.
    pub faults: Vec<Fault>,
    /// Every link that frames went over.
    pub links: Vec<(Link, LinkCounts)>,
    /// What the faults did.
    pub fault_counts: Vec<FaultCounts>,
    /// Which MAC address is behind which port: node, interface.
    pub stations: Vec<(MacAddress, Name, u8)>,
    /// Frames that were sent under the address of another port: forwarded, and not believed.
    pub spoofed: u64,
}

/// A commit's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitNetwork {
    /// When it was cut, by the wall clock that faults end by; absent in old records.
    #[serde(default)]
    pub cut_at: Option<Timestamp>,
    /// The faults that worked.
    pub faults: Vec<Fault>,
    /// Frames that were on their way: in queues, in delay lines, and held by the cut.
    pub frames: u64,
    /// Ports whose machine had not read all that was sent to it, which the commit does not have.
    pub stalled: Vec<(Name, u8)>,
    /// Bytes of the state file.
    pub bytes: u64,
    /// BLAKE3 of the state file, in hex.
    pub digest: String,
}

/// How a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeMethod {
    /// An echo request.
    Icmp,
    /// A question for the address on its own segment: ARP, or for an IPv6 address a neighbour
    /// solicitation.
    Arp,
}

/// Whom a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeTarget {
    /// For messages and results; a node's name, usually.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
    /// How it is asked.
    pub method: ProbeMethod,
}

/// What came of asking one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// The target.
    pub target: ProbeTarget,
    /// Questions that were sent.
    pub sent: u32,
    /// Answers that came back; one that came twice counts once.
    pub received: u32,
    /// How long they took; `None` without an answer.
    pub rtt: Option<RoundTrips>,
}

/// Round-trip times, in microseconds of the guest's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The shortest.
    pub min_us: u64,
    /// The mean.
    pub avg_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// What a capture of frames may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureLimits {
    /// Frames.
    pub frames: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of each frame.
    pub snap: u32,
}

/// What a capture of frames took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCapture {
    /// Frames.
    pub frames: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Frames that are not in it because its disk was slower than the network.
    pub lost: u64,
    /// Whether it ended because a limit was reached.
    pub limited: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_as_they_are_written() {
        let text = "52:54:00:12:34:56";
        assert_eq!(text.parse::<MacAddress>().unwrap().to_string(), text);
        for odd in
            ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "5:54:00:12:34:56", "+2:54:00:12:34:5g"]
        {
            assert!(odd.parse::<MacAddress>().is_err(), "{odd}");
        }
    }
}
