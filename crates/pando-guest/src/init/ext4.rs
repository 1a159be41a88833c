//! Growing an ext4 file system to its device while it is mounted.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::sys;

/// Where the superblock is on the device, in bytes.
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xEF53;
/// `INCOMPAT_64BIT`: block counts have 64 bits.
const INCOMPAT_64BIT: u32 = 0x80;

/// Grows the file system of `device`, mounted on `directory`, if the device is larger.
pub fn grow(device: &Path, directory: &Path) -> io::Result<()> {
    let mut device = File::open(device)?;
    let mut superblock = [0; 1024];
    device.seek(SeekFrom::Start(SUPERBLOCK))?;
    device.read_exact(&mut superblock)?;
    let size = parse(&superblock).ok_or(io::ErrorKind::InvalidData)?;
    let blocks = device.seek(SeekFrom::End(0))? / size.block_bytes;
    if blocks > size.blocks {
        sys::resize_ext4(&File::open(directory)?, blocks)?;
    }
    Ok(())
}

/// A file system's size.
#[derive(Debug, PartialEq, Eq)]
struct Size {
    blocks: u64,
    block_bytes: u64,
}

fn parse(superblock: &[u8]) -> Option<Size> {
    let word = |at: usize| Some(u32::from_le_bytes(*superblock.get(at..)?.first_chunk()?));
    if u16::from_le_bytes(*superblock.get(56..)?.first_chunk()?) != MAGIC {
        return None;
    }
    let high = if word(96)? & INCOMPAT_64BIT != 0 { word(336)? } else { 0 };
    let shift = word(24)?.checked_add(10).filter(|&shift| shift <= 16)?;
    Some(Size { blocks: u64::from(high) << 32 | u64::from(word(4)?), block_bytes: 1 << shift })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_size_of_a_real_file_system_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        let made =
            Command::new("mkfs.ext4").args(["-q", "-b", "1024"]).arg(&image).arg("6144").status();
        assert!(made.unwrap().success());
        let bytes = std::fs::read(&image).unwrap();
        assert_eq!(parse(&bytes[1024..2048]), Some(Size { blocks: 6144, block_bytes: 1024 }));
        assert_eq!(parse(&[0; 1024]), None);
        assert_eq!(parse(&bytes[1024..1100]), None);
    }
}
