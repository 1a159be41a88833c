//! TCP (RFC 9293) to the gateway's address. Nothing listens there, so who connects is refused at
//! once. With an uplink, connections that came in through it have the gateway's address as their
//! source, so what belongs to one goes out again.

use pando_model::network::MacAddress;

use super::packet::{self, Fragment, Ipv4, PseudoHeader, TCP, put_u16, take, take_u16};
use super::{Answer, Asker};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Answers a segment for the gateway.
pub fn answer(asker: &Asker<'_>, to: MacAddress, packet: &Ipv4<'_>) -> Option<Answer> {
    let bytes = packet.payload.len();
    let pseudo = PseudoHeader::v4(packet.source, packet.destination, TCP, bytes);
    if packet.fragment != Fragment::Whole || pseudo.checksum(packet.payload) != 0 {
        return None;
    }
    let mut rest = packet.payload;
    let (from_port, to_port) = (take_u16(&mut rest)?, take_u16(&mut rest)?);
    let sequence = u32::from_be_bytes(take(&mut rest)?);
    let acknowledged: [u8; 4] = take(&mut rest)?;
    let [offset, flags] = take(&mut rest)?;
    let begins = flags & (SYN | ACK) == SYN;
    if asker.has_uplink() && !begins {
        return Some(Answer::ToUplink);
    }
    if flags & RST != 0 {
        return None;
    }
    let data = bytes.checked_sub(usize::from(offset >> 4) * 4)?;
    let data = u32::try_from(data).ok()?;
    let counted = data + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let mut reply = Vec::with_capacity(20);
    reply.extend(to_port.to_be_bytes());
    reply.extend(from_port.to_be_bytes());
    if flags & ACK == 0 {
        reply.extend([0; 4]);
        reply.extend(sequence.wrapping_add(counted).to_be_bytes());
        reply.extend([5 << 4, RST | ACK]);
    } else {
        reply.extend(acknowledged);
        reply.extend([0; 4]);
        reply.extend([5 << 4, RST]);
    }
    reply.extend([0; 6]);
    let pseudo = PseudoHeader::v4(packet.destination, packet.source, TCP, reply.len());
    let sum = pseudo.checksum(&reply);
    put_u16(&mut reply, 16, sum);
    let reply = packet::ipv4(packet.destination, packet.source, TCP, &reply);
    Some(Answer::Reply(packet::frame(to, packet::IPV4, &reply)))
}
