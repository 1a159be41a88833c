//! ICMP (RFC 792): the gateway answers pings, and says what it cannot reach.

use pando_model::network::MacAddress;

use super::packet::{self, Fragment, ICMP, Ipv4, checksum, put_u16};
use super::{Answer, Asker};
use crate::limits::MAX_ICMP_QUOTE_BYTES;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
/// The other messages that tell of an error: source quench, redirect, time exceeded, parameter.
const OTHER_ERRORS: [u8; 4] = [4, 5, 11, 12];

/// Why a destination is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    Net = 0,
    Port = 3,
}

/// Answers a message for the gateway.
pub fn answer(to: MacAddress, packet: &Ipv4<'_>) -> Option<Answer> {
    if packet.fragment != Fragment::Whole || checksum(&[packet.payload]) != 0 {
        return None;
    }
    let [ECHO, 0, _, _, rest @ ..] = packet.payload else { return None };
    let mut reply = vec![ECHO_REPLY, 0, 0, 0];
    reply.extend(rest);
    let sum = checksum(&[&reply]);
    put_u16(&mut reply, 2, sum);
    let reply = packet::ipv4(packet.destination, packet.source, ICMP, &reply);
    Some(Answer::Reply(packet::frame(to, packet::IPV4, &reply)))
}

/// Says that `packet` cannot be delivered, where that may be said (RFC 1122 section 3.2.2): not of
/// errors, of parts of a packet but the first, or to who is nobody in particular.
pub fn unreachable(
    asker: &Asker<'_>,
    to: MacAddress,
    packet: &Ipv4<'_>,
    why: Unreachable,
) -> Option<Answer> {
    let kind = packet.payload.first().copied().unwrap_or_default();
    let is_error = packet.protocol == ICMP && (kind == UNREACHABLE || OTHER_ERRORS.contains(&kind));
    let source = packet.source;
    let is_nobody = source.is_unspecified()
        || source.is_loopback()
        || source.is_multicast()
        || source.is_broadcast();
    if is_error || is_nobody || packet.fragment == Fragment::Later {
        return None;
    }
    let mut message = vec![UNREACHABLE, why as u8, 0, 0, 0, 0, 0, 0];
    let quoted = packet.whole.len().min(MAX_ICMP_QUOTE_BYTES.max(packet.header_bytes));
    message.extend(packet.whole.iter().take(quoted));
    let sum = checksum(&[&message]);
    put_u16(&mut message, 2, sum);
    let reply = packet::ipv4(asker.segment.gateway, source, ICMP, &message);
    Some(Answer::Reply(packet::frame(to, packet::IPV4, &reply)))
}
