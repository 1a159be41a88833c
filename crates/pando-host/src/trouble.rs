//! How the host's own troubles become [`HostError`].

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::Path;

use pando_delta::DeltaError;
use pando_model::host::HostError;

/// The operating system's refusal to do `what`.
pub fn io(what: impl Into<String>, error: &io::Error) -> HostError {
    let what = what.into();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HostError::DiskFull { what },
        _ => HostError::Io { what, detail: error.to_string() },
    }
}

/// The refusal to do something with a path.
pub fn path(verb: &str, path: &Path, error: &io::Error) -> HostError {
    io(format!("{verb} {}", path.display()), error)
}

/// A delta's error.
pub fn delta(error: &DeltaError) -> HostError {
    match error {
        DeltaError::Corrupt { path, detail } => {
            HostError::Corrupt { what: path.display().to_string(), detail: detail.clone() }
        }
        DeltaError::File { path, .. } if error.is_disk_full() => {
            HostError::DiskFull { what: path.display().to_string() }
        }
        DeltaError::File { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            HostError::Missing { what: path.display().to_string() }
        }
        _ => HostError::Io { what: "make flat memory".into(), detail: chain(error) },
    }
}

/// Returns an error and its sources as one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let _ = write!(text, ": {next}");
        source = next.source();
    }
    text
}

/// Runs blocking work off the async threads.
pub async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(HostError::Io { what: what.into(), detail: error.to_string() }),
    }
}
