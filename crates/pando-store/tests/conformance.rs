//! The store's contract on SQLite, and what is SQLite's own: files, reopening, versions.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use pando_driver::store::{AuditEntry, Decision, Event, Query, Store, StoreError, Transaction};
use pando_store::SqliteStore;
use sqlx::{ConnectOptions, Connection};

#[tokio::test]
async fn sqlite_keeps_the_contract_of_a_store() {
    let dirs = Mutex::new(Vec::new());
    pando_driver::conformance::store(async || {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("pando.db")).await.unwrap();
        dirs.lock().unwrap().push(dir);
        Arc::new(store) as Arc<dyn Store>
    })
    .await;
}

fn event(id: &str) -> Event {
    Event {
        id: id.into(),
        at: jiff::Timestamp::UNIX_EPOCH,
        cluster: None,
        branch: None,
        kind: "keeper_lost".into(),
        message: "…".into(),
    }
}

#[tokio::test]
async fn records_survive_reopening_and_the_file_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pando.db");
    for id in ["one", "two"] {
        let store = SqliteStore::open(&path).await.unwrap();
        (&store as &dyn Store).write(Transaction::new().put(&event(id))).await.unwrap();
        store.close().await;
    }
    let store = SqliteStore::open(&path).await.unwrap();
    let events = (&store as &dyn Store).list::<Event>(&Query::all()).await.unwrap();
    assert_eq!(events, [event("one"), event("two")]);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
}

#[tokio::test]
async fn a_database_of_a_newer_pando_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pando.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let mut connection =
        sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query("INSERT INTO schema_versions (version) VALUES (99)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let refused = SqliteStore::open(&path).await.err();
    assert!(matches!(refused, Some(StoreError::SchemaTooNew { found: 99, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pando.db");
    std::fs::write(&path, [7u8; 8192]).unwrap();
    assert!(matches!(SqliteStore::open(&path).await, Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn hashes_of_the_audit_chain_cover_the_entry() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("pando.db")).await.unwrap();
    let entry = AuditEntry {
        at: jiff::Timestamp::UNIX_EPOCH,
        request: "rq_1".into(),
        principal: "local".into(),
        role: "owner".into(),
        session: None,
        verb: "vm_list".into(),
        params: serde_json::Value::Null,
        decision: Decision::Refused,
        error: Some("forbidden".into()),
        operation: None,
        duration_us: 1,
    };
    let transaction = Transaction { audit: vec![entry.clone()], ..Transaction::new() };
    store.write(&transaction).await.unwrap();
    let row = store.audit(0, 1).await.unwrap().remove(0);
    let mut hasher = blake3::Hasher::new();
    hasher.update("0".repeat(64).as_bytes());
    hasher.update(serde_json::to_string(&entry).unwrap().as_bytes());
    assert_eq!(row.hash, hasher.finalize().to_hex().to_string());
}
