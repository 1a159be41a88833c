//! `state_capture` and `state_diff`: gather captures, have them compared, say because of what.
//!
//! ```text
//!   from ─┐ resolve ─▶ common ancestor ─▶ captures ─▶ digests of candidates ─▶ pando-diff
//!   to   ─┘            (commit graph)     (live: now;  (where sizes are equal)     │
//!                                          commit: once, kept)     journal ─▶ blame ┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use pando_api::page::Page;
use pando_api::state::{
    AspectCount, CommandChanges, StateCaptureParams, StateCaptureResult, StateDiffParams,
    StateDiffResult,
};
use pando_api::{ApiError, Caller};
use pando_diff::{
    Act, Comparison, Material, blame, blame_removal, candidates, compare, hunks, unified,
};
use pando_model::capture::{Aspect, Capture, Coverage};
use pando_model::change::{Change, ChangeKind, Severity, Side};
use pando_model::{
    Address, BranchId, CaptureId, Cluster, Commit, CommitId, ErrorCode, JournalId, Name,
};
use tokio::time::Instant;

use crate::captures::{Kept, Sight, lists};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::ops::look::Wanted;
use crate::resolve::{Source, Target};

/// Comparisons that may be read on.
const MAX_COMPARED: usize = 8;
/// Most highlights of a result.
const MAX_HIGHLIGHTS: usize = 8;
/// Most commands of a result.
const MAX_COMMANDS: usize = 20;
/// Most files whose contents are digested for one comparison.
const MAX_CANDIDATES: usize = 20_000;
/// Most commits that are followed in search of a common ancestor.
const MAX_ANCESTORS: usize = 10_000;
/// Longest text of a command, a description or a reason in a result, in characters.
const MAX_WORDS: usize = 160;

/// A comparison that was made.
pub(crate) struct Compared {
    id: JournalId,
    result: StateDiffResult,
}

/// One of the two that are compared.
enum Subject {
    Live(Target),
    Commit(Cluster, Commit, Name),
    Kept(Box<Kept>, String),
}

/// A side of the comparison, captured.
struct SideOf {
    sight: Sight,
    acts: Vec<Act>,
}

fn clipped(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.chars().count() > MAX_WORDS || line.len() < text.trim_end().len() {
        true => line.chars().take(MAX_WORDS).chain(['…']).collect(),
        false => line.to_owned(),
    }
}

fn elapsed_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

impl Subject {
    fn label(&self) -> String {
        match self {
            Self::Live(target) => target.place.address(),
            Self::Commit(_, commit, _) => commit.id.to_string(),
            Self::Kept(_, id) => id.clone(),
        }
    }

    fn node(&self) -> &Name {
        match self {
            Self::Live(target) => &target.node,
            Self::Commit(_, _, node) => node,
            Self::Kept(kept, _) => &kept.node,
        }
    }

    /// The branch that it is or was on.
    fn branch(&self) -> &BranchId {
        match self {
            Self::Live(target) => &target.place.branch.id,
            Self::Commit(_, commit, _) => &commit.branch,
            Self::Kept(kept, _) => &kept.branch,
        }
    }

    fn head(&self) -> Option<&CommitId> {
        match self {
            Self::Live(target) => target.place.branch.head.as_ref(),
            Self::Commit(_, commit, _) => Some(&commit.id),
            Self::Kept(kept, _) => kept.head.as_ref(),
        }
    }

    /// The last instant that it shows.
    fn until(&self) -> Timestamp {
        match self {
            Self::Live(_) => Timestamp::now(),
            Self::Commit(_, commit, _) => commit.created_at,
            Self::Kept(kept, _) => kept.at,
        }
    }

    const fn commit(&self) -> Option<&Commit> {
        match self {
            Self::Commit(_, commit, _) => Some(commit),
            Self::Live(_) | Self::Kept(..) => None,
        }
    }
}

fn unknown_of(capture: &Capture) -> BTreeMap<String, String> {
    let why = |(aspect, coverage): (&Aspect, &Coverage)| match coverage {
        Coverage::Complete => None,
        Coverage::Partial(why) | Coverage::Absent(why) => {
            Some((aspect.as_str().to_owned(), clipped(why)))
        }
    };
    capture.coverage.iter().filter_map(why).collect()
}

