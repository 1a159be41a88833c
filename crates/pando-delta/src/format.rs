//! The delta file.
//!
//! ```text
//!   page data     n × 4096 bytes, in the order of the index entries that have data
//!   index         header, then one entry of 24 bytes per page, sorted by page number
//!   trailer       24 bytes: index offset u64, index length u64, magic
//! ```
//! All integers are little endian. The index is at the end because which pages are written is known
//! only after they were hashed. The file's digest is the BLAKE3 of the index, and the index holds
//! a digest of every page, so one number vouches for every byte.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{DeltaError, PAGE, PageBuffer, limits};

/// Bytes of a page digest: BLAKE3, cut to 128 bits (collisions need 2^64 pages).
pub const DIGEST_BYTES: usize = 16;
const TRAILER: usize = 24;
const HEADER: usize = 24;
const ENTRY: usize = 24;
const INDEX_MAGIC: &[u8; 8] = b"pando-d1";
const NO_DATA: u32 = u32::MAX;

/// A page's digest; all zero bytes stand for a page of zeros.
pub type PageDigest = [u8; DIGEST_BYTES];

/// The digest that stands for a page of zeros.
pub const ZERO_PAGE: PageDigest = [0; DIGEST_BYTES];

/// Returns the digest of a page.
pub fn digest_page(page: &[u8]) -> PageDigest {
    if is_zero(page) {
        return ZERO_PAGE;
    }
    let mut digest = ZERO_PAGE;
    digest.copy_from_slice(&blake3::hash(page).as_bytes()[..DIGEST_BYTES]);
    digest
}

/// Returns whether a page is all zeros.
pub fn is_zero(page: &[u8]) -> bool {
    let (words, tail) = page.as_chunks::<8>();
    words.iter().all(|word| *word == [0; 8]) && tail.iter().all(|byte| *byte == 0)
}

/// Opens a file so that reads and writes pass the page cache, if its file system can.
pub(crate) fn open_direct(options: &mut OpenOptions, path: &Path) -> Option<File> {
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    options.custom_flags(flags).open(path).ok()
}

/// Returns a buffer to read pages into.
pub(crate) fn read_buffer() -> Result<PageBuffer, DeltaError> {
    PageBuffer::new(limits::WRITE_CHUNK / PAGE).map_err(|source| DeltaError::Memory { source })
}

/// What a delta applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaHeader {
    /// RAM size in bytes.
    pub ram: u64,
}

/// One page of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Page number in guest RAM.
    pub page: u32,
    /// Which data page of the file has its contents; `None` for a page of zeros.
    pub data: Option<u32>,
    /// The digest of its contents.
    pub digest: PageDigest,
}

/// Returns the bytes of an index.
pub(crate) fn encode_index(header: DeltaHeader, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + entries.len() * ENTRY);
    bytes.extend_from_slice(INDEX_MAGIC);
    bytes.extend_from_slice(&header.ram.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    for entry in entries {
        bytes.extend_from_slice(&entry.page.to_le_bytes());
        bytes.extend_from_slice(&entry.data.unwrap_or(NO_DATA).to_le_bytes());
        bytes.extend_from_slice(&entry.digest);
    }
    bytes
}

