//! `state_diff`: gather captures, have them compared, say because of what.
//!
//! ```text
//!   from ─┐ resolve ─▶ common ancestor ─▶ captures ─▶ digests of candidates ─▶ pando-diff
//!   to   ─┘ (subject)  (commit graph)     (sights)     (where sizes are equal)     │ each node
//!                                                       journal ─▶ blame (summary) ┤
//!                      whole clusters: nodes' states, faults, reachability (between) ▼
//!                                                                              (clusters)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use pando_api::Caller;
use pando_api::state::{StateDiffParams, StateDiffResult};
use pando_diff::{Material, candidates, compare, hunks, unified};
use pando_model::capture::{Aspect, Capture};
use pando_model::{Commit, Name};
use tokio::time::Instant;

use self::sights::{Seen, SideOf, Sights};
use self::subject::{Ancestry, Pair, Question, Scope, Subject};
use self::summary::summary;
use crate::captures::Sight;
use crate::engine::Engine;
use crate::failure::{Failure, Result};

mod between;
mod clusters;
mod pages;
mod sights;
mod subject;
mod summary;

pub(crate) use self::between::{MAX_PROBED_NODES, how_to_ask};
pub(crate) use self::pages::Compared;

/// Most files of a node whose contents are digested for one comparison.
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
        let question = self.question(caller, &params).await?;
        let mut result = match &question.scope {
            Scope::OneNode(pair) => self.diff_of_node(&question, pair, &params).await?,
            Scope::AllNodes(nodes) => self.diff_of_cluster(&question, nodes, &params).await?,
        };
        result.from = question.from.label();
        result.to = question.to.label();
        result.duration_ms = elapsed_ms(began);
        Ok(self.first_page(result, params.max_bytes))
    }

    async fn diff_of_node(
        &self,
        question: &Question,
        pair: &Pair,
        params: &StateDiffParams,
    ) -> Result<StateDiffResult> {
        for subject in [&question.from, &question.to] {
            if let Subject::Live(place) = subject {
                self.must_run(place)?;
            }
        }
        let mut compared = self.compared(question, std::slice::from_ref(pair), params).await?;
        let result = compared.remove(&pair.1);
        result.unwrap_or_else(|| Err(Failure::internal("a node was not compared")))
    }

    /// Compares pairs of nodes. The results, by the names on the second side, have still to be
    /// told what they compare.
    async fn compared(
        &self,
        question: &Question,
        pairs: &[Pair],
        params: &StateDiffParams,
    ) -> Result<BTreeMap<Name, Result<StateDiffResult>>> {
        let Question { from, to, .. } = question;
        let Ancestry { lines, base } = self.ancestry([from.head(), to.head()]).await?;
        let base = base.as_ref();
        // Everything is captured: a commit's capture is kept for whatever is asked next.
        let mut seen = self.sights(from, to, base, pairs).await?;
        let left_open = self.digest(question, pairs, &mut seen, params.hunks.as_ref()).await?;
        let mut acts = (
            self.acts_since(from, &lines[0], base).await?,
            self.acts_since(to, &lines[1], base).await?,
        );
        let all = acts.0.values().chain(acts.1.values()).flatten();
        let since = params.since.as_ref().map(|id| summary::beginning_of(all, id)).transpose()?;
        let mut results = BTreeMap::new();
        for (ours, theirs) in pairs {
            let side =
                |sights: &mut Sights, subject: &Subject, node: &Name, acts: Option<Vec<_>>| {
                    let sight = sights.remove(node);
                    let sight =
                        sight.unwrap_or_else(|| Err(Failure::internal("nothing was seen")))?;
                    let (branch, node) = (subject.branch().clone(), node.clone());
                    Ok::<_, Failure>(SideOf { sight, branch, node, acts: acts.unwrap_or_default() })
                };
            let first = side(&mut seen.from, from, ours, acts.0.remove(ours.as_str()));
            let second = side(&mut seen.to, to, theirs, acts.1.remove(theirs.as_str()));
            let result = match (first, second) {
                (Ok(first), Ok(second)) => {
                    let sides = (first, second);
                    let ancestor = ancestor_of(question, base, &sides, seen.ancestor.get(theirs));
                    let known = base.filter(|_| ancestor.is_some());
                    let params = params.clone();
                    let work = move || pair_result(&sides, ancestor.as_deref(), &params, since);
                    let mut result = beside(work).await?;
                    say_left_open(&mut result, left_open.get(theirs).copied().unwrap_or(0));
                    result.base = known.map(|one| one.id.to_string());
                    Ok(result)
                }
                (Err(failure), _) | (_, Err(failure)) => Err(failure),
            };
            results.insert(theirs.clone(), result);
        }
        Ok(results)
    }

    /// Gets what captures do not tell. Returns how many files of each node stay uncompared.
    async fn digest(
        &self,
        question: &Question,
        pairs: &[Pair],
        seen: &mut Seen,
        file: Option<&String>,
    ) -> Result<BTreeMap<Name, usize>> {
        let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
        let mut left_open = BTreeMap::new();
        for pair in pairs {
            let sights = (seen.from.get(&pair.0), seen.to.get(&pair.1));
            let (Some(Ok(first)), Some(Ok(second))) = sights else { continue };
            let captures = (Arc::clone(&first.capture), Arc::clone(&second.capture));
            let mut digests = beside(move || candidates(&captures.0, &captures.1)).await?;
            left_open.insert(pair.1.clone(), digests.len().saturating_sub(MAX_CANDIDATES));
            digests.truncate(MAX_CANDIDATES);
            ours.insert(pair.0.clone(), (Arc::clone(&second.capture), digests.clone()));
            theirs.insert(pair.1.clone(), (Arc::clone(&first.capture), digests));
        }
        let (done, also) = tokio::join!(
            self.complete(&question.from, &mut seen.from, ours, file),
            self.complete(&question.to, &mut seen.to, theirs, file),
        );
        done?;
        also?;
        Ok(left_open)
    }
}

