//! Tables: as wide as their contents, cut to the terminal where there is one. Terminal codes in
//! other people's texts are taken out.

use super::{Look, Ui, paint};

/// Narrowest that a column is cut to.
const MIN_WIDTH: usize = 8;
const GAP: usize = 2;

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    look: Look,
}

impl Cell {
    /// Returns a cell of this look.
    pub fn new(look: Look, text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), look }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Look::Plain, text)
    }
}

/// Returns the text on one line, without anything that a terminal would act on.
pub fn printable(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Rows under headings.
#[derive(Debug, Clone)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Returns an empty table.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are headings.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Returns the lines, cut to `width` columns by narrowing the widest column first.
    pub fn lines(&self, width: Option<usize>, colour: bool) -> Vec<String> {
        let count = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.headings.iter().map(|text| count(text)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(count(&cell.text));
            }
        }
        if let Some(most) = width {
            narrow(&mut widths, most);
        }
        let headings = self.headings.iter().map(|text| Cell::new(Look::Dim, text)).collect();
        std::iter::once(&headings).chain(&self.rows).map(|row| line(row, &widths, colour)).collect()
    }

    /// Writes the table.
    pub fn print(&self, ui: &Ui) {
        for line in self.lines(ui.width, ui.colour_out) {
            ui.line(line);
        }
    }
}

fn narrow(widths: &mut [usize], most: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > most {
        match widths.iter_mut().max() {
            Some(widest) if *widest > MIN_WIDTH => *widest -= 1,
            _ => return,
        }
    }
}

fn line(row: &[Cell], widths: &[usize], colour: bool) -> String {
    let mut line = String::new();
    let last = widths.len().saturating_sub(1);
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        let text = cut(&cell.text, *width);
        let fill = width - text.chars().count();
        line.push_str(&paint(colour, cell.look, &text));
        if index != last {
            line.push_str(&" ".repeat(fill + GAP));
        }
    }
    line.truncate(line.trim_end().len());
    line
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "MESSAGE"]);
        table.row(vec!["shop".into(), "a long message about what was done here".into()]);
        table.row(vec![Cell::new(Look::Green, "web"), "two\nlines \u{1b}[31m".into()]);
        table
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(
            table().lines(None, false),
            ["NAME  MESSAGE", "shop  a long message about what was done here", "web   two"]
        );
    }

    #[test]
    fn tables_fit_the_terminal() {
        for width in 14..60 {
            for line in table().lines(Some(width), false) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        assert_eq!(table().lines(Some(20), false)[1], "shop  a long messag…");
    }

    #[test]
    fn terminal_codes_of_others_are_taken_out() {
        assert_eq!(printable("a\u{1b}[31mb\u{7}"), "a\u{fffd}[31mb\u{fffd}");
    }
}