/// Returns the trailer for an index of `length` bytes at `offset`.
pub(crate) fn encode_trailer(offset: u64, length: u64) -> [u8; TRAILER] {
    let mut bytes = [0; TRAILER];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes[8..16].copy_from_slice(&length.to_le_bytes());
    bytes[16..].copy_from_slice(INDEX_MAGIC);
    bytes
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Returns the header and entries of an index, or what is wrong with it. Total: any bytes.
pub fn parse_index(bytes: &[u8]) -> Result<(DeltaHeader, Vec<Entry>), String> {
    if bytes.get(..8) != Some(INDEX_MAGIC) {
        return Err("it is not an index of this version".into());
    }
    let (Some(ram), Some(count)) = (u64_at(bytes, 8), u64_at(bytes, 16)) else {
        return Err("its header is cut short".into());
    };
    if ram > limits::MAX_RAM || ram % PAGE as u64 != 0 {
        return Err(format!("its RAM size of {ram} is impossible"));
    }
    let body = bytes.get(HEADER..).unwrap_or_default();
    if count.checked_mul(ENTRY as u64) != Some(body.len() as u64) {
        return Err(format!("it has {} bytes for {count} entries", body.len()));
    }
    let mut entries = Vec::with_capacity(body.len() / ENTRY);
    let mut next = 0u64;
    let mut data_pages = 0u32;
    for chunk in body.chunks_exact(ENTRY) {
        let (Some(page), Some(data)) = (u32_at(chunk, 0), u32_at(chunk, 4)) else {
            return Err("an entry is cut short".into());
        };
        if u64::from(page) < next || u64::from(page) >= ram / PAGE as u64 {
            return Err(format!("page {page} is out of order or outside the RAM"));
        }
        next = u64::from(page) + 1;
        let mut digest = ZERO_PAGE;
        digest.copy_from_slice(&chunk[8..ENTRY]);
        let data = if data == NO_DATA { None } else { Some(data) };
        match data {
            None if digest != ZERO_PAGE => return Err(format!("page {page} has no data")),
            Some(data) if data != data_pages => return Err(format!("page {page} has odd data")),
            Some(_) => data_pages += 1,
            None => {}
        }
        entries.push(Entry { page, data, digest });
    }
    Ok((DeltaHeader { ram }, entries))
}

/// A delta file that was opened and whose index was checked.
#[derive(Debug)]
pub struct DeltaReader {
    path: PathBuf,
    file: File,
    /// The same file, past the page cache, for reading each page once.
    direct: Option<File>,
    header: DeltaHeader,
    entries: Vec<Entry>,
    digest: String,
}

impl DeltaReader {
    /// Opens a delta file and reads its index.
    ///
    /// # Errors
    /// [`DeltaError::File`]; [`DeltaError::Corrupt`] when it is no delta file, or not the one with
    /// this digest (hex).
    pub fn open(path: &Path, expected_digest: Option<&str>) -> Result<Self, DeltaError> {
        let file = File::open(path).map_err(|e| DeltaError::file("open", path, e))?;
        let length = file.metadata().map_err(|e| DeltaError::file("read", path, e))?.len();
        let corrupt = |detail: &str| DeltaError::corrupt(path, detail);
        let trailer_at =
            length.checked_sub(TRAILER as u64).ok_or_else(|| corrupt("it is too short"))?;
        let mut trailer = [0; TRAILER];
        let read = |buffer: &mut [u8], at| {
            file.read_exact_at(buffer, at).map_err(|e| DeltaError::file("read", path, e))
        };
        read(&mut trailer, trailer_at)?;
        let (Some(offset), Some(index_length)) = (u64_at(&trailer, 0), u64_at(&trailer, 8)) else {
            return Err(corrupt("its trailer is cut short"));
        };
        if &trailer[16..] != INDEX_MAGIC || offset.checked_add(index_length) != Some(trailer_at) {
            return Err(corrupt("its trailer is not one"));
        }
        let mut index = vec![0; usize::try_from(index_length).map_err(|_| corrupt("too long"))?];
        read(&mut index, offset)?;
        let digest = blake3::hash(&index).to_hex().to_string();
        if expected_digest.is_some_and(|expected| expected != digest) {
            return Err(corrupt("its index does not have the recorded digest"));
        }
        let (header, entries) =
            parse_index(&index).map_err(|detail| DeltaError::corrupt(path, detail))?;
        let data_pages = entries.iter().filter(|entry| entry.data.is_some()).count();
        if (data_pages * PAGE) as u64 != offset {
            return Err(corrupt("it has another number of pages than its index"));
        }
        let direct = open_direct(OpenOptions::new().read(true), path);
        Ok(Self { path: path.to_owned(), file, direct, header, entries, digest })
    }

    /// What it applies to.
    pub fn header(&self) -> DeltaHeader {
        self.header
    }

    /// Its pages, by page number.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The digest of its index, in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Reads `buffer.len() / PAGE` pages of data, from data page `first` on.
    pub(crate) fn read_data(&self, first: u32, buffer: &mut [u8]) -> Result<(), DeltaError> {
        let offset = u64::from(first) * PAGE as u64;
        let direct = self.direct.as_ref().map(|file| file.read_exact_at(buffer, offset));
        // Whatever is wrong with the direct way, the other one says it better.
        if let Some(Ok(())) = direct {
            return Ok(());
        }
        self.file.read_exact_at(buffer, offset).map_err(|e| DeltaError::file("read", &self.path, e))
    }

    /// Checks every page against its digest.
    ///
    /// # Errors
    /// [`DeltaError::Corrupt`] names the first page that differs; [`DeltaError::File`],
    /// [`DeltaError::Memory`].
    pub fn verify(&self) -> Result<(), DeltaError> {
        let with_data: Vec<&Entry> = self.entries.iter().filter(|e| e.data.is_some()).collect();
        let mut buffer = read_buffer()?;
        for (chunk_number, chunk) in with_data.chunks(limits::WRITE_CHUNK / PAGE).enumerate() {
            let bytes = &mut buffer[..chunk.len() * PAGE];
            let first = chunk_number * (limits::WRITE_CHUNK / PAGE);
            self.read_data(u32::try_from(first).unwrap_or(u32::MAX), bytes)?;
            for (entry, page) in chunk.iter().zip(bytes.chunks_exact(PAGE)) {
                if digest_page(page) != entry.digest {
                    let detail = format!("page {} does not have its digest", entry.page);
                    return Err(DeltaError::corrupt(&self.path, detail));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_pages_are_seen() {
        let mut page = [0u8; PAGE];
        assert_eq!(digest_page(&page), ZERO_PAGE);
        page[PAGE - 1] = 1;
        assert_ne!(digest_page(&page), ZERO_PAGE);
    }

    proptest! {
        #[test]
        fn parsing_an_index_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = INDEX_MAGIC.to_vec();
            framed.extend_from_slice(&bytes);
            let _ = parse_index(&bytes);
            let _ = parse_index(&framed);
        }

        #[test]
        fn an_index_reads_back(pages in proptest::collection::btree_map(0u32..1000, any::<u8>(), 0..50)) {
            let mut data = 0;
            let entries: Vec<Entry> = pages.iter().map(|(page, fill)| {
                if *fill == 0 {
                    Entry { page: *page, data: None, digest: ZERO_PAGE }
                } else {
                    data += 1;
                    Entry { page: *page, data: Some(data - 1), digest: [*fill; 16] }
                }
            }).collect();
            let header = DeltaHeader { ram: 1000 * PAGE as u64 };
            let bytes = encode_index(header, &entries);
            prop_assert_eq!(parse_index(&bytes).unwrap(), (header, entries));
        }
    }
}