fn counts_of(capture: &Capture) -> BTreeMap<String, u64> {
    let config = capture.files.keys().filter(|path| path.starts_with("/etc/")).count();
    let counts = [
        (Aspect::Packages, capture.packages.len()),
        (Aspect::Config, config),
        (Aspect::Files, capture.files.len() - config),
        (Aspect::Services, capture.services.len()),
        (Aspect::Users, capture.users.len()),
        (Aspect::Ports, capture.ports.len()),
        (Aspect::Processes, capture.processes.len()),
        (Aspect::Env, capture.env.len()),
        (Aspect::Kernel, capture.kernel.len()),
    ];
    let asked = counts.into_iter().filter(|(aspect, _)| capture.coverage.contains_key(aspect));
    asked.map(|(aspect, count)| (aspect.as_str().to_owned(), count as u64)).collect()
}

impl Engine {
    pub(super) async fn state_capture(
        &self,
        caller: &Caller,
        params: StateCaptureParams,
    ) -> Result<StateCaptureResult> {
        let began = Instant::now();
        let target = self.target(&caller.principal, params.address.as_ref()).await?;
        self.must_run(&target.place)?;
        let aspects = if params.aspects.is_empty() { Aspect::ALL } else { &params.aspects };
        let capture = self.capture_live(&target, aspects).await?;
        let (counts, unknown) = (counts_of(&capture), unknown_of(&capture));
        let id = CaptureId::random();
        let captured_at = Timestamp::now();
        let address = format!("{}/{}", target.place.address(), target.node);
        let kept = Kept {
            branch: target.place.branch.id.clone(),
            address: address.clone(),
            head: target.place.branch.head.clone(),
            node: target.node.clone(),
            at: captured_at,
            sight: Sight { capture, ..Sight::default() },
        };
        self.keep(id.as_str(), kept)
            .await
            .map_err(|error| Failure::internal(format!("the capture cannot be kept: {error}")))?;
        let duration_ms = elapsed_ms(began);
        Ok(StateCaptureResult {
            capture_id: id,
            captured_at,
            address,
            counts,
            unknown,
            duration_ms,
        })
    }

    async fn capture_live(&self, target: &Target, aspects: &[Aspect]) -> Result<Capture> {
        let host_id = &target.place.branch.host_id;
        let captured = self.host.capture(host_id, &target.node, aspects).await;
        let captured = captured.map_err(|error| {
            let old = matches!(error, pando_driver::HostError::GuestRefused { .. });
            let failure = Failure::from(error);
            match old {
                true => failure.hint(
                    "its guest program may be older than this pando: build the image anew, and \
                     make a new machine of it",
                ),
                false => failure,
            }
        });
        self.notice_loss(captured)
    }

    /// Returns what an address names, on the node that it names or the only one.
    async fn subject(&self, caller: &Caller, address: Option<&Address>) -> Result<Subject> {
        if let Some(address) = address
            && let Ok(id) = address.cluster.parse::<CaptureId>()
        {
            let kept = self.kept_as(id.as_str()).await;
            let kept = kept.ok_or_else(|| Failure::not_found("capture", id.as_str()))?;
            return Ok(Subject::Kept(Box::new(kept), id.to_string()));
        }
        match self.source(&caller.principal, address).await? {
            Source::Branch(_) => Ok(Subject::Live(self.target(&caller.principal, address).await?)),
            Source::Commit(cluster, commit) => {
                let named = address.and_then(|address| address.node.clone());
                let only = commit.nodes.first().map(|node| node.name.clone());
                let node = named.or(only);
                let node = node.ok_or_else(|| Failure::internal("a commit without nodes"))?;
                Ok(Subject::Commit(cluster, commit, node))
            }
        }
    }

    /// Returns both subjects. With only one, a branch is compared with its latest commit.
    async fn subjects(
        &self,
        caller: &Caller,
        params: &StateDiffParams,
    ) -> Result<(Subject, Subject)> {
        let first = self.subject(caller, params.from.as_ref()).await?;
        if params.to.is_some() {
            return Ok((first, self.subject(caller, params.to.as_ref()).await?));
        }
        let Subject::Live(target) = &first else {
            return Err(ApiError::parameter("to", "a commit is compared with what?")
                .hint("name a branch or another commit as well")
                .into());
        };
        let Some(head) = &target.place.branch.head else {
            let message = format!("{} has no commit to compare it with", target.place.address());
            return Err(Failure::new(ErrorCode::NotFound, message)
                .hint("`pando commit` makes one; `pando capture` notes the state for later"));
        };
        let commit = self.commit_by_id(head).await?;
        let before = Subject::Commit(target.place.cluster.clone(), commit, target.node.clone());
        Ok((before, first))
    }

