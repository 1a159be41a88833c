//! Flat memory: what machines map. Built from a chain of deltas, newest first, on top of a flat
//! image that exists already or of nothing. It is a cache: never synced, rebuilt at will, and
//! complete under its name or not there at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use crate::format::{DeltaReader, Entry, read_buffer};
use crate::{DeltaError, PAGE, limits};

/// Writes the flat memory of the first of `deltas` (newest first) to `target`, `ram` bytes long.
/// `below` is the flat memory that the last delta applies to; `None` means zeros.
///
/// # Errors
/// [`DeltaError::Corrupt`] when a delta is damaged or of another RAM size; [`DeltaError::File`].
/// Nothing is left at `target` then.
pub fn flatten(
    target: &Path,
    ram: u64,
    deltas: &[DeltaReader],
    below: Option<&Path>,
) -> Result<(), DeltaError> {
    let scratch = scratch_name(target);
    let result = build(&scratch, ram, deltas, below).and_then(|()| {
        fs::rename(&scratch, target).map_err(|e| DeltaError::file("rename", &scratch, e))
    });
    if result.is_err() {
        let _ = fs::remove_file(&scratch);
    }
    result
}

/// Makes a sparse file of `ram` zero bytes at `target`, unless it is there.
///
/// # Errors
/// [`DeltaError::File`].
pub fn zero(target: &Path, ram: u64) -> Result<(), DeltaError> {
    if fs::metadata(target).is_ok_and(|found| found.len() == ram) {
        return Ok(());
    }
    flatten(target, ram, &[], None)
}

fn scratch_name(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    target.with_file_name(name)
}

fn build(
    path: &Path,
    ram: u64,
    deltas: &[DeltaReader],
    below: Option<&Path>,
) -> Result<(), DeltaError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|e| DeltaError::file("create", path, e))?;
    let write_error = |e: io::Error| DeltaError::file("write", path, e);
    file.set_len(ram).map_err(write_error)?;
    if let Some(below) = below {
        clone_file(below, &file, ram).map_err(write_error)?;
    }
    let mut settled = Bitmap::new(ram / PAGE as u64);
    for delta in deltas {
        if delta.header().ram != ram {
            let detail = format!("it is of {} bytes of RAM, not {ram}", delta.header().ram);
            return Err(DeltaError::corrupt(path, detail));
        }
        apply(delta, &file, &mut settled, below.is_some(), path)?;
    }
    Ok(())
}

/// Writes those pages of `delta` that no newer delta settled.
fn apply(
    delta: &DeltaReader,
    file: &File,
    settled: &mut Bitmap,
    over_data: bool,
    path: &Path,
) -> Result<(), DeltaError> {
    let mut buffer = read_buffer()?;
    let wanted: Vec<Entry> =
        delta.entries().iter().copied().filter(|entry| settled.set(entry.page)).collect();
    let mut rest = wanted.as_slice();
    while let Some(first) = rest.first() {
        let length = run_length(rest).min(limits::WRITE_CHUNK / PAGE);
        let offset = u64::from(first.page) * PAGE as u64;
        let result = match first.data {
            Some(data) => {
                let bytes = &mut buffer[..length * PAGE];
                delta.read_data(data, bytes)?;
                file.write_all_at(bytes, offset)
            }
            // Over zeros there is nothing to do: newer deltas write elsewhere.
            None if over_data => punch(file, offset, (length * PAGE) as u64),
            None => Ok(()),
        };
        result.map_err(|e| DeltaError::file("write", path, e))?;
        rest = &rest[length..];
    }
    Ok(())
}

/// Returns how many entries from the first on are neighbours, in RAM and in the delta's data.
fn run_length(entries: &[Entry]) -> usize {
    let neighbours = |pair: &[Entry]| {
        let data = match (pair[0].data, pair[1].data) {
            (Some(a), Some(b)) => a + 1 == b,
            (None, None) => true,
            _ => false,
        };
        data && pair[0].page + 1 == pair[1].page
    };
    1 + entries.windows(2).take_while(|pair| neighbours(pair)).count()
}

fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, offset, length) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; usize::try_from(length).unwrap_or(PAGE)];
            file.write_all_at(&zeros, offset)
        }
        Err(error) => Err(error.into()),
    }
}

