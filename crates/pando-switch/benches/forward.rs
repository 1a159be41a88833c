//! How fast the switch alone is, with synthetic machines on its ports, beside a bare relay of the same
//! sizes in the same run: `cargo bench -p pando-switch`.
//!
//! A frame per second of the switch's own processor time is what one core could forward; the wall
//! clock also has the machines', which share the cores.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot be taken ends here"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pando_machine::Switches as _;
use pando_model::Name;
use pando_model::cluster::Uplink;
use pando_model::fault::{Effect, Fault, Impairment};
use pando_model::network::{End, Link, MacAddress, NetworkSpec, Port, Segment};
use pando_switch::UserSwitches;

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(2);
/// Bytes that are on their way at most: no more frames than a queue of the switch has room for, so that
/// nothing is dropped.
const WINDOW_BYTES: u64 = 384 << 10;
const RELAY_BYTES: usize = 128 << 10;
const ROUNDS: usize = 5;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn mac(port: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, port])
}

fn spec() -> NetworkSpec {
    let port = |number: u8| Port {
        node: name(&format!("n{number}")),
        nic: 0,
        segment: name("lan"),
        mac: mac(number),
        address: None,
        address6: None,
    };
    NetworkSpec {
        segments: vec![Segment {
            name: name("lan"),
            subnet: [10, 0, 2, 0].into(),
            prefix_bits: 24,
            gateway: [10, 0, 2, 2].into(),
            gateway6: None,
            uplink: Uplink::None,
            bridge: None,
        }],
        ports: (0..2).map(port).collect(),
        ..NetworkSpec::default()
    }
}

fn framed(length: usize) -> Vec<u8> {
    let mut frame = [&mac(1).0[..], &mac(0).0[..], &[0x88, 0xb5][..]].concat();
    frame.resize(length, 0);
    [&u32::try_from(length).unwrap().to_be_bytes()[..], &frame].concat()
}

/// What was measured of one forwarder.
struct Rate {
    frames: f64,
    wall: f64,
    processor: f64,
}

impl Rate {
    fn per_second(&self) -> f64 {
        self.frames / self.wall
    }

    fn per_core(&self) -> f64 {
        self.frames / self.processor
    }
}

/// Sends frames from `machine` for a while, as many in one write as `batch` bytes hold, and reads them
/// at `other`.
fn measure(
    thread: &str,
    machine: UnixStream,
    mut other: UnixStream,
    length: usize,
    batch: usize,
) -> Rate {
    let one = framed(length);
    let burst = one.repeat((batch / one.len()).max(1));
    let (received, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (seen, stop) = (Arc::clone(&received), Arc::clone(&over));
    let mut sender = machine;
    let sending = std::thread::spawn(move || {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            while sent - seen.load(Ordering::Relaxed) > WINDOW_BYTES {
                std::thread::yield_now();
            }
            sender.write_all(&burst).unwrap();
            sent += burst.len() as u64;
        }
        sent
    });
    let mut buffer = vec![0; RELAY_BYTES];
    let mut total = 0;
    // The sender may have ended between a look at it and a read.
    other.set_read_timeout(Some(MEASURED / 100)).unwrap();
    let mut read = |total: &mut u64| {
        *total += match other.read(&mut buffer) {
            Ok(count) => count as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        received.store(*total, Ordering::Relaxed);
    };
    let warm = Instant::now();
    while warm.elapsed() < MEASURED / 10 {
        read(&mut total);
    }
    let (begun, first, before) = (Instant::now(), total, processor_seconds(thread));
    while begun.elapsed() < MEASURED {
        read(&mut total);
    }
    let (wall, processor) = (begun.elapsed().as_secs_f64(), processor_seconds(thread) - before);
    let frames = (total - first) as f64 / one.len() as f64;
    over.store(true, Ordering::Relaxed);
    let all = loop {
        if sending.is_finished() {
            break sending.join().unwrap();
        }
        read(&mut total);
    };
    while total < all {
        read(&mut total);
    }
    Rate { frames, wall, processor }
}

/// Processor time that the thread of this name has taken (`schedstat` of proc(5)).
fn processor_seconds(thread: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let mut own = tasks.filter(|task| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == thread)
    });
    let stat = std::fs::read_to_string(own.next().unwrap().join("schedstat")).unwrap();
    stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn through_switch(length: usize, batch: usize) -> Rate {
    let (mut switch, mut ends) = UserSwitches.open(&spec(), None).unwrap();
    switch.release().unwrap();
    let other = ends.pop().unwrap().into();
    let rate = measure("switch", ends.pop().unwrap().into(), other, length, batch);
    let lost: u64 = switch
        .observe()
        .unwrap()
        .links
        .iter()
        .flat_map(|(_, counts)| counts.dropped.values())
        .sum();
    assert_eq!(lost, 0);
    rate
}

