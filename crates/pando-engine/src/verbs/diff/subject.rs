//! What a comparison names: a live branch, a commit or a kept capture, on one node; and what was
//! before it and done in it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pando_api::state::StateDiffParams;
use pando_api::{ApiError, Caller};
use pando_diff::Act;
use pando_model::{Address, BranchId, CaptureId, Cluster, Commit, CommitId, ErrorCode, Name};

use super::nanoseconds;
use crate::captures::Kept;
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::resolve::{Source, Target};

/// Most commits that are followed in search of a common ancestor.
const MAX_ANCESTORS: usize = 10_000;

/// One of the two that are compared.
pub(super) enum Subject {
    Live(Target),
    Commit(Cluster, Commit, Name),
    Kept(Box<Kept>, String),
}

impl Subject {
    pub(super) fn label(&self) -> String {
        match self {
            Self::Live(target) => target.place.address(),
            Self::Commit(_, commit, _) => commit.id.to_string(),
            Self::Kept(_, id) => id.clone(),
        }
    }

    pub(super) fn node(&self) -> &Name {
        match self {
            Self::Live(target) => &target.node,
            Self::Commit(_, _, node) => node,
            Self::Kept(kept, _) => &kept.node,
        }
    }

    /// The branch that it is or was on.
    pub(super) fn branch(&self) -> &BranchId {
        match self {
            Self::Live(target) => &target.place.branch.id,
            Self::Commit(_, commit, _) => &commit.branch,
            Self::Kept(kept, _) => &kept.branch,
        }
    }

    pub(super) fn head(&self) -> Option<&CommitId> {
        match self {
            Self::Live(target) => target.place.branch.head.as_ref(),
            Self::Commit(_, commit, _) => Some(&commit.id),
            Self::Kept(kept, _) => kept.head.as_ref(),
        }
    }

    /// The last instant that it shows.
    pub(super) fn until(&self) -> Timestamp {
        match self {
            Self::Live(_) => Timestamp::now(),
            Self::Commit(_, commit, _) => commit.created_at,
            Self::Kept(kept, _) => kept.at,
        }
    }

    pub(super) const fn commit(&self) -> Option<&Commit> {
        match self {
            Self::Commit(_, commit, _) => Some(commit),
            Self::Live(_) | Self::Kept(..) => None,
        }
    }
}

/// Returns the node of a commit that is named, or the only one.
fn node_of(commit: &Commit, named: Option<Name>) -> Result<Name> {
    let names = || {
        let names: Vec<&str> = commit.nodes.iter().map(|node| node.name.as_str()).collect();
        names.join(", ")
    };
    match (named, commit.nodes.as_slice()) {
        (Some(name), nodes) if nodes.iter().any(|node| node.name == name) => Ok(name),
        (Some(name), _) => Err(Failure::not_found("node", name.as_str()).hint(format!(
            "{} has {}",
            commit.id,
            names()
        ))),
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => {
            let message = format!("{} has several nodes; name one", commit.id);
            Err(Failure::new(ErrorCode::Ambiguous, message).hint(format!(
                "{}/NODE, with one of {}",
                commit.id,
                names()
            )))
        }
    }
}

impl Engine {
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
                let node = node_of(&commit, named)?;
                Ok(Subject::Commit(cluster, commit, node))
            }
        }
    }

    /// Returns both subjects. With only one, a branch is compared with its latest commit.
    pub(super) async fn subjects(
        &self,
        caller: &Caller,
        params: &StateDiffParams,
    ) -> Result<(Subject, Subject)> {
        let first = self.subject(caller, params.from.as_ref()).await?;
        if let Some(to) = &params.to {
            // Whoever compares a node of one branch means the same node of the other.
            let named = params.from.as_ref().and_then(|from| from.node.clone());
            let to = Address { node: to.node.clone().or(named), ..to.clone() };
            return Ok((first, self.subject(caller, Some(&to)).await?));
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
    pub(super) async fn ancestry(&self, head: Option<&CommitId>) -> Result<Vec<Commit>> {
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
    pub(super) async fn acts_since(
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
                act: record.entry.act.clone(),
                command: match record.entry.act.as_str() {
                    "push" => format!("write {}", record.entry.detail),
                    "control" => format!("vm control {}", record.entry.detail),
                    _ => record.entry.detail.clone(),
                },
                from_ns: nanoseconds(record.entry.at),
                until_ns,
            })
        };
        Ok(records.into_iter().filter_map(act).collect())
    }
}
