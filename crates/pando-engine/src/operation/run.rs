//! One run of an operation: the only place that changes its record.

use std::time::Duration;

use jiff::Timestamp;
use pando_api::{ApiError, OperationView};
use pando_driver::store::{AuditEntry, Record, StoreError, Table, Transaction};
use pando_model::operation::{Operation, OperationStatus, StepStatus};
use pando_model::{Branch, ErrorCode, OperationId};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Cx, Direction, Kind, Live, Plan, reporter};
use crate::background::Busy;
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::locks::Guard;

/// How often a step that can only go forward, or an undoing, is tried: a passing error must not
/// leave work for a person.
pub(crate) const ATTEMPTS: u32 = 3;
/// How long a step may take to notice that it should stop before it is dropped.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two attempts to record an operation's end, at first and in the long run.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Run {
    engine: Engine,
    kind: Box<dyn Kind>,
    operation: Operation,
    updates: watch::Sender<OperationView>,
    cancel: CancellationToken,
    deadline: Instant,
    /// How long all steps together may take.
    timeout: Duration,
    recovering: bool,
    _guard: Guard,
    _busy: Busy,
}

impl Run {
    pub fn new(
        engine: &Engine,
        operation: Operation,
        plan: Plan,
    ) -> (Self, watch::Receiver<OperationView>) {
        let (updates, watched) = watch::channel(OperationView::from(&operation));
        let cancel = CancellationToken::new();
        let live = Live { updates: updates.clone(), cancel: cancel.clone() };
        engine.live().insert(operation.id.clone(), live);
        let run = Self {
            engine: engine.clone(),
            kind: plan.kind,
            operation,
            updates,
            cancel,
            deadline: Instant::now() + plan.timeout,
            timeout: plan.timeout,
            recovering: false,
            _guard: plan.guard,
            _busy: engine.background.begin(),
        };
        (run, watched)
    }

    /// Records the intent, then does everything.
    pub async fn begin(mut self, audit: Vec<AuditEntry>, recorded: oneshot::Sender<Result<()>>) {
        let at_once = self.kind.steps().is_empty();
        let mut intent = self.kind.intent();
        intent.audit = audit;
        if at_once {
            let finish = match self.kind.finish(&self.cx()).await {
                Ok(records) => records,
                Err(error) => return self.forget(error, recorded),
            };
            intent.merge(finish);
            self.succeed();
        }
        intent.put(&self.operation);
        if let Err(error) = self.engine.store.write(&intent).await {
            if matches!(error, StoreError::Io { .. } | StoreError::DiskFull) {
                self.unrecord().await;
            }
            return self.forget(error.into(), recorded);
        }
        // Nobody has to wait for it: the operation is its own.
        let _ = recorded.send(Ok(()));
        if at_once {
            return self.close();
        }
        match self.forward(0).await {
            Ok(()) => self.close(),
            Err((step, error)) => self.turn(step, error).await,
        }
    }

    /// Finishes or undoes what was left unfinished.
    pub async fn recover(mut self) {
        self.recovering = true;
        let error = Failure::new(
            ErrorCode::DaemonUnreachable,
            format!("the daemon ended in the middle of {}", self.operation.verb),
        )
        .hint(self.kind.after_daemon_end());
        let last = self.kind.steps().len().saturating_sub(1);
        self.turn(last, error).await;
    }

    fn cx(&self) -> Cx {
        Cx {
            engine: self.engine.clone(),
            id: self.operation.id.clone(),
            actor: self.operation.actor.clone(),
            reporter: reporter(&self.updates, &self.cancel),
            cancel: self.cancel.clone(),
            recovering: self.recovering,
        }
    }

    /// Does the steps from `first` on and records success. On a failure, says at which step.
    async fn forward(&mut self, first: usize) -> std::result::Result<(), (usize, Failure)> {
        for (index, name) in self.kind.steps().iter().enumerate().skip(first) {
            self.step(index, name).await.map_err(|error| (index, error))?;
        }
        let last = self.kind.steps().len().saturating_sub(1);
        let finish = self.kind.finish(&self.cx()).await;
        let mut records = finish.map_err(|error| (last, error))?;
        let before = self.operation.clone();
        self.succeed();
        records.put(&self.operation);
        records.audit = self.engine.take_audit();
        if let Err(error) = self.engine.write_surely(&records).await
            && !self.has_succeeded().await
        {
            self.operation = before;
            self.engine.return_audit(records.audit);
            return Err((last, error.into()));
        }
        Ok(())
    }

