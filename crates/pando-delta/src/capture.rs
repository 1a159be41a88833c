//! Reading another process' pages while it stands still.
//!
//! The pause is the price of a commit, so everything that can be done before it is: the buffer is
//! allocated and touched by [`Capture::prepare`], while the guest runs. In the pause there is one
//! copy, shared by several threads.

use std::io;
use std::sync::LazyLock;
use std::thread;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::buffer::PageBuffer;
use crate::runs::{PageRun, page_count, push};
use crate::{DeltaError, PAGE, limits};

/// Pages of the guest, and where they are in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The pages.
    pub run: PageRun,
    /// Place of the first of them in the buffer, in pages; the others follow it.
    pub at: u32,
}

/// A buffer for pages. A page that is taken again takes the place that it has.
#[derive(Debug, Default)]
pub struct Capture {
    buffer: PageBuffer,
    /// What it holds, in the order of the pages.
    pieces: Vec<Piece>,
}

impl Capture {
    /// Returns a buffer with room for `pages` pages, its memory already touched; never more than
    /// [`limits::MAX_CAPTURE`].
    ///
    /// # Errors
    /// [`DeltaError::Memory`].
    pub fn prepare(pages: usize) -> Result<Self, DeltaError> {
        let pages = pages.min(limits::MAX_CAPTURE / PAGE);
        let buffer = PageBuffer::new(pages).map_err(|source| DeltaError::Memory { source })?;
        Ok(Self { buffer, pieces: Vec::new() })
    }

    /// Copies as many of `runs` as have room, from the mapping at `address` of process `pid`, and
    /// returns the runs that are left. The buffer grows up to [`limits::MAX_CAPTURE`].
    ///
    /// # Errors
    /// [`DeltaError::Process`] when the process is gone or its mapping is not as long as said;
    /// [`DeltaError::Memory`].
    pub fn take(
        &mut self,
        pid: u32,
        address: u64,
        runs: &[PageRun],
    ) -> Result<Vec<PageRun>, DeltaError> {
        let filled = self.len();
        let (mut known, new) = self.place(runs);
        let room = limits::MAX_CAPTURE / PAGE - filled;
        let (new, left) = split_at_page(&new, room);
        self.make_room(filled + page_count(&new))?;
        let mut at = u32::try_from(filled).unwrap_or(u32::MAX);
        let added = new.into_iter().map(|run| {
            let piece = Piece { run, at };
            at += run.count;
            piece
        });
        let added: Vec<Piece> = added.collect();
        known.extend(&added);
        known.sort_by_key(|piece| piece.at);
        let end = known.last().map_or(0, |last| last.at as usize + last.run.count as usize);
        copy(pid, address, &known, &mut self.buffer[..end * PAGE], 0)
            .map_err(|source| DeltaError::Process { pid, source })?;
        self.pieces.extend(added);
        self.pieces.sort_by_key(|piece| piece.run.start);
        Ok(left)
    }

    /// Returns which of `runs` have places already, and which pages have none.
    fn place(&self, runs: &[PageRun]) -> (Vec<Piece>, Vec<PageRun>) {
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for run in runs {
            let mut next = run.start;
            let end = run.pages().end;
            let first = self.pieces.partition_point(|piece| piece.run.pages().end <= run.start);
            for piece in self.pieces[first..].iter().take_while(|piece| piece.run.start < end) {
                if piece.run.start > next {
                    push(&mut new, next, piece.run.start - next);
                    next = piece.run.start;
                }
                let count = piece.run.pages().end.min(end) - next;
                let at = piece.at + (next - piece.run.start);
                known.push(Piece { run: PageRun { start: next, count }, at });
                next += count;
            }
            if next < end {
                push(&mut new, next, end - next);
            }
        }
        (known, new)
    }

    fn make_room(&mut self, pages: usize) -> Result<(), DeltaError> {
        if self.buffer.len() < pages * PAGE {
            let filled = self.len() * PAGE;
            let before = std::mem::take(&mut self.buffer);
            self.buffer = PageBuffer::new(pages).map_err(|source| DeltaError::Memory { source })?;
            self.buffer[..filled].copy_from_slice(&before[..filled]);
        }
        Ok(())
    }

    /// Returns the number of pages captured.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.run.count as usize).sum()
    }

    /// Returns whether no page is captured.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets what was captured, and keeps the room.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Returns which pages are captured, in ascending order, and where each is.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns the captured pages, where the pieces say.
    pub fn data(&self) -> &[u8] {
        &self.buffer[..self.len() * PAGE]
    }
}

/// Splits runs after `pages` pages.
fn split_at_page(runs: &[PageRun], pages: usize) -> (Vec<PageRun>, Vec<PageRun>) {
    let mut room = pages;
    let (mut now, mut left) = (Vec::with_capacity(runs.len()), Vec::new());
    for &PageRun { start, count } in runs {
        let here = (count as usize).min(room);
        room -= here;
        let here = u32::try_from(here).unwrap_or(count);
        if here > 0 {
            now.push(PageRun { start, count: here });
        }
        if here < count {
            left.push(PageRun { start: start + here, count: count - here });
        }
    }
    (now, left)
}

