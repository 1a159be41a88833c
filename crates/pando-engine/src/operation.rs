//! How an operation is run, undone and recovered. What it does is its [`Kind`]'s; this file knows
//! only steps.
//!
//! ```text
//!  record intent ─▶ step ─▶ step ─▶ … ─▶ finish: records + "succeeded" in one transaction
//!                    │ fails, is cancelled, passes the deadline, or the daemon died here
//!                    ▼
//!                direction? ── back ─▶ undo all steps, last first ─▶ "failed": nothing changed
//!                    └────── forward ─▶ all steps again ─▶ finish        │ cannot
//!                                              └─────────────────────────┴──▶ "stuck"
//! ```
//!
//! The laws that make this cheap and safe: every step may be repeated, and undoing a step that
//! never ran is harmless. So a step's beginning needs no write of its own: the intent (with every
//! id that the steps will use) is on disk before the first act, and recovery undoes or repeats
//! *all* steps. A step that changes records returns them, and they are written with its end.

mod run;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pando_api::OperationView;
use pando_driver::Reporter;
use pando_driver::store::{AuditEntry, StoreError, Transaction};
use pando_model::operation::{Operation, OperationStatus, Progress, StepRecord, StepStatus};
use pando_model::{ClusterId, ErrorCode, OperationId};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::locks::{Guard, LockSet};
pub(crate) use run::ATTEMPTS;
use run::Run;

/// Where an operation that was interrupted goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Everything is undone.
    Back,
    /// It is past the point of no return: everything is done (again).
    Forward,
}

/// What an operation does. The value is also its memo: whatever the steps must know of one another
/// is in its fields and is written with the operation.
#[async_trait]
pub(crate) trait Kind: Send + Sync {
    /// Names of the steps, in order.
    fn steps(&self) -> &'static [&'static str];

    /// What it holds while it runs; also after a crash.
    fn locks(&self) -> LockSet;

    /// The cluster that it works on.
    fn cluster(&self) -> Option<ClusterId> {
        None
    }

    /// Itself as JSON.
    fn memo(&self) -> Value;

    /// Records that are written together with the operation's own.
    fn intent(&self) -> Transaction {
        Transaction::new()
    }

    /// Brings the records back to before the intent, once all steps are undone.
    fn revert(&self) -> Transaction {
        Transaction::new()
    }

    /// Brings the records back to before the intent when no step was begun.
    fn unrecord(&self) -> Transaction {
        self.revert()
    }

    /// Does a step; returns records that change with its end.
    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction>;

    /// Undoes a step, whether or not it ran; returns records that change with the failure.
    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction>;

    /// Returns where to go after a failure or crash; asks the world if it must.
    async fn direction(&mut self, _: &Cx) -> Result<Direction> {
        Ok(Direction::Back)
    }

    /// Returns the records that are written with the success.
    async fn finish(&mut self, cx: &Cx) -> Result<Transaction>;

    /// Returns the verb's result.
    fn result(&self, id: &OperationId) -> Value;

    /// Starts what should happen in the background once it has ended.
    fn settled(&self, _: &Engine, _: OperationStatus) {}

    /// Returns what to do once the daemon ended in the middle and nothing of it is left.
    fn after_daemon_end(&self) -> &'static str {
        "call again"
    }

    /// Returns what repairs the state when it is stuck.
    fn remedy(&self, id: &OperationId) -> String {
        format!("pando operation cancel {id}")
    }
}

/// Returns a kind as JSON.
pub(crate) fn memo<T: Serialize>(kind: &T) -> Value {
    // Kinds are plain data with text keys, which serde_json always takes.
    serde_json::to_value(kind).unwrap_or(Value::Null)
}

/// What a step may use.
pub(crate) struct Cx {
    pub engine: Engine,
    pub id: OperationId,
    pub actor: String,
    pub reporter: Reporter,
    pub cancel: CancellationToken,
    /// Whether the step may have run before: under an earlier daemon, or in an earlier attempt.
    pub recovering: bool,
}

/// What asks for an operation.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub verb: String,
    pub params: Value,
    pub actor: String,
    pub idempotency_key: Option<String>,
    pub audit: Option<AuditEntry>,
}