    /// Asks the records whether success was written although the writing seemed to fail.
    async fn has_succeeded(&self) -> bool {
        let found = self.engine.store.get::<Operation>(self.operation.id.as_str()).await;
        matches!(found, Ok(Some(found)) if found.status == OperationStatus::Succeeded)
    }

    async fn step(&mut self, index: usize, name: &str) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(cancelled());
        }
        self.mark(index, StepStatus::Started);
        let records = self.act(name).await?;
        self.mark(index, StepStatus::Done);
        if !records.is_empty() {
            let mut records = records;
            self.operation.memo = self.kind.memo();
            self.operation.updated_at = Timestamp::now();
            records.put(&self.operation);
            self.engine.write_surely(&records).await?;
        }
        Ok(())
    }

    /// Does one step within the deadline.
    async fn act(&mut self, name: &str) -> Result<Transaction> {
        let cx = self.cx();
        let deadline = self.deadline;
        let work = self.kind.run(name, &cx);
        tokio::pin!(work);
        // Losing the wait loses nothing; the work is polled again below.
        tokio::select! {
            result = &mut work => return result,
            () = tokio::time::sleep_until(deadline) => {}
        }
        cx.cancel.cancel();
        // Dropped after this, a driver call is as if the daemon had died in it: the step's undoing
        // copes with both.
        let _ = tokio::time::timeout(GRACE, work).await;
        Err(Failure::new(ErrorCode::DeadlineExceeded, format!("`{name}` was not done in time")))
    }

    /// Decides between forward and back after `step` failed.
    async fn turn(mut self, step: usize, error: Failure) {
        self.cancel = CancellationToken::new();
        if let Some(live) = self.engine.live().get_mut(&self.operation.id) {
            live.cancel = self.cancel.clone();
        }
        match self.direction().await {
            Ok(Direction::Back) => self.back(step, error).await,
            Ok(Direction::Forward) => self.press_on(error).await,
            Err(why) => {
                tracing::error!(error = %why.0, "no direction");
                self.stick(error).await;
            }
        }
    }

    async fn direction(&mut self) -> Result<Direction> {
        let cx = self.cx();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.kind.direction(&cx).await {
                Ok(direction) => return Ok(direction),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Failure::internal("no attempt was made")))
    }

    /// Repeats all steps of an operation that cannot be undone.
    async fn press_on(mut self, mut error: Failure) {
        self.recovering = true;
        for attempt in 1..=ATTEMPTS {
            self.deadline = Instant::now() + self.timeout;
            match self.forward(0).await {
                Ok(()) => return self.close(),
                Err((step, again)) => {
                    let name = self.kind.steps().get(step).copied().unwrap_or_default();
                    tracing::warn!(attempt, step = name, error = %again.0, "trying again");
                    error = again;
                }
            }
        }
        self.stick(error).await;
    }

    /// Undoes everything up to `step`, last first.
    async fn back(mut self, step: usize, error: Failure) {
        self.operation.status = OperationStatus::Undoing;
        self.publish();
        let mut undone = Transaction::new();
        for (index, name) in self.kind.steps().iter().enumerate().take(step + 1).rev() {
            match self.undo(name).await {
                Ok(changes) => undone.merge(changes),
                Err(why) => {
                    tracing::error!(step = name, error = %why.0, "cannot be undone");
                    return self.stick(error).await;
                }
            };
            self.mark(index, StepStatus::Undone);
        }
        self.operation.status = match error.is_cancelled() {
            true => OperationStatus::Cancelled,
            false => OperationStatus::Failed,
        };
        self.end_with(error.0);
        // The intent is taken back first: a step's undoing may know better, such as which disk a
        // branch is on by now.
        let mut records = self.kind.revert();
        records.merge(undone).put(&self.operation);
        if self.write_last(&records).await {
            self.close();
        }
    }

    async fn undo(&mut self, name: &str) -> Result<Transaction> {
        let cx = self.cx();
        let patience = self.engine.config.undo_timeout;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match tokio::time::timeout(patience, self.kind.undo(name, &cx)).await {
                Ok(Ok(records)) => return Ok(records),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let message = format!("`{name}` could not be undone in time");
                    last = Some(Failure::new(ErrorCode::DeadlineExceeded, message));
                }
            }
        }
        Err(last.unwrap_or_else(|| Failure::internal("no attempt was made")))
    }

    /// Ends neither done nor undone.
    async fn stick(mut self, error: Failure) {
        let remedy = self.kind.remedy(&self.operation.id);
        let message = format!("{} is stuck: {}", self.operation.verb, error.0.message);
        // Without it nothing says that trying again is safe.
        self.operation.ground =
            Some(self.engine.ground_of(&*self.kind).await.unwrap_or(Value::Null));
        self.operation.status = OperationStatus::Stuck;
        self.operation.memo = self.kind.memo();
        self.end_with(ApiError::new(ErrorCode::Stuck, message).remedy(remedy));
        let mut records = Transaction::new();
        records.put(&self.operation);
        if self.write_last(&records).await {
            self.close();
        }
    }

    /// Writes the end of the operation, however long there is no room for it: what its recovery would
    /// touch is nobody else's before. Returns whether it is written; if not, the next daemon recovers it.
    async fn write_last(&self, records: &Transaction) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(error) = self.engine.write_surely(records).await else { return true };
            let operation = &self.operation.id;
            tracing::error!(%error, %operation, "its end could not be recorded");
            if !matches!(error, StoreError::Io { .. } | StoreError::DiskFull) {
                // No time makes it true, and nobody is to wait for ever.
                return true;
            }
            tokio::select! {
                () = self.engine.ending.cancelled() => return false,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Takes back an intent that may have been written although writing it failed.
    async fn unrecord(&self) {
        let found = self.engine.store.get::<Operation>(self.operation.id.as_str()).await;
        if matches!(found, Ok(None)) {
            return;
        }
        let mut records = self.kind.unrecord();
        records.delete::<Operation>(self.operation.key());
        self.write_last(&records).await;
    }

    fn succeed(&mut self) {
        self.operation.status = OperationStatus::Succeeded;
        self.operation.result = Some(self.kind.result(&self.operation.id));
        // Nothing will be repeated or undone any more, and a memo may hold secrets.
        self.operation.memo = Value::Null;
        self.operation.updated_at = Timestamp::now();
    }

    fn end_with(&mut self, error: ApiError) {
        let error = error.operation(self.operation.id.clone());
        self.operation.error = serde_json::to_value(error).ok();
        self.operation.cancel_requested |= self.operation.status == OperationStatus::Cancelled;
        self.operation.updated_at = Timestamp::now();
    }

    fn mark(&mut self, index: usize, status: StepStatus) {
        let now = Timestamp::now();
        self.operation.updated_at = now;
        if let Some(step) = self.operation.steps.get_mut(index) {
            step.status = status;
            match status {
                StepStatus::Started => step.started_at = Some(now),
                StepStatus::Done | StepStatus::Undone => step.ended_at = Some(now),
                StepStatus::Pending => {}
            }
        }
        self.publish();
    }

    fn publish(&self) {
        self.updates.send_modify(|view| {
            let progress = std::mem::take(&mut view.progress);
            *view = OperationView::from(&self.operation);
            view.progress = progress;
        });
    }

    /// Says that it was not recorded.
    fn forget(self, error: Failure, recorded: oneshot::Sender<Result<()>>) {
        self.engine.live().remove(&self.operation.id);
        drop(self._guard);
        // A caller that has gone away does not need the answer.
        let _ = recorded.send(Err(error));
    }

    /// Releases the locks, tells the watchers, and starts what follows.
    fn close(self) {
        let Self { engine, kind, operation, updates, _guard: guard, _busy: busy, .. } = self;
        // Before the watchers hear of it, so that their next call does not find it held.
        drop(guard);
        engine.live().remove(&operation.id);
        updates.send_replace(OperationView::from(&operation));
        kind.settled(&engine, operation.status);
        if operation.status != OperationStatus::Succeeded {
            // What made it fail may be that the world is not as recorded.
            engine.reconcile_soon();
        }
        // Last, so that whoever waits for idleness also waits for what follows.
        drop(busy);
    }
}

fn cancelled() -> Failure {
    Failure::new(ErrorCode::Cancelled, "it was cancelled; nothing changed")
}

impl Engine {
    /// Asks a running operation to end. Returns whether it runs.
    pub(crate) fn request_cancel(&self, id: &OperationId) -> bool {
        match self.live().get(id) {
            Some(live) => {
                live.cancel.cancel();
                live.updates.send_modify(|view| view.cancel_requested = true);
                true
            }
            None => false,
        }
    }

    /// Returns what the branches that an operation's undoing would write to are now: which incarnation, on
    /// which disks, after which commit. Whether they run is not part of it.
    pub(crate) async fn ground_of(&self, kind: &dyn Kind) -> Result<Value> {
        let mut ground = serde_json::Map::new();
        for (_, row) in kind.revert().puts.iter().filter(|(table, _)| *table == Table::Branches) {
            let now: Option<Branch> = self.store.get(&row.key).await?;
            let facts = now.map(|now| json!([now.host_id, now.generation, now.nodes, now.head]));
            ground.insert(row.key.clone(), facts.unwrap_or(Value::Null));
        }
        Ok(Value::Object(ground))
    }
}
