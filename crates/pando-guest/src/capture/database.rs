//! Databases: their tables, the definitions and the rows of these, told without anything installed
//! for it. SQLite's files are read as their format says, those of PostgreSQL are its server's alone,
//! which is asked over its socket. Both are read only, bounded, and what could not be read is said.

mod postgres;
mod sqlite;
mod statement;

use std::collections::BTreeMap;

use pando_model::capture::{Aspect, CaptureRecord, Coverage, Database, Table};
use sha2::{Digest, Sha256};

use super::{Teller, Told, hex, short};
use crate::config::Config;
use crate::limits::{MAX_DATABASES, MAX_DEFINITION_BYTES, MAX_TABLE_PARTS};

/// Databases by name.
type Databases = BTreeMap<String, Database>;

/// Tells the databases among these files, and those of servers.
pub fn databases(config: &Config, files: &[String], teller: &mut Teller<'_>) -> Told {
    let mut found = sqlite::databases(&config.root, files);
    found.append(&mut postgres::databases(config));
    let unknown: Vec<String> = found
        .iter()
        .filter_map(|(name, database)| Some(format!("{name}: {}", database.unknown.as_ref()?)))
        .collect();
    for (name, database) in found {
        let (name, place) = (short(&name), database.place);
        let told = CaptureRecord::Database(name.clone(), place, database.unknown);
        teller.tell(&told)?;
        for (table, state) in database.tables {
            tell_table(&name, &short(&table), state, teller)?;
        }
    }
    let coverage = match unknown.as_slice() {
        [] => Coverage::Complete,
        some => Coverage::Partial(short(&some.join("; "))),
    };
    teller.covered(Aspect::Database, coverage)
}

fn tell_table(database: &str, name: &str, mut table: Table, teller: &mut Teller<'_>) -> Told {
    let record =
        |table: &Table| CaptureRecord::Table(database.to_owned(), name.to_owned(), table.clone());
    if !teller.tell(&record(&table))? {
        // Too much for a record: that it changed is still told.
        let whole = table.parts.iter().map(|(name, text)| format!("{name} {text}\n"));
        let whole = hex(&Sha256::digest(whole.collect::<String>()));
        table.parts = BTreeMap::from([("definition".to_owned(), whole)]);
        teller.tell(&record(&table))?;
    }
    Ok(())
}

/// Adds a part to a table's definition, within bounds.
fn add_part(table: &mut Table, name: &str, definition: &str) {
    let definition = definition.split_whitespace().collect::<Vec<_>>().join(" ");
    if table.parts.len() < MAX_TABLE_PARTS {
        table.parts.insert(short(name), bounded(definition));
    } else {
        // All that are too many are one, which differs when any of them does.
        let rest = table.parts.entry("everything else".to_owned()).or_default();
        *rest = hex(&Sha256::digest(format!("{rest}{name} {definition}\n")));
    }
}

/// Returns a definition, or of a long one its beginning and a digest of it all.
fn bounded(text: String) -> String {
    if text.len() <= MAX_DEFINITION_BYTES {
        return text;
    }
    let digest = hex(&Sha256::digest(&text));
    let start = text.get(..text.floor_char_boundary(MAX_DEFINITION_BYTES)).unwrap_or_default();
    format!("{start}… ({})", digest.get(..16).unwrap_or_default())
}

/// Returns what could not be told of a database, in words.
fn unknown(reasons: &[String]) -> Option<String> {
    match reasons.len() {
        0 => None,
        1..=3 => Some(reasons.join(", ")),
        more => Some(format!(
            "{}, and {} more",
            reasons.get(..3).unwrap_or_default().join(", "),
            more - 3
        )),
    }
}

/// Returns what is said of databases beyond the first so many.
fn too_many() -> Option<String> {
    Some(format!("only {MAX_DATABASES} databases of a kind are told"))
}
