//! What the switch decides, on a clock of the test's.

mod conserved;
mod segments;

use jiff::Timestamp;
use pando_model::cluster::Uplink;
use pando_model::fault::{Effect, Impairment, PerMillion};
use pando_model::network::{End, Link, LinkCounts, Segment};

use super::*;
use crate::limits::{LINK_DELAY_BYTES, QUEUE_BYTES, QUEUE_FRAMES};

const ZERO: Duration = Duration::ZERO;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn mac(port: usize) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, port as u8])
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Four nodes `n0` … `n3` in `lan`; `n3` also in `dmz`, with `n4`.
fn spec() -> NetworkSpec {
    let segment = |text: &str| Segment {
        name: name(text),
        subnet: [10, 0, 2, 0].into(),
        prefix_bits: 24,
        gateway: [10, 0, 2, 2].into(),
        gateway6: None,
        uplink: Uplink::Nat,
        bridge: None,
    };
    let places = [
        ("n0", 0, "lan"),
        ("n1", 0, "lan"),
        ("n2", 0, "lan"),
        ("n3", 0, "lan"),
        ("n3", 1, "dmz"),
        ("n4", 0, "dmz"),
    ];
    let port = |(number, (node, nic, segment)): (usize, (&str, u8, &str))| Port {
        node: name(node),
        nic,
        segment: name(segment),
        mac: mac(number),
        address: None,
        address6: None,
    };
    NetworkSpec {
        domain: "shop".to_owned(),
        segments: vec![segment("lan"), segment("dmz")],
        ports: places.into_iter().enumerate().map(port).collect(),
        faults: Vec::new(),
        restore: None,
    }
}

fn core() -> Core {
    let mut core = Core::new(spec()).unwrap();
    core.release();
    core
}

/// A frame of a protocol that nobody speaks (IEEE 802's first for experiments).
fn frame(to: MacAddress, from: MacAddress, number: u32, length: usize) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0[..], &[0x88, 0xb5][..], &number.to_be_bytes()[..]].concat();
    frame.resize(length.max(18), 0);
    frame
}

fn link(from: &str, to: &str) -> Link {
    let end = |text: &str| if text == "gateway" { End::Gateway } else { End::Node(name(text)) };
    Link { from: end(from), to: end(to) }
}

fn fault(number: u8, seed: u64, effect: Effect, links: &[(&str, &str)]) -> Fault {
    Fault {
        id: format!("ft_{number:012}").parse().unwrap(),
        label: None,
        effect,
        links: links.iter().map(|(from, to)| link(from, to)).collect(),
        segment: None,
        seed,
        ordinal: 0,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
    }
}

fn impair(number: u8, impairment: Impairment) -> Fault {
    fault(number, 42, Effect::Impair(impairment), &[("n0", "n1")])
}

/// Reads all that is written to an output.
fn read(core: &mut Core, output: usize) -> Vec<Vec<u8>> {
    let bytes = core.output(output).to_vec();
    core.wrote(output, bytes.len(), |_, _| {});
    crate::frame::Frames::new(&bytes).map(|frame| frame.unwrap().to_vec()).collect()
}

fn counts(core: &Core, from: &str, to: &str) -> LinkCounts {
    let links = core.observe(ZERO).links;
    let found = links.into_iter().find(|(at, _)| *at == link(from, to));
    found.map(|(_, counts)| counts).unwrap_or_default()
}

fn dropped(core: &Core, from: &str, to: &str, reason: DropReason) -> u64 {
    counts(core, from, to).dropped.get(&reason).copied().unwrap_or(0)
}

fn assert_balance(core: &Core) {
    for (link, counts) in core.observe(ZERO).links {
        let sum = counts.delivered + counts.held + counts.dropped.values().sum::<u64>();
        assert_eq!(counts.sent, sum, "{link:?}: {counts:?}");
    }
}