/// Does what takes a processor for a while without keeping other calls waiting.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::internal(format!("a comparison ended: {error}")))
}

/// Returns what differs in a pair of nodes.
fn pair_result(
    sides: &(SideOf, SideOf),
    ancestor: Option<&Capture>,
    params: &StateDiffParams,
    since: Option<i64>,
) -> StateDiffResult {
    let aspects = if params.aspects.is_empty() { Aspect::ALL } else { &params.aspects };
    let comparison = compare(&Material {
        from: &sides.0.sight.capture,
        to: &sides.1.sight.capture,
        base: ancestor,
        owners: &owners(&sides.0.sight, &sides.1.sight),
        aspects,
    });
    let mut result = summary(comparison, sides, since);
    result.hunks = params.hunks.as_ref().map(|path| lines_of(sides, path, params.max_bytes));
    result
}

fn say_left_open(result: &mut StateDiffResult, files: usize) {
    if files > 0 {
        let why = format!("the contents of {files} files are not compared");
        result.unknown.insert(Aspect::Files.as_str().to_owned(), why);
        result.equal = false;
    }
}

/// Returns the capture of what both nodes descend from.
fn ancestor_of(
    question: &Question,
    base: Option<&Commit>,
    sides: &(SideOf, SideOf),
    ancestor: Option<&Sight>,
) -> Option<Arc<Capture>> {
    let base = base?;
    let is = |subject: &Subject| subject.commit().is_some_and(|commit| commit.id == base.id);
    let sight = match (is(&question.from), is(&question.to)) {
        (true, _) => Some(&sides.0.sight),
        (_, true) => Some(&sides.1.sight),
        _ => ancestor,
    };
    sight.map(|sight| Arc::clone(&sight.capture))
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
