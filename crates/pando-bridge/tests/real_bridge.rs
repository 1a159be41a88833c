//! Bridges in the kernel, with this program at the taps in place of machines.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pando_bridge::{KernelSwitches, probe};
use pando_machine::{Switch, SwitchError, Switches as _};
use pando_model::fault::{Effect, Fault, Impairment};
use pando_model::network::{
    DropReason, End, Link, LinkCounts, MacAddress, NetworkSpec, Port, Segment,
};
use pando_model::{FaultId, Name, Uplink};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const NODES: [&str; 3] = ["a", "b", "c"];
/// How long is waited for a frame that must not come.
const NOTHING: Duration = Duration::from_millis(100);
/// How long is waited for one that must.
const SOON: Duration = Duration::from_secs(10);

/// Returns whether this kernel can, and says so if it cannot.
fn can() -> bool {
    let lacks = probe().lacks;
    for lack in &lacks {
        eprintln!("SKIPPED: {} ({})", lack.what, lack.remedy);
    }
    lacks.is_empty()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn spec(faults: Vec<Fault>) -> NetworkSpec {
    let port = |number: u8| Port {
        node: name(NODES[usize::from(number)]),
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
            subnet: Ipv4Addr::new(10, 20, 0, 0),
            prefix_bits: 24,
            gateway: Ipv4Addr::new(10, 20, 0, 1),
            gateway6: None,
            uplink: Uplink::None,
            bridge: Some("br-test".parse().unwrap()),
        }],
        ports: (0..3).map(port).collect(),
        faults,
        restore: None,
    }
}

fn mac(number: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, number])
}

fn fault(effect: Effect, from: usize, to: usize) -> Fault {
    let end = |node: usize| End::Node(name(NODES[node]));
    Fault {
        id: FaultId::random(),
        label: None,
        effect,
        links: vec![Link { from: end(from), to: end(to) }],
        segment: None,
        seed: 1,
        ordinal: 0,
        created_at: Timestamp::now(),
        expires_at: None,
    }
}

/// A frame of a kind that nothing in the kernel speaks.
fn frame(from: u8, to: MacAddress, length: usize) -> Vec<u8> {
    let mut frame = [to.0, mac(from).0].concat();
    frame.extend([0x88, 0xb5]);
    frame.resize(length, from);
    frame
}

struct Lab {
    switch: Box<dyn Switch>,
    taps: Vec<File>,
}

impl Lab {
    fn open(spec: &NetworkSpec, state: Option<&std::path::Path>) -> Self {
        let (switch, ends) = KernelSwitches.open(spec, state).unwrap();
        let mut lab = Self { switch, taps: ends.into_iter().map(File::from).collect() };
        lab.switch.release().unwrap();
        lab
    }

    fn send(&mut self, from: u8, to: u8) {
        self.taps[usize::from(from)].write_all(&frame(from, mac(to), 60)).unwrap();
    }

    /// Returns whether a frame of a node comes in at another one within a time.
    fn hears(&mut self, at: u8, from: u8, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while let Some(frame) = self.receive(at, deadline) {
            if frame.get(6..12) == Some(&mac(from).0[..]) {
                return true;
            }
        }
        false
    }

    fn receive(&mut self, at: u8, deadline: Instant) -> Option<Vec<u8>> {
        let tap = &mut self.taps[usize::from(at)];
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap();
        if poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&left)).unwrap() == 0 {
            return None;
        }
        let mut frame = vec![0; 2048];
        let length = tap.read(&mut frame).unwrap();
        frame.truncate(length);
        Some(frame)
    }

    fn passes(&mut self, from: u8, to: u8) -> bool {
        self.send(from, to);
        self.hears(to, from, SOON)
    }

    fn is_lost(&mut self, from: u8, to: u8) -> bool {
        self.send(from, to);
        !self.hears(to, from, NOTHING)
    }

    fn counts(&mut self, from: usize, to: usize) -> LinkCounts {
        let end = |node: usize| End::Node(name(NODES[node]));
        let link = Link { from: end(from), to: end(to) };
        let links = self.switch.observe().unwrap().links;
        links.into_iter().find(|(one, _)| *one == link).map(|(_, counts)| counts).unwrap()
    }
}