#[test]
fn frames_go_where_their_station_is_and_stay_in_their_segment() {
    let mut core = core();
    core.input(ZERO, 0, &frame(mac(1), mac(0), 1, 60));
    assert_eq!(read(&mut core, 1).len(), 1);
    assert!((2..6).all(|port| read(&mut core, port).is_empty()));
    core.input(ZERO, 0, &frame(MacAddress::BROADCAST, mac(0), 2, 60));
    let got: Vec<usize> = (0..6).map(|port| read(&mut core, port).len()).collect();
    assert_eq!(got, [0, 1, 1, 1, 0, 0]);
    let stranger = MacAddress([2, 0, 0, 0, 0, 9]);
    core.input(ZERO, 0, &frame(stranger, mac(0), 3, 60));
    assert_eq!((0..6).map(|port| read(&mut core, port).len()).sum::<usize>(), 3);
    core.input(ZERO, 2, &frame(MacAddress::BROADCAST, stranger, 4, 60));
    (0..6).for_each(|port| drop(read(&mut core, port)));
    core.input(ZERO, 0, &frame(stranger, mac(0), 5, 60));
    let got: Vec<usize> = (0..6).map(|port| read(&mut core, port).len()).collect();
    assert_eq!(got, [0, 0, 1, 0, 0, 0]);
    assert_eq!(counts(&core, "n0", "n2").delivered, 3);
    assert_balance(&core);
}

#[test]
fn a_spoofed_address_does_not_steal_another_ports_frames() {
    let mut core = core();
    core.input(ZERO, 2, &frame(mac(3), mac(1), 1, 60));
    core.input(ZERO, 0, &frame(mac(1), mac(0), 2, 60));
    assert_eq!((read(&mut core, 1).len(), read(&mut core, 2).len()), (1, 0));
    assert_eq!(core.observe(ZERO).spoofed, 1);
}

#[test]
fn truncated_oversized_and_anonymous_frames_are_counted_and_go_nowhere() {
    let mut core = core();
    core.input(ZERO, 0, &[]);
    core.input(ZERO, 0, &[0xff; 13]);
    core.input(ZERO, 0, &frame(mac(1), mac(0), 1, 1519));
    core.input(ZERO, 0, &frame(mac(1), MacAddress::BROADCAST, 2, 60));
    assert_eq!(dropped(&core, "n0", "gateway", DropReason::Malformed), 4);
    assert!((0..6).all(|port| read(&mut core, port).is_empty()));
    core.input(ZERO, 0, &frame(mac(1), mac(0), 3, 1518));
    assert_eq!(read(&mut core, 1).len(), 1);
}

#[test]
fn a_broadcast_storm_is_bounded_and_a_port_that_never_reads_delays_nobody() {
    let mut core = core();
    let mut got = 0;
    for number in 0..100_000 {
        core.input(ZERO, 0, &frame(MacAddress::BROADCAST, mac(0), number, 60));
        got += read(&mut core, 2).len();
    }
    assert_eq!(got, 100_000);
    assert_eq!(counts(&core, "n0", "n1").held, QUEUE_FRAMES as u64);
    assert_eq!(dropped(&core, "n0", "n1", DropReason::QueueFull), 100_000 - QUEUE_FRAMES as u64);
    assert!(core.output(1).len() <= QUEUE_BYTES);
    assert_balance(&core);
}

#[test]
fn a_partition_works_one_way_and_covers_whatever_kind_of_frame() {
    let mut core = core();
    core.set_faults(vec![fault(1, 0, Effect::Partition, &[("n0", "n1"), ("n0", "gateway")])])
        .unwrap();
    let mut gateway = frame(GATEWAY_MAC, mac(0), 1, 60);
    for kind in [0x0800u16, 0x0806, 0x86dd, 0x88b5] {
        for to in [mac(1), MacAddress::BROADCAST, MacAddress([0x33, 0x33, 0, 0, 0, 1])] {
            let mut frame = frame(to, mac(0), 1, 60);
            frame[12..14].copy_from_slice(&kind.to_be_bytes());
            core.input(ZERO, 0, &frame);
        }
        gateway[12..14].copy_from_slice(&kind.to_be_bytes());
        core.input(ZERO, 0, &gateway);
    }
    assert!(read(&mut core, 1).is_empty());
    assert_eq!(dropped(&core, "n0", "n1", DropReason::Partition), 12);
    assert!(dropped(&core, "n0", "gateway", DropReason::Partition) >= 4);
    assert_eq!(counts(&core, "n0", "gateway").delivered, 0);
    core.input(ZERO, 1, &frame(mac(0), mac(1), 1, 60));
    assert_eq!(read(&mut core, 0).len(), 1);
    core.set_faults(Vec::new()).unwrap();
    core.input(ZERO, 0, &frame(mac(1), mac(0), 1, 60));
    assert_eq!(read(&mut core, 1).len(), 1);
}

