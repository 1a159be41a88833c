//! What was done in machines, and what was noted of them.

use pando_api::state::{CommandRow, JournalListResult, StateCaptureResult};

use crate::output::table::{Cell, printable};
use crate::output::{Look, Ui, units};

/// Shows what was done, newest first.
pub fn history(ui: &Ui, list: &JournalListResult) {
    if list.commands.is_empty() {
        return ui.remark("nothing was done here through pando");
    }
    let rows = list.commands.iter().map(|row| {
        let (look, ending) = ending(row);
        vec![
            Cell::new(Look::Yellow, row.id.as_str()),
            units::age(row.at, ui.now).into(),
            (&row.by).into(),
            row.duration_ms.map(units::millis).unwrap_or_default().into(),
            Cell::new(look, ending),
            what(row).into(),
        ]
    });
    let headings = ["ID", "AGE", "BY", "TOOK", "END", "COMMAND"];
    let names: Vec<String> = list.commands.iter().map(|row| row.id.to_string()).collect();
    super::lists::table(ui, &headings, rows.collect(), &names, &list.page);
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

/// Returns one act as a line.
pub fn command(ui: &Ui, row: &CommandRow) -> String {
    let (look, ending) = ending(row);
    format!("{}  {}", what(row), ui.paint(look, &ending))
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
