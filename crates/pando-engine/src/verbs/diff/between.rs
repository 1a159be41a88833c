//! What differs between the nodes of two clusters: the faults of their networks, from the records, and
//! who reaches whom, which the guests of a side that runs are asked; those of a commit were, in the copy
//! that was looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use pando_api::network::ProbeRow;
use pando_api::state::{ClusterDiff, FaultDiff, LinkDiff, Reach, ReachDiff};
use pando_model::change::Side;
use pando_model::fault::{Effect, Fault};
use pando_model::{BranchState, Cluster, Commit};

use super::subject::{Question, Subject};
use crate::engine::Engine;
use crate::faults::faults_of;
use crate::network::{fault_info, working};

/// Most faults of a result: about 2 KB.
const MAX_FAULTS: usize = 8;
/// Most links of a result: about 2 KB.
const MAX_LINKS: usize = 24;
/// Most nodes that are asked who reaches whom: each is asked by each other.
pub(crate) const MAX_PROBED_NODES: usize = 16;
/// Time for answers where the network is not slowed on purpose: many times what a guest under
/// translation takes, and little beside a capture.
const ANSWER: Duration = Duration::from_millis(400);
/// Longest time for answers, however slow a network is made.
const MAX_ANSWER: Duration = Duration::from_secs(4);
/// Questions where frames are lost on purpose.
const QUESTIONS_OVER_LOSS: u32 = 5;

/// Whether the guests are asked who reaches whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Ask,
    /// Other aspects were asked for.
    Leave,
}

/// Returns the faults that work on a side.
fn faults(subject: &Subject) -> Vec<Fault> {
    match subject {
        Subject::Live(place) => working(&place.branch.faults, Timestamp::now()),
        Subject::Commit(cluster, commit) => faults_of(cluster, commit),
        Subject::Kept(..) => Vec::new(),
    }
}

/// Returns whether two faults decide the same.
fn same(a: &Fault, b: &Fault) -> bool {
    (&a.id, &a.effect, &a.links, &a.segment, a.seed)
        == (&b.id, &b.effect, &b.links, &b.segment, b.seed)
}

fn fault_diff(side: Side, fault: &Fault) -> FaultDiff {
    let info = fault_info(fault, None);
    FaultDiff {
        side,
        handle_id: info.handle_id,
        fault_type: info.fault_type,
        parameters: info.parameters,
        label: info.label,
    }
}

/// Returns how often to ask, and how long to wait for answers over a network with these faults.
pub(crate) fn how_to_ask<'a>(faults: impl Iterator<Item = &'a Fault>) -> (u32, Duration) {
    let (mut questions, mut way) = (1, Duration::ZERO);
    for fault in faults {
        if let Effect::Impair(impairment) = &fault.effect {
            if impairment.loss.0 > 0 {
                questions = QUESTIONS_OVER_LOSS;
            }
            let us = impairment.latency_us.saturating_add(impairment.jitter_us);
            way = way.saturating_add(Duration::from_micros(us));
        }
    }
    (questions, ANSWER.saturating_add(way * 2).min(MAX_ANSWER))
}

/// Whether one end reaches another, and the shortest round trip in milliseconds.
type Way = (Reach, Option<f64>);

/// Returns each link of a probe.
fn ways(rows: &[ProbeRow]) -> BTreeMap<String, Way> {
    let mut by_link: BTreeMap<String, Vec<&ProbeRow>> = BTreeMap::new();
    for row in rows {
        by_link.entry(format!("{}>{}", row.from, row.to)).or_default().push(row);
    }
    let way = |(link, rows): (String, Vec<&ProbeRow>)| {
        let count = |answer| rows.iter().filter(|row| row.reachable == Some(answer)).count();
        let reach = match (count(true), count(false)) {
            (0, 0) => Reach::Unknown,
            (_, 0) => Reach::Yes,
            (0, _) => Reach::No,
            _ => Reach::Partly,
        };
        (link, (reach, rows.iter().filter_map(|row| row.min_ms).reduce(f64::min)))
    };
    by_link.into_iter().map(way).collect()
}

/// What was seen of a side's links, or why nothing was.
type Seen = Result<BTreeMap<String, Way>, Unseen>;

/// Why nothing was seen of a side's links.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unseen {
    /// Nobody asked for it.
    Unasked(String),
    /// It has none.
    None(String),
    /// They cannot be observed.
    Unknown(String),
}

impl Unseen {
    fn why(&self) -> &str {
        let (Self::Unasked(why) | Self::None(why) | Self::Unknown(why)) = self;
        why
    }
}

/// Most links that are named as unknown.
const MAX_NAMED: usize = 4;

