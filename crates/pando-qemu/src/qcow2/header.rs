//! The qcow2 header: a total, bounded parser of hostile bytes.

use pando_model::ByteCount;

use crate::limits::MAX_BACKING_NAME_BYTES;

pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Bytes of the header that we write, with the compression type and its padding.
pub(super) const LENGTH: u32 = 112;
pub(super) const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_EXTERNAL_DATA: u64 = 1 << 2;
/// Dirty, corrupt, external data, compression type, extended L2.
const INCOMPATIBLE_KNOWN: u64 = 0b1_1111;
pub(super) const EXTENSION_END: u32 = 0;
pub(super) const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

/// What a qcow2 header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Size of the disk that it describes.
    pub virtual_size: ByteCount,
    /// Bytes in a cluster: 512 to 2 MiB, a power of two.
    pub cluster_bytes: u32,
    /// The file below it.
    pub backing: Option<Backing>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Whether its data are in another file, which its header names.
    pub external_data: bool,
    /// Whether it was marked as corrupt.
    pub corrupt: bool,
    /// Incompatible features that this parser does not know.
    pub unknown_features: u64,
    /// Number of internal snapshots.
    pub snapshots: u32,
}

/// A reference to a backing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Its name as stored; for hostile files, any bytes.
    pub name: Vec<u8>,
    /// Its format, where the file says so.
    pub format: Option<String>,
}

impl Header {
    /// Returns whether the file stands alone: it refers to no other file and can be read without a
    /// secret. The only kind of file that is safe to import.
    pub const fn is_self_contained(&self) -> bool {
        self.backing.is_none()
            && !self.external_data
            && !self.encrypted
            && !self.corrupt
            && self.unknown_features == 0
    }
}

/// Why bytes are not a qcow2 header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Another format.
    #[error("it does not start as qcow2 does")]
    Magic,
    /// The bytes end too soon.
    #[error("it ends within its header")]
    Truncated,
    /// A version of the format that does not exist or is not supported.
    #[error("its format version is {0}, but must be 2 or 3")]
    Version(u32),
    /// A field with an impossible value.
    #[error("its {field} is {value}, which is impossible")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Big-endian fields at given offsets.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn slice(&self, offset: u64, length: u64) -> Result<&'a [u8], HeaderError> {
        let range = || {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            self.0.get(start..end)
        };
        range().ok_or(HeaderError::Truncated)
    }

    fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], HeaderError> {
        let slice = self.slice(offset, N as u64)?;
        slice.try_into().map_err(|_| HeaderError::Truncated)
    }

    fn u32(&self, offset: u64) -> Result<u32, HeaderError> {
        self.array(offset).map(u32::from_be_bytes)
    }

    fn u64(&self, offset: u64) -> Result<u64, HeaderError> {
        self.array(offset).map(u64::from_be_bytes)
    }
}

/// Reads a header from the start of a file.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    let bytes = Bytes(bytes);
    if bytes.slice(0, 4).map_err(|_| HeaderError::Magic)? != MAGIC {
        return Err(HeaderError::Magic);
    }
    let version = bytes.u32(4)?;
    if !(2..=3).contains(&version) {
        return Err(HeaderError::Version(version));
    }
    let cluster_bits = bytes.u32(20)?;
    if !(9..=21).contains(&cluster_bits) {
        let value = cluster_bits.into();
        return Err(HeaderError::Field { field: "number of cluster bits", value });
    }
    let virtual_size = bytes.u64(24)?;
    if i64::try_from(virtual_size).is_err() {
        return Err(HeaderError::Field { field: "virtual size", value: virtual_size });
    }
    let crypt_method = bytes.u32(32)?;
    let snapshots = bytes.u32(60)?;
    let (features, length) = match version {
        2 => (0, 72),
        _ => (bytes.u64(72)?, bytes.u32(100)?),
    };
    let cluster_bytes = 1 << cluster_bits;
    if length < 72 || (version == 3 && length < 104) || length > cluster_bytes {
        return Err(HeaderError::Field { field: "header length", value: length.into() });
    }
    Ok(Header {
        version,
        virtual_size: ByteCount(virtual_size),
        cluster_bytes,
        backing: backing(&bytes, u64::from(length), u64::from(cluster_bytes))?,
        encrypted: crypt_method != 0,
        external_data: features & INCOMPATIBLE_EXTERNAL_DATA != 0,
        corrupt: features & INCOMPATIBLE_CORRUPT != 0,
        unknown_features: features & !INCOMPATIBLE_KNOWN,
        snapshots,
    })
}