fn through_relay(length: usize, batch: usize) -> Rate {
    let ((machine, mut from), (other, mut to)) =
        (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let relay = std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
        let mut buffer = vec![0; RELAY_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
    let rate = measure("relay", machine, other, length, batch);
    relay.unwrap().join().unwrap();
    rate
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn rates() {
    println!("switch and bare relay, two ports, {ROUNDS} rounds of {MEASURED:?} in turn; medians");
    for (length, batch, how) in [
        (64, 32 << 10, "many a write"),
        (1500, 32 << 10, "many a write"),
        (64, 1, "one a write"),
        (1500, 1, "one a write"),
    ] {
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|_| (through_switch(length, batch), through_relay(length, batch)))
            .collect();
        let of = |figure: fn(&Rate, &Rate) -> f64| {
            median(rounds.iter().map(|(switch, relay)| figure(switch, relay)).collect())
        };
        let gigabits = |frames: f64| frames * length as f64 * 8.0 / 1e9;
        let (core, wall) = (of(|switch, _| switch.per_core()), of(|switch, _| switch.per_second()));
        println!(
            "{length:>5} bytes, {how:<12}: one core {:>9.0} frames/s {:>6.2} Gbit/s · wall clock {:>9.0} \
             frames/s {:>6.2} Gbit/s · of the relay {:.2} (core), {:.2} (wall)",
            core,
            gigabits(core),
            wall,
            gigabits(wall),
            of(|switch, relay| switch.per_core() / relay.per_core()),
            of(|switch, relay| switch.per_second() / relay.per_second()),
        );
    }
}

fn latency() {
    const FRAMES: usize = 200;
    const LATENCY: Duration = Duration::from_millis(50);
    let (mut switch, mut ends) = UserSwitches.open(&spec(), None).unwrap();
    let end = |node: &str| End::Node(name(node));
    let fault = Fault {
        id: "ft_000000000001".parse().unwrap(),
        label: None,
        effect: Effect::Impair(Impairment { latency_us: 50_000, ..Impairment::default() }),
        links: vec![Link { from: end("n0"), to: end("n1") }],
        segment: None,
        seed: 1,
        ordinal: 0,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
    };
    switch.set_faults(vec![fault]).unwrap();
    switch.release().unwrap();
    let mut end = || UnixStream::from(ends.pop().unwrap());
    let (mut other, mut machine) = (end(), end());
    let one = framed(64);
    let mut buffer = vec![0; one.len()];
    let mut errors: Vec<f64> = (0..FRAMES)
        .map(|_| {
            let sent = Instant::now();
            machine.write_all(&one).unwrap();
            other.read_exact(&mut buffer).unwrap();
            (sent.elapsed().as_secs_f64() - LATENCY.as_secs_f64()) * 1e3
        })
        .collect();
    let mean = errors.iter().sum::<f64>() / FRAMES as f64;
    errors.sort_by(f64::total_cmp);
    println!(
        "latency of 50 ms, from write to read, {FRAMES} frames: mean error {mean:.3} ms, median {:.3}, \
         p99 {:.3}",
        errors[FRAMES / 2],
        errors[FRAMES * 99 / 100]
    );
}

/// What a cut asks of the switch, while a machine sends as fast as another reads.
fn cuts() {
    const CUTS: usize = 300;
    let (mut switch, mut ends) = UserSwitches.open(&spec(), None).unwrap();
    switch.release().unwrap();
    let mut end = || UnixStream::from(ends.pop().unwrap());
    let (mut other, mut machine) = (end(), end());
    let received = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&received);
    let burst = framed(1500);
    let sending = std::thread::spawn(move || {
        let mut sent = 0;
        loop {
            while sent - seen.load(Ordering::Relaxed) > WINDOW_BYTES {
                std::thread::yield_now();
            }
            if machine.write_all(&burst).is_err() {
                return;
            }
            sent += burst.len() as u64;
        }
    });
    let reading = std::thread::spawn(move || {
        let mut buffer = vec![0; RELAY_BYTES];
        while let Ok(count @ 1..) = other.read(&mut buffer) {
            received.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let mut times: [Vec<f64>; 5] = Default::default();
    let (mut frames, mut stalled) = (0, 0);
    for _ in 0..CUTS {
        let mut at = Instant::now();
        let mut lap = |step: usize| {
            times[step].push(at.elapsed().as_secs_f64() * 1e3);
            at = Instant::now();
        };
        switch.hold().unwrap();
        lap(0);
        stalled += switch.drain(Instant::now() + Duration::from_millis(20)).unwrap().len();
        lap(1);
        switch.settle().unwrap();
        lap(2);
        frames += switch.save(&directory.path().join("state")).unwrap().frames;
        lap(3);
        switch.release().unwrap();
        lap(4);
    }
    drop(switch);
    sending.join().unwrap();
    reading.join().unwrap();
    print!("{CUTS} cuts under traffic, ms, median (p99):");
    for (step, mut samples) in ["hold", "drain", "settle", "save", "release"].iter().zip(times) {
        samples.sort_by(f64::total_cmp);
        print!(" {step} {:.3} ({:.3})", samples[CUTS / 2], samples[CUTS * 99 / 100]);
    }
    println!("; {:.0} frames saved each, {stalled} ports stalled", frames as f64 / CUTS as f64);
}

fn main() {
    latency();
    cuts();
    rates();
}