impl Request {
    /// Returns a request of the engine itself.
    pub fn internal(verb: &str, actor: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            params: Value::Null,
            actor: actor.to_owned(),
            idempotency_key: None,
            audit: None,
        }
    }
}

/// A kind that is ready to run, with its locks held.
pub(crate) struct Plan {
    pub kind: Box<dyn Kind>,
    pub guard: Guard,
    pub timeout: Duration,
}

/// An operation under way, as its watchers see it.
pub(crate) struct Live {
    pub updates: watch::Sender<OperationView>,
    pub cancel: CancellationToken,
}

impl Engine {
    /// Records an operation and runs it in a task of its own; returns its states once it is
    /// recorded.
    ///
    /// # Errors
    /// When it could not be recorded; nothing has happened then.
    ///
    /// # Cancel safety
    /// A dropped call does not stop the operation.
    pub(crate) async fn submit(
        &self,
        request: Request,
        mut plan: Plan,
    ) -> Result<watch::Receiver<OperationView>> {
        // What it will make has no lock yet, and is nobody else's business until it is made.
        plan.guard.cover(plan.kind.locks(), &request.verb)?;
        let now = Timestamp::now();
        let steps = plan.kind.steps().iter().map(|name| StepRecord {
            name: (*name).to_owned(),
            status: StepStatus::Pending,
            started_at: None,
            ended_at: None,
        });
        let operation = Operation {
            id: OperationId::random(),
            verb: request.verb,
            params: request.params,
            memo: plan.kind.memo(),
            ground: None,
            status: OperationStatus::Running,
            steps: steps.collect(),
            progress: Progress::default(),
            result: None,
            error: None,
            cancel_requested: false,
            actor: request.actor,
            idempotency_key: request.idempotency_key,
            cluster: plan.kind.cluster(),
            deadline_at: now.saturating_add(plan.timeout).unwrap_or(now),
            created_at: now,
            updated_at: now,
        };
        let mut audit = self.take_audit();
        audit.extend(request.audit.map(|mut entry| {
            entry.operation = Some(operation.id.to_string());
            entry
        }));
        let (run, updates) = Run::new(self, operation, plan);
        let (recorded, is_recorded) = oneshot::channel();
        self.tasks.spawn(run.begin(audit, recorded));
        is_recorded.await.map_err(|_| {
            Failure::internal("the operation's task ended before it was recorded")
        })??;
        Ok(updates)
    }

    /// Goes on with an operation that an earlier daemon, or an earlier attempt, left unfinished.
    pub(crate) fn resume_operation(
        &self,
        operation: Operation,
        kind: Box<dyn Kind>,
        guard: Guard,
    ) -> watch::Receiver<OperationView> {
        let timeout = self.config.first_boot_timeout + self.config.undo_timeout;
        let (run, updates) = Run::new(self, operation, Plan { kind, guard, timeout });
        self.tasks.spawn(run.recover());
        updates
    }

    /// Writes a transaction that must not be lost to a passing error.
    pub(crate) async fn write_surely(
        &self,
        transaction: &Transaction,
    ) -> std::result::Result<(), StoreError> {
        let mut attempt = 1;
        loop {
            match self.store.write(transaction).await {
                Err(error @ StoreError::Io { .. }) if attempt < ATTEMPTS => {
                    tracing::warn!(%error, attempt, "writing again");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }
}

/// Waits until an operation has ended and returns its result.
pub(crate) async fn outcome(mut updates: watch::Receiver<OperationView>) -> Result<Value> {
    // The sender is only dropped after the final state was sent.
    let ended = updates.wait_for(|view| view.status.is_final()).await;
    let view = ended.map_err(|_| Failure::internal("the operation's task has ended"))?.clone();
    match (view.status, view.result, view.error) {
        (OperationStatus::Succeeded, result, _) => Ok(result.unwrap_or(Value::Null)),
        (_, _, Some(error)) => Err(Failure(error)),
        (status, _, None) => Err(Failure::new(ErrorCode::Internal, format!("it is {status:?}"))),
    }
}

/// Returns a reporter that shows progress to an operation's watchers.
fn reporter(updates: &watch::Sender<OperationView>, cancel: &CancellationToken) -> Reporter {
    let updates = updates.clone();
    let sink = move |progress: Progress| updates.send_modify(|view| view.progress = progress);
    Reporter::new(Arc::new(sink), cancel.clone())
}
