//! How long work says how far it is, and hears that it should stop.

use std::sync::Arc;

use pando_model::operation::Progress;
use tokio_util::sync::CancellationToken;

/// Given to every driver call that may take longer than a second.
#[derive(Clone)]
pub struct Reporter {
    sink: Arc<dyn Fn(Progress) + Send + Sync>,
    cancel: CancellationToken,
}

impl Reporter {
    /// Returns a reporter that hands progress to `sink` and is cancelled through `cancel`.
    pub fn new(sink: Arc<dyn Fn(Progress) + Send + Sync>, cancel: CancellationToken) -> Self {
        Self { sink, cancel }
    }

    /// Returns a reporter that nobody listens to.
    pub fn silent() -> Self {
        Self::new(Arc::new(|_| {}), CancellationToken::new())
    }

    /// Says what is being done; `done` of `total` units, 0 of 0 when unknown.
    pub fn report(&self, message: impl Into<String>, done: u64, total: u64) {
        (self.sink)(Progress { message: message.into(), done, total });
    }

    /// Resolves when the work should stop.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Returns whether the work should stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
