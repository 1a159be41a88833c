//! Small file chores that several modules share.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use pando_driver::host::HostError;

use crate::trouble;

/// Removes a directory and all in it; none is success.
pub fn remove_tree(path: &Path) -> Result<(), HostError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(trouble::path("remove", path, &error))
        }
        _ => Ok(()),
    }
}

/// Removes a file; none is success.
pub fn remove_file(path: &Path) -> Result<(), HostError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(trouble::path("remove", path, &error))
        }
        _ => Ok(()),
    }
}

/// Returns the ids that a directory's entries are named after; others are not ours to mention.
pub fn ids_in<T: std::str::FromStr>(directory: &Path, suffix: &str) -> Result<Vec<T>, HostError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(|e| trouble::path("read", directory, &e))?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| trouble::path("read", directory, &e))?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(suffix)?.parse().ok());
        ids.extend(id);
    }
    Ok(ids)
}

/// Makes a directory and its parents.
pub fn make_directory(path: &Path) -> Result<(), HostError> {
    fs::create_dir_all(path).map_err(|e| trouble::path("make", path, &e))
}

/// Writes a file so that it is there whole or not at all; survives our death, not a power cut.
pub fn write_whole(path: &Path, contents: &[u8]) -> Result<(), HostError> {
    let scratch = path.with_extension("new");
    fs::write(&scratch, contents)
        .and_then(|()| fs::rename(&scratch, path))
        .map_err(|e| trouble::path("write", path, &e))
}

/// Reads up to `limit` bytes of a file from byte `offset` (negative: from the end), and returns them
/// and the offset of their end. A file that is not there is empty.
pub async fn read_part(
    what: &'static str,
    path: PathBuf,
    offset: i64,
    limit: u64,
) -> Result<(Vec<u8>, u64), HostError> {
    trouble::blocking(what, move || {
        let mut file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Vec::new(), 0));
            }
            result => result.map_err(|e| trouble::path("open", &path, &e))?,
        };
        let mut read = || -> io::Result<(Vec<u8>, u64)> {
            let length = file.metadata()?.len();
            let start = match u64::try_from(offset) {
                Ok(offset) => offset.min(length),
                Err(_) => length.saturating_sub(offset.unsigned_abs()),
            };
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            let taken = (&mut file).take(limit).read_to_end(&mut bytes)?;
            Ok((bytes, start + taken as u64))
        };
        read().map_err(|e| trouble::path("read", &path, &e))
    })
    .await
}
