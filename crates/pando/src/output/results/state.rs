//! What was done in machines, and what was noted of them.

use pando_api::state::{CommandRow, JournalListResult, StateCaptureResult};

use crate::output::table::{Cell, printable};
use crate::output::{Look, Ui, units};

/// Shows what was done, newest first.
pub fn history(ui: &Ui, list: &JournalListResult) {
    if list.commands.is_empty() {
        return ui.remark("nothing was done here through pando");
    }
    let several = on_several_nodes(&list.commands);
    let rows = list.commands.iter().map(|row| {
        let (look, ending) = ending(row);
        let mut cells = vec![
            Cell::new(Look::Yellow, row.id.as_str()),
            units::age(row.at, ui.now).into(),
            (&row.by).into(),
            row.duration_ms.map(units::millis).unwrap_or_default().into(),
            Cell::new(look, ending),
        ];
        cells.extend(several.then(|| row.node.as_str().into()));
        cells.push(what(row).into());
        cells
    });
    let mut headings = vec!["ID", "AGE", "BY", "TOOK", "END", "COMMAND"];
    if several {
        headings.insert(headings.len() - 1, "NODE");
    }
    let names: Vec<String> = list.commands.iter().map(|row| row.id.to_string()).collect();
    super::lists::table(ui, &headings, rows.collect(), &names, &list.page);
}

/// Returns whether a reader has to be told the node of each act.
fn on_several_nodes(rows: &[CommandRow]) -> bool {
    rows.first().is_some_and(|first| rows.iter().any(|row| row.node != first.node))
}

/// Returns an act and how it ended.
fn what(row: &CommandRow) -> String {
    match row.act.as_str() {
        "exec" => printable(&row.command),
        "push" => format!("write {}", printable(&row.command)),
        "pull" => format!("read {}", printable(&row.command)),
        "control" => format!("vm control {}", printable(&row.command)),
        other => format!("{other} {}", printable(&row.command)),
    }
}

fn ending(row: &CommandRow) -> (Look, String) {
    match (row.exit_code, &row.why) {
        (Some(0), _) => (Look::Green, "ok".to_owned()),
        (Some(code), _) => (Look::Red, format!("exit {code}")),
        (None, Some(why)) => (Look::Red, printable(why)),
        (None, None) => (Look::Yellow, "runs".to_owned()),
    }
}

/// Returns acts as lines.
pub fn commands(ui: &Ui, rows: &[CommandRow]) -> Vec<String> {
    let several = on_several_nodes(rows);
    let line = |row: &CommandRow| {
        let (look, ending) = ending(row);
        let node = if several { format!("{}: ", printable(&row.node)) } else { String::new() };
        format!("{node}{}  {}", what(row), ui.paint(look, &ending))
    };
    rows.iter().map(line).collect()
}

/// Says that a capture was taken.
pub fn captured(ui: &Ui, view: &StateCaptureResult) {
    let counts = view.counts.iter().map(|(aspect, count)| format!("{count} {aspect}"));
    let counts: Vec<String> = counts.collect();
    ui.line(view.capture_id.as_str());
    ui.remark(format!("{}: {}", view.address, counts.join(", ")));
    for (aspect, why) in &view.unknown {
        ui.remark(format!("{aspect}: {}", printable(why)));
    }
    ui.remark(format!("compare it later: pando diff {} {}", view.capture_id, view.address));
}
