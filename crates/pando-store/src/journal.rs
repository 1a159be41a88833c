//! The journal as an append-only file of JSON lines: one for an act, another for its end. One
//! `write` per line, no fsync: a line survives the death of the process, a power cut may take the
//! tail. The file is bounded: a full one becomes the older of two, and the older one goes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pando_driver::store::{Journal, JournalEnd, JournalEntry, JournalQuery, JournalRecord};

/// Bytes after which a new file is begun: some hundred thousand commands, read in a moment.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// The journal of one home.
pub struct FileJournal {
    path: PathBuf,
    max_bytes: u64,
    open: Mutex<Open>,
}

/// The newer file.
struct Open {
    file: File,
    bytes: u64,
}

fn open(path: &Path) -> io::Result<Open> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

fn older(path: &Path) -> PathBuf {
    let mut older = OsString::from(path);
    older.push(".1");
    older.into()
}

impl FileJournal {
    /// Opens the journal for appending; makes it, readable by its owner only, if there is none.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let open = Mutex::new(open(path)?);
        Ok(Self { path: path.to_owned(), max_bytes: MAX_BYTES, open })
    }

    fn write(&self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        // Nothing under this lock can panic half-way through a change.
        let mut open_file = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open_file.bytes >= self.max_bytes {
            fs::rename(&self.path, older(&self.path))?;
            *open_file = open(&self.path)?;
        }
        open_file.bytes += line.len() as u64;
        // One call, so that a reader never meets the lines of two requests in one.
        open_file.file.write_all(&line)
    }
}

impl Journal for FileJournal {
    fn append(&self, entry: &JournalEntry) -> io::Result<()> {
        self.write(serde_json::to_vec(entry).map_err(io::Error::other)?)
    }

    fn end(&self, end: &JournalEnd) -> io::Result<()> {
        self.write(serde_json::to_vec(end).map_err(io::Error::other)?)
    }

    fn read(&self, query: &JournalQuery) -> io::Result<Vec<JournalRecord>> {
        let mut records: Vec<JournalRecord> = Vec::new();
        let mut places = HashMap::new();
        for path in [older(&self.path), self.path.clone()] {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let mut lines = BufReader::new(file);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line)? > 0 {
                // A torn last line, or one of another version, is no act that could be shown.
                if let Ok(entry) = serde_json::from_slice::<JournalEntry>(&line) {
                    if query.fits(&entry) {
                        places.insert(entry.id.clone(), records.len());
                        records.push(JournalRecord { entry, end: None });
                    }
                } else if let Ok(end) = serde_json::from_slice::<JournalEnd>(&line)
                    && let Some(of) = places.get(&end.ends).and_then(|&at| records.get_mut(at))
                {
                    of.end = Some(end);
                }
                line.clear();
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pando_model::{BranchId, JournalId};

    use super::*;

    fn entry(branch: &BranchId, second: i64, detail: &str) -> JournalEntry {
        JournalEntry {
            id: JournalId::random(),
            at: Timestamp::from_second(second).unwrap(),
            request: "rq_1".into(),
            principal: "local".into(),
            act: "exec".into(),
            target: format!("{branch}/a"),
            detail: detail.into(),
        }
    }

    fn end(of: &JournalEntry) -> JournalEnd {
        JournalEnd { ends: of.id.clone(), at: of.at, exit_code: Some(0), why: None, duration_us: 5 }
    }

    fn all(branch: &BranchId) -> JournalQuery {
        JournalQuery { branches: vec![branch.clone()], since: None }
    }

    #[test]
    fn acts_and_their_ends_are_kept_and_read_by_branch_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.log");
        let (ours, theirs) = (BranchId::random(), BranchId::random());
        let first = entry(&ours, 10, "true\nfalse");
        let other = entry(&theirs, 11, "true");
        let second = entry(&ours, 12, "false");
        {
            let journal = FileJournal::open(&path).unwrap();
            journal.append(&first).unwrap();
            journal.append(&other).unwrap();
            journal.end(&end(&first)).unwrap();
        }
        let journal = FileJournal::open(&path).unwrap();
        journal.append(&second).unwrap();
        // Killed in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"id\":").unwrap();
        let read = journal.read(&all(&ours)).unwrap();
        let expected = [
            JournalRecord { entry: first.clone(), end: Some(end(&first)) },
            JournalRecord { entry: second.clone(), end: None },
        ];
        assert_eq!(read, expected);
        let since = JournalQuery { since: Some(second.at), ..all(&ours) };
        assert_eq!(journal.read(&since).unwrap(), [expected[1].clone()]);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_journal_is_bounded_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.log");
        let mut journal = FileJournal::open(&path).unwrap();
        journal.max_bytes = 2000;
        let branch = BranchId::random();
        for second in 0..100 {
            journal.append(&entry(&branch, second, "true")).unwrap();
        }
        let kept = journal.read(&all(&branch)).unwrap();
        assert!((10..40).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.last().unwrap().entry.at.as_second(), 99);
        let bytes: u64 =
            fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 6000, "{bytes}");
    }
}
