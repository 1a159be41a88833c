//! Clusters, their nodes and their snapshots.

use pando_api::cluster::{
    ClusterDefineResult, ClusterDestroyResult, ClusterHandleResult, ClusterListResult,
    ClusterStartResult, ClusterStatusResult, DomainState, NodeStatus,
};
use pando_api::node::{NodeCrashResult, NodeExecAllResult, NodeExecResult};
use pando_api::snapshot::{
    SnapshotDeleteResult, SnapshotInfo, SnapshotListResult, SnapshotRevertResult,
};
use pando_model::commit::CommitKind;

use super::lists::table;
use super::{field, joined, network, say, state_name};
use crate::output::table::{Cell, Table, printable};
use crate::output::{Look, Talk, Ui, units};

const fn machine(state: DomainState) -> (Look, &'static str) {
    match state {
        DomainState::Running => (Look::Green, "running"),
        DomainState::ShutOff => (Look::Dim, "shut off"),
        DomainState::Paused => (Look::Yellow, "paused"),
        DomainState::Crashed => (Look::Red, "crashed"),
        DomainState::Unknown => (Look::Plain, "unknown"),
    }
}

const fn yes(is: bool) -> (Look, &'static str) {
    if is { (Look::Green, "yes") } else { (Look::Dim, "no") }
}

const fn kind_name(kind: CommitKind) -> &'static str {
    match kind {
        CommitKind::Full => "full",
        CommitKind::Disk => "disk",
    }
}

fn nodes(ui: &Ui, nodes: &[NodeStatus]) {
    let mut table = Table::new(&["NODE", "ROLE", "ADDRESS", "MACHINE", "ANSWERS", "SSH"]);
    let cell = |(look, text): (Look, &str)| Cell::new(look, text);
    for node in nodes {
        table.row(vec![
            Cell::new(Look::Bold, node.name.as_str()),
            (&node.role).into(),
            (&node.ip).into(),
            cell(machine(node.domain_state)),
            cell(yes(node.answers)),
            cell(yes(node.ssh_reachable)),
        ]);
    }
    table.print(ui);
    for node in nodes {
        if let Some(reason) = &node.reason {
            ui.remark(format!("{}: {}", node.name, printable(reason)));
        }
        if !node.failed_services.is_empty() {
            let failed = node.failed_services.join(", ");
            ui.remark(format!("{}: failed services: {}", node.name, printable(&failed)));
        }
    }
}

/// Shows a cluster: one line about it, then its nodes.
pub fn status(ui: &Ui, view: &ClusterStatusResult) {
    if ui.talk == Talk::Quiet {
        return ui.line(state_name(view.state));
    }
    let state = match view.fresh {
        true => ui.paint(Look::Dim, "defined, never started"),
        false => ui.paint(Look::of_state(view.state), state_name(view.state)),
    };
    let faults = match view.active_faults {
        0 => String::new(),
        1 => ", 1 fault".to_owned(),
        count => format!(", {count} faults"),
    };
    ui.line(format!("{} is {state}{faults}", ui.paint(Look::Bold, &view.address)));
    nodes(ui, &view.nodes);
}

pub fn defined(ui: &Ui, view: &ClusterDefineResult) {
    let name = view.status.cluster_name.as_str();
    let took = units::whole_millis(view.duration_ms);
    match (view.created, view.drift.len()) {
        (true, _) => say(ui, name, format!("{name} is defined ({took})")),
        (false, 0) => say(ui, name, format!("{name} is defined already, and just so")),
        (false, count) => {
            let things = if count == 1 { "difference" } else { "differences" };
            say(
                ui,
                name,
                format!("{name} is defined already, with {count} {things}; nothing was changed"),
            );
        }
    }
    if ui.talk == Talk::Quiet {
        return;
    }
    if !view.drift.is_empty() {
        let mut table = Table::new(&["WHAT", "DEFINED", "TOPOLOGY"]);
        for drift in &view.drift {
            let text = |side: &Option<String>| side.clone().unwrap_or_else(|| "–".to_owned());
            let (defined, file) = apart(text(&drift.defined), text(&drift.file));
            table.row(vec![(&drift.path).into(), defined.into(), file.into()]);
        }
        table.print(ui);
    }
    for note in &view.notes {
        ui.remark(printable(note));
    }
    if view.created {
        ui.remark(format!("next: pando cluster start {name}"));
    }
}

