//! Holding, draining, settling, saving, releasing, and going on from what was saved.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use pando_machine::{PortNumber, SwitchError, Switches as _};
use pando_model::network::{DropReason, LinkCounts, NetworkSpec};
use pando_switch::UserSwitches;

use crate::support::*;

#[test]
fn what_was_on_its_way_at_a_cut_arrives_once_in_the_parent_and_once_in_each_branch() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("network.state");
    let (mut switch, mut machines) = open(3);
    switch.set_faults(vec![slow(link(0, 2), 200_000)]).unwrap();
    machines[0].send(&frame(0, 1, 1));
    machines[0].send(&frame(0, 2, 2));
    assert_eq!(machines[1].receive_numbers(1), [1]);
    await_counts(&mut *switch, &link(0, 2), |counts| counts.held == 1);

    switch.hold().unwrap();
    switch.hold().unwrap();
    machines[0].send(&frame(0, 1, 3));
    machines[2].send(&frame(2, 1, 4));
    assert_eq!(switch.drain(soon()).unwrap(), []);
    let settled = switch.settle().unwrap();
    assert_eq!((settled.frames, settled.partial), (2, vec![]));
    assert_eq!(switch.settle().unwrap().frames, 0);
    let saved = switch.save(&state).unwrap();
    assert_eq!((saved.frames, saved.faults.len()), (3, 1));
    assert!(machines[1].has_nothing());
    switch.release().unwrap();
    let mut numbers = machines[1].receive_numbers(2);
    numbers.sort_unstable();
    assert_eq!((numbers, machines[2].receive_numbers(1)), (vec![3, 4], vec![2]));

    let spec = NetworkSpec { faults: saved.faults, ..spec(3) };
    for _ in 0..2 {
        let (mut branch, mut machines) = restore(&spec, Some(&state));
        assert_eq!(counts(&mut *branch, &link(0, 2)).held, 1);
        assert!(machines[1].has_nothing());
        branch.release().unwrap();
        let mut numbers = machines[1].receive_numbers(2);
        numbers.sort_unstable();
        assert_eq!((numbers, machines[2].receive_numbers(1)), (vec![3, 4], vec![2]));
        await_counts(&mut *branch, &link(0, 2), |counts| counts.delivered == 1);
        assert_eq!(branch.observe().unwrap().fault_counts[0].frames, 1);
    }
}

#[test]
fn a_stream_has_no_gap_and_no_duplicate_over_many_cuts_and_in_each_branch() {
    const CUTS: u32 = 15;
    const BETWEEN: u32 = 1000;
    let directory = tempfile::tempdir().unwrap();
    let (mut switch, machines) = open(2);
    let received = read_on(&machines[1]);
    for cut in 0..CUTS {
        let numbers = cut * BETWEEN..(cut + 1) * BETWEEN;
        let burst: Vec<u8> =
            numbers.flat_map(|number| framed(&frame_of(0, 1, number, 700))).collect();
        let mut sender = machines[0].0.try_clone().unwrap();
        let sending = std::thread::spawn(move || sender.write_all(&burst).unwrap());
        let sent = |counts: &LinkCounts| counts.sent > u64::from(cut * BETWEEN + cut * 60);
        await_counts(&mut *switch, &link(0, 1), sent);
        switch.hold().unwrap();
        // Only now does the machine that sends stand still.
        sending.join().unwrap();
        assert_eq!(switch.drain(soon()).unwrap(), []);
        assert_eq!(switch.settle().unwrap().partial, []);
        let state = directory.path().join(cut.to_string());
        let on_their_way = switch.save(&state).unwrap().frames;
        let delivered = counts(&mut *switch, &link(0, 1)).delivered;
        assert_eq!(delivered + on_their_way, u64::from((cut + 1) * BETWEEN));
        switch.release().unwrap();

        let (mut branch, machines) = restore(&spec(2), Some(&state));
        let in_branch = read_on(&machines[1]);
        branch.release().unwrap();
        let rest = u32::try_from(delivered).unwrap()..(cut + 1) * BETWEEN;
        assert_eq!(take(&in_branch, on_their_way), rest.collect::<Vec<_>>(), "cut {cut}");
        drop(branch);
        assert!(in_branch.recv().is_err(), "nothing more comes");
    }
    let all = take(&received, u64::from(CUTS * BETWEEN));
    assert!(all.into_iter().eq(0..CUTS * BETWEEN));
    drop(switch);
    assert!(received.recv().is_err(), "nothing more comes");
}

