//! Trees from archives and archives from trees.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Content, Dropped, Kind, Meta, Tree, TreeError, normalise};

impl Tree {
    /// Writes the tree as an archive that GNU tar unpacks: sorted, numeric owners, no time later
    /// than `newest`.
    pub fn write_tar(&self, to: impl Write, newest: u64) -> Result<(), TreeError> {
        let mut archive = tar::Builder::new(to);
        let mut first_paths: HashMap<u64, &Path> = HashMap::new();
        for (path, entry) in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.meta.mode & 0o7777);
            header.set_uid(entry.meta.uid.into());
            header.set_gid(entry.meta.gid.into());
            header.set_mtime(entry.meta.mtime.min(newest));
            header.set_size(0);
            match &entry.kind {
                Kind::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    archive.append_data(&mut header, path, io::empty())?;
                }
                Kind::Symlink { target } => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    append_link(&mut archive, &mut header, path, target)?;
                }
                Kind::File { inode, content } => match first_paths.get(inode) {
                    Some(first) => {
                        header.set_entry_type(tar::EntryType::Link);
                        append_link(&mut archive, &mut header, path, first)?;
                    }
                    None => {
                        first_paths.insert(*inode, path);
                        header.set_entry_type(tar::EntryType::Regular);
                        header.set_size(content.size());
                        archive.append_data(&mut header, path, content.reader()?)?;
                    }
                },
            }
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }
}

/// Long names and targets go into entries of their own, as GNU tar does it; the target's bytes are
/// kept as they are (`append_link` would clean them up).
fn append_link(
    archive: &mut tar::Builder<impl Write>,
    header: &mut tar::Header,
    path: &Path,
    target: &Path,
) -> io::Result<()> {
    let bytes = target.as_os_str().as_bytes();
    if header.set_link_name_literal(bytes).is_err() {
        let mut long = tar::Header::new_gnu();
        long.set_path("././@LongLink")?;
        long.set_entry_type(tar::EntryType::GNULongLink);
        long.set_mode(0o644);
        long.set_size(bytes.len() as u64 + 1);
        long.set_cksum();
        archive.append(&long, bytes.chain(&b"\0"[..]))?;
    }
    archive.append_data(header, path, io::empty())
}

/// Reads an uncompressed archive into a tree. `archive` must be positioned at its start.
///
/// # Errors
/// Any [`TreeError`]; the archive is a stranger's.
pub fn read_tar(archive: File) -> Result<(Tree, Dropped), TreeError> {
    let file = Arc::new(archive);
    let end = file.metadata()?.len();
    let mut tree = Tree::default();
    let mut dropped = Dropped::default();
    let mut reader = tar::Archive::new(&*file);
    for entry in reader.entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        if entry
            .pax_extensions()
            .map_err(malformed)?
            .into_iter()
            .flatten()
            .any(|record| record.is_ok_and(|record| record.key_bytes().starts_with(b"GNU.sparse.")))
        {
            let path = entry.path().map_err(malformed)?.into_owned();
            return Err(TreeError::Unsupported { path, kind: "a sparse file" });
        }
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let header = entry.header();
        let meta = Meta {
            mode: header.mode().map_err(malformed)? & 0o7777,
            uid: u32::try_from(header.uid().map_err(malformed)?).unwrap_or(u32::MAX - 1),
            gid: u32::try_from(header.gid().map_err(malformed)?).unwrap_or(u32::MAX - 1),
            mtime: header.mtime().map_err(malformed)?,
        };
        match header.entry_type() {
            tar::EntryType::Directory => tree.add_directory(path, meta)?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(size).is_none_or(|last| last > end) {
                    return Err(TreeError::Malformed("it ends inside a file".to_owned()));
                }
                let content = Content::Slice { file: Arc::clone(&file), offset, size };
                tree.add_file(path, meta, content)?;
            }
            tar::EntryType::Symlink => {
                tree.add_symlink(path, meta, link_target(&entry))?;
            }
            tar::EntryType::Link => tree.add_hard_link(path, link_target(&entry))?,
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                normalise(&path)?;
                dropped.specials += 1;
            }
            tar::EntryType::XGlobalHeader => {}
            tar::EntryType::GNUSparse => {
                return Err(TreeError::Unsupported { path, kind: "a sparse file" });
            }
            _ => return Err(TreeError::Unsupported { path, kind: "of an unknown kind" }),
        }
    }
    Ok((tree, dropped))
}

/// What the reader finds wrong with an archive is told apart from a disk that cannot be read.
fn malformed(error: io::Error) -> TreeError {
    match error.kind() {
        io::ErrorKind::Other
        | io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof => {
            let said = error.to_string();
            TreeError::Malformed(said.chars().take(200).flat_map(char::escape_default).collect())
        }
        _ => TreeError::Io(error),
    }
}

fn link_target(entry: &tar::Entry<'_, impl Read>) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&entry.link_name_bytes().unwrap_or_default()))
}
