//! What a guest may send to the outside. Pure, and total over hostile bytes.
//!
//! `passt` opens on the host what the guest asks for, by whatever address it names: its own options
//! refuse neither the loopback (Debian 12's version connects a guest to 127.0.0.1) nor link-local
//! addresses, where clouds keep credentials. So the frames are looked at before it sees them. Only
//! shapes that it reads the way this filter does get through: no fragments, no lengths at which its
//! own framing could lose step.

use std::net::Ipv4Addr;

use pando_machine::UplinkPlan;
use pando_model::network::NAME_SERVER;

use crate::limits::MAX_FRAME_BYTES;

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS_PORT: u16 = 53;
const DHCP_SERVER_PORT: u16 = 67;
const DHCP_CLIENT_PORT: u16 = 68;
/// Bytes of the length before each frame.
const PREFIX: usize = 4;

/// Destinations that are never the outside: prefix and its bits. On Linux, 0.0.0.0 is the loopback.
const INSIDE: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::LOCALHOST, 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// What a filter knows of its node.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The only source that may send to the outside.
    pub node: Ipv4Addr,
    /// Where the node sends it.
    pub gateway: Ipv4Addr,
    /// The node's own network, and others that are not the outside.
    inside: Vec<(Ipv4Addr, u8)>,
}

impl Addresses {
    /// Returns those of a plan.
    pub fn new(plan: &UplinkPlan) -> Self {
        let own = (plan.address, plan.prefix_bits);
        let inside = plan.inside.iter().copied().chain([own]).collect();
        Self { node: plan.address, gateway: plan.gateway, inside }
    }

    fn is_inside(&self, address: Ipv4Addr) -> bool {
        INSIDE.iter().chain(&self.inside).any(|(prefix, bits)| {
            let shift = u32::BITS.saturating_sub(u32::from(*bits));
            (address.to_bits() ^ prefix.to_bits()).checked_shr(shift).unwrap_or(0) == 0
        })
    }
}

/// Cuts the guest's stream into frames (`u32` length, big endian, then the frame) and keeps those
/// that may leave.
#[derive(Debug)]
pub struct Outgoing {
    addresses: Addresses,
    /// The beginning of a frame whose end is not there yet.
    partial: Vec<u8>,
}

/// The stream is not one of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame says that it has {0} bytes")]
pub struct FrameTooLong(u32);

impl Outgoing {
    /// Returns a filter at the beginning of a stream.
    pub fn new(addresses: Addresses) -> Self {
        Self { addresses, partial: Vec::new() }
    }

    /// Takes in bytes of the guest's stream, and appends the frames that may leave to `allowed`,
    /// each whole and with its length.
    pub fn push(&mut self, bytes: &[u8], allowed: &mut Vec<u8>) -> Result<(), FrameTooLong> {
        self.partial.extend_from_slice(bytes);
        let mut rest = self.partial.as_slice();
        while let Some((prefix, behind)) = rest.split_first_chunk::<PREFIX>() {
            let told = u32::from_be_bytes(*prefix);
            let length = usize::try_from(told).unwrap_or(usize::MAX);
            if length > MAX_FRAME_BYTES {
                return Err(FrameTooLong(told));
            }
            let Some((frame, next)) = behind.split_at_checked(length) else { break };
            if may_leave(&self.addresses, frame) {
                allowed.extend_from_slice(prefix);
                allowed.extend_from_slice(frame);
            }
            rest = next;
        }
        let used = self.partial.len() - rest.len();
        self.partial.drain(..used);
        Ok(())
    }
}

/// Whether the guest may send a frame to the outside.
pub fn may_leave(addresses: &Addresses, frame: &[u8]) -> bool {
    /// What an interface with an MTU of 1500 sends.
    const LONGEST: usize = ETHERNET_HEADER + 1500;
    if frame.len() > LONGEST {
        return false;
    }
    let Some((header, packet)) = frame.split_at_checked(ETHERNET_HEADER) else { return false };
    match header.last_chunk::<2>().map(|kind| u16::from_be_bytes(*kind)) {
        // It stays between the guest and passt.
        Some(ETHERTYPE_ARP) => true,
        Some(ETHERTYPE_IPV4) => {
            Packet::parse(packet).is_some_and(|packet| packet.may_leave(addresses))
        }
        _ => false,
    }
}

