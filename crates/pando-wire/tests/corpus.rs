//! Runs every fuzz target over the committed corpus, and over each of its truncations.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use pando_wire::fuzz;

#[test]
fn fuzz_targets_hold_over_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for end in 0..=bytes.len() {
            let part = &bytes[..end];
            fuzz::frames_to_guest(part);
            fuzz::host_message(part);
            fuzz::guest_message(part);
            fuzz::frame_after_garbage(part);
        }
        seen += 1;
    }
    assert!(seen >= 10, "{seen} files in the corpus");
}
