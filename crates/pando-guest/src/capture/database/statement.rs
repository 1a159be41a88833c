//! What a statement of `CREATE TABLE` says, in parts. SQLite keeps the text that a table was made
//! with; its columns are told from it without knowing all of its grammar.

/// Words that begin a constraint of a table, and no column.
const CONSTRAINTS: &[&str] = &["constraint", "primary", "unique", "check", "foreign"];

/// Returns columns and constraints of a `CREATE TABLE` by kind and name, with their definitions.
pub fn parts(statement: &str) -> Vec<(String, String)> {
    let inner = inner(statement);
    let mut parts = Vec::new();
    for text in split(inner) {
        let text = text.trim();
        let (name, rest) = first_word(text);
        if name.is_empty() {
            continue;
        }
        let quoted = text.starts_with(['"', '`', '[', '\'']);
        let constraint = !quoted && CONSTRAINTS.contains(&name.to_ascii_lowercase().as_str());
        parts.push(match constraint {
            true => (format!("constraint {text}"), text.to_owned()),
            false => (format!("column {name}"), rest.trim().to_owned()),
        });
    }
    parts
}

/// Follows a statement's quotes, comments and brackets.
#[derive(Default)]
struct Scan {
    closing: Option<char>,
    depth: u32,
}

impl Scan {
    /// Takes a character; returns whether it is code outside of quotes.
    fn take(&mut self, c: char) -> bool {
        match self.closing {
            Some(end) => {
                if c == end {
                    self.closing = None;
                }
                false
            }
            None => {
                match c {
                    '\'' | '"' | '`' => self.closing = Some(c),
                    '[' => self.closing = Some(']'),
                    '(' => self.depth = self.depth.saturating_add(1),
                    ')' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                self.closing.is_none()
            }
        }
    }
}

/// Returns what stands in the outermost brackets.
fn inner(statement: &str) -> &str {
    let mut scan = Scan::default();
    let mut start = None;
    for (at, c) in statement.char_indices() {
        let before = scan.depth;
        let code = scan.take(c);
        match (code, before, scan.depth) {
            (true, 0, 1) if start.is_none() => start = Some(at + 1),
            (true, 1, 0) => {
                return start.and_then(|start| statement.get(start..at)).unwrap_or_default();
            }
            _ => {}
        }
    }
    start.and_then(|start| statement.get(start..)).unwrap_or_default()
}

/// Returns the parts between commas that are in no brackets.
fn split(text: &str) -> Vec<&str> {
    let mut scan = Scan::default();
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices() {
        if scan.take(c) && c == ',' && scan.depth == 0 {
            parts.extend(text.get(start..at));
            start = at + 1;
        }
    }
    parts.extend(text.get(start..));
    parts
}

/// Returns a name without its quotes, and what follows.
fn first_word(text: &str) -> (&str, &str) {
    let closing = match text.chars().next() {
        Some('[') => Some(']'),
        Some(quote @ ('"' | '`' | '\'')) => Some(quote),
        _ => None,
    };
    let split = match closing {
        Some(closing) => text.get(1..).and_then(|rest| rest.split_once(closing)),
        None => text.split_once(|c: char| c.is_whitespace() || c == '('),
    };
    split.unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_and_constraints_are_told_apart() {
        let statement = "CREATE TABLE \"the, (table\" (id INTEGER PRIMARY KEY,\n  \"a, b\" TEXT NOT NULL \
                         DEFAULT ',', [c] NUMERIC(10, 2), primary_name, CHECK (id > 0 AND c IN (1,2)), \
                         FOREIGN KEY(id) REFERENCES o(id)) WITHOUT ROWID";
        let parts = parts(statement);
        let told: Vec<(&str, &str)> =
            parts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(
            told,
            [
                ("column id", "INTEGER PRIMARY KEY"),
                ("column a, b", "TEXT NOT NULL DEFAULT ','"),
                ("column c", "NUMERIC(10, 2)"),
                ("column primary_name", ""),
                ("constraint CHECK (id > 0 AND c IN (1,2))", "CHECK (id > 0 AND c IN (1,2))"),
                ("constraint FOREIGN KEY(id) REFERENCES o(id)", "FOREIGN KEY(id) REFERENCES o(id)"),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_statement_has_parts(text in "[a-z ,()'\"\\[\\]`é]{0,60}") {
            let _ = parts(&text);
        }
    }
}
