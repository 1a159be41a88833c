//! A capture on its way: records with their lengths in a stream's data. The host's end assembles
//! them, whatever a guest sends, within [`MAX_CAPTURE_BYTES`].
//!
//! ```text
//!   length u16 (little endian) · record (postcard), any number of them, cut anywhere
//! ```

use pando_model::capture::{Aspect, Capture, CaptureRecord, Captured};

use crate::limits::{
    MAX_CAPTURE_BYTES, MAX_CAPTURE_KEPT_BYTES, MAX_PATH_BYTES, MAX_RECORD_BYTES, RECORD_BYTES,
};

/// Why bytes are not a capture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The capture is longer than [`MAX_CAPTURE_BYTES`], or [`MAX_CAPTURE_KEPT_BYTES`] put together.
    #[error("the capture is too long: at most {MAX_CAPTURE_BYTES} bytes are taken")]
    TooLong,
    /// A record is none.
    #[error("{0} bytes are not a record of a capture")]
    Malformed(usize),
    /// A name is no name, or a directory's path none.
    #[error("a record of a capture names no path")]
    Path,
    /// The capture ends in the middle of a record.
    #[error("the capture ends in the middle of a record")]
    Torn,
}

/// Appends a record to `out`. One that is too long is left out.
///
/// Returns whether it was appended.
pub fn encode(record: &CaptureRecord, out: &mut Vec<u8>) -> bool {
    /// Most records are shorter: a guest tells thousands, and does not make room twice for each.
    const ROOM: usize = 256;
    let Ok(bytes) = postcard::to_extend(record, Vec::with_capacity(ROOM)) else { return false };
    match u16::try_from(bytes.len()) {
        Ok(length) if bytes.len() <= MAX_RECORD_BYTES => {
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&bytes);
            true
        }
        _ => false,
    }
}

/// Puts a capture together.
#[derive(Debug, Default)]
pub struct Assembler {
    capture: Capture,
    directory: Option<String>,
    pending: Vec<u8>,
    received: usize,
    /// What is kept, in bytes: names are told without their directories.
    kept: usize,
}

impl Assembler {
    /// Returns one that has received nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// [`CaptureError`]; the rest of the capture is then of no use.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CaptureError> {
        self.received = self.received.saturating_add(bytes.len());
        if self.received > MAX_CAPTURE_BYTES {
            return Err(CaptureError::TooLong);
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut rest = pending.as_slice();
        while let Some((prefix, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_le_bytes(*prefix));
            let Some((record, after)) = after.split_at_checked(length) else { break };
            match postcard::take_from_bytes(record) {
                Ok((record, [])) => self.take(record)?,
                _ => return Err(CaptureError::Malformed(length)),
            }
            rest = after;
        }
        self.pending = rest.to_vec();
        Ok(())
    }

    /// Returns the capture, once the guest has said that this was all.
    ///
    /// # Errors
    /// [`CaptureError::Torn`].
    pub fn finish(mut self, end: Captured) -> Result<Capture, CaptureError> {
        if !self.pending.is_empty() {
            return Err(CaptureError::Torn);
        }
        self.capture.guest_ns = end.guest_ns;
        self.capture.up_ms = end.up_ms;
        self.capture.boot_id = end.boot_id;
        self.capture.boot_id.truncate(self.capture.boot_id.floor_char_boundary(64));
        Ok(self.capture)
    }

    fn keep(&mut self, bytes: usize) -> Result<(), CaptureError> {
        self.kept = self.kept.saturating_add(bytes);
        match self.kept > MAX_CAPTURE_KEPT_BYTES {
            true => Err(CaptureError::TooLong),
            false => Ok(()),
        }
    }

