//! The file that a guest's console is written to: by QEMU, at its end, for as long as the guest likes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use crate::limits::{CONSOLE_BYTES, CONSOLE_TAIL_BYTES};

/// Gives back the room of all but the last bytes, once twice as many are kept. What is left stays
/// where it is, so that whoever follows the console goes on.
pub fn bound(path: &Path) -> io::Result<()> {
    let facts = match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        facts => facts?,
    };
    if facts.blocks() * 512 <= 2 * CONSOLE_BYTES {
        return Ok(());
    }
    let file = File::options().write(true).open(path)?;
    let old = facts.len().saturating_sub(CONSOLE_BYTES);
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(&file, flags, 0, old)?)
}

/// Returns its last lines with words, in one.
pub fn last_words(path: &Path, lines: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(CONSOLE_TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(CONSOLE_TAIL_BYTES).read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    let words = tail.lines().rev().filter(|line| !line.trim().is_empty()).take(lines);
    let words: Vec<&str> = words.collect();
    Ok(words.into_iter().rev().collect::<Vec<_>>().join(" | "))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_console_that_never_ends_takes_bounded_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        bound(&path).unwrap();
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..3 * (CONSOLE_BYTES / 1024) {
            file.write_all(&line).unwrap();
        }
        file.write_all(b"\nthe end\n\n").unwrap();
        let length = path.metadata().unwrap().len();
        bound(&path).unwrap();
        let facts = path.metadata().unwrap();
        assert_eq!(facts.len(), length, "what follows it goes on where it was");
        assert!(facts.blocks() * 512 <= CONSOLE_BYTES + (64 << 10), "{}", facts.blocks() * 512);
        assert_eq!(last_words(&path, 1).unwrap(), "the end");
        assert!(last_words(&path, 3).unwrap().ends_with("x | the end"));
    }
}
