//! The memory of a running machine: what a commit must read of it, and when.
//!
//! Where the kernel notes writes ([`WriteTracker`]), a commit reads the pages that were written since
//! the one before, most of them while the guest runs; what the guest writes meanwhile is read once
//! more when it stands still. Elsewhere it reads all pages that were ever written, when it stands
//! still.

use crate::pages::{self, Look};
use crate::runs::{PageRun, missing_from, page_count, union};
use crate::tracking::WriteTracker;
use crate::{Capture, DeltaError, PAGE, PageDigests, limits};

/// The private file mapping that is a guest's memory, in a process that is a child of ours.
#[derive(Debug)]
pub struct LiveMemory {
    pid: u32,
    address: u64,
    length: u64,
    tracker: Option<WriteTracker>,
}

impl LiveMemory {
    /// Begins to look at the mapping at `address` (`length` bytes) of process `pid`; the kernel notes
    /// its writes from now on, where it can.
    pub fn new(pid: u32, address: u64, length: u64) -> Self {
        Self { pid, address, length, tracker: WriteTracker::start(pid, address, length).ok() }
    }

    /// Returns whether only what was written since the latest commit is read.
    pub fn is_tracked(&self) -> bool {
        self.tracker.is_some()
    }

    /// Returns the bytes of the mapping.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// While the guest runs: returns a buffer for what is to be read, with what can be read now.
    /// `known` is what the latest commit holds.
    ///
    /// # Errors
    /// [`DeltaError::Process`] when the process is gone; [`DeltaError::Memory`].
    pub fn read_ahead(&mut self, known: &PageDigests) -> Result<Capture, DeltaError> {
        let look = self.look()?;
        let runs = self.to_read(&look, known, None);
        let pages = page_count(&runs);
        let spare = pages / limits::CAPTURE_SPARE + limits::CAPTURE_SPARE_PAGES;
        let mut capture = Capture::prepare(pages + spare)?;
        if !self.is_tracked() || pages > limits::MAX_CAPTURE / PAGE {
            return Ok(capture);
        }
        capture.take(self.pid, self.address, &runs)?;
        for _ in 1..limits::READINGS_BEFORE_PAUSE {
            let look = self.look()?;
            let runs = self.to_read(&look, known, Some(&capture));
            if !capture.take(self.pid, self.address, &runs)?.is_empty() {
                // More than there is room for is read when the guest stands still, part by part.
                capture.clear();
                break;
            }
        }
        Ok(capture)
    }

    /// While the guest stands still, and no write of the process is half done (one that is has made its
    /// page the process' own, and is not noted yet): completes what was read ahead. Returns what found
    /// no room: to be read with [`read`](Self::read) when the buffer was emptied.
    ///
    /// # Errors
    /// As for [`read_ahead`](Self::read_ahead).
    pub fn complete(
        &mut self,
        capture: &mut Capture,
        known: &PageDigests,
    ) -> Result<Vec<PageRun>, DeltaError> {
        let look = self.look()?;
        let ahead = (self.is_tracked() && !capture.is_empty()).then_some(&*capture);
        let runs = self.to_read(&look, known, ahead);
        let left = capture.take(self.pid, self.address, &runs)?;
        if left.is_empty() {
            return Ok(left);
        }
        // What was read ahead is not in order with the rest.
        capture.clear();
        let runs = self.to_read(&look, known, None);
        capture.take(self.pid, self.address, &runs)
    }

    /// While the guest stands still: reads more into a buffer; returns what found no room.
    ///
    /// # Errors
    /// As for [`read_ahead`](Self::read_ahead).
    pub fn read(
        &self,
        capture: &mut Capture,
        runs: &[PageRun],
    ) -> Result<Vec<PageRun>, DeltaError> {
        capture.take(self.pid, self.address, runs)
    }

    /// Notes that what was completed last is a commit's, whose pages are known from now on.
    pub fn saved(&mut self) {
        if let Some(tracker) = &mut self.tracker {
            tracker.saved();
        }
    }

    fn look(&mut self) -> Result<Look, DeltaError> {
        if let Some(tracker) = &mut self.tracker {
            if let Ok(look) = tracker.look() {
                return Ok(look);
            }
            self.tracker = None;
        }
        let own = pages::written_pages(self.pid, self.address, self.length)?;
        Ok(Look { written: own.clone(), own })
    }

