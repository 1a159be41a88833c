//! The fuzz targets over their corpus, each entry whole, cut short, and with bytes changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in a helper")]

use std::path::Path;

use pando_machine::Switches as _;
use pando_model::cluster::Uplink;
use pando_model::network::NetworkSpec;
use pando_switch::{UserSwitches, fuzz};

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = std::fs::read_dir(directory).unwrap();
    let bytes: Vec<Vec<u8>> =
        entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(bytes.len() >= 3, "the corpus of {name} is missing");
    bytes
}

/// Runs `target` on each entry, its prefixes, and copies with one byte replaced.
fn run(name: &str, target: fn(&[u8])) {
    for entry in corpus(name) {
        target(&entry);
        for end in 0..entry.len() {
            target(&entry[..end]);
        }
        for position in 0..entry.len() {
            for byte in [0x00, 0x7f, 0xff, entry[position] ^ 1, entry[position].wrapping_add(1)] {
                let mut changed = entry.clone();
                changed[position] = byte;
                target(&changed);
            }
        }
    }
}

#[test]
fn the_gateway_takes_any_bytes() {
    run("services", fuzz::services);
}

#[test]
fn a_state_takes_any_bytes() {
    run("state", fuzz::state);
}

#[test]
fn a_port_takes_any_bytes() {
    run("frames", fuzz::frames);
}

#[test]
fn the_states_of_the_corpus_are_ones() {
    let directory = tempfile::tempdir().unwrap();
    for (number, entry) in corpus("state").iter().enumerate() {
        let path = directory.path().join(number.to_string());
        std::fs::write(&path, entry).unwrap();
        let spec = NetworkSpec { faults: fuzz::state_faults(), ..fuzz::network(Uplink::Nat) };
        UserSwitches.open(&spec, Some(&path)).unwrap();
    }
}