pub fn started(ui: &Ui, view: &ClusterStartResult) {
    let address = &view.status.address;
    let nodes_of = &view.status.nodes;
    let running = nodes_of.iter().filter(|node| node.domain_state == DomainState::Running).count();
    let runs = match nodes_of.len() {
        all if all == running => format!("{address} runs"),
        all => format!("{address}: {running} of {all} nodes run"),
    };
    let how = if view.warm { ", warm" } else { "" };
    let what = match (view.started.len(), view.ready_ms) {
        (0, _) => runs,
        (count, ms) => {
            format!("{runs}: {count} started{how}, ready in {}", units::whole_millis(ms))
        }
    };
    say(ui, address, what);
    if ui.talk == Talk::All {
        nodes(ui, nodes_of);
    }
    for why in view.ssh_missing.values() {
        ui.remark(printable(why));
    }
    if let Some(hint) = &view.hint {
        ui.remark(printable(hint));
    }
}

pub fn destroyed(ui: &Ui, view: &ClusterDestroyResult) {
    let name = view.cluster_name.as_str();
    let what = match view.removed_overlays {
        true => format!("{name} is gone, with its disks and snapshots"),
        false => format!("{name} is stopped; its disks and {} commits are kept", view.kept_commits),
    };
    say(ui, name, what);
    if !view.removed_overlays {
        ui.remark(format!(
            "back: pando cluster start {name}  ·  gone: pando cluster destroy {name} --remove-overlays"
        ));
    }
}

pub fn handle(ui: &Ui, view: &ClusterHandleResult) {
    field(ui, "cluster", &ui.paint(Look::Bold, &view.address));
    let kernel = view.kernel_version.as_deref().unwrap_or("unknown: no node answers");
    field(ui, "kernel", &printable(kernel));
    field(ui, "artifacts", &view.artifact_path);
    field(ui, "host keys", &view.known_hosts_path);
    if let Some(first) = view.nodes.first() {
        field(ui, "key", &first.ssh_key_path);
    }
    let mut table = Table::new(&["NODE", "ROLE", "ADDRESS", "SSH"]);
    for node in &view.nodes {
        table.row(vec![
            Cell::new(Look::Bold, node.name.as_str()),
            (&node.role).into(),
            (&node.ip).into(),
            format!("{}@{}:{}", node.ssh_user, node.ssh_host, node.ssh_port).into(),
        ]);
    }
    table.print(ui);
    for node in &view.nodes {
        for (guest, host) in &node.forwards {
            ui.remark(format!("127.0.0.1:{host} leads to port {guest} of {}", node.name));
        }
    }
}

pub fn list(ui: &Ui, list: &ClusterListResult) {
    if list.clusters.is_empty() {
        return ui.remark("there is no cluster: `pando cluster define FILE` makes one");
    }
    let row = |row: &pando_api::cluster::ClusterRow| {
        vec![
            Cell::new(Look::Bold, row.name.as_str()),
            joined(&row.nodes).into(),
            joined(&row.networks).into(),
            format!("{} of {}", row.running, row.branches).into(),
        ]
    };
    let rows = list.clusters.iter().map(row).collect();
    let names: Vec<String> = list.clusters.iter().map(|row| row.name.to_string()).collect();
    table(ui, &["CLUSTER", "NODES", "NETWORKS", "RUNNING"], rows, &names, &list.page);
}

fn output(ui: &Ui, ran: &NodeExecResult) {
    for line in ran.outcome.stdout.lines() {
        ui.line(line);
    }
    for line in ran.outcome.stderr.lines() {
        ui.remark(line);
    }
}

pub fn ran(ui: &Ui, view: &NodeExecResult) {
    output(ui, view);
    match (view.outcome.exit_code, view.outcome.timed_out) {
        (Some(0), _) => {}
        (Some(code), _) => ui.remark(format!("it exited with {code}")),
        (None, true) => ui.remark("it ran out of time and was killed"),
        (None, false) => ui.remark("a signal ended it"),
    }
}

