//! Files: one walk over everything that lies on a disk, without reading any contents.

use std::collections::HashMap;
use std::fs::{self, DirEntry, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pando_model::capture::{Aspect, CaptureRecord, Coverage, FileState};
use pando_model::guest::FileKind;
use pando_wire::limits::MAX_PATH_BYTES;

use super::{Teller, Told};
use crate::config::{Authority, Config};
use crate::files::kind_of;
use crate::limits::{MAX_CAPTURED_ENTRIES, MAX_CAPTURED_FILES, MAX_DATABASE_CANDIDATES};

/// File systems whose files outlive a reboot.
const ON_DISK: &[&str] = &[
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "zfs", "bcachefs", "jfs",
    "ntfs3",
];

/// Where a walk may go.
enum Border {
    /// Where the table of mounts says that a disk is.
    Mounts(HashMap<PathBuf, String>),
    /// Everywhere on the device that it begins on.
    Device(u64),
}

impl Border {
    fn admits(&self, path: &Path, facts: &Metadata) -> bool {
        match self {
            Self::Mounts(mounts) => match mounts.get(path) {
                None => true,
                // A tmpfs may lie there, and is used all the same.
                Some(kind) if path == Path::new("/tmp") => kind == "tmpfs" || on_disk(kind),
                Some(kind) => on_disk(kind),
            },
            Self::Device(device) => facts.dev() == *device,
        }
    }
}

fn on_disk(kind: &str) -> bool {
    ON_DISK.contains(&kind)
}

/// Directories whose files are no databases, or nobody's but the system's own.
const NO_DATABASES: &[&str] = &["/usr", "/lib", "/bin", "/sbin", "/boot", "/etc", "/var/cache"];

/// Returns whether a file in `directory` may be a database, by what is known without opening it:
/// SQLite's are whole pages, the smallest of which has 512 bytes.
fn may_be_database(directory: &str, state: &FileState) -> bool {
    const PAGE: u64 = 512;
    let inside = |one: &str| {
        directory.strip_prefix(one).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let whole = state.size >= PAGE && state.size.is_multiple_of(PAGE);
    state.kind == FileKind::File && whole && !NO_DATABASES.iter().any(|one| inside(one))
}

/// Tells all files of the system; returns those that may be databases.
pub fn files(config: &Config, teller: &mut Teller<'_>) -> Result<Vec<String>, super::GivenUp> {
    let mut walk = Walk::new(&config.root, border(config), Some(&mut *teller));
    let coverage = walk.walk("/")?;
    let databases = walk.databases;
    teller.covered(Aspect::Files, coverage)?;
    Ok(databases)
}

/// Returns the files that may be databases, and tells nothing.
pub fn candidates(config: &Config) -> Vec<String> {
    let mut walk = Walk::new(&config.root, border(config), None);
    // Nothing is told, so nobody can give it up.
    let _ = walk.walk("/");
    walk.databases
}

fn border(config: &Config) -> Border {
    match config.authority {
        Authority::Machine => {
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            Border::Mounts(mounts(&table))
        }
        Authority::Files => {
            Border::Device(fs::metadata(&config.root).map_or(0, |facts| facts.dev()))
        }
    }
}

/// Tells the files under `/etc`.
pub fn config(root: &Path, teller: &mut Teller<'_>) -> Told {
    let device = fs::metadata(root.join("etc")).map_or(0, |facts| facts.dev());
    let border = Border::Device(device);
    let coverage = Walk::new(root, border, Some(&mut *teller)).walk("/etc")?;
    teller.covered(Aspect::Config, coverage)
}

/// Returns the kinds of mounted file systems by where they are, the topmost of each place.
fn mounts(table: &str) -> HashMap<PathBuf, String> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let place = before.split(' ').nth(4)?;
        let kind = after.split(' ').next()?;
        Some((PathBuf::from(unescape(place)), kind.to_owned()))
    };
    table.lines().filter_map(mount).collect()
}

/// Returns a field of the table as it was before blanks in it were written in octal.
fn unescape(field: &str) -> String {
    let blanks = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    blanks.iter().fold(field.to_owned(), |text, (code, blank)| text.replace(code, blank))
}