/// Returns what this program's own namespace has: devices and tables.
fn world() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    said("/usr/sbin/ip", &["-o", "link", "show"]) + &said("/usr/sbin/nft", &["list", "tables"])
}

#[test]
fn a_partition_works_in_the_direction_that_is_asked_for_and_is_counted() {
    if !can() {
        return;
    }
    let mut lab = Lab::open(&spec(Vec::new()), None);
    assert!(lab.passes(0, 1) && lab.passes(1, 0));
    let one_way = fault(Effect::Partition, 0, 1);
    lab.switch.set_faults(vec![one_way.clone()]).unwrap();
    assert!(lab.is_lost(0, 1) && lab.passes(1, 0));
    // Whoever else is there hears what is for everybody; the partitioned one does not.
    lab.taps[0].write_all(&frame(0, MacAddress::BROADCAST, 60)).unwrap();
    assert!(lab.hears(2, 0, SOON) && !lab.hears(1, 0, NOTHING));
    let counts = lab.counts(0, 1);
    assert_eq!((counts.sent, counts.delivered), (3, 1));
    assert_eq!(counts.dropped[&DropReason::Partition], 2);
    let observed = lab.switch.observe().unwrap();
    let [met] = &observed.fault_counts[..] else { panic!("{observed:?}") };
    assert_eq!((met.fault == one_way.id, met.frames, met.dropped), (true, 2, 2));
    lab.switch.set_faults(Vec::new()).unwrap();
    assert!(lab.passes(0, 1));
    assert!(lab.switch.observe().unwrap().faults.is_empty());
}

#[test]
fn a_fault_of_one_segment_leaves_the_other_alone() {
    if !can() {
        return;
    }
    let mut spec = spec(Vec::new());
    let bridge = Some("br-other".parse().unwrap());
    spec.segments.push(Segment { name: name("dmz"), bridge, ..spec.segments[0].clone() });
    for number in 3..5 {
        let port = spec.ports[usize::from(number) - 3].clone();
        spec.ports.push(Port { nic: 1, segment: name("dmz"), mac: mac(number), ..port });
    }
    let mut lab = Lab::open(&spec, None);
    assert!(lab.passes(0, 1) && lab.passes(3, 4));
    let cut = Fault { segment: Some(name("dmz")), ..fault(Effect::Partition, 0, 1) };
    lab.switch.set_faults(vec![cut]).unwrap();
    assert!(lab.is_lost(3, 4) && lab.passes(0, 1));
    let observed = lab.switch.observe().unwrap();
    let [met] = &observed.fault_counts[..] else { panic!("{observed:?}") };
    assert_eq!((met.frames, met.dropped), (1, 1));
}

#[test]
fn a_fault_ends_by_itself() {
    if !can() {
        return;
    }
    let mut lab = Lab::open(&spec(Vec::new()), None);
    let mut short = fault(Effect::Partition, 0, 1);
    short.expires_at = Some(Timestamp::now() + Duration::from_millis(600));
    lab.switch.set_faults(vec![short]).unwrap();
    assert!(lab.is_lost(0, 1));
    let deadline = Instant::now() + SOON;
    while !lab.switch.observe().unwrap().faults.is_empty() {
        assert!(Instant::now() < deadline, "the fault stays");
    }
    assert!(lab.passes(0, 1));
}

