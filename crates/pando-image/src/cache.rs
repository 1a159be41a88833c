//! Keeps downloaded packages for the next build. A build borrows hard links, so that what another
//! one drops meanwhile stays; each file carries the digest of its bytes in its name and is not lent
//! when they have changed. Everything here is a saving only: a failure costs a download.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::limits;
use crate::store::hash_file;

/// Hexadecimal digits of the digest in a name.
const DIGEST_CHARS: usize = 32;

/// A directory of packages, as `NAME.deb.DIGEST`.
#[derive(Debug, Clone)]
pub struct PackageCache {
    directory: PathBuf,
}

impl PackageCache {
    /// Returns the cache in a directory, which need not exist.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Links every undamaged package into `to`, under the name that apt gives it.
    ///
    /// # Errors
    /// If `to` cannot be written to.
    pub fn lend(&self, to: &Path) -> io::Result<()> {
        for (path, name, digest) in self.packages() {
            match hash_file(&path) {
                Ok((_, hash)) if hash.to_hex().starts_with(&digest) => {
                    fs::hard_link(&path, to.join(name))?;
                    let now = fs::FileTimes::new().set_modified(SystemTime::now());
                    let _ = fs::File::open(&path).and_then(|file| file.set_times(now));
                }
                _ => drop(fs::remove_file(&path)),
            }
        }
        Ok(())
    }

    /// Keeps the packages in `from`, and drops those that were not used for longest when all are
    /// larger than they may be together.
    ///
    /// # Errors
    /// If the cache cannot be written to.
    pub fn keep(&self, from: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if !name.ends_with(".deb") || !path.symlink_metadata()?.is_file() {
                continue;
            }
            let (_, hash) = hash_file(&path)?;
            let digest: String = hash.to_hex().chars().take(DIGEST_CHARS).collect();
            let kept = self.directory.join(format!("{name}.{digest}"));
            if !kept.exists() {
                fs::rename(&path, kept)?;
            }
        }
        self.shrink(limits::MAX_PACKAGE_CACHE_BYTES);
        Ok(())
    }

    fn shrink(&self, limit: u64) {
        let mut packages: Vec<_> = self
            .packages()
            .filter_map(|(path, ..)| {
                let facts = path.symlink_metadata().ok()?;
                Some((facts.modified().ok()?, facts.len(), path))
            })
            .collect();
        packages.sort();
        let mut total: u64 = packages.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in packages {
            if total <= limit {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= size;
            }
        }
    }

    /// Returns path, apt's name and digest of each package.
    fn packages(&self) -> impl Iterator<Item = (PathBuf, String, String)> {
        fs::read_dir(&self.directory).into_iter().flatten().filter_map(|entry| {
            let path = entry.ok()?.path();
            let (name, digest) = path.file_name()?.to_str()?.rsplit_once('.')?;
            (name.ends_with(".deb") && digest.len() == DIGEST_CHARS)
                .then(|| (path.clone(), name.to_owned(), digest.to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        root: tempfile::TempDir,
        cache: PackageCache,
    }

    fn fixture(packages: &[(&str, &str)]) -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let cache = PackageCache::new(root.path().join("cache"));
        let from = root.path().join("from");
        fs::create_dir(&from).unwrap();
        for (name, bytes) in packages {
            fs::write(from.join(name), bytes).unwrap();
        }
        cache.keep(&from).unwrap();
        Fixture { root, cache }
    }

    fn lent(fixture: &Fixture) -> Vec<String> {
        let to = tempfile::tempdir_in(fixture.root.path()).unwrap();
        fixture.cache.lend(to.path()).unwrap();
        let mut names: Vec<_> = fs::read_dir(to.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn packages_come_back_under_their_names() {
        let fixture = fixture(&[("a_1%3a2_amd64.deb", "a"), ("b.deb", "b"), ("lock", "")]);
        assert_eq!(lent(&fixture), ["a_1%3a2_amd64.deb", "b.deb"]);
        assert_eq!(lent(&fixture), ["a_1%3a2_amd64.deb", "b.deb"], "lending keeps them");
    }

    #[test]
    fn a_damaged_package_is_dropped() {
        let fixture = fixture(&[("a.deb", "good"), ("b.deb", "good")]);
        let (path, ..) = fixture.cache.packages().find(|(_, name, _)| name == "a.deb").unwrap();
        fs::write(path, "evil").unwrap();
        assert_eq!(lent(&fixture), ["b.deb"]);
        assert_eq!(fixture.cache.packages().count(), 1);
    }

    #[test]
    fn the_cache_does_not_grow_for_ever() {
        let fixture = fixture(&[("old.deb", "12345"), ("new.deb", "12345")]);
        fixture.cache.shrink(10);
        assert_eq!(lent(&fixture).len(), 2);
        let old = fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        let (path, ..) = fixture.cache.packages().find(|(_, name, _)| name == "old.deb").unwrap();
        fs::File::open(path).unwrap().set_times(old).unwrap();
        fixture.cache.shrink(9);
        assert_eq!(lent(&fixture), ["new.deb"]);
    }
}
