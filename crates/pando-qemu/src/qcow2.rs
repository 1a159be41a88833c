//! Disk overlays in qcow2, made and inspected without running `qemu-img` (which costs more than
//! the rest of a branch's disk work together).
//!
//! Overlays have 128 KiB clusters with extended L2 entries, that is 4 KiB sub-clusters: a small
//! first write copies 4 KiB and not a cluster. Layout of a new one:
//!
//! ```text
//! cluster 0  header, header extensions, backing file name
//! cluster 1  refcount table: one entry, to cluster 2
//! cluster 2  refcount block: clusters 0 to 3 are used once
//! cluster 3  L1 table: empty
//! ```
//!
//! [`inspect`] reads hostile files (imports): it is total, reads a bounded part and follows no
//! reference. Source: QEMU's `docs/interop/qcow2.txt`.

mod header;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use pando_model::ByteCount;

pub use self::header::{Backing, Header, HeaderError, parse};
use crate::limits::{MAX_BACKING_NAME_BYTES, MAX_QCOW2_HEADER_BYTES};

const CLUSTER_BITS: u32 = 17;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Bytes of an extended L2 entry.
const L2_ENTRY: u64 = 16;
/// Guest bytes that one L2 table maps.
const L2_COVERS: u64 = CLUSTER / L2_ENTRY * CLUSTER;
/// Largest virtual disk: its L1 table fits in one cluster.
const MAX_VIRTUAL: u64 = CLUSTER / 8 * L2_COVERS;

/// Format of the file below an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackingFormat {
    /// Another qcow2 file.
    Qcow2,
    /// Plain bytes.
    Raw,
}

impl BackingFormat {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// Why a qcow2 file could not be made or inspected.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The file.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The backing file's name does not fit or cannot mean what it says.
    #[error("`{name}` cannot be the name of a backing file")]
    BackingName {
        /// The name.
        name: String,
    },
    /// The virtual size.
    #[error("{size} is not a possible disk size (a multiple of 512 up to {max})", max = ByteCount(MAX_VIRTUAL))]
    VirtualSize {
        /// The size.
        size: ByteCount,
    },
    /// Not a proper qcow2 file.
    #[error("{path} is not a proper qcow2 file", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: HeaderError,
    },
}

/// Makes an empty overlay at `path`, which must not exist, over `backing`: the name as it is
/// stored, relative to the directory of `path` unless absolute. The backing file is not opened.
/// Nothing is synced.
///
/// # Errors
/// [`Qcow2Error`]; then there is no file.
pub fn create_overlay(
    path: &Path,
    backing: &str,
    format: BackingFormat,
    virtual_size: ByteCount,
) -> Result<(), Qcow2Error> {
    create(path, Some((backing, format)), virtual_size)
}

/// Makes an empty disk at `path`, which must not exist, over nothing.
///
/// # Errors
/// [`Qcow2Error`]; then there is no file.
pub fn create_empty(path: &Path, virtual_size: ByteCount) -> Result<(), Qcow2Error> {
    create(path, None, virtual_size)
}

