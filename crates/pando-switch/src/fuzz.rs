//! Entry points for fuzzers: functions of bytes that must neither panic nor take unbounded time or
//! memory. `cargo test` runs them over `corpus/`, and over mutations of it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use jiff::Timestamp;
use pando_model::FaultId;
use pando_model::cluster::Uplink;
use pando_model::fault::{Burst, Effect, Fault, Impairment, PerMillion};
use pando_model::name::Name;
use pando_model::network::{End, GATEWAY_MAC, Link, MacAddress, NetworkSpec, Port, Segment};

use crate::core::Core;
use crate::frame::Frames;
use crate::limits::MAX_DELAY;
use crate::services::packet::{self, Frame, Ipv4, Ipv6, PseudoHeader};
use crate::services::{Answer, SegmentView, answer};
use crate::state;

/// Longest reply beyond what was asked, in bytes: headers, the options of DHCP, answers of DNS.
const MAX_REPLY_GROWTH: usize = 600;

/// Returns a network to ask in: two nodes, one of them in two segments.
pub fn network(uplink: Uplink) -> NetworkSpec {
    let segment = |text: &str, subnet: [u8; 4], gateway6, uplink| Segment {
        name: name(text),
        subnet: subnet.into(),
        prefix_bits: 24,
        gateway: Ipv4Addr::from_bits(Ipv4Addr::from(subnet).to_bits() + 2),
        gateway6,
        uplink,
        bridge: None,
    };
    let port = |node: &str, nic, segment: &str, mac, address: [u8; 4], address6| Port {
        node: name(node),
        nic,
        segment: name(segment),
        mac: MacAddress([0x52, 0x54, 0, 0x12, 0x34, mac]),
        address: Some(address.into()),
        address6,
    };
    let gateway6 = (Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2), 64);
    let db6 = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x15);
    NetworkSpec {
        domain: "shop".to_owned(),
        segments: vec![
            segment("lan", [10, 0, 2, 0], Some(gateway6), uplink),
            segment("back", [10, 9, 0, 0], None, Uplink::None),
        ],
        ports: vec![
            port("db", 0, "lan", 0x56, [10, 0, 2, 15], Some(db6)),
            port("web", 0, "back", 0x58, [10, 9, 0, 16], None),
            port("web", 1, "lan", 0x57, [10, 0, 2, 16], None),
        ],
        ..NetworkSpec::default()
    }
}

fn name(text: &str) -> Name {
    #[expect(clippy::expect_used, reason = "the names above are ones")]
    text.parse().expect("a name")
}

/// A frame for the gateway, and the same bytes as what each kind of message carries, behind headers
/// with right lengths and checksums.
pub fn services(bytes: &[u8]) {
    for uplink in [Uplink::None, Uplink::Nat] {
        let network = network(uplink);
        let (Some(segment), Some(port)) = (network.segments.first(), network.ports.first()) else {
            return;
        };
        let view = SegmentView { segment, domain: &network.domain, ports: &network.ports };
        ask(&view, port, bytes);
        let payload = bytes.get(..bytes.len().min(1400)).unwrap_or_default();
        for frame in wrapped(segment, port, payload) {
            ask(&view, port, &frame);
        }
    }
}

/// A state file of [`network`], as it is and with the digest that it should have; what is read is
/// continued with, and lost frames would be noticed.
pub fn state(bytes: &[u8]) {
    continue_with(bytes);
    continue_with(&state::seal(bytes));
}

fn continue_with(bytes: &[u8]) {
    let faults = state_faults();
    let Ok((mut core, clock)) =
        Core::restore(NetworkSpec { faults, ..network(Uplink::Nat) }, bytes)
    else {
        return;
    };
    let (saved, _) = core.save(clock, &[]);
    assert!(Core::restore(network(Uplink::Nat), &saved).is_ok());
    core.release();
    let mut frames = 0;
    while core.forward_held(clock) {
        frames += 1;
    }
    assert!(frames <= bytes.len());
    core.advance(clock + MAX_DELAY);
    for output in 0..core.output_count() {
        let count = core.output(output).len();
        core.wrote(output, count, |_, _| {});
    }
    assert_balance(&core, clock);
}

