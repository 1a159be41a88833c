//! Round trips of every kind of message, and hostile bytes.

use std::collections::BTreeMap;

use pando_model::guest::{Command, ExecStatus, Stdin};
use proptest::prelude::*;

use super::*;

fn exec() -> Request {
    Request::Exec(ExecSpec {
        command: Command::Argv(vec!["env".into(), "-0".into()]),
        env: BTreeMap::from([("A".into(), "1".into())]),
        cwd: Some("/tmp".into()),
        user: None,
        timeout_ms: 1000,
        terminal: Some(TerminalSize { columns: 80, rows: 24 }),
        stdin: Stdin::Empty,
    })
}

#[test]
fn host_messages_come_back() {
    let stream = StreamId(7);
    let messages = [
        HostMessage::Hello(Hello { protocol: 1, entropy: vec![0, 1, 255] }),
        HostMessage::Clock { unix_ns: u64::MAX },
        HostMessage::Open { stream, last: false, part: b"part" },
        HostMessage::Data { stream, bytes: &[0; 100] },
        HostMessage::Eof { stream },
        HostMessage::Credit { stream, bytes: 1 },
        HostMessage::Signal { stream, signal: 15 },
        HostMessage::Resize { stream, size: TerminalSize { columns: 1, rows: 2 } },
        HostMessage::Close { stream },
    ];
    for message in messages {
        let bytes = message.encode().unwrap();
        assert_eq!(HostMessage::decode(&bytes), Ok(message));
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(HostMessage::decode(&longer).is_err(), "trailing bytes are refused");
    }
}

#[test]
fn guest_messages_come_back() {
    let stream = StreamId(u32::MAX);
    let messages = [
        GuestMessage::Welcome(Welcome {
            protocol: 1,
            guest_version: "0.1.0".into(),
            boot_id: "b".into(),
            inherited: vec![Inherited { pid: 5, command: "sleep 9".into() }],
        }),
        GuestMessage::Started { stream },
        GuestMessage::Data { stream, output: OutputStream::Stderr, bytes: b"oh" },
        GuestMessage::Eof { stream },
        GuestMessage::Credit { stream, bytes: u32::MAX },
        GuestMessage::Done { stream, last: true, part: b"" },
        GuestMessage::Broken,
    ];
    for message in messages {
        let bytes = message.encode().unwrap();
        assert_eq!(GuestMessage::decode(&bytes), Ok(message));
    }
}

#[test]
fn requests_and_answers_come_back() {
    for request in [exec(), Request::Ping, Request::Pull { path: "/etc".into() }, Request::Scrub] {
        assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
    }
    let answers = [
        Ok(Reply::Exec(ExecOutcome { status: ExecStatus::Exited(-1), duration_us: 3 })),
        Ok(Reply::Listing(Listing { entries: vec![], truncated: true })),
        Err(Refusal::new(RefusalKind::NotFound, "no such user `x`")),
    ];
    for answer in answers {
        assert_eq!(decode_answer(&encode_answer(&answer).unwrap()), Ok(answer));
    }
}

#[test]
fn what_is_too_long_is_not_encoded() {
    let request = Request::Pull { path: "x".repeat(MAX_REQUEST_BYTES) };
    assert!(matches!(request.encode(), Err(MessageError::TooLong { what: "request", .. })));
    let chunk = vec![1; crate::limits::MAX_CHUNK_BYTES];
    let stream = StreamId(u32::MAX);
    assert!(HostMessage::Data { stream, bytes: &chunk }.encode().is_ok());
    let output = OutputStream::Stderr;
    assert!(GuestMessage::Data { stream, output, bytes: &chunk }.encode().is_ok());
    let over = vec![1; MAX_MESSAGE_BYTES];
    assert!(HostMessage::Data { stream, bytes: &over }.encode().is_err());
}

#[test]
fn a_refusal_is_cut_at_a_character() {
    let refusal = Refusal::new(RefusalKind::Io, "ü".repeat(MAX_REFUSAL_BYTES));
    assert_eq!(refusal.message.len(), MAX_REFUSAL_BYTES);
}

proptest! {
    #[test]
    fn hostile_bytes_decode_to_something_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        // What decodes must encode again: no value is outside what we could have sent.
        if let Ok(message) = HostMessage::decode(&bytes) {
            prop_assert!(message.encode().is_ok());
        }
        if let Ok(message) = GuestMessage::decode(&bytes) {
            prop_assert!(message.encode().is_ok());
        }
        let _ = Request::decode(&bytes);
        let _ = decode_answer(&bytes);
    }

    #[test]
    fn truncated_requests_are_refused(cut in 0usize..40) {
        let bytes = exec().encode().unwrap();
        prop_assume!(cut < bytes.len());
        prop_assert!(Request::decode(&bytes[..cut]).is_err());
    }
}
