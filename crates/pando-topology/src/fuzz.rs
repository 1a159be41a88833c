//! The entry point for fuzzers: a function of bytes that must neither panic nor take unbounded time
//! or memory. `cargo test` runs it over `corpus/`, and over mutations of it.

use pando_model::cluster::SshDefaults;

use crate::limits::Limits;
use crate::parse::{parse, parse_bytes};

/// A topology's text. What is accepted keeps its promises: it is written so that it reads back as
/// the same, and nothing in it is beyond the limits.
#[expect(clippy::panic, reason = "a fuzzer finds defects by panics")]
pub fn topology(bytes: &[u8]) {
    let limits = Limits::default();
    let mut topology = match parse_bytes(bytes, &limits, &SshDefaults::default()) {
        Ok(topology) => topology,
        Err(errors) => {
            assert!((1..=limits.errors).contains(&errors.errors.len()));
            return;
        }
    };
    assert!((1..=limits.nodes).contains(&topology.nodes.len()));
    let mut addresses = std::collections::BTreeSet::new();
    for nic in topology.nodes.iter().flat_map(|node| &node.interfaces) {
        assert!(addresses.insert(nic.address), "{} is there twice", nic.address);
    }
    topology.notes.clear();
    let text = topology.to_yaml();
    match parse(&text, &limits, &SshDefaults::default()) {
        Ok(mut again) => {
            again.notes.clear();
            assert_eq!(again, topology, "{text}");
        }
        Err(errors) => panic!("{errors}\n{text}"),
    }
}
