//! What a comparison comes to, in the words of the API: changes with what caused them, counts,
//! highlights.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pando_api::page::Page;
use pando_api::state::{AspectCount, CommandChanges, StateDiffResult};
use pando_diff::{Act, Comparison, Found, SLACK_NS, Time, When, blame};
use pando_model::JournalId;
use pando_model::capture::Aspect;
use pando_model::change::{Change, ChangeKind, Severity, Side};

use super::sights::SideOf;
use super::{clipped, nanoseconds};
use crate::failure::{Failure, Result};

/// Most highlights of a result.
pub(super) const MAX_HIGHLIGHTS: usize = 8;
/// Most commands of a result.
const MAX_COMMANDS: usize = 20;

/// Returns the result of a comparison, its changes attributed; what is compared is still to be
/// said. `since` is in nanoseconds since 1970.
pub(super) fn summary(
    comparison: Comparison,
    sides: &(SideOf, SideOf),
    since: Option<i64>,
) -> StateDiffResult {
    let late = |change: &Change| {
        let at = change.at.map(nanoseconds);
        since.is_none_or(|since| at.is_some_and(|at| at + SLACK_NS >= since))
    };
    let found = comparison.found.into_iter().map(|found| attributed(found, sides));
    let differences: Vec<Change> = found.filter(late).collect();
    let important = differences.iter().filter(|change| change.severity != Severity::Low);
    let unknown: BTreeMap<String, String> = comparison
        .unknown
        .iter()
        .map(|(aspect, why)| (aspect.as_str().to_owned(), clipped(why)))
        .collect();
    let suppressed = comparison.suppressed.iter().map(|(why, count)| ((*why).to_owned(), *count));
    StateDiffResult {
        from: String::new(),
        to: String::new(),
        base: None,
        equal: differences.is_empty() && unknown.is_empty(),
        counts: counted(&differences),
        highlights: important.take(MAX_HIGHLIGHTS).map(highlight).collect(),
        commands: commands(sides, &differences),
        unexplained: differences.iter().filter(|change| change.causes.is_empty()).count() as u64,
        differences,
        suppressed: suppressed.collect(),
        unknown,
        nodes: Vec::new(),
        cluster: None,
        hunks: None,
        duration_ms: 0,
        page: Page::default(),
    }
}

/// Returns when a command began, in nanoseconds since 1970.
pub(super) fn beginning_of<'a>(
    mut acts: impl Iterator<Item = &'a Act>,
    id: &JournalId,
) -> Result<i64> {
    let act = acts.find(|act| act.id == *id);
    act.map(|act| act.from_ns).ok_or_else(|| {
        Failure::not_found("command on these branches since their common commit", id.as_str())
            .hint("`pando history` lists them")
    })
}

/// Returns a change with its time and the commands that it is because of.
fn attributed(found: Found, sides: &(SideOf, SideOf)) -> Change {
    let mut change = found.change;
    let on = |side: Side| if side == Side::From { &sides.0 } else { &sides.1 };
    let kind = change.change;
    let mut blamed = |side: Side, when: Option<&When>| {
        // What only the first side has was made there, or removed on the other.
        let kind = match (kind, side) {
            (ChangeKind::Added, Side::From) => ChangeKind::Removed,
            (ChangeKind::Removed, Side::From) => ChangeKind::Added,
            (kind, _) => kind,
        };
        for cause in blame(&on(side).acts, when, kind, &found.names) {
            if !change.causes.iter().any(|known| known.id == cause.id) {
                change.causes.push(cause);
            }
        }
    };
    for when in &found.when {
        blamed(when.side, Some(when));
    }
    if found.when.is_empty() {
        blamed(change.side, None);
    }
    for when in &found.when {
        // Without anything at work then, the time of something near says nothing.
        if when.time == Time::Exact || !change.causes.is_empty() {
            change.at = Timestamp::from_nanosecond(i128::from(when.ns)).ok();
        }
    }
    for cause in &mut change.causes {
        cause.command = clipped(&cause.command);
    }
    change
}

pub(super) fn counted(differences: &[Change]) -> Vec<AspectCount> {
    let mut counts: BTreeMap<Aspect, AspectCount> = BTreeMap::new();
    for change in differences {
        let aspect = change.aspect;
        let empty = AspectCount { aspect, added: 0, removed: 0, changed: 0 };
        let count = counts.entry(aspect).or_insert(empty);
        match change.change {
            ChangeKind::Added => count.added += 1,
            ChangeKind::Removed => count.removed += 1,
            _ => count.changed += 1,
        }
    }
    counts.into_values().collect()
}

/// Returns the commands that differences are because of, in their order; of many, those that did
/// most.
fn commands(sides: &(SideOf, SideOf), differences: &[Change]) -> Vec<CommandChanges> {
    let mut commands: Vec<CommandChanges> = Vec::new();
    let acts = [&sides.0, &sides.1].into_iter();
    for (side, act) in acts.flat_map(|side| side.acts.iter().map(move |act| (side, act))) {
        let because = |change: &&Change| change.causes.iter().any(|cause| cause.id == act.id);
        let changes = differences.iter().filter(because).count() as u64;
        if changes > 0 && !commands.iter().any(|command| command.id == act.id) {
            commands.push(CommandChanges {
                id: act.id.clone(),
                act: act.act.clone(),
                command: clipped(&act.command),
                branch: side.branch.to_string(),
                node: side.node.clone(),
                changes,
            });
        }
    }
    keep_most(&mut commands, MAX_COMMANDS);
    commands
}

/// Keeps those of many commands that did most, in their order.
pub(super) fn keep_most(commands: &mut Vec<CommandChanges>, count: usize) {
    if commands.len() > count {
        let mut most: Vec<u64> = commands.iter().map(|command| command.changes).collect();
        most.sort_unstable_by(|a, b| b.cmp(a));
        let least = most.get(count.saturating_sub(1)).copied().unwrap_or(0);
        commands.retain(|command| command.changes >= least);
        commands.truncate(count);
    }
}

pub(super) fn highlight(change: &Change) -> String {
    let verb = match change.change {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Changed => "changed",
        ChangeKind::Moved => "moved",
        ChangeKind::Mode => "has another mode",
        ChangeKind::Owner => "has another owner",
    };
    let what = match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!(": {before} → {after}"),
        (None, Some(one)) | (Some(one), None) => format!(": {one}"),
        (None, None) => String::new(),
    };
    clipped(&format!("{} {} {verb}{what}", change.aspect.as_str(), change.subject))
}
