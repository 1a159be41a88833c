//! Limits of this crate: value, unit, reason.

use std::time::Duration;

/// Most RAM that a delta describes, in bytes (16 TiB): page numbers are 32 bits.
pub const MAX_RAM: u64 = 1 << 44;
/// Bytes read and written at a time where that is all there is to do.
pub const WRITE_CHUNK: usize = 4 << 20;
/// Bytes hashed at a time, while those before them are written: large enough to keep the cores
/// busy, small enough that writing starts early.
pub const HASH_CHUNK: usize = 16 << 20;
/// Most bytes captured into memory during one pause; what is beyond is written while the guest
/// still stands, which is slower but bounded.
pub const MAX_CAPTURE: usize = 1 << 30;
/// Threads that copy or hash at once: measured, more than two gain nothing below 200 MB.
pub const MAX_THREADS: usize = 4;
/// Ranges in one `process_vm_readv` or `pwritev`: the kernel's IOV_MAX.
pub const IOV_MAX: usize = 1024;
/// Regions asked of the kernel in one PAGEMAP_SCAN.
pub const SCAN_REGIONS: usize = 4096;
/// Time that a process may take to be stopped for a system call in our name.
pub const TRACEE_STOPS: Duration = Duration::from_secs(1);
/// How often it is asked whether it is: the kernel offers no wait with a deadline.
pub const TRACEE_POLL: Duration = Duration::from_micros(50);
/// Times that pages are read while the guest runs: the first reading takes as long as there is to read,
/// the second as long as the first, divided by how much faster reading is than writing.
pub const READINGS_BEFORE_PAUSE: u32 = 2;
/// Spare pages in a capture buffer beyond those seen before the pause, as a fraction of them.
pub const CAPTURE_SPARE: usize = 8;
/// Spare pages in a capture buffer in any case.
pub const CAPTURE_SPARE_PAGES: usize = 1024;
