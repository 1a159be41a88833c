//! Finds the guest's RAM in the address space of QEMU: the one private, writable mapping of the
//! memory image.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A line of `/proc/PID/maps`, as far as it matters here.
struct Mapping {
    start: u64,
    end: u64,
    private_writable: bool,
    offset: u64,
    inode: u64,
}

/// Returns the address of byte 0 of `image` in process `pid`, where all `length` bytes of it are
/// mapped.
pub fn find(pid: u32, image: &Path, length: u64) -> io::Result<u64> {
    let inode = std::fs::metadata(image)?.ino();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    locate(&maps, inode, length).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the process has not mapped it as its RAM")
    })
}

/// The kernel splits a mapping where the properties of a part change, so parts are joined.
fn locate(maps: &str, inode: u64, length: u64) -> Option<u64> {
    let mut run: Option<(u64, u64)> = None;
    for mapping in maps.lines().filter_map(parse) {
        if mapping.inode != inode || !mapping.private_writable {
            continue;
        }
        run = match run {
            Some((start, end))
                if mapping.start == end && mapping.offset == mapping.start - start =>
            {
                Some((start, mapping.end))
            }
            _ if mapping.offset == 0 => Some((mapping.start, mapping.end)),
            _ => None,
        };
        if let Some((start, end)) = run
            && end - start == length
        {
            return Some(start);
        }
    }
    None
}

fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = fields.next()?;
    let inode = fields.nth(1)?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        private_writable: permissions.starts_with("rw") && permissions.ends_with('p'),
        offset: hex(offset)?,
        inode: inode.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_is_found_whole_or_in_parts() {
        let maps = "\
            55d000000000-55d000010000 r-xp 00000000 fe:00 7 /usr/bin/qemu\n\
            7f0000000000-7f0000002000 r--p 00000000 fe:00 42 /m/with space.ram\n\
            7f0000100000-7f0000101000 rw-p 00000000 fe:00 42 /m/with space.ram\n\
            7f0000101000-7f0000102000 rw-p 00001000 fe:00 42 /m/with space.ram\n\
            7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]\n";
        assert_eq!(locate(maps, 42, 0x2000), Some(0x7f00_0010_0000));
        assert_eq!(locate(maps, 42, 0x3000), None);
        assert_eq!(locate(maps, 43, 0x2000), None);
    }

    #[test]
    fn a_shared_mapping_is_not_the_ram() {
        let maps = "7f0000100000-7f0000102000 rw-s 00000000 fe:00 42 /m/x.ram\n";
        assert_eq!(locate(maps, 42, 0x2000), None);
    }
}
