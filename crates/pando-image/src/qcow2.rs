//! Looks at a disk image that nobody vouches for, before any program opens it: which format it is,
//! and whether it would make a program open something else (QEMU's docs/interop/qcow2.rst).

use crate::limits;

/// What a disk image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// qcow2, and the size of the disk in it, in bytes.
    Qcow2 {
        /// Virtual size.
        virtual_size: u64,
    },
    /// The bytes of the disk as they are.
    Raw,
}

/// Why a disk image is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// It is of a format that is not imported.
    #[error("it is {0}; only qcow2 and raw disks are imported")]
    Format(&'static str),
    /// The header ends too early.
    #[error("its header is cut off")]
    Truncated,
    /// It names another file as its backing file.
    #[error("it has a backing file, which would be read as well")]
    BackingFile,
    /// It keeps its data in another file.
    #[error("its data is in another file")]
    DataFile,
    /// It is encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// It is marked as damaged.
    #[error("it is marked as damaged")]
    Damaged,
    /// It needs a feature that is not known.
    #[error("it needs features that are not known ({0:#x})")]
    Features(u64),
    /// Its version or cluster size is none that QEMU writes.
    #[error("its header makes no sense")]
    Nonsense,
    /// Its disk is empty or larger than any disk may be.
    #[error("its disk has {0} bytes")]
    Size(u64),
}

/// Most bytes of a file that [`inspect`] looks at.
pub const HEAD_BYTES: usize = 4096;

/// Formats that QEMU knows and that are never imported, by how they start.
const OTHERS: &[(&[u8], &str)] = &[
    (b"KDMV", "a VMDK disk"),
    (b"COWD", "a VMDK disk"),
    (b"# Disk DescriptorFile", "a VMDK description"),
    (b"<<< ", "a VDI disk"),
    (b"vhdxfile", "a VHDX disk"),
    (b"conectix", "a VHD disk"),
    (b"QED\0", "a QED disk"),
    (b"LUKS\xba\xbe", "an encrypted disk"),
    (b"WithoutFreeSpace", "a Parallels disk"),
    (b"WithouFreSpacExt", "a Parallels disk"),
    (b"Bochs Virtual HD Image", "a Bochs disk"),
    (&[0x1f, 0x8b], "gzip-compressed"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz-compressed"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd-compressed"),
    (b"BZh", "bzip2-compressed"),
    (b"PK\x03\x04", "a ZIP archive"),
];

const DAMAGED: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
/// Unclean (repaired by QEMU), compression type, extended L2 entries.
const HARMLESS: u64 = 1 | 1 << 3 | 1 << 4;

/// Says what a disk image is from its first [`HEAD_BYTES`] bytes; `size` is that of the whole file.
///
/// # Errors
/// If it is not one that is safe to open.
pub fn inspect(head: &[u8], size: u64) -> Result<Format, DiskError> {
    if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(DiskError::Format(name));
    }
    if !head.starts_with(b"QFI\xfb") {
        check_size(size)?;
        return Ok(Format::Raw);
    }
    let version = u32_at(head, 4)?;
    if !matches!(version, 2 | 3) {
        return Err(DiskError::Nonsense);
    }
    if u64_at(head, 8)? != 0 || u32_at(head, 16)? != 0 {
        return Err(DiskError::BackingFile);
    }
    if !(9..=21).contains(&u32_at(head, 20)?) {
        return Err(DiskError::Nonsense);
    }
    let virtual_size = u64_at(head, 24)?;
    if u32_at(head, 32)? != 0 {
        return Err(DiskError::Encrypted);
    }
    if version == 3 {
        let features = u64_at(head, 72)?;
        match features & !HARMLESS {
            0 => {}
            unknown if unknown & DATA_FILE != 0 => return Err(DiskError::DataFile),
            unknown if unknown & DAMAGED != 0 => return Err(DiskError::Damaged),
            unknown => return Err(DiskError::Features(unknown)),
        }
        if u32_at(head, 100)? < 104 {
            return Err(DiskError::Nonsense);
        }
    }
    check_size(virtual_size)?;
    Ok(Format::Qcow2 { virtual_size })
}

fn check_size(size: u64) -> Result<(), DiskError> {
    if (1..=limits::MAX_IMPORTED_DISK_BYTES).contains(&size) {
        Ok(())
    } else {
        Err(DiskError::Size(size))
    }
}

fn u32_at(head: &[u8], at: usize) -> Result<u32, DiskError> {
    let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_be_bytes).ok_or(DiskError::Truncated)
}

fn u64_at(head: &[u8], at: usize) -> Result<u64, DiskError> {
    let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or(DiskError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Vec<u8> {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[7] = 3;
        head[23] = 16;
        head[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        head[103] = 104;
        head
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut head = header();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    }

    #[test]
    fn an_honest_disk_is_taken() {
        let found = inspect(&header(), 200_000).unwrap();
        assert_eq!(found, Format::Qcow2 { virtual_size: 1 << 30 });
        let mut boot_sector = vec![0; 512];
        boot_sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(inspect(&boot_sector, 1 << 20), Ok(Format::Raw));
    }

    #[test]
    fn hostile_disks_are_refused() {
        let cases = [
            (with(15, &[1]), DiskError::BackingFile),
            (with(19, &[9]), DiskError::BackingFile),
            (with(35, &[2]), DiskError::Encrypted),
            (with(79, &[4]), DiskError::DataFile),
            (with(79, &[2]), DiskError::Damaged),
            (with(79, &[32]), DiskError::Features(32)),
            (with(72, &[0x80]), DiskError::Features(1 << 63)),
            (with(7, &[9]), DiskError::Nonsense),
            (with(23, &[60]), DiskError::Nonsense),
            (with(24, &[0xff; 8]), DiskError::Size(u64::MAX)),
            (with(24, &[0; 8]), DiskError::Size(0)),
            (header()[..20].to_vec(), DiskError::Truncated),
            (header()[..100].to_vec(), DiskError::Truncated),
            (b"KDMV1234".to_vec(), DiskError::Format("a VMDK disk")),
            (vec![0x1f, 0x8b, 8], DiskError::Format("gzip-compressed")),
        ];
        for (head, error) in cases {
            assert_eq!(inspect(&head, 1 << 20), Err(error));
        }
        assert_eq!(inspect(&[], 0), Err(DiskError::Size(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(
            flips in prop::collection::vec((0usize..512, any::<u8>()), 0..30),
            length in 0usize..512, size: u64,
        ) {
            let mut head = header();
            for (at, byte) in flips {
                head[at] = byte;
            }
            let _ = inspect(&head[..length], size);
        }
    }
}
