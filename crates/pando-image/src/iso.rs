//! Writes small ISO 9660 images with Rock Ridge names (ECMA-119; IEEE P1281 and P1282), as Linux
//! reads them: one flat directory of files. Equal files give equal bytes: no times.
//!
//! ```text
//! sector 0–15  empty          18, 19  path tables (little, big endian)
//!        16    volume         20…     root directory
//!        17    terminator     …       files, each from a sector of its own
//! ```

use std::collections::BTreeMap;

/// Size of a sector, in bytes.
pub const SECTOR: usize = 2048;

const ROOT_AT: usize = 20;
const PATH_TABLE_BYTES: u32 = 10;

/// Why files cannot be put in an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsoError {
    /// The name cannot be stored.
    #[error("`{0}` is no usable name of a file")]
    Name(String),
    /// The files are too many or too large.
    #[error("the files are too large for a seed disk")]
    Size,
}

/// One file and what may be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoFile {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Returns an image of this volume name (at most 32 characters) with these files in its root.
///
/// # Errors
/// If a name is empty, longer than 100 bytes or has a `/`, or the image would pass 4 GiB.
pub fn write(volume: &str, files: &BTreeMap<String, IsoFile>) -> Result<Vec<u8>, IsoError> {
    if volume.len() > 32 {
        return Err(IsoError::Name(volume.to_owned()));
    }
    for name in files.keys() {
        let good = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if !(1..=100).contains(&name.len()) || !name.bytes().all(good) || name.starts_with('.') {
            return Err(IsoError::Name(name.clone()));
        }
    }
    let total: usize = files.values().map(|file| file.bytes.len() + SECTOR).sum();
    if total > crate::limits::MAX_SEED_BYTES {
        return Err(IsoError::Size);
    }

    // Records have the same length wherever the files are, so one pass finds the root's size.
    let root_sectors = root_directory(files, 1, ROOT_AT + 1)?.len() / SECTOR;
    let first_file = ROOT_AT + root_sectors;
    let root = root_directory(files, root_sectors, first_file)?;
    let sectors =
        first_file + files.values().map(|file| file.bytes.len().div_ceil(SECTOR)).sum::<usize>();

    let mut image = vec![0; 16 * SECTOR];
    push_sector(&mut image, &volume_descriptor(volume, sectors, root.len())?);
    push_sector(&mut image, b"\xffCD001\x01");
    for big_endian in [false, true] {
        push_sector(&mut image, &path_table(big_endian)?);
    }
    image.extend_from_slice(&root);
    for file in files.values() {
        image.extend_from_slice(&file.bytes);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    }
    Ok(image)
}

fn push_sector(image: &mut Vec<u8>, bytes: &[u8]) {
    image.extend_from_slice(bytes);
    image.resize(image.len().next_multiple_of(SECTOR), 0);
}

fn number(value: usize) -> Result<u32, IsoError> {
    u32::try_from(value).map_err(|_| IsoError::Size)
}

