//! Which pages of a private mapping were written: the kernel's PAGEMAP_SCAN (Linux 6.7), or
//! `/proc/PID/pagemap` before that (Documentation/admin-guide/mm/pagemap.rst). A page belongs to
//! the process alone when it is present or swapped out and not backed by the file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::runs::{PageRun, push};
use crate::{DeltaError, PAGE, limits};

/// What one look at a mapping saw; all runs in order, and none touches another.
#[derive(Debug, Default)]
pub struct Look {
    /// The pages that belong to the process alone.
    pub own: Vec<PageRun>,
    /// Those of them that it wrote since the look before.
    pub written: Vec<PageRun>,
}

/// Returns the pages of the private file mapping at `address` (`length` bytes) in process `pid`
/// that the process wrote since it mapped them, in order, as runs that do not touch.
///
/// # Errors
/// [`DeltaError::Process`] when the process is gone or may not be inspected (it must be a child of
/// ours where the kernel restricts ptrace).
pub fn written_pages(pid: u32, address: u64, length: u64) -> Result<Vec<PageRun>, DeltaError> {
    let fail = |source| DeltaError::Process { pid, source };
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).map_err(fail)?;
    match scan(&pagemap, address, length, 0) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOTTY) => {
            read_entries(&pagemap, address, length).map_err(fail)
        }
        result => Ok(result.map_err(fail)?.own),
    }
}

/// Looks at a mapping whose writes the kernel notes, and lets it begin to note them anew, page by page
/// at the moment that it is seen.
pub(crate) fn look_and_protect(pagemap: &File, address: u64, length: u64) -> io::Result<Look> {
    const PROTECT_SEEN: u64 = 1 << 0;
    const ONLY_WHERE_NOTED: u64 = 1 << 1;
    scan(pagemap, address, length, PROTECT_SEEN | ONLY_WHERE_NOTED)
}

/// The classic interface: 8 bytes a page; bit 63 present, 62 swapped, 61 file page or shared.
fn read_entries(pagemap: &File, address: u64, length: u64) -> io::Result<Vec<PageRun>> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const FILE: u64 = 1 << 61;
    let mut runs = Vec::new();
    let mut buffer = vec![0u8; 64 * 1024];
    let first = address / PAGE as u64;
    let total = length / PAGE as u64;
    let mut page = 0u64;
    while page < total {
        let want = usize::try_from((total - page) * 8).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = &mut buffer[..want];
        pagemap.read_exact_at(chunk, (first + page) * 8)?;
        for entry in chunk.chunks_exact(8) {
            let bits = u64::from_le_bytes([
                entry[0], entry[1], entry[2], entry[3], entry[4], entry[5], entry[6], entry[7],
            ]);
            if bits & (PRESENT | SWAPPED) != 0 && bits & FILE == 0 {
                push(&mut runs, page_number(page)?, 1);
            }
            page += 1;
        }
    }
    Ok(runs)
}

fn page_number(page: u64) -> io::Result<u32> {
    u32::try_from(page).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// `struct pm_scan_arg` and `struct page_region` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
pub struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

mod ioctl {
    #![expect(unsafe_code, reason = "the ioctl wrapper that nix generates is an unsafe fn")]
    use super::ScanArg;
    nix::ioctl_readwrite!(pagemap_scan, b'f', 16, ScanArg);

    /// Asks the kernel to fill `arg.vec`; returns the number of regions.
    ///
    /// `arg.vec` and `arg.vec_len` are set here, so they always describe `regions`.
    pub(super) fn scan(
        fd: std::os::fd::RawFd,
        arg: &mut ScanArg,
        regions: &mut [super::Region],
    ) -> nix::Result<usize> {
        arg.vec = regions.as_mut_ptr() as u64;
        arg.vec_len = regions.len() as u64;
        // SAFETY: `fd` is open, `arg` has the layout of `struct pm_scan_arg` and its own size in
        // `size`, and `vec` points to `vec_len` writable `struct page_region` that outlive the call.
        let count = unsafe { pagemap_scan(fd, arg) }?;
        Ok(usize::try_from(count).unwrap_or(0).min(regions.len()))
    }
}

fn scan(pagemap: &File, address: u64, length: u64, flags: u64) -> io::Result<Look> {
    const IS_WRITTEN: u64 = 1 << 1;
    const IS_FILE: u64 = 1 << 2;
    const IS_PRESENT: u64 = 1 << 3;
    const IS_SWAPPED: u64 = 1 << 4;
    let end = address + length;
    let mut regions = vec![Region::default(); limits::SCAN_REGIONS];
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        flags,
        start: address,
        end,
        category_inverted: IS_FILE,
        category_mask: IS_FILE,
        category_anyof_mask: IS_PRESENT | IS_SWAPPED,
        return_mask: IS_WRITTEN | IS_PRESENT | IS_SWAPPED,
        ..ScanArg::default()
    };
    let mut look = Look::default();
    while arg.start < end {
        let count = ioctl::scan(pagemap.as_raw_fd(), &mut arg, &mut regions)?;
        for region in &regions[..count] {
            let start = page_number((region.start - address) / PAGE as u64)?;
            let count = page_number((region.end - region.start) / PAGE as u64)?;
            if region.categories & (IS_WRITTEN | IS_PRESENT) == 0 {
                // Given back: where writes are noted, the kernel keeps in its place that it was not
                // written, and says that it is swapped out. It may be so, too; nobody can tell.
                continue;
            }
            push(&mut look.own, start, count);
            if region.categories & IS_WRITTEN != 0 {
                push(&mut look.written, start, count);
            }
        }
        // `walk_end` cannot be trusted: the kernel walks in batches of its own and leaves there
        // where the last batch but one ended. A list with room left is complete; a full one goes on
        // after its last region.
        match regions[..count].last() {
            Some(last) if count == regions.len() => arg.start = last.end,
            _ => break,
        }
    }
    Ok(look)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::tests::PrivateMapping;

    #[test]
    fn both_interfaces_see_exactly_the_written_pages() {
        let mut mapping = PrivateMapping::new(64, |page| if page % 2 == 0 { 7 } else { 0 });
        mapping.read_all();
        for page in [0, 1, 2, 9, 63] {
            mapping.write(page, 1);
        }
        let expected: Vec<PageRun> = vec![
            PageRun { start: 0, count: 3 },
            PageRun { start: 9, count: 1 },
            PageRun { start: 63, count: 1 },
        ];
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        assert_eq!(read_entries(&pagemap, mapping.address(), mapping.length()).unwrap(), expected);
        match scan(&pagemap, mapping.address(), mapping.length(), 0) {
            Ok(look) => assert_eq!(look.own, expected),
            Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY), "{error}"),
        }
        let runs = written_pages(std::process::id(), mapping.address(), mapping.length()).unwrap();
        assert_eq!(runs, expected);
    }

    #[test]
    fn many_runs_are_each_seen_once() {
        // More than the kernel's own batch (512 regions), and more than one list of ours.
        let pages = 3 * limits::SCAN_REGIONS;
        let mut mapping = PrivateMapping::new(pages, |_| 1);
        for page in (0..pages).step_by(2) {
            mapping.write(page, 2);
        }
        let runs = written_pages(std::process::id(), mapping.address(), mapping.length()).unwrap();
        let expected: Vec<PageRun> = (0..u32::try_from(pages).unwrap())
            .step_by(2)
            .map(|start| PageRun { start, count: 1 })
            .collect();
        assert_eq!(runs, expected);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(matches!(written_pages(pid, 0x1000, 0x1000), Err(DeltaError::Process { .. })));
    }
}
