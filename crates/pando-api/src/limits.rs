//! Limits of the catalogue: value, unit, reason.

/// Most objects in one page of a list: keeps a page under about 200 KB.
pub const MAX_PAGE: u32 = 500;
/// Objects in a page when nothing is said: what a reader takes in.
pub const DEFAULT_PAGE: u32 = 50;
/// Most bytes of a file inside one request or result; larger files are streamed.
pub const MAX_INLINE_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// Default time until a new machine answers, in seconds: under translation on a busy machine
/// a cloud image takes 150 to boot, and the default image 20.
pub const DEFAULT_READY_TIMEOUT_S: u64 = 300;
/// Default time for a guest to shut down by itself, in seconds, before it is killed.
pub const DEFAULT_SHUTDOWN_TIMEOUT_S: u64 = 30;
/// Longest wait that one call may ask for, in seconds: one hour; wait again for more.
pub const MAX_WAIT_S: u64 = 3600;
/// Default number of console bytes that are read from the end.
pub const DEFAULT_CONSOLE_BYTES: u64 = 16 * 1024;
/// Most console bytes in one result.
pub const MAX_CONSOLE_BYTES: u64 = 1024 * 1024;
/// Time for which ended operations are kept, in seconds: thirty days.
pub const OPERATIONS_KEPT_S: u64 = 30 * 24 * 3600;
/// Default time until SSH answers, in seconds: a cold boot under translation, with time to spare.
pub const DEFAULT_SSH_TIMEOUT_S: u64 = 120;
/// Default time that a command on a node may run, in seconds.
pub const DEFAULT_NODE_EXEC_TIMEOUT_S: u64 = 30;
/// Longest idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 128;
/// Most network interfaces of a machine: the PCI slots that its machine type keeps for them.
pub const MAX_NICS: u8 = 8;
/// Most warm copies of one commit: each takes a parked machine's memory.
pub const MAX_WARM: u32 = 64;
/// Bytes of differences in one result when nothing is said: what a model takes in.
pub const DEFAULT_DIFF_BYTES: u64 = 8 * 1024;
/// Most bytes of differences in one result.
pub const MAX_DIFF_BYTES: u64 = 4 * 1024 * 1024;
