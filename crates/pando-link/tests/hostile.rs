//! A link whose other end is not a guest program: one that lies, floods, is silent or is gone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pando_link::{ExecEvent, GuestClock, GuestLink, LinkError};
use pando_model::guest::{Command, ExecSpec, OutputStream, PushSpec, Stdin};
use pando_wire::frame::{Decoder, Frame};
use pando_wire::guest::{
    GuestMessage, HostMessage, Reply, Request, StreamId, Welcome, encode_answer,
};
use pando_wire::limits::{GUEST_PROTOCOL, MAX_CHUNK_BYTES, MAX_STREAMS, STREAM_WINDOW_BYTES};
use proptest::prelude::*;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn at_once() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

fn spec() -> ExecSpec {
    ExecSpec {
        command: Command::Shell("true".into()),
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        timeout_ms: 1000,
        terminal: None,
        stdin: Stdin::Open,
    }
}

/// What plays the guest.
struct Fake {
    socket: UnixStream,
    decoder: Decoder,
    pending: Vec<u8>,
    epoch: u64,
    sequence: u32,
}

impl Fake {
    fn new(socket: UnixStream) -> Self {
        Self { socket, decoder: Decoder::new(), pending: Vec::new(), epoch: 0, sequence: 0 }
    }

    /// Waits for the host's next message, and gives it to `see`.
    fn hear<T>(&mut self, mut see: impl FnMut(u64, HostMessage<'_>) -> Option<T>) -> T {
        loop {
            let input = std::mem::take(&mut self.pending);
            let mut rest = input.as_slice();
            let mut seen = None;
            while seen.is_none()
                && let Some(frame) = self.decoder.next(&mut rest)
            {
                seen = see(frame.epoch, HostMessage::decode(frame.message).unwrap());
            }
            self.pending = rest.to_vec();
            if let Some(seen) = seen {
                return seen;
            }
            let mut buffer = [0; 4096];
            let count = self.socket.read(&mut buffer).unwrap();
            assert!(count > 0, "the host hung up");
            self.pending.extend_from_slice(&buffer[..count]);
        }
    }

    fn frame(&mut self, message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Frame { epoch: self.epoch, sequence: self.sequence, message }.encode(&mut bytes).unwrap();
        self.sequence += 1;
        bytes
    }

    fn say(&mut self, message: &GuestMessage<'_>) {
        let bytes = self.frame(&message.encode().unwrap());
        self.socket.write_all(&bytes).unwrap();
    }

    fn welcome(&mut self, protocol: u32) {
        self.epoch =
            self.hear(|epoch, message| matches!(message, HostMessage::Hello(_)).then_some(epoch));
        self.sequence = 0;
        self.say(&GuestMessage::Welcome(Welcome {
            protocol,
            guest_version: "fake".into(),
            boot_id: "b".into(),
            inherited: vec![],
        }));
    }

    /// Waits for a request.
    fn opened(&mut self) -> (StreamId, Request) {
        self.hear(|_, message| match message {
            HostMessage::Open { stream, last: true, part } => {
                Some((stream, Request::decode(part).unwrap()))
            }
            _ => None,
        })
    }
}

/// Returns a link whose epoch is open, and its fake guest.
fn pair() -> (GuestLink, Fake) {
    let (host, guest) = UnixStream::pair().unwrap();
    let link = GuestLink::new(host, "fake").unwrap();
    let mut fake = Fake::new(guest);
    std::thread::scope(|scope| {
        scope.spawn(|| fake.welcome(GUEST_PROTOCOL));
        link.hello(GuestClock::Keep, soon()).unwrap();
    });
    (link, fake)
}

/// Runs a request against what the fake guest does with it.
fn exchange<T: Send>(
    request: impl FnOnce(&GuestLink) -> T + Send,
    guest: impl FnOnce(&mut Fake, StreamId),
) -> (T, GuestLink, Fake) {
    let (link, mut fake) = pair();
    let result = std::thread::scope(|scope| {
        let requester = scope.spawn(|| request(&link));
        let (stream, _) = fake.opened();
        guest(&mut fake, stream);
        requester.join().unwrap()
    });
    (result, link, fake)
}

#[test]
fn a_silent_guest_costs_the_deadline_and_no_more() {
    let (host, _guest) = UnixStream::pair().unwrap();
    let link = GuestLink::new(host, "silent").unwrap();
    let started = Instant::now();
    let error = link.hello(GuestClock::Step, at_once()).unwrap_err();
    assert!(matches!(error, LinkError::Deadline { .. }), "{error:?}");
    assert!(error.to_string().starts_with("the guest `silent` did not answer within"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
    // Nothing else is asked of a guest that has not answered a hello.
    assert!(matches!(link.ping(soon()), Err(LinkError::EpochEnded { .. })));
}

#[test]
fn a_hello_that_got_lost_is_said_again() {
    let (host, guest) = UnixStream::pair().unwrap();
    let link = GuestLink::new(host, "late").unwrap();
    let mut fake = Fake::new(guest);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The first one is discarded, as a port does that is opened anew.
            let lost = fake.hear(|epoch, _| Some(epoch));
            fake.welcome(GUEST_PROTOCOL);
            assert_eq!(fake.epoch, lost);
        });
        assert_eq!(link.hello(GuestClock::Keep, soon()).unwrap().guest_version, "fake");
    });
}

