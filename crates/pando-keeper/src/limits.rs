//! Limits of a keeper: value, unit, reason.

use std::time::Duration;

/// Time that one hypervisor command may take while the guests stand still: far above the few
/// milliseconds measured, far below what a user takes for a hang.
pub const PAUSED_COMMAND: Duration = Duration::from_secs(10);
/// Time that a machine may take to open a disk's next layer before a cut: milliseconds, and seconds on
/// a busy host. The guests run meanwhile, but whoever waits is to hear soon of a machine that hangs.
pub const OPEN_OVERLAY: Duration = Duration::from_secs(10);
/// Time that a guest may take to write its caches before a cut of its disks: hundreds of megabytes on a
/// slow disk. A guest that hangs is cut all the same.
pub const SYNC: Duration = Duration::from_secs(10);
/// Time that a machine may take to stop for a cut; the others of its branch stand still meanwhile.
pub const STAND_STILL: Duration = Duration::from_secs(3);
/// Time that machines may take to read what the switch sent them before they are stopped: a fraction
/// of a millisecond, but one that waits for a processor on a busy host may need tens. The guests run
/// meanwhile, without a network; one that hangs must not block a cut.
pub const DRAIN: Duration = Duration::from_millis(100);
/// Time that guests may take to take in the frames that their machines hold back for them, as long as
/// some do; the guests have no network meanwhile.
pub const ROOM: Duration = Duration::from_secs(1);
/// Time without any taken in after which nobody waits: a guest on a busy host waits for its processor
/// for less.
pub const ROOM_STANDSTILL: Duration = Duration::from_millis(300);
/// How often it is asked whether a guest has taken in its frames.
pub const ROOM_ASKED: Duration = Duration::from_millis(1);
/// Time that a machine is waited for which did not do the command before this one in time; the
/// others of its branch have no network meanwhile.
pub const STUCK_COMMAND: Duration = Duration::from_millis(500);
/// Time that an uplink may take to answer.
pub const UPLINK_READY: Duration = Duration::from_secs(20);
/// Time that a machine may take from its spawn until its hypervisor answers.
pub const MACHINE_READY: Duration = Duration::from_secs(20);
/// Time for a guest's answer to a small question: guests on a host with six times as many of them as
/// cores, all busy, take ten seconds.
pub const GUEST_ANSWER: Duration = Duration::from_secs(20);
/// Time that a guest's answer to probes may take beyond their own: whoever asked for a fault waits.
pub const PROBE_GRACE: Duration = Duration::from_secs(10);
/// Time that a command may stay silent beyond its own timeout before the guest is called lost.
pub const EXEC_GRACE: Duration = Duration::from_secs(10);
/// Times that a cut's guard is asked before the cut is called unclean.
pub const GUARD_TRIES: u32 = 3;
/// Clients served at once; a fan-out needs one each.
pub const MAX_CONNECTIONS: usize = 512;
/// Time in which whoever only looks at a keeper's lock has let go of it, on a busy host too.
pub const LOCK_LOOKED_AT: Duration = Duration::from_secs(1);
/// How often the lock is tried meanwhile.
pub const LOCK_POLL: Duration = Duration::from_millis(10);
/// Bytes of a guest's console that are kept on the disk: days of a kernel's words. A guest that writes
/// without end must not fill the host.
pub const CONSOLE_BYTES: u64 = 16 << 20;
/// Bytes of a console's end that an error quotes from.
pub const CONSOLE_TAIL_BYTES: u64 = 16 << 10;
/// Time without progress after which a client that does not read is given up.
pub const CLIENT_STALLED: Duration = Duration::from_secs(60);
/// Time for a client to say hello.
pub const CLIENT_HELLO: Duration = Duration::from_secs(10);
/// Time that a command is given to take some of its input before its client is looked at again: what
/// a signal or a hang-up may wait for.
pub const INPUT_SLICE: Duration = Duration::from_millis(100);
/// Bytes of input that wait here for a command, so that a signal passes them: twice a Linux pipe.
pub const INPUT_AHEAD: usize = 128 << 10;
/// Pieces of such input, for a client that types.
pub const INPUT_AHEAD_PIECES: usize = 1024;
/// Pause after a client could not be accepted: long enough to cost nothing, short enough for whoever
/// waits.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Open files that a keeper asks for: its clients, all connections of some forwards, and its machines.
pub const OPEN_FILES: u64 = 16 << 10;
/// Longest wait that a request may ask for.
pub const MAX_WAIT: Duration = Duration::from_secs(3600);
/// Slice of a disk flattening between which other commands get their turn.
pub const FLATTEN_SLICE: Duration = Duration::from_millis(300);
/// How often guests are looked after that were stopped by trouble of the host; QEMU says so in an
/// event that nobody else waits for.
pub const LOOK_AFTER: Duration = Duration::from_secs(2);
/// Forwards of one node: all that a topology may have, and those that are asked for later, such as
/// SSH.
pub const MAX_FORWARDS: usize = 128;
/// Connections of one forward at once.
pub const MAX_FORWARD_CONNECTIONS: usize = 64;
/// Time that a client of a forward may keep its side open without a word after the guest has closed
/// its own; it holds a connection of the forward meanwhile.
pub const HALF_CLOSED: Duration = Duration::from_secs(60);
/// Buffer of a relay, in bytes.
pub const RELAY_BUFFER: usize = 32 << 10;
/// Time that a keeper which ends gives its answers to go out, and a failed start to be asked about.
pub const LINGER: Duration = Duration::from_secs(2);
/// How long a guest may take to tell its state: a large file system from a cold disk, translated.
pub const CAPTURE: Duration = Duration::from_secs(120);
/// How far a guest's clock may be from the host's, in nanoseconds: what the exchange that tells takes
/// when a machine waits for a processor now and then.
pub const CLOCK_NEAR_NS: i64 = 100_000_000;
/// Times that a guest is asked whether its clock is right.
pub const CLOCK_ROUNDS: u32 = 30;
/// Time until a guest is asked, and asked again, what time it believes it is.
pub const CLOCK_PAUSE: Duration = Duration::from_secs(1);
