//! The schema, as numbered steps that are applied in order and never changed. Portable SQL: what
//! SQLite and PostgreSQL both accept.

use pando_driver::store::{StoreError, Table};
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use crate::sqlite::io;

/// The newest schema that this program knows: the number of migrations.
pub(crate) const VERSION: i64 = 1;

/// Returns the statements of migration `version`.
fn migration(version: i64) -> Vec<String> {
    match version {
        1 => first(),
        _ => Vec::new(),
    }
}

fn first() -> Vec<String> {
    let mut statements = vec![
        "CREATE TABLE audit (seq BIGINT PRIMARY KEY, prev_hash TEXT NOT NULL, hash TEXT NOT NULL, \
         body TEXT NOT NULL)"
            .to_owned(),
    ];
    for table in Table::ALL.iter().map(|table| table.as_str()) {
        statements.push(format!(
            "CREATE TABLE {table} (key TEXT PRIMARY KEY, scope TEXT NOT NULL, name TEXT, \
             status TEXT NOT NULL, created_us BIGINT NOT NULL, body TEXT NOT NULL, \
             UNIQUE (scope, name))"
        ));
        statements.push(format!("CREATE INDEX {table}_by_time ON {table} (created_us, key)"));
    }
    statements
}

/// Brings a database to [`VERSION`]. Each step is one transaction with its version number.
pub(crate) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found = version(connection).await?;
    if found > VERSION {
        return Err(StoreError::SchemaTooNew { found, known: VERSION });
    }
    for next in found + 1..=VERSION {
        let failed = io("prepare the database");
        let mut step = connection.begin().await.map_err(&failed)?;
        for statement in migration(next) {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *step).await.map_err(&failed)?;
        }
        sqlx::query("INSERT INTO schema_versions (version) VALUES ($1)")
            .bind(next)
            .execute(&mut *step)
            .await
            .map_err(&failed)?;
        step.commit().await.map_err(&failed)?;
    }
    Ok(())
}

async fn version(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let failed = io("read the database's version");
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY)")
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM schema_versions")
        .fetch_one(&mut *connection)
        .await
        .map_err(&failed)?;
    row.try_get(0).map_err(&failed)
}
