//! What differs between clusters: first what is between the nodes and how each of them is, then
//! each node as a machine is shown.

use pando_api::state::{ClusterDiff, CommandChanges, NodeDiff, Reach, ReachDiff, StateDiffResult};
use pando_model::change::Side;

use super::{Extent, Pen, body, counted, heading};
use crate::output::Look;
use crate::output::results::network;

/// How far a node's own lines are set in.
const INDENT: &str = "  ";

pub(super) fn lines(
    view: &StateDiffResult,
    cluster: &ClusterDiff,
    extent: Extent,
    pen: Pen,
) -> Vec<String> {
    let mut lines = heading(view, pen);
    faults(view, cluster, pen, &mut lines);
    reachability(&cluster.reachability, pen, &mut lines);
    nodes(view, pen, &mut lines);
    if extent == Extent::All {
        for node in &view.nodes {
            let own = of_node(view, node);
            if !own.differences.is_empty() {
                lines.push(pen.line(&[(Look::Bold, &own.to)]));
                let inner = Pen { width: pen.width.map(|w| w.saturating_sub(INDENT.len())), ..pen };
                lines.extend(body(&own, inner).into_iter().map(|line| format!("{INDENT}{line}")));
            }
        }
    }
    lines
}

/// Returns the part of a result that is one node's.
fn of_node(view: &StateDiffResult, node: &NodeDiff) -> StateDiffResult {
    let own = |command: &&CommandChanges| command.node == node.node;
    let differences = view.differences.iter();
    let differences = differences.filter(|change| change.node.as_ref() == Some(&node.node));
    StateDiffResult {
        from: format!("{}/{}", view.from, node.node),
        to: format!("{}/{}", view.to, node.node),
        counts: node.counts.clone(),
        commands: view.commands.iter().filter(own).cloned().collect(),
        unexplained: node.unexplained,
        differences: differences.cloned().collect(),
        nodes: Vec::new(),
        cluster: None,
        ..view.clone()
    }
}

fn faults(view: &StateDiffResult, cluster: &ClusterDiff, pen: Pen, lines: &mut Vec<String>) {
    if cluster.faults_differ == 0 {
        return;
    }
    let both = match cluster.faults_on_both {
        0 => String::new(),
        count => format!(", {count} on both"),
    };
    lines.push(pen.line(&[
        (Look::Bold, "faults"),
        (Look::Plain, &format!(" {} on one side only", cluster.faults_differ)),
        (Look::Dim, &both),
    ]));
    for fault in &cluster.faults {
        let (sign, side) = match fault.side {
            Side::From => ("-", &view.from),
            _ => ("+", &view.to),
        };
        let label = fault.label.as_ref().map(|label| format!("  “{label}”")).unwrap_or_default();
        lines.push(pen.line(&[
            (
                Look::Yellow,
                &format!(
                    "{INDENT}{sign} {}",
                    network::described(fault.fault_type, &fault.parameters)
                ),
            ),
            (Look::Plain, &label),
            (Look::Dim, &format!("  on {side}  {}", fault.handle_id)),
        ]));
    }
    let left = cluster.faults_differ.saturating_sub(cluster.faults.len() as u64);
    if left > 0 {
        lines.push(pen.line(&[(Look::Dim, &format!("{INDENT}and {left} more"))]));
    }
}

fn reachability(reach: &ReachDiff, pen: Pen, lines: &mut Vec<String>) {
    if reach.differ > 0 {
        lines.push(pen.line(&[
            (Look::Bold, "reachability"),
            (Look::Plain, &format!(" {} of {} links differ", reach.differ, reach.total)),
        ]));
        let differing = usize::try_from(reach.differ).unwrap_or(usize::MAX);
        let word = |reach: Option<Reach>| reach.map_or("–", Reach::as_str);
        for link in reach.links.iter().take(differing) {
            lines.push(pen.line(&[
                (Look::Yellow, &format!("{INDENT}~ {}", link.link)),
                (Look::Plain, &format!("  {} → {}", word(link.from), word(link.to))),
            ]));
        }
    }
    for (side, why) in &reach.not_observed {
        let said = format!("reachability not observed on the side `{side}`: {why}");
        lines.push(pen.line(&[(Look::Dim, &said)]));
    }
}

fn nodes(view: &StateDiffResult, pen: Pen, lines: &mut Vec<String>) {
    lines.push(pen.line(&[(Look::Bold, "nodes")]));
    let widest = view.nodes.iter().map(|node| node.node.as_str().len()).max().unwrap_or(0);
    for node in &view.nodes {
        let word = |state: Option<pando_api::state::NodeState>| state.map_or("–", |s| s.as_str());
        let states = match (word(node.from), word(node.to)) {
            (from, to) if from == to => from.to_owned(),
            (from, to) => format!("{from} → {to}"),
        };
        let counts: Vec<String> = node.counts.iter().map(counted).collect();
        let (look, said) = match &node.not_compared {
            Some(why) => (Look::Yellow, format!("not compared: {why}")),
            None if counts.is_empty() && node.equal => (Look::Dim, "nothing differs".to_owned()),
            None if counts.is_empty() => (Look::Dim, "nothing known differs".to_owned()),
            None => (Look::Plain, counts.join(" · ")),
        };
        lines.push(pen.line(&[
            (Look::Plain, &format!("{INDENT}{:<widest$}  ", node.node.as_str())),
            (Look::Cyan, &states),
            (look, &format!("  {said}")),
        ]));
    }
}
