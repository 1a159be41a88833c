//! Databases that SQLite itself wrote, read as it says, and whatever else there may be in a file.

use std::fs;

use proptest::prelude::*;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::*;

/// Opens a database of SQLite's own.
async fn connect(path: &Path, journal: SqliteJournalMode) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.journal_mode(journal).page_size(1024).connect().await.unwrap()
}

async fn run(connection: &mut SqliteConnection, statements: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(connection).await.unwrap();
}

fn told(root: &Path, path: &str) -> Database {
    let found = databases(root, &[path.to_owned()]);
    found.get(path).unwrap().clone()
}

const SHOP: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, photo BLOB);
    CREATE UNIQUE INDEX users_name ON users (name);
    CREATE VIEW names AS SELECT name FROM users;
    CREATE TABLE pairs (a TEXT, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO users SELECT i, 'user ' || i, zeroblob(i % 7 * 400) FROM n;
    INSERT INTO pairs SELECT name, hex(randomblob(300)) FROM users WHERE id <= 500;";

#[tokio::test]
async fn schema_and_rows_are_as_sqlite_has_them() {
    for journal in [SqliteJournalMode::Delete, SqliteJournalMode::Wal] {
        let root = tempfile::tempdir().unwrap();
        let mut shop = connect(&root.path().join("shop.db"), journal).await;
        run(&mut shop, SHOP).await;
        let before = told(root.path(), "/shop.db");
        assert_eq!((before.unknown.as_deref(), before.place.as_str()), (None, "/shop.db"));
        let names: Vec<&str> = before.tables.keys().map(String::as_str).collect();
        assert_eq!(names, ["names", "pairs", "users"]);
        let users = &before.tables["users"];
        assert_eq!((users.rows, before.tables["pairs"].rows), (Some(3000), Some(500)));
        assert_eq!(users.parts["column name"], "TEXT NOT NULL");
        assert_eq!(
            users.parts["index users_name"],
            "CREATE UNIQUE INDEX users_name ON users (name)"
        );
        // What is not committed is not there, and what changed is in the table that it is in.
        run(&mut shop, "BEGIN; UPDATE users SET name = 'x' WHERE id = 1234;").await;
        assert_eq!(told(root.path(), "/shop.db"), before, "{journal:?}");
        run(&mut shop, "COMMIT; ALTER TABLE pairs ADD COLUMN c INT").await;
        let after = told(root.path(), "/shop.db");
        assert_eq!(after.tables["users"].rows, Some(3000));
        assert_ne!(after.tables["users"].digest, before.tables["users"].digest);
        assert_eq!(after.tables["pairs"].digest, before.tables["pairs"].digest);
        assert_eq!(after.tables["pairs"].parts["column c"], "INT");
        // Rewriting the file changes nothing that is in it.
        run(&mut shop, "VACUUM").await;
        assert_eq!(told(root.path(), "/shop.db"), after);
        shop.close().await.unwrap();
        assert_eq!(told(root.path(), "/shop.db"), after);
    }
}

#[tokio::test]
async fn texts_of_another_encoding_are_read() {
    let root = tempfile::tempdir().unwrap();
    let mut shop = connect(&root.path().join("shop.db"), SqliteJournalMode::Delete).await;
    run(&mut shop, "PRAGMA encoding = 'UTF-16le'; CREATE TABLE größe (maß INT)").await;
    assert_eq!(told(root.path(), "/shop.db").tables["größe"].parts["column maß"], "INT");
}

#[tokio::test]
async fn what_is_too_much_is_counted_and_what_is_unfinished_is_said() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("shop.db");
    let mut shop = connect(&path, SqliteJournalMode::Delete).await;
    run(
        &mut shop,
        "CREATE TABLE big (b BLOB); CREATE TABLE small (n INT); INSERT INTO small VALUES (1);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
            INSERT INTO big SELECT randomblob(100000) FROM n;",
    )
    .await;
    let found = told(root.path(), "/shop.db");
    assert_eq!((found.tables["big"].rows, &found.tables["big"].digest), (Some(60), &None));
    assert!(found.tables["small"].digest.is_some());
    assert_eq!(found.unknown.as_deref(), Some("the rows of big are only counted"));
    let mut little = 20_000;
    let short = read(&path, &mut little).unwrap();
    assert!(short.unknown.unwrap().contains("too many"));
    fs::write(beside(&path, "-journal"), [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]).unwrap();
    let unfinished = told(root.path(), "/shop.db");
    assert_eq!(unfinished.unknown, Some(Trouble::Unfinished.to_string()));
}

fn small() -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("small.db");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut small = connect(&path, SqliteJournalMode::Delete).await;
            run(
                &mut small,
                "CREATE TABLE a (b, c); CREATE TABLE d (e PRIMARY KEY) WITHOUT ROWID;
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
                    INSERT INTO a SELECT i, zeroblob(i * 50) FROM n;
                 INSERT INTO d SELECT b FROM a;",
            )
            .await;
        });
        fs::read(path).unwrap()
    })
}

proptest! {
    #[test]
    fn any_file_is_a_database_or_trouble(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        header in proptest::collection::vec((0usize..200, any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
        log in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut bytes = small().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for (at, byte) in header {
            bytes[at] = byte;
        }
        bytes.truncate(length.index(bytes.len() * 3).max(100));
        fs::write(root.path().join("a"), &bytes).unwrap();
        fs::write(root.path().join("a-wal"), &log).unwrap();
        let mut left = 4 << 20;
        let _ = read(&root.path().join("a"), &mut left);
    }
}
