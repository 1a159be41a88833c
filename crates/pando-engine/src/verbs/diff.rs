//! `state_diff`: gather captures, have them compared, say because of what.
//!
//! ```text
//!   from ─┐ resolve ─▶ common ancestor ─▶ captures ─▶ digests of candidates ─▶ pando-diff
//!   to   ─┘ (subject)  (commit graph)     (sights)     (where sizes are equal)     │
//!                                                       journal ─▶ blame (summary) ┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pando_api::Caller;
use pando_api::state::{StateDiffParams, StateDiffResult};
use pando_diff::{Material, candidates, compare, hunks, unified};
use pando_model::capture::{Aspect, Capture};
use pando_model::{Commit, CommitId};
use tokio::time::Instant;

use self::sights::SideOf;
use self::subject::Subject;
use self::summary::summary;
use crate::captures::Sight;
use crate::engine::Engine;
use crate::failure::Result;

mod pages;
mod sights;
mod subject;
mod summary;

pub(crate) use self::pages::Compared;

/// Most files whose contents are digested for one comparison.
const MAX_CANDIDATES: usize = 20_000;
/// Longest text of a command, a description or a reason in a result, in characters.
const MAX_WORDS: usize = 160;

pub(super) fn clipped(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.chars().count() > MAX_WORDS || line.len() < text.trim_end().len() {
        true => line.chars().take(MAX_WORDS).chain(['…']).collect(),
        false => line.to_owned(),
    }
}

pub(super) fn elapsed_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

impl Engine {
    pub(super) async fn state_diff(
        &self,
        caller: &Caller,
        params: StateDiffParams,
    ) -> Result<StateDiffResult> {
        if let Some(cursor) = &params.cursor {
            return self.read_on(cursor, params.max_bytes);
        }
        let began = Instant::now();
        let (from, to) = self.subjects(caller, &params).await?;
        let lines = (self.ancestry(from.head()).await?, self.ancestry(to.head()).await?);
        let theirs: BTreeSet<&CommitId> = lines.1.iter().map(|commit| &commit.id).collect();
        let base = lines.0.iter().find(|commit| theirs.contains(&commit.id));
        // Everything is captured: a commit's capture is kept for whatever is asked next.
        let all = Aspect::ALL;
        let (first, second, ancestor) = self.sights(&from, &to, base, all).await?;
        let (mut first, mut second) = (first, second);
        let mut digests = candidates(&first.capture, &second.capture);
        let left_open = digests.len().saturating_sub(MAX_CANDIDATES);
        digests.truncate(MAX_CANDIDATES);
        let file = params.hunks.as_ref();
        let (a, b) = (first.capture.clone(), second.capture.clone());
        let (done, also) = tokio::join!(
            self.complete(&from, &mut first, &b, &digests, file),
            self.complete(&to, &mut second, &a, &digests, file),
        );
        done?;
        also?;
        let acts = (
            self.acts_since(&from, &lines.0, base).await?,
            self.acts_since(&to, &lines.1, base).await?,
        );
        let sides = (SideOf { sight: first, acts: acts.0 }, SideOf { sight: second, acts: acts.1 });
        let aspects = if params.aspects.is_empty() { all.to_vec() } else { params.aspects.clone() };
        let owners = owners(&sides.0.sight, &sides.1.sight);
        let ancestor = ancestor_of(&from, &to, base, &sides, ancestor.as_ref());
        let comparison = compare(&Material {
            from: &sides.0.sight.capture,
            to: &sides.1.sight.capture,
            base: ancestor,
            owners: &owners,
            aspects: &aspects,
        });
        let mut result = summary(comparison, &sides, params.since.as_ref())?;
        if left_open > 0 {
            let why = format!("the contents of {left_open} files are not compared");
            result.unknown.insert(Aspect::Files.as_str().to_owned(), why);
            result.equal = false;
        }
        result.from = from.label();
        result.to = to.label();
        result.base = base.filter(|_| ancestor.is_some()).map(|base| base.id.to_string());
        for (side, branch) in [(&sides.0, from.branch()), (&sides.1, to.branch())] {
            for command in &mut result.commands {
                if side.acts.iter().any(|act| act.id == command.id) {
                    command.branch = branch.to_string();
                }
            }
        }
        result.hunks = file.map(|path| lines_of(&sides, path, params.max_bytes));
        result.duration_ms = elapsed_ms(began);
        Ok(self.first_page(result, params.max_bytes))
    }
}

/// Returns the capture of what both sides descend from.
fn ancestor_of<'a>(
    from: &Subject,
    to: &Subject,
    base: Option<&Commit>,
    sides: &'a (SideOf, SideOf),
    ancestor: Option<&'a Sight>,
) -> Option<&'a Capture> {
    let base = base?;
    let is = |subject: &Subject| subject.commit().is_some_and(|commit| commit.id == base.id);
    match (is(from), is(to)) {
        (true, _) => Some(&sides.0.sight.capture),
        (_, true) => Some(&sides.1.sight.capture),
        _ => ancestor.map(|sight| &sight.capture),
    }
}

/// Returns the packages that differ by the paths of their files.
fn owners(from: &Sight, to: &Sight) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    for (sight, other) in [(from, to), (to, from)] {
        for (package, paths) in &sight.lists {
            if sight.capture.packages.get(package) != other.capture.packages.get(package) {
                owners.extend(paths.iter().map(|path| (path.clone(), package.clone())));
            }
        }
    }
    owners
}

fn lines_of(sides: &(SideOf, SideOf), path: &str, max_bytes: u64) -> String {
    let text = |side: &SideOf| match side.sight.capture.files.contains_key(path) {
        true => side.sight.files.get(path).cloned().flatten(),
        false => Some(String::new()),
    };
    let (Some(before), Some(after)) = (text(&sides.0), text(&sides.1)) else {
        return "(it is no text, too long, or was not kept)".to_owned();
    };
    let mut text = unified(&hunks(&before, &after));
    let most = usize::try_from(max_bytes / 2).unwrap_or(usize::MAX);
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push_str("\n… more is left out; raise `max_bytes`\n");
    }
    text
}
