//! Limits of the guest program: value, unit, reason.

use std::time::Duration;

/// Bytes waiting for the host above which nothing more is read from commands or the host.
pub const OUTBOX_HIGH_BYTES: usize = 512 * 1024;
/// How long the news that a command started may wait for something that goes out anyway: a short
/// command then costs one write to the port instead of two.
pub const STARTED_DELAY: Duration = Duration::from_millis(20);
/// The same for a command whose user waits for it to send input.
pub const FED_STARTED_DELAY: Duration = Duration::from_millis(5);
/// Most bytes read from the port before other work gets its turn.
pub const PORT_TURN_BYTES: usize = 256 * 1024;
/// Consumed bytes after which the host is granted as many anew: a quarter of the window.
pub const CREDIT_STEP_BYTES: u32 = pando_wire::limits::STREAM_WINDOW_BYTES / 4;
/// How long a terminal whose command has ended may still say something: its last output passes
/// through a kernel work queue.
pub const TERMINAL_GRACE: Duration = Duration::from_millis(50);
/// Most pipes kept open (and emptied) for background children of commands that have ended.
pub const MAX_LINGERING: usize = 128;
/// Most requests that run on a thread of their own at once.
pub const MAX_JOBS: usize = 32;
/// Stack of such a thread, in bytes.
pub const JOB_STACK_BYTES: usize = 256 * 1024;
/// Longest idle wait: nothing depends on it, it only bounds the damage of a lost wake-up.
pub const IDLE: Duration = Duration::from_secs(60);
/// How long the kernel's own news of a restore is held back: the first commands of a cluster whose
/// nodes wait for two processors.
pub const GENERATION_DELAY: Duration = Duration::from_millis(1500);
/// How long it may get through then: the kernel takes note of it at once, by the guest's own clock. A
/// machine that is committed meanwhile hears of its restore without delay.
pub const GENERATION_WINDOW: Duration = Duration::from_millis(500);
/// How long a machine runs no command before a shell is started ahead of the next one: many copies of a
/// commit get their first command done before any of them does that.
pub const SPARE_DELAY: Duration = Duration::from_secs(3);
/// How often is looked whether that shell has come as far as it shall.
pub const SPARE_POLL: Duration = Duration::from_millis(4);
/// How long it may take: hundreds of times what it does under translation.
pub const SPARE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often killed processes that are not direct children are looked at until they are gone.
pub const REAP_INTERVAL: Duration = Duration::from_millis(20);
/// Rounds in which a process tree is searched and killed: each finds what the last one's victims
/// had forked meanwhile.
pub const KILL_ROUNDS: u32 = 50;
/// Longest `/etc/passwd`, `/etc/group` or `/etc/environment` that is read, in bytes.
pub const MAX_TABLE_BYTES: u64 = 1024 * 1024;
/// Most files of `/proc`, `/sys` or `/etc` read for facts, in bytes each.
pub const MAX_FACT_FILE_BYTES: u64 = 64 * 1024;
/// Most services listed in facts.
pub const MAX_SERVICES: usize = 512;
/// How often a wait for the system's boot looks again.
pub const BOOT_POLL: Duration = Duration::from_millis(50);
/// How long the service manager may take to start.
pub const MANAGER_TIMEOUT: Duration = Duration::from_mins(10);
/// How long the root device may take to appear.
pub const ROOT_DEVICE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a boot looks whether the root device has appeared.
pub const DEVICE_POLL: Duration = Duration::from_millis(5);
/// How long the guest channel's port may take to appear.
pub const PORT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the interfaces whose addresses are known may take to appear.
pub const INTERFACES_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests may take to clean up when the host has left for good.
pub const LEAVING: Duration = Duration::from_secs(5);
/// How long a running SSH server may take to start anew: a second under translation. Whoever waits
/// for the new identity waits for it.
pub const SSH_SERVER_TIMEOUT: Duration = Duration::from_secs(4);
/// How often is looked whether it has: on the way of warm starts.
pub const SSH_SERVER_POLL: Duration = Duration::from_millis(5);
/// Most files that a capture lists: what the host takes, and a minute of walking.
pub const MAX_CAPTURED_FILES: usize = 500_000;
/// Most entries of one directory that are held in memory while it is listed.
pub const MAX_CAPTURED_ENTRIES: usize = 100_000;
/// Most processes, sockets, units and users of a capture, each.
pub const MAX_CAPTURED_ITEMS: usize = 8192;
/// Most messages of the kernel in a capture: the newest.
pub const MAX_KERNEL_LINES: usize = 1000;
/// Longest text of a capture that is not a path, in bytes.
pub const MAX_CAPTURED_TEXT: usize = 1024;
/// Longest table of packages that is read, in bytes.
pub const MAX_PACKAGES_BYTES: u64 = 64 * 1024 * 1024;
/// Largest file that is digested, in bytes: seconds under translation.
pub const MAX_DIGESTED_BYTES: u64 = 256 * 1024 * 1024;
/// How long the service manager may take to list its units.
pub const UNITS_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer of the service manager, in bytes.
pub const MAX_UNITS_BYTES: usize = 4 * 1024 * 1024;
/// Longest setting of the kernel that is told, in bytes.
pub const MAX_SETTING_BYTES: usize = 256;
/// Most files whose first bytes are looked at in search of databases.
pub const MAX_DATABASE_CANDIDATES: usize = 2000;
/// Most databases that are told, of each kind.
pub const MAX_DATABASES: usize = 32;
/// Most tables of one database that are told.
pub const MAX_TABLES: usize = 512;
/// Most columns, indexes and constraints of one table that are told.
pub const MAX_TABLE_PARTS: usize = 256;
/// Longest definition of a column, index or view that is told whole, in bytes; of a longer one, a
/// digest is told. So a table fits a record.
pub const MAX_DEFINITION_BYTES: usize = 240;
/// Most bytes of pages that are read of all database files of one capture: about two seconds under
/// translation.
pub const MAX_DATABASE_BYTES: u64 = 64 * 1024 * 1024;
/// Most bytes of one table's rows that are digested; of a larger one, rows are counted only.
pub const MAX_DIGESTED_ROWS_BYTES: u64 = 4 * 1024 * 1024;
/// Longest write-ahead log of a database that is read, in bytes: four times what SQLite lets it
/// grow to before it empties it.
pub const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;
/// Most rows of a server's table that are digested; of a larger one, rows are counted only.
pub const MAX_DIGESTED_ROWS: u64 = 10_000;
/// How long all questions to one database server may take.
pub const DATABASE_TIMEOUT: Duration = Duration::from_secs(8);
/// How long one question to a database server may take.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest message of a database server, in bytes.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Most rows of an answer of a database server.
pub const MAX_ANSWER_ROWS: usize = 20_000;
/// Most targets of a probe: both addresses of every interface of a large cluster's nodes.
pub const MAX_PROBE_TARGETS: usize = 256;
/// Most questions of a probe to each target: all of a probe's are told apart by 16 bits.
pub const MAX_PROBE_COUNT: u32 = 100;
/// Longest time for a probe's answers.
pub const MAX_PROBE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that are looked at of what a probe hears.
pub const PROBE_RECEIVE_BYTES: usize = 512;
/// Most messages that a probe reads from a socket before it looks at the time.
pub const MAX_PROBE_BURST: usize = 256;
