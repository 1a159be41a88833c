//! Disk layers, as the host driver asks for them.

use std::io;
use std::path::Path;

use pando_machine::{DiskFormat, MachineError};
use pando_model::ByteCount;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::qcow2::{BackingFormat, Qcow2Error, create_empty, create_overlay, inspect};

/// Makes qcow2 overlays over qcow2 files, and empty disks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Qcow2Layers;

impl DiskFormat for Qcow2Layers {
    fn create_layer(
        &self,
        path: &Path,
        backing: Option<&str>,
        size: ByteCount,
    ) -> Result<(), MachineError> {
        let failed = |source: io::Error| MachineError::File {
            name: backing.unwrap_or("a new disk").to_owned(),
            path: path.to_owned(),
            source,
        };
        // Whole under its name or not there: a call that was cut short is simply made again, and
        // one that is repeated never touches a layer that has been written to since.
        let scratch = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&scratch);
        let make = || match backing {
            Some(backing) => {
                let size = size_of(path, backing, size)?;
                create_overlay(&scratch, backing, BackingFormat::Qcow2, size)
            }
            None => create_empty(&scratch, size),
        };
        make().map_err(|error| {
            failed(match error {
                Qcow2Error::File { source, .. } => source,
                other => io::Error::new(io::ErrorKind::InvalidInput, other),
            })
        })?;
        match renameat_with(CWD, &scratch, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => std::fs::remove_file(&scratch).map_err(failed),
            Err(error) => {
                let _ = std::fs::remove_file(&scratch);
                Err(failed(error.into()))
            }
        }
    }
}

fn size_of(path: &Path, backing: &str, asked: ByteCount) -> Result<ByteCount, Qcow2Error> {
    if asked.0 > 0 {
        return Ok(asked);
    }
    let below = path.parent().unwrap_or(Path::new("")).join(backing);
    Ok(inspect(&below)?.virtual_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_without_a_size_is_as_large_as_what_it_lies_on() {
        let directory = tempfile::tempdir().unwrap();
        let size = ByteCount::from_mib(3);
        create_empty(&directory.path().join("vars.qcow2"), size).unwrap();
        let path = directory.path().join("ly_0.qcow2");
        Qcow2Layers.create_layer(&path, Some("vars.qcow2"), ByteCount(0)).unwrap();
        assert_eq!(inspect(&path).unwrap().virtual_size, size);
    }

    #[test]
    fn a_repeated_call_leaves_a_used_layer_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ly_0.qcow2");
        let size = ByteCount::from_gib(1);
        let make = || Qcow2Layers.create_layer(&path, Some("base.qcow2"), size);
        make().unwrap();
        let mut used = std::fs::read(&path).unwrap();
        used.extend_from_slice(b"written by a guest");
        std::fs::write(&path, &used).unwrap();
        make().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), used);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
