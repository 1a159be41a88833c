//! Writing a delta: hash the captured pages on several threads, leave out what the commit before
//! already has, write the rest, make it durable.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use crate::capture::{Piece, threads_for};
use crate::format::{
    DeltaHeader, Entry, PageDigest, ZERO_PAGE, digest_page, encode_index, encode_trailer,
    open_direct,
};
use crate::{DeltaError, PAGE, limits};

/// What a machine's written pages held at its latest commit: the keeper's memory of what need not
/// be written again. 20 bytes a page. Those that the process gave back since must be read again, for
/// their contents changed without a write.
#[derive(Debug, Clone, Default)]
pub struct PageDigests {
    sorted: Vec<(u32, PageDigest)>,
}

impl PageDigests {
    /// Returns the digest that page `page` had, if it was written by then.
    pub fn get(&self, page: u32) -> Option<&PageDigest> {
        let at = self.sorted.binary_search_by_key(&page, |(page, _)| *page).ok()?;
        Some(&self.sorted[at].1)
    }

    /// Returns the pages that are known, in ascending order.
    pub fn pages(&self) -> impl Iterator<Item = u32> {
        self.sorted.iter().map(|(page, _)| *page)
    }

    /// Returns these, with what is known of some pages anew.
    fn overlaid(&self, seen: Vec<(u32, PageDigest)>) -> Self {
        let mut sorted = Vec::with_capacity(self.sorted.len().max(seen.len()));
        let mut before = self.sorted.iter().copied().peekable();
        for new in seen {
            while let Some(old) = before.next_if(|(page, _)| *page < new.0) {
                sorted.push(old);
            }
            before.next_if(|(page, _)| *page == new.0);
            sorted.push(new);
        }
        sorted.extend(before);
        Self { sorted }
    }

    /// Returns the number of pages known.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Returns whether no page is known.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }
}

/// What was written.
#[derive(Debug, Clone)]
pub struct DeltaSummary {
    /// BLAKE3 of the index, in hex.
    pub digest: String,
    /// Pages in the delta, zero pages included.
    pub pages: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// What the machine's written pages hold at this commit.
    pub digests: PageDigests,
}

/// Writes one delta file.
///
/// Pages go to the disk past the page cache where the file system can: nobody reads them soon, and
/// memory for a second copy of them would cost more than the writing (measured: 2 to 4 times).
pub struct DeltaWriter<'a> {
    path: PathBuf,
    file: File,
    /// The same file, past the page cache.
    direct: Option<File>,
    header: DeltaHeader,
    previous: &'a PageDigests,
    on_zero: bool,
    entries: Vec<Entry>,
    seen: Vec<(u32, PageDigest)>,
    data_pages: u32,
    written: u64,
}

