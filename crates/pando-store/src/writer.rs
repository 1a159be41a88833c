//! The one task that writes. It takes what waits (up to a limit), runs each transaction inside a
//! savepoint of one database transaction, commits once, and only then answers: group commit.
//!
//! SQLite may take a whole transaction back by itself, such as when the disk is full; nobody can
//! tell then how deep in transactions a connection is. So one that failed is given up, and the next
//! group gets a new one.

use std::sync::Arc;

use pando_driver::store::{AuditEntry, Guard, Row as Record, StoreError, Table, Transaction};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::cache::Cache;
use crate::sqlite::io;

/// Transactions that may wait before callers do.
const QUEUE: usize = 256;
/// Transactions in one group: bounds how long the first of them waits.
const GROUP: usize = 64;

/// `prev_hash` of the first audit row.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

struct Request {
    transaction: Transaction,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

pub(crate) struct Writer {
    requests: mpsc::Sender<Request>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Returns a writer on a connection; `options` make another one where that fails.
    pub(crate) fn spawn(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        cache: Arc<Cache>,
    ) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        Self { requests, task: tokio::spawn(run(connection, options, queue, cache)) }
    }

    pub(crate) async fn write(&self, transaction: Transaction) -> Result<(), StoreError> {
        let ended = |_| StoreError::Io {
            what: "write to the database",
            detail: "its writer has ended".to_owned(),
        };
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { transaction, answer }).await.map_err(|_| ended(()))?;
        answered.await.map_err(|_| ended(()))?
    }

    pub(crate) async fn close(self) {
        drop(self.requests);
        // The task only ends by its queue closing; a panic in it was reported by the runtime.
        let _ = self.task.await;
    }
}

async fn run(
    connection: SqliteConnection,
    options: SqliteConnectOptions,
    mut queue: mpsc::Receiver<Request>,
    cache: Arc<Cache>,
) {
    let mut connection = Some(connection);
    let mut group = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut group, GROUP).await > 0 {
        let transactions: Vec<&Transaction> =
            group.iter().map(|request| &request.transaction).collect();
        let results = match connected(&mut connection, &options).await {
            Ok(connection) => write_group(connection, &transactions).await,
            Err(error) => Err(error),
        };
        // Also after a failure: a commit that was not acknowledged may have reached the file.
        cache.forget(transactions);
        let results = results.unwrap_or_else(|error| {
            connection = None;
            vec![Err(error); group.len()]
        });
        for (request, result) in group.drain(..).zip(results) {
            // A caller that has gone away does not need the answer.
            let _ = request.answer.send(result);
        }
    }
    if let Some(connection) = connection
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

/// Returns the connection, made anew where there is none.
async fn connected<'a>(
    connection: &'a mut Option<SqliteConnection>,
    options: &SqliteConnectOptions,
) -> Result<&'a mut SqliteConnection, StoreError> {
    let ready = match connection.take() {
        Some(ready) => ready,
        None => options.connect().await.map_err(io("open the database"))?,
    };
    Ok(connection.insert(ready))
}

/// Writes the transactions in order. The outer error means that none was written.
async fn write_group(
    connection: &mut SqliteConnection,
    transactions: &[&Transaction],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let failed = io("write to the database");
    let mut outer = connection.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
    let mut results = Vec::with_capacity(transactions.len());
    for transaction in transactions {
        let mut inner = outer.begin().await.map_err(&failed)?;
        let result = apply(&mut inner, transaction).await;
        match result {
            Ok(()) => inner.commit().await.map_err(&failed)?,
            // Without a savepoint to go back to, all of the group was taken back.
            Err(ref error) if inner.rollback().await.is_err() => return Err(error.clone()),
            Err(_) => {}
        }
        results.push(result);
    }
    outer.commit().await.map_err(&failed)?;
    Ok(results)
}

async fn apply(
    connection: &mut SqliteConnection,
    transaction: &Transaction,
) -> Result<(), StoreError> {
    for guard in &transaction.guards {
        check(connection, guard).await?;
    }
    for (table, key) in &transaction.deletes {
        let sql = format!("DELETE FROM {} WHERE key = $1", table.as_str());
        sqlx::query(AssertSqlSafe(sql))
            .bind(key)
            .execute(&mut *connection)
            .await
            .map_err(io("delete a record"))?;
    }
    for (table, row) in &transaction.puts {
        put(connection, *table, row).await?;
    }
    if !transaction.audit.is_empty() {
        chain(connection, &transaction.audit).await?;
    }
    Ok(())
}

