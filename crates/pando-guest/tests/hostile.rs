//! A guest program whose host lies, floods or says nothing that makes sense.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::{run, sh, soon, start_raw};
use pando_guest::Config;
use pando_link::{GuestClock, GuestLink, LinkError};
use pando_wire::frame::{Decoder, Frame};
use pando_wire::guest::{
    GuestMessage, Hello, HostMessage, RefusalKind, Request, StreamId, decode_answer,
};
use pando_wire::limits::{GUEST_PROTOCOL, MAX_CHUNK_BYTES, MAX_STREAMS};
use proptest::prelude::*;

/// A host that says what it likes.
struct Host {
    socket: UnixStream,
    decoder: Decoder,
    pending: Vec<u8>,
    sequence: u32,
}

const EPOCH: u64 = 77;

impl Host {
    fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, decoder: Decoder::new(), pending: Vec::new(), sequence: 0 }
    }

    fn frame(&mut self, message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Frame { epoch: EPOCH, sequence: self.sequence, message }.encode(&mut bytes).unwrap();
        self.sequence = self.sequence.wrapping_add(1);
        bytes
    }

    fn say(&mut self, message: &HostMessage<'_>) {
        let bytes = self.frame(&message.encode().unwrap());
        self.socket.write_all(&bytes).unwrap();
    }

    fn hello(&mut self) {
        let hello = Hello { protocol: GUEST_PROTOCOL, entropy: vec![1; 32] };
        self.say(&HostMessage::Hello(hello));
        self.hear(|message| matches!(message, GuestMessage::Welcome(_)).then_some(()));
    }

    fn open(&mut self, stream: u32, request: &Request) {
        let part = request.encode().unwrap();
        self.say(&HostMessage::Open { stream: StreamId(stream), last: true, part: &part });
    }

    fn hear<T>(&mut self, mut see: impl FnMut(GuestMessage<'_>) -> Option<T>) -> T {
        loop {
            let input = std::mem::take(&mut self.pending);
            let mut rest = input.as_slice();
            let mut seen = None;
            while seen.is_none()
                && let Some(frame) = self.decoder.next(&mut rest)
            {
                seen = see(GuestMessage::decode(frame.message).unwrap());
            }
            self.pending = rest.to_vec();
            if let Some(seen) = seen {
                return seen;
            }
            let mut buffer = [0; 4096];
            let count = self.socket.read(&mut buffer).unwrap();
            assert!(count > 0, "the guest hung up");
            self.pending.extend_from_slice(&buffer[..count]);
        }
    }

    /// Waits for the answer of a stream; `None` when it was refused.
    fn refused(&mut self, wanted: u32) -> RefusalKind {
        self.hear(|message| match message {
            GuestMessage::Done { stream, last: true, part } if stream == StreamId(wanted) => {
                Some(decode_answer(part).unwrap().unwrap_err().kind)
            }
            _ => None,
        })
    }
}

/// Starts a guest that could not harm this machine if a lie came true: its files are nowhere.
fn start() -> (common::Reaped, Host) {
    let (process, socket) = start_raw(Path::new("/proc/self/fdinfo"));
    let mut host = Host::new(socket);
    host.hello();
    (process, host)
}

/// The guest still serves: a real host opens an epoch and runs a command.
fn still_serves(host: Host) {
    let link = GuestLink::new(host.socket, "test").unwrap();
    link.hello(GuestClock::Keep, soon()).unwrap();
    assert_eq!(run(&link, &sh("echo alive")).unwrap().stdout, "alive\n");
}

#[test]
fn the_same_hello_is_answered_again() {
    let (_process, mut host) = start();
    host.hello();
    host.open(1, &Request::Ping);
    host.hear(|message| matches!(message, GuestMessage::Done { .. }).then_some(()));
}

#[test]
fn messages_that_make_no_sense_are_survived() {
    let (_process, mut host) = start();
    let stream = StreamId(9);
    // Of a stream that does not exist.
    host.say(&HostMessage::Data { stream, bytes: b"x" });
    host.say(&HostMessage::Eof { stream });
    host.say(&HostMessage::Credit { stream, bytes: u32::MAX });
    host.say(&HostMessage::Signal { stream, signal: 9 });
    host.say(&HostMessage::Close { stream });
    // A request that is none.
    host.say(&HostMessage::Open { stream, last: true, part: b"\xff\xff" });
    assert_eq!(host.refused(9), RefusalKind::Invalid);
    host.open(10, &Request::Connect { address: "example.com".into(), port: 80 });
    assert_eq!(host.refused(10), RefusalKind::Invalid);
    still_serves(host);
}