/// A number in both byte orders, as most fields are (ECMA-119 §7.3.3).
fn both(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn both16(value: u16) -> [u8; 4] {
    let mut bytes = [0; 4];
    bytes[..2].copy_from_slice(&value.to_le_bytes());
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// ECMA-119 §8.4.
fn volume_descriptor(volume: &str, sectors: usize, root_bytes: usize) -> Result<Vec<u8>, IsoError> {
    let padded = |text: &str, length: usize| -> Vec<u8> {
        text.bytes().chain(std::iter::repeat(b' ')).take(length).collect()
    };
    let mut bytes = b"\x01CD001\x01\0".to_vec();
    bytes.extend(padded("LINUX", 32));
    bytes.extend(padded(volume, 32));
    bytes.extend([0; 8]);
    bytes.extend(both(number(sectors)?));
    bytes.extend([0; 32]);
    bytes.extend(both16(1));
    bytes.extend(both16(1));
    bytes.extend(both16(2048));
    bytes.extend(both(PATH_TABLE_BYTES));
    bytes.extend(18u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(19u32.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(record(&[0], number(ROOT_AT)?, number(root_bytes)?, Shape::Directory, &[])?);
    // Set, publisher, preparer and application; then three file names.
    bytes.extend(padded("", 128 * 4 + 37 * 3));
    for _ in 0..4 {
        bytes.extend(b"0000000000000000\0");
    }
    bytes.push(1);
    Ok(bytes)
}

/// ECMA-119 §9.4: one entry, the root.
fn path_table(big_endian: bool) -> Result<Vec<u8>, IsoError> {
    let at = number(ROOT_AT)?;
    let mut bytes = vec![1, 0];
    if big_endian {
        bytes.extend(at.to_be_bytes());
        bytes.extend(1u16.to_be_bytes());
    } else {
        bytes.extend(at.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
    }
    bytes.extend([0, 0]);
    Ok(bytes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Directory,
    File,
}

fn root_directory(
    files: &BTreeMap<String, IsoFile>,
    own_sectors: usize,
    first_file: usize,
) -> Result<Vec<u8>, IsoError> {
    let at = number(ROOT_AT)?;
    let size = number(own_sectors * SECTOR)?;
    let attributes = posix(0o040_555, 2);
    let own = [sharing_protocol().as_slice(), &attributes, &extension_used()].concat();
    let mut directory = record(&[0], at, size, Shape::Directory, &own)?;
    directory.extend(record(&[1], at, size, Shape::Directory, &attributes)?);
    let mut at = first_file;
    for (position, (name, file)) in files.iter().enumerate() {
        let plain = plain_name(position);
        let system = [alternate_name(name)?.as_slice(), &posix(0o100_000 | file.mode, 1)].concat();
        let bytes = number(file.bytes.len())?;
        let record = record(plain.as_bytes(), number(at)?, bytes, Shape::File, &system)?;
        // A record never crosses the border of a sector.
        if directory.len() % SECTOR + record.len() > SECTOR {
            directory.resize(directory.len().next_multiple_of(SECTOR), 0);
        }
        directory.extend(record);
        at += file.bytes.len().div_ceil(SECTOR);
    }
    directory.resize(directory.len().next_multiple_of(SECTOR), 0);
    Ok(directory)
}

/// A name for readers that know no Rock Ridge: eight characters at most, unique and sorted.
fn plain_name(position: usize) -> String {
    format!("F{position:05}.;1")
}

/// ECMA-119 §9.1.
fn record(
    name: &[u8],
    at: u32,
    bytes: u32,
    shape: Shape,
    system_use: &[u8],
) -> Result<Vec<u8>, IsoError> {
    let padding = usize::from(name.len().is_multiple_of(2));
    let length = (33 + name.len() + padding + system_use.len()).next_multiple_of(2);
    let mut record = vec![u8::try_from(length).map_err(|_| IsoError::Size)?, 0];
    record.extend(both(at));
    record.extend(both(bytes));
    // 1 January 1970, so that equal files give equal images.
    record.extend([70, 1, 1, 0, 0, 0, 0]);
    record.push(if shape == Shape::Directory { 2 } else { 0 });
    record.extend([0, 0]);
    record.extend(both16(1));
    record.push(u8::try_from(name.len()).map_err(|_| IsoError::Size)?);
    record.extend_from_slice(name);
    record.resize(record.len() + padding, 0);
    record.extend_from_slice(system_use);
    record.resize(length, 0);
    Ok(record)
}

/// SUSP §5.3: Rock Ridge is in use, from the start of each system use area.
fn sharing_protocol() -> Vec<u8> {
    vec![b'S', b'P', 7, 1, 0xbe, 0xef, 0]
}

/// SUSP §5.5, with the identifier that RRIP §4.3 gives.
fn extension_used() -> Vec<u8> {
    let id = b"RRIP_1991A";
    let length = u8::try_from(8 + id.len()).unwrap_or(u8::MAX);
    let mut entry = vec![b'E', b'R', length, 1, 10, 0, 0, 1];
    entry.extend_from_slice(id);
    entry
}

/// RRIP §4.1.1: mode, links, owner, group.
fn posix(mode: u32, links: u32) -> Vec<u8> {
    let mut entry = vec![b'P', b'X', 36, 1];
    for value in [mode, links, 0, 0] {
        entry.extend(both(value));
    }
    entry
}

/// RRIP §4.1.4.
fn alternate_name(name: &str) -> Result<Vec<u8>, IsoError> {
    let length = u8::try_from(5 + name.len()).map_err(|_| IsoError::Name(name.to_owned()))?;
    let mut entry = vec![b'N', b'M', length, 1, 0];
    entry.extend_from_slice(name.as_bytes());
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> usize {
        let little = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let big = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        assert_eq!(little, big, "both byte orders agree");
        little as usize
    }

    /// An independent reader: walks the root directory as Linux does.
    fn read(image: &[u8]) -> BTreeMap<String, IsoFile> {
        let volume = &image[16 * SECTOR..17 * SECTOR];
        assert_eq!(&volume[..7], b"\x01CD001\x01");
        assert_eq!(u32_at(volume, 80) * SECTOR, image.len());
        assert_eq!(&image[17 * SECTOR..17 * SECTOR + 7], b"\xffCD001\x01");
        let root = &volume[156..190];
        let (start, size) = (u32_at(root, 2) * SECTOR, u32_at(root, 10));
        let directory = &image[start..start + size];
        let mut files = BTreeMap::new();
        let mut at = 0;
        while at < directory.len() {
            let length = usize::from(directory[at]);
            if length == 0 {
                at = (at + 1).next_multiple_of(SECTOR);
                continue;
            }
            let record = &directory[at..at + length];
            assert_eq!(at / SECTOR, (at + length - 1) / SECTOR, "a record crosses a sector");
            at += length;
            let name_length = usize::from(record[32]);
            let mut system = 33 + name_length + usize::from(name_length % 2 == 0);
            let (mut name, mut mode) = (None, 0);
            while system + 4 <= record.len() && record[system + 2] != 0 {
                let entry = &record[system..system + usize::from(record[system + 2])];
                match &entry[..2] {
                    b"NM" => name = Some(String::from_utf8(entry[5..].to_vec()).unwrap()),
                    b"PX" => mode = u32::try_from(u32_at(entry, 4)).unwrap(),
                    b"SP" => assert_eq!(&entry[4..6], &[0xbe, 0xef]),
                    b"ER" => {}
                    other => panic!("{other:?}"),
                }
                system += entry.len();
            }
            if let Some(name) = name {
                let (start, size) = (u32_at(record, 2) * SECTOR, u32_at(record, 10));
                let bytes = image[start..start + size].to_vec();
                files.insert(name, IsoFile { bytes, mode: mode & 0o777 });
            }
        }
        files
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(
            files in prop::collection::btree_map(
                "[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,99}",
                (0usize..5000, any::<u8>(), 0u32..0o1000),
                0..40)
        ) {
            let files: BTreeMap<_, _> = files
                .into_iter()
                .map(|(name, (size, byte, mode))| (name, IsoFile { bytes: vec![byte; size], mode }))
                .collect();
            let image = write("cidata", &files).unwrap();
            prop_assert_eq!(&image[16 * SECTOR + 40..16 * SECTOR + 47], b"cidata ");
            prop_assert_eq!(read(&image), files);
        }
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        for name in ["", "a/b", "..", ".hidden", "a\0", "é", &"x".repeat(101)] {
            let files = BTreeMap::from([(name.to_owned(), IsoFile { bytes: vec![], mode: 0 })]);
            assert_eq!(write("v", &files), Err(IsoError::Name(name.to_owned())));
        }
    }

    #[test]
    fn a_flood_is_refused() {
        let bytes = vec![0; crate::limits::MAX_SEED_BYTES];
        let files = BTreeMap::from([("a".to_owned(), IsoFile { bytes, mode: 0 })]);
        assert_eq!(write("v", &files), Err(IsoError::Size));
    }
}