#[test]
fn a_machine_that_never_reads_blocks_no_cut_and_no_other_machine() {
    const FLOOD: u32 = 6000;
    let directory = tempfile::tempdir().unwrap();
    let (mut switch, mut machines) = open(3);
    let flood: Vec<u8> =
        (0..FLOOD).flat_map(|number| framed(&frame_of(0, 1, number, 1514))).collect();
    machines[0].send(&frame(0, 2, 1));
    machines[0].0.write_all(&flood).unwrap();
    machines[0].send(&frame(0, 2, 2));
    assert_eq!(machines[2].receive_numbers(2), [1, 2]);
    switch.hold().unwrap();
    let begun = Instant::now();
    let stalled = switch.drain(begun + Duration::from_millis(20)).unwrap();
    assert_eq!(stalled, [PortNumber(1)]);
    // A machine that reads on when it is stopped finds no more than was there.
    let mut found = machines[1].read_all_there_is();
    assert_eq!(switch.settle().unwrap().frames, 0);
    assert!(machines[1].has_nothing());
    assert!(begun.elapsed() >= Duration::from_millis(20));
    assert_eq!(switch.settle().unwrap().partial, []);
    let state = directory.path().join("state");
    switch.save(&state).unwrap();
    let before = counts(&mut *switch, &link(0, 1));
    assert!(before.dropped[&DropReason::QueueFull] > 0);
    assert!(before.held > 0 && before.delivered > 0);

    let (mut branch, mut branch_machines) = restore(&spec(3), Some(&state));
    let after = counts(&mut *branch, &link(0, 1));
    let unread = after.dropped[&DropReason::NoReader];
    assert!(unread > 0);
    assert_eq!((after.delivered, after.held), (before.delivered - unread, before.held));
    branch.release().unwrap();
    let first = branch_machines[1].receive_numbers(1)[0];
    assert_eq!(u64::from(first), before.delivered);

    switch.release().unwrap();
    let wanted = (usize::try_from(before.delivered).unwrap() + 1) * (4 + 1514);
    let there = found.len();
    found.resize(wanted, 0);
    machines[1].0.read_exact(&mut found[there..]).unwrap();
    let numbers = found.chunks(4 + 1514).map(|framed| number(&framed[4..]));
    assert!(numbers.eq(0..=first));
}

#[test]
fn the_rest_of_a_frame_does_not_follow_a_machine_into_its_stop() {
    const FRAMES: u32 = 256;
    const LENGTH: usize = 1511;
    let directory = tempfile::tempdir().unwrap();
    let (mut switch, mut machines) = open(2);
    // Released together, they are one write, of which the socket takes a part.
    switch.hold().unwrap();
    for number in 0..FRAMES {
        machines[0].send(&frame_of(0, 1, number, LENGTH));
    }
    assert_eq!(switch.settle().unwrap().frames, u64::from(FRAMES));
    switch.release().unwrap();
    switch.hold().unwrap();
    assert_eq!(switch.drain(Instant::now()).unwrap(), [PortNumber(1)]);
    let mut found = machines[1].read_all_there_is();
    assert!(!found.len().is_multiple_of(4 + LENGTH), "a frame was begun");
    for _ in 0..10 {
        assert_eq!(switch.settle().unwrap().frames, 0);
    }
    assert!(machines[1].has_nothing());
    let state = directory.path().join("state");
    let saved = switch.save(&state).unwrap().frames;
    switch.release().unwrap();
    let there = found.len();
    found.resize(FRAMES as usize * (4 + LENGTH), 0);
    machines[1].0.read_exact(&mut found[there..]).unwrap();
    let numbers = found.chunks(4 + LENGTH).map(|framed| number(&framed[4..]));
    assert!(numbers.eq(0..FRAMES));

    let (mut branch, mut machines) = restore(&spec(2), Some(&state));
    branch.release().unwrap();
    let begun = u32::try_from(there / (4 + LENGTH)).unwrap();
    assert_eq!(saved, u64::from(FRAMES - begun));
    let numbers = machines[1].receive_numbers(usize::try_from(saved).unwrap());
    assert!(numbers.into_iter().eq(begun..FRAMES));
}

