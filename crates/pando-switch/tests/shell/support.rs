//! A switch with the machines' ends of its ports in the test's hands.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pando_machine::{Switch, Switches as _};
use pando_model::Name;
use pando_model::cluster::Uplink;
use pando_model::fault::{Effect, Fault, Impairment};
use pando_model::network::{End, Link, LinkCounts, MacAddress, NetworkSpec, Port, Segment};
use pando_switch::UserSwitches;

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn mac(port: usize) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, u8::try_from(port).unwrap()])
}

/// Nodes `n0` … on one segment.
pub fn spec(nodes: usize) -> NetworkSpec {
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
            bridge: None,
        }],
        ports: (0..nodes).map(port).collect(),
        faults: Vec::new(),
        restore: None,
    }
}

/// A switch that forwards, and its machines.
pub fn open(nodes: usize) -> (Box<dyn Switch>, Vec<Machine>) {
    let (mut switch, machines) = restore(&spec(nodes), None);
    switch.release().unwrap();
    (switch, machines)
}

pub fn restore(spec: &NetworkSpec, state: Option<&Path>) -> (Box<dyn Switch>, Vec<Machine>) {
    let (switch, ends) = UserSwitches.open(spec, state).unwrap();
    (switch, ends.into_iter().map(Machine::new).collect())
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A machine's end of a port. All waits end after twenty seconds.
pub struct Machine(pub UnixStream);

impl Machine {
    pub fn new(end: impl Into<OwnedFd>) -> Self {
        let stream = UnixStream::from(end.into());
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, frame: &[u8]) {
        self.0.write_all(&framed(frame)).unwrap();
    }

    pub fn receive(&mut self) -> Vec<u8> {
        let mut prefix = [0; 4];
        self.0.read_exact(&mut prefix).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    /// The numbers of the next frames.
    pub fn receive_numbers(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| number(&self.receive())).collect()
    }

    pub fn read_all_there_is(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.set_nonblocking(true).unwrap();
        let error = (&self.0).read_to_end(&mut bytes).unwrap_err();
        self.0.set_nonblocking(false).unwrap();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        bytes
    }

    pub fn has_nothing(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let read = (&self.0).read(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    pub fn is_over(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

pub fn framed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat()
}

pub fn frame(from: usize, to: usize, number: u32) -> Vec<u8> {
    frame_of(from, to, number, 60)
}

pub fn frame_of(from: usize, to: usize, number: u32, length: usize) -> Vec<u8> {
    let mut frame =
        [&mac(to).0[..], &mac(from).0[..], &[0x88, 0xb5][..], &number.to_be_bytes()[..]].concat();
    frame.resize(length, 0);
    frame
}

pub fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

pub fn link(from: usize, to: usize) -> Link {
    let end = |node| End::Node(name(&format!("n{node}")));
    Link { from: end(from), to: end(to) }
}

pub fn counts(switch: &mut dyn Switch, link: &Link) -> LinkCounts {
    let links = switch.observe().unwrap().links;
    for (link, counts) in &links {
        let sum = counts.delivered + counts.held + counts.dropped.values().sum::<u64>();
        assert_eq!(counts.sent, sum, "{link:?}: {counts:?}");
    }
    links.into_iter().find(|(at, _)| at == link).map(|(_, counts)| counts).unwrap_or_default()
}

/// Asks until a link's counts are as they should be.
pub fn await_counts(switch: &mut dyn Switch, at: &Link, is_it: impl Fn(&LinkCounts) -> bool) {
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

pub fn slow(link: Link, latency_us: u64) -> Fault {
    Fault {
        id: "ft_000000000001".parse().unwrap(),
        label: None,
        effect: Effect::Impair(Impairment { latency_us, ..Impairment::default() }),
        links: vec![link],
        segment: None,
        seed: 1,
        ordinal: 0,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
    }
}

/// Reads what a machine is sent, as QEMU does, and passes the numbers on.
pub fn read_on(machine: &Machine) -> Receiver<u32> {
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

pub fn take(numbers: &Receiver<u32>, count: u64) -> Vec<u32> {
    (0..count).map(|_| numbers.recv_timeout(Duration::from_secs(20)).unwrap()).collect()
}