    /// Returns a commit and those before it, newest first.
    async fn ancestry(&self, head: Option<&CommitId>) -> Result<Vec<Commit>> {
        let mut line = Vec::new();
        let mut next = head.cloned();
        while let Some(id) = next.take().filter(|_| line.len() < MAX_ANCESTORS) {
            let Some(commit): Option<Commit> = self.store.get(id.as_str()).await? else { break };
            next = commit.parent.clone();
            line.push(commit);
        }
        Ok(line)
    }

    /// Returns what was done on a side since the common ancestor, oldest first.
    async fn acts_since(
        &self,
        subject: &Subject,
        line: &[Commit],
        base: Option<&Commit>,
    ) -> Result<Vec<Act>> {
        // Until when each branch of the line counts: the point where the next one left it.
        let mut until: BTreeMap<BranchId, Timestamp> = BTreeMap::new();
        until.insert(subject.branch().clone(), subject.until());
        for commit in line.iter().take_while(|commit| Some(&commit.id) != base.map(|b| &b.id)) {
            until.entry(commit.branch.clone()).or_insert(commit.created_at);
        }
        let since = base.map(|base| base.created_at);
        let records = self.acts(until.keys().cloned().collect(), since).await?;
        let now = nanoseconds(Timestamp::now());
        let node = subject.node();
        let act = |record: pando_driver::store::JournalRecord| {
            let (branch, of) = record.entry.target.split_once('/')?;
            let end = until.get(&branch.parse::<BranchId>().ok()?)?;
            let counts =
                of == node.as_str() && record.entry.act != "pull" && record.entry.at <= *end;
            let until_ns = record.end.as_ref().map_or(now, |end| nanoseconds(end.at));
            counts.then(|| Act {
                id: record.entry.id.clone(),
                command: match record.entry.act.as_str() {
                    "push" => format!("write {}", record.entry.detail),
                    _ => record.entry.detail.clone(),
                },
                from_ns: nanoseconds(record.entry.at),
                until_ns,
            })
        };
        Ok(records.into_iter().filter_map(act).collect())
    }

    /// Captures a side. Of a live one, digests come later; of a commit that is looked into, what
    /// the comparison with `against` needs is taken along.
    async fn sight(
        &self,
        subject: &Subject,
        aspects: &[Aspect],
        against: Option<Arc<Capture>>,
    ) -> Result<Sight> {
        match subject {
            Subject::Live(target) => {
                self.must_run(&target.place)?;
                let capture = self.capture_live(target, aspects).await?;
                Ok(Sight { capture, ..Sight::default() })
            }
            Subject::Commit(cluster, commit, node) => {
                self.sight_of_commit(cluster, commit, node, against).await
            }
            Subject::Kept(kept, _) => Ok(kept.sight.clone()),
        }
    }

    /// Gets the digests, the packages' lists and the file that a comparison still lacks.
    async fn complete(
        &self,
        subject: &Subject,
        sight: &mut Sight,
        other: &Capture,
        digests: &[String],
        file: Option<&String>,
    ) -> Result<()> {
        let lacking: Vec<String> = digests
            .iter()
            .filter(|path| !sight.capture.digests.contains_key(*path))
            .cloned()
            .collect();
        match subject {
            Subject::Live(target) => {
                let (host_id, node) = (&target.place.branch.host_id, &target.node);
                let names = lists(&sight.capture, other);
                self.read_lists(host_id, node, names, sight).await;
                if !lacking.is_empty() {
                    let found = self.host.digests(host_id, node, &lacking).await?;
                    sight.capture.digests.extend(found);
                }
                if let Some(path) = file {
                    let text = self.read_text(host_id, node, path).await?;
                    sight.files.insert(path.clone(), text);
                }
            }
            Subject::Commit(cluster, commit, node) => {
                if lacking.is_empty() && file.is_none() {
                    return Ok(());
                }
                let files = file.into_iter().cloned().collect();
                let wanted = Wanted { digests: lacking, files, ..Wanted::default() };
                let seen = self.look_into(cluster, commit, node, wanted).await?;
                sight.capture.digests.extend(seen.capture.digests);
                sight.files = seen.files;
                self.keep_commit(commit, node, sight).await;
            }
            // What was not noted then is gone.
            Subject::Kept(..) => {}
        }
        Ok(())
    }

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

