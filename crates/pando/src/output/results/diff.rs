//! What differs, for people: in the first lines how much, what matters most and because of what;
//! then everything as a tree, in which commands are numbers.

use std::collections::BTreeMap;

use pando_api::state::{AspectCount, StateDiffResult};
use pando_model::capture::Aspect;
use pando_model::change::{Cause, Change, ChangeKind, Severity, Side};

use crate::output::table::printable;
use crate::output::{Look, Ui, paint, units};

mod cluster;

/// How much of a comparison is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// How much differs.
    Counts,
    /// Everything.
    All,
}

/// Differences that are told before all others.
const HIGHLIGHTS: usize = 4;
/// Commands that are listed before the tree.
const COMMANDS: usize = 20;
/// Longest command beside a highlight, in characters, where nothing else bounds it.
const COMMAND_WIDTH: usize = 60;

/// Shows what differs.
pub fn differences(ui: &Ui, view: &StateDiffResult, extent: Extent) {
    let pen = Pen { width: ui.width, colour: ui.colours_stdout() };
    for line in lines(view, extent, pen) {
        ui.line(line);
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
    ui.remark(format!("compared in {}", units::whole_millis(view.duration_ms)));
}

/// How lines are written.
#[derive(Debug, Clone, Copy)]
struct Pen {
    /// Columns that a line may have, if there is a limit.
    width: Option<usize>,
    colour: bool,
}

impl Pen {
    /// Returns a line of these pieces, cut to the width. What is in them is only text.
    fn line(self, pieces: &[(Look, &str)]) -> String {
        let mut left = self.width.unwrap_or(usize::MAX);
        let total: usize = pieces.iter().map(|(_, text)| printable(text).chars().count()).sum();
        // The last column says that something is missing.
        let cut = total > left;
        if cut {
            left = left.saturating_sub(1);
        }
        let mut line = String::new();
        for (look, text) in pieces {
            let text: String = printable(text).chars().take(left).collect();
            left -= text.chars().count();
            if !text.is_empty() {
                line.push_str(&paint(self.colour, *look, &text));
            }
        }
        if cut {
            line.push('…');
        }
        line
    }
}

/// Returns the number by which a command is meant, as the tree shows it.
type Numbers<'a> = BTreeMap<&'a str, usize>;

fn lines(view: &StateDiffResult, extent: Extent, pen: Pen) -> Vec<String> {
    if let Some(between) = &view.cluster {
        return cluster::lines(view, between, extent, pen);
    }
    let mut lines = heading(view, pen);
    if extent == Extent::All {
        lines.extend(body(view, pen));
    }
    for line in view.hunks.iter().flat_map(|hunks| hunks.lines()) {
        let look = match line.chars().next() {
            Some('+') => Look::Green,
            Some('-') => Look::Red,
            Some('@') => Look::Cyan,
            _ => Look::Plain,
        };
        lines.push(pen.line(&[(look, &line.replace('\t', "    "))]));
    }
    lines
}

/// Everything but how much it is.
fn body(view: &StateDiffResult, pen: Pen) -> Vec<String> {
    let mut lines = Vec::new();
    let numbers: Numbers<'_> =
        (1..).zip(&view.commands).map(|(number, command)| (command.id.as_str(), number)).collect();
    highlights(view, pen, &mut lines);
    commands(view, pen, &mut lines);
    for aspect in Aspect::ALL {
        tree(view, *aspect, &numbers, pen, &mut lines);
    }
    lines
}

fn heading(view: &StateDiffResult, pen: Pen) -> Vec<String> {
    let base = view.base.as_ref().filter(|base| **base != view.from && **base != view.to);
    let base = base.map(|base| format!("  both from {base}")).unwrap_or_default();
    let mut lines = vec![pen.line(&[
        (Look::Bold, &view.from),
        (Look::Plain, " → "),
        (Look::Bold, &view.to),
        (Look::Dim, &base),
    ])];
    lines.push(match (view.counts.is_empty(), view.unknown.is_empty()) {
        (true, true) if view.cluster.is_some() && !view.equal => {
            "nothing differs inside the nodes that were compared".to_owned()
        }
        (true, true) => "nothing differs".to_owned(),
        (true, false) => "nothing differs in what could be compared".to_owned(),
        (false, _) => {
            let ordered = Aspect::ALL
                .iter()
                .filter_map(|aspect| view.counts.iter().find(|count| count.aspect == *aspect));
            let counts: Vec<String> = ordered.map(counted).collect();
            pen.line(&[(Look::Plain, &counts.join(" · "))])
        }
    });
    for (aspect, why) in &view.unknown {
        lines.push(pen.line(&[(Look::Yellow, &format!("? {aspect} not wholly known: {why}"))]));
    }
    lines
}

fn counted(count: &AspectCount) -> String {
    let parts = [(count.added, '+'), (count.removed, '-'), (count.changed, '~')];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts: Vec<String> = parts.map(|(number, sign)| format!("{sign}{number}")).collect();
    format!("{} {}", count.aspect.as_str(), parts.join(" "))
}

/// The differences that matter most, each with its command: they are sorted by how much they do.
fn highlights(view: &StateDiffResult, pen: Pen, lines: &mut Vec<String>) {
    let important = view.differences.iter().filter(|change| change.severity != Severity::Low);
    for change in important.take(HIGHLIGHTS) {
        let look = if change.severity == Severity::High { Look::Red } else { Look::Yellow };
        let what = format!("{} {} {}", change.aspect.as_str(), change.subject, verb(change));
        let cause = change.causes.first().map(|cause| {
            let command: String = cause.command.chars().take(COMMAND_WIDTH).collect();
            format!("  ← {}{command}", if cause.certain { "" } else { "perhaps " })
        });
        let cause = cause.unwrap_or_default();
        lines.push(pen.line(&[(look, "! "), (Look::Plain, &what), (Look::Dim, &cause)]));
    }
}

fn commands(view: &StateDiffResult, pen: Pen, lines: &mut Vec<String>) {
    if view.commands.is_empty() && view.unexplained == 0 {
        return;
    }
    lines.push(pen.line(&[(Look::Bold, "because of")]));
    for (number, command) in (1..).zip(view.commands.iter().take(COMMANDS)) {
        lines.push(pen.line(&[
            (Look::Cyan, &format!("{:>5} ", format!("[{number}]"))),
            (Look::Dim, &format!("{:>4} by ", command.changes)),
            (Look::Yellow, command.id.as_str()),
            (Look::Plain, &format!("  {}", command.command)),
        ]));
    }
    if view.unexplained > 0 {
        let said = format!("{:>10} without a recorded command", view.unexplained);
        lines.push(pen.line(&[(Look::Dim, &said)]));
    }
}

/// Returns what happened to something, in a word or two.
fn verb(change: &Change) -> String {
    let states = || match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{before} → {after}"),
        _ => String::new(),
    };
    match change.change {
        ChangeKind::Added => "added".to_owned(),
        ChangeKind::Removed => "removed".to_owned(),
        ChangeKind::Moved => format!("→ {}", change.after.as_deref().unwrap_or_default()),
        ChangeKind::Changed | ChangeKind::Mode | ChangeKind::Owner => states(),
    }
}