/// Returns how many threads are worth starting for `bytes` of copying or hashing.
pub(crate) fn threads_for(bytes: usize) -> usize {
    // Asked once: it reads files, and a guest may be standing still.
    static CORES: LazyLock<usize> =
        LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    (*CORES).min(limits::MAX_THREADS).min(bytes / limits::WRITE_CHUNK + 1)
}

/// Copies pieces, in the order of their places, into `buffer`, which begins at place `first`.
fn copy(pid: u32, address: u64, pieces: &[Piece], buffer: &mut [u8], first: u32) -> io::Result<()> {
    let pages: usize = pieces.iter().map(|piece| piece.run.count as usize).sum();
    let threads = threads_for(pages * PAGE);
    if threads == 1 {
        return copy_pieces(pid, address, pieces, buffer, first);
    }
    thread::scope(|scope| {
        let mut workers = Vec::with_capacity(threads);
        let (mut rest, mut buffer, mut first) = (pieces.to_vec(), buffer, first);
        while !rest.is_empty() {
            let left = split_off(&mut rest, pages.div_ceil(threads));
            let next = left.first().map_or(first, |piece| piece.at);
            let middle =
                if left.is_empty() { buffer.len() } else { (next - first) as usize * PAGE };
            let (mine, tail) = buffer.split_at_mut(middle);
            let (pieces, from) = (std::mem::replace(&mut rest, left), first);
            (buffer, first) = (tail, next);
            workers.push(scope.spawn(move || copy_pieces(pid, address, &pieces, mine, from)));
        }
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a copying thread panicked")))
        })
    })
}

/// Cuts pieces off after `pages` pages, and returns those after.
fn split_off(pieces: &mut Vec<Piece>, pages: usize) -> Vec<Piece> {
    let mut room = pages;
    for (index, piece) in pieces.iter_mut().enumerate() {
        let count = piece.run.count as usize;
        if count < room {
            room -= count;
            continue;
        }
        let here = u32::try_from(room).unwrap_or(piece.run.count);
        let run = PageRun { start: piece.run.start + here, count: piece.run.count - here };
        let rest = Piece { run, at: piece.at + here };
        piece.run.count = here;
        let mut left = pieces.split_off(index + 1);
        if rest.run.count > 0 {
            left.insert(0, rest);
        }
        return left;
    }
    Vec::new()
}