    /// Captures both sides and the commit that they descend from, as much at once as can be.
    async fn sights(
        &self,
        from: &Subject,
        to: &Subject,
        base: Option<&Commit>,
        aspects: &[Aspect],
    ) -> Result<(Sight, Sight, Option<Sight>)> {
        let is = |subject: &Subject| {
            base.is_some_and(|base| subject.commit().is_some_and(|commit| commit.id == base.id))
        };
        let ancestor = async {
            let base = base.filter(|_| !is(from) && !is(to))?;
            let (Subject::Live(Target { place: crate::resolve::Place { cluster, .. }, .. })
            | Subject::Commit(cluster, ..)) = to
            else {
                return None;
            };
            // Without it is only unknown who changed what.
            match self.sight_of_commit(cluster, base, to.node(), None).await {
                Ok(sight) => Some(sight),
                Err(failure) => {
                    tracing::info!(commit = %base.id, error = %failure.0, "no look at the ancestor");
                    None
                }
            }
        };
        let sides = async {
            // Of a commit is asked what the other side makes necessary: so that one goes first.
            if from.commit().is_some() {
                let second = self.sight(to, aspects, None).await?;
                let against = Some(Arc::new(second.capture.clone()));
                let first = self.sight(from, aspects, against).await?;
                return Ok((first, second));
            }
            if to.commit().is_some() {
                let first = self.sight(from, aspects, None).await?;
                let against = Some(Arc::new(first.capture.clone()));
                let second = self.sight(to, aspects, against).await?;
                return Ok((first, second));
            }
            let (first, second) =
                tokio::join!(self.sight(from, aspects, None), self.sight(to, aspects, None));
            Ok::<_, Failure>((first?, second?))
        };
        let (sides, ancestor) = tokio::join!(sides, ancestor);
        let (first, second) = sides?;
        Ok((first, second, ancestor))
    }

    fn first_page(&self, result: StateDiffResult, max_bytes: u64) -> StateDiffResult {
        let compared = Arc::new(Compared { id: JournalId::random(), result });
        let shown = page_of(&compared, 0, max_bytes);
        if shown.page.truncated {
            let mut all = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
            all.push_back(compared);
            while all.len() > MAX_COMPARED {
                all.pop_front();
            }
        }
        shown
    }

    fn read_on(&self, cursor: &str, max_bytes: u64) -> Result<StateDiffResult> {
        let gone = || {
            ApiError::parameter("cursor", "the comparison is not kept any more")
                .hint("leave the cursor out to compare again")
        };
        let (id, start) = cursor.split_once(':').ok_or_else(gone)?;
        let start = start.parse().map_err(|_| gone())?;
        let all = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        let compared = all.iter().find(|compared| compared.id.as_str() == id).ok_or_else(gone)?;
        Ok(page_of(compared, start, max_bytes))
    }
}

