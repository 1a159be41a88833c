//! A root file system as a value: what an archive or a directory holds, validated entry by entry,
//! and written again as an archive of our own making.
//!
//! Nothing of a stranger's archive is ever unpacked. Its entries become a [`Tree`] or are refused;
//! contents stay where they are and are only referred to. The archive that [`Tree::write_tar`]
//! writes is sorted, has no device nodes, and never has an entry below a symbolic link, so that
//! unpacking it cannot leave the directory it is unpacked in. Equal trees give equal archives.

mod archive;
mod directory;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub use archive::read_tar;
pub use directory::read_directory;

use crate::limits;

/// Why a tree cannot hold something.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A path is absolute, has `..`, or is too long or too deep.
    #[error("the path `{}` is {reason}", shown(path))]
    Path {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry lies below something that is not a directory.
    #[error("`{}` lies below `{}`, which is no directory", shown(path), shown(ancestor))]
    BelowNonDirectory {
        /// The entry.
        path: PathBuf,
        /// What it lies below.
        ancestor: PathBuf,
    },
    /// Something else would take the place of a directory that is not empty.
    #[error("`{}` is a directory with entries and something else at once", shown(.0))]
    DirectoryReplaced(PathBuf),
    /// A hard link names nothing that came before it.
    #[error(
        "the hard link `{}` names `{}`, which is not in the archive",
        shown(path),
        shown(target)
    )]
    HardLink {
        /// The link.
        path: PathBuf,
        /// What it names.
        target: PathBuf,
    },
    /// There are too many entries.
    #[error("there are more than {} entries", limits::MAX_TREE_ENTRIES)]
    TooMany,
    /// The files are too large together.
    #[error("the files have more than {} bytes", limits::MAX_TREE_BYTES)]
    TooLarge,
    /// An entry is of a kind that is not understood.
    #[error("`{}` is {kind}, which is not supported", shown(path))]
    Unsupported {
        /// The entry.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file that is to be read has more bytes than it may have.
    #[error("`{}` has {size} bytes, more than {limit}", shown(path))]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The archive is not one, or ends too early.
    #[error("it is no readable archive: {0}")]
    Malformed(String),
    /// The archive or a file cannot be read or written.
    #[error("the archive cannot be read or written")]
    Io(#[from] io::Error),
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().take(200).flat_map(char::escape_default).collect()
}

/// Owner, permissions and time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

impl Meta {
    /// Returns what root's files of this mode have; no time.
    pub const fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0 }
    }
}

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub enum Content {
    /// Here.
    Inline(Arc<[u8]>),
    /// In a part of an open file.
    Slice {
        /// The file, such as an archive.
        file: Arc<File>,
        /// Where they start.
        offset: u64,
        /// How many.
        size: u64,
    },
    /// In a file of its own, opened when they are needed; it must still have this size then.
    Host {
        /// The file.
        path: PathBuf,
        /// How many.
        size: u64,
    },
}

impl Content {
    /// Returns the number of bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Slice { size, .. } | Self::Host { size, .. } => *size,
        }
    }

    /// Returns a reader over exactly [`Content::size`] bytes.
    ///
    /// # Errors
    /// If a host file cannot be opened, is a symbolic link, or has another size.
    pub fn reader(&self) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(match self {
            Self::Inline(bytes) => Box::new(&bytes[..]),
            Self::Slice { file, offset, size } => {
                Box::new(SliceReader { file, offset: *offset, left: *size })
            }
            Self::Host { path, size } => {
                let flags = rustix::fs::OFlags::RDONLY
                    | rustix::fs::OFlags::NOFOLLOW
                    | rustix::fs::OFlags::NONBLOCK
                    | rustix::fs::OFlags::CLOEXEC;
                let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
                let facts = file.metadata()?;
                if !facts.is_file() || facts.len() != *size {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{} changed while it was read", path.display()),
                    ));
                }
                Box::new(file.take(*size))
            }
        })
    }
}

