//! Limits of the MCP server: value, unit, reason.

use std::time::Duration;

/// Longest message of a client: the longest parameter that any verb takes, twice over.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// Messages that wait to be written: a client that reads slowly slows down who writes to it.
pub const OUTGOING_LINES: usize = 16;
/// Size of a result when nothing else is asked for: some clients cut at 10 KB.
pub const RESULT_BYTES: usize = 8 * 1024;
/// Output of a command that is kept of each stream when nothing else is asked for, in bytes: both
/// fit into a result.
pub const OUTPUT_BYTES: u64 = 3 * 1024;
/// Contents of a file or a console that are returned when nothing else is asked for, in bytes.
pub const TEXT_BYTES: u64 = 6 * 1024;
/// Rows of a list when nothing else is asked for: about what fits into a result.
pub const PAGE_ROWS: u64 = 20;
/// How long a call waits for its operation: several clients give up after 60 s.
pub const WAIT: Duration = Duration::from_secs(50);
/// How long a call of a client that follows tasks waits for its operation: most have ended by then,
/// and their results need no asking for.
pub const TASK_AFTER: Duration = Duration::from_secs(2);
/// Time between two questions after a task that a client is told to leave, in milliseconds.
pub const TASK_POLL_MS: u64 = 1000;
/// Time for which a task can surely be asked after, in milliseconds: operations are kept longer.
pub const TASK_TTL_MS: u64 = pando_api::limits::OPERATIONS_KEPT_S * 1000;
/// Longest time, in seconds, for which a command is waited for directly; one that may take longer
/// becomes an operation.
pub const DIRECT_EXEC_S: u64 = 60;
/// Time between two words of progress when something changes: what a person can read.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Time after which progress is repeated when nothing changes, so that clients go on waiting.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a person may think about a confirmation.
pub const CONFIRM_WAIT: Duration = Duration::from_secs(300);
/// Calls under way at once, for all of a client's requests.
pub const MAX_CALLS: usize = 64;
/// Verbs that `tool_find` describes in full; more are named only.
pub const FOUND_IN_FULL: usize = 3;
/// Verbs that `tool_find` returns when nothing else is asked for.
pub const FOUND: usize = 8;
/// Longest query of `tool_find`, in bytes.
pub const MAX_QUERY_BYTES: usize = 400;
/// Objects of one kind in a list of resources: what a person picks from.
pub const RESOURCES_PER_KIND: u64 = 50;
/// Names that complete what was typed: the protocol allows no more.
pub const COMPLETIONS: usize = 100;
/// Names of one kind among which those are looked for: the longest page of a list.
pub const NAMES_PER_KIND: u32 = pando_api::limits::MAX_PAGE;
/// Things that are watched for one listener: what a person keeps an eye on.
pub const MAX_WATCHED: usize = 32;
/// Listeners at once, for all of a client's requests.
pub const MAX_LISTENERS: usize = 16;
/// Time between two reads of a thing that is watched: soon enough for a person, cheap for a guest.
pub const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Reads at once, of everything that a client watches.
pub const WATCH_READS: usize = 4;
/// Changes that wait to be told: whoever reads slowly hears of them later.
pub const WATCH_CHANGES: usize = 16;
/// Longest URI, in bytes: the longest address and then some.
pub const MAX_URI_BYTES: usize = 1024;
/// Longest argument of a prompt, in bytes.
pub const MAX_PROMPT_ARGUMENT_BYTES: usize = 8 * 1024;
/// Time for a client to send the whole of a message over HTTP.
pub const BODY_WAIT: Duration = Duration::from_secs(60);
/// Time after which the head of an answer over HTTP is sent, whether or not the answer is there:
/// most are there before it, as one message.
pub const HEAD_WAIT: Duration = Duration::from_secs(2);
/// Time between two signs of life on a silent stream over HTTP: proxies give up after 30 s or more.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Sessions over HTTP at once, for all callers: each holds some tasks and the last few messages.
pub const MAX_SESSIONS: usize = 256;
/// Time for which a session over HTTP may go unused: an agent whose person is at lunch finds it
/// again.
pub const SESSION_IDLE: Duration = Duration::from_secs(2 * 3600);
/// Time for a session over HTTP to begin once it has a place.
pub const SESSION_BEGIN: Duration = Duration::from_secs(30);
/// Callers under a profile over HTTP whose lists of tools are kept: some 100 KB each.
pub const MAX_HANDLERS: usize = 64;
