//! The fuzz targets over their corpus: each entry whole, cut short, and with bytes changed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use pando_image::fuzz;

/// Runs `target` on each entry, on every `step`th prefix of it, and with every `step`th byte
/// changed.
fn run(name: &str, step: usize, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut seen = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let entry = std::fs::read(file.unwrap().path()).unwrap();
        seen += 1;
        target(&entry);
        for position in (0..entry.len()).step_by(step) {
            target(&entry[..position]);
            for byte in [0, 0xff, b'/', b'.', entry[position] ^ 1, entry[position].wrapping_add(1)]
            {
                let mut changed = entry.clone();
                changed[position] = byte;
                target(&changed);
            }
        }
    }
    assert!(seen > 0, "the corpus of {name} is missing");
}

#[test]
fn disks_take_any_bytes() {
    run("disk", 1, fuzz::disk);
}

#[test]
fn kernels_take_any_bytes() {
    run("kernel", 1, fuzz::kernel);
}

#[test]
fn archives_take_any_bytes() {
    run("archive", 37, fuzz::archive);
}

#[test]
fn module_lists_take_any_bytes() {
    run("module_lists", 1, fuzz::module_lists);
}

#[test]
fn package_sources_take_any_bytes() {
    run("package_sources", 1, fuzz::package_sources);
}

#[test]
fn manifests_take_any_bytes() {
    run("manifest", 1, fuzz::manifest);
}