#[test]
fn a_rate_limits_its_own_link_only() {
    if !can() {
        return;
    }
    if let Some(lack) = probe().no_rate {
        return eprintln!("SKIPPED: {} ({})", lack.what, lack.remedy);
    }
    const RATE_BPS: u64 = 4_000_000;
    const LENGTH: usize = 1250;
    const FRAMES: u64 = 200;
    let rate = Impairment { rate_bps: Some(RATE_BPS), ..Impairment::default() };
    let mut lab = Lab::open(&spec(Vec::new()), None);
    // What is for a node that the bridge has not heard goes to all.
    assert!(lab.passes(1, 0) && lab.passes(2, 0) && lab.hears(1, 2, SOON));
    lab.switch.set_faults(vec![fault(Effect::Impair(rate), 0, 1)]).unwrap();
    let began = Instant::now();
    for _ in 0..FRAMES {
        lab.taps[0].write_all(&frame(0, mac(1), LENGTH)).unwrap();
        // Another link to the same node is as fast as ever.
        lab.taps[2].write_all(&frame(2, mac(1), 60)).unwrap();
    }
    let (mut limited, mut others, mut last) = (0, 0, began);
    while let Some(frame) = lab.receive(1, Instant::now() + Duration::from_secs(1)) {
        match frame[11] {
            0 => (limited, last) = (limited + 1, Instant::now()),
            2 => others += 1,
            _ => {}
        }
    }
    let counts = lab.counts(0, 1);
    let dropped = counts.dropped.get(&DropReason::RateLimit).copied().unwrap_or(0);
    assert_eq!(limited + dropped, FRAMES, "{counts:?}");
    assert!(dropped > 0, "the queue holds a fifth of a second: {counts:?}");
    assert_eq!((counts.sent, counts.delivered, others), (FRAMES, limited, FRAMES));
    #[expect(clippy::cast_precision_loss, reason = "a few hundred frames")]
    let measured = (limited - 1) as f64 * (LENGTH * 8) as f64 / (last - began).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a few megabits")]
    let ratio = measured / RATE_BPS as f64;
    eprintln!("{measured:.0} bit/s of {RATE_BPS}: {ratio:.3}");
    // A burst passes at once at the beginning; a busy host is late at the end.
    assert!((0.5..1.25).contains(&ratio), "{measured} bit/s");
}

#[test]
fn nothing_passes_while_it_is_held_and_its_counts_go_on_in_a_branch() {
    if !can() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("network");
    let cut = fault(Effect::Partition, 1, 2);
    let mut parent = Lab::open(&spec(vec![cut.clone()]), None);
    assert!(parent.passes(0, 1) && parent.is_lost(1, 2));
    parent.switch.hold().unwrap();
    assert!(parent.is_lost(0, 1));
    assert!(parent.switch.drain(Instant::now()).unwrap().is_empty());
    let saved = parent.switch.save(&path).unwrap();
    assert_eq!((saved.frames, saved.faults), (0, vec![cut.clone()]));
    parent.switch.release().unwrap();
    assert!(parent.passes(0, 1));
    // Beside its parent, with the same names and addresses.
    let mut branch = Lab::open(&spec(vec![cut]), Some(&path));
    assert!(branch.passes(0, 1) && branch.is_lost(1, 2));
    assert!(!parent.hears(1, 0, NOTHING), "worlds do not touch");
    assert_eq!(branch.counts(0, 1).sent, 2);
    assert_eq!(branch.counts(1, 2).dropped[&DropReason::Partition], 2);
    let observed = branch.switch.observe().unwrap();
    assert_eq!(observed.fault_counts[0].dropped, 2);
    std::fs::write(&path, "pando-n1").unwrap();
    let damaged = KernelSwitches.open(&spec(Vec::new()), Some(&path)).map(drop);
    assert!(matches!(damaged, Err(SwitchError::Damaged { .. })), "{damaged:?}");
}

#[test]
fn a_machine_that_ended_is_plugged_in_again_under_the_same_faults() {
    if !can() {
        return;
    }
    let mut lab = Lab::open(&spec(vec![fault(Effect::Partition, 0, 1)]), None);
    assert!(lab.passes(2, 1) && lab.is_lost(0, 1));
    lab.taps.remove(1);
    let ends: Vec<OwnedFd> = lab.switch.replug(&name("b")).unwrap();
    lab.taps.insert(1, File::from(ends.into_iter().next().unwrap()));
    assert!(lab.passes(2, 1) && lab.passes(1, 0) && lab.is_lost(0, 1));
    assert!(lab.switch.replug(&name("nobody")).is_err());
}

