//! The comparison of whole clusters: each node with its namesake, and what is between them, as one
//! result.

use std::collections::BTreeMap;

use pando_api::ApiError;
use pando_api::page::Page;
use pando_api::state::{
    AspectCount, ClusterDiff, NodeDiff, NodeState, StateDiffParams, StateDiffResult,
};
use pando_driver::host::{EndKind, Observation};
use pando_model::capture::Aspect;
use pando_model::change::{Change, Severity, Side};
use pando_model::{BranchState, Name};

use super::between::Probe;
use super::clipped;
use super::subject::{Pair, Question, Subject};
use super::summary::{MAX_HIGHLIGHTS, highlight, keep_most};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::resolve::Place;

/// Most commands of a result: half of what one node's has, for the rest that it holds.
const MAX_COMMANDS: usize = 10;
/// Most highlights that are of the cluster and not of one node's inside.
const MAX_CLUSTER_HIGHLIGHTS: usize = 5;

/// Under which it is said that it is not known who reaches whom.
const REACHABILITY: &str = "reachability";

/// What a node does, and why it does not run.
type State = (NodeState, Option<String>);

/// Returns what the nodes of a branch do.
fn states_of(place: &Place, seen: Option<&Observation>) -> BTreeMap<Name, State> {
    let branch = &place.branch;
    let state =
        |name: &Name| match seen.and_then(|seen| seen.nodes.iter().find(|n| n.name == *name)) {
            Some(node) => match node.state {
                BranchState::Running => (NodeState::Running, None),
                BranchState::Paused => (NodeState::Paused, None),
                BranchState::Stopped => match &node.ended {
                    Some(end) if end.kind == EndKind::PoweredOff => {
                        (NodeState::ShutOff, Some(end.why.clone()))
                    }
                    end => (NodeState::Crashed, end.as_ref().map(|end| end.why.clone())),
                },
            },
            None if branch.state != BranchState::Stopped => {
                (NodeState::Crashed, Some("its keeper was lost".to_owned()))
            }
            None => match &branch.stopped_because {
                Some(why) if branch.powered_off => (NodeState::ShutOff, Some(why.clone())),
                Some(why) => (NodeState::Crashed, Some(why.clone())),
                None => (NodeState::ShutOff, None),
            },
        };
    branch.nodes.iter().map(|node| (node.name.clone(), state(&node.name))).collect()
}

/// Returns whether two states say the same of a node: what a commit has ran when it was cut.
fn same(from: NodeState, to: NodeState) -> bool {
    let runs = |state| match state {
        NodeState::Running | NodeState::Paused | NodeState::Saved => true,
        NodeState::ShutOff | NodeState::Crashed => false,
    };
    from == to || runs(from) && runs(to) && [from, to].contains(&NodeState::Saved)
}

/// A node, as far as it is known before its inside is compared.
struct Outside {
    node: Name,
    from: Option<State>,
    to: Option<State>,
}

impl Outside {
    /// Returns why its inside cannot be compared.
    fn obstacle(&self, question: &Question) -> Option<String> {
        let sides = [(&self.from, &question.from), (&self.to, &question.to)];
        let [(Some(_), _), (Some(_), _)] = sides else {
            let there = sides.iter().find(|(state, _)| state.is_some());
            return there.map(|(_, subject)| format!("it is on {} only", subject.label()));
        };
        sides.into_iter().find_map(|(state, subject)| match state {
            Some((NodeState::Running | NodeState::Saved, _)) | None => None,
            Some((state, why)) => {
                let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                Some(format!("on {} it is {}{why}", subject.label(), state.as_str()))
            }
        })
    }

    fn is_same(&self) -> bool {
        match (&self.from, &self.to) {
            (Some((from, _)), Some((to, _))) => same(*from, *to),
            _ => false,
        }
    }

