//! The daemon: how one is started when it is needed, what it does until it is told to end, and
//! how one is ended.
//!
//! ```text
//! CLI ── start.lock ──▶ connects? ── yes ──▶ done
//!                           └─ no ─▶ spawns `serve --detached`, waits for "ready" on a pipe
//! serve ── daemon.lock (for life) ─▶ engine ─▶ socket ─▶ "ready" ─▶ … SIGTERM ─▶ drained, ended
//! ```

pub mod launch;
pub mod serve;
pub mod stop;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a detached daemon says on its stdout when it listens.
pub const READY: &str = "ready";