impl<'a> DeltaWriter<'a> {
    /// Creates the file at `path`. `previous` is what the commit that this delta applies to held of
    /// the same machine's pages; `on_zero` says that pages unknown to it are zero there.
    ///
    /// # Errors
    /// [`DeltaError::File`].
    pub fn create(
        path: &Path,
        header: DeltaHeader,
        previous: &'a PageDigests,
        on_zero: bool,
    ) -> Result<Self, DeltaError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(|e| DeltaError::file("create", path, e))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            direct: open_direct(OpenOptions::new().write(true), path),
            header,
            previous,
            on_zero,
            entries: Vec::new(),
            seen: Vec::with_capacity(previous.len()),
            data_pages: 0,
            written: 0,
        })
    }

    /// Adds captured pages, which are in `data` where `pieces` say; they must come in ascending order
    /// over all calls. Each part is hashed while the one before it is written.
    ///
    /// # Errors
    /// [`DeltaError::File`], also when the disk is full.
    pub fn append(&mut self, pieces: &[Piece], data: &[u8]) -> Result<(), DeltaError> {
        let pages: Vec<(u32, usize)> = pieces
            .iter()
            .flat_map(|piece| piece.run.pages().zip((piece.at as usize * PAGE..).step_by(PAGE)))
            .collect();
        // Stretches of `data`.
        let mut changed: Vec<Range<usize>> = Vec::new();
        for pages in pages.chunks(limits::HASH_CHUNK / PAGE) {
            let (digests, written) = hash_pages(pages, data, || self.write_pages(&changed, data));
            written?;
            changed.clear();
            for ((page, at), digest) in pages.iter().zip(digests) {
                if self.add(*page, digest)? {
                    match changed.last_mut() {
                        Some(last) if last.end == *at => last.end += PAGE,
                        _ => changed.push(*at..*at + PAGE),
                    }
                }
            }
        }
        self.write_pages(&changed, data)
    }

    /// Notes a page and returns whether its data must be written.
    fn add(&mut self, page: u32, digest: PageDigest) -> Result<bool, DeltaError> {
        if self.seen.last().is_some_and(|(last, _)| *last >= page) {
            let detail = format!("page {page} was captured out of order");
            return Err(DeltaError::corrupt(&self.path, detail));
        }
        self.seen.push((page, digest));
        let unchanged = match self.previous.get(page) {
            Some(before) => *before == digest,
            None => self.on_zero && digest == ZERO_PAGE,
        };
        if unchanged {
            return Ok(false);
        }
        let data = (digest != ZERO_PAGE).then_some(self.data_pages);
        self.data_pages += u32::from(data.is_some());
        self.entries.push(Entry { page, data, digest });
        Ok(data.is_some())
    }

    fn write_pages(&mut self, stretches: &[Range<usize>], data: &[u8]) -> Result<(), DeltaError> {
        for batch in stretches.chunks(limits::IOV_MAX) {
            let batch: Vec<&[u8]> = batch.iter().map(|range| &data[range.clone()]).collect();
            let length = batch.iter().map(|pages| pages.len() as u64).sum();
            let direct = self.direct.as_ref().map(|file| write_all(file, &batch, self.written));
            match direct {
                Some(Ok(())) => {}
                // The file system has let us open it so, and does not write so; or a short write
                // has left a rest that is not aligned.
                Some(Err(error)) if error.kind() != io::ErrorKind::InvalidInput => {
                    return Err(DeltaError::file("write", &self.path, error));
                }
                _ => {
                    self.direct = None;
                    write_all(&self.file, &batch, self.written)
                        .map_err(|e| DeltaError::file("write", &self.path, e))?;
                    start_writeback(&self.file, self.written, length);
                }
            }
            self.written += length;
        }
        Ok(())
    }

    /// Writes the index and makes the file durable (`fsync`); its directory is the caller's.
    ///
    /// # Errors
    /// [`DeltaError::File`].
    pub fn finish(mut self) -> Result<DeltaSummary, DeltaError> {
        let index = encode_index(self.header, &self.entries);
        let trailer = encode_trailer(self.written, index.len() as u64);
        for bytes in [index.as_slice(), trailer.as_slice()] {
            self.file
                .write_all_at(bytes, self.written)
                .map_err(|e| DeltaError::file("write", &self.path, e))?;
            self.written += bytes.len() as u64;
        }
        self.file.sync_data().map_err(|e| DeltaError::file("sync", &self.path, e))?;
        Ok(DeltaSummary {
            digest: blake3::hash(&index).to_hex().to_string(),
            pages: self.entries.len() as u64,
            bytes: self.written,
            digests: self.previous.overlaid(self.seen),
        })
    }
}

