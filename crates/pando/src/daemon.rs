//! The daemon: how one is started when it is needed, what it does until it is told to end, and
//! how one is ended.
//!
//! ```text
//! CLI ── start.lock ──▶ connects? ── yes ──▶ done
//!                           └─ no ─▶ spawns `serve --detached`, waits for "ready" on a pipe
//! serve ── daemon.lock (for life) ─▶ engine ─▶ socket ─▶ "ready" ─▶ … SIGTERM ─▶ drained, ended
//! ```

pub mod door;
pub mod launch;
pub mod serve;
pub mod stop;

use std::time::Duration;

use pando_api::ApiError;
use pando_http::{About, Client};
use pando_model::{ErrorCode, Layout};

/// Time for a daemon to say what it is, to a command that only wants to mention it.
const ABOUT_WAIT: Duration = Duration::from_secs(5);

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a detached daemon says on its stdout when it listens.
pub const READY: &str = "ready";

/// Returns a client of another daemon than the home's own, one that somebody else looks after, if
/// the argument `--url` or the environment names one.
///
/// # Errors
/// `invalid_parameter` when what it names cannot be one.
pub fn elsewhere(url: Option<&str>) -> Result<Option<Client>, ApiError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let text = |name: &str| {
        let invalid = |_| ApiError::parameter(name, format!("{name} is not UTF-8"));
        variable(name).map(|value| value.into_string().map_err(invalid)).transpose()
    };
    let url = match url {
        Some(url) => Some(url.to_owned()),
        None => text("PANDO_URL")?,
    };
    match (url, variable("PANDO_SOCKET")) {
        (Some(url), _) => Client::at_url(&url, text("PANDO_TOKEN")?).map(Some),
        (None, Some(path)) => Ok(Some(Client::new(path, None))),
        (None, None) => Ok(None),
    }
}

/// Returns what the daemon of a home says of itself, starting none.
///
/// # Errors
/// `daemon_unreachable`.
pub fn about(layout: &Layout) -> Result<About, ApiError> {
    let client = Client::new(layout.daemon_socket(), None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ApiError::new(ErrorCode::Internal, format!("no runtime: {source}")))?;
    runtime.block_on(async {
        tokio::time::timeout(ABOUT_WAIT, client.about()).await.unwrap_or_else(|_| {
            let seconds = ABOUT_WAIT.as_secs();
            let message = format!("the daemon did not answer within {seconds} s");
            Err(ApiError::new(ErrorCode::DaemonUnreachable, message).hint("pando logs"))
        })
    })
}
