//! Limits of this crate: value, unit, reason.

/// Most RAM that a delta describes, in bytes (16 TiB): page numbers are 32 bits.
pub const MAX_RAM: u64 = 1 << 44;
/// Bytes hashed and written at a time: large enough to keep both cores busy, small enough that
/// writing starts while hashing goes on.
pub const WRITE_CHUNK: usize = 4 << 20;
/// Most bytes captured into memory during one pause; what is beyond is written while the guest
/// still stands, which is slower but bounded.
pub const MAX_CAPTURE: usize = 1 << 30;
/// Threads that copy or hash at once: measured, more than two gain nothing below 200 MB.
pub const MAX_THREADS: usize = 4;
/// Remote ranges in one `process_vm_readv`: the kernel's IOV_MAX.
pub const IOV_MAX: usize = 1024;
/// Regions asked of the kernel in one PAGEMAP_SCAN.
pub const SCAN_REGIONS: usize = 4096;