/// Writes all of `parts`, one after another, from `at` on.
fn write_all(file: &File, parts: &[&[u8]], mut at: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let written = match rustix::io::pwritev(file, rest, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(rustix::io::Errno::INTR) => continue,
            written => written?,
        };
        at += written as u64;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

/// Asks the kernel to begin writing a range, so that the `fsync` at the end finds little to do.
/// Only advice: a failure is seen by that `fsync`.
fn start_writeback(file: &File, offset: u64, length: u64) {
    #[expect(unsafe_code, reason = "neither rustix nor nix wraps sync_file_range")]
    fn advise(file: &File, offset: i64, length: i64) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        // SAFETY: plain integers and an open descriptor; the call touches no memory of ours.
        let result = unsafe {
            nix::libc::sync_file_range(
                file.as_raw_fd(),
                offset,
                length,
                nix::libc::SYNC_FILE_RANGE_WRITE,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    if let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) {
        let _ = advise(file, offset, length);
    }
}

/// Returns the digests of pages, given as numbers and places in `data`, and what `beside` returned,
/// which runs meanwhile.
fn hash_pages<T>(
    pages: &[(u32, usize)],
    data: &[u8],
    beside: impl FnOnce() -> T,
) -> (Vec<PageDigest>, T) {
    let threads = threads_for(pages.len() * PAGE);
    let share = pages.len().div_ceil(threads).max(1);
    let mut digests = vec![ZERO_PAGE; pages.len()];
    let result = thread::scope(|scope| {
        for (out, pages) in digests.chunks_mut(share).zip(pages.chunks(share)) {
            scope.spawn(move || {
                for (digest, (_, at)) in out.iter_mut().zip(pages) {
                    *digest = digest_page(&data[*at..at + PAGE]);
                }
            });
        }
        beside()
    });
    (digests, result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PageRun;
    use crate::format::DeltaReader;

    fn write(
        path: &Path,
        previous: &PageDigests,
        on_zero: bool,
        pages: &[(u32, u8)],
    ) -> DeltaSummary {
        let header = DeltaHeader { ram: 64 * PAGE as u64 };
        let mut writer = DeltaWriter::create(path, header, previous, on_zero).unwrap();
        for (page, fill) in pages {
            let run = PageRun { start: *page, count: 1 };
            writer.append(&[Piece { run, at: 0 }], &[*fill; PAGE]).unwrap();
        }
        writer.finish().unwrap()
    }

    fn pages_of(path: &Path) -> Vec<u32> {
        DeltaReader::open(path, None).unwrap().entries().iter().map(|e| e.page).collect()
    }

    #[test]
    fn only_what_changed_since_the_commit_before_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        let one = write(&first, &PageDigests::default(), true, &[(1, 1), (2, 2), (3, 0), (9, 9)]);
        assert_eq!(pages_of(&first), [1, 2, 9], "a zero page on zero memory is no change");
        let two = write(&second, &one.digests, true, &[(1, 1), (2, 5), (3, 0), (4, 4), (9, 0)]);
        assert_eq!(pages_of(&second), [2, 4, 9], "9 became zero and must say so");
        assert_eq!(two.digests.len(), 5);
        DeltaReader::open(&second, Some(&two.digest)).unwrap().verify().unwrap();
    }

    #[test]
    fn what_changed_is_written_the_same_from_any_memory() {
        let dir = tempfile::tempdir().unwrap();
        // More ranges than one write takes, and an odd page now and then that is zero or not new.
        let pages = 5000;
        let mut aligned = crate::PageBuffer::new(pages).unwrap();
        for (number, page) in aligned.chunks_exact_mut(PAGE).enumerate() {
            page.fill(if number % 3 == 0 { 0 } else { u8::try_from(number % 251).unwrap() });
        }
        let mut shifted = vec![0; pages * PAGE + 1];
        shifted[1..].copy_from_slice(&aligned);
        let run = PageRun { start: 7, count: u32::try_from(pages).unwrap() };
        let header = DeltaHeader { ram: 1 << 30 };
        let before = PageDigests::default();
        let files = [("aligned", &aligned[..]), ("shifted", &shifted[1..])].map(|(name, data)| {
            let path = dir.path().join(name);
            let mut writer = DeltaWriter::create(&path, header, &before, false).unwrap();
            writer.append(&[Piece { run, at: 0 }], data).unwrap();
            writer.finish().unwrap();
            DeltaReader::open(&path, None).unwrap().verify().unwrap();
            std::fs::read(path).unwrap()
        });
        assert!(files[0] == files[1]);
    }

    #[test]
    fn what_was_not_read_again_stays_known() {
        let dir = tempfile::tempdir().unwrap();
        let one = write(&dir.path().join("1"), &PageDigests::default(), true, &[(1, 1), (5, 5)]);
        let two = write(&dir.path().join("2"), &one.digests, true, &[(0, 4), (5, 6), (7, 7)]);
        assert!(two.digests.pages().eq([0, 1, 5, 7]));
        assert_eq!(two.digests.get(1), one.digests.get(1));
        assert_ne!(two.digests.get(5), one.digests.get(5));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let summary = write(&path, &PageDigests::default(), true, &[(1, 1), (2, 2)]);
        let good = std::fs::read(&path).unwrap();
        for at in [0, PAGE, 2 * PAGE + 9, 2 * PAGE + 30, good.len() - 20, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let result =
                DeltaReader::open(&path, Some(&summary.digest)).and_then(|reader| reader.verify());
            assert!(matches!(result, Err(DeltaError::Corrupt { .. })), "byte {at}: {result:?}");
        }
    }
}
