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
/// Longest time after which a fault ends by itself, in seconds: thirty days.
pub const MAX_FAULT_EXPIRY_S: u64 = 30 * 24 * 3600;
/// Longest latency and jitter, in milliseconds: a minute, after which connections are given up.
pub const MAX_LATENCY_MS: u32 = 60_000;
/// Longest mean burst of losses, in frames.
pub const MAX_LOSS_BURST: u32 = 10_000;
/// Highest rate of an impairment, in kbit/s: more than a switch in user space forwards.
pub const MAX_RATE_KBIT: u64 = 100_000_000;
/// Highest seed: what a JSON number holds exactly everywhere.
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// Longest label of a fault, in bytes.
pub const MAX_LABEL_BYTES: usize = 200;
/// Most faults of a branch: each is looked at for every frame of its links.
pub const MAX_FAULTS: usize = 64;
/// Questions of a probe to each address when nothing is said.
pub const DEFAULT_PROBE_COUNT: u32 = 3;
/// Most questions of a probe to each address.
pub const MAX_PROBE_COUNT: u32 = 100;
/// Time for a probe's answers when nothing is said, in milliseconds: ten times what a guest under
/// translation takes.
pub const DEFAULT_PROBE_TIMEOUT_MS: u64 = 1000;
/// Longest time for a probe's answers, in milliseconds.
pub const MAX_PROBE_TIMEOUT_MS: u64 = 60_000;
/// Most rows of a probe in one result: about 8 KB.
pub const MAX_PROBE_ROWS: usize = 64;
/// Frames that a capture takes when nothing is said.
pub const DEFAULT_CAPTURE_FRAMES: u64 = 100_000;
/// Most frames that a capture takes.
pub const MAX_CAPTURE_FRAMES: u64 = 1_000_000_000;
/// Bytes that a capture takes when nothing is said.
pub const DEFAULT_CAPTURE_BYTES: u64 = 16 << 20;
/// Most bytes that a capture takes: it is on the host's disk.
pub const MAX_CAPTURE_BYTES: u64 = 4 << 30;
/// Bytes that a capture keeps of each frame when nothing is said: all.
pub const DEFAULT_SNAP_BYTES: u32 = MAX_SNAP_BYTES;
/// Most bytes that a capture keeps of each frame: what pcap readers take.
pub const MAX_SNAP_BYTES: u32 = 65_535;
/// Most bytes of a capture in one result.
pub const MAX_CAPTURE_READ_BYTES: u64 = 1 << 20;