fn backing(
    bytes: &Bytes<'_>,
    header_length: u64,
    cluster_bytes: u64,
) -> Result<Option<Backing>, HeaderError> {
    let offset = bytes.u64(8)?;
    let length = u64::from(bytes.u32(16)?);
    if offset == 0 {
        return Ok(None);
    }
    if length == 0 || length > MAX_BACKING_NAME_BYTES as u64 {
        return Err(HeaderError::Field { field: "backing file name's length", value: length });
    }
    if offset < header_length || offset > cluster_bytes - length.min(cluster_bytes) {
        return Err(HeaderError::Field { field: "backing file name's offset", value: offset });
    }
    let name = bytes.slice(offset, length)?.to_vec();
    let format = backing_format(bytes, header_length, offset)?;
    Ok(Some(Backing { name, format }))
}

/// Walks the header extensions, which end before the backing file's name at `end`.
fn backing_format(
    bytes: &Bytes<'_>,
    mut offset: u64,
    end: u64,
) -> Result<Option<String>, HeaderError> {
    while offset + 8 <= end {
        let kind = bytes.u32(offset)?;
        let length = u64::from(bytes.u32(offset + 4)?);
        if kind == EXTENSION_END {
            break;
        }
        let next = offset + 8 + length.next_multiple_of(8);
        if next > end {
            return Err(HeaderError::Field { field: "header extension's length", value: length });
        }
        if kind == EXTENSION_BACKING_FORMAT {
            let name = bytes.slice(offset + 8, length)?;
            return Ok(Some(String::from_utf8_lossy(name).into_owned()));
        }
        offset = next;
    }
    Ok(None)
}

/// Returns the bytes of a header extension.
pub(super) fn extension(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(kind.to_be_bytes());
    #[expect(clippy::cast_possible_truncation, reason = "callers pass a format name or nothing")]
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2() -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[7] = 2;
        bytes[23] = 16;
        bytes[31] = 200;
        bytes
    }

    #[test]
    fn dangerous_files_are_told_apart() {
        let plain = parse(&v2()).unwrap();
        assert!(plain.is_self_contained());
        let with = |offset: usize, value: &[u8]| {
            let mut bytes = v2();
            bytes[7] = 3;
            bytes[103] = 104;
            bytes[offset..offset + value.len()].copy_from_slice(value);
            parse(&bytes).unwrap()
        };
        assert!(with(0, &MAGIC).is_self_contained());
        assert!(with(79, &[1 << 4]).is_self_contained());
        assert!(with(32, &[0, 0, 0, 1]).encrypted);
        assert!(with(79, &[1 << 1]).corrupt);
        assert!(with(79, &[1 << 2]).external_data);
        assert_eq!(with(72, &[1]).unknown_features, 1 << 56);
        for header in [with(32, &[0, 0, 0, 1]), with(79, &[2]), with(79, &[4]), with(72, &[1])] {
            assert!(!header.is_self_contained());
        }
    }

    #[test]
    fn a_backing_name_outside_the_first_cluster_is_refused() {
        let mut bytes = v2();
        bytes[19] = 4;
        for (offset, fits) in
            [(71u64, false), (72, true), (65532, true), (65533, false), (u64::MAX, false)]
        {
            bytes[8..16].copy_from_slice(&offset.to_be_bytes());
            bytes.resize(65536, b'x');
            assert_eq!(parse(&bytes).is_ok(), fits, "{offset}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_after_the_magic_are_parsed_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..700),
            version in 2u8..=3,
            cluster_bits in 9u8..=21,
        ) {
            for (at, value) in [(0, &MAGIC[..]), (4, &[0, 0, 0, version]), (20, &[0, 0, 0, cluster_bits])] {
                if let Some(place) = bytes.get_mut(at..at + value.len()) {
                    place.copy_from_slice(value);
                }
            }
            let _ = parse(&bytes);
        }
    }
}