    /// Returns the pages that differ, or may, from what the latest commit holds; those that `ahead` has
    /// already only if they changed since.
    fn to_read(&self, look: &Look, known: &PageDigests, ahead: Option<&Capture>) -> Vec<PageRun> {
        let written = match (&self.tracker, ahead) {
            (Some(tracker), None) => tracker.unsaved(),
            _ => &look.written,
        };
        // The contents of pages that were given back changed without a write.
        let mut runs = union(written, &missing_from(&look.own, known.pages()));
        if let Some(capture) = ahead {
            let pages = capture.pieces().iter().flat_map(|piece| piece.run.pages());
            runs = union(&runs, &missing_from(&look.own, pages));
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    use nix::sys::wait::waitpid;
    use nix::unistd::{ForkResult, Pid};

    use super::*;
    use crate::capture::tests::{PrivateMapping, SharedFlag};
    use crate::{DeltaHeader, DeltaReader, DeltaWriter};

    const PAGES: usize = 2048;

    /// A child that writes to its copy of a mapping, and gives pages of it back, without end.
    struct Scribbler {
        pid: Pid,
        mapping: PrivateMapping,
        /// Shared with the child: that it shall stand still, and that it does.
        signs: [SharedFlag; 2],
    }

    impl Scribbler {
        fn new() -> Self {
            let mut mapping = PrivateMapping::new(PAGES, |page| u8::try_from(page % 3).unwrap());
            let signs = [SharedFlag::new(), SharedFlag::new()];
            #[expect(unsafe_code, reason = "a child that does nothing but write to its memory")]
            // SAFETY: the child makes system calls and writes to its own mapping only.
            let forked = unsafe { nix::unistd::fork() }.unwrap();
            if let ForkResult::Parent { child } = forked {
                return Self { pid: child, mapping, signs };
            }
            let [shall_stand, stands] = signs;
            let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
            loop {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                // Some pages often, most seldom.
                let page = usize::try_from(seed >> 32).unwrap_or(0)
                    % if seed & 0x3fff == 0 { PAGES } else { 64 };
                if seed & 0xf_0000 == 0 {
                    mapping.give_back(page);
                } else {
                    mapping.write(page, seed.to_le_bytes()[0]);
                }
                while shall_stand.get() {
                    stands.set(true);
                    rustix::thread::sched_yield();
                }
                stands.set(false);
            }
        }

        fn stand_still(&self, still: bool) {
            self.signs[0].set(still);
            let deadline = Instant::now() + Duration::from_secs(20);
            while self.signs[1].get() != still {
                assert!(Instant::now() < deadline, "the child does not answer");
                std::thread::yield_now();
            }
        }

        fn memory(&self) -> Vec<u8> {
            let base = usize::try_from(self.mapping.address()).unwrap();
            let mut bytes = vec![0; PAGES * PAGE];
            let remote = [RemoteIoVec { base, len: bytes.len() }];
            let read =
                process_vm_readv(self.pid, &mut [std::io::IoSliceMut::new(&mut bytes)], &remote);
            assert_eq!(read, Ok(bytes.len()));
            bytes
        }
    }

    impl Drop for Scribbler {
        fn drop(&mut self) {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }

    /// Commits a scribbling process again and again, some of them in vain, and compares its memory
    /// with what the deltas rebuild. Returns how many pages were read.
    fn commit_often(directory: &Path, scribbler: &Scribbler, live: &mut LiveMemory) -> usize {
        let header = DeltaHeader { ram: (PAGES * PAGE) as u64 };
        let below = directory.join("below");
        let base: Vec<u8> =
            (0..PAGES).flat_map(|page| [u8::try_from(page % 3).unwrap(); PAGE]).collect();
        fs::write(&below, base).unwrap();
        let (mut chain, mut known, mut read) = (Vec::new(), PageDigests::default(), 0);
        for round in 0..40 {
            std::thread::sleep(Duration::from_millis(round % 4));
            let mut capture = live.read_ahead(&known).unwrap();
            std::thread::sleep(Duration::from_millis(round % 3));
            scribbler.stand_still(true);
            let left = live.complete(&mut capture, &known).unwrap();
            assert!(left.is_empty());
            let memory = scribbler.memory();
            scribbler.stand_still(false);
            read += capture.len();

            let path = directory.join(format!("{round}"));
            let mut writer = DeltaWriter::create(&path, header, &known, false).unwrap();
            writer.append(capture.pieces(), capture.data()).unwrap();
            let summary = writer.finish().unwrap();
            let open = |path| DeltaReader::open(path, None).unwrap();
            let mut deltas = vec![open(&path)];
            deltas.extend(chain.iter().rev().map(|path: &std::path::PathBuf| open(path)));
            let flat = directory.join("flat");
            crate::flat::flatten(&flat, header.ram, &deltas, Some(&below)).unwrap();
            assert!(fs::read(&flat).unwrap() == memory, "round {round}");
            // A commit that failed: the next one is a change of the one before it.
            if round % 5 != 3 {
                live.saved();
                known = summary.digests;
                chain.push(path);
            }
        }
        read
    }

    #[test]
    fn every_commit_rebuilds_what_the_memory_held() {
        let directory = tempfile::tempdir().unwrap();
        let begin = || {
            let scribbler = Scribbler::new();
            let pid = u32::try_from(scribbler.pid.as_raw()).unwrap();
            let (address, length) = (scribbler.mapping.address(), scribbler.mapping.length());
            (scribbler, LiveMemory::new(pid, address, length))
        };
        let (scribbler, mut live) = begin();
        let version = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
        let version: Vec<u32> = version.split(['.', '-']).flat_map(str::parse).take(2).collect();
        assert_eq!(live.is_tracked(), version >= vec![6, 7], "on Linux {version:?}");
        assert_eq!(crate::tracking::try_out().is_ok(), live.is_tracked());
        let tracked = commit_often(directory.path(), &scribbler, &mut live);

        let (scribbler, mut blind) = begin();
        blind.tracker = None;
        let all = commit_often(directory.path(), &scribbler, &mut blind);
        assert!(tracked < all || !live.is_tracked(), "{tracked} and {all} pages were read");
    }

    #[test]
    fn what_is_not_written_is_not_read() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // A process that waits in a system call, and is to be found there afterwards.
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"one").unwrap();
        let mut answer = [0; 3];
        let stdout = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(stdout, &mut answer).unwrap();
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
        let data =
            maps.lines().find(|line| line.contains("rw-p") && line.contains("libc")).unwrap();
        let (start, end) = data.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());

        let known = PageDigests::default();
        let mut live = LiveMemory::new(child.id(), start, end - start);
        let mut capture = live.read_ahead(&known).unwrap();
        assert!(!capture.is_empty() || !live.is_tracked());
        live.complete(&mut capture, &known).unwrap();
        live.saved();
        if live.is_tracked() {
            assert!(live.read_ahead(&known).unwrap().is_empty());
        }

        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"two").unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut answer).unwrap();
        assert_eq!(&answer, b"two");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert!(live.read_ahead(&known).is_err(), "the process is gone");
    }
}
