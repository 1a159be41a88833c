//! Limits of the socket and of the listener on TCP: value, unit, reason.

use std::time::Duration;

/// Most bytes of a JSON body: the largest inline file in base64, with room for the rest.
pub const MAX_JSON_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of one frame's payload: small enough to interleave, large enough to be cheap.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Most open connections: each may hold one JSON body and a task.
pub const MAX_CONNECTIONS: usize = 512;
/// Chunks on their way between the socket and the engine, per stream: with the frame limit, 1 MiB.
pub const STREAM_CHUNKS: usize = 16;
/// Time for a client to send its request head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a client to send the whole of a JSON body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two pieces of a streamed body before its client is given up.
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for open connections to end when the daemon stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for the daemon to take a connection that the kernel has accepted, and to answer its head.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a client tries to find a daemon that went away.
pub const RECONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that a client keeps for the next call.
pub const IDLE_CONNECTIONS: usize = 8;
/// Longest line of an event stream: an operation with its result.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of a request's head, and what is read of a connection ahead of its reader.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most headers of a request: the usual twenty, with room for what proxies and browsers add.
pub const MAX_HEADERS: usize = 100;
/// Refused requests that are reported at once, before there is a limit to how many.
pub const REFUSALS_AT_ONCE: u32 = 10;
/// Time between two reports of refused requests once there have been that many: somebody who
/// guesses must neither go unnoticed nor fill the audit.
pub const REFUSAL_INTERVAL: Duration = Duration::from_secs(10);
