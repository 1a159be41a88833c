//! Ethernet, IPv4, IPv6 and UDP, as far as the gateway itself speaks them: read from hostile bytes,
//! and written. Reading is total; what is cut short, has a wrong length or a wrong checksum is nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use pando_model::network::{GATEWAY_MAC, MacAddress};

/// Ethernet's number for IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethernet's number for ARP.
pub const ARP: u16 = 0x0806;
/// Ethernet's number for IPv6.
pub const IPV6: u16 = 0x86dd;
/// IP's number for ICMP.
pub const ICMP: u8 = 1;
/// IP's number for TCP.
pub const TCP: u8 = 6;
/// IP's number for UDP.
pub const UDP: u8 = 17;
/// IP's number for ICMPv6.
pub const ICMPV6: u8 = 58;

/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;
/// Hop limit of what the gateway says.
const HOPS: u8 = 64;

/// Takes `N` bytes from the front of `bytes`.
pub fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (front, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*front)
}

/// Takes a number of two bytes, big endian.
pub fn take_u16(bytes: &mut &[u8]) -> Option<u16> {
    take(bytes).map(u16::from_be_bytes)
}

/// An Ethernet frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    pub to: MacAddress,
    pub from: MacAddress,
    /// What it carries, or the mark of a VLAN tag: such frames pass as they are.
    pub kind: u16,
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    pub fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let (to, from) = (take(&mut bytes)?, take(&mut bytes)?);
        let kind = take_u16(&mut bytes)?;
        Some(Self { to: MacAddress(to), from: MacAddress(from), kind, payload: bytes })
    }
}

/// Returns a frame of the gateway's.
pub fn frame(to: MacAddress, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(14 + payload.len());
    bytes.extend(to.0);
    bytes.extend(GATEWAY_MAC.0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An IPv4 packet (RFC 791) whose header is sound.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub fragment: Fragment,
    pub payload: &'a [u8],
    /// All of it, without what Ethernet pads it with.
    pub whole: &'a [u8],
    /// Bytes of its header.
    pub header_bytes: usize,
}

/// Which part of a packet is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    First,
    Later,
}

impl<'a> Ipv4<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        const MORE: u16 = 0x2000;
        const OFFSET: u16 = 0x1fff;
        let [version, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            *bytes.first_chunk::<20>()?;
        let header_bytes = usize::from(version & 0x0f) * 4;
        let whole = bytes.get(..usize::from(u16::from_be_bytes([l0, l1])))?;
        if version >> 4 != 4 || header_bytes < 20 {
            return None;
        }
        let (header, payload) = whole.split_at_checked(header_bytes)?;
        if checksum(&[header]) != 0 {
            return None;
        }
        let flags = u16::from_be_bytes([f0, f1]);
        let fragment = match (flags & OFFSET, flags & MORE) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First,
            _ => Fragment::Later,
        };
        let source = Ipv4Addr::new(s0, s1, s2, s3);
        let destination = Ipv4Addr::new(d0, d1, d2, d3);
        Some(Self { source, destination, protocol, fragment, payload, whole, header_bytes })
    }
}

/// Returns a packet that is not to be fragmented. `payload` is shorter than 65,515 bytes.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend(length(20 + payload.len()).to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    let sum = checksum(&[&bytes]);
    put_u16(&mut bytes, 10, sum);
    bytes.extend(payload);
    bytes
}

/// An IPv6 packet (RFC 8200) without extension headers.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6<'a> {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub next_header: u8,
    pub hop_limit: u8,
    pub payload: &'a [u8],
    /// All of it, without what Ethernet pads it with.
    pub whole: &'a [u8],
}

impl<'a> Ipv6<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let [version, ..] = take::<4>(&mut rest)?;
        let payload_bytes = usize::from(take_u16(&mut rest)?);
        let [next_header, hop_limit] = take(&mut rest)?;
        let source = Ipv6Addr::from(take::<16>(&mut rest)?);
        let destination = Ipv6Addr::from(take::<16>(&mut rest)?);
        if version >> 4 != 6 {
            return None;
        }
        let payload = rest.get(..payload_bytes)?;
        let whole = bytes.get(..IPV6_HEADER + payload_bytes)?;
        Some(Self { source, destination, next_header, hop_limit, payload, whole })
    }
}

