//! What a comparison names: a live branch, a commit or a kept capture; which nodes of them; and what
//! was before them and done in them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pando_api::state::StateDiffParams;
use pando_api::{ApiError, Caller};
use pando_diff::Act;
use pando_model::{Address, BranchId, CaptureId, Cluster, Commit, CommitId, ErrorCode, Name};

use super::nanoseconds;
use crate::captures::Kept;
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::resolve::{Place, Source};

/// Most commits that are followed in search of a common ancestor.
const MAX_ANCESTORS: usize = 10_000;

/// One of the two that are compared.
pub(super) enum Subject {
    Live(Place),
    Commit(Cluster, Commit),
    Kept(Box<Kept>, String),
}

impl Subject {
    pub(super) fn label(&self) -> String {
        match self {
            Self::Live(place) => place.address(),
            Self::Commit(_, commit) => commit.id.to_string(),
            Self::Kept(_, id) => id.clone(),
        }
    }

    pub(super) fn nodes(&self) -> Vec<Name> {
        match self {
            Self::Live(place) => place.branch.nodes.iter().map(|node| node.name.clone()).collect(),
            Self::Commit(_, commit) => commit.nodes.iter().map(|node| node.name.clone()).collect(),
            Self::Kept(kept, _) => vec![kept.node.clone()],
        }
    }

    /// The branch that it is or was on.
    pub(super) fn branch(&self) -> &BranchId {
        match self {
            Self::Live(place) => &place.branch.id,
            Self::Commit(_, commit) => &commit.branch,
            Self::Kept(kept, _) => &kept.branch,
        }
    }

    pub(super) fn head(&self) -> Option<&CommitId> {
        match self {
            Self::Live(place) => place.branch.head.as_ref(),
            Self::Commit(_, commit) => Some(&commit.id),
            Self::Kept(kept, _) => kept.head.as_ref(),
        }
    }

    /// The last instant that it shows.
    pub(super) fn until(&self) -> Timestamp {
        match self {
            Self::Live(_) => Timestamp::now(),
            Self::Commit(_, commit) => commit.created_at,
            Self::Kept(kept, _) => kept.at,
        }
    }

    pub(super) const fn commit(&self) -> Option<&Commit> {
        match self {
            Self::Commit(_, commit) => Some(commit),
            Self::Live(_) | Self::Kept(..) => None,
        }
    }

