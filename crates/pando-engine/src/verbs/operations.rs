//! `operation_*`.

use std::time::Duration;

use pando_api::limits::MAX_PAGE;
use pando_api::operation::{OperationListParams, OperationListResult};
use pando_api::page::Page;
use pando_api::{ApiError, OperationView};
use pando_driver::store::{Cursor, Order, Query, Table, Transaction};
use pando_model::operation::OperationStatus;
use pando_model::{ErrorCode, Operation, OperationId};

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::ops;

fn status_text(status: OperationStatus) -> &'static str {
    match status {
        OperationStatus::Queued => "queued",
        OperationStatus::Running => "running",
        OperationStatus::Undoing => "undoing",
        OperationStatus::Succeeded => "succeeded",
        OperationStatus::Failed => "failed",
        OperationStatus::Cancelled => "cancelled",
        OperationStatus::Stuck => "stuck",
    }
}

impl Engine {
    pub(super) async fn operation_list(
        &self,
        params: OperationListParams,
    ) -> Result<OperationListResult> {
        let cursor = match &params.cursor {
            None => None,
            Some(text) => Some(cursor_of(text)?),
        };
        let statuses: Vec<&str> = params.status.map(status_text).into_iter().collect();
        let query = Query { statuses, order: Order::NewestFirst, ..Query::all() };
        let total = match &params.verb {
            None => self.store.count(Table::Operations, &query).await?,
            Some(verb) => self.count_of_verb(&query, verb).await?,
        };
        let limit = params.limit as usize;
        // One more than is shown tells whether there are more.
        let mut query =
            Query { after: cursor, limit: Some(params.limit.saturating_add(1)), ..query };
        let mut operations: Vec<OperationView> = Vec::new();
        let mut more = true;
        // The verb is no column: pages are read until enough of that verb are found.
        while more && operations.len() <= limit {
            let rows: Vec<Operation> = self.store.list(&query).await?;
            more = rows.len() > limit;
            query.after = rows.last().map(cursor_at);
            let wanted = |row: &&Operation| params.verb.as_ref().is_none_or(|v| row.verb == *v);
            operations.extend(rows.iter().filter(wanted).map(|row| self.present(row)));
        }
        let truncated = operations.len() > limit;
        operations.truncate(limit);
        let last = operations.last().filter(|_| truncated);
        let next_cursor =
            last.map(|view| format!("{}:{}", view.created_at.as_microsecond(), view.operation_id));
        let returned = operations.len() as u64;
        Ok(OperationListResult {
            operations,
            page: Page { total, returned, truncated, next_cursor },
        })
    }

    /// Returns how many operations of a verb there are.
    async fn count_of_verb(&self, query: &Query, verb: &str) -> Result<u64> {
        let mut query = Query { limit: Some(MAX_PAGE), ..query.clone() };
        let mut count = 0;
        loop {
            let rows: Vec<Operation> = self.store.list(&query).await?;
            count += rows.iter().filter(|row| row.verb == verb).count() as u64;
            if rows.len() < MAX_PAGE as usize {
                return Ok(count);
            }
            query.after = rows.last().map(cursor_at);
        }
    }

    /// Returns an operation as it is now, which is ahead of its record while it runs.
    fn present(&self, operation: &Operation) -> OperationView {
        match self.live().get(&operation.id) {
            Some(live) => live.updates.borrow().clone(),
            None => OperationView::from(operation),
        }
    }

    pub(super) async fn operation_get(&self, id: &OperationId) -> Result<OperationView> {
        Ok(self.watch(id).await?.borrow().clone())
    }

    pub(super) async fn operation_wait(
        &self,
        id: &OperationId,
        patience: Duration,
    ) -> Result<OperationView> {
        let mut updates = self.watch(id).await?;
        let ended = updates.wait_for(|view| view.status.is_final());
        // Time being up is an answer, not an error.
        let _ = tokio::time::timeout(patience, ended).await;
        Ok(updates.borrow().clone())
    }

    /// Asks an operation to end; one that is stuck is tried again.
    pub(super) async fn operation_cancel(&self, id: &OperationId) -> Result<OperationView> {
        if self.request_cancel(id) {
            return self.operation_get(id).await;
        }
        let found: Option<Operation> = self.store.get(id.as_str()).await?;
        let operation = found.ok_or_else(|| Failure::not_found("operation", id.as_str()))?;
        if operation.status != OperationStatus::Stuck {
            return Ok(OperationView::from(&operation));
        }
        let kind = ops::revive(&operation.verb, &operation.memo)
            .map_err(|error| Failure::internal(format!("its memo cannot be read: {error}")))?;
        let kind = kind.ok_or_else(|| {
            Failure::new(ErrorCode::Unsupported, format!("{} cannot be repaired", operation.verb))
        })?;
        let what = format!("{} {id} (repairing)", operation.verb);
        let guard = self.locks.acquire(kind.locks(), &what, self.config.lock_wait).await?;
        // Somebody else may have cancelled it meanwhile.
        let found: Option<Operation> = self.store.get(id.as_str()).await?;
        let operation = match found {
            Some(now) if now.status == OperationStatus::Stuck => now,
            _ => return self.operation_get(id).await,
        };
        let ground = self.ground_of(&*kind).await?;
        if operation.ground.as_ref().is_some_and(|then| *then != ground) {
            return self.overtaken(operation).await;
        }
        // Unfinished again, also for the next daemon if this one ends now.
        let status = OperationStatus::Running;
        let operation = Operation { status, ground: None, error: None, ..operation };
        self.write_surely(Transaction::new().put(&operation)).await?;
        let mut updates = self.resume_operation(operation, kind, guard);
        // Time being up is an answer, not an error.
        let ended = updates.wait_for(|view| view.status.is_final());
        let _ = tokio::time::timeout(self.config.undo_timeout, ended).await;
        Ok(updates.borrow().clone())
    }

    /// Ends an operation that was stuck while others went on: what it would do now is theirs to lose.
    async fn overtaken(&self, operation: Operation) -> Result<OperationView> {
        let message = format!(
            "{} is not tried again: what it was about has changed since, and stays as it is",
            operation.verb
        );
        let error = ApiError::new(ErrorCode::WrongState, message)
            .hint("`pando gc` removes what it left behind")
            .operation(operation.id.clone());
        let operation = Operation {
            status: OperationStatus::Failed,
            error: serde_json::to_value(error).ok(),
            memo: serde_json::Value::Null,
            ground: None,
            updated_at: jiff::Timestamp::now(),
            ..operation
        };
        self.write_surely(Transaction::new().put(&operation)).await?;
        Ok(OperationView::from(&operation))
    }
}

/// Returns where a list goes on after an operation.
fn cursor_at(operation: &Operation) -> Cursor {
    Cursor { created_us: operation.created_at.as_microsecond(), key: operation.id.to_string() }
}

fn cursor_of(text: &str) -> Result<Cursor> {
    let parsed = text.split_once(':').and_then(|(time, id)| {
        Some(Cursor {
            created_us: time.parse().ok()?,
            key: id.parse::<OperationId>().ok()?.to_string(),
        })
    });
    parsed.ok_or_else(|| ApiError::parameter("cursor", "the cursor is not of this list").into())
}