pub fn ran_on_all(ui: &Ui, view: &NodeExecAllResult) {
    for (node, ran) in &view.results {
        let look = if view.failed_nodes.contains_key(node) { Look::Red } else { Look::Green };
        ui.line(ui.paint(look, node.as_str()));
        output(ui, ran);
        if let Some(why) = view.failed_nodes.get(node) {
            ui.remark(printable(why));
        }
    }
}

pub fn crashed(ui: &Ui, view: &NodeCrashResult) {
    let took = units::whole_millis(view.duration_ms);
    let what = match view.restarted {
        true => format!("{} crashed and runs again ({took})", view.address),
        false => format!("{} crashed ({took})", view.address),
    };
    say(ui, &view.address, what);
    if !view.restarted {
        let cluster = view.address.split('/').next().unwrap_or_default();
        ui.remark(format!("back: pando cluster start {cluster}"));
    }
}

/// Returns two texts from a little before where they differ, so that a narrow table shows it.
fn apart(one: String, other: String) -> (String, String) {
    const CONTEXT: usize = 8;
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    if same <= CONTEXT * 2 {
        return (one, other);
    }
    let rest = |text: String| {
        std::iter::once('…').chain(text.chars().skip(same - CONTEXT)).collect::<String>()
    };
    (rest(one), rest(other))
}

fn bytes_of(view: &SnapshotInfo) -> String {
    units::bytes(view.per_node.iter().map(|node| node.size_bytes).sum())
}

pub fn snapshot(ui: &Ui, view: &SnapshotInfo) {
    let name = view.snapshot_name.as_str();
    say(
        ui,
        name,
        format!(
            "{}  {} of {} nodes, {}",
            ui.paint(Look::Yellow, name),
            kind_name(view.kind),
            view.per_node.len(),
            bytes_of(view)
        ),
    );
    network::not_held(ui, &view.stalled, view.note.as_deref());
}

pub fn snapshots(ui: &Ui, list: &SnapshotListResult) {
    if list.snapshots.is_empty() {
        return ui.remark("there is no snapshot: `pando snapshot create CLUSTER NAME` makes one");
    }
    let row = |one: &SnapshotInfo| {
        vec![
            Cell::new(Look::Yellow, one.snapshot_name.as_str()),
            one.commit_id.to_string().into(),
            kind_name(one.kind).into(),
            one.branch.to_string().into(),
            bytes_of(one).into(),
            one.created_at.to_string().into(),
        ]
    };
    let rows = list.snapshots.iter().map(row).collect();
    let names: Vec<String> =
        list.snapshots.iter().map(|one| one.snapshot_name.to_string()).collect();
    let headings = &["SNAPSHOT", "COMMIT", "KIND", "BRANCH", "DISKS", "MADE"];
    table(ui, headings, rows, &names, &list.page);
}

pub fn reverted(ui: &Ui, view: &SnapshotRevertResult) {
    let address = &view.status.address;
    let state = state_name(view.status.state);
    let how = format!("{address} is at {} and {state}", view.reverted_to);
    say(ui, view.reverted_to.as_str(), how);
    if let Some(saved) = &view.saved_as {
        ui.remark(format!("the state before is {saved}: pando snapshot revert {address} {saved}"));
    }
}

pub fn snapshot_deleted(ui: &Ui, view: &SnapshotDeleteResult) {
    let name = view.snapshot_name.as_str();
    let freed = units::bytes(view.freed_bytes);
    say(ui, name, format!("{name} is deleted on {} nodes, {freed}", view.deleted_nodes.len()));
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn long_texts_are_shown_from_where_they_differ() {
        let of = |one: &str, other: &str| apart(one.to_owned(), other.to_owned());
        assert_eq!(of("256 MiB", "512 MiB"), ("256 MiB".to_owned(), "512 MiB".to_owned()));
        let long = "echo one two three four five six seven";
        let (one, other) = of(&format!("{long} eight"), &format!("{long} nine"));
        assert_eq!((one.as_str(), other.as_str()), ("…x seven eight", "…x seven nine"));
    }
}
