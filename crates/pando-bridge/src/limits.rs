//! Limits: value, unit, reason.

use std::time::Duration;

/// Most ports of a branch: as many as the user-space switch has.
pub const MAX_PORTS: usize = 1024;
/// Time that one of the kernel's tools may take: a thousand times what it takes.
pub const TOOL_DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of a tool's output: the counts of all pairs of a large branch.
pub const MAX_TOOL_OUTPUT_BYTES: u64 = 64 << 20;
/// Most characters of a tool's complaint in an error.
pub const MAX_COMPLAINT_CHARS: usize = 300;
/// Time that the worker may take for a command: a few tools one after another.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// When a fault is tried to be ended again that could not be: soon, and not so often that the tools
/// are all that runs.
pub const RETRY: Duration = Duration::from_secs(1);
/// Commands that may wait for the worker; the owner sends one at a time.
pub const COMMANDS: usize = 4;
/// How long a rate limit's queue may grow, in time to send it; the user-space switch has the same.
pub const RATE_QUEUE: Duration = Duration::from_millis(200);
/// How long it may grow in any case, in bytes: a burst of a slow link.
pub const RATE_QUEUE_BYTES: u64 = 32 * FRAME_BYTES;
/// What a rate limit lets through at once, as time of its rate: the kernel's clock ticks in it.
pub const RATE_BURST: Duration = Duration::from_millis(10);
/// What it lets through at once in any case, in bytes: a frame.
pub const RATE_BURST_BYTES: u64 = 2000;
/// Longest frame, in bytes: what a queue that counts frames takes one for.
pub const FRAME_BYTES: u64 = 1514;
/// Most frames that may wait for their delay on a link.
pub const DELAYED_FRAMES: u64 = 8192;
/// Highest rate, in bits a second: what stands for no limit.
pub const MAX_RATE_BPS: u64 = 100_000_000_000;
/// Longest state file, in bytes: counts of all links.
pub const MAX_STATE_BYTES: u64 = 64 << 20;
