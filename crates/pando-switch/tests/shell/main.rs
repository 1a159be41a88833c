//! The switch as a keeper uses it: over real sockets, with the machines' ends in the test's hands.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in a helper")]

mod cuts;
mod storm;
mod support;

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pando_machine::{CaptureLimits, PortNumber, SwitchError};
use pando_model::fault::Effect;
use pando_model::network::{DropReason, End, GATEWAY_MAC, Link, LinkCounts};

use crate::support::*;

#[test]
fn machines_reach_each_other() {
    let (mut switch, mut machines) = open(3);
    machines[0].send(&frame(0, 1, 7));
    assert_eq!(machines[1].receive(), frame(0, 1, 7));
    machines[1].send(&frame_of(1, 0, 8, 1514));
    assert_eq!(machines[0].receive(), frame_of(1, 0, 8, 1514));
    assert!(machines[2].has_nothing());
    await_counts(&mut *switch, &link(0, 1), |counts| counts.delivered == 1);
}

#[test]
fn a_switch_that_is_dropped_ends_and_its_machines_see_it() {
    let (switch, mut machines) = open(2);
    drop(switch);
    assert!(machines.iter_mut().all(Machine::is_over));
}

#[test]
fn what_is_no_stream_of_frames_ends_its_own_port_only() {
    let (mut switch, mut machines) = open(3);
    machines[0].send(&frame(0, 1, 1));
    machines[0].0.write_all(&[0xff; 3]).unwrap();
    switch.hold().unwrap();
    assert_eq!(switch.settle().unwrap().partial, [PortNumber(0)]);
    switch.release().unwrap();
    machines[0].0.write_all(&[0xff; 5]).unwrap();
    assert!(machines[0].is_over());
    machines[1].send(&frame(1, 0, 2));
    machines[1].send(&frame(1, 2, 3));
    assert_eq!(machines[2].receive_numbers(1), [3]);
    let dropped = counts(&mut *switch, &link(1, 0)).dropped;
    assert_eq!(dropped[&DropReason::NoReader], 1);
    let malformed = Link { from: End::Node(name("n0")), to: End::Gateway };
    assert_eq!(counts(&mut *switch, &malformed).dropped[&DropReason::Malformed], 1);
    assert_eq!(machines[1].receive_numbers(1), [1]);
}

#[test]
fn truncated_and_oversized_frames_are_dropped_and_the_stream_goes_on() {
    let (mut switch, mut machines) = open(2);
    machines[0].send(&[]);
    machines[0].send(&[1; 13]);
    machines[0].send(&frame_of(0, 1, 1, 9014));
    machines[0].send(&frame_of(0, 1, 2, 65_000));
    machines[0].send(&frame(0, 1, 3));
    assert_eq!(machines[1].receive_numbers(1), [3]);
    let malformed = Link { from: End::Node(name("n0")), to: End::Gateway };
    assert_eq!(counts(&mut *switch, &malformed).dropped[&DropReason::Malformed], 4);
}

#[test]
fn a_machine_that_is_gone_gets_new_ports_for_its_next_one() {
    let (mut switch, mut machines) = open(2);
    drop(machines.remove(1));
    machines[0].send(&frame(0, 1, 1));
    let lost = |counts: &LinkCounts| counts.dropped.contains_key(&DropReason::NoReader);
    await_counts(&mut *switch, &link(0, 1), lost);
    let mut ends = switch.replug(&name("n1")).unwrap();
    let mut machine = Machine::new(ends.remove(0));
    machines[0].send(&frame(0, 1, 2));
    assert_eq!(machine.receive_numbers(1), [2]);
    assert!(matches!(switch.replug(&name("n9")), Err(SwitchError::Misused(_))));
    // One that is not gone yet loses its port to the next.
    switch.replug(&name("n1")).unwrap();
    assert!(machine.is_over());
}

#[test]
fn a_latency_is_never_too_short_and_does_not_run_while_held() {
    let (mut switch, mut machines) = open(2);
    switch.set_faults(vec![slow(link(0, 1), 20_000)]).unwrap();
    for number in 0..20 {
        let sent = Instant::now();
        machines[0].send(&frame(0, 1, number));
        assert_eq!(machines[1].receive_numbers(1), [number]);
        assert!(sent.elapsed() >= Duration::from_millis(20));
    }
    machines[0].send(&frame(0, 1, 99));
    await_counts(&mut *switch, &link(0, 1), |counts| counts.held == 1);
    switch.hold().unwrap();
    assert_eq!(switch.drain(Instant::now() + Duration::from_millis(60)).unwrap(), []);
    let until = Instant::now() + Duration::from_millis(40);
    while Instant::now() < until {
        assert_eq!(counts(&mut *switch, &link(0, 1)).held, 1);
    }
    switch.release().unwrap();
    assert_eq!(machines[1].receive_numbers(1), [99]);
}

