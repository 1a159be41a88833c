//! Files of the guest: written whole or not at all, read as a stream, described, listed.
//!
//! Paths are the guest's own world: its symbolic links are followed. What is checked is that they
//! are absolute, so that they mean the same whoever asks.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use pando_model::guest::{FileFacts, FileKind, PushSpec};
use pando_wire::guest::{Answer, Listing, Refusal, RefusalKind, Reply};
use pando_wire::limits::{
    MAX_CHUNK_BYTES, MAX_LISTED_ENTRIES, MAX_REPLY_BYTES, STREAM_WINDOW_BYTES,
};

use crate::jobs::{Voice, What};
use crate::users::{Tables, User};

/// Most names of a directory that are looked at: what is listed is sorted first.
const MAX_SORTED_NAMES: usize = 65_536;

/// What the host sends for a file that is being written.
#[derive(Debug)]
pub enum Feed {
    /// The next bytes.
    Data(Vec<u8>),
    /// That was all.
    Eof,
}

/// Writes a file from `feed`. `root` is where the tables of users are.
pub fn push(spec: &PushSpec, root: &Path, feed: &Receiver<Feed>, voice: &Voice) -> Answer {
    let object = |error: &io::Error| Refusal::from_io(format_args!("`{}`", spec.path), error);
    let path = absolute(&spec.path)?;
    let owner = match &spec.owner {
        None => None,
        Some(name) => match User::find(&mut Tables::new(root), name) {
            Ok(Some(user)) => Some(user),
            Ok(None) => {
                return Err(Refusal::new(RefusalKind::NotFound, format!("no user `{name}`")));
            }
            Err(error) => return Err(Refusal::from_io("the table of users", &error)),
        },
    };
    if spec.make_parents
        && let Some(parent) = path.parent()
    {
        fs::create_dir_all(parent).map_err(|error| object(&error))?;
    }
    let target = target_of(&path).map_err(|error| object(&error))?;
    let mut file = Unfinished::create(&target).map_err(|error| object(&error))?;
    voice.say(What::Started);
    let mut received = 0u64;
    loop {
        match feed.recv() {
            Ok(Feed::Data(bytes)) => {
                received += bytes.len() as u64;
                if received > spec.size {
                    return Err(wrong_size(spec, "more"));
                }
                file.file.write_all(&bytes).map_err(|error| object(&error))?;
                voice.say(What::Consumed(bytes.len()));
            }
            Ok(Feed::Eof) if received == spec.size => break,
            Ok(Feed::Eof) => return Err(wrong_size(spec, "fewer")),
            // The stream was closed; dropping the file removes it, and nobody hears the answer.
            Err(_) => return Err(Refusal::new(RefusalKind::Invalid, "the transfer was given up")),
        }
    }
    // Root in a machine.
    let ours = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let owner = owner.map_or(ours, |user| (user.uid, user.gid));
    let facts = file.finish(&target, spec.mode, owner).map_err(|error| object(&error))?;
    Ok(Reply::File(facts_of(&target, &facts)))
}

fn wrong_size(spec: &PushSpec, than: &str) -> Refusal {
    let message = format!("`{}`: {than} bytes came than the {} announced", spec.path, spec.size);
    Refusal::new(RefusalKind::Invalid, message)
}

/// A file that has no name of its own yet. Dropping it removes it.
struct Unfinished {
    file: File,
    path: Option<PathBuf>,
}

