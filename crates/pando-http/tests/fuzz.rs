//! The fuzz targets over their corpus, each entry whole, cut short, and with bytes changed.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::Path;

use pando_http::fuzz;

/// What replaces a byte.
const CHANGES: &[u8] = &[0x00, 0x7f, 0xff, b'\n', b'{', b'"', b'%', b'&'];

/// Runs `target` on each entry, its prefixes, and copies with one byte replaced.
fn run(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = std::fs::read(entry.unwrap().path()).unwrap();
        count += 1;
        target(&entry);
        for position in 0..entry.len() {
            target(&entry[..position]);
            let neighbours = [entry[position] ^ 1, entry[position].wrapping_add(1)];
            for byte in CHANGES.iter().chain(&neighbours) {
                let mut changed = entry.clone();
                changed[position] = *byte;
                target(&changed);
            }
        }
    }
    assert!(count >= 3, "the corpus of {name} is missing");
}

#[test]
fn frames_takes_any_bytes() {
    run("frames", fuzz::frames);
}

#[test]
fn query_takes_any_bytes() {
    run("query", fuzz::query);
}

#[test]
fn door_takes_any_bytes() {
    run("door", fuzz::door);
}
