//! What the switch itself answers at a segment's gateway address. Pure: a frame and the time in, an
//! answer out. The core asks for every frame that reaches the gateway, and, before it decides where
//! a broadcast or multicast goes, whether the gateway is one of those that it is for.
//!
//! ```text
//!   ARP, neighbour discovery   for the gateway's addresses
//!   echo                       of ICMP and ICMPv6
//!   DHCP                       the port's own address, to its own MAC address
//!   DNS over UDP               the nodes' names
//!   TCP to the gateway         refused, but for answers to what came in from outside
//!   other destinations         to the outside over IPv4, or unreachable
//! ```
//!
//! Nothing is remembered between two frames, so that a branch needs nothing of this restored.

mod arp;
mod dhcp;
mod dns;
mod icmp;
mod ipv6;
pub(crate) mod packet;
mod tcp;

use std::net::Ipv4Addr;
use std::time::Duration;

use pando_model::cluster::Uplink;
use pando_model::network::{DropReason, GATEWAY_MAC, MacAddress, NAME_SERVER, Port, Segment};

use self::icmp::Unreachable;
use self::packet::{Fragment, Frame, Ipv4, PseudoHeader, Udp};

/// What the services know of a segment.
#[derive(Debug, Clone, Copy)]
pub struct SegmentView<'a> {
    /// The segment.
    pub segment: &'a Segment,
    /// Domain of the nodes' names.
    pub domain: &'a str,
    /// All ports of the branch, in every segment: names are told across segments.
    pub ports: &'a [Port],
}

/// What becomes of a frame at the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This frame goes back to the port that asked.
    Reply(Vec<u8>),
    /// It is for the outside, unchanged.
    ToUplink,
    /// It was for the gateway, and nothing comes of it.
    Drop(DropReason),
    /// It was not for the gateway.
    NotForMe,
}

/// Returns what becomes of `frame`, which came in through `port`. `now` is the switch's clock, which
/// stands still while it is held; nothing here depends on it.
pub fn answer(view: &SegmentView<'_>, port: &Port, frame: &[u8], _now: Duration) -> Answer {
    let Some(frame) = Frame::parse(frame) else { return Answer::Drop(DropReason::Malformed) };
    if frame.from.is_group() || frame.from == GATEWAY_MAC {
        return Answer::Drop(DropReason::Malformed);
    }
    if frame.to != GATEWAY_MAC && !frame.to.is_group() {
        return Answer::NotForMe;
    }
    let SegmentView { segment, domain, ports } = *view;
    let asker = Asker { segment, domain, ports, port };
    match frame.kind {
        packet::ARP => arp::answer(&asker, &frame),
        packet::IPV4 => asker.ipv4(&frame),
        packet::IPV6 => ipv6::answer(&asker, &frame),
        _ => asker.no_use(&frame),
    }
}

/// Who asks: a port, and what there is around it.
struct Asker<'a> {
    segment: &'a Segment,
    domain: &'a str,
    ports: &'a [Port],
    port: &'a Port,
}

impl Asker<'_> {
    fn has_uplink(&self) -> bool {
        self.segment.uplink == Uplink::Nat
    }

    fn mask(&self) -> u32 {
        let shift = 32u32.saturating_sub(u32::from(self.segment.prefix_bits));
        u32::MAX.checked_shl(shift).unwrap_or(0)
    }

    /// Whether an address belongs to the segment's network.
    fn is_inside(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.segment.subnet.to_bits()) & self.mask() == 0
    }

    /// Whether the uplink answers questions at this address.
    fn is_name_server(&self, address: Ipv4Addr) -> bool {
        let is_nodes = || self.ports.iter().any(|port| port.address == Some(address));
        self.has_uplink() && address == NAME_SERVER && !is_nodes()
    }

    /// Whether an address is reached at the gateway's MAC address.
    fn is_own(&self, address: Ipv4Addr) -> bool {
        address == self.segment.gateway || self.is_name_server(address)
    }

    /// A frame that is sound, and that the gateway does nothing with.
    fn no_use(&self, frame: &Frame<'_>) -> Answer {
        if frame.to == GATEWAY_MAC { Answer::Drop(DropReason::NoRoute) } else { Answer::NotForMe }
    }

    /// A frame that is not what it says. Others on the segment may know better.
    fn not_understood(&self, frame: &Frame<'_>) -> Answer {
        if frame.to == GATEWAY_MAC { Answer::Drop(DropReason::Malformed) } else { Answer::NotForMe }
    }

    fn ipv4(&self, frame: &Frame<'_>) -> Answer {
        let Some(packet) = Ipv4::parse(frame.payload) else { return self.not_understood(frame) };
        let said = if packet.destination == self.segment.gateway {
            self.to_gateway(frame, &packet)
        } else if packet.destination.is_broadcast() {
            self.datagram(frame, &packet)
        } else if frame.to == GATEWAY_MAC {
            self.elsewhere(frame.from, &packet)
        } else {
            None
        };
        said.unwrap_or_else(|| self.no_use(frame))
    }

    fn to_gateway(&self, frame: &Frame<'_>, packet: &Ipv4<'_>) -> Option<Answer> {
        match packet.protocol {
            packet::ICMP => icmp::answer(frame.from, packet),
            packet::UDP => self.datagram(frame, packet),
            packet::TCP => tcp::answer(self, frame.from, packet),
            _ => None,
        }
    }

    fn datagram(&self, frame: &Frame<'_>, packet: &Ipv4<'_>) -> Option<Answer> {
        let (source, destination) = (packet.source, packet.destination);
        if packet.protocol != packet::UDP || packet.fragment != Fragment::Whole {
            return None;
        }
        let bytes = packet.payload.len();
        let pseudo = PseudoHeader::v4(source, destination, packet::UDP, bytes);
        let datagram = Udp::parse(packet.payload, &pseudo)?;
        match datagram.to {
            dhcp::SERVER_PORT if datagram.from == dhcp::CLIENT_PORT => {
                dhcp::answer(self, frame, datagram.payload)
            }
            _ if destination.is_broadcast() => None,
            dns::PORT => {
                let reply = dns::answer(self, datagram.payload)?;
                let bytes = 8 + reply.len();
                let pseudo = PseudoHeader::v4(destination, source, packet::UDP, bytes);
                let reply = packet::udp(dns::PORT, datagram.from, &reply, &pseudo);
                let reply = packet::ipv4(destination, source, packet::UDP, &reply);
                Some(Answer::Reply(packet::frame(frame.from, packet::IPV4, &reply)))
            }
            _ => icmp::unreachable(self, frame.from, packet, Unreachable::Port),
        }
    }

    /// A packet that the gateway is to pass on. To another segment of the branch there is no way but
    /// through a node that is in both, and the host may have such a network, too.
    fn elsewhere(&self, from: MacAddress, packet: &Ipv4<'_>) -> Option<Answer> {
        let destination = packet.destination;
        if self.is_name_server(destination) {
            return Some(Answer::ToUplink);
        }
        if self.is_inside(destination) || destination.is_multicast() {
            return None;
        }
        let is_nodes = self.ports.iter().any(|port| port.address == Some(destination));
        if self.has_uplink() && !is_nodes {
            return Some(Answer::ToUplink);
        }
        icmp::unreachable(self, from, packet, Unreachable::Net)
    }
}

#[cfg(test)]
mod tests;