fn create(
    path: &Path,
    backing: Option<(&str, BackingFormat)>,
    virtual_size: ByteCount,
) -> Result<(), Qcow2Error> {
    let header = first_cluster(backing, virtual_size)?;
    let failed = |source| Qcow2Error::File { action: "create", path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    write_clusters(&file, &header).map_err(|source| {
        // The error at hand is the one that matters.
        let _ = std::fs::remove_file(path);
        failed(source)
    })
}

fn write_clusters(file: &File, header: &[u8]) -> io::Result<()> {
    const CLUSTERS_USED: u64 = 4;
    file.set_len(CLUSTERS_USED * CLUSTER)?;
    file.write_all_at(header, 0)?;
    file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
    let used_once = 1u16.to_be_bytes().repeat(4);
    file.write_all_at(&used_once, 2 * CLUSTER)
}

fn first_cluster(
    backing: Option<(&str, BackingFormat)>,
    virtual_size: ByteCount,
) -> Result<Vec<u8>, Qcow2Error> {
    let size = virtual_size.bytes();
    if size == 0 || !size.is_multiple_of(512) || size > MAX_VIRTUAL {
        return Err(Qcow2Error::VirtualSize { size: virtual_size });
    }
    let l1_entries = u32::try_from(size.div_ceil(L2_COVERS))
        .map_err(|_| Qcow2Error::VirtualSize { size: virtual_size })?;
    let extension = backing.map(|(_, format)| format.as_str()).map_or_else(Vec::new, |format| {
        header::extension(header::EXTENSION_BACKING_FORMAT, format.as_bytes())
    });
    let end_of_extensions = header::extension(header::EXTENSION_END, &[]);
    let name = backing.map_or("", |(name, _)| name);
    let name_bytes = checked_name(name, backing.is_some())?;
    let name_offset = header::LENGTH as usize + extension.len() + end_of_extensions.len();

    let mut bytes = Vec::with_capacity(4096);
    bytes.extend(header::MAGIC);
    bytes.extend(3u32.to_be_bytes());
    bytes.extend(if backing.is_some() { name_offset as u64 } else { 0 }.to_be_bytes());
    bytes.extend(name_bytes.to_be_bytes());
    bytes.extend(CLUSTER_BITS.to_be_bytes());
    bytes.extend(size.to_be_bytes());
    bytes.extend(0u32.to_be_bytes()); // not encrypted
    bytes.extend(l1_entries.to_be_bytes());
    bytes.extend((3 * CLUSTER).to_be_bytes());
    bytes.extend(CLUSTER.to_be_bytes());
    bytes.extend(1u32.to_be_bytes()); // clusters of the refcount table
    bytes.extend([0; 12]); // no internal snapshots
    bytes.extend(header::INCOMPATIBLE_EXTENDED_L2.to_be_bytes());
    bytes.extend([0; 16]); // no compatible, no auto-clear features
    bytes.extend(4u32.to_be_bytes()); // refcounts have 16 bits
    bytes.extend(header::LENGTH.to_be_bytes());
    bytes.extend([0; 8]); // compression: zlib
    bytes.extend(extension);
    bytes.extend(end_of_extensions);
    bytes.extend(name.as_bytes());
    Ok(bytes)
}

/// Returns the length of a backing file name. One with a colon before any slash would be a
/// protocol to QEMU, and one with a line end or zero is nobody's intention.
fn checked_name(name: &str, wanted: bool) -> Result<u32, Qcow2Error> {
    let wrong = || Qcow2Error::BackingName { name: name.to_owned() };
    let first_part = name.split('/').next().unwrap_or_default();
    let is_odd = name.chars().any(char::is_control) || first_part.contains(':');
    if (name.is_empty() && wanted) || name.len() > MAX_BACKING_NAME_BYTES || is_odd {
        return Err(wrong());
    }
    u32::try_from(name.len()).map_err(|_| wrong())
}

/// Reads the header of a file that may be hostile.
///
/// # Errors
/// [`Qcow2Error::File`]; [`Qcow2Error::Header`] when it is not qcow2 or damaged.
pub fn inspect(path: &Path) -> Result<Header, Qcow2Error> {
    let failed = |source| Qcow2Error::File { action: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_QCOW2_HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(failed)?;
    parse(&bytes).map_err(|source| Qcow2Error::Header { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(size: u64) -> Header {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("o.qcow2");
        create_overlay(&path, "../base", BackingFormat::Raw, ByteCount(size)).unwrap();
        inspect(&path).unwrap()
    }

    #[test]
    fn an_overlay_reads_back() {
        let header = overlay(3 << 30);
        assert_eq!(header.version, 3);
        assert_eq!(header.virtual_size, ByteCount(3 << 30));
        let backing = Backing { name: b"../base".to_vec(), format: Some("raw".into()) };
        assert_eq!(header.backing, Some(backing));
        assert!(!header.encrypted && !header.external_data && !header.corrupt);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("o.qcow2");
        for size in [0, 511, MAX_VIRTUAL + 512, u64::MAX] {
            let made = create_empty(&path, ByteCount(size));
            assert!(matches!(made, Err(Qcow2Error::VirtualSize { .. })), "{size}");
            assert!(!path.exists());
        }
        create_empty(&path, ByteCount(MAX_VIRTUAL)).unwrap();
        assert_eq!(inspect(&path).unwrap().virtual_size, ByteCount(MAX_VIRTUAL));
    }

    #[test]
    fn odd_backing_names_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("o.qcow2");
        let long = "x".repeat(MAX_BACKING_NAME_BYTES + 1);
        for name in ["", "nbd://host/x", "json:{}", "a\nb", "a\0b", &long] {
            let made = create_overlay(&path, name, BackingFormat::Raw, ByteCount(512));
            assert!(matches!(made, Err(Qcow2Error::BackingName { .. })), "{name}");
        }
        create_overlay(&path, "./a:b", BackingFormat::Raw, ByteCount(512)).unwrap();
    }

    #[test]
    fn an_existing_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("o.qcow2");
        std::fs::write(&path, "precious").unwrap();
        assert!(create_empty(&path, ByteCount(512)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