#[test]
fn nothing_of_it_is_in_the_host_s_namespace() {
    if !can() {
        return;
    }
    let before = world();
    let mut lab = Lab::open(&spec(vec![fault(Effect::Partition, 0, 1)]), None);
    assert!(lab.passes(0, 2));
    assert_eq!(world(), before);
    drop(lab);
    assert_eq!(world(), before);
}

/// Returns a rate that frames of a burst do not fit in.
fn slow() -> Effect {
    Effect::Impair(Impairment { rate_bps: Some(1_000_000), ..Impairment::default() })
}

#[test]
fn faults_change_while_a_machine_is_gone_and_hold_when_it_is_back() {
    if !can() {
        return;
    }
    if let Some(lack) = probe().no_rate {
        return eprintln!("SKIPPED: {} ({})", lack.what, lack.remedy);
    }
    let mut lab = Lab::open(&spec(vec![fault(slow(), 0, 1)]), None);
    assert!(lab.passes(1, 0) && lab.passes(0, 1));
    lab.taps.remove(1);
    lab.switch.set_faults(Vec::new()).unwrap();
    let both = vec![fault(slow(), 0, 1), fault(slow(), 2, 1), fault(Effect::Partition, 0, 2)];
    lab.switch.set_faults(both.clone()).unwrap();
    assert_eq!(lab.switch.observe().unwrap().faults, both);
    let ends: Vec<OwnedFd> = lab.switch.replug(&name("b")).unwrap();
    lab.taps.insert(1, File::from(ends.into_iter().next().unwrap()));
    assert!(lab.passes(1, 0) && lab.passes(0, 1) && lab.is_lost(0, 2));
    for from in [0, 2] {
        for _ in 0..100 {
            lab.taps[usize::from(from)].write_all(&frame(from, mac(1), 1250)).unwrap();
        }
        let dropped = lab.counts(usize::from(from), 1).dropped;
        assert!(dropped.contains_key(&DropReason::RateLimit), "{from}: {dropped:?}");
    }
}

/// Runs `nft` in the namespace of the only bridge of this process.
fn nft(arguments: &[&str], input: &str) -> String {
    let is_bridge = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "bridge")
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let task = tasks.map(|task| task.unwrap().path()).find(is_bridge).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    let id = task.file_name().unwrap().to_str().unwrap();
    let namespace = format!("--net=/proc/{}/task/{id}/ns/net", std::process::id());
    let output = Command::new("nsenter")
        .args([&namespace, "/usr/sbin/nft"])
        .args(arguments)
        .stdin(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_fault_that_could_not_be_ended_ends_when_it_can() {
    if !can() {
        return;
    }
    let mut lab = Lab::open(&spec(Vec::new()), None);
    let mut short = fault(Effect::Partition, 0, 1);
    short.expires_at = Some(Timestamp::now() + Duration::from_millis(500));
    lab.switch.set_faults(vec![short.clone()]).unwrap();
    let rules = nft(&["list", "ruleset"], "");
    nft(&["flush", "ruleset"], "");
    // Nobody speaks until it has been tried.
    while Some(Timestamp::now()) <= short.expires_at {
        assert!(!lab.hears(2, 0, NOTHING));
    }
    lab.switch.check().unwrap();
    assert!(lab.switch.observe().is_err(), "there is nothing to count with");
    nft(&["-f", "-"], &rules);
    let deadline = Instant::now() + SOON;
    while !lab.switch.observe().unwrap().faults.is_empty() {
        assert!(Instant::now() < deadline, "the fault stays");
    }
    assert!(lab.passes(0, 1));
}
