//! The little of Markdown that the reference needs.

use std::fmt::{Display, Formatter, Result};

/// A table that is written row by row.
pub(super) struct Table {
    columns: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heads: &[&str]) -> Self {
        let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
        Self { columns: heads.len(), rows: vec![heads] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Returns whether there is nothing in it but its head.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(f, "| {} |", row.join(" | "))?;
            if number == 0 {
                writeln!(f, "|{}", " --- |".repeat(self.columns))?;
            }
        }
        writeln!(f)
    }
}

/// Returns a text as it goes into a cell: on one line, without what ends the cell, and with what
/// would be taken for HTML as it is.
pub(super) fn cell(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// Returns a text as code in a cell.
pub(super) fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

/// Returns lines as a block of code.
pub(super) fn block(language: &str, text: &str) -> String {
    format!("```{language}\n{}\n```\n\n", text.trim_end())
}
