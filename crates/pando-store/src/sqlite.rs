//! The store: opening it, and reading from it.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pando_driver::store::{AuditRow, Order, Query, Store, StoreError, Table, Transaction};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Row};

use crate::cache::{Answer, Cache, Question};
use crate::schema;
use crate::writer::Writer;

/// Readers at a time: more than the cores of a laptop gain nothing.
const READERS: u32 = 4;
/// How long a statement waits for another process's lock. Only `sqlite3` at a prompt competes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the function that turns a database error into ours.
pub(crate) fn io(what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| {
        // SQLITE_FULL is primary code 13; SQLITE_IOERR_SHMSIZE, 4874, is the index of the write-ahead
        // log that cannot grow.
        let full = error.as_database_error().and_then(|error| error.code());
        if full.is_some_and(|code| code == "13" || code == "4874") {
            return StoreError::DiskFull;
        }
        StoreError::Io { what, detail: error.to_string() }
    }
}

/// Records in one SQLite file.
pub struct SqliteStore {
    readers: SqlitePool,
    writer: Writer,
    cache: Arc<Cache>,
}

impl SqliteStore {
    /// Opens the database, makes it if there is none, and brings its schema up to date. The file
    /// is readable by its owner only.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooNew`] when a newer pando wrote it.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| io("open the database")(sqlx::Error::Io(error)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let failed = io("open the database");
        let mut connection = options.connect().await.map_err(&failed)?;
        schema::migrate(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.clone())
            .await
            .map_err(&failed)?;
        let cache = Arc::new(Cache::default());
        let writer = Writer::spawn(connection, options, Arc::clone(&cache));
        Ok(Self { readers, writer, cache })
    }

    /// Ends the writer and closes the files; what was acknowledged is on disk already.
    pub async fn close(self) {
        self.writer.close().await;
        self.readers.close().await;
    }
}

/// Returns the conditions of a query as SQL, and their values in the same order.
fn conditions(query: &Query, with_cursor: bool) -> (String, SqliteArguments) {
    let mut terms: Vec<String> = Vec::new();
    let mut arguments = SqliteArguments::default();
    let mut next = 1;
    let mut bind = |value: &str| {
        // Text of any content is a valid argument, so this cannot fail.
        let _ = arguments.add(value.to_owned());
        next += 1;
        format!("${}", next - 1)
    };
    if let Some(scope) = &query.scope {
        terms.push(format!("scope = {}", bind(scope)));
    }
    if let Some(name) = &query.name {
        terms.push(format!("name = {}", bind(name)));
    }
    if let Some(prefix) = &query.name_prefix {
        let place = bind(prefix);
        terms.push(format!("SUBSTR(name, 1, LENGTH({place})) = {place}"));
    }
    if !query.statuses.is_empty() {
        let places: Vec<String> = query.statuses.iter().map(|status| bind(status)).collect();
        terms.push(format!("status IN ({})", places.join(", ")));
    }
    if let (true, Some(after)) = (with_cursor, &query.after) {
        let compare = match query.order {
            Order::OldestFirst => '>',
            Order::NewestFirst => '<',
        };
        let key = bind(&after.key);
        // A number of our own, not text of a caller's.
        let time = after.created_us;
        terms.push(format!(
            "(created_us {compare} {time} OR (created_us = {time} AND key {compare} {key}))"
        ));
    }
    let text =
        if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) };
    (text, arguments)
}

impl SqliteStore {
    /// Answers from what was read before, or reads.
    async fn ask(&self, table: Table, question: Question) -> Result<Answer, StoreError> {
        let version = match self.cache.find(table, &question) {
            Ok(answer) => return Ok(answer),
            Err(version) => version,
        };
        let answer = match &question {
            Question::Row(key) => self.read_row(table, key).await,
            Question::Rows(query) => self.read_rows(table, query).await,
            Question::Count(query) => self.read_count(table, query).await,
        }?;
        self.cache.keep(table, version, question, &answer);
        Ok(answer)
    }

    async fn read_row(&self, table: Table, key: &str) -> Result<Answer, StoreError> {
        let sql = format!("SELECT body FROM {} WHERE key = $1", table.as_str());
        let query = sqlx::query(AssertSqlSafe(sql)).bind(key);
        let rows = query.fetch_all(&self.readers).await.map_err(io("read a record"))?;
        bodies(&rows)
    }

    async fn read_rows(&self, table: Table, query: &Query) -> Result<Answer, StoreError> {
        let (conditions, arguments) = conditions(query, true);
        let order = match query.order {
            Order::OldestFirst => "created_us, key",
            Order::NewestFirst => "created_us DESC, key DESC",
        };
        let limit = query.limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let sql =
            format!("SELECT body FROM {}{conditions} ORDER BY {order}{limit}", table.as_str());
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        let rows = query.fetch_all(&self.readers).await.map_err(io("list records"))?;
        bodies(&rows)
    }

    async fn read_count(&self, table: Table, query: &Query) -> Result<Answer, StoreError> {
        let failed = io("count records");
        let (conditions, arguments) = conditions(query, false);
        let sql = format!("SELECT COUNT(*) FROM {}{conditions}", table.as_str());
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        let row = query.fetch_one(&self.readers).await.map_err(&failed)?;
        let count: i64 = row.try_get(0).map_err(&failed)?;
        Ok(Answer { bodies: Vec::new(), count: u64::try_from(count).unwrap_or(0) })
    }
}

fn bodies(rows: &[SqliteRow]) -> Result<Answer, StoreError> {
    let bodies = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<_>, _>>();
    let bodies = bodies.map_err(io("read a record"))?;
    Ok(Answer { count: bodies.len() as u64, bodies })
}

#[async_trait]
impl Store for SqliteStore {
    async fn write(&self, transaction: &Transaction) -> Result<(), StoreError> {
        self.writer.write(transaction.clone()).await
    }

    async fn row(&self, table: Table, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.ask(table, Question::Row(key.to_owned())).await?.bodies.pop())
    }

    async fn rows(&self, table: Table, query: &Query) -> Result<Vec<String>, StoreError> {
        Ok(self.ask(table, Question::Rows(query.clone())).await?.bodies)
    }

    async fn count(&self, table: Table, query: &Query) -> Result<u64, StoreError> {
        Ok(self.ask(table, Question::Count(query.clone())).await?.count)
    }

    async fn audit(&self, after_seq: u64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let failed = io("read the audit chain");
        let rows = sqlx::query(
            "SELECT seq, prev_hash, hash, body FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2",
        )
        .bind(i64::try_from(after_seq).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(&failed)?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let seq: i64 = row.try_get(0).map_err(&failed)?;
            let body: String = row.try_get(3).map_err(&failed)?;
            let entry = serde_json::from_str(&body).map_err(|error| StoreError::Io {
                what: "read the audit chain",
                detail: format!("row {seq}: {error}"),
            })?;
            entries.push(AuditRow {
                seq: u64::try_from(seq).unwrap_or(0),
                prev_hash: row.try_get(1).map_err(&failed)?,
                hash: row.try_get(2).map_err(&failed)?,
                entry,
            });
        }
        Ok(entries)
    }
}
