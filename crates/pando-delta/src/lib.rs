//! Guest memory as deltas.
//!
//! A machine maps an immutable flat image privately, so the pages that its guest wrote are exactly
//! the anonymous pages of that mapping. A commit reads those pages while the guest stands still
//! ([`pages`], [`capture`]) and writes the ones that changed since the commit before, after it goes
//! on ([`writer`]): the *delta*, which is durable. What machines map is the *flat* image, rebuilt
//! from a chain of deltas ([`flat`]): a cache.
//!
//! ```text
//!   machine process          keeper                       disk
//!   ┌───────────────┐  readv  ┌─────────┐  hash, compare  ┌────────────┐
//!   │ CoW'd pages   ├────────▶│ Capture ├────────────────▶│ NODE.pages │ fsync
//!   │ file pages    │         └─────────┘                 └─────┬──────┘
//!   └──────▲────────┘                                           │ chain, newest wins
//!          └────────────── mmap private ◀── COMMIT.NODE.ram ◀───┘
//! ```
//!
//! Called by the keeper (capture, write) and by the host driver (flatten, verify).

pub mod buffer;
pub mod capture;
pub mod flat;
pub mod format;
pub mod limits;
pub mod live;
pub mod pages;
pub mod runs;
pub mod tracking;
pub mod writer;

use std::path::{Path, PathBuf};

pub use buffer::PageBuffer;
pub use capture::Capture;
pub use format::{DeltaHeader, DeltaReader};
pub use live::LiveMemory;
pub use pages::written_pages;
pub use runs::PageRun;
pub use writer::{DeltaSummary, DeltaWriter, PageDigests};

/// Size of a guest page, in bytes: x86's small page, and QEMU's unit of dirtying.
pub const PAGE: usize = 4096;

/// Why memory could not be captured, written, read or flattened.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// A file could not be used.
    #[error("cannot {what} {path}", path = path.display())]
    File {
        /// What was being done, as a verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process' memory could not be read.
    #[error("cannot read the memory of process {pid}")]
    Process {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no memory to hold pages.
    #[error("there is no memory for the pages that changed")]
    Memory {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its checksums say.
    #[error("{path} is damaged: {detail}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not match.
        detail: String,
    },
}

impl DeltaError {
    fn file(what: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self::File { what, path: path.to_owned(), source: source.into() }
    }

    fn corrupt(path: &Path, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), detail: detail.into() }
    }

    /// Returns whether the disk was full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull
            || source.kind() == std::io::ErrorKind::QuotaExceeded)
    }
}