/// Reads a part of a shared file without moving its cursor.
struct SliceReader<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for SliceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..wanted) else { return Ok(0) };
        let count = self.file.read_at(part, self.offset)?;
        if count == 0 && wanted != 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// What an entry is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file. Files with the same `inode` are hard links to one another.
    File {
        /// Identity of the file inside this tree.
        inode: u64,
        /// Its bytes.
        content: Content,
    },
    /// A symbolic link. Its target may be anything: it means something inside the guest only.
    Symlink {
        /// The target.
        target: PathBuf,
    },
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Owner, permissions, time.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// A root file system. Paths are relative to its root.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
    bytes: u64,
    next_inode: u64,
}

impl Tree {
    /// Returns the entry at a path, without following links.
    pub fn get(&self, path: impl AsRef<Path>) -> Option<&Entry> {
        self.entries.get(path.as_ref())
    }

    /// Returns every entry below the root, parents before children, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_path(), entry))
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the bytes of all files together, each hard link counted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a directory; its attributes replace those of one that is there.
    pub fn add_directory(&mut self, path: impl AsRef<Path>, meta: Meta) -> Result<(), TreeError> {
        let path = normalise(path.as_ref())?;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        self.place(path, Entry { meta, kind: Kind::Directory })
    }

    /// Adds a file in the place of whatever is there, unless that is a directory with entries.
    pub fn add_file(
        &mut self,
        path: impl AsRef<Path>,
        meta: Meta,
        content: Content,
    ) -> Result<(), TreeError> {
        let path = normalise(path.as_ref())?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.place(path, Entry { meta, kind: Kind::File { inode, content } })
    }

    /// Adds a small file of root's.
    pub fn add_text(
        &mut self,
        path: impl AsRef<Path>,
        mode: u32,
        text: impl AsRef<[u8]>,
    ) -> Result<(), TreeError> {
        self.add_file(path, Meta::root(mode), Content::Inline(text.as_ref().into()))
    }

    /// Adds a symbolic link in the place of whatever is there.
    pub fn add_symlink(
        &mut self,
        path: impl AsRef<Path>,
        meta: Meta,
        target: impl AsRef<Path>,
    ) -> Result<(), TreeError> {
        let path = normalise(path.as_ref())?;
        let target = target.as_ref();
        if target.as_os_str().is_empty() || target.as_os_str().len() > limits::MAX_PATH_BYTES {
            return Err(TreeError::Path {
                path: target.to_owned(),
                reason: "no usable target of a symbolic link",
            });
        }
        self.place(path, Entry { meta, kind: Kind::Symlink { target: target.to_owned() } })
    }

    /// Adds a hard link to what an earlier entry is at this moment.
    pub fn add_hard_link(
        &mut self,
        path: impl AsRef<Path>,
        target: impl AsRef<Path>,
    ) -> Result<(), TreeError> {
        let path = normalise(path.as_ref())?;
        let target = normalise(target.as_ref())?;
        let entry = match self.entries.get(&target) {
            Some(entry) if !matches!(entry.kind, Kind::Directory) => entry.clone(),
            _ => return Err(TreeError::HardLink { path, target }),
        };
        self.place(path, entry)
    }

    /// Adds an entry of another tree; what were hard links there become files of their own.
    pub fn add_entry(&mut self, path: impl AsRef<Path>, entry: Entry) -> Result<(), TreeError> {
        match entry.kind {
            Kind::Directory => self.add_directory(path, entry.meta),
            Kind::Symlink { target } => self.add_symlink(path, entry.meta, target),
            Kind::File { content, .. } => self.add_file(path, entry.meta, content),
        }
    }