#[test]
fn a_clock_follows_the_welcome_and_is_right() {
    let (host, guest) = UnixStream::pair().unwrap();
    let link = GuestLink::new(host, "clock").unwrap();
    let mut fake = Fake::new(guest);
    std::thread::scope(|scope| {
        scope.spawn(|| link.hello(GuestClock::Step, soon()).unwrap());
        fake.welcome(GUEST_PROTOCOL);
        let unix_ns = fake.hear(|_, message| match message {
            HostMessage::Clock { unix_ns } => Some(unix_ns),
            _ => None,
        });
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(now.as_nanos().abs_diff(u128::from(unix_ns)) < 5_000_000_000);
    });
}

#[test]
fn another_version_is_said_to_be_one() {
    let (host, guest) = UnixStream::pair().unwrap();
    let link = GuestLink::new(host, "old").unwrap();
    let mut fake = Fake::new(guest);
    std::thread::scope(|scope| {
        scope.spawn(|| fake.welcome(GUEST_PROTOCOL + 1));
        let error = link.hello(GuestClock::Keep, soon()).unwrap_err();
        let expected = (GUEST_PROTOCOL + 1, GUEST_PROTOCOL);
        assert!(
            matches!(error, LinkError::Version { speaks, wanted, .. } if (speaks, wanted) == expected),
            "{error:?}"
        );
    });
}

