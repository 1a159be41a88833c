//! What nodes of the cluster tests run: counters to and from each other over TCP and UDP, and writes
//! to the disk. The tests compile it; it has no dependencies.
//!
//! `traffic ME tcp-listen=ADDRESS tcp4=PEER@ADDRESS tcp6=PEER@ADDRESS udp-listen=ADDRESS udp=PEER@ADDRESS
//! bulk-listen=ADDRESS bulk=PEER@ADDRESS disk=FILE [tcp-us=N] [udp-us=N]`, any number of each. Records and datagrams are numbered from 0. It writes
//! what it counted to `/run/traffic.status`, again and again. Datagrams are sent once
//! `/run/traffic.go` is there, so that somebody listens; once `/run/traffic.stop` is there it
//! sends no more and goes on counting what comes.
//!
//! A TCP connection carries records both ways: the number, and bytes that follow from it. A bulk
//! connection carries blocks one way, as fast as they are taken.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const RECORD: usize = 128;
/// Bytes of a block.
const BLOCK: usize = 64 << 10;
const NAME: usize = 16;
const STATUS: &str = "/run/traffic.status";
const GO: &str = "/run/traffic.go";
const STOP: &str = "/run/traffic.stop";

#[derive(Default, Clone)]
struct Counts {
    sent: u64,
    received: u64,
    /// Numbers that did not come when the next did.
    gaps: u64,
    /// Numbers that came again, or late.
    again: u64,
    /// Bytes that are not what they should be.
    wrong: u64,
    error: Option<String>,
}

#[derive(Clone)]
struct Shared {
    me: String,
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<BTreeMap<String, Counts>>>,
}

impl Shared {
    fn change(&self, what: &str, change: impl FnOnce(&mut Counts)) {
        change(self.counts.lock().unwrap().entry(what.to_owned()).or_default());
    }

    fn failed(&self, what: &str, error: &io::Error) {
        self.change(what, |counts| counts.error = Some(error.to_string().replace(' ', "_")));
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn record(number: u64) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    for (place, byte) in bytes[8..].iter_mut().enumerate() {
        *byte = (number as u8).wrapping_mul(31).wrapping_add(place as u8);
    }
    bytes
}

fn name(text: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// Carries records both ways.
fn converse(shared: &Shared, stream: TcpStream, what: String, pace: Duration) {
    stream.set_nodelay(true).unwrap();
    let (writer, sender, label) = (stream.try_clone().unwrap(), shared.clone(), what.clone());
    thread::spawn(move || {
        let mut writer = writer;
        for number in 0.. {
            if sender.stopped() {
                break;
            }
            if let Err(error) = writer.write_all(&record(number)) {
                sender.failed(&label, &error);
                break;
            }
            sender.change(&label, |counts| counts.sent += 1);
            thread::sleep(pace);
        }
    });
    let mut stream = stream;
    for number in 0.. {
        let mut bytes = [0; RECORD];
        if let Err(error) = stream.read_exact(&mut bytes) {
            shared.failed(&what, &error);
            break;
        }
        shared.change(&what, |counts| {
            counts.received += 1;
            counts.wrong += u64::from(bytes != record(number));
        });
    }
}

fn call(shared: &Shared, what: String, address: &str, pace: Duration) {
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    };
    stream.write_all(&name(&shared.me)).unwrap();
    converse(shared, stream, what, pace);
}

fn listen(shared: &Shared, address: &str, pace: Duration) {
    let kind = if address.starts_with('[') { "tcp6" } else { "tcp4" };
    let listener = TcpListener::bind(address).unwrap();
    for stream in listener.incoming() {
        let (mut stream, shared) = (stream.unwrap(), shared.clone());
        thread::spawn(move || {
            let mut peer = [0; NAME];
            stream.read_exact(&mut peer).unwrap();
            converse(&shared, stream, format!("{kind}:{}", text(&peer)), pace);
        });
    }
}

/// Makes `block` that of a number: the number again and again.
fn fill(block: &mut [u8; BLOCK], number: u64) {
    for place in block.chunks_exact_mut(8) {
        place.copy_from_slice(&number.to_be_bytes());
    }
}

fn send_blocks(shared: &Shared, peer: &str, address: &str) {
    let what = format!("bulk:{peer}");
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    };
    stream.write_all(&name(&shared.me)).unwrap();
    let mut block = [0; BLOCK];
    for number in 0.. {
        if shared.stopped() {
            break;
        }
        fill(&mut block, number);
        if let Err(error) = stream.write_all(&block) {
            shared.failed(&what, &error);
            break;
        }
        shared.change(&what, |counts| counts.sent += 1);
    }
    // Open until the end of the program: the peer counts an end as an error.
    loop {
        thread::park();
    }
}

fn take_blocks(shared: &Shared, mut stream: TcpStream) {
    let mut peer = [0; NAME];
    stream.read_exact(&mut peer).unwrap();
    let what = format!("bulk:{}", text(&peer));
    let (mut block, mut wanted) = ([0; BLOCK], [0; BLOCK]);
    for number in 0.. {
        if let Err(error) = stream.read_exact(&mut block) {
            shared.failed(&what, &error);
            break;
        }
        fill(&mut wanted, number);
        shared.change(&what, |counts| {
            counts.received += 1;
            counts.wrong += u64::from(block != wanted);
        });
    }
}

