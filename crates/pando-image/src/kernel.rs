//! Takes the uncompressed kernel out of a bzImage. QEMU starts an ELF kernel through its PVH entry
//! without running the decompressor, which under TCG is slower than the rest of the early boot.
//!
//! The boot protocol's header (Documentation/arch/x86/boot.rst) says where the packed kernel is;
//! the kernel is an ELF file, possibly followed by relocations.

use std::ops::Range;

use crate::limits;

/// How the kernel inside a bzImage is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
    /// LZ4, in its legacy frame format.
    Lz4,
}

impl Packing {
    /// Returns the program that unpacks it, and the Debian package that has it.
    pub fn unpacker(self) -> (&'static str, &'static str) {
        match self {
            Self::Gzip => ("gzip", "gzip"),
            Self::Xz => ("xz", "xz-utils"),
            Self::Zstd => ("zstd", "zstd"),
            Self::Lz4 => ("lz4", "lz4"),
        }
    }

    /// Returns what a file that starts with these bytes is packed with, if anything known.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        const MAGICS: &[(&[u8], Packing)] = &[
            (&[0x1f, 0x8b], Packing::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Packing::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Packing::Zstd),
            (&[0x02, 0x21, 0x4c, 0x18], Packing::Lz4),
        ];
        MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, packing)| *packing)
    }
}

/// The packed kernel inside a bzImage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// How it is packed.
    pub packing: Packing,
    /// Where its bytes are.
    pub range: Range<usize>,
    /// Its size when unpacked, in bytes, as the image claims.
    pub unpacked_size: u64,
}

/// Returns where the packed kernel of a bzImage is; none if this is no bzImage that we understand.
pub fn find_payload(image: &[u8]) -> Option<Payload> {
    if image.get(0x1fe..0x200)? != [0x55, 0xaa] || image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    // `payload_offset` came with version 2.08 of the protocol.
    if u16_at(image, 0x206)? < 0x0208 {
        return None;
    }
    let setup_sectors = match *image.get(0x1f1)? {
        0 => 4,
        count => usize::from(count),
    };
    let offset = usize::try_from(u32_at(image, 0x248)?).ok()?;
    let length = usize::try_from(u32_at(image, 0x24c)?).ok()?;
    let start = ((setup_sectors + 1) * 512).checked_add(offset)?;
    let end = start.checked_add(length)?;
    let packed = image.get(start..end)?;
    let packing = Packing::of(packed)?;
    // The last four bytes say the unpacked size: gzip has them by itself, the build appends them
    // to the others.
    let size_at = length.checked_sub(4)?;
    let unpacked_size = u64::from(u32_at(packed, size_at)?);
    let end = if packing == Packing::Gzip { end } else { end - 4 };
    (unpacked_size <= limits::MAX_KERNEL_BYTES).then_some(Payload {
        packing,
        range: start..end,
        unpacked_size,
    })
}

/// Returns the release that a bzImage says it is, such as `6.1.0-9-amd64`: what its modules'
/// directory is called.
pub fn release(image: &[u8]) -> Option<&str> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = usize::from(u16_at(image, 0x20e)?).checked_add(0x200)?;
    let text = image.get(at..)?.get(..128)?;
    let end = text.iter().position(|byte| matches!(byte, 0 | b' '))?;
    let release = std::str::from_utf8(text.get(..end)?).ok()?;
    let good = |c: char| c.is_ascii_alphanumeric() || "+-._~".contains(c);
    (!release.is_empty() && !release.starts_with('.') && release.chars().all(good))
        .then_some(release)
}

/// Returns whether a file is an x86-64 ELF kernel that QEMU can start directly: one with a
/// `XEN_ELFNOTE_PHYS32_ENTRY` note.
pub fn has_pvh_entry(elf: &[u8]) -> bool {
    find_pvh_note(elf).is_some()
}

fn find_pvh_note(elf: &[u8]) -> Option<()> {
    const PT_NOTE: u32 = 4;
    const EM_X86_64: u16 = 62;
    // 64-bit, little-endian.
    if elf.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] || u16_at(elf, 18)? != EM_X86_64 {
        return None;
    }
    let headers_at = usize::try_from(u64_at(elf, 32)?).ok()?;
    let header_size = usize::from(u16_at(elf, 54)?);
    let header_count = usize::from(u16_at(elf, 56)?);
    for number in 0..header_count {
        let at = headers_at.checked_add(number * header_size)?;
        let header = elf.get(at..at.checked_add(56)?)?;
        if u32_at(header, 0)? != PT_NOTE {
            continue;
        }
        let start = usize::try_from(u64_at(header, 8)?).ok()?;
        let size = usize::try_from(u64_at(header, 32)?).ok()?;
        if notes_have_entry(elf.get(start..start.checked_add(size)?)?) {
            return Some(());
        }
    }
    None
}