const fn look_of(kind: ChangeKind) -> Look {
    match kind {
        ChangeKind::Added => Look::Green,
        ChangeKind::Removed => Look::Red,
        _ => Look::Yellow,
    }
}

/// Returns where a change is listed, and under which name: a file in its directory.
fn place(change: &Change) -> (&str, &str) {
    match change.aspect {
        Aspect::Files | Aspect::Config => {
            change.subject.rsplit_once('/').unwrap_or(("", &change.subject))
        }
        _ => ("", &change.subject),
    }
}

fn tree(
    view: &StateDiffResult,
    aspect: Aspect,
    numbers: &Numbers<'_>,
    pen: Pen,
    lines: &mut Vec<String>,
) {
    let mut groups: BTreeMap<&str, Vec<(&str, &Change)>> = BTreeMap::new();
    for change in view.differences.iter().filter(|change| change.aspect == aspect) {
        let (group, name) = place(change);
        groups.entry(group).or_default().push((name, change));
    }
    if groups.is_empty() {
        return;
    }
    let count = view.counts.iter().find(|count| count.aspect == aspect).map(counted);
    let count = count.unwrap_or_else(|| aspect.as_str().to_owned());
    lines.push(pen.line(&[(Look::Bold, &count)]));
    for (group, mut changes) in groups {
        changes.sort_by_key(|(name, _)| *name);
        // A directory with one change needs no line of its own.
        let alone = changes.len() == 1 && !group.is_empty();
        if !alone && !group.is_empty() {
            lines.push(pen.line(&[(Look::Dim, &format!("  {group}/"))]));
        }
        let indent = if alone || group.is_empty() { "  " } else { "    " };
        let widest =
            changes.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(32);
        for (name, change) in changes {
            let name = if alone { change.subject.as_str() } else { name };
            let causes = change.causes.iter();
            let causes: String =
                causes.map(|cause| format!("  {}", reference(cause, numbers))).collect();
            let side = match change.side {
                Side::From => format!("  on {}", view.from),
                Side::Both => "  on both".to_owned(),
                Side::To | Side::Unknown => String::new(),
            };
            lines.push(pen.line(&[
                (look_of(change.change), &format!("{indent}{} ", change.change.sign())),
                (Look::Plain, format!("{name:<widest$}  {}", what(change)).trim_end()),
                (Look::Cyan, &causes),
                (Look::Dim, &side),
            ]));
        }
    }
}

/// Returns what something is and was. What is the same of both is said once.
fn what(change: &Change) -> String {
    match (&change.before, &change.after, change.change) {
        (_, Some(to), ChangeKind::Moved) => format!("→ {to}"),
        (Some(before), Some(after), _) => shorter(or_nothing(before), or_nothing(after)),
        (None, Some(one), _) | (Some(one), None, _) => one.clone(),
        (None, None, _) => String::new(),
    }
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "(nothing)" } else { text }
}

/// Returns both states, with what they end with alike only once.
fn shorter(before: &str, after: &str) -> String {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (words(before), words(after));
    let same = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let same = same.min(old.len().saturating_sub(1)).min(new.len().saturating_sub(1));
    let kept = old.get(old.len() - same..).unwrap_or_default().join(" ");
    let part = |all: &[String]| all.get(..all.len() - same).unwrap_or_default().join(" ");
    match same {
        0 => format!("{before} → {after}"),
        _ => format!("{} → {} ({kept})", part(&old), part(&new)),
    }
}

/// Returns a command as the tree shows it: by its number, or by its id if it is not listed.
fn reference(cause: &Cause, numbers: &Numbers<'_>) -> String {
    let maybe = if cause.certain { "" } else { "?" };
    match numbers.get(cause.id.as_str()) {
        Some(number) => format!("[{number}]{maybe}"),
        None => format!("{}{maybe}", cause.id),
    }
}

#[cfg(test)]
mod tests;