/// Copies `from` into the empty `to`: shared blocks where the file system can, else its data.
fn clone_file(from: &Path, to: &File, length: u64) -> io::Result<()> {
    let from = File::open(from)?;
    if from.metadata()?.len() != length {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the flat memory below is of another size",
        ));
    }
    if rustix::fs::ioctl_ficlone(to, &from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < length {
        let start = match seek(&from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(&from, SeekFrom::Hole(start))?;
        let (mut source, mut target) = (start, start);
        while source < end {
            let want = usize::try_from(end - source).unwrap_or(usize::MAX);
            let copied =
                rustix::fs::copy_file_range(&from, Some(&mut source), to, Some(&mut target), want)?;
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        at = end;
    }
    Ok(())
}

struct Bitmap(Vec<u64>);

impl Bitmap {
    fn new(bits: u64) -> Self {
        Self(vec![0; usize::try_from(bits.div_ceil(64)).unwrap_or(0)])
    }

    /// Sets a bit and returns whether it was clear.
    fn set(&mut self, bit: u32) -> bool {
        let (word, mask) = (bit as usize / 64, 1 << (bit % 64));
        let clear = self.0[word] & mask == 0;
        self.0[word] |= mask;
        clear
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PageRun;
    use crate::capture::Piece;
    use crate::format::DeltaHeader;
    use crate::writer::{DeltaWriter, PageDigests};
    use proptest::prelude::*;

    const PAGES: u32 = 32;

    fn delta(
        path: &Path,
        previous: &PageDigests,
        on_zero: bool,
        pages: &[(u32, u8)],
    ) -> PageDigests {
        let header = DeltaHeader { ram: u64::from(PAGES) * PAGE as u64 };
        let mut writer = DeltaWriter::create(path, header, previous, on_zero).unwrap();
        for (page, fill) in pages {
            let run = PageRun { start: *page, count: 1 };
            writer.append(&[Piece { run, at: 0 }], &[*fill; PAGE]).unwrap();
        }
        writer.finish().unwrap().digests
    }

    fn contents(path: &Path) -> Vec<u8> {
        fs::read(path)
            .unwrap()
            .chunks(PAGE)
            .map(|page| {
                assert!(page.iter().all(|byte| *byte == page[0]));
                page[0]
            })
            .collect()
    }

    #[test]
    fn a_page_zeroed_later_is_zero_over_a_flat_image_below() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let ram = u64::from(PAGES) * PAGE as u64;
        delta(&at("1"), &PageDigests::default(), true, &[(3, 3), (4, 4)]);
        flatten(&at("flat1"), ram, &[DeltaReader::open(&at("1"), None).unwrap()], None).unwrap();
        delta(&at("2"), &PageDigests::default(), false, &[(3, 0)]);
        let second = [DeltaReader::open(&at("2"), None).unwrap()];
        flatten(&at("flat2"), ram, &second, Some(&at("flat1"))).unwrap();
        assert_eq!(contents(&at("flat2"))[3..5], [0, 4]);
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("flat");
        let missing = dir.path().join("missing");
        assert!(flatten(&target, PAGE as u64, &[], Some(&missing)).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_chain_flattens_to_what_the_memory_held(
            commits in proptest::collection::vec(
                proptest::collection::vec((0..PAGES, 0u8..4), 0..12), 1..6),
            flat_at in 0usize..6,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let ram = u64::from(PAGES) * PAGE as u64;
            let mut memory = vec![0u8; PAGES as usize];
            let mut written = std::collections::BTreeSet::new();
            let mut digests = PageDigests::default();
            let mut below = None;
            let mut since = Vec::new();
            for (number, writes) in commits.iter().enumerate() {
                for (page, fill) in writes {
                    memory[*page as usize] = *fill;
                    written.insert(*page);
                }
                let pages: Vec<(u32, u8)> =
                    written.iter().map(|page| (*page, memory[*page as usize])).collect();
                let path = dir.path().join(format!("{number}.pages"));
                digests = delta(&path, &digests, true, &pages);
                since.insert(0, path);
                let readers: Vec<DeltaReader> =
                    since.iter().map(|path| DeltaReader::open(path, None).unwrap()).collect();
                let target = dir.path().join(format!("{number}.ram"));
                flatten(&target, ram, &readers, below.as_deref()).unwrap();
                prop_assert_eq!(contents(&target), memory.clone());
                if number == flat_at {
                    below = Some(target);
                    since.clear();
                }
            }
        }
    }
}