#[test]
fn a_guest_that_does_not_read_hangs_nobody() {
    let (link, _fake) = pair();
    let push = PushSpec {
        path: "/x".into(),
        mode: 0o600,
        owner: None,
        make_parents: false,
        size: u64::MAX,
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let until = Instant::now() + Duration::from_millis(300);
                let error = link.push(&push, &mut std::io::repeat(1), until).unwrap_err();
                assert!(matches!(error, LinkError::Deadline { .. }), "{error:?}");
            });
        }
    });
    assert!(started.elapsed() < Duration::from_secs(5));
    let big = ExecSpec { command: Command::Shell("x".repeat(100_000)), ..spec() };
    for _ in 0..10 {
        let error = link.exec(&big, at_once()).unwrap_err();
        assert!(matches!(error, LinkError::Deadline { .. }), "{error:?}");
    }
    // Even a new epoch only waits for its own deadline.
    let error = link.hello(GuestClock::Keep, at_once()).unwrap_err();
    assert!(matches!(error, LinkError::Deadline { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_new_epoch_is_not_held_up_by_a_writer_of_the_old_one() {
    let (link, mut fake) = pair();
    let push = PushSpec {
        path: "/x".into(),
        mode: 0o600,
        owner: None,
        make_parents: false,
        size: u64::MAX,
    };
    std::thread::scope(|scope| {
        let pusher = scope.spawn(|| link.push(&push, &mut std::io::repeat(1), soon()));
        // It has filled its window or the socket when nothing more comes.
        fake.opened();
        let greeter = scope.spawn(|| link.hello(GuestClock::Keep, soon()));
        let old = fake.epoch;
        while fake.epoch == old {
            fake.welcome(GUEST_PROTOCOL);
        }
        greeter.join().unwrap().unwrap();
        let error = pusher.join().unwrap().unwrap_err();
        assert!(matches!(error, LinkError::EpochEnded { .. }), "{error:?}");
    });
}

#[test]
fn output_beyond_the_window_ends_the_stream_only() {
    let (sent, all_sent) = std::sync::mpsc::channel();
    let ((), link, mut fake) = exchange(
        move |link| {
            let handle = link.exec(&spec(), soon()).unwrap();
            // What is read is granted anew; who reads nothing grants nothing.
            all_sent.recv().unwrap();
            let mut received = 0;
            let ended = loop {
                match handle.next_event(soon()) {
                    Ok(ExecEvent::Output { bytes, .. }) => received += bytes.len(),
                    ended => break ended,
                }
            };
            assert!(matches!(ended, Err(LinkError::Protocol { .. })), "{ended:?}");
            assert!(received <= STREAM_WINDOW_BYTES as usize, "{received}");
        },
        |fake, stream| {
            fake.say(&GuestMessage::Started { stream });
            for _ in 0..400 {
                let bytes = &[7; MAX_CHUNK_BYTES];
                fake.say(&GuestMessage::Data { stream, output: OutputStream::Stdout, bytes });
            }
            sent.send(()).unwrap();
        },
    );
    std::thread::scope(|scope| {
        scope.spawn(|| link.ping(soon()).unwrap());
        let (stream, request) = fake.opened();
        assert_eq!(request, Request::Ping);
        let part = encode_answer(&Ok(Reply::Done)).unwrap();
        fake.say(&GuestMessage::Done { stream, last: true, part: &part });
    });
}

/// What a guest may do wrong inside an epoch.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Nonsense,
    Gap,
    Broken,
    OtherReply,
    NonsenseAnswer,
    EndlessAnswer,
}

#[test]
fn nonsense_is_said_to_be_and_a_new_epoch_works() {
    for wrong in [
        Wrong::Nonsense,
        Wrong::Gap,
        Wrong::Broken,
        Wrong::OtherReply,
        Wrong::NonsenseAnswer,
        Wrong::EndlessAnswer,
    ] {
        let (error, link, mut fake) = exchange(
            |link| link.facts(soon()).unwrap_err(),
            |fake, stream| match wrong {
                Wrong::Nonsense => {
                    let bytes = fake.frame(b"\xff\xff\xff");
                    fake.socket.write_all(&bytes).unwrap();
                }
                Wrong::Gap => {
                    fake.sequence += 1;
                    fake.say(&GuestMessage::Started { stream });
                }
                Wrong::Broken => fake.say(&GuestMessage::Broken),
                Wrong::OtherReply => {
                    let part = encode_answer(&Ok(Reply::Done)).unwrap();
                    fake.say(&GuestMessage::Done { stream, last: true, part: &part });
                }
                Wrong::NonsenseAnswer => {
                    fake.say(&GuestMessage::Done { stream, last: true, part: b"\xff" });
                }
                Wrong::EndlessAnswer => {
                    for _ in 0..40 {
                        let part = &[0; MAX_CHUNK_BYTES];
                        fake.say(&GuestMessage::Done { stream, last: false, part });
                    }
                }
            },
        );
        assert!(matches!(error, LinkError::Protocol { .. }), "{wrong:?}: {error:?}");
        std::thread::scope(|scope| {
            scope.spawn(|| link.hello(GuestClock::Keep, soon()).unwrap());
            let old = fake.epoch;
            while fake.epoch == old {
                fake.welcome(GUEST_PROTOCOL);
            }
        });
    }
}

#[test]
fn what_belongs_to_no_stream_or_epoch_is_ignored() {
    let (result, _link, _fake) = exchange(
        |link| link.ping(soon()),
        |fake, stream| {
            let stray = StreamId(stream.0 + 1000);
            let bytes = b"x";
            fake.say(&GuestMessage::Data { stream: stray, output: OutputStream::Stdout, bytes });
            fake.say(&GuestMessage::Credit { stream, bytes: u32::MAX });
            fake.say(&GuestMessage::Credit { stream, bytes: u32::MAX });
            fake.say(&GuestMessage::Done { stream: stray, last: true, part: b"\xff" });
            // A reply of a past life, and half a frame.
            let epoch = std::mem::replace(&mut fake.epoch, 42);
            let part = encode_answer(&Ok(Reply::Done)).unwrap();
            let old = fake
                .frame(&GuestMessage::Done { stream, last: true, part: b"\xff" }.encode().unwrap());
            fake.socket.write_all(&old).unwrap();
            fake.socket.write_all(&old[..old.len() / 2]).unwrap();
            fake.epoch = epoch;
            fake.sequence -= 1;
            fake.say(&GuestMessage::Done { stream, last: true, part: &part });
            fake.say(&GuestMessage::Done { stream, last: true, part: &part });
        },
    );
    result.unwrap();
}

#[test]
fn a_guest_that_hangs_up_ends_everything() {
    let (error, link, _) = exchange(
        |link| link.ping(soon()).unwrap_err(),
        |fake, _| fake.socket.shutdown(std::net::Shutdown::Both).unwrap(),
    );
    assert!(matches!(error, LinkError::Closed { .. }), "{error:?}");
    assert!(matches!(link.ping(soon()), Err(LinkError::Closed { .. })));
    let error = link.hello(GuestClock::Keep, soon()).unwrap_err();
    assert!(matches!(error, LinkError::Closed { .. }), "{error:?}");
}

#[test]
fn requests_are_limited_in_number_and_size() {
    let (link, mut fake) = pair();
    let answered = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut handles = Vec::new();
            for _ in 0..MAX_STREAMS {
                handles.push(link.connect(80, soon()).unwrap());
            }
            let error = link.connect(80, soon()).unwrap_err();
            assert!(matches!(error, LinkError::Refused { .. }), "{error:?}");
            handles.pop();
            let again = link.connect(80, soon()).unwrap();
            answered.store(true, std::sync::atomic::Ordering::Relaxed);
            drop((handles, again));
        });
        for _ in 0..=MAX_STREAMS {
            let (stream, _) = fake.opened();
            fake.say(&GuestMessage::Started { stream });
        }
    });
    assert!(answered.into_inner());
    let error = link.pull(&"x".repeat(1_000_000), &mut Vec::new(), soon()).unwrap_err();
    assert!(error.to_string().contains("over the limit"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_from_a_guest_stop_the_link(noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (link, mut fake) = pair();
        fake.socket.write_all(&noise).unwrap();
        // In frames, too, so that the noise gets further.
        for chunk in noise.chunks(40) {
            let bytes = fake.frame(chunk);
            fake.socket.write_all(&bytes).unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| link.hello(GuestClock::Keep, soon()).unwrap());
            let old = fake.epoch;
            while fake.epoch == old {
                fake.welcome(GUEST_PROTOCOL);
            }
        });
    }
}
