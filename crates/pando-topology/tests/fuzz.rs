//! The fuzz target over its corpus, each entry whole, cut short, and with bytes changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in a helper")]

use std::path::Path;

use pando_topology::fuzz;

#[test]
fn a_topology_takes_any_bytes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/topology");
    let entries = std::fs::read_dir(directory).unwrap();
    let corpus: Vec<Vec<u8>> =
        entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(corpus.len() >= 3, "the corpus is missing");
    for entry in corpus {
        fuzz::topology(&entry);
        for end in 0..entry.len() {
            fuzz::topology(&entry[..end]);
        }
        for position in 0..entry.len() {
            for byte in
                [0x00, 0xff, entry[position] ^ 1, b'\n', b'\t', b':', b'-', b'*', b'"', b'|']
            {
                let mut changed = entry.clone();
                changed[position] = byte;
                fuzz::topology(&changed);
            }
        }
    }
}