/// Returns as many differences from `start` on as fit, with everything else.
fn page_of(compared: &Compared, start: usize, max_bytes: u64) -> StateDiffResult {
    let all = &compared.result;
    let total = all.differences.len();
    let rest = StateDiffResult { differences: Vec::new(), ..all.clone() };
    let size =
        |value: &dyn Fn() -> serde_json::Result<String>| value().map_or(0, |text| text.len());
    // The envelope and the page's own fields take some as well.
    let mut used = size(&|| serde_json::to_string(&rest)) + 256;
    let budget = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut differences = Vec::new();
    for change in all.differences.iter().skip(start) {
        used += size(&|| serde_json::to_string(change)) + 1;
        if used > budget && !differences.is_empty() {
            break;
        }
        differences.push(change.clone());
    }
    let end = start + differences.len();
    let truncated = end < total;
    let page = Page {
        total: total as u64,
        returned: differences.len() as u64,
        truncated,
        next_cursor: truncated.then(|| format!("{}:{end}", compared.id)),
    };
    StateDiffResult { differences, page, ..rest }
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

/// Returns the result of a comparison, its changes attributed; what is compared is still to be
/// said.
fn summary(
    comparison: Comparison,
    sides: &(SideOf, SideOf),
    since: Option<&JournalId>,
) -> Result<StateDiffResult> {
    let all = || sides.0.acts.iter().chain(&sides.1.acts);
    let since = match since {
        None => None,
        Some(id) => {
            Some(all().find(|act| act.id == *id).map(|act| act.from_ns).ok_or_else(|| {
                Failure::not_found(
                    "command on these branches since their common commit",
                    id.as_str(),
                )
                .hint("`pando history` lists them")
            })?)
        }
    };
    let mut differences = Vec::new();
    for found in comparison.found {
        let mut change = found.change;
        for when in &found.when {
            let side = if when.side == Side::From { &sides.0 } else { &sides.1 };
            let gone = change.change == ChangeKind::Removed
                && matches!(change.aspect, Aspect::Files | Aspect::Config);
            let causes = match gone {
                true => blame_removal(&side.acts, &change.subject, when.ns),
                false => blame(&side.acts, when.ns, when.exact),
            };
            for cause in causes {
                if !change.causes.iter().any(|known| known.id == cause.id) {
                    change.causes.push(cause);
                }
            }
            // Without anything at work then, the time of something near says nothing.
            if when.exact || !change.causes.is_empty() {
                change.at = Timestamp::from_nanosecond(i128::from(when.ns)).ok();
            }
        }
        for cause in &mut change.causes {
            cause.command = clipped(&cause.command);
        }
        let late = |since: i64| change.at.is_some_and(|at| nanoseconds(at) + 25_000_000 >= since);
        if since.is_none_or(late) {
            differences.push(change);
        }
    }
    let mut counts: BTreeMap<Aspect, AspectCount> = BTreeMap::new();
    for change in &differences {
        let aspect = change.aspect;
        let empty = AspectCount { aspect, added: 0, removed: 0, changed: 0 };
        let count = counts.entry(aspect).or_insert(empty);
        match change.change {
            ChangeKind::Added => count.added += 1,
            ChangeKind::Removed => count.removed += 1,
            _ => count.changed += 1,
        }
    }
    let mut commands: Vec<CommandChanges> = Vec::new();
    for act in all() {
        let because = |change: &&Change| change.causes.iter().any(|cause| cause.id == act.id);
        let changes = differences.iter().filter(because).count() as u64;
        if changes > 0 && !commands.iter().any(|command| command.id == act.id) {
            let push = act.command.starts_with("write /");
            commands.push(CommandChanges {
                id: act.id.clone(),
                act: if push { "push" } else { "exec" }.to_owned(),
                command: clipped(&act.command),
                branch: String::new(),
                changes,
            });
        }
    }
    // Those that did most stay, in their order.
    if commands.len() > MAX_COMMANDS {
        let mut most: Vec<u64> = commands.iter().map(|command| command.changes).collect();
        most.sort_unstable_by(|a, b| b.cmp(a));
        let least = most.get(MAX_COMMANDS - 1).copied().unwrap_or(0);
        commands.retain(|command| command.changes >= least);
        commands.truncate(MAX_COMMANDS);
    }
    let important = differences.iter().filter(|change| change.severity != Severity::Low);
    let unknown: BTreeMap<String, String> = comparison
        .unknown
        .iter()
        .map(|(aspect, why)| (aspect.as_str().to_owned(), clipped(why)))
        .collect();
    let suppressed = comparison.suppressed.iter().map(|(why, count)| ((*why).to_owned(), *count));
    Ok(StateDiffResult {
        from: String::new(),
        to: String::new(),
        base: None,
        equal: differences.is_empty() && unknown.is_empty(),
        counts: counts.into_values().collect(),
        highlights: important.take(MAX_HIGHLIGHTS).map(highlight).collect(),
        commands,
        unexplained: differences.iter().filter(|change| change.causes.is_empty()).count() as u64,
        differences,
        suppressed: suppressed.collect(),
        unknown,
        hunks: None,
        duration_ms: 0,
        page: Page::default(),
    })
}

fn highlight(change: &Change) -> String {
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