#[test]
fn a_partition_wins_over_what_was_there_before_it() {
    let mut core = core();
    let loss = Impairment { loss: PerMillion(500_000), ..Impairment::default() };
    let faults = vec![impair(1, loss), fault(2, 0, Effect::Partition, &[("n0", "n1")])];
    core.set_faults(faults).unwrap();
    (0..100).for_each(|number| core.input(ZERO, 0, &frame(mac(1), mac(0), number, 60)));
    assert_eq!(dropped(&core, "n0", "n1", DropReason::Partition), 100);
    let counts = core.observe(ZERO).fault_counts.into_iter();
    let counts = counts.map(|counts| (counts.frames, counts.dropped));
    assert_eq!(counts.collect::<Vec<_>>(), [(100, 0), (100, 100)]);
}

#[test]
fn a_partition_also_stops_what_is_under_way() {
    let mut core = core();
    let slow = impair(1, Impairment { latency_us: 50_000, ..Impairment::default() });
    core.set_faults(vec![slow.clone()]).unwrap();
    core.input(ZERO, 0, &frame(mac(1), mac(0), 1, 60));
    core.input(ms(20), 0, &frame(mac(1), mac(0), 2, 60));
    core.set_faults(vec![slow.clone(), fault(2, 0, Effect::Partition, &[("n0", "n1")])]).unwrap();
    core.advance(ms(60));
    assert!(read(&mut core, 1).is_empty());
    assert_eq!(dropped(&core, "n0", "n1", DropReason::Partition), 1);
    assert_balance(&core);
    core.set_faults(vec![slow]).unwrap();
    core.advance(ms(70));
    assert_eq!(read(&mut core, 1).len(), 1);
}

#[test]
fn latency_without_jitter_keeps_the_order_and_is_exact() {
    let mut core = core();
    core.set_faults(vec![impair(1, Impairment { latency_us: 50_000, ..Impairment::default() })])
        .unwrap();
    let mut got = Vec::new();
    for at in 0..200 {
        core.advance(ms(at));
        got.extend(read(&mut core, 1).into_iter().map(|frame| (at, frame)));
        core.input(ms(at), 0, &frame(mac(1), mac(0), at as u32, 60));
        core.input(ms(at), 0, &frame(mac(1), mac(0), at as u32 + 1000, 60));
    }
    assert_eq!(got.len(), 2 * 150);
    for (place, (at, frame)) in got.iter().enumerate() {
        let sent = place as u64 / 2;
        let number = sent as u32 + if place % 2 == 0 { 0 } else { 1000 };
        assert_eq!((*at, &frame[14..18]), (sent + 50, &number.to_be_bytes()[..]));
    }
    assert_eq!(counts(&core, "n0", "n1").delayed, 400);
}

#[test]
fn a_tenth_is_lost_within_the_interval_and_identically_on_replay() {
    let lost = |number, seed| {
        let mut core = core();
        let loss = Impairment { loss: PerMillion(100_000), ..Impairment::default() };
        let one = fault(number, seed, Effect::Impair(loss), &[("n0", "n1")]);
        core.set_faults(vec![one]).unwrap();
        (0..10_000u32)
            .filter(|number| {
                core.input(ZERO, 0, &frame(mac(1), mac(0), *number, 60));
                read(&mut core, 1).is_empty()
            })
            .collect::<Vec<_>>()
    };
    let first = lost(1, 1);
    // 99 % of a binomial distribution with mean 1000 and deviation 30.
    assert!((923..=1077).contains(&first.len()), "{}", first.len());
    assert_eq!(lost(1, 1), first);
    assert_eq!(lost(2, 1), first, "a fault of the same seed, made in another branch");
    assert_ne!(lost(1, 2), first);
}

