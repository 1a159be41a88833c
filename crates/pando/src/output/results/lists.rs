//! Lists as tables, and the commit graph.

use pando_api::branch::BranchListResult;
use pando_api::commit::{CommitListResult, CommitRow};
use pando_api::image::ImageListResult;
use pando_api::machine::VmListResult;
use pando_api::operation::OperationListResult;
use pando_api::page::Page;
use pando_api::usage::VmUsageResult;
use pando_model::commit::CommitKind;
use pando_model::operation::OperationStatus;

use super::{joined, state_name};
use crate::output::graph::{Node, draw};
use crate::output::table::{Cell, Table, printable};
use crate::output::{Look, Talk, Ui, units};

/// Shows a table, or its first column when quiet, and says what was left out.
pub(super) fn table(
    ui: &Ui,
    headings: &[&'static str],
    rows: Vec<Vec<Cell>>,
    names: &[String],
    page: &Page,
) {
    if ui.talk == Talk::Quiet {
        names.iter().for_each(|name| ui.line(name));
        return;
    }
    let mut table = Table::new(headings);
    rows.into_iter().for_each(|row| table.row(row));
    table.print(ui);
    more(ui, page);
}

fn more(ui: &Ui, page: &Page) {
    if let (true, Some(cursor)) = (page.truncated, &page.next_cursor) {
        ui.remark(format!("{} of {} shown; more: --cursor {cursor}", page.returned, page.total));
    }
}

pub fn usage(ui: &Ui, list: &VmUsageResult) {
    if list.nodes.is_empty() {
        return ui.remark("no machine runs");
    }
    let rows = list.nodes.iter().map(|row| {
        vec![
            Cell::new(Look::Bold, &row.address),
            Cell::new(Look::of_state(row.state), state_name(row.state)),
            units::whole_millis(row.cpu_ms).into(),
            units::bytes(row.host_memory_bytes).into(),
            units::bytes(row.memory_mib << 20).into(),
            units::bytes(row.host_disk_bytes).into(),
            units::whole_millis(row.uptime_ms).into(),
            row.commands.to_string().into(),
        ]
    });
    let headings = ["MACHINE", "STATE", "CPU TIME", "MEMORY", "OF", "DISK", "UP", "COMMANDS"];
    let names: Vec<String> = list.nodes.iter().map(|row| row.address.clone()).collect();
    table(ui, &headings, rows.collect(), &names, &list.page);
}

pub fn machines(ui: &Ui, list: &VmListResult) {
    if list.vms.is_empty() {
        return ui.remark("no machines here; make one: pando vm create NAME");
    }
    let rows = list.vms.iter().map(|vm| {
        vec![
            Cell::new(Look::Bold, vm.name.as_str()),
            Cell::new(Look::of_state(vm.state), state_name(vm.state)),
            vm.branch.as_str().into(),
            format!("{}/{}", vm.running, vm.branches).into(),
            (&vm.image).into(),
            vm.vcpus.to_string().into(),
            units::bytes(vm.memory_mib << 20).into(),
            units::age(vm.created_at, ui.now).into(),
        ]
    });
    let headings = ["NAME", "STATE", "BRANCH", "RUNNING", "IMAGE", "CPU", "MEMORY", "AGE"];
    let names: Vec<String> = list.vms.iter().map(|vm| vm.name.to_string()).collect();
    table(ui, &headings, rows.collect(), &names, &list.page);
}

pub fn branches(ui: &Ui, list: &BranchListResult) {
    if list.branches.is_empty() {
        return ui.remark("no branches here; make a machine first: pando vm create NAME");
    }
    let rows = list.branches.iter().map(|branch| {
        let current = if branch.current { "*" } else { "" };
        vec![
            Cell::new(Look::Green, current),
            Cell::new(Look::Bold, &branch.address),
            Cell::new(Look::of_state(branch.state), state_name(branch.state)),
            Cell::new(Look::Yellow, branch.commit_id.as_ref().map_or("", |id| id.as_str())),
            units::age(branch.created_at, ui.now).into(),
            Cell::new(Look::Dim, branch.reason.as_deref().unwrap_or_default()),
        ]
    });
    let names: Vec<String> = list.branches.iter().map(|branch| branch.address.clone()).collect();
    table(
        ui,
        &["", "BRANCH", "STATE", "COMMIT", "AGE", "NOTE"],
        rows.collect(),
        &names,
        &list.page,
    );
}

pub fn images(ui: &Ui, list: &ImageListResult) {
    if list.images.is_empty() {
        return ui.remark("no images here; build the default one: pando image build");
    }
    let rows = list.images.iter().map(|image| {
        vec![
            Cell::new(Look::Bold, &image.name),
            image.image_id.as_str().into(),
            (&image.boot).into(),
            units::bytes(image.size_bytes).into(),
            image.ready.len().to_string().into(),
            image.machines.to_string().into(),
            units::age(image.created_at, ui.now).into(),
            Cell::new(Look::Dim, &image.origin),
        ]
    });
    let headings = ["NAME", "ID", "BOOT", "SIZE", "READY", "MACHINES", "AGE", "ORIGIN"];
    let names: Vec<String> = list.images.iter().map(|image| image.name.clone()).collect();
    table(ui, &headings, rows.collect(), &names, &list.page);
}

pub fn operations(ui: &Ui, list: &OperationListResult) {
    if list.operations.is_empty() {
        return ui.remark("no operations");
    }
    let rows = list.operations.iter().map(|operation| {
        let look = match operation.status {
            OperationStatus::Succeeded => Look::Green,
            OperationStatus::Failed | OperationStatus::Stuck => Look::Red,
            _ => Look::Yellow,
        };
        let note = operation.error.as_ref().map_or(&operation.progress.message, |e| &e.message);
        vec![
            operation.operation_id.as_str().into(),
            (&operation.verb).into(),
            Cell::new(look, format!("{:?}", operation.status).to_lowercase()),
            units::age(operation.created_at, ui.now).into(),
            Cell::new(Look::Dim, note),
        ]
    });
    let headings = ["OPERATION", "VERB", "STATUS", "AGE", "NOTE"];
    let names: Vec<String> =
        list.operations.iter().map(|one| one.operation_id.to_string()).collect();
    table(ui, &headings, rows.collect(), &names, &list.page);
}

/// Shows commits, with lanes of descent on the left if `graph`.
pub fn commits(ui: &Ui, list: &CommitListResult, shape: Shape) {
    if list.commits.is_empty() {
        return ui.remark("no commits yet; make one: pando commit -m \"…\"");
    }
    let parents = |commit: &CommitRow| commit.parents.iter().map(|id| id.to_string()).collect();
    let known: Vec<(String, Vec<String>)> =
        list.commits.iter().map(|commit| (commit.id.to_string(), parents(commit))).collect();
    let nodes: Vec<Node<'_>> = known
        .iter()
        .map(|(id, parents)| Node { id, parents: parents.iter().map(String::as_str).collect() })
        .collect();
    for (commit, drawn) in list.commits.iter().zip(draw(&nodes)) {
        let text = line(ui, commit);
        match shape {
            Shape::Plain => ui.line(text),
            Shape::Graph => {
                drawn.above.iter().for_each(|lane| ui.line(ui.paint(Look::Cyan, lane)));
                ui.line(format!("{}{text}", ui.paint(Look::Cyan, &drawn.first)));
                drawn.below.iter().for_each(|lane| ui.line(ui.paint(Look::Cyan, lane)));
            }
        }
    }
    more(ui, &list.page);
}

/// How commits are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One line each.
    Plain,
    /// With lanes of descent.
    Graph,
}

fn line(ui: &Ui, commit: &CommitRow) -> String {
    let mut names = joined(&commit.heads);
    if !commit.tags.is_empty() {
        let separator = if names.is_empty() { "" } else { ", " };
        names.push_str(&format!("{separator}tag: {}", joined(&commit.tags)));
    }
    let names = if names.is_empty() {
        String::new()
    } else {
        format!(" {}", ui.paint(Look::Green, &format!("({names})")))
    };
    let kind = match commit.kind {
        CommitKind::Full => "",
        CommitKind::Disk => " disk only",
    };
    let facts = format!(
        "{} on {}, {}{kind}",
        units::age(commit.created_at, ui.now),
        commit.branch,
        units::bytes(commit.size_bytes)
    );
    let message = printable(&commit.message);
    let id = ui.paint(Look::Yellow, commit.id.as_str());
    let facts = ui.paint(Look::Dim, &facts);
    if message.is_empty() {
        format!("{id}{names} {facts}")
    } else {
        format!("{id}{names} {message}  {facts}")
    }
}
