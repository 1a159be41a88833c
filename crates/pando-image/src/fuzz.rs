//! Fuzz targets: each takes any bytes and must return. `cargo test` runs them over the committed
//! corpus; libFuzzer can run them as they are.

use std::io::{Seek, Write};

use crate::manifest::Manifest;
use crate::modules::Modules;
use crate::{kernel, qcow2, sources, tree};

/// The first bytes of a disk image.
pub fn disk(bytes: &[u8]) {
    let _ = qcow2::inspect(bytes, bytes.len() as u64);
}

/// A kernel image.
pub fn kernel(bytes: &[u8]) {
    let _ = kernel::find_payload(bytes);
    let _ = kernel::release(bytes);
    let _ = kernel::has_pvh_entry(bytes);
}

/// An archive; what is taken must be writable again, and read as the same.
///
/// # Panics
/// If it is not, or no scratch file can be made.
#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
pub fn archive(bytes: &[u8]) {
    let scratch = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().expect("a scratch file");
        file.write_all(bytes).and_then(|()| file.rewind()).expect("a scratch file");
        file
    };
    let Ok((taken, _)) = tree::read_tar(scratch(bytes)) else { return };
    let mut written = Vec::new();
    taken.write_tar(&mut written, u64::MAX).expect("what was taken is writable");
    let (again, dropped) = tree::read_tar(scratch(&written)).expect("what was written is readable");
    assert_eq!(dropped.specials, 0, "no special file was written");
    assert!(
        again.iter().map(|(path, _)| path).eq(taken.iter().map(|(path, _)| path)),
        "the same entries come back"
    );
}

/// The lists beside kernel modules; one byte of zero parts them.
pub fn module_lists(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (dep, builtin) = text.split_once('\0').unwrap_or((&text, ""));
    let _ = Modules::parse(dep, builtin).for_initramfs();
}

/// A file of apt's sources, in either format.
pub fn package_sources(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let found = [sources::parse_list(&text), sources::parse_deb822(&text)].concat();
    let _ = sources::choose(&found, Some("bookworm"), "bookworm", None);
}

/// An image's manifest.
pub fn manifest(bytes: &[u8]) {
    let _ = Manifest::parse(bytes);
}