/// Returns in words what is not known of who reaches whom.
fn unknown_of(from: &Seen, to: &Seen) -> Option<String> {
    if let (Err(Unseen::None(_)), Err(Unseen::None(_))) = (from, to) {
        return None;
    }
    let of_side = |(side, seen): (&str, &Seen)| match seen {
        Err(Unseen::Unasked(_)) => None,
        Err(unseen) => Some(format!("not observed on the side `{side}`: {}", unseen.why())),
        Ok(ways) => {
            let unknown: Vec<&str> = ways
                .iter()
                .filter(|(_, (reach, _))| *reach == Reach::Unknown)
                .map(|(link, _)| link.as_str())
                .collect();
            let named = unknown.get(..MAX_NAMED).unwrap_or(&unknown).join(", ");
            let more = match unknown.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            (!unknown.is_empty())
                .then(|| format!("not observed on the side `{side}`: {named}{more}"))
        }
    };
    let sides: Vec<String> = [("from", from), ("to", to)].into_iter().filter_map(of_side).collect();
    (!sides.is_empty()).then(|| sides.join("; "))
}

fn reach_diff(from: Seen, to: Seen) -> ReachDiff {
    let mut not_observed = BTreeMap::new();
    let mut seen = |side: &str, seen: Seen| {
        seen.unwrap_or_else(|unseen| {
            not_observed.insert(side.to_owned(), unseen.why().to_owned());
            BTreeMap::new()
        })
    };
    let (from, to) = (seen("from", from), seen("to", to));
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let link = |name: &String| {
        let of = |side: &BTreeMap<String, Way>| side.get(name).copied().unzip();
        let ((from, from_ms), (to, to_ms)) = (of(&from), of(&to));
        LinkDiff {
            link: name.clone(),
            from,
            to,
            from_ms: from_ms.flatten(),
            to_ms: to_ms.flatten(),
        }
    };
    let mut links: Vec<LinkDiff> = names.into_iter().map(link).collect();
    let both = not_observed.is_empty();
    let differs = |link: &LinkDiff| {
        let known = ![link.from, link.to].contains(&Some(Reach::Unknown));
        both && known && link.from != link.to
    };
    links.sort_by_key(|link| !differs(link));
    let differ = links.iter().filter(|link| differs(link)).count() as u64;
    let total = links.len() as u64;
    links.truncate(MAX_LINKS);
    ReachDiff { differ, total, links, not_observed }
}

impl Engine {
    async fn ways_of(&self, subject: &Subject, (count, timeout): (u32, Duration)) -> Seen {
        if let Some(cluster) = subject.cluster().filter(|cluster| cluster.networks.is_empty()) {
            return Err(Unseen::None(format!("{} has no network between nodes", cluster.name)));
        }
        let place = match subject {
            Subject::Live(place) => place,
            Subject::Commit(cluster, commit) => return self.ways_of_commit(cluster, commit).await,
            Subject::Kept(..) => {
                return Err(Unseen::Unknown("a capture is of one node".to_owned()));
            }
        };
        let state = match place.branch.state {
            BranchState::Running => None,
            BranchState::Paused => Some("paused"),
            BranchState::Stopped => Some("stopped"),
        };
        if let Some(state) = state {
            return Err(Unseen::Unknown(format!("{} is {state}", place.address())));
        }
        if place.branch.nodes.len() > MAX_PROBED_NODES {
            let why = format!("of more than {MAX_PROBED_NODES} nodes: net_probe asks them");
            return Err(Unseen::Unknown(why));
        }
        let rows = self.probed_by_all(place, count, timeout).await;
        rows.map(|rows| ways(&rows)).map_err(|failure| Unseen::Unknown(failure.0.message))
    }

    /// Returns what the nodes of a copy of a commit reached: it was looked into for the comparison of
    /// the nodes, and what it said is kept.
    async fn ways_of_commit(&self, cluster: &Cluster, commit: &Commit) -> Seen {
        let nodes = commit.nodes.iter().map(|node| (node.name.clone(), None)).collect();
        let sights = self.sights_of_commit(cluster, commit, nodes).await;
        let sights = sights.map_err(|failure| Unseen::Unknown(failure.0.message))?;
        let reached: Option<Vec<_>> = sights.into_values().map(|sight| sight.reached).collect();
        match reached {
            Some(rows) => Ok(ways(&rows.concat())),
            None => Err(Unseen::Unknown(format!("a copy of {} did not say", commit.id))),
        }
    }