/// Returns a packet. `payload` is shorter than 65,536 bytes.
pub fn ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    hop_limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(length(payload.len()).to_be_bytes());
    bytes.extend([next_header, hop_limit]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

/// What a checksum covers besides the message itself (RFC 768, RFC 8200 section 8.1).
#[derive(Debug, Clone)]
pub struct PseudoHeader(Vec<u8>);

impl PseudoHeader {
    pub fn v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, bytes: usize) -> Self {
        let mut header = [source.octets(), destination.octets()].concat();
        header.extend([0, protocol]);
        header.extend(length(bytes).to_be_bytes());
        Self(header)
    }

    pub fn v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, bytes: usize) -> Self {
        let mut header = [source.octets(), destination.octets()].concat();
        header.extend(u32::from(length(bytes)).to_be_bytes());
        header.extend([0, 0, 0, protocol]);
        Self(header)
    }

    /// Returns the checksum of `message` behind this header: zero if the message holds a right one.
    pub fn checksum(&self, message: &[u8]) -> u16 {
        checksum(&[&self.0, message])
    }
}

/// A UDP datagram (RFC 768).
#[derive(Debug, Clone, Copy)]
pub struct Udp<'a> {
    pub from: u16,
    pub to: u16,
    pub payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Reads the payload of a packet with `pseudo` as its addresses.
    pub fn parse(bytes: &'a [u8], pseudo: &PseudoHeader) -> Option<Self> {
        let mut rest = bytes;
        let (from, to) = (take_u16(&mut rest)?, take_u16(&mut rest)?);
        let told = usize::from(take_u16(&mut rest)?);
        let sum = take_u16(&mut rest)?;
        let payload = bytes.get(8..told)?;
        // Zero: the sender made none.
        if sum != 0 && pseudo.checksum(bytes.get(..told)?) != 0 {
            return None;
        }
        Some(Self { from, to, payload })
    }
}

/// Returns a datagram; `pseudo` is for `8 + payload.len()` bytes.
pub fn udp(from: u16, to: u16, payload: &[u8], pseudo: &PseudoHeader) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + payload.len());
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(length(8 + payload.len()).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    // A sum of zero is sent as its other form, because zero says that there is none.
    let sum = match pseudo.checksum(&bytes) {
        0 => 0xffff,
        sum => sum,
    };
    put_u16(&mut bytes, 6, sum);
    bytes
}

/// Returns the ones' complement of the ones' complement sum (RFC 1071) of all `parts`, of which only
/// the last may have an odd length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        let mut words = part.chunks_exact(2);
        for word in &mut words {
            if let [high, low] = word {
                sum += u64::from(u16::from_be_bytes([*high, *low]));
            }
        }
        if let [last] = words.remainder() {
            sum += u64::from(*last) << 8;
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Writes `value` at `at`, if there is such a place.
pub fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Nothing that the gateway says is longer than what a packet can be.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_the_one_of_rfc_1071() {
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&words]), !0xddf2);
        assert_eq!(checksum(&[&[0xab]]), !0xab00);
        assert_eq!(checksum(&[]), 0xffff);
    }

    #[test]
    fn what_is_written_is_read() {
        let (a, b) = (Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 15));
        for payload in [&b""[..], b"x", b"hello"] {
            let pseudo = PseudoHeader::v4(a, b, UDP, 8 + payload.len());
            let datagram = udp(53, 4000, payload, &pseudo);
            let packet = ipv4(a, b, UDP, &datagram);
            let read = Ipv4::parse(&packet).unwrap();
            assert_eq!((read.source, read.destination, read.protocol), (a, b, UDP));
            let read = Udp::parse(read.payload, &pseudo).unwrap();
            assert_eq!((read.from, read.to, read.payload), (53, 4000, payload));
        }
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        let (a, b) = (Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 15));
        let pseudo = PseudoHeader::v4(a, b, UDP, 13);
        let packet = ipv4(a, b, UDP, &udp(53, 4000, b"hello", &pseudo));
        for position in 0..packet.len() {
            let mut changed = packet.clone();
            changed[position] ^= 0x10;
            let read = Ipv4::parse(&changed).and_then(|packet| {
                let pseudo = PseudoHeader::v4(
                    packet.source,
                    packet.destination,
                    packet.protocol,
                    packet.payload.len(),
                );
                Udp::parse(packet.payload, &pseudo).map(drop)
            });
            assert!(read.is_none(), "byte {position}");
        }
    }
}
