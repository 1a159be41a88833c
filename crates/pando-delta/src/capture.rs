//! Reading another process' pages while it stands still.
//!
//! The pause is the price of a commit, so everything that can be done before it is: the buffer is
//! allocated and touched by [`Capture::prepare`], while the guest runs. In the pause there is one
//! copy, shared by several threads.

use std::io;
use std::thread;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::buffer::PageBuffer;
use crate::pages::{PageRun, page_count};
use crate::{DeltaError, PAGE, limits};

/// A buffer for pages.
#[derive(Debug, Default)]
pub struct Capture {
    buffer: PageBuffer,
    runs: Vec<PageRun>,
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
        Ok(Self { buffer, runs: Vec::new() })
    }

    /// Copies as many of `runs` as have room, from the mapping at `address` of process `pid`, and
    /// returns the runs that are left.
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
        let needed = (page_count(runs) * PAGE).min(limits::MAX_CAPTURE);
        if self.buffer.len() < needed {
            *self = Self::prepare(needed / PAGE)?;
        }
        let (now, left) = split_at_page(runs, self.buffer.len() / PAGE);
        let bytes = page_count(&now) * PAGE;
        copy(pid, address, &now, &mut self.buffer[..bytes])
            .map_err(|source| DeltaError::Process { pid, source })?;
        self.runs = now;
        Ok(left)
    }

    /// Returns the captured runs.
    pub fn runs(&self) -> &[PageRun] {
        &self.runs
    }

    /// Returns the captured pages, in the order of the runs.
    pub fn data(&self) -> &[u8] {
        &self.buffer[..page_count(&self.runs) * PAGE]
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
    let cores = thread::available_parallelism().map_or(1, usize::from).min(limits::MAX_THREADS);
    cores.min(bytes / limits::WRITE_CHUNK + 1)
}

fn copy(pid: u32, address: u64, runs: &[PageRun], into: &mut [u8]) -> io::Result<()> {
    let threads = threads_for(into.len());
    let share = page_count(runs).div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut workers = Vec::with_capacity(threads);
        let (mut rest, mut into) = (runs.to_vec(), into);
        while !rest.is_empty() {
            let (mine, left) = split_at_page(&rest, share);
            rest = left;
            let (buffer, tail) = into.split_at_mut(page_count(&mine) * PAGE);
            into = tail;
            if rest.is_empty() && workers.is_empty() {
                return copy_runs(pid, address, &mine, buffer);
            }
            workers.push(scope.spawn(move || copy_runs(pid, address, &mine, buffer)));
        }
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a copying thread panicked")))
        })
    })
}

fn copy_runs(pid: u32, address: u64, runs: &[PageRun], mut into: &mut [u8]) -> io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    for batch in runs.chunks(limits::IOV_MAX) {
        let remote: Vec<RemoteIoVec> = batch
            .iter()
            .map(|run| RemoteIoVec {
                base: usize::try_from(address).unwrap_or(usize::MAX) + run.start as usize * PAGE,
                len: run.count as usize * PAGE,
            })
            .collect();
        let bytes = page_count(batch) * PAGE;
        let (buffer, tail) = into.split_at_mut(bytes);
        into = tail;
        let read = process_vm_readv(pid, &mut [io::IoSliceMut::new(buffer)], &remote)?;
        if read != bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{read} of {bytes} bytes read"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

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
    fn runs_split_exactly() {
        let runs = [PageRun { start: 5, count: 3 }, PageRun { start: 10, count: 4 }];
        let (now, left) = split_at_page(&runs, 5);
        assert_eq!(now, [PageRun { start: 5, count: 3 }, PageRun { start: 10, count: 2 }]);
        assert_eq!(left, [PageRun { start: 12, count: 2 }]);
        assert_eq!(split_at_page(&runs, 100), (runs.to_vec(), vec![]));
    }
}