fn notes_have_entry(mut notes: &[u8]) -> bool {
    const PHYS32_ENTRY: u32 = 18;
    while let (Some(name_size), Some(data_size), Some(kind)) =
        (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8))
    {
        let (Ok(name_size), Ok(data_size)) =
            (usize::try_from(name_size), usize::try_from(data_size))
        else {
            return false;
        };
        let name_end = 12usize.saturating_add(name_size);
        if kind == PHYS32_ENTRY && notes.get(12..name_end) == Some(b"Xen\0") {
            return true;
        }
        let padded = |size: usize| size.checked_next_multiple_of(4).unwrap_or(usize::MAX);
        let next = 12usize.saturating_add(padded(name_size)).saturating_add(padded(data_size));
        let Some(rest) = notes.get(next..) else { return false };
        notes = rest;
    }
    false
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The smallest thing that the boot protocol calls a kernel.
    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend_from_slice(&[0; 16]);
        image.extend_from_slice(payload);
        image.extend_from_slice(&[0xee; 100]);
        image
    }

    fn elf(note_name: &[u8; 4], kind: u32) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        file[18..20].copy_from_slice(&62u16.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&1u16.to_le_bytes());
        file[64..68].copy_from_slice(&4u32.to_le_bytes());
        file[72..80].copy_from_slice(&120u64.to_le_bytes());
        let mut notes = Vec::new();
        for (name, kind, data) in [(b"GNU\0", 3, &[1, 2, 3, 4, 5][..]), (note_name, kind, &[0; 8])]
        {
            for field in [4, u32::try_from(data.len()).unwrap(), kind] {
                notes.extend_from_slice(&field.to_le_bytes());
            }
            notes.extend_from_slice(name);
            notes.extend_from_slice(data);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        file[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file.extend_from_slice(&notes);
        file
    }

    #[test]
    fn the_packed_kernel_is_found() {
        let mut payload = vec![0x02, 0x21, 0x4c, 0x18, 9, 9, 9];
        payload.extend_from_slice(&1234u32.to_le_bytes());
        let image = bz_image(&payload);
        let found = find_payload(&image).unwrap();
        assert_eq!(found.packing, Packing::Lz4);
        assert_eq!(found.unpacked_size, 1234);
        assert_eq!(&image[found.range], &payload[..7]);
    }

    #[test]
    fn what_is_no_kernel_is_none() {
        let image = bz_image(&[0x1f, 0x8b, 0, 0, 1, 0, 0, 0]);
        assert!(find_payload(&image).is_some());
        for (at, byte) in [(0x1fe, 0), (0x203, b'x'), (0x207, 1), (0x24f, 0x7f), (1040, 0)] {
            let mut broken = image.clone();
            broken[at] = byte;
            assert_eq!(find_payload(&broken), None, "byte {at:#x}");
        }
    }

    #[test]
    fn a_kernel_says_its_release() {
        let mut image = bz_image(&[0; 64]);
        image[0x20e] = 0x80;
        image.resize(2048, 0);
        let mut say = |text: &[u8]| {
            image[0x280..0x280 + text.len()].copy_from_slice(text);
            release(&image).map(str::to_owned)
        };
        assert_eq!(say(b"6.1.0-9-amd64 (x@y) #1\0").as_deref(), Some("6.1.0-9-amd64"));
        assert_eq!(say(b"../../etc #1\0"), None);
        assert_eq!(say(&[b'6'; 200]), None);
    }

    #[test]
    fn a_pvh_entry_is_recognised() {
        assert!(has_pvh_entry(&elf(b"Xen\0", 18)));
        assert!(!has_pvh_entry(&elf(b"Xen\0", 17)));
        assert!(!has_pvh_entry(&elf(b"Zen\0", 18)));
    }

    proptest! {
        #[test]
        fn hostile_files_are_only_refused(
            flips in prop::collection::vec((0usize..1200, any::<u8>()), 0..40),
            length in 0usize..1200,
        ) {
            for mut file in [bz_image(&[0xfd; 64]), elf(b"Xen\0", 18)] {
                for (at, byte) in &flips {
                    if let Some(place) = file.get_mut(*at) {
                        *place = *byte;
                    }
                }
                file.truncate(length);
                let _ = find_payload(&file);
                let _ = release(&file);
                let _ = has_pvh_entry(&file);
            }
        }
    }
}
