//! Waiting for an operation: progress for whoever wants it, a bounded wait, and cancellation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pando_api::{ApiError, Call, Caller, Control, OperationView};
use pando_model::operation::{OperationStatus, Progress};
use pando_model::{ErrorCode, OperationId};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::answer::{Answer, Next};
use crate::limits::{HEARTBEAT, PROGRESS_EVERY};

/// What a call needs of the client that made it, in no protocol's words.
#[async_trait]
pub trait Client: Send + Sync {
    /// Tells how far it is; does nothing if nobody asked.
    async fn progress(&self, done: f64, total: Option<f64>, message: String);

    /// Returns once the client has taken its request back. Never returns because the client went
    /// away: what it began goes on.
    async fn cancelled(&self);

    /// Asks a person, within this call. `None` where that cannot be done.
    async fn ask(&self, question: &str) -> Option<Confirmed>;

    /// Returns whether the client can put a question to a person and call again.
    fn asks_between_calls(&self) -> bool;

    /// Returns whether the client follows operations by itself, as tasks.
    fn takes_tasks(&self) -> bool;
}

/// What a person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// Do it.
    Yes,
    /// Leave it.
    No,
}

/// Progress that grows with every word, as the protocol wants it.
struct Meter<'a> {
    client: &'a dyn Client,
    last: f64,
    told: Option<(Instant, Progress)>,
}

impl<'a> Meter<'a> {
    fn new(client: &'a dyn Client) -> Self {
        Self { client, last: 0.0, told: None }
    }

    async fn tell(&mut self, progress: &Progress) {
        let now = Instant::now();
        if let Some((at, told)) = &self.told {
            let due = if told == progress { HEARTBEAT } else { PROGRESS_EVERY };
            if now.duration_since(*at) < due {
                return;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "nobody sees the last of 2^53 bytes")]
        let (done, total) = (progress.done as f64, progress.total as f64);
        self.last = if done > self.last { done } else { self.last + 0.001 };
        let total = (total >= self.last).then_some(total);
        self.told = Some((now, progress.clone()));
        self.client.progress(self.last, total, progress.message.clone()).await;
    }
}

/// Returns ticks, the first of them after one period. (A first tick at once would still take until
/// the next millisecond, which is several times what a read costs.)
fn later(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for a call that is no operation.
///
/// # Errors
/// The call's own; `cancelled` when its client took it back.
pub async fn directly(
    control: &Arc<dyn Control>,
    caller: &Caller,
    call: Call,
    client: &dyn Client,
) -> Result<Value, ApiError> {
    let began = Instant::now();
    let mut meter = Meter::new(client);
    let mut beats = later(HEARTBEAT);
    let name = call.name();
    let work = control.call(caller, call);
    tokio::pin!(work);
    loop {
        // Cancel-safe: the call is pinned; the others can be asked again.
        tokio::select! {
            outcome = work.as_mut() => return outcome,
            () = client.cancelled() => {
                let message = format!("{name} was taken back; what it began may still end");
                return Err(ApiError::new(ErrorCode::Cancelled, message));
            }
            _ = beats.tick() => {
                let seconds = began.elapsed().as_secs();
                let message = format!("{name}: {seconds} s");
                meter.tell(&Progress { message, done: seconds, total: 0 }).await;
            }
        }
    }
}

/// Waits for an operation for at most `wait`, and then says how to go on waiting.
pub async fn operation(
    control: &Arc<dyn Control>,
    caller: &Caller,
    id: &OperationId,
    wait: Duration,
    client: &dyn Client,
) -> Followed {
    let mut states = match control.watch_operation(caller, id).await {
        Ok(states) => states,
        Err(error) => return Followed::Lost(error),
    };
    let deadline = Instant::now() + wait;
    let mut meter = Meter::new(client);
    let mut beats = later(PROGRESS_EVERY);
    let mut is_watched = true;
    loop {
        let view = states.borrow_and_update().clone();
        if view.status.is_final() {
            return Followed::Ended(Box::new(view));
        }
        let mut progress = view.progress.clone();
        if progress.message.is_empty() {
            progress.message.clone_from(&view.verb);
        }
        meter.tell(&progress).await;
        // Cancel-safe: all of them can be asked again.
        tokio::select! {
            changed = states.changed(), if is_watched => is_watched = changed.is_ok(),
            _ = beats.tick() => {}
            () = sleep_until(deadline) => return Followed::Running(Box::new(view)),
            () = client.cancelled() => return Followed::TakenBack(Box::new(view)),
        }
        if !is_watched {
            // The daemon went away; when it is back the operation is finished or undone.
            return Followed::Running(Box::new(states.borrow().clone()));
        }
    }
}

/// How waiting ended.
pub enum Followed {
    /// The operation has ended.
    Ended(Box<OperationView>),
    /// It goes on, and the time is up.
    Running(Box<OperationView>),
    /// The client took its request back.
    TakenBack(Box<OperationView>),
    /// It cannot be watched.
    Lost(ApiError),
}

/// Returns an ended operation's result or error.
///
/// # Errors
/// The operation's own.
pub fn outcome(view: OperationView) -> Result<Value, ApiError> {
    match (view.status, view.result, view.error) {
        (OperationStatus::Succeeded, result, _) => Ok(result.unwrap_or(json!({}))),
        (_, _, Some(error)) => Err(error),
        (status, _, None) => Err(ApiError::new(
            ErrorCode::Internal,
            format!("{} ended as {status:?} without saying why", view.verb).to_lowercase(),
        )
        .operation(view.operation_id)),
    }
}

/// Returns the answer for an operation that goes on.
pub fn still_running(view: &OperationView, wait: Duration) -> Answer {
    let id = &view.operation_id;
    let result = json!({
        "operation_id": id, "verb": view.verb, "status": view.status, "progress": view.progress,
        "note": "It goes on. Its result will be in operation_wait's `result`.",
    });
    let arguments = json!({"id": id, "timeout_s": wait.as_secs().max(1)});
    Answer::result(result).next(Some(Next::new("operation_wait", arguments)))
}
