//! SQLite's databases, read from their files as the format is documented
//! (<https://www.sqlite.org/fileformat2.html>), pages of the write-ahead log included. No lock is
//! taken, which could make a program of the guest fail: what changes while it is read is read again.

mod pages;
mod tree;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pando_model::capture::{Database, Table};

use self::pages::{MAGIC, Pages};
use self::tree::{Tree, Value};
use super::statement::parts;
use super::{Databases, add_part, too_many, unknown};
use crate::limits::{
    MAX_DATABASE_BYTES, MAX_DATABASE_CANDIDATES, MAX_DATABASES, MAX_DIGESTED_ROWS_BYTES, MAX_TABLES,
};

/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;

/// Why a database cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error("its file cannot be read")]
    Unreadable,
    #[error("its file is damaged ({0})")]
    Damaged(&'static str),
    #[error("it is in a form that is not known ({0})")]
    Foreign(&'static str),
    #[error("there is too much to read")]
    TooMuch,
    #[error("it was being written to")]
    Busy,
    #[error("a transaction was under way, or was broken off")]
    Unfinished,
}

/// Returns the databases among these files, by their paths.
pub fn databases(root: &Path, files: &[String]) -> Databases {
    let mut found = Databases::new();
    let mut left = MAX_DATABASE_BYTES;
    for path in files.iter().take(MAX_DATABASE_CANDIDATES) {
        let place = root.join(path.trim_start_matches('/'));
        if !is_database(&place) {
            continue;
        }
        if found.len() == MAX_DATABASES {
            let rest = Database { unknown: too_many(), ..Database::default() };
            found.insert("more SQLite databases".to_owned(), rest);
            break;
        }
        let mut database = read(&place, &mut left).unwrap_or_else(|trouble| Database {
            unknown: Some(trouble.to_string()),
            ..Database::default()
        });
        database.place.clone_from(path);
        found.insert(path.clone(), database);
    }
    found
}

fn open(path: &Path) -> Option<File> {
    let mut open = File::options();
    open.read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOFOLLOW);
    open.open(path).ok().filter(|file| file.metadata().is_ok_and(|facts| facts.is_file()))
}

fn is_database(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    open(path).is_some_and(|mut file| file.read_exact(&mut start).is_ok() && start == *MAGIC)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// What changes whenever a database is written to.
fn trace(path: &Path) -> Vec<Option<(u64, SystemTime)>> {
    let of = |path: &Path| {
        let facts = std::fs::symlink_metadata(path).ok()?;
        Some((facts.len(), facts.modified().ok()?))
    };
    vec![of(path), of(&beside(path, "-wal")), of(&beside(path, "-journal"))]
}

fn read(path: &Path, left: &mut u64) -> Result<Database, Trouble> {
    let mut trouble = Trouble::Busy;
    for _ in 0..TRIES {
        let before = trace(path);
        let read = attempt(path, left);
        if trace(path) == before {
            return read;
        }
        if let Err(Trouble::TooMuch) = read {
            trouble = Trouble::TooMuch;
        }
    }
    Err(trouble)
}

/// Returns whether a rollback journal holds pages of an unfinished transaction: it begins with a
/// magic number then, which is overwritten or gone afterwards.
fn is_hot(journal: &Path) -> bool {
    const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let mut start = [0; 8];
    open(journal)
        .is_some_and(|file| file.read_exact_at(&mut start, 0).is_ok() && start == JOURNAL_MAGIC)
}

fn attempt(path: &Path, left: &mut u64) -> Result<Database, Trouble> {
    if is_hot(&beside(path, "-journal")) {
        return Err(Trouble::Unfinished);
    }
    let file = open(path).ok_or(Trouble::Unreadable)?;
    let log = open(&beside(path, "-wal"));
    let mut pages = Pages::open(file, log, left)?;
    let mut database = Database::default();
    let mut reasons = Vec::new();
    let mut rows = Vec::new();
    let encoding = pages.encoding;
    // The schema is a table whose root is the first page.
    Tree::new(&mut pages).rows(1, &mut |_, record| {
        rows.extend(Schema::of(&record.values(encoding)?));
        Ok(())
    })?;
    for entry in rows.iter().filter(|entry| entry.is_table()) {
        if database.tables.len() == MAX_TABLES {
            reasons.push(format!("only {MAX_TABLES} tables are told"));
            break;
        }
        let table = table(entry, &mut pages, &mut reasons)?;
        database.tables.insert(entry.name.clone(), table);
    }
    for entry in rows.iter().filter(|entry| !entry.is_table()) {
        if let Some(table) = database.tables.get_mut(&entry.table) {
            add_part(table, &format!("{} {}", entry.kind, entry.name), &entry.statement);
        }
    }
    database.unknown = unknown(&reasons);
    Ok(database)
}

fn table(
    entry: &Schema,
    pages: &mut Pages<'_>,
    reasons: &mut Vec<String>,
) -> Result<Table, Trouble> {
    let mut table = Table { kind: entry.kind.clone(), ..Table::default() };
    let is_virtual = entry.root == 0;
    if entry.kind == "view" || is_virtual {
        add_part(&mut table, "definition", &entry.statement);
        return Ok(table);
    }
    for (name, definition) in parts(&entry.statement) {
        add_part(&mut table, &name, &definition);
    }
    let mut tree = Tree::new(pages);
    match tree.contents(entry.root, MAX_DIGESTED_ROWS_BYTES) {
        Ok(contents) => {
            table.rows = Some(contents.rows);
            table.digest = contents.digest;
            if table.digest.is_none() {
                reasons.push(format!("the rows of {} are only counted", entry.name));
            }
        }
        Err(Trouble::TooMuch) => reasons.push(format!("the rows of {} are too many", entry.name)),
        Err(trouble) => return Err(trouble),
    }
    Ok(table)
}

/// A row of the schema.
#[derive(Debug)]
struct Schema {
    kind: String,
    name: String,
    table: String,
    root: u32,
    statement: String,
}

impl Schema {
    fn of(values: &[Value]) -> Option<Self> {
        let [Value::Text(kind), Value::Text(name), Value::Text(table), root, statement, ..] =
            values
        else {
            return None;
        };
        let root = match root {
            Value::Integer(root) => u32::try_from(*root).ok()?,
            _ => 0,
        };
        let statement = match statement {
            Value::Text(text) => text.clone(),
            // An index that a constraint of its table makes.
            _ => return None,
        };
        // SQLite's own, which follow from the others.
        if name.starts_with("sqlite_") {
            return None;
        }
        let (kind, name, table) = (kind.clone(), name.clone(), table.clone());
        Some(Self { kind, name, table, root, statement })
    }

    fn is_table(&self) -> bool {
        matches!(self.kind.as_str(), "table" | "view")
    }
}

#[cfg(test)]
mod tests;
