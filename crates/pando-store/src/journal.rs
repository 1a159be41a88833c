//! The journal as an append-only file of JSON lines. One `write` per entry, no fsync: an entry
//! survives the death of the process, a power cut may take the tail.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pando_driver::store::{Journal, JournalEntry};

/// The journal of one home.
pub struct FileJournal {
    file: File,
}

impl FileJournal {
    /// Opens the journal for appending; makes it, readable by its owner only, if there is none.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file })
    }
}

impl Journal for FileJournal {
    fn append(&self, entry: &JournalEntry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
        line.push(b'\n');
        // One call, so that entries of parallel requests never mix (O_APPEND).
        (&self.file).write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_appended_as_lines_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.log");
        let entry = |detail: &str| JournalEntry {
            at: jiff::Timestamp::UNIX_EPOCH,
            request: "rq_1".into(),
            principal: "local".into(),
            act: "exec".into(),
            target: "br_1/a".into(),
            detail: detail.into(),
        };
        FileJournal::open(&path).unwrap().append(&entry("true\nfalse")).unwrap();
        FileJournal::open(&path).unwrap().append(&entry("false")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<JournalEntry> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, [entry("true\nfalse"), entry("false")]);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }
}