#[test]
fn what_breaks_the_protocol_ends_the_epoch_and_is_said() {
    let is_broken = |host: &mut Host| {
        host.hear(|message| matches!(message, GuestMessage::Broken).then_some(()));
    };
    // A gap.
    let (_process, mut host) = start();
    host.sequence += 1;
    host.open(1, &Request::Ping);
    is_broken(&mut host);
    still_serves(host);
    // Nonsense in a good frame.
    let (_process, mut host) = start();
    let bytes = host.frame(b"\xff\xff\xff");
    host.socket.write_all(&bytes).unwrap();
    is_broken(&mut host);
    still_serves(host);
    // An endless request.
    let (_process, mut host) = start();
    for _ in 0..20 {
        let part = &[0; MAX_CHUNK_BYTES];
        host.say(&HostMessage::Open { stream: StreamId(1), last: false, part });
    }
    is_broken(&mut host);
    still_serves(host);
    // More input than was granted.
    let (_process, mut host) = start();
    let sleep = sh("exec sleep 100");
    host.open(1, &Request::Exec(sleep));
    for _ in 0..20 {
        let bytes = &[0; MAX_CHUNK_BYTES];
        host.say(&HostMessage::Data { stream: StreamId(1), bytes });
    }
    is_broken(&mut host);
    still_serves(host);
}

#[test]
fn streams_are_limited() {
    let (_process, mut host) = start();
    for stream in 0..MAX_STREAMS as u32 {
        let part = b"";
        host.say(&HostMessage::Open { stream: StreamId(stream), last: false, part });
    }
    host.open(5000, &Request::Ping);
    assert_eq!(host.refused(5000), RefusalKind::Limit);
    host.say(&HostMessage::Close { stream: StreamId(0) });
    host.open(5001, &Request::Ping);
    host.hear(|message| match message {
        GuestMessage::Done { stream: StreamId(5001), last: true, part } => {
            Some(decode_answer(part).unwrap().unwrap())
        }
        _ => None,
    });
}

#[test]
fn a_host_that_never_reads_is_waited_for_without_growing() {
    let (process, mut host) = start();
    let mut flood = sh("yes");
    flood.timeout_ms = 60_000;
    host.open(1, &Request::Exec(flood));
    host.socket.set_nonblocking(true).unwrap();
    let ping = Request::Ping.encode().unwrap();
    // Answers pile up until the guest stops to take requests.
    for stream in 2..2_000_000 {
        let message = HostMessage::Open { stream: StreamId(stream), last: true, part: &ping };
        let bytes = host.frame(&message.encode().unwrap());
        if host.socket.write_all(&bytes).is_err() {
            break;
        }
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident: u64 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(resident < 12_000, "{resident} KiB");
    // It goes on where it stopped. The torn frame of the full socket costs an epoch.
    host.socket.set_nonblocking(false).unwrap();
    still_serves(host);
}

#[test]
fn serving_works_on_a_thread_of_another_program() {
    let dir = tempfile::tempdir().unwrap();
    let (host, guest) = UnixStream::pair().unwrap();
    let config = Config::embedded(dir.path());
    let server = std::thread::spawn(move || pando_guest::serve(guest.into(), config));
    let link = GuestLink::new(host, "embedded").unwrap();
    link.hello(GuestClock::Step, soon()).unwrap();
    assert_eq!(run(&link, &sh("echo $0; exit 3")).unwrap().code(), 3);
    let mut late = sh("sleep 100 & setsid sleep 100 & sleep 100");
    late.timeout_ms = 200;
    let ran = run(&link, &late).unwrap();
    assert_eq!(ran.outcome.status, pando_model::guest::ExecStatus::TimedOut);
    let error = link.power_off(soon()).unwrap_err();
    assert!(matches!(error, LinkError::Refused { kind: RefusalKind::Unsupported, .. }));
    drop(link);
    server.join().unwrap().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_bytes_from_a_host_stop_the_guest(noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (_process, mut host) = start();
        host.socket.write_all(&noise).unwrap();
        for chunk in noise.chunks(7) {
            let bytes = host.frame(chunk);
            host.socket.write_all(&bytes).unwrap();
        }
        still_serves(host);
    }
}
