//! IPv6 as the gateway speaks it: neighbour and router discovery (RFC 4861), pings and refusals
//! (RFC 4443), and names.
//!
//! Addresses are given to nodes, and not made up by them: the advertised prefix is on the link and
//! not for autoconfiguration. The gateway is no default router, because the outside is reached over
//! IPv4 only.

use std::net::Ipv6Addr;

use pando_model::network::{GATEWAY_MAC, MacAddress};

use super::packet::{self, Frame, ICMPV6, Ipv6, PseudoHeader, UDP, Udp, put_u16, take};
use super::{Answer, Asker, dns};
use crate::limits::MAX_ICMPV6_QUOTE_BYTES;

/// The gateway on every link, made of its MAC address (RFC 4291 appendix A).
pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5055, 0x0aff, 0xfe00, 0x0202);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);

const UNREACHABLE: u8 = 1;
const NO_ROUTE: u8 = 0;
const NO_PORT: u8 = 4;
const ECHO: u8 = 128;
const ECHO_REPLY: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Messages below are errors.
const FIRST_INFORMATION: u8 = 128;

const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const PREFIX: u8 = 3;
/// Hop limit of neighbour discovery: it proves that nobody forwarded the message.
const NEIGHBOUR_HOPS: u8 = 255;
const HOPS: u8 = 64;

/// Answers on a segment that has an IPv6 network; on others there is no gateway to ask.
pub fn answer(asker: &Asker<'_>, frame: &Frame<'_>) -> Answer {
    let Some((gateway, prefix_bits)) = asker.segment.gateway6 else { return asker.no_use(frame) };
    let Some(packet) = Ipv6::parse(frame.payload) else { return asker.not_understood(frame) };
    let own = |address: Ipv6Addr| address == gateway || address == LINK_LOCAL;
    let to = frame.from;
    let said = match packet.next_header {
        ICMPV6 if packet.hop_limit == NEIGHBOUR_HOPS && is_discovery(packet.payload) => {
            discover(&packet, to, gateway, prefix_bits)
        }
        _ if frame.to != GATEWAY_MAC => None,
        ICMPV6 if own(packet.destination) => echo(&packet, to),
        UDP if own(packet.destination) => datagram(asker, &packet, to),
        _ if own(packet.destination) => None,
        _ => unreachable(&packet, to, gateway, NO_ROUTE),
    };
    said.map_or_else(|| asker.no_use(frame), Answer::Reply)
}

fn is_discovery(message: &[u8]) -> bool {
    matches!(message.first(), Some(&(ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION)))
}

fn checksum(packet: &Ipv6<'_>) -> u16 {
    let bytes = packet.payload.len();
    PseudoHeader::v6(packet.source, packet.destination, ICMPV6, bytes).checksum(packet.payload)
}

fn discover(
    packet: &Ipv6<'_>,
    to: MacAddress,
    gateway: Ipv6Addr,
    prefix_bits: u8,
) -> Option<Vec<u8>> {
    if checksum(packet) != 0 {
        return None;
    }
    // Who has no address yet is reached with all others.
    let asks_for_itself = packet.source.is_unspecified();
    let (to, destination) =
        if asks_for_itself { (ALL_NODES_MAC, ALL_NODES) } else { (to, packet.source) };
    let mut rest = packet.payload;
    let [kind, code, ..] = take::<4>(&mut rest)?;
    match (kind, code) {
        (ROUTER_SOLICITATION, 0) => {
            let message = advertisement(gateway, prefix_bits);
            Some(icmp(to, LINK_LOCAL, destination, NEIGHBOUR_HOPS, message))
        }
        (NEIGHBOUR_SOLICITATION, 0) => {
            let _reserved: [u8; 4] = take(&mut rest)?;
            let target = Ipv6Addr::from(take::<16>(&mut rest)?);
            if target != gateway && target != LINK_LOCAL {
                return None;
            }
            const ROUTER: u8 = 0x80;
            const SOLICITED: u8 = 0x40;
            const OVERRIDE: u8 = 0x20;
            let solicited = if asks_for_itself { 0 } else { SOLICITED };
            let flags = ROUTER | OVERRIDE | solicited;
            let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
            message.extend(target.octets());
            message.extend([TARGET_LINK_ADDRESS, 1]);
            message.extend(GATEWAY_MAC.0);
            Some(icmp(to, target, destination, NEIGHBOUR_HOPS, message))
        }
        _ => None,
    }
}

/// A router advertisement: the prefix, and that this is no default router (lifetime zero).
fn advertisement(gateway: Ipv6Addr, prefix_bits: u8) -> Vec<u8> {
    const ON_LINK: u8 = 0x80;
    let bits = prefix_bits.min(128);
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    let prefix = Ipv6Addr::from_bits(gateway.to_bits() & mask);
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, HOPS, 0, 0, 0];
    message.extend([0; 8]);
    message.extend([SOURCE_LINK_ADDRESS, 1]);
    message.extend(GATEWAY_MAC.0);
    message.extend([PREFIX, 4, bits, ON_LINK]);
    message.extend([0xff; 8]);
    message.extend([0; 4]);
    message.extend(prefix.octets());
    message
}

fn echo(packet: &Ipv6<'_>, to: MacAddress) -> Option<Vec<u8>> {
    let [ECHO, 0, _, _, rest @ ..] = packet.payload else { return None };
    if checksum(packet) != 0 {
        return None;
    }
    let mut message = vec![ECHO_REPLY, 0, 0, 0];
    message.extend(rest);
    Some(icmp(to, packet.destination, packet.source, HOPS, message))
}

fn datagram(asker: &Asker<'_>, packet: &Ipv6<'_>, to: MacAddress) -> Option<Vec<u8>> {
    let (source, destination) = (packet.source, packet.destination);
    let pseudo = PseudoHeader::v6(source, destination, UDP, packet.payload.len());
    let datagram = Udp::parse(packet.payload, &pseudo)?;
    if datagram.to != dns::PORT {
        return unreachable(packet, to, destination, NO_PORT);
    }
    let reply = dns::answer(asker, datagram.payload)?;
    let pseudo = PseudoHeader::v6(destination, source, UDP, 8 + reply.len());
    let reply = packet::udp(dns::PORT, datagram.from, &reply, &pseudo);
    let reply = packet::ipv6(destination, source, UDP, HOPS, &reply);
    Some(packet::frame(to, packet::IPV6, &reply))
}

/// Says that a packet cannot be delivered, where that may be said (RFC 4443 section 2.4).
fn unreachable(packet: &Ipv6<'_>, to: MacAddress, source: Ipv6Addr, code: u8) -> Option<Vec<u8>> {
    let kind = packet.payload.first().copied().unwrap_or_default();
    let is_error = packet.next_header == ICMPV6 && kind < FIRST_INFORMATION;
    let is_nobody = packet.source.is_unspecified() || packet.source.is_multicast();
    if is_error || is_nobody || packet.destination.is_multicast() {
        return None;
    }
    let mut message = vec![UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    message.extend(packet.whole.iter().take(MAX_ICMPV6_QUOTE_BYTES));
    Some(icmp(to, source, packet.source, HOPS, message))
}

/// Returns the frame of a message whose checksum is still to be made.
fn icmp(
    to: MacAddress,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hops: u8,
    mut message: Vec<u8>,
) -> Vec<u8> {
    let sum = PseudoHeader::v6(source, destination, ICMPV6, message.len()).checksum(&message);
    put_u16(&mut message, 2, sum);
    let packet = packet::ipv6(source, destination, ICMPV6, hops, &message);
    packet::frame(to, packet::IPV6, &packet)
}
