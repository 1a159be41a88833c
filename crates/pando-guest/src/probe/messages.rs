//! What a probe says and hears: echoes (RFC 792, RFC 4443), ARP (RFC 826) and neighbour discovery
//! (RFC 4861), as bytes. Total over whatever comes in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO6: u8 = 128;
const ECHO6_REPLY: u8 = 129;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_ADDRESS: u8 = 1;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
/// Ethernet and IPv4, and how long their addresses are.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Tells the answers to one probe from those to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    id: [u8; 2],
    payload: [u8; 16],
}

impl Mark {
    pub fn random() -> io::Result<Self> {
        let (mut id, mut payload) = ([0; 2], [0; 16]);
        for bytes in [&mut id[..], &mut payload[..]] {
            let flags = rustix::rand::GetRandomFlags::empty();
            if rustix::rand::getrandom(&mut *bytes, flags)? != bytes.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self { id, payload })
    }
}

/// Something that may answer a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Echo { from: IpAddr, mark: Mark, sequence: u16 },
    Neighbour { address: IpAddr },
}

/// Returns an echo request over IPv4.
pub fn echo(mark: &Mark, sequence: u16) -> Vec<u8> {
    let mut message = echo_of(ECHO, mark, sequence);
    let sum = checksum(&message);
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Returns an echo request over IPv6; the kernel makes its checksum.
pub fn echo6(mark: &Mark, sequence: u16) -> Vec<u8> {
    echo_of(ECHO6, mark, sequence)
}

fn echo_of(kind: u8, mark: &Mark, sequence: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(mark.id);
    message.extend(sequence.to_be_bytes());
    message.extend(mark.payload);
    message
}

/// Returns what a raw socket of IPv4 heard: a packet with its header.
pub fn heard4(packet: &[u8]) -> Option<Heard> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let from: [u8; 4] = *packet.get(12..)?.first_chunk()?;
    heard_echo(packet.get(header..)?, ECHO_REPLY, IpAddr::from(from))
}

/// Returns what a raw socket of ICMPv6 heard from an address.
pub fn heard6(message: &[u8], from: Ipv6Addr) -> Option<Heard> {
    if message.first() == Some(&NEIGHBOUR_ADVERTISEMENT) {
        let target: [u8; 16] = *message.get(8..)?.first_chunk()?;
        return Some(Heard::Neighbour { address: IpAddr::from(target) });
    }
    heard_echo(message, ECHO6_REPLY, from.into())
}

fn heard_echo(message: &[u8], kind: u8, from: IpAddr) -> Option<Heard> {
    let [is, 0, _, _, i0, i1, s0, s1, payload @ ..] = message else { return None };
    let payload = *payload.first_chunk()?;
    let mark = Mark { id: [*i0, *i1], payload };
    let sequence = u16::from_be_bytes([*s0, *s1]);
    (*is == kind).then_some(Heard::Echo { from, mark, sequence })
}

/// Returns a neighbour solicitation; the kernel makes its checksum.
pub fn solicitation(target: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([SOURCE_LINK_ADDRESS, 1]);
    message.extend(mac);
    message
}

/// Returns the group in which whoever has an address listens (RFC 4291 section 2.7.1).
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = target.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// Returns an ARP request.
pub fn arp(mac: [u8; 6], source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut message = ARP_KIND.to_vec();
    message.extend(ARP_REQUEST.to_be_bytes());
    message.extend(mac);
    message.extend(source.octets());
    message.extend([0; 6]);
    message.extend(target.octets());
    message
}

/// Returns who says in ARP that it has its address.
pub fn heard_arp(message: &[u8]) -> Option<Heard> {
    let kind = message.strip_prefix(&ARP_KIND)?;
    let operation = u16::from_be_bytes(*kind.first_chunk()?);
    let sender: [u8; 4] = *kind.get(8..)?.first_chunk()?;
    (operation == ARP_REPLY).then(|| Heard::Neighbour { address: IpAddr::from(sender) })
}

/// The ones' complement of the sum (RFC 1071) of a message of an even length.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks_exact(2).filter_map(|word| word.first_chunk::<2>());
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_echo_is_known_by_its_answer() {
        let mark = Mark::random().unwrap();
        let mut message = echo(&mark, 7);
        assert_eq!(checksum(&message), 0);
        let mut packet = vec![0x45; 12];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(&message);
        assert_eq!(heard4(&packet), None, "the question itself");
        packet[20] = ECHO_REPLY;
        let from = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(heard4(&packet), Some(Heard::Echo { from, mark, sequence: 7 }));
        message[0] = ECHO6_REPLY;
        let from = IpAddr::from(Ipv6Addr::LOCALHOST);
        let heard = heard6(&message, Ipv6Addr::LOCALHOST);
        assert_eq!(heard, Some(Heard::Echo { from, mark, sequence: 7 }));
    }

    #[test]
    fn neighbours_are_known_by_their_addresses() {
        let (here, there) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut message = arp([2; 6], here, there);
        assert_eq!(message.len(), 28);
        assert_eq!(heard_arp(&message), None, "the question itself");
        message[7] = 2;
        assert_eq!(heard_arp(&message), Some(Heard::Neighbour { address: here.into() }));
        let target: Ipv6Addr = "fd00::12:3456".parse().unwrap();
        assert_eq!(solicited_node(target).to_string(), "ff02::1:ff12:3456");
        let mut message = solicitation(target, [2; 6]);
        message[0] = NEIGHBOUR_ADVERTISEMENT;
        let heard = heard6(&message, Ipv6Addr::LOCALHOST);
        assert_eq!(heard, Some(Heard::Neighbour { address: target.into() }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_heard_as_something_or_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = (heard4(&bytes), heard6(&bytes, Ipv6Addr::LOCALHOST), heard_arp(&bytes));
        }
    }
}