    /// Returns what differs between nodes, and what of it is not known; how to look closer is still
    /// to be said.
    pub(super) async fn between(
        &self,
        question: &Question,
        probe: Probe,
    ) -> (ClusterDiff, Option<String>) {
        let Question { from, to, .. } = question;
        let (ours, theirs) = (faults(from), faults(to));
        let only = |side, own: &[Fault], others: &[Fault]| -> Vec<FaultDiff> {
            let new = |fault: &&Fault| !others.iter().any(|other| same(fault, other));
            own.iter().filter(new).map(|fault| fault_diff(side, fault)).collect()
        };
        let mut differing = only(Side::From, &ours, &theirs);
        let both = ours.len() - differing.len();
        differing.extend(only(Side::To, &theirs, &ours));
        let faults_differ = differing.len() as u64;
        differing.truncate(MAX_FAULTS);
        let (first, second) = match probe {
            Probe::Ask => {
                let how = how_to_ask(ours.iter().chain(&theirs));
                tokio::join!(self.ways_of(from, how), self.ways_of(to, how))
            }
            Probe::Leave => {
                let why = Unseen::Unasked("only some aspects are compared".to_owned());
                (Err(why.clone()), Err(why))
            }
        };
        let unknown = unknown_of(&first, &second);
        let diff = ClusterDiff {
            faults: differing,
            faults_differ,
            faults_on_both: both as u64,
            reachability: reach_diff(first, second),
            one_node: String::new(),
        };
        (diff, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(from: &str, to: &str, reachable: Option<bool>, ms: f64) -> ProbeRow {
        ProbeRow {
            from: from.into(),
            to: to.into(),
            address: String::new(),
            reachable,
            sent: 1,
            received: u32::from(reachable == Some(true)),
            rtt_ms: None,
            min_ms: (reachable == Some(true)).then_some(ms),
            max_ms: None,
            error: None,
        }
    }

    #[test]
    fn a_link_is_as_good_as_its_addresses() {
        let rows = [
            row("a", "b", Some(true), 2.0),
            row("a", "b", Some(true), 1.0),
            row("a", "c", Some(true), 3.0),
            row("a", "c", Some(false), 0.0),
            row("b", "a", Some(false), 0.0),
            row("c", "a", None, 0.0),
        ];
        let expected = [
            ("a>b", (Reach::Yes, Some(1.0))),
            ("a>c", (Reach::Partly, Some(3.0))),
            ("b>a", (Reach::No, None)),
            ("c>a", (Reach::Unknown, None)),
        ];
        let expected = expected.map(|(link, way)| (link.to_owned(), way));
        assert_eq!(ways(&rows), BTreeMap::from(expected));
    }

    #[test]
    fn links_that_differ_come_first_and_what_was_not_observed_does_not_differ() {
        let from = ways(&[row("a", "b", Some(true), 1.0), row("b", "a", Some(true), 1.0)]);
        let to = ways(&[row("a", "b", Some(true), 1.0), row("b", "a", Some(false), 0.0)]);
        let diff = reach_diff(Ok(from.clone()), Ok(to));
        assert_eq!((diff.differ, diff.total), (1, 2));
        assert_eq!(diff.links[0].link, "b>a");
        assert_eq!((diff.links[0].from, diff.links[0].to), (Some(Reach::Yes), Some(Reach::No)));
        let diff = reach_diff(Err(Unseen::Unknown("in a commit".into())), Ok(from));
        assert_eq!((diff.differ, diff.total, diff.links[0].from), (0, 2, None));
        assert_eq!(diff.not_observed["from"], "in a commit");
    }

    #[test]
    fn what_is_unknown_is_no_difference_and_is_said_to_be_unknown() {
        let known = Ok(ways(&[row("a", "b", Some(true), 1.0), row("b", "a", Some(true), 1.0)]));
        let partly = Ok(ways(&[row("a", "b", None, 0.0), row("b", "a", Some(true), 1.0)]));
        let diff = reach_diff(known.clone(), partly.clone());
        assert_eq!((diff.differ, diff.total), (0, 2));
        assert_eq!(unknown_of(&known, &known), None);
        let said = unknown_of(&known, &partly).unwrap();
        assert_eq!(said, "not observed on the side `to`: a>b");
        let stopped = Err(Unseen::Unknown("it is stopped".into()));
        let said = unknown_of(&stopped, &partly).unwrap();
        assert!(said.starts_with("not observed on the side `from`: it is stopped; not "), "{said}");
        // What is not there, and what nobody asked for, is not unknown.
        let none: Seen = Err(Unseen::None("no network".into()));
        let unasked: Seen = Err(Unseen::Unasked("only packages".into()));
        assert_eq!(unknown_of(&none, &none), None);
        assert_eq!(unknown_of(&unasked, &unasked), None);
        assert!(unknown_of(&none, &known).is_some());
    }

    #[test]
    fn slow_and_lossy_networks_are_asked_longer_and_more() {
        use pando_model::fault::{Impairment, PerMillion};
        let fault = |latency_us, loss| Fault {
            id: pando_model::FaultId::random(),
            label: None,
            effect: Effect::Impair(Impairment {
                latency_us,
                loss: PerMillion(loss),
                ..Impairment::default()
            }),
            links: Vec::new(),
            segment: None,
            seed: 1,
            ordinal: 0,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
        };
        assert_eq!(how_to_ask([].iter()), (1, ANSWER));
        let slow = how_to_ask([fault(250_000, 0)].iter());
        assert_eq!(slow, (1, ANSWER + Duration::from_millis(500)));
        let bad = how_to_ask([fault(60_000_000, 1), fault(60_000_000, 0)].iter());
        assert_eq!(bad, (QUESTIONS_OVER_LOSS, MAX_ANSWER));
    }
}
