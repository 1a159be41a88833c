//! Entry points for fuzzers: functions of bytes that must neither panic nor take unbounded time or
//! memory. `cargo test` runs them over `corpus/`, and over mutations of it.

use std::path::PathBuf;

use pando_machine::UplinkPlan;
use pando_model::network::{ADDRESS, GATEWAY, PREFIX_BITS};

use crate::limits::{MAX_BACKING_NAME_BYTES, MAX_QMP_EVENTS};
use crate::qcow2;
use crate::qmp::{Command, Phase, Session};
use crate::uplink::{Addresses, Outgoing, may_leave};

/// What QEMU says, in two pieces, to a session that goes on asking.
pub fn qmp(bytes: &[u8]) {
    let mut session = Session::new();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for piece in [first, second] {
        let broken = session.push(piece).is_err();
        assert_eq!(broken, session.phase() == Phase::Broken);
        if let Ok(id) = session.request(&Command::new("query-status")) {
            assert_eq!(session.phase(), Phase::Ready);
            assert!(session.take_reply(id).is_none());
        }
        if broken {
            break;
        }
    }
    let events = std::iter::from_fn(|| session.next_event()).count();
    assert!(events <= MAX_QMP_EVENTS);
}

/// A qcow2 file.
pub fn qcow2(bytes: &[u8]) {
    let Ok(header) = qcow2::parse(bytes) else { return };
    assert!(header.cluster_bytes.is_power_of_two());
    if let Some(backing) = &header.backing {
        assert!(!header.is_self_contained());
        assert!((1..=MAX_BACKING_NAME_BYTES).contains(&backing.name.len()));
    }
}

/// What a guest sends to its uplink, in two pieces.
pub fn uplink(bytes: &[u8]) {
    let addresses = Addresses::new(&UplinkPlan {
        name: String::new(),
        address: ADDRESS,
        prefix_bits: PREFIX_BITS,
        gateway: GATEWAY,
        inside: Vec::new(),
        log: PathBuf::new(),
    });
    let (mut filter, mut allowed) = (Outgoing::new(addresses.clone()), Vec::new());
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let _ = filter.push(first, &mut allowed).and_then(|()| filter.push(second, &mut allowed));
    assert!(allowed.len() <= bytes.len());
    let mut rest = allowed.as_slice();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let frame = behind.split_at_checked(length);
        assert!(frame.is_some_and(|(frame, _)| may_leave(&addresses, frame)));
        rest = frame.map_or(&[], |(_, next)| next);
    }
    assert!(rest.is_empty());
}