struct Walk<'a, 'b> {
    root: &'a Path,
    border: Border,
    /// How many files may still be told.
    left: usize,
    /// Who is told, if anybody.
    teller: Option<&'a mut Teller<'b>>,
    /// Files that may be databases.
    databases: Vec<String>,
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(root: &'a Path, border: Border, teller: Option<&'a mut Teller<'b>>) -> Self {
        Self { root, border, left: MAX_CAPTURED_FILES, teller, databases: Vec::new() }
    }

    /// Tells a record; returns whether it was short enough.
    fn tell(&mut self, record: &CaptureRecord) -> Result<bool, super::GivenUp> {
        self.teller.as_mut().map_or(Ok(true), |teller| teller.tell(record))
    }

    fn walk(&mut self, from: &str) -> Result<Coverage, super::GivenUp> {
        let mut waiting = vec![from.to_owned()];
        let (mut unreadable, mut odd) = (0u64, 0u64);
        while let Some(directory) = waiting.pop() {
            let place = self.root.join(directory.trim_start_matches('/'));
            let Ok(entries) = fs::read_dir(&place) else {
                unreadable += 1;
                continue;
            };
            self.tell(&CaptureRecord::Directory(directory.clone()))?;
            for entry in entries.take(MAX_CAPTURED_ENTRIES) {
                let Ok(entry) = entry else {
                    unreadable += 1;
                    break;
                };
                // What was removed this instant is no entry any more.
                let Ok(facts) = entry.metadata() else { continue };
                let Ok(name) = entry.file_name().into_string() else {
                    odd += 1;
                    continue;
                };
                if self.left == 0 {
                    let why = format!("there are more than {MAX_CAPTURED_FILES} files");
                    return Ok(Coverage::Partial(why));
                }
                self.left -= 1;
                // Not put together for most files: there are thousands.
                let path = || match directory.as_str() {
                    "/" => format!("/{name}"),
                    directory => format!("{directory}/{name}"),
                };
                let length = directory.len() + 1 + name.len();
                let inside = facts.is_dir().then(|| (path(), entry.path()));
                let state = state(&entry, &facts);
                if self.databases.len() < MAX_DATABASE_CANDIDATES
                    && may_be_database(&directory, &state)
                {
                    self.databases.push(path());
                }
                if length > MAX_PATH_BYTES || !self.tell(&CaptureRecord::Entry(name, state))? {
                    odd += 1;
                } else if let Some((path, on_root)) = inside
                    && self.border.admits(&on_root, &facts)
                {
                    waiting.push(path);
                }
            }
        }
        Ok(match (unreadable, odd) {
            (0, 0) => Coverage::Complete,
            _ => Coverage::Partial(format!(
                "{unreadable} directories could not be read, {odd} names are too long or no UTF-8"
            )),
        })
    }
}

fn state(entry: &DirEntry, facts: &Metadata) -> FileState {
    let kind = facts.file_type();
    let target = kind.is_symlink().then(|| {
        fs::read_link(entry.path()).map(|to| to.to_string_lossy().into_owned()).unwrap_or_default()
    });
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000) + rest;
    FileState {
        kind: kind_of(kind),
        inode: facts.ino(),
        ctime_ns: nanoseconds(facts.ctime(), facts.ctime_nsec()),
        mtime_ns: nanoseconds(facts.mtime(), facts.mtime_nsec()),
        size: facts.len(),
        mode: facts.mode() & 0o7777,
        uid: facts.uid(),
        gid: facts.gid(),
        target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_mounts_is_read_with_its_escapes() {
        let table = "22 1 254:0 / / rw,noatime shared:1 - ext4 /dev/root rw\n\
                     23 22 0:21 / /proc rw - proc proc rw\n\
                     24 22 0:22 / /mnt/a\\040b rw - tmpfs tmpfs rw\nnonsense\n";
        let mounts = mounts(table);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[Path::new("/mnt/a b")], "tmpfs");
        let border = Border::Mounts(mounts);
        let facts = fs::metadata("/").unwrap();
        for (path, admitted) in [("/", true), ("/proc", false), ("/mnt/a b", false), ("/etc", true)]
        {
            assert_eq!(border.admits(Path::new(path), &facts), admitted, "{path}");
        }
    }
}
