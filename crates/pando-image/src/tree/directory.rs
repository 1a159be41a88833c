//! Trees from directories of this host.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Content, Dropped, Meta, Tree, TreeError};

/// Reads a directory of this host into a tree. Never follows a symbolic link. Files of `own_uid`
/// belong to the guest's root when it is not root's own, since an unprivileged user's directory
/// cannot say otherwise.
///
/// # Errors
/// Any [`TreeError`].
pub fn read_directory(root: &Path, own_uid: u32) -> Result<(Tree, Dropped), TreeError> {
    let mut tree = Tree::default();
    let mut dropped = Dropped::default();
    let mut inodes: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let mut names: Vec<_> = std::fs::read_dir(root.join(&directory))?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let path = directory.join(name);
            let facts = std::fs::symlink_metadata(root.join(&path))?;
            let meta = Meta {
                mode: facts.mode() & 0o7777,
                uid: if facts.uid() == own_uid { 0 } else { facts.uid() },
                gid: if facts.uid() == own_uid { 0 } else { facts.gid() },
                mtime: u64::try_from(facts.mtime()).unwrap_or(0),
            };
            if facts.is_dir() {
                tree.add_directory(&path, meta)?;
                directories.push(path);
            } else if facts.is_symlink() {
                tree.add_symlink(&path, meta, std::fs::read_link(root.join(&path))?)?;
            } else if !facts.is_file() {
                dropped.specials += 1;
            } else if let Some(first) = inodes.get(&(facts.dev(), facts.ino())) {
                tree.add_hard_link(&path, first)?;
            } else {
                let content = Content::Host { path: root.join(&path), size: facts.len() };
                tree.add_file(&path, meta, content)?;
                if facts.nlink() > 1 {
                    inodes.insert((facts.dev(), facts.ino()), path);
                }
            }
        }
    }
    Ok((tree, dropped))
}