fn copy_pieces(
    pid: u32,
    address: u64,
    pieces: &[Piece],
    mut buffer: &mut [u8],
    mut first: u32,
) -> io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    for batch in pieces.chunks(limits::IOV_MAX) {
        let mut remote = Vec::with_capacity(batch.len());
        let mut local = Vec::with_capacity(batch.len());
        for piece in batch {
            let bytes = piece.run.count as usize * PAGE;
            let (mine, tail) = std::mem::take(&mut buffer)[(piece.at - first) as usize * PAGE..]
                .split_at_mut(bytes);
            (buffer, first) = (tail, piece.at + piece.run.count);
            local.push(io::IoSliceMut::new(mine));
            let base =
                usize::try_from(address).unwrap_or(usize::MAX) + piece.run.start as usize * PAGE;
            remote.push(RemoteIoVec { base, len: bytes });
        }
        let wanted: usize = remote.iter().map(|range| range.len).sum();
        let read = process_vm_readv(pid, &mut local, &remote)?;
        if read != wanted {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{read} of {wanted} bytes read"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A private mapping of a temporary file in this process, as a machine has of its memory image.
    pub(crate) struct PrivateMapping {
        pointer: *mut u8,
        length: usize,
    }

    #[expect(unsafe_code, reason = "tests need a mapping of their own to look at")]
    impl PrivateMapping {
        pub(crate) fn new(pages: usize, fill: impl Fn(usize) -> u8) -> Self {
            let mut file = tempfile::tempfile().unwrap();
            for page in 0..pages {
                file.write_all(&[fill(page); PAGE]).unwrap();
            }
            let length = pages * PAGE;
            let (read, write) = (rustix::mm::ProtFlags::READ, rustix::mm::ProtFlags::WRITE);
            // SAFETY: a fresh mapping at an address of the kernel's choice.
            let pointer = unsafe {
                rustix::mm::mmap(
                    std::ptr::null_mut(),
                    length,
                    read | write,
                    rustix::mm::MapFlags::PRIVATE,
                    &file,
                    0,
                )
            };
            Self { pointer: pointer.unwrap().cast(), length }
        }

        pub(crate) fn address(&self) -> u64 {
            self.pointer as u64
        }

        pub(crate) fn length(&self) -> u64 {
            self.length as u64
        }

        pub(crate) fn write(&mut self, page: usize, value: u8) {
            assert!(page * PAGE < self.length);
            // SAFETY: inside the mapping, which nothing else refers to.
            unsafe { std::ptr::write_bytes(self.pointer.add(page * PAGE), value, PAGE) };
        }

        /// Makes a page what the file holds again.
        pub(crate) fn give_back(&mut self, page: usize) {
            assert!(page * PAGE < self.length);
            let advice = rustix::mm::Advice::LinuxDontNeed;
            // SAFETY: inside the mapping, which nothing else refers to.
            unsafe { rustix::mm::madvise(self.pointer.add(page * PAGE).cast(), PAGE, advice) }
                .unwrap();
        }

        pub(crate) fn read_all(&self) -> u64 {
            // SAFETY: the mapping lives as long as `self`.
            let bytes = unsafe { std::slice::from_raw_parts(self.pointer, self.length) };
            bytes.iter().map(|byte| u64::from(*byte)).sum()
        }
    }

    #[expect(unsafe_code, reason = "as above")]
    impl Drop for PrivateMapping {
        fn drop(&mut self) {
            // SAFETY: mapped in `new`, unmapped once.
            unsafe { rustix::mm::munmap(self.pointer.cast(), self.length) }.unwrap();
        }
    }

    /// A flag that a child which is forked sees, too.
    pub(crate) struct SharedFlag(*mut u8);

    #[expect(unsafe_code, reason = "memory that two processes write to")]
    impl SharedFlag {
        pub(crate) fn new() -> Self {
            let (read, write) = (rustix::mm::ProtFlags::READ, rustix::mm::ProtFlags::WRITE);
            let shared = rustix::mm::MapFlags::SHARED;
            // SAFETY: a fresh mapping at an address of the kernel's choice, never unmapped.
            let mapped = unsafe {
                rustix::mm::mmap_anonymous(std::ptr::null_mut(), PAGE, read | write, shared)
            };
            Self(mapped.unwrap().cast())
        }

        fn flag(&self) -> &AtomicBool {
            // SAFETY: mapped for ever, aligned, and used as this only.
            unsafe { AtomicBool::from_ptr(self.0.cast()) }
        }

        pub(crate) fn get(&self) -> bool {
            self.flag().load(Ordering::SeqCst)
        }

        pub(crate) fn set(&self, value: bool) {
            self.flag().store(value, Ordering::SeqCst);
        }
    }

    #[test]
    fn captured_pages_are_the_written_ones() {
        let mut mapping = PrivateMapping::new(8192, |_| 1);
        let runs: Vec<PageRun> = (0..4000).map(|i| PageRun { start: i * 2, count: 1 }).collect();
        for run in &runs {
            mapping.write(run.start as usize, u8::try_from(run.start % 251).unwrap());
        }
        let mut capture = Capture::prepare(10).unwrap();
        let left = capture.take(std::process::id(), mapping.address(), &runs).unwrap();
        assert!(left.is_empty());
        for (run, page) in runs.iter().zip(capture.data().chunks(PAGE)) {
            assert!(page.iter().all(|byte| u32::from(*byte) == run.start % 251));
        }
    }

    #[test]
    fn a_page_taken_again_keeps_its_place() {
        let mut mapping = PrivateMapping::new(4096, |page| u8::try_from(page % 7).unwrap());
        let mut capture = Capture::prepare(2000).unwrap();
        let early = [PageRun { start: 100, count: 1500 }, PageRun { start: 3000, count: 5 }];
        let (pid, address) = (std::process::id(), mapping.address());
        assert!(capture.take(pid, address, &early).unwrap().is_empty());
        // Before, over, inside and after what is there, and more than there is room for.
        let late = [(90, 20), (700, 1), (1590, 1402), (3002, 600)];
        let late = late.map(|(start, count)| PageRun { start, count });
        for page in late.iter().flat_map(|run| run.pages()) {
            mapping.write(page as usize, 200);
        }
        assert!(capture.take(pid, address, &late).unwrap().is_empty());

        let wanted = crate::runs::union(&early, &late);
        assert_eq!(capture.len(), page_count(&wanted));
        let mut last = None;
        for piece in capture.pieces() {
            for (place, page) in piece.run.pages().enumerate() {
                assert!(last < Some(page) && wanted.iter().any(|run| run.pages().contains(&page)));
                last = Some(page);
                let is_late = late.iter().any(|run| run.pages().contains(&page));
                let value = if is_late { 200 } else { u8::try_from(page % 7).unwrap() };
                let data = &capture.data()[(piece.at as usize + place) * PAGE..][..PAGE];
                assert!(data.iter().all(|byte| *byte == value), "page {page}");
            }
        }
    }

    #[test]
    fn runs_split_exactly() {
        let runs = [PageRun { start: 5, count: 3 }, PageRun { start: 10, count: 4 }];
        let (now, left) = split_at_page(&runs, 5);
        assert_eq!(now, [PageRun { start: 5, count: 3 }, PageRun { start: 10, count: 2 }]);
        assert_eq!(left, [PageRun { start: 12, count: 2 }]);
        assert_eq!(split_at_page(&runs, 100), (runs.to_vec(), vec![]));
    }
}