impl Unfinished {
    /// Creates it beside `target`, so that renaming needs no copy.
    fn create(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        for attempt in 0..100 {
            let mut unfinished = OsString::from(".");
            // A long name leaves no room for more.
            unfinished.push(name.to_string_lossy().chars().take(32).collect::<String>());
            unfinished.push(format!(".pando-{}-{attempt}", std::process::id()));
            let path = target.with_file_name(unfinished);
            let created = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
                .open(&path);
            match created {
                Ok(file) => return Ok(Self { file, path: Some(path) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Gives it its owner, mode and name.
    fn finish(mut self, target: &Path, mode: u32, owner: (u32, u32)) -> io::Result<Metadata> {
        let now = self.file.metadata()?;
        if (now.uid(), now.gid()) != owner {
            fchown(&self.file, Some(owner.0), Some(owner.1))?;
        }
        // After the owner, whose change clears set-user-id bits.
        self.file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        if let Some(path) = self.path.take() {
            fs::rename(&path, target).inspect_err(|_| self.path = Some(path))?;
        }
        self.file.metadata()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing better can be done about it here.
            let _ = fs::remove_file(path);
        }
    }
}

/// Follows symbolic links to where a file is to be written; the last one may point nowhere.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(target) if target.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(target) => Ok(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
            let parent = path.parent().ok_or(io::ErrorKind::IsADirectory)?;
            Ok(fs::canonicalize(parent)?.join(name))
        }
        Err(error) => Err(error),
    }
}

/// Reads a regular file to the host, as `grants` allow.
pub fn pull(path: &str, grants: &Receiver<u32>, voice: &Voice) -> Answer {
    let object = |error: &io::Error| Refusal::from_io(format_args!("`{path}`"), error);
    let file = absolute(path)?;
    let file = fs::canonicalize(file).map_err(|error| object(&error))?;
    // Without O_NONBLOCK, opening a pipe nobody writes to would wait for ever.
    let mut open = OpenOptions::new();
    open.read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK);
    let mut source = open.open(&file).map_err(|error| object(&error))?;
    let facts = source.metadata().map_err(|error| object(&error))?;
    if !facts.is_file() {
        let message = format!("`{path}` is not a regular file");
        return Err(Refusal::new(RefusalKind::WrongFileType, message));
    }
    voice.say(What::Started);
    let mut facts = facts_of(&file, &facts);
    facts.size = 0;
    let mut granted = STREAM_WINDOW_BYTES as usize;
    loop {
        while granted == 0 {
            let Ok(more) = grants.recv() else {
                return Err(Refusal::new(RefusalKind::Invalid, "the transfer was given up"));
            };
            granted = granted.saturating_add(more as usize);
        }
        while let Ok(more) = grants.try_recv() {
            granted = granted.saturating_add(more as usize);
        }
        let mut bytes = Vec::new();
        let limit = granted.min(MAX_CHUNK_BYTES);
        let read = Read::by_ref(&mut source).take(limit as u64).read_to_end(&mut bytes);
        read.map_err(|error| object(&error))?;
        if bytes.is_empty() {
            return Ok(Reply::File(facts));
        }
        granted -= bytes.len().min(granted);
        facts.size += bytes.len() as u64;
        voice.say(What::Data(bytes));
    }
}

/// Describes a file.
pub fn stat(path: &str) -> Answer {
    let object = |error: &io::Error| Refusal::from_io(format_args!("`{path}`"), error);
    let file = fs::canonicalize(absolute(path)?).map_err(|error| object(&error))?;
    let facts = fs::metadata(&file).map_err(|error| object(&error))?;
    Ok(Reply::File(facts_of(&file, &facts)))
}

/// Lists a directory.
pub fn list(path: &str) -> Answer {
    let object = |error: &io::Error| Refusal::from_io(format_args!("`{path}`"), error);
    let directory = fs::canonicalize(absolute(path)?).map_err(|error| object(&error))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).map_err(|error| object(&error))?.take(MAX_SORTED_NAMES) {
        names.push(entry.map_err(|error| object(&error))?.file_name());
    }
    names.sort();
    let total = names.len();
    let mut entries = Vec::new();
    let mut bytes = 0;
    for name in names.into_iter().take(MAX_LISTED_ENTRIES) {
        let path = directory.join(name);
        // An upper bound of what the numbers take, beside the path.
        bytes += path.as_os_str().len() * 3 + 48;
        if bytes > MAX_REPLY_BYTES {
            break;
        }
        // It may have been removed this instant; then it is not an entry any more.
        if let Ok(facts) = fs::symlink_metadata(&path) {
            entries.push(facts_of(&path, &facts));
        }
    }
    let truncated = entries.len() < total;
    Ok(Reply::Listing(Listing { entries, truncated }))
}

fn absolute(path: &str) -> Result<PathBuf, Refusal> {
    if !path.starts_with('/') || path.contains('\0') {
        let message = format!("`{}` is not an absolute path", path.escape_debug());
        return Err(Refusal::new(RefusalKind::Invalid, message));
    }
    Ok(PathBuf::from(path))
}

/// Returns what a file is.
pub(crate) fn kind_of(kind: fs::FileType) -> FileKind {
    if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else {
        FileKind::Other
    }
}

fn facts_of(path: &Path, facts: &Metadata) -> FileFacts {
    let kind = kind_of(facts.file_type());
    FileFacts {
        path: path.to_string_lossy().into_owned(),
        kind,
        mode: facts.mode() & 0o7777,
        size: facts.len(),
        uid: facts.uid(),
        gid: facts.gid(),
    }
}