/// What is looked at of an IPv4 packet.
struct Packet {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    /// Source and destination, of TCP and UDP.
    ports: Option<(u16, u16)>,
}

impl Packet {
    /// Returns a packet that is whole and not a fragment (RFC 791).
    fn parse(bytes: &[u8]) -> Option<Self> {
        const DONT_FRAGMENT: u16 = 0x4000;
        let header = bytes.first_chunk::<20>()?;
        let [version, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            *header;
        let (header_length, total) =
            (usize::from(version & 0x0f) * 4, usize::from(u16::from_be_bytes([l0, l1])));
        let whole = bytes.get(..total)?;
        if version >> 4 != 4 || header_length < header.len() {
            return None;
        }
        if u16::from_be_bytes([f0, f1]) & !DONT_FRAGMENT != 0 {
            return None;
        }
        let payload = whole.get(header_length..)?;
        let ports = match (protocol, payload.first_chunk::<4>()) {
            (TCP | UDP, Some([p0, p1, q0, q1])) => {
                Some((u16::from_be_bytes([*p0, *p1]), u16::from_be_bytes([*q0, *q1])))
            }
            (TCP | UDP, None) => return None,
            _ => None,
        };
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
            protocol,
            ports,
        })
    }

    fn may_leave(&self, addresses: &Addresses) -> bool {
        // passt answers this itself; a cloud image asks before it has an address.
        let asks_for_address = self.destination == Ipv4Addr::BROADCAST
            && self.protocol == UDP
            && self.ports == Some((DHCP_CLIENT_PORT, DHCP_SERVER_PORT));
        if asks_for_address {
            return true;
        }
        if self.source != addresses.node {
            return false;
        }
        if self.destination == NAME_SERVER {
            return self.ports.is_some_and(|(_, to)| to == DNS_PORT);
        }
        matches!(self.protocol, ICMP | TCP | UDP) && !addresses.is_inside(self.destination)
    }
}

#[cfg(test)]
mod tests {
    use pando_model::network::{ADDRESS, GATEWAY, PREFIX_BITS};
    use proptest::prelude::*;

    use super::*;

    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn addresses() -> Addresses {
        Addresses::new(&UplinkPlan {
            name: "db".to_owned(),
            address: ADDRESS,
            prefix_bits: PREFIX_BITS,
            gateway: GATEWAY,
            inside: vec![(Ipv4Addr::new(10, 9, 0, 0), 16)],
            log: "/log".into(),
        })
    }

    fn may_leave(frame: &[u8]) -> bool {
        super::may_leave(&addresses(), frame)
    }

    fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_IPV4.to_be_bytes());
        let total = u16::try_from(20 + payload.len()).unwrap();
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(payload);
        frame
    }

    fn to(destination: Ipv4Addr, protocol: u8, port: u16) -> Vec<u8> {
        let mut payload = vec![0x9c, 0x40];
        payload.extend(port.to_be_bytes());
        payload.extend([0; 16]);
        ipv4(ADDRESS, destination, protocol, &payload)
    }

    fn framed(frame: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(frame);
        bytes
    }

    #[test]
    fn only_the_outside_is_reached() {
        for (address, allowed) in [
            ("198.51.100.1", true),
            ("192.168.1.1", true),
            ("10.0.3.1", true),
            ("10.255.255.53", true),
            ("172.16.0.1", true),
            ("223.255.255.255", true),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.0.2.2", false),
            ("10.0.2.15", false),
            ("10.0.2.255", false),
            ("10.9.7.7", false),
            ("10.10.0.1", true),
            ("169.254.169.254", false),
            ("169.254.0.1", false),
            ("224.0.0.251", false),
            ("239.255.255.255", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            for protocol in [ICMP, TCP, UDP] {
                let frame = to(address.parse().unwrap(), protocol, 80);
                assert_eq!(may_leave(&frame), allowed, "{address}, protocol {protocol}");
            }
        }
    }

    #[test]
    fn the_name_server_answers_questions_only() {
        assert!(may_leave(&to(NAME_SERVER, UDP, 53)));
        assert!(may_leave(&to(NAME_SERVER, TCP, 53)));
        assert!(!may_leave(&to(NAME_SERVER, UDP, 54)));
        assert!(!may_leave(&to(NAME_SERVER, ICMP, 53)));
    }

    #[test]
    fn an_address_is_asked_for_by_broadcast_only() {
        let ask = |source, destination| {
            may_leave(&ipv4(source, destination, UDP, &[0, 68, 0, 67, 0, 8, 0, 0]))
        };
        assert!(ask(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
        assert!(!ask(Ipv4Addr::UNSPECIFIED, OUTSIDE));
        assert!(!may_leave(&to(Ipv4Addr::BROADCAST, UDP, 67)));
    }

    #[test]
    fn what_passt_could_read_otherwise_is_dropped() {
        let good = to(OUTSIDE, TCP, 80);
        assert!(may_leave(&good));
        let with = |at: usize, value: u8| {
            let mut frame = good.clone();
            frame[at] = value;
            may_leave(&frame)
        };
        assert!(!with(20, 0x20), "more fragments follow");
        assert!(!with(21, 1), "a later fragment");
        assert!(!with(14, 0x44), "a header of 16 bytes");
        assert!(!with(14, 0x65), "version 6");
        assert!(!with(14, 0x4f), "a header past the end");
        assert!(!with(17, 0xff), "a packet past the end");
        assert!(!with(17, 20), "no ports");
        assert!(!with(12, 0x86), "another kind of frame");
        assert!(!with(23, 47), "another protocol");
        assert!(!with(29, 16), "another source");
        assert!(!may_leave(&good[..33]));
        let mut long = good.clone();
        long.resize(1515, 0);
        assert!(!may_leave(&long));
        long.truncate(1514);
        assert!(may_leave(&long));
    }

    #[test]
    fn a_frame_that_is_too_long_ends_the_stream() {
        let mut filter = Outgoing::new(addresses());
        let pushed = filter.push(&[0xff; 4], &mut Vec::new());
        assert_eq!(pushed, Err(FrameTooLong(u32::MAX)));
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_they_are_cut(
            cuts in proptest::collection::vec(1usize..90, 1..40),
        ) {
            let (good, bad) = (framed(&to(OUTSIDE, UDP, 7)), framed(&to(Ipv4Addr::LOCALHOST, TCP, 7)));
            let stream = [good.clone(), bad.clone(), framed(&[]), good.clone(), bad].concat();
            let mut filter = Outgoing::new(addresses());
            let (mut allowed, mut rest) = (Vec::new(), stream.as_slice());
            for cut in cuts.iter().cycle() {
                let (chunk, next) = rest.split_at((*cut).min(rest.len()));
                filter.push(chunk, &mut allowed).unwrap();
                rest = next;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(allowed, [good.clone(), good].concat());
            prop_assert!(filter.partial.is_empty());
        }

        #[test]
        fn nothing_of_hostile_bytes_leaves_but_to_the_outside(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut frame = bytes;
            if frame.len() > ETHERNET_HEADER {
                frame[12] = 0x08;
                frame[13] = 0;
                frame[14] = 0x45;
            }
            if may_leave(&frame) {
                let destination: [u8; 4] = frame[30..34].try_into().unwrap();
                let destination = Ipv4Addr::from(destination);
                prop_assert!(!destination.is_loopback() && !destination.is_link_local());
                prop_assert!(!destination.is_unspecified() && !destination.is_multicast());
            }
        }
    }
}