#[test]
fn a_fault_goes_on_where_it_was_when_others_come_and_go() {
    let loss = impair(1, Impairment { loss: PerMillion(300_000), ..Impairment::default() });
    let other = impair(2, Impairment { latency_us: 1, ..Impairment::default() });
    let run = |disturb: bool| {
        let mut core = core();
        core.set_faults(vec![loss.clone()]).unwrap();
        (0..200u32).for_each(|number| {
            if disturb && number % 50 == 20 {
                core.set_faults(vec![loss.clone(), other.clone()]).unwrap();
            }
            if disturb && number % 50 == 40 {
                core.set_faults(vec![loss.clone()]).unwrap();
            }
            core.input(ms(u64::from(number)), 0, &frame(mac(1), mac(0), number, 60));
        });
        core.advance(ms(1000));
        let mut numbers: Vec<u8> = read(&mut core, 1).into_iter().map(|frame| frame[17]).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_fault_decides_the_same_beside_others() {
    let loss = Impairment { loss: PerMillion(300_000), ..Impairment::default() };
    let survivors = |faults: Vec<Fault>| {
        let mut core = core();
        core.set_faults(faults).unwrap();
        (0..500).for_each(|number| core.input(ZERO, 0, &frame(mac(1), mac(0), number, 60)));
        read(&mut core, 1)
    };
    let alone = survivors(vec![impair(1, loss.clone())]);
    let second = Fault { ordinal: 1, ..impair(2, loss.clone()) };
    let beside = survivors(vec![second, impair(1, loss)]);
    assert!(beside.len() < alone.len());
    assert!(beside.iter().all(|frame| alone.contains(frame)));
}

#[test]
fn faults_end_by_the_wall_clock_and_not_while_held() {
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let mut partition = fault(1, 0, Effect::Partition, &[("n0", "n1")]);
    partition.expires_at = Some(at(100));
    let mut core = core();
    core.set_faults(vec![partition, fault(2, 0, Effect::Partition, &[("n1", "n0")])]).unwrap();
    core.expire(at(99));
    assert_eq!((core.faults().len(), core.next_expiry()), (2, Some(at(100))));
    core.hold();
    core.expire(at(100));
    assert_eq!((core.faults().len(), core.next_expiry()), (2, None));
    core.release();
    core.expire(at(100));
    assert_eq!((core.faults().len(), core.next_expiry()), (1, None));
    core.input(ZERO, 0, &frame(mac(1), mac(0), 1, 60));
    assert_eq!(read(&mut core, 1).len(), 1);
}

#[test]
fn faults_on_what_is_not_there_are_refused_and_change_nothing() {
    let mut core = core();
    let partition = fault(1, 0, Effect::Partition, &[("n0", "n1")]);
    core.set_faults(vec![partition.clone()]).unwrap();
    let error = core.set_faults(vec![fault(2, 0, Effect::Partition, &[("n0", "n9")])]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "apply the fault ft_000000000002 to `n9`, which this network does not have"
    );
    assert_eq!(core.faults(), [partition]);
}

#[test]
fn frames_of_the_outside_go_to_their_node_only() {
    let mut core = core();
    let uplink = core.uplink(&name("n3")).unwrap();
    core.open(uplink);
    let outside = MacAddress([0x52, 0x55, 0x0a, 0, 2, 2]);
    core.input(ZERO, uplink, &frame(mac(4), outside, 1, 60));
    core.input(ZERO, uplink, &frame(mac(0), outside, 2, 60));
    core.input(ZERO, uplink, &frame(MacAddress::BROADCAST, outside, 3, 60));
    let got: Vec<usize> = (0..6).map(|port| read(&mut core, port).len()).collect();
    assert_eq!(got, [0, 0, 0, 2, 1, 0]);
    assert_eq!(counts(&core, "gateway", "n3").delivered, 3);
}

#[test]
fn a_closed_port_loses_its_frames_with_a_reason() {
    let mut core = core();
    core.input(ZERO, 0, &frame(mac(1), mac(0), 1, 60));
    core.close(1);
    core.input(ZERO, 0, &frame(mac(1), mac(0), 2, 60));
    assert_eq!(dropped(&core, "n0", "n1", DropReason::NoReader), 2);
    core.open(1);
    core.input(ZERO, 0, &frame(mac(1), mac(0), 3, 60));
    assert_eq!(read(&mut core, 1).len(), 1);
    assert_balance(&core);
}

#[test]
fn while_held_frames_only_come_in_and_go_on_in_order_at_the_release() {
    let mut core = core();
    core.input(ZERO, 0, &frame(mac(1), mac(0), 1, 60));
    core.hold();
    core.input(ZERO, 2, &frame(mac(1), mac(2), 2, 60));
    core.input(ZERO, 0, &frame(mac(1), mac(0), 3, 60));
    assert!(core.output(1).is_empty());
    core.release();
    while core.forward_held(ZERO) {}
    let numbers: Vec<u8> = read(&mut core, 1).into_iter().map(|frame| frame[17]).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn frames_that_a_machine_has_not_read_are_dropped_in_the_commit_only() {
    let mut core = core();
    core.input(ZERO, 0, &frame(mac(1), mac(0), 1, 60));
    let mut written = Vec::new();
    let count = core.output(1).len();
    core.wrote(1, count, |link, _| written.push(link));
    core.hold();
    let (bytes, _) = core.save(ZERO, &written);
    let (child, _) = Core::restore(spec(), &bytes).unwrap();
    assert_eq!(dropped(&child, "n0", "n1", DropReason::NoReader), 1);
    assert_eq!((counts(&child, "n0", "n1").delivered, counts(&core, "n0", "n1").delivered), (0, 1));
    assert_balance(&child);
}

#[test]
fn a_frame_begun_at_the_cut_reaches_the_branch_whole() {
    let mut core = core();
    let sent = frame(mac(1), mac(0), 1, 60);
    core.input(ZERO, 0, &sent);
    core.wrote(1, 10, |_, _| {});
    core.hold();
    assert_eq!(core.output(1).len(), 54);
    let (bytes, frames) = core.save(ZERO, &[]);
    let (mut child, _) = Core::restore(spec(), &bytes).unwrap();
    child.open(1);
    child.release();
    assert_eq!((frames, read(&mut child, 1)), (1, vec![sent]));
}

#[test]
fn a_state_of_another_network_is_refused() {
    let (bytes, _) = core().save(ZERO, &[]);
    let mut other = spec();
    other.ports.retain(|port| port.node != name("n2"));
    assert!(Core::restore(other, &bytes).is_err());
    assert!(Core::restore(spec(), &bytes).is_ok());
    assert!(Core::restore(spec(), &bytes[..40]).is_err());
}

#[test]
fn networks_that_cannot_be_are_refused() {
    let mut twice = spec();
    twice.ports[1].mac = mac(0);
    assert!(matches!(Core::new(twice), Err(SpecError::Address { .. })));
    let mut group = spec();
    group.ports[1].mac = MacAddress::BROADCAST;
    assert!(matches!(Core::new(group), Err(SpecError::Address { .. })));
    let mut lost = spec();
    lost.ports[1].segment = name("nowhere");
    assert!(matches!(Core::new(lost), Err(SpecError::NoSegment { .. })));
}

#[test]
fn delays_are_bounded_in_bytes() {
    let mut core = core();
    let slow = Impairment { latency_us: u64::MAX, ..Impairment::default() };
    core.set_faults(vec![impair(1, slow)]).unwrap();
    let fit = (LINK_DELAY_BYTES / delay::cost(1518)) as u64;
    for number in 0..fit + 100 {
        core.input(ZERO, 0, &frame(mac(1), mac(0), number as u32, 1518));
    }
    let counts = counts(&core, "n0", "n1");
    assert_eq!((counts.held, counts.dropped[&DropReason::QueueFull]), (fit, 100));
    assert_balance(&core);
}