#[test]
fn a_fault_that_expires_ends_by_itself() {
    let (mut switch, mut machines) = open(2);
    let mut partition = slow(link(0, 1), 0);
    partition.effect = Effect::Partition;
    partition.expires_at = Some(Timestamp::now() + Duration::from_millis(200));
    switch.set_faults(vec![partition]).unwrap();
    machines[0].send(&frame(0, 1, 1));
    await_counts(&mut *switch, &link(0, 1), |counts| {
        counts.dropped.contains_key(&DropReason::Partition)
    });
    let deadline = soon();
    while !switch.observe().unwrap().faults.is_empty() {
        assert!(Instant::now() < deadline);
    }
    machines[0].send(&frame(0, 1, 2));
    assert_eq!(machines[1].receive_numbers(1), [2]);
}

#[test]
fn the_outside_reaches_its_node_and_waits_while_held() {
    let (mut switch, mut machines) = open(2);
    let (outside, ours) = UnixStream::pair().unwrap();
    let mut outside = Machine::new(outside);
    switch.attach_uplink(&name("n1"), ours).unwrap();
    let mut inward = frame(0, 1, 5);
    inward[6..12].copy_from_slice(&GATEWAY_MAC.0);
    outside.send(&inward);
    assert_eq!(machines[1].receive_numbers(1), [5]);
    assert!(machines[0].has_nothing());
    switch.hold().unwrap();
    outside.send(&inward);
    assert_eq!(switch.settle().unwrap().frames, 0);
    assert!(machines[1].has_nothing());
    switch.release().unwrap();
    assert_eq!(machines[1].receive_numbers(1), [5]);
    let (_, ours) = UnixStream::pair().unwrap();
    assert!(matches!(switch.attach_uplink(&name("n7"), ours), Err(SwitchError::Misused(_))));
}

#[test]
fn a_capture_has_each_frame_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames.pcap");
    let (mut switch, mut machines) = open(3);
    assert_eq!(switch.end_capture().unwrap(), None);
    let limits = CaptureLimits { frames: 100, bytes: 1 << 20, snap: 64 };
    switch.begin_capture(std::fs::File::create(&path).unwrap(), limits).unwrap();
    let second = std::fs::File::create(directory.path().join("second")).unwrap();
    assert!(matches!(switch.begin_capture(second, limits), Err(SwitchError::Misused(_))));
    for number in 0..150 {
        machines[0].send(&frame_of(0, 1, number, 200));
    }
    machines[1].receive_numbers(150);
    let capture = switch.end_capture().unwrap().unwrap();
    assert_eq!((capture.frames, capture.lost, capture.limited), (100, 0, true));
    let file = std::fs::read(&path).unwrap();
    assert_eq!(file.len() as u64, capture.bytes);
    let (header, records) = file.split_at(24);
    assert_eq!(header[..4], 0xa1b2_3c4du32.to_le_bytes());
    for (place, record) in records.chunks(16 + 64).enumerate() {
        assert_eq!(record[12..16], 200u32.to_le_bytes());
        assert_eq!(number(&record[16..]), u32::try_from(place).unwrap());
    }
}

#[test]
fn a_capture_is_read_while_it_grows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames.pcap");
    let (mut switch, mut machines) = open(2);
    let limits = CaptureLimits { frames: 100, bytes: 1 << 20, snap: 64 };
    switch.begin_capture(std::fs::File::create(&path).unwrap(), limits).unwrap();
    for count in 1..=3u32 {
        machines[0].send(&frame_of(0, 1, count, 200));
        machines[1].receive_numbers(1);
        let has = || std::fs::metadata(&path).unwrap().len() == u64::from(24 + count * (16 + 64));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !has() {
            assert!(Instant::now() < deadline, "frame {count} is not in the file");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(switch.end_capture().unwrap().unwrap().frames, 3);
}

#[test]
fn a_capture_on_a_slow_disk_loses_records_and_no_frames() {
    const FRAMES: u32 = 10_000;
    let (mut switch, mut machines) = open(2);
    let received = read_on(&machines[1]);
    // A pipe that nobody reads yet.
    let (mut disk, end) = std::io::pipe().unwrap();
    let limits = CaptureLimits { frames: u64::MAX, bytes: u64::MAX, snap: 65_535 };
    switch.begin_capture(OwnedFd::from(end).into(), limits).unwrap();
    for number in 0..FRAMES {
        machines[0].send(&frame_of(0, 1, number, 1514));
    }
    let received = take(&received, u64::from(FRAMES));
    assert!(received.into_iter().eq(0..FRAMES));
    let reading = std::thread::spawn(move || {
        let mut file = Vec::new();
        disk.read_to_end(&mut file).unwrap();
        file
    });
    let capture = switch.end_capture().unwrap().unwrap();
    assert!(capture.lost > 0 && capture.frames > 0);
    assert_eq!(capture.frames + capture.lost, u64::from(FRAMES));
    assert_eq!(reading.join().unwrap().len() as u64, capture.bytes);
}

#[test]
fn faults_on_nodes_that_are_not_there_are_refused() {
    let (mut switch, _machines) = open(2);
    let error = switch.set_faults(vec![slow(link(0, 7), 5)]).unwrap_err();
    assert!(error.to_string().contains("`n7`"), "{error}");
    assert!(switch.observe().unwrap().faults.is_empty());
}