    pub(super) const fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Live(place) => Some(&place.cluster),
            Self::Commit(cluster, _) => Some(cluster),
            Self::Kept(..) => None,
        }
    }

    /// Returns the node that is named, the only one, or the one that the other side names.
    fn node(&self, named: Option<&Name>, others: Option<&Name>) -> Result<Name> {
        let nodes = self.nodes();
        match (named, nodes.as_slice(), others) {
            (None, [only], _) => Ok(only.clone()),
            (Some(name), nodes, _) | (None, nodes, Some(name)) if nodes.contains(name) => {
                Ok(name.clone())
            }
            (Some(name), ..) | (None, _, Some(name)) => Err(Failure::not_found(
                "node",
                name.as_str(),
            )
            .hint(format!("{} has {}", self.label(), self.listed()))),
            (None, ..) => {
                let message = format!("{} has several nodes; name one", self.label());
                Err(Failure::new(ErrorCode::Ambiguous, message).hint(format!(
                    "{}/NODE, with one of {}",
                    self.label(),
                    self.listed()
                )))
            }
        }
    }

    fn listed(&self) -> String {
        self.nodes().iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Two nodes that are compared: that of the first side and that of the second.
pub(super) type Pair = (Name, Name);

/// How much of two subjects is compared.
pub(super) enum Scope {
    OneNode(Pair),
    /// Every node that either side has, with its namesake.
    AllNodes(Vec<Name>),
}

/// What was before two subjects.
#[derive(Default)]
pub(super) struct Ancestry {
    /// The commits of each side's line, newest first, down to where they meet.
    pub lines: [Vec<Commit>; 2],
    /// The commit where they meet.
    pub base: Option<Commit>,
}

/// Both subjects, and what of them.
pub(super) struct Question {
    pub from: Subject,
    pub to: Subject,
    pub scope: Scope,
}

impl Question {
    /// Compares the named nodes; without any name, all where either side has several.
    fn new(
        (from, from_node): (Subject, Option<Name>),
        (to, to_node): (Subject, Option<Name>),
    ) -> Result<Self> {
        let own = |subject: &Subject, named: Option<Name>| match subject {
            Subject::Kept(kept, _) => Some(kept.node.clone()),
            Subject::Live(_) | Subject::Commit(..) => named,
        };
        let (first, second) = (own(&from, from_node), own(&to, to_node));
        let (ours, theirs) = (from.nodes(), to.nodes());
        let one = first.is_some() || second.is_some() || ours.len() == 1 && theirs.len() == 1;
        let scope = if one {
            // Whoever compares a node of one side means the same node of the other.
            let ours = from.node(first.as_ref(), second.as_ref())?;
            let theirs = to.node(second.as_ref(), first.as_ref())?;
            Scope::OneNode((ours, theirs))
        } else {
            let known: BTreeSet<Name> = ours.iter().cloned().collect();
            let new = theirs.into_iter().filter(|name| !known.contains(name));
            let all = ours.iter().cloned().chain(new);
            Scope::AllNodes(all.collect())
        };
        Ok(Self { from, to, scope })
    }
}

impl Engine {
    async fn subject(&self, caller: &Caller, address: Option<&Address>) -> Result<Subject> {
        if let Some(address) = address
            && let Ok(id) = address.cluster.parse::<CaptureId>()
        {
            let kept = self.kept_as(id.as_str()).await;
            let kept = kept.ok_or_else(|| Failure::not_found("capture", id.as_str()))?;
            return Ok(Subject::Kept(Box::new(kept), id.to_string()));
        }
        Ok(match self.source(&caller.principal, address).await? {
            Source::Branch(place) => Subject::Live(place),
            Source::Commit(cluster, commit) => Subject::Commit(cluster, commit),
        })
    }

    /// Returns what is to be compared. With only one subject, a branch is compared with its latest
    /// commit.
    pub(super) async fn question(
        &self,
        caller: &Caller,
        params: &StateDiffParams,
    ) -> Result<Question> {
        let node = |address: &Option<Address>| address.as_ref().and_then(|one| one.node.clone());
        let first = self.subject(caller, params.from.as_ref()).await?;
        let named = node(&params.from);
        if let Some(to) = &params.to {
            let second = self.subject(caller, Some(to)).await?;
            return Question::new((first, named), (second, node(&params.to)));
        }
        let Subject::Live(place) = &first else {
            return Err(ApiError::parameter("to", "a commit is compared with what?")
                .hint("name a branch or another commit as well")
                .into());
        };
        let Some(head) = &place.branch.head else {
            let message = format!("{} has no commit to compare it with", place.address());
            return Err(Failure::new(ErrorCode::NotFound, message)
                .hint("`pando commit` makes one; `pando capture` notes the state for later"));
        };
        let commit = self.commit_by_id(head).await?;
        let before = Subject::Commit(place.cluster.clone(), commit);
        Question::new((before, named.clone()), (first, named))
    }

    /// Follows two commits back to where their lines meet, the younger one of both next, so that
    /// little more is read than what is not common.
    pub(super) async fn ancestry(&self, heads: [Option<&CommitId>; 2]) -> Result<Ancestry> {
        let mut lines: [Vec<Commit>; 2] = Default::default();
        let mut passed: [BTreeSet<CommitId>; 2] = Default::default();
        let mut next = [self.commit_if(heads[0]).await?, self.commit_if(heads[1]).await?];
        loop {
            for (side, other) in [(0, 1), (1, 0)] {
                let meets = |commit: &Commit| {
                    passed[other].contains(&commit.id)
                        || next[other].as_ref().is_some_and(|there| there.id == commit.id)
                };
                if next[side].as_ref().is_some_and(meets) {
                    return Ok(Ancestry { lines, base: next[side].take() });
                }
            }
            let side = match &next {
                [None, None] => return Ok(Ancestry { lines, base: None }),
                [Some(_), None] => 0,
                [None, Some(_)] => 1,
                [Some(ours), Some(theirs)] => usize::from(ours.created_at < theirs.created_at),
            };
            let Some(commit) = next[side].take() else { continue };
            if lines[side].len() + 1 < MAX_ANCESTORS {
                next[side] = self.commit_if(commit.parent.as_ref()).await?;
            }
            passed[side].insert(commit.id.clone());
            lines[side].push(commit);
        }
    }

    async fn commit_if(&self, id: Option<&CommitId>) -> Result<Option<Commit>> {
        match id {
            Some(id) => Ok(self.store.get(id.as_str()).await?),
            None => Ok(None),
        }
    }

    /// Returns what was done on a side since the common ancestor, by node, oldest first.
    pub(super) async fn acts_since(
        &self,
        subject: &Subject,
        line: &[Commit],
        base: Option<&Commit>,
    ) -> Result<BTreeMap<String, Vec<Act>>> {
        // Until when each branch of the line counts: the point where the next one left it.
        let mut until: BTreeMap<BranchId, Timestamp> = BTreeMap::new();
        until.insert(subject.branch().clone(), subject.until());
        for commit in line.iter().take_while(|commit| Some(&commit.id) != base.map(|b| &b.id)) {
            until.entry(commit.branch.clone()).or_insert(commit.created_at);
        }
        let since = base.map(|base| base.created_at);
        let records = self.acts(until.keys().cloned().collect(), since).await?;
        let now = nanoseconds(Timestamp::now());
        let mut acts: BTreeMap<String, Vec<Act>> = BTreeMap::new();
        for record in records {
            let Some((branch, node)) = record.entry.target.split_once('/') else { continue };
            let end = branch.parse::<BranchId>().ok().and_then(|branch| until.get(&branch));
            if record.entry.act == "pull" || end.is_none_or(|end| record.entry.at > *end) {
                continue;
            }
            acts.entry(node.to_owned()).or_default().push(Act {
                id: record.entry.id.clone(),
                act: record.entry.act.clone(),
                command: match record.entry.act.as_str() {
                    "push" => format!("write {}", record.entry.detail),
                    "control" => format!("vm control {}", record.entry.detail),
                    _ => record.entry.detail.clone(),
                },
                from_ns: nanoseconds(record.entry.at),
                until_ns: record.end.as_ref().map_or(now, |end| nanoseconds(end.at)),
            });
        }
        Ok(acts)
    }
}