    fn take(&mut self, record: CaptureRecord) -> Result<(), CaptureError> {
        self.keep(RECORD_BYTES)?;
        let capture = &mut self.capture;
        match record {
            CaptureRecord::Directory(path) => {
                if !is_path(&path) {
                    return Err(CaptureError::Path);
                }
                self.directory = Some(path);
            }
            CaptureRecord::Entry(name, state) => {
                let directory = self.directory.as_deref().ok_or(CaptureError::Path)?;
                if !is_name(&name) {
                    return Err(CaptureError::Path);
                }
                self.kept = self.kept.saturating_add(directory.len() + name.len());
                let path = match directory {
                    "/" => format!("/{name}"),
                    directory => format!("{directory}/{name}"),
                };
                capture.files.insert(path, state);
            }
            CaptureRecord::Package(package) => {
                capture.packages.insert(package.name.clone(), package);
            }
            CaptureRecord::Process(process) => {
                capture.processes.insert(process);
            }
            CaptureRecord::Port(port) => {
                capture.ports.insert(port);
            }
            CaptureRecord::User(user) => {
                capture.users.insert(user.name.clone(), user);
            }
            CaptureRecord::Group(group) => {
                capture.groups.insert(group.name.clone(), group);
            }
            CaptureRecord::Service(service) => {
                capture.services.insert(service.name.clone(), service);
            }
            CaptureRecord::Variable(scope, name, value) => {
                capture.env.insert(format!("{scope}:{name}"), value);
            }
            CaptureRecord::Kernel(line) => capture.kernel.push(line),
            CaptureRecord::Coverage(aspect, coverage) => {
                if aspect == Aspect::Files {
                    capture.coverage.insert(Aspect::Config, coverage.clone());
                }
                capture.coverage.insert(aspect, coverage);
            }
            CaptureRecord::Digest(path, digest) => {
                if !is_path(&path) {
                    return Err(CaptureError::Path);
                }
                capture.digests.insert(path, digest);
            }
            CaptureRecord::Network(name, state) => {
                capture.network.insert(name, state);
            }
            CaptureRecord::Database(name, place, unknown) => {
                let database = capture.databases.entry(name).or_default();
                (database.place, database.unknown) = (place, unknown);
            }
            CaptureRecord::Table(database, name, table) => {
                capture.databases.entry(database).or_default().tables.insert(name, table);
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

fn is_path(path: &str) -> bool {
    let Some(parts) = path.strip_prefix('/') else { return false };
    path.len() <= MAX_PATH_BYTES && (parts.is_empty() || parts.split('/').all(is_name))
}

#[cfg(test)]
mod tests {
    use pando_model::capture::{Coverage, FileState, Package};
    use pando_model::guest::FileKind;
    use proptest::prelude::*;

    use super::*;

    fn file(inode: u64) -> FileState {
        FileState {
            kind: FileKind::File,
            inode,
            ctime_ns: 5,
            mtime_ns: -5,
            size: 7,
            mode: 0o644,
            uid: 0,
            gid: 0,
            target: None,
        }
    }

    fn stream(records: &[CaptureRecord]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            assert!(encode(record, &mut out));
        }
        out
    }

    #[test]
    fn records_cut_anywhere_become_the_capture() {
        let package =
            Package { name: "curl".into(), version: "1".into(), status: "installed".into() };
        let bytes = stream(&[
            CaptureRecord::Directory("/".into()),
            CaptureRecord::Entry("etc".into(), file(1)),
            CaptureRecord::Directory("/etc".into()),
            CaptureRecord::Entry("hosts".into(), file(2)),
            CaptureRecord::Coverage(Aspect::Files, Coverage::Complete),
            CaptureRecord::Package(package.clone()),
        ]);
        for size in 1..bytes.len() {
            let mut assembler = Assembler::new();
            for chunk in bytes.chunks(size) {
                assembler.push(chunk).unwrap();
            }
            let capture = assembler.finish(Captured::default()).unwrap();
            assert_eq!(capture.files.keys().collect::<Vec<_>>(), ["/etc", "/etc/hosts"]);
            assert_eq!(capture.files["/etc/hosts"], file(2));
            assert_eq!(capture.packages["curl"], package);
            assert_eq!(capture.coverage[&Aspect::Config], Coverage::Complete);
        }
        let mut torn = Assembler::new();
        torn.push(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(torn.finish(Captured::default()), Err(CaptureError::Torn));
    }

    #[test]
    fn names_that_leave_their_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0b"] {
            let records =
                [CaptureRecord::Directory("/".into()), CaptureRecord::Entry(name.into(), file(1))];
            assert_eq!(Assembler::new().push(&stream(&records)), Err(CaptureError::Path));
        }
        for path in ["", "etc", "/etc/", "/etc/../x", "//"] {
            let records = [CaptureRecord::Directory(path.into())];
            assert_eq!(Assembler::new().push(&stream(&records)), Err(CaptureError::Path), "{path}");
        }
    }

    #[test]
    fn an_endless_capture_is_not_kept() {
        let mut assembler = Assembler::new();
        let line = stream(&[CaptureRecord::Directory(format!("/{}", "x".repeat(4000)))]);
        let mut pushed = 0;
        let error = loop {
            match assembler.push(&line) {
                Ok(()) => pushed += line.len(),
                Err(error) => break error,
            }
        };
        assert_eq!(error, CaptureError::TooLong);
        assert!(pushed <= MAX_CAPTURE_BYTES);
    }

    #[test]
    fn long_paths_of_many_names_are_not_put_together_without_end() {
        let mut assembler = Assembler::new();
        let told = |record: &CaptureRecord| {
            let mut bytes = Vec::new();
            assert!(encode(record, &mut bytes));
            bytes
        };
        let directory = format!("/{}", ["x".repeat(200).as_str(); 20].join("/"));
        assembler.push(&told(&CaptureRecord::Directory(directory))).unwrap();
        let mut wire = 0;
        let refused = (0u32..).find_map(|number| {
            let bytes = told(&CaptureRecord::Entry(number.to_string(), file(1)));
            wire += bytes.len();
            assembler.push(&bytes).err()
        });
        assert!(matches!(refused, Some(CaptureError::TooLong)), "{refused:?}");
        assert!(wire < MAX_CAPTURE_BYTES / 10, "{wire}");
    }

    proptest! {
        #[test]
        fn hostile_bytes_assemble_to_something_or_an_error(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)
        ) {
            let mut assembler = Assembler::new();
            for chunk in chunks {
                if assembler.push(&chunk).is_err() {
                    break;
                }
            }
            prop_assert!(assembler.pending.len() <= usize::from(u16::MAX) + 2);
        }
    }
}