async fn check(connection: &mut SqliteConnection, guard: &Guard) -> Result<(), StoreError> {
    let (table, key) = match guard {
        Guard::Present(table, key) | Guard::Absent(table, key) | Guard::Status(table, key, _) => {
            (*table, key)
        }
    };
    let failed = io("check a record");
    let sql = format!("SELECT status FROM {} WHERE key = $1", table.as_str());
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(key)
        .fetch_optional(&mut *connection)
        .await
        .map_err(&failed)?;
    let status: Option<String> = row.map(|row| row.try_get(0)).transpose().map_err(&failed)?;
    let holds = match guard {
        Guard::Present(..) => status.is_some(),
        Guard::Absent(..) => status.is_none(),
        Guard::Status(_, _, wanted) => status.as_deref() == Some(*wanted),
    };
    if holds { Ok(()) } else { Err(StoreError::Guard { table, key: key.clone() }) }
}

async fn put(
    connection: &mut SqliteConnection,
    table: Table,
    row: &Record,
) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO {} (key, scope, name, status, created_us, body) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (key) DO UPDATE SET scope = excluded.scope, name = excluded.name, \
         status = excluded.status, created_us = excluded.created_us, body = excluded.body",
        table.as_str()
    );
    let written = sqlx::query(AssertSqlSafe(sql))
        .bind(&row.key)
        .bind(&row.scope)
        .bind(&row.name)
        .bind(row.status)
        .bind(row.created_us)
        .bind(&row.body)
        .execute(connection)
        .await;
    match written {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Err(StoreError::NameTaken { table, name: row.name.clone().unwrap_or_default() })
        }
        Err(error) => Err(io("write a record")(error)),
    }
}

/// Adds entries to the end of the audit chain.
async fn chain(
    connection: &mut SqliteConnection,
    entries: &[AuditEntry],
) -> Result<(), StoreError> {
    let failed = io("write the audit chain");
    let last = sqlx::query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
        .fetch_optional(&mut *connection)
        .await
        .map_err(&failed)?;
    let (mut seq, mut prev_hash): (i64, String) = match last {
        Some(row) => (row.try_get(0).map_err(&failed)?, row.try_get(1).map_err(&failed)?),
        None => (0, NO_HASH.to_owned()),
    };
    for entry in entries {
        let body = serde_json::to_string(entry).map_err(|error| StoreError::Io {
            what: "write the audit chain",
            detail: error.to_string(),
        })?;
        let hash = link(&prev_hash, &body);
        seq += 1;
        sqlx::query("INSERT INTO audit (seq, prev_hash, hash, body) VALUES ($1, $2, $3, $4)")
            .bind(seq)
            .bind(&prev_hash)
            .bind(&hash)
            .bind(&body)
            .execute(&mut *connection)
            .await
            .map_err(&failed)?;
        prev_hash = hash;
    }
    Ok(())
}

fn link(prev_hash: &str, body: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prev_hash.as_bytes());
    hasher.update(body.as_bytes());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use pando_driver::store::Event;

    use super::*;
    use crate::schema;

    fn event(id: &str, bytes: usize) -> Transaction {
        let event = Event {
            id: id.to_owned(),
            at: jiff::Timestamp::UNIX_EPOCH,
            cluster: None,
            branch: None,
            kind: "test".to_owned(),
            message: "m".repeat(bytes),
        };
        let mut transaction = Transaction::new();
        transaction.put(&event);
        transaction
    }

    /// A full disk is told as that, and does not outlive itself.
    #[tokio::test]
    async fn a_full_database_is_written_to_again_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("pando.db"))
            .create_if_missing(true)
            .pragma("max_page_count", "100");
        let mut connection = options.connect().await.unwrap();
        schema::migrate(&mut connection).await.unwrap();
        let writer = Writer::spawn(connection, options, Arc::default());
        for round in 0..3 {
            let small = format!("small-{round}");
            writer.write(event(&small, 10)).await.unwrap();
            let full = writer.write(event("large", 4 << 20)).await;
            assert_eq!(full, Err(StoreError::DiskFull));
        }
        writer.write(event("last", 10)).await.unwrap();
        writer.close().await;
    }
}