/// What a machine writes to its port, cut into frames and switched.
pub fn frames(bytes: &[u8]) {
    let Ok(mut core) = Core::new(network(Uplink::Nat)) else { return };
    core.release();
    let mut frames = Frames::new(bytes);
    for frame in &mut frames {
        let Ok(frame) = frame else { break };
        core.input(Duration::ZERO, 0, frame);
    }
    assert!(frames.rest().len() <= bytes.len());
    assert_balance(&core, Duration::ZERO);
}

/// The faults that worked when the states of the corpus were saved.
pub fn state_faults() -> Vec<Fault> {
    let node = |text: &str| End::Node(name(text));
    let impairment = Impairment {
        latency_us: 20_000,
        jitter_us: 5_000,
        loss: PerMillion(100_000),
        burst: Some(Burst { mean_frames: 3 }),
        rate_bps: Some(1_000_000),
        ..Impairment::default()
    };
    vec![Fault {
        id: FaultId::from_digest(&[7; 32]),
        label: None,
        effect: Effect::Impair(impairment),
        links: vec![
            Link { from: node("db"), to: node("web") },
            Link { from: End::Gateway, to: node("db") },
        ],
        segment: None,
        seed: 7,
        ordinal: 0,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
    }]
}

fn assert_balance(core: &Core, now: Duration) {
    for (_, counts) in core.observe(now).links {
        let given_up: u64 = counts.dropped.values().sum();
        assert_eq!(counts.sent, counts.delivered + counts.held + given_up);
    }
}

fn ask(view: &SegmentView<'_>, port: &Port, frame: &[u8]) {
    let Answer::Reply(reply) = answer(view, port, frame, Duration::ZERO) else { return };
    assert!(reply.len() <= frame.len() + MAX_REPLY_GROWTH);
    let read = Frame::parse(&reply);
    assert!(read.is_some_and(|frame| {
        frame.from == GATEWAY_MAC
            && match frame.kind {
                packet::ARP => frame.payload.len() == 28,
                packet::IPV4 => Ipv4::parse(frame.payload)
                    .is_some_and(|packet| packet.whole.len() == frame.payload.len()),
                packet::IPV6 => Ipv6::parse(frame.payload)
                    .is_some_and(|packet| packet.whole.len() == frame.payload.len()),
                _ => false,
            }
    }));
}

fn wrapped(segment: &Segment, port: &Port, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut push = |kind: u16, packet: &[u8]| {
        let mut frame = packet::frame(GATEWAY_MAC, kind, packet);
        frame.splice(6..12, port.mac.0);
        frames.push(frame);
    };
    let (from, to) = (port.address.unwrap_or(Ipv4Addr::UNSPECIFIED), segment.gateway);
    for (source, destination) in [(68, 67), (4000, 53)] {
        let pseudo = PseudoHeader::v4(from, to, packet::UDP, 8 + payload.len());
        let datagram = packet::udp(source, destination, payload, &pseudo);
        push(packet::IPV4, &packet::ipv4(from, to, packet::UDP, &datagram));
    }
    for (protocol, sum_at) in [(packet::ICMP, 2), (packet::TCP, 16)] {
        let mut message = payload.to_vec();
        packet::put_u16(&mut message, sum_at, 0);
        let sum = match protocol {
            packet::ICMP => packet::checksum(&[&message]),
            _ => PseudoHeader::v4(from, to, protocol, message.len()).checksum(&message),
        };
        packet::put_u16(&mut message, sum_at, sum);
        push(packet::IPV4, &packet::ipv4(from, to, protocol, &message));
    }
    if let (Some(from), Some((to, _))) = (port.address6, segment.gateway6) {
        let mut message = payload.to_vec();
        packet::put_u16(&mut message, 2, 0);
        let pseudo = PseudoHeader::v6(from, to, packet::ICMPV6, message.len());
        let sum = pseudo.checksum(&message);
        packet::put_u16(&mut message, 2, sum);
        push(packet::IPV6, &packet::ipv6(from, to, packet::ICMPV6, 255, &message));
    }
    push(packet::ARP, payload);
    frames
}