    /// Returns the node's part of the result.
    fn told(&self, result: Option<&StateDiffResult>, obstacle: Option<String>) -> NodeDiff {
        NodeDiff {
            node: self.node.clone(),
            from: self.from.as_ref().map(|(state, _)| *state),
            to: self.to.as_ref().map(|(state, _)| *state),
            equal: self.is_same() && result.is_some_and(|result| result.equal),
            total: result.map_or(0, |result| result.differences.len() as u64),
            counts: result.map(|result| result.counts.clone()).unwrap_or_default(),
            unexplained: result.map_or(0, |result| result.unexplained),
            not_compared: obstacle.map(|why| clipped(&why)),
        }
    }

    fn highlight(&self, question: &Question) -> Option<String> {
        let word = |state: &State| state.0.as_str();
        match (&self.from, &self.to) {
            (Some(from), Some(to)) if !same(from.0, to.0) => {
                Some(format!("node {} {} → {}", self.node, word(from), word(to)))
            }
            (Some(_), None) => {
                Some(format!("node {} only on {}", self.node, question.from.label()))
            }
            (None, Some(_)) => Some(format!("node {} only on {}", self.node, question.to.label())),
            _ => None,
        }
    }
}

impl Engine {
    async fn states(&self, subject: &Subject) -> Result<BTreeMap<Name, State>> {
        match subject {
            Subject::Live(place) => {
                let seen = self.host.observe(&place.branch.host_id).await?;
                Ok(states_of(place, seen.as_ref()))
            }
            Subject::Commit(..) | Subject::Kept(..) => {
                let saved = |node| (node, (NodeState::Saved, None));
                Ok(subject.nodes().into_iter().map(saved).collect())
            }
        }
    }

    pub(super) async fn diff_of_cluster(
        &self,
        question: &Question,
        nodes: &[Name],
        params: &StateDiffParams,
    ) -> Result<StateDiffResult> {
        if params.hunks.is_some() {
            let message = "a file's lines are those of one node";
            return Err(ApiError::parameter("hunks", message)
                .hint(format!("name it: {}/NODE", question.from.label()))
                .into());
        }
        let (mut ours, mut theirs) =
            tokio::try_join!(self.states(&question.from), self.states(&question.to))?;
        let outsides: Vec<(Outside, Option<String>)> = nodes
            .iter()
            .map(|node| {
                let (from, to) = (ours.remove(node), theirs.remove(node));
                let outside = Outside { node: node.clone(), from, to };
                let obstacle = outside.obstacle(question);
                (outside, obstacle)
            })
            .collect();
        let free = outsides.iter().filter(|(_, obstacle)| obstacle.is_none());
        let pairs: Vec<Pair> =
            free.map(|(outside, _)| (outside.node.clone(), outside.node.clone())).collect();
        let mut compared = match pairs.is_empty() {
            true => BTreeMap::new(),
            false => self.compared(question, &pairs, params).await?,
        };
        if !compared.is_empty() && compared.values().all(Result::is_err) {
            let first = compared.into_values().find_map(Result::err);
            return Err(first.unwrap_or_else(|| Failure::internal("no node was compared")));
        }
        // Afterwards: what guests are asked here is not to be seen in their captures.
        let probe = if params.aspects.is_empty() { Probe::Ask } else { Probe::Leave };
        let (between, unknown) = self.between(question, probe).await;
        let mut merged = Merged::new(question, between, unknown);
        for (outside, obstacle) in outsides {
            match compared.remove(&outside.node).transpose() {
                Ok(result) => merged.add(&outside, result, obstacle),
                Err(failure) => merged.add(&outside, None, Some(failure.0.message)),
            }
        }
        Ok(merged.result())
    }
}

/// The results of nodes, becoming one.
struct Merged<'a> {
    question: &'a Question,
    result: StateDiffResult,
    counts: BTreeMap<Aspect, AspectCount>,
}

