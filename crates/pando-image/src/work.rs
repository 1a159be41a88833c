//! A private directory for one build or import, and the blocking work that is done in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pando_driver::{ImageError, Reporter};
use tempfile::TempDir;

use crate::tree::TreeError;

/// A scratch directory below the home's `tmp`, removed with its last user.
#[derive(Clone)]
pub struct Work {
    directory: Arc<TempDir>,
}

impl Work {
    /// Makes a fresh directory in `parent`.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub fn new(parent: &Path) -> Result<Self, ImageError> {
        let made = std::fs::create_dir_all(parent)
            .and_then(|()| tempfile::Builder::new().prefix("image-").tempdir_in(parent));
        let directory = made.map_err(|source| io_error("make a scratch directory", source))?;
        Ok(Self { directory: Arc::new(directory) })
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns a path inside it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Makes a directory inside it.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub fn directory(&self, name: &str) -> Result<PathBuf, ImageError> {
        let path = self.join(name);
        std::fs::create_dir_all(&path)
            .map_err(|source| io_error(format!("make {}", path.display()), source))?;
        Ok(path)
    }

    /// Removes the directory, which may take a while, and waits for that. Dropping it does the same
    /// where nobody can wait.
    pub async fn remove(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    /// Runs blocking work. The directory lives as long as it runs, even if nobody waits for it.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn run<T: Send + 'static>(
        &self,
        reporter: &Reporter,
        work: impl FnOnce(&Work) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        if reporter.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        let own = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&own)).await;
        let done = done.unwrap_or_else(|panic| {
            Err(io_error("do blocking work", io::Error::other(panic.to_string())))
        });
        if reporter.is_cancelled() { Err(ImageError::Cancelled) } else { done }
    }
}

/// Returns the error for a failed system call; a full disk is told apart.
pub fn io_error(what: impl Into<String>, source: io::Error) -> ImageError {
    let what = what.into();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::DiskFull(what),
        _ => ImageError::Io { what, source },
    }
}

/// Returns the error for a tree that could not be read or written; what is wrong with the tree
/// itself refuses `path`.
pub fn tree_error(path: &Path, error: TreeError) -> ImageError {
    match error {
        TreeError::Io(source) => io_error(format!("read or write {}", path.display()), source),
        refused => ImageError::Refused { path: path.to_owned(), reason: refused.to_string() },
    }
}
