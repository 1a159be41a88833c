//! The memory of machines, compared byte by byte.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const CHUNK: usize = 4 << 20;
const PAGE: usize = 4096;

/// Asserts that the guest memory of a stopped machine is what a memory image holds.
pub fn assert_same(pid: u32, image: &Path) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mapping = maps.lines().find(|line| line.ends_with(".ram")).unwrap();
    let (start, _) = mapping.split_once('-').unwrap();
    let start = u64::from_str_radix(start, 16).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let image = File::open(image).unwrap();
    let length = image.metadata().unwrap().len();
    let (mut held, mut kept) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut other = Vec::new();
    for at in (0..length).step_by(CHUNK) {
        let end = usize::try_from(length - at).unwrap().min(CHUNK);
        memory.read_exact_at(&mut held[..end], start + at).unwrap();
        image.read_exact_at(&mut kept[..end], at).unwrap();
        let pages = held[..end].chunks(PAGE).zip(kept[..end].chunks(PAGE)).zip(at / PAGE as u64..);
        other.extend(pages.filter(|((held, kept), _)| held != kept).map(|(_, page)| page));
    }
    assert!(
        other.is_empty(),
        "{} pages of {pid} differ: {:?}",
        other.len(),
        &other[..other.len().min(20)]
    );
}