    /// Removes an entry and everything below it; nothing there is fine.
    pub fn remove(&mut self, path: impl AsRef<Path>) {
        let root = path.as_ref();
        let doomed: Vec<PathBuf> = self
            .entries
            .range::<Path, _>((Bound::Included(root), Bound::Unbounded))
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(root))
            .cloned()
            .collect();
        for path in doomed {
            if let Some(Entry { kind: Kind::File { content, .. }, .. }) = self.entries.remove(&path)
            {
                self.bytes -= content.size();
            }
        }
    }

    /// Returns the paths directly inside a directory.
    pub fn children<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.entries
            .range::<Path, _>((Bound::Excluded(directory), Bound::Unbounded))
            .map(|(path, _)| path.as_path())
            .take_while(move |path| path.starts_with(directory))
            .filter(move |path| path.parent() == Some(directory))
    }

    /// Returns where a path leads inside this tree, following symbolic links; none if it leads
    /// nowhere or round in circles.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let mut left: Vec<PathBuf> =
            path.as_ref().components().rev().map(|part| PathBuf::from(part.as_os_str())).collect();
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(part) = left.pop() {
            match part.components().next() {
                None | Some(Component::CurDir) => continue,
                Some(Component::RootDir | Component::Prefix(_)) => {
                    at = PathBuf::new();
                    continue;
                }
                Some(Component::ParentDir) => {
                    at.pop();
                    continue;
                }
                Some(Component::Normal(name)) => at.push(name),
            }
            if let Kind::Symlink { target } = &self.entries.get(&at)?.kind {
                links += 1;
                if links > 40 {
                    return None;
                }
                at.pop();
                left.extend(target.components().rev().map(|part| PathBuf::from(part.as_os_str())));
            }
        }
        Some(at)
    }

    /// Returns the bytes of the file that a path leads to; none if there is no such file.
    ///
    /// # Errors
    /// `FileTooLarge` if it has more than `limit` bytes; `Io`.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let Some(path) = self.resolve(path) else { return Ok(None) };
        let Some(Entry { kind: Kind::File { content, .. }, .. }) = self.entries.get(&path) else {
            return Ok(None);
        };
        let size = content.size();
        if size > limit {
            return Err(TreeError::FileTooLarge { path, size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        content.reader()?.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Puts an entry into its place, and the directories above it.
    fn place(&mut self, path: PathBuf, entry: Entry) -> Result<(), TreeError> {
        if path.as_os_str().is_empty() {
            return Err(TreeError::Path { path, reason: "the root itself" });
        }
        let mut missing = Vec::new();
        for ancestor in path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
            match self.entries.get(ancestor) {
                None => missing.push(ancestor.to_owned()),
                Some(Entry { kind: Kind::Directory, .. }) => break,
                Some(_) => {
                    let ancestor = ancestor.to_owned();
                    return Err(TreeError::BelowNonDirectory { path, ancestor });
                }
            }
        }
        if !matches!(entry.kind, Kind::Directory) && self.children(&path).next().is_some() {
            return Err(TreeError::DirectoryReplaced(path));
        }
        for ancestor in missing {
            let meta = Meta { mtime: entry.meta.mtime, ..Meta::root(0o755) };
            self.entries.insert(ancestor, Entry { meta, kind: Kind::Directory });
        }
        if let Kind::File { content, .. } = &entry.kind {
            self.bytes = self.bytes.saturating_add(content.size());
        }
        if let Some(Entry { kind: Kind::File { content, .. }, .. }) =
            self.entries.insert(path, entry)
        {
            self.bytes -= content.size();
        }
        if self.entries.len() > limits::MAX_TREE_ENTRIES {
            return Err(TreeError::TooMany);
        }
        if self.bytes > limits::MAX_TREE_BYTES {
            return Err(TreeError::TooLarge);
        }
        Ok(())
    }
}

/// Returns a path as this tree keys it: relative, no `.`.
fn normalise(path: &Path) -> Result<PathBuf, TreeError> {
    let refuse = |reason| Err(TreeError::Path { path: path.to_owned(), reason });
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > limits::MAX_PATH_BYTES {
        return refuse("too long");
    }
    if bytes.contains(&0) {
        return refuse("broken by a zero byte");
    }
    let mut clean = PathBuf::new();
    let mut depth = 0;
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) if name.len() > limits::MAX_NAME_BYTES => {
                return refuse("too long");
            }
            Component::Normal(name) => {
                clean.push(name);
                depth += 1;
            }
            Component::ParentDir => return refuse("leading upwards"),
            Component::RootDir | Component::Prefix(_) => return refuse("absolute"),
        }
    }
    if depth > limits::MAX_PATH_DEPTH {
        return refuse("too deep");
    }
    Ok(clean)
}

/// What reading an archive or a directory left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Device nodes, pipes and sockets: a guest makes its own.
    pub specials: usize,
}

#[cfg(test)]
mod tests;
