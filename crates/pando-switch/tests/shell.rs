//! The switch as a keeper uses it: over real sockets, with the machines' ends in the test's hands.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in a helper")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pando_machine::{CaptureLimits, PortNumber, Switch, SwitchError, Switches as _};
use pando_model::Name;
use pando_model::cluster::Uplink;
use pando_model::fault::{Effect, Fault, Impairment};
use pando_model::network::{
    DropReason, End, GATEWAY_MAC, Link, LinkCounts, MacAddress, NetworkSpec, Port, Segment,
};
use pando_switch::UserSwitches;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn mac(port: usize) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, u8::try_from(port).unwrap()])
}

/// Nodes `n0` … on one segment.
fn spec(nodes: usize) -> NetworkSpec {
    let port = |number: usize| Port {
        node: name(&format!("n{number}")),
        nic: 0,
        segment: name("lan"),
        mac: mac(number),
        address: None,
        address6: None,
    };
    NetworkSpec {
        domain: "shop".to_owned(),
        segments: vec![Segment {
            name: name("lan"),
            subnet: [10, 0, 2, 0].into(),
            prefix_bits: 24,
            gateway: [10, 0, 2, 2].into(),
            gateway6: None,
            uplink: Uplink::Nat,
        }],
        ports: (0..nodes).map(port).collect(),
        faults: Vec::new(),
        restore: None,
    }
}

/// A switch that forwards, and its machines.
fn open(nodes: usize) -> (Box<dyn Switch>, Vec<Machine>) {
    let (mut switch, machines) = restore(&spec(nodes), None);
    switch.release().unwrap();
    (switch, machines)
}

fn restore(spec: &NetworkSpec, state: Option<&Path>) -> (Box<dyn Switch>, Vec<Machine>) {
    let (switch, ends) = UserSwitches.open(spec, state).unwrap();
    (switch, ends.into_iter().map(Machine::new).collect())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A machine's end of a port. All waits end after twenty seconds.
struct Machine(UnixStream);

impl Machine {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    fn send(&mut self, frame: &[u8]) {
        self.0.write_all(&framed(frame)).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut prefix = [0; 4];
        self.0.read_exact(&mut prefix).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    /// The numbers of the next frames.
    fn receive_numbers(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| number(&self.receive())).collect()
    }

    fn read_all_there_is(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.set_nonblocking(true).unwrap();
        let error = (&self.0).read_to_end(&mut bytes).unwrap_err();
        self.0.set_nonblocking(false).unwrap();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        bytes
    }

    fn has_nothing(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let read = (&self.0).read(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    fn is_over(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat()
}

fn frame(from: usize, to: usize, number: u32) -> Vec<u8> {
    frame_of(from, to, number, 60)
}

fn frame_of(from: usize, to: usize, number: u32, length: usize) -> Vec<u8> {
    let mut frame =
        [&mac(to).0[..], &mac(from).0[..], &[0x88, 0xb5][..], &number.to_be_bytes()[..]].concat();
    frame.resize(length, 0);
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

fn link(from: usize, to: usize) -> Link {
    let end = |node| End::Node(name(&format!("n{node}")));
    Link { from: end(from), to: end(to) }
}

fn counts(switch: &mut dyn Switch, link: &Link) -> LinkCounts {
    let links = switch.observe().unwrap().links;
    for (link, counts) in &links {
        let sum = counts.delivered + counts.held + counts.dropped.values().sum::<u64>();
        assert_eq!(counts.sent, sum, "{link:?}: {counts:?}");
    }
    links.into_iter().find(|(at, _)| at == link).map(|(_, counts)| counts).unwrap_or_default()
}

/// Asks until a link's counts are as they should be.
fn await_counts(switch: &mut dyn Switch, at: &Link, is_it: impl Fn(&LinkCounts) -> bool) {
    let deadline = soon();
    loop {
        let counts = counts(switch, at);
        if is_it(&counts) {
            return;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
        std::thread::yield_now();
    }
}

fn slow(link: Link, latency_us: u64) -> Fault {
    Fault {
        id: "ft_000000000001".parse().unwrap(),
        label: None,
        effect: Effect::Impair(Impairment { latency_us, ..Impairment::default() }),
        links: vec![link],
        seed: 1,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
    }
}

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

/// Reads what a machine is sent, as QEMU does, and passes the numbers on.
fn read_on(machine: &Machine) -> Receiver<u32> {
    let (numbers, received) = channel();
    let mut machine = Machine(machine.0.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut prefix = [0; 4];
        while machine.0.read_exact(&mut prefix).is_ok() {
            let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
            machine.0.read_exact(&mut frame).unwrap();
            if numbers.send(number(&frame)).is_err() {
                return;
            }
        }
    });
    received
}

fn take(numbers: &Receiver<u32>, count: u64) -> Vec<u32> {
    (0..count).map(|_| numbers.recv_timeout(Duration::from_secs(20)).unwrap()).collect()
}

#[test]
fn a_stream_has_no_gap_and_no_duplicate_over_many_cuts_and_in_each_branch() {
    const CUTS: u32 = 20;
    const BETWEEN: u32 = 2000;
    let directory = tempfile::tempdir().unwrap();
    let (mut switch, machines) = open(2);
    let received = read_on(&machines[1]);
    for cut in 0..CUTS {
        let numbers = cut * BETWEEN..(cut + 1) * BETWEEN;
        let burst: Vec<u8> =
            numbers.flat_map(|number| framed(&frame_of(0, 1, number, 700))).collect();
        let mut sender = machines[0].0.try_clone().unwrap();
        let sending = std::thread::spawn(move || sender.write_all(&burst).unwrap());
        let sent = |counts: &LinkCounts| counts.sent > u64::from(cut * BETWEEN + cut * 97);
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
    const FLOOD: u32 = 20_000;
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

#[test]
fn faults_on_nodes_that_are_not_there_are_refused() {
    let (mut switch, _machines) = open(2);
    let error = switch.set_faults(vec![slow(link(0, 7), 5)]).unwrap_err();
    assert!(error.to_string().contains("`n7`"), "{error}");
    assert!(switch.observe().unwrap().faults.is_empty());
}
