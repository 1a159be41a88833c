//! The guest channel's virtio port, found by its name.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};

use crate::limits::{BOOT_POLL, PORT_TIMEOUT};

/// Opens the port called `name`; waits a while for it to appear.
///
/// # Errors
/// When there is none in time, or it cannot be opened.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let deadline = Instant::now() + PORT_TIMEOUT;
    loop {
        if let Some(device) = find(Path::new("/sys/class/virtio-ports"), name) {
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match rustix::fs::open(&device, flags, Mode::empty()) {
                Ok(port) => return Ok(port),
                // Its device node is made a moment after its entry.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NXIO) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if Instant::now() >= deadline {
            let message = format!("no virtio port is named `{name}`");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        std::thread::sleep(BOOT_POLL);
    }
}

fn find(ports: &Path, name: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(ports).ok()?.filter_map(Result::ok);
    let found = entries.find(|entry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|text| text.trim() == name)
    })?;
    Some(Path::new("/dev").join(found.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_name() {
        let ports = tempfile::tempdir().unwrap();
        for (entry, name) in [("vport1p1", "org.other.0\n"), ("vport1p2", "pando.0\n")] {
            fs::create_dir(ports.path().join(entry)).unwrap();
            fs::write(ports.path().join(entry).join("name"), name).unwrap();
        }
        assert_eq!(find(ports.path(), "pando.0"), Some(PathBuf::from("/dev/vport1p2")));
        assert_eq!(find(ports.path(), "pando.1"), None);
        assert_eq!(find(Path::new("/does/not/exist"), "pando.0"), None);
    }
}
