//! What was done in machines, and what differs between them.

use pando_api::state::{CommandRow, JournalListResult, StateCaptureResult, StateDiffResult};
use pando_model::capture::Aspect;
use pando_model::change::{ChangeKind, Side};

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

/// How much of a comparison is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// How much differs.
    Counts,
    /// Everything.
    All,
}

fn look_of(kind: ChangeKind) -> Look {
    match kind {
        ChangeKind::Added => Look::Green,
        ChangeKind::Removed => Look::Red,
        _ => Look::Yellow,
    }
}

/// Shows what differs: first what one wants to know, then everything as a tree.
pub fn differences(ui: &Ui, view: &StateDiffResult, extent: Extent) {
    let base = view.base.as_ref().map(|base| format!(", from {base} on"));
    ui.line(format!(
        "{} → {}{}",
        ui.paint(Look::Bold, &view.from),
        ui.paint(Look::Bold, &view.to),
        ui.paint(Look::Dim, &base.unwrap_or_default())
    ));
    let counts = view.counts.iter().map(|count| {
        let parts = [(count.added, '+'), (count.removed, '-'), (count.changed, '~')];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, sign)| format!("{sign}{number}"))
            .collect();
        format!("{} {}", count.aspect.as_str(), parts.join(" "))
    });
    let counts: Vec<String> = counts.collect();
    ui.line(match (counts.is_empty(), view.unknown.is_empty()) {
        (true, true) => "nothing differs".to_owned(),
        (true, false) => "nothing differs in what could be compared".to_owned(),
        (false, _) => counts.join("  ·  "),
    });
    let unknown = view.unknown.iter().map(|(aspect, why)| format!("{aspect} ({})", printable(why)));
    let unknown: Vec<String> = unknown.collect();
    if !unknown.is_empty() {
        ui.line(ui.paint(Look::Yellow, &format!("not wholly known: {}", unknown.join(", "))));
    }
    if extent == Extent::All {
        for command in view.commands.iter().take(5) {
            let changes = if command.changes == 1 { "change" } else { "changes" };
            let id = ui.paint(Look::Yellow, command.id.as_str());
            ui.line(format!("{id} {}  {} {changes}", printable(&command.command), command.changes));
        }
        if view.commands.len() > 5 {
            ui.line(
                ui.paint(Look::Dim, &format!("… and {} commands more", view.commands.len() - 5)),
            );
        }
        if view.unexplained > 0 {
            let said = format!("{} without a recorded command", view.unexplained);
            ui.line(ui.paint(Look::Dim, &said));
        }
        for aspect in Aspect::ALL {
            aspect_tree(ui, view, *aspect);
        }
    }
    if !view.suppressed.is_empty() {
        let total: u64 = view.suppressed.values().sum();
        let why = view.suppressed.iter().map(|(why, count)| format!("{count} {why}"));
        let why: Vec<String> = why.collect();
        ui.remark(format!("left out {total}: {}", why.join(", ")));
    }
    if view.page.truncated {
        ui.remark(format!("{} of {} shown", view.page.returned, view.page.total));
    }
    if let Some(hunks) = &view.hunks {
        for line in hunks.lines() {
            let look = match line.chars().next() {
                Some('+') => Look::Green,
                Some('-') => Look::Red,
                Some('@') => Look::Cyan,
                _ => Look::Plain,
            };
            ui.line(ui.paint(look, &printable(&line.replace('\t', "    "))));
        }
    }
    ui.remark(format!("compared in {}", units::whole_millis(view.duration_ms)));
}

fn aspect_tree(ui: &Ui, view: &StateDiffResult, aspect: Aspect) {
    let mut of_aspect =
        view.differences.iter().filter(|change| change.aspect == aspect).collect::<Vec<_>>();
    if of_aspect.is_empty() {
        return;
    }
    of_aspect.sort_by(|a, b| a.subject.cmp(&b.subject));
    ui.line(ui.paint(Look::Bold, aspect.as_str()));
    for change in of_aspect {
        let sign = ui.paint(look_of(change.change), &change.change.sign().to_string());
        let what = match (&change.before, &change.after, change.change) {
            (_, Some(to), ChangeKind::Moved) => format!("→ {to}"),
            (Some(before), Some(after), _) => format!("{before} → {after}"),
            (None, Some(one), _) | (Some(one), None, _) => one.clone(),
            (None, None, _) => String::new(),
        };
        let side = match change.side {
            Side::From => format!("  on {}", view.from),
            Side::Both => "  on both".to_owned(),
            Side::To | Side::Unknown => String::new(),
        };
        let because = change.causes.first().map(|cause| {
            let maybe = if cause.certain { "" } else { "perhaps " };
            format!("  ← {maybe}{}", printable(&cause.command))
        });
        let subject = printable(&change.subject);
        let tail = ui.paint(Look::Dim, &format!("{side}{}", because.unwrap_or_default()));
        ui.line(format!("  {sign} {subject}  {}{tail}", printable(&what)));
    }
}

/// Writes the commands that caused the differences, as a script.
pub fn script(ui: &Ui, view: &StateDiffResult) {
    ui.line("#!/bin/sh");
    ui.line(format!(
        "# What was done between {} and {}, as far as it was recorded.",
        view.from, view.to
    ));
    ui.line("set -eu");
    for command in &view.commands {
        ui.line(format!("# {}: {} changes", command.id, command.changes));
        match command.act.as_str() {
            "exec" if !command.command.ends_with('…') => ui.line(printable(&command.command)),
            // What was in the file, or in a longer line, is not known here.
            _ => ui.line(format!("# by hand: {}", printable(&command.command))),
        }
    }
    for change in view.differences.iter().filter(|change| change.causes.is_empty()) {
        ui.line(format!(
            "# not by a recorded command: {} {}",
            change.change.sign(),
            printable(&change.id)
        ));
    }
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
