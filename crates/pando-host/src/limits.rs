//! Limits of a host: value, unit, reason.

use std::time::Duration;

/// Time for a keeper to answer a small question.
pub const ANSWER: Duration = Duration::from_secs(10);
/// Time beyond a request's own for its answer to arrive.
pub const GRACE: Duration = Duration::from_secs(15);
/// Time for a keeper to answer what it asks a guest first: its own patience with the guest, and a moment.
pub const GUEST: Duration = Duration::from_secs(25);
/// Time that a command which a keeper's owner does may take: two hypervisor commands a node.
pub const COMMAND: Duration = Duration::from_secs(45);
/// Time that a branch's resume may take: one that was made paused comes up then, and may have to
/// boot. A keeper that is lost is heard of at once.
pub const RESUME: Duration = Duration::from_secs(600);
/// Time for a keeper's process to be gone once it said goodbye.
pub const GONE: Duration = Duration::from_secs(10);
/// Time from when a process that ends lets go of its first file until it lets go of its last.
pub const DYING: Duration = Duration::from_secs(1);
/// How often a lock is tried while a process ends: the kernel offers no wait with a deadline.
pub const LOCK_POLL: Duration = Duration::from_millis(2);
/// Longest flattening of a disk chain.
pub const FLATTEN: Duration = Duration::from_secs(3600);
/// Most bytes of a console or a capture of frames that one call reads.
pub const MAX_CONSOLE: u64 = 4 << 20;
/// How long a capture may take: the keeper's own limit, and a moment.
pub const CAPTURE: Duration = Duration::from_secs(130);
/// How often a guest's clock is asked for at most, in search of a quick answer.
pub const CLOCK_ROUNDS: u32 = 6;
/// An answer about a guest's clock that came this fast is true enough, in nanoseconds: below a tick
/// of the guest's kernel.
pub const CLOCK_QUICK_NS: i64 = 4_000_000;
/// Idle connections that are kept to one keeper: agents rarely run more commands in one branch at once.
pub const MAX_IDLE_EACH: usize = 4;
/// Idle connections that are kept in all, each a descriptor here and two threads in a keeper.
pub const MAX_IDLE: usize = 128;
/// Most bytes of a server's greeting: the longest first line that SSH allows (RFC 4253, 4.2).
pub const GREETING: usize = 255;
/// How often a server that does not answer yet is asked again: nobody tells when it will.
pub const GREETING_POLL: Duration = Duration::from_millis(20);
