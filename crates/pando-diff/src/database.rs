//! Databases: which there are, their tables, what these are made of, and their rows.

use std::collections::BTreeMap;

use pando_model::capture::{Aspect, Capture, Database, Table};
use pando_model::change::Severity;

use crate::compare::{Comparison, Material, Time, When, when};
use crate::system::{Pair, pairs, times};

/// Compares the databases.
pub(crate) fn databases(material: &Material<'_>, out: &mut Comparison) {
    let base = material.base.map(|base| &base.databases);
    let (from, to) = (&material.from.databases, &material.to.databases);
    // What both have is compared table by table.
    let both_or_neither = |_: &Database, _: &Database| true;
    for pair in pairs(base, from, to, both_or_neither) {
        let mut subject = pair.subject(Aspect::Database, pair.name.to_owned(), |database| {
            let rows = database.tables.values().filter_map(|table| table.rows).sum::<u64>();
            format!("{}, {}", counted(database.tables.len() as u64, "table"), counted(rows, "row"))
        });
        subject.names = names(pair.name, "");
        let severity = if pair.to.is_none() { Severity::High } else { Severity::Medium };
        out.add(subject, severity, changed(material, &pair, pair.name));
    }
    for (name, before) in from {
        if let Some(after) = to.get(name) {
            let base = base.and_then(|base| base.get(name)).map(|base| &base.tables);
            let shared = Shared { material, name };
            shared.tables(base, &before.tables, &after.tables, out);
        }
    }
}

/// Returns the directory or file whose contents the tables of both sides tell of, if a path is one
/// of those.
pub(crate) fn holds(material: &Material<'_>, path: &str) -> bool {
    let of = |capture: &Capture| {
        capture.databases.values().any(|database| {
            let rest = path.strip_prefix(database.place.as_str());
            !database.place.is_empty()
                && rest.is_some_and(|rest| {
                    rest.starts_with('/') || ["", "-wal", "-shm", "-journal"].contains(&rest)
                })
        })
    };
    of(material.from) && of(material.to)
}

/// A database that is on both sides.
struct Shared<'a, 'b> {
    material: &'b Material<'a>,
    name: &'b str,
}

impl Shared<'_, '_> {
    fn tables(
        &self,
        base: Option<&BTreeMap<String, Table>>,
        from: &BTreeMap<String, Table>,
        to: &BTreeMap<String, Table>,
        out: &mut Comparison,
    ) {
        for pair in pairs(base, from, to, |_, _| true) {
            let name = format!("{} {}", self.name, pair.name);
            let mut subject = pair.subject(Aspect::Database, name, |table| {
                let columns = table.parts.keys().filter(|part| part.starts_with("column ")).count();
                let rows = table.rows.map(|rows| format!(", {}", counted(rows, "row")));
                let columns = counted(columns as u64, "column");
                format!("{}, {columns}{}", table.kind, rows.unwrap_or_default())
            });
            subject.names = names(self.name, pair.name);
            let severity = if pair.to.is_none() { Severity::High } else { Severity::Medium };
            out.add(subject, severity, changed(self.material, &pair, self.name));
        }
        for (table, before) in from {
            if let Some(after) = to.get(table) {
                let base = base.and_then(|base| base.get(table));
                self.parts(table, base, before, after, out);
                self.rows(table, base, before, after, out);
            }
        }
    }

    fn parts(
        &self,
        table: &str,
        base: Option<&Table>,
        from: &Table,
        to: &Table,
        out: &mut Comparison,
    ) {
        let base = base.map(|base| &base.parts);
        for pair in pairs(base, &from.parts, &to.parts, |a, b| a == b) {
            let name = format!("{} {table} {}", self.name, pair.name);
            let mut subject = pair.subject(Aspect::Database, name, Clone::clone);
            let own = pair.name.split_once(' ').map_or(pair.name, |(_, own)| own);
            subject.names = [vec![own.to_owned()], names(self.name, table)].concat();
            out.add(subject, Severity::Medium, changed(self.material, &pair, self.name));
        }
    }

    fn rows(
        &self,
        table: &str,
        base: Option<&Table>,
        from: &Table,
        to: &Table,
        out: &mut Comparison,
    ) {
        let told = |table: &Table| BTreeMap::from([("rows".to_owned(), table.clone())]);
        let (base, from, to) = (base.map(told), told(from), told(to));
        // What is not known on one side is unknown, and said so by the aspect's coverage.
        let same = |a: &Table, b: &Table| {
            let counts = a.rows.is_some() && b.rows.is_some() && a.rows != b.rows;
            let contents = a.digest.is_some() && b.digest.is_some() && a.digest != b.digest;
            !counts && !contents
        };
        for pair in pairs(base.as_ref(), &from, &to, same) {
            let name = format!("{} {table} rows", self.name);
            let mut subject = pair.subject(Aspect::Database, name, |table| {
                let rows = table.rows.map_or_else(String::new, |rows| counted(rows, "row"));
                match table.digest.as_deref().and_then(|digest| digest.get(..8)) {
                    Some(digest) => format!("{rows}, {digest}"),
                    None => rows,
                }
            });
            subject.names = names(self.name, table);
            out.add(subject, Severity::Low, changed(self.material, &pair, self.name));
        }
    }
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// Returns what a command may call a table: its name, with and without its schema's and its quotes;
/// then the database.
fn names(database: &str, table: &str) -> Vec<String> {
    let bare = table.rsplit_once('.').map_or(table, |(_, bare)| bare).trim_matches('"');
    let short = database.rsplit_once('/').map_or(database, |(_, short)| short);
    let mut names: Vec<String> = [table, bare, database, short].map(str::to_owned).to_vec();
    names.retain(|name| !name.is_empty());
    names.dedup();
    names
}

/// Returns when a database that is one file was written to last.
fn changed<V>(material: &Material<'_>, pair: &Pair<'_, V>, name: &str) -> Vec<When> {
    times(material, pair.side, |side, capture| {
        let written = |path: &str| capture.files.get(path).map(|file| file.mtime_ns);
        let last = written(name).max(written(&format!("{name}-wal")))?;
        Some(when(side, capture, last, Time::Latest))
    })
}