#[test]
fn a_drain_waits_for_a_machine_that_reads() {
    let (mut switch, mut machines) = open(2);
    machines[0].send(&frame(0, 1, 1));
    await_counts(&mut *switch, &link(0, 1), |counts| counts.delivered == 1);
    switch.hold().unwrap();
    assert_eq!(switch.drain(Instant::now()).unwrap(), [PortNumber(1)]);
    let mut machine = machines.remove(1);
    let reading = std::thread::spawn(move || machine.receive_numbers(1));
    assert_eq!(switch.drain(soon()).unwrap(), []);
    assert_eq!(reading.join().unwrap(), [1]);
}

#[test]
fn half_a_frame_is_told_of_and_goes_on_later() {
    let (mut switch, mut machines) = open(2);
    let bytes = framed(&frame(0, 1, 1));
    switch.hold().unwrap();
    machines[0].0.write_all(&bytes[..30]).unwrap();
    assert_eq!(switch.settle().unwrap().partial, [PortNumber(0)]);
    switch.release().unwrap();
    machines[0].0.write_all(&bytes[30..]).unwrap();
    assert_eq!(machines[1].receive_numbers(1), [1]);
    switch.hold().unwrap();
    assert_eq!(switch.settle().unwrap().partial, []);
}

#[test]
fn more_than_there_is_room_for_while_held_gives_the_cut_up_and_loses_nothing() {
    const FRAMES: u32 = 60_000;
    let (mut switch, machines) = open(2);
    let received = read_on(&machines[1]);
    switch.hold().unwrap();
    let mut sender = machines[0].0.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..FRAMES {
            sender.write_all(&framed(&frame_of(0, 1, number, 1514))).unwrap();
        }
    });
    let deadline = soon();
    let error = loop {
        if let Err(error) = switch.drain(Instant::now()) {
            break error;
        }
        assert!(Instant::now() < deadline);
    };
    assert!(matches!(error, SwitchError::Misused(_)));
    assert!(switch.settle().is_err());
    switch.release().unwrap();
    sending.join().unwrap();
    await_counts(&mut *switch, &link(0, 1), |counts| {
        counts.sent == u64::from(FRAMES) && counts.held == 0
    });
    let counts = counts(&mut *switch, &link(0, 1));
    let lost = counts.dropped.get(&DropReason::QueueFull).copied().unwrap_or(0);
    assert_eq!(take(&received, counts.delivered).len() as u64 + lost, u64::from(FRAMES));
}

#[test]
fn states_that_are_none_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let refused = |path: &Path| UserSwitches.open(&spec(2), Some(path)).err().unwrap();
    assert!(matches!(refused(&missing), SwitchError::File { .. }));
    let odd = directory.path().join("odd");
    std::fs::write(&odd, b"pando-n1 and nothing else").unwrap();
    let error = refused(&odd);
    assert!(matches!(&error, SwitchError::Damaged { .. }), "{error}");
    let (mut switch, _machines) = open(2);
    let error = switch.save(&odd).unwrap_err();
    assert_eq!(error.to_string(), "the switch cannot be saved while it forwards");
    switch.hold().unwrap();
    assert!(matches!(switch.save(directory.path()), Err(SwitchError::File { .. })));
    switch.save(&odd).unwrap();
    assert!(UserSwitches.open(&spec(2), Some(&odd)).is_ok());
}