impl<'a> Merged<'a> {
    fn new(question: &'a Question, mut cluster: ClusterDiff, unknown: Option<String>) -> Self {
        let (from, to) = (question.from.label(), question.to.label());
        cluster.one_node = format!("from {from}/NODE, to {to}/NODE");
        let same = cluster.faults_differ == 0 && cluster.reachability.differ == 0;
        let unknown = unknown.map(|why| (REACHABILITY.to_owned(), clipped(&why)));
        let result = StateDiffResult {
            from,
            to,
            base: None,
            equal: same && unknown.is_none(),
            counts: Vec::new(),
            highlights: Vec::new(),
            commands: Vec::new(),
            unexplained: 0,
            differences: Vec::new(),
            suppressed: BTreeMap::new(),
            unknown: unknown.into_iter().collect(),
            nodes: Vec::new(),
            cluster: Some(cluster),
            hunks: None,
            duration_ms: 0,
            page: Page::default(),
        };
        Self { question, result, counts: BTreeMap::new() }
    }

    fn add(
        &mut self,
        outside: &Outside,
        result: Option<StateDiffResult>,
        obstacle: Option<String>,
    ) {
        let told = outside.told(result.as_ref(), obstacle);
        let merged = &mut self.result;
        merged.equal &= told.equal;
        merged.unexplained += told.unexplained;
        merged.nodes.push(told);
        merged.highlights.extend(outside.highlight(self.question));
        let Some(result) = result else { return };
        for count in result.counts {
            let empty = AspectCount { aspect: count.aspect, added: 0, removed: 0, changed: 0 };
            let sum = self.counts.entry(count.aspect).or_insert(empty);
            sum.added += count.added;
            sum.removed += count.removed;
            sum.changed += count.changed;
        }
        for (why, count) in result.suppressed {
            *merged.suppressed.entry(why).or_default() += count;
        }
        let unknown = result.unknown.into_iter();
        merged.unknown.extend(unknown.map(|(what, why)| (format!("{}/{what}", outside.node), why)));
        let own = |change| Change { node: Some(outside.node.clone()), ..change };
        merged.differences.extend(result.differences.into_iter().map(own));
        merged.commands.extend(result.commands);
        merged.base = merged.base.take().or(result.base);
    }

    fn result(self) -> StateDiffResult {
        let mut result = self.result;
        result.counts = self.counts.into_values().collect();
        // Stable: beside that the order of the nodes, and of each node's.
        result.differences.sort_by_key(|change| change.severity);
        keep_most(&mut result.commands, MAX_COMMANDS);
        let between = result.cluster.iter().flat_map(|one| between_highlights(self.question, one));
        result.highlights.extend(between.collect::<Vec<_>>());
        result.highlights.truncate(MAX_CLUSTER_HIGHLIGHTS);
        let important = result.differences.iter().filter(|change| change.severity != Severity::Low);
        let inside = important.map(|change| {
            let node = change.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
            format!("{node}{}", highlight(change))
        });
        result.highlights.extend(inside.take(MAX_HIGHLIGHTS - MAX_CLUSTER_HIGHLIGHTS));
        result
    }
}

fn between_highlights(question: &Question, cluster: &ClusterDiff) -> Vec<String> {
    let faults = cluster.faults.iter().map(|fault| {
        let side = if fault.side == Side::From { &question.from } else { &question.to };
        let label = fault.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
        clipped(&format!("fault {}{label} only on {}", fault.handle_id, side.label()))
    });
    let reachability = &cluster.reachability;
    let differing = usize::try_from(reachability.differ).unwrap_or(usize::MAX);
    let links = reachability.links.iter().take(differing).map(|link| {
        let word = |reach: Option<pando_api::state::Reach>| reach.map_or("–", |one| one.as_str());
        format!("reachability {} {} → {}", link.link, word(link.from), word(link.to))
    });
    faults.chain(links).take(MAX_CLUSTER_HIGHLIGHTS).collect()
}
