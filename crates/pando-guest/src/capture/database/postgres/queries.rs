//! What a PostgreSQL server is asked: the schema from its own catalogue, and of each table how many
//! rows it has and a digest of them all, in whatever order they lie.

use pando_model::capture::{Database, Table};

use super::client::{Client, Error, Row};
use crate::capture::database::{add_part, unknown};
use crate::limits::{MAX_DIGESTED_ROWS, MAX_DIGESTED_ROWS_BYTES, MAX_TABLES};

/// The directory of the server's files.
pub const PLACE: &str = "SHOW data_directory";
/// The databases that can be asked.
pub const DATABASES: &str =
    "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1";

/// Schemas that are not the system's own.
const OWN: &str = "n.nspname NOT IN ('pg_catalog', 'information_schema') \
                   AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%'";

fn tables() -> String {
    format!(
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind, \
         pg_total_relation_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = \
         c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {OWN} ORDER BY 1"
    )
}

/// Every part of every table: the table, what kind of part, its name, its definition.
fn parts() -> String {
    let table = "quote_ident(n.nspname) || '.' || quote_ident(c.relname)";
    format!(
        "SELECT {table}, 'column', a.attname, format_type(a.atttypid, a.atttypmod) \
         || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END \
         || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') \
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped \
         AND {OWN} \
         UNION ALL SELECT {table}, 'index', i.relname, pg_get_indexdef(i.oid) FROM pg_index x \
         JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {OWN} \
         UNION ALL SELECT {table}, 'constraint', k.conname, pg_get_constraintdef(k.oid) \
         FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype IN ('c', 'f', 'x') AND {OWN} \
         UNION ALL SELECT {table}, 'trigger', t.tgname, pg_get_triggerdef(t.oid) \
         FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal AND {OWN} \
         UNION ALL SELECT {table}, 'definition', '', pg_get_viewdef(c.oid) FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {OWN}"
    )
}

/// Tells a database.
pub fn database(client: &mut Client) -> Result<Database, Error> {
    // One view of everything, and nothing can be written.
    client.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    let mut database = Database::default();
    let mut reasons = Vec::new();
    let mut rows = Vec::new();
    for row in client.ask(&tables())? {
        let [Some(name), Some(kind), size] = row.as_slice() else { continue };
        if database.tables.len() == MAX_TABLES {
            reasons.push(format!("only {MAX_TABLES} tables are told"));
            break;
        }
        let kind = match kind.as_str() {
            "v" => "view",
            "m" => "materialized view",
            "f" => "foreign table",
            "p" => "partitioned table",
            _ => "table",
        };
        // The others have no rows of their own.
        if matches!(kind, "table" | "materialized view") {
            let size = size.as_deref().and_then(|size| size.parse().ok()).unwrap_or(u64::MAX);
            rows.push((name.clone(), size));
        }
        let table = Table { kind: kind.to_owned(), ..Table::default() };
        database.tables.insert(name.clone(), table);
    }
    for row in client.ask(&parts())? {
        let [Some(table), Some(kind), Some(name), definition] = row.as_slice() else { continue };
        if let Some(table) = database.tables.get_mut(table) {
            let name = format!("{kind} {name}");
            add_part(table, name.trim_end(), definition.as_deref().unwrap_or_default());
        }
    }
    for (name, size) in rows {
        let Some(table) = database.tables.get_mut(&name) else { continue };
        // What fails must not end the transaction.
        client.ask("SAVEPOINT one")?;
        match contents(client, &name, size) {
            Ok((rows, digest)) => {
                (table.rows, table.digest) = (rows, digest);
                if table.digest.is_none() {
                    reasons.push(format!("the rows of {name} are only counted"));
                }
            }
            Err(Error::Refused(why)) => {
                client.ask("ROLLBACK TO SAVEPOINT one")?;
                reasons.push(format!("the rows of {name} are not told: {why}"));
            }
            Err(error) => return Err(error),
        }
    }
    database.unknown = unknown(&reasons);
    Ok(database)
}

/// Returns how many rows a table has, and a digest of them if they are not too many. The name is
/// quoted as the server did it.
fn contents(
    client: &mut Client,
    name: &str,
    size: u64,
) -> Result<(Option<u64>, Option<String>), Error> {
    let first = |rows: Vec<Row>| rows.into_iter().next().unwrap_or_default();
    let number = |value: &Option<String>| value.as_ref().and_then(|text| text.parse::<u64>().ok());
    if size <= MAX_DIGESTED_ROWS_BYTES {
        let most = MAX_DIGESTED_ROWS + 1;
        let statement = format!(
            "SELECT count(*), md5(coalesce(string_agg(h, '' ORDER BY h COLLATE \"C\"), '')) FROM \
             (SELECT md5(t::text) AS h FROM ONLY {name} t LIMIT {most}) x"
        );
        let row = first(client.ask(&statement)?);
        let rows = row.first().and_then(number);
        if rows.is_some_and(|rows| rows < most) {
            return Ok((rows, row.get(1).cloned().flatten()));
        }
    }
    let row = first(client.ask(&format!("SELECT count(*) FROM ONLY {name}"))?);
    Ok((row.first().and_then(number), None))
}
