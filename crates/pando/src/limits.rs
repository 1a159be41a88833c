//! Limits of the command line and the daemon: value, unit, reason.

use std::time::Duration;

/// Time for a daemon to begin to listen: it opens its database and reads its records.
pub const DAEMON_START: Duration = Duration::from_secs(30);
/// Time for a daemon to end: operations get a moment, streams are drained.
pub const DAEMON_STOP: Duration = Duration::from_secs(30);
/// Time after which work is worth a progress line.
pub const PROGRESS_AFTER: Duration = Duration::from_millis(400);
/// Time between two frames of the progress line.
pub const PROGRESS_FRAME: Duration = Duration::from_millis(100);
/// Time between two looks at a log or console that is followed.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two looks of `watch` and `top`: as often as an eye follows a table.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Least of it: every look reads what the kernel says of every machine.
pub const MIN_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Operations, newest first, that `watch` tells of.
pub const WATCHED_OPERATIONS: u32 = 20;
/// Bytes of a file that are read and sent at a time.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Time in which a signal gets behind the input that a command is reading; a command that reads none
/// is given up then.
pub const SIGNAL_PASSES: Duration = Duration::from_secs(1);
/// Chunks between a file or terminal and the socket.
pub const CHUNKS: usize = 8;
/// Lines of the daemon's log in the error of one that did not start.
pub const LOG_LINES: usize = 5;
/// Most bytes that are read from the end of a log.
pub const LOG_BYTES: u64 = 1024 * 1024;
/// Largest daemon log; the older half goes when one starts.
pub const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;
/// Time for each stage of the accelerator probe.
pub const PROBE_STAGE: Duration = Duration::from_secs(10);
/// Longest file of another program's settings, in bytes: vmcluster-mcp's has ten short lines.
pub const MAX_SETTINGS_BYTES: u64 = 64 * 1024;
/// Most rows that `ps` asks for.
pub const PS_ROWS: u32 = 500;