fn listen_for_blocks(shared: &Shared, address: &str) {
    for stream in TcpListener::bind(address).unwrap().incoming() {
        let (stream, shared) = (stream.unwrap(), shared.clone());
        thread::spawn(move || take_blocks(&shared, stream));
    }
}

unsafe extern "C" {
    fn setsockopt(
        socket: c_int,
        level: c_int,
        name: c_int,
        value: *const c_void,
        length: u32,
    ) -> c_int;
}

/// A guest that is cold for a moment must not lose datagrams for want of room.
fn make_room(socket: &UdpSocket) {
    const SOL_SOCKET: c_int = 1;
    const SO_RCVBUFFORCE: c_int = 33;
    let bytes: c_int = 16 << 20;
    let value = (&raw const bytes).cast();
    // SAFETY: the value lives for the call and is as long as said.
    let set = unsafe { setsockopt(socket.as_raw_fd(), SOL_SOCKET, SO_RCVBUFFORCE, value, 4) };
    assert_eq!(set, 0);
}

fn count_datagrams(shared: &Shared, address: &str) {
    let socket = UdpSocket::bind(address).unwrap();
    make_room(&socket);
    shared.change("listens:", |_| ());
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let mut bytes = [0; NAME + RECORD];
    loop {
        let length = socket.recv(&mut bytes).unwrap();
        let (peer, body) = bytes[..length].split_at(NAME);
        let peer = text(peer);
        let number = u64::from_be_bytes(body[..8].try_into().unwrap());
        let expected = next.get(&peer).copied().unwrap_or(0);
        shared.change(&format!("udp:{peer}"), |counts| {
            counts.received += 1;
            counts.wrong += u64::from(body != record(number));
            counts.gaps += number.saturating_sub(expected);
            counts.again += u64::from(number < expected);
        });
        next.insert(peer, expected.max(number + 1));
    }
}

fn send_datagrams(shared: &Shared, peer: &str, address: &str, pace: Duration) {
    let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).unwrap();
    let what = format!("udp:{peer}");
    while !Path::new(GO).exists() {
        thread::sleep(Duration::from_millis(50));
    }
    for number in 0.. {
        if shared.stopped() {
            break;
        }
        let datagram = [&name(&shared.me)[..], &record(number)].concat();
        match socket.send_to(&datagram, address) {
            Ok(_) => shared.change(&what, |counts| counts.sent += 1),
            Err(error) => {
                shared.failed(&what, &error);
                break;
            }
        }
        thread::sleep(pace);
    }
}

fn write_disk(shared: &Shared, path: &str) {
    let mut file = fs::File::create(path).unwrap();
    for number in 0u64.. {
        if shared.stopped() {
            break;
        }
        file.write_all(&[number as u8; 4096]).unwrap();
        file.sync_data().unwrap();
        shared.change("disk:", |counts| counts.sent += 1);
        thread::sleep(Duration::from_millis(20));
    }
}

fn report(shared: &Shared) {
    let mut lines = String::new();
    for (what, counts) in &*shared.counts.lock().unwrap() {
        let Counts { sent, received, gaps, again, wrong, error } = counts;
        let error = error.as_deref().unwrap_or("-");
        let _ = writeln!(lines, "{what} {sent} {received} {gaps} {again} {wrong} {error}");
    }
    let scratch = format!("{STATUS}.new");
    fs::write(&scratch, lines).and_then(|()| fs::rename(&scratch, STATUS)).unwrap();
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let me = arguments.next().unwrap();
    let shared = Shared { me, stop: Arc::default(), counts: Arc::default() };
    let (mut tcp_pace, mut udp_pace) = (Duration::from_millis(4), Duration::from_millis(2));
    for argument in arguments {
        let (kind, value) = argument.split_once('=').unwrap();
        let (kind, value) = (kind.to_owned(), value.to_owned());
        let pace = || Duration::from_micros(value.parse().unwrap());
        match kind.as_str() {
            "tcp-us" => tcp_pace = pace(),
            "udp-us" => udp_pace = pace(),
            _ => {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (peer, address) = value.split_once('@').unwrap_or(("", &value));
                    match kind.as_str() {
                        "tcp-listen" => listen(&shared, address, tcp_pace),
                        "tcp4" | "tcp6" => call(&shared, format!("{kind}:{peer}"), address, tcp_pace),
                        "udp-listen" => count_datagrams(&shared, address),
                        "udp" => send_datagrams(&shared, peer, address, udp_pace),
                        "bulk-listen" => listen_for_blocks(&shared, address),
                        "bulk" => send_blocks(&shared, peer, address),
                        "disk" => write_disk(&shared, address),
                        _ => panic!("{kind}?"),
                    }
                });
            }
        }
    }
    loop {
        shared.stop.store(Path::new(STOP).exists(), Ordering::Relaxed);
        report(&shared);
        thread::sleep(Duration::from_millis(50));
    }
}
