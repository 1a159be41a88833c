//! Digests of contents. Databases and logs reserve room in advance, often tens of megabytes of it: what
//! was never written is neither read nor digested byte by byte.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::limits::MAX_DIGESTED_BYTES;

/// What is all zeros or not, in bytes.
const BLOCK: usize = 4096;
/// What is read at once, in bytes: whole blocks.
const READ: usize = 16 * BLOCK;

/// Returns the digest of a regular file's contents, if it can be read and is not too large: its
/// SHA-256 in hex. Where whole blocks are zeros it is that of the other blocks' SHA-256, where the
/// zeros are, and the length, so that it does not matter which of the zeros take room on the disk.
pub fn of_file(path: &Path) -> Option<String> {
    let mut open = File::options();
    // Links are digested by what they say, which the host knows; a pipe would wait for ever.
    open.read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOFOLLOW);
    let file = open.open(path).ok()?;
    let facts = file.metadata().ok()?;
    if !facts.is_file() || facts.len() > MAX_DIGESTED_BYTES {
        return None;
    }
    let mut contents = Contents::default();
    let mut buffer = vec![0; READ];
    let mut at = 0;
    // What is appended meanwhile belongs to the next look.
    while at < facts.len() {
        let data = next_data(&file, at, facts.len());
        contents.skip(data - at);
        at = data;
        if at == facts.len() {
            break;
        }
        let wanted = READ.min(usize::try_from(facts.len() - at).ok()?);
        let read = read_up_to(&file, buffer.get_mut(..wanted)?, at)?;
        contents.take(buffer.get(..read)?);
        at += read as u64;
        if read < wanted {
            break;
        }
    }
    Some(contents.finish())
}

/// Returns where the next block begins, at or after `at`, of which something was written. The last
/// one counts as written if it is not whole.
fn next_data(file: &File, at: u64, end: u64) -> u64 {
    let block = |at: u64| at - at % BLOCK as u64;
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => block(data.min(end)).max(at),
        Err(Errno::NXIO) => block(end).max(at),
        // A file system that does not tell.
        Err(_) => at,
    }
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> Option<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(buffer.get_mut(read..)?, at + read as u64).ok()? {
            0 => break,
            count => read += count,
        }
    }
    Some(read)
}

/// The contents of a file, from its beginning on.
#[derive(Default)]
struct Contents {
    /// Of all blocks that are not zeros.
    written: Sha256,
    /// Of the beginnings and ends of what is zeros.
    zeros: Sha256,
    /// Where the zeros begin that were seen last.
    zeros_from: Option<u64>,
    any_zeros: bool,
    length: u64,
}

impl Contents {
    /// Takes in bytes: whole blocks, unless they are the last ones.
    fn take(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(BLOCK) {
            if block.len() == BLOCK && block.iter().all(|&byte| byte == 0) {
                self.skip(BLOCK as u64);
            } else {
                self.end_zeros();
                self.written.update(block);
                self.length += block.len() as u64;
            }
        }
    }

    /// Takes in zeros.
    fn skip(&mut self, length: u64) {
        if length > 0 {
            self.zeros_from.get_or_insert(self.length);
            self.length += length;
        }
    }

    fn end_zeros(&mut self) {
        if let Some(from) = self.zeros_from.take() {
            self.any_zeros = true;
            self.zeros.update(from.to_le_bytes());
            self.zeros.update(self.length.to_le_bytes());
        }
    }

    fn finish(mut self) -> String {
        self.end_zeros();
        let mut digest = self.written.finalize();
        if self.any_zeros {
            let whole = Sha256::new().chain_update(digest).chain_update(self.zeros.finalize());
            digest = whole.chain_update(self.length.to_le_bytes()).finalize();
        }
        super::hex(&digest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(contents: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, contents).unwrap();
        of_file(&path).unwrap()
    }

    /// Writes `parts`, each at its place, into a file of `length` bytes.
    fn sparse(length: u64, parts: &[(u64, &[u8])]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(length).unwrap();
        for (at, part) in parts {
            file.as_file().write_all_at(part, *at).unwrap();
        }
        of_file(file.path()).unwrap()
    }

    #[test]
    fn without_zeros_it_is_the_sha256_of_the_contents() {
        for contents in [&b""[..], b"hello", b"\0\0\0", &[7; 3 * READ + 5]] {
            assert_eq!(digest(contents), super::super::hex(&Sha256::digest(contents)));
        }
    }

    #[test]
    fn it_does_not_matter_which_zeros_take_room() {
        let block = BLOCK as u64;
        let mut whole = vec![0; 40 * BLOCK + 9];
        whole[5 * BLOCK + 3] = 1;
        whole[40 * BLOCK + 8] = 2;
        let length = whole.len() as u64;
        let one = (5 * block + 3, &[1][..]);
        let two = (40 * block + 8, &[2][..]);
        let expected = digest(&whole);
        assert_eq!(sparse(length, &[one, two]), expected);
        assert_eq!(sparse(length, &[one, (20 * block, &[0; 3 * BLOCK]), two]), expected);
        // And what is different is different.
        assert_ne!(sparse(length, &[(6 * block + 3, &[1]), two]), expected);
        assert_ne!(sparse(length + 1, &[one, two]), expected);
        assert_ne!(sparse(length, &[one]), expected);
        assert_ne!(sparse(20 * block, &[]), sparse(21 * block, &[]));
        assert_ne!(sparse(0, &[]), sparse(block, &[]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equal_contents_have_equal_digests_and_others_do_not(
            blocks in prop::collection::vec((0u8..3, any::<bool>()), 0..40),
            tail in prop::collection::vec(0u8..2, 0..50),
            tail_written: bool,
            other in any::<prop::sample::Index>(),
        ) {
            let mut whole: Vec<u8> = blocks.iter().flat_map(|(byte, _)| [*byte; BLOCK]).collect();
            whole.extend(&tail);
            let expected = digest(&whole);
            // As a file in which only some of the zeros are written.
            let is_written = tail_written || tail.contains(&1);
            let parts: Vec<(u64, Vec<u8>)> = (0..).zip(&blocks)
                .filter(|(_, (byte, written))| *byte != 0 || *written)
                .map(|(number, (byte, _))| (number * BLOCK as u64, vec![*byte; BLOCK]))
                .chain(is_written.then(|| ((blocks.len() * BLOCK) as u64, tail.clone())))
                .collect();
            let parts: Vec<(u64, &[u8])> =
                parts.iter().map(|(at, part)| (*at, part.as_slice())).collect();
            prop_assert_eq!(sparse(whole.len() as u64, &parts), expected.clone());
            if !whole.is_empty() {
                let at = other.index(whole.len());
                whole[at] ^= 0x40;
                prop_assert_ne!(digest(&whole), expected);
            }
        }
    }
}
