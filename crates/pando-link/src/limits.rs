//! Limits of a link: value, unit, reason.

use std::time::Duration;

/// Frames that may wait behind a writer that is blocked, in bytes: a few hundred credits and
/// closes; data waits with its caller instead.
pub const MAX_OUTBOX_BYTES: usize = 64 * 1024;
/// Consumed bytes after which a guest is granted as many anew: a quarter of the window, so that
/// short outputs cost no extra frame and long ones never run dry.
pub const CREDIT_STEP_BYTES: u32 = pando_wire::limits::STREAM_WINDOW_BYTES / 4;
/// How long a hello waits for its answer before it is said again: a port that the guest closes
/// and opens while it boots discards what was in it.
pub const HELLO_RETRY: Duration = Duration::from_secs(1);
/// Time for which a guest may move nothing of a file: its disk may be slow, and it may wait for a
/// processor.
pub const STALLED: Duration = Duration::from_secs(60);
/// Time for which a guest may write what it was sent to its disk.
pub const SYNCED: Duration = Duration::from_secs(600);
/// A blocked writer looks this often whether its epoch still lasts.
pub const WRITE_SLICE: Duration = Duration::from_millis(50);
/// Stack of the reader thread, in bytes: it recurses nowhere, and a keeper is small.
pub const READER_STACK_BYTES: usize = 96 * 1024;
/// Bytes read from the socket at once.
pub const READ_BYTES: usize = 16 * 1024;
