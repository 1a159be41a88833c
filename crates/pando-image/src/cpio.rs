//! Writes the archive format of initramfs images (cpio "newc": the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst). Equal entries give equal bytes: no
//! times, inode numbers by position.

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A regular file with its bytes.
    File(Vec<u8>),
    /// A symbolic link with its target.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Why an entry cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpioError {
    /// The name cannot be stored.
    #[error("`{0}` is no usable name in an initramfs")]
    Name(String),
    /// The file has more bytes than the format can say.
    #[error("`{0}` is too large for an initramfs")]
    Size(String),
}

const TRAILER: &str = "TRAILER!!!";
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// An archive being written.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    entries: u32,
}

impl Writer {
    /// Adds an entry of root's. Directories come before what is in them.
    ///
    /// # Errors
    /// If the name is empty, absolute, or the trailer's own, or the file has 4 GiB or more.
    pub fn add(&mut self, name: &str, mode: u32, entry: &Entry) -> Result<(), CpioError> {
        if name.is_empty() || name.starts_with('/') || name.contains('\0') || name == TRAILER {
            return Err(CpioError::Name(name.to_owned()));
        }
        let (kind, data, device): (u32, &[u8], (u32, u32)) = match entry {
            Entry::Directory => (S_IFDIR, &[], (0, 0)),
            Entry::File(bytes) => (S_IFREG, bytes, (0, 0)),
            Entry::Symlink(target) => (S_IFLNK, target.as_bytes(), (0, 0)),
            Entry::CharDevice { major, minor } => (S_IFCHR, &[], (*major, *minor)),
        };
        self.write(name, kind | (mode & 0o7777), data, device)
    }

    /// Returns the finished archive, padded to the block size that the kernel's tools use.
    pub fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        // The trailer's name is short and it has no data: writing it cannot fail.
        let _ = self.write(TRAILER, 0, &[], (0, 0));
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn write(
        &mut self,
        name: &str,
        mode: u32,
        data: &[u8],
        (major, minor): (u32, u32),
    ) -> Result<(), CpioError> {
        let too_large = || CpioError::Size(name.to_owned());
        let data_size = u32::try_from(data.len()).map_err(|_| too_large())?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| too_large())?;
        let links = if mode & S_IFDIR != 0 && mode & S_IFREG == 0 { 2 } else { 1 };
        let inode = self.entries;
        self.entries += 1;
        let fields = [inode, mode, 0, 0, links, 0, data_size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Name, mode, bytes, device.
    type Found = (String, u32, Vec<u8>, (u32, u32));

    /// An independent reader of the format, strict about padding.
    fn read(bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |number: usize| {
                let start = at + 6 + number * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16)
                    .unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let device = (field(9), field(10));
            let name_at = at + 110;
            let name = std::str::from_utf8(&bytes[name_at..name_at + name_size - 1]).unwrap();
            assert_eq!(bytes[name_at + name_size - 1], 0);
            let data_at = (name_at + name_size).next_multiple_of(4);
            let data = bytes[data_at..data_at + size].to_vec();
            at = (data_at + size).next_multiple_of(4);
            if name == TRAILER {
                assert!(bytes[at..].iter().all(|byte| *byte == 0));
                assert_eq!(bytes.len() % 512, 0);
                return found;
            }
            found.push((name.to_owned(), mode, data, device));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(
            files in prop::collection::vec(("[a-z/._-]{0,40}[a-z]", 0u32..0o10000,
                prop::collection::vec(any::<u8>(), 0..300)), 0..20)
        ) {
            let files: Vec<_> =
                files.into_iter().filter(|(name, ..)| !name.starts_with('/')).collect();
            let mut writer = Writer::default();
            for (name, mode, data) in &files {
                writer.add(name, *mode, &Entry::File(data.clone())).unwrap();
            }
            let found = read(&writer.finish());
            prop_assert_eq!(found.len(), files.len());
            for (found, (name, mode, data)) in found.iter().zip(&files) {
                prop_assert_eq!(&found.0, name);
                prop_assert_eq!(found.1, S_IFREG | mode);
                prop_assert_eq!(&found.2, data);
            }
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        let mut writer = Writer::default();
        writer.add("dev", 0o755, &Entry::Directory).unwrap();
        writer.add("dev/console", 0o600, &Entry::CharDevice { major: 5, minor: 1 }).unwrap();
        writer.add("l", 0o777, &Entry::Symlink("/x".to_owned())).unwrap();
        let found = read(&writer.finish());
        assert_eq!(found[0].1, 0o40755);
        assert_eq!((found[1].1, found[1].3), (0o20600, (5, 1)));
        assert_eq!((found[2].1, found[2].2.as_slice()), (0o120_777, &b"/x"[..]));
    }

    #[test]
    fn names_that_would_break_the_archive_are_refused() {
        for name in ["", "/init", "a\0b", TRAILER] {
            let added = Writer::default().add(name, 0o644, &Entry::Directory);
            assert_eq!(added, Err(CpioError::Name(name.to_owned())));
        }
    }
}
