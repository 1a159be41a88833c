//! Results for people: what a verb's typed result looks like at the terminal. A verb without a
//! view of its own is shown as names and values.

mod clusters;
mod diff;
mod lists;
mod network;
mod script;
mod state;
mod topology;

use pando_api::branch::{BranchCheckoutResult, BranchCreateResult, BranchRollbackResult};
use pando_api::commit::{CommitCreateResult, CommitShowResult, CommitVerifyResult};
use pando_api::exec::ConnectInfoResult;
use pando_api::image::ImageView;
use pando_api::machine::{VmControlResult, VmCreateResult, VmDeleteResult, VmStatusResult};
use pando_api::operation::OperationView;
use pando_api::system::{GcResult, SystemStatusResult};
use pando_model::BranchState;
use pando_model::operation::OperationStatus;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::table::{Cell, Table, printable};
use super::{Look, Talk, Ui, units};

pub use diff::{Extent, differences};
pub use lists::{Shape, commits};
pub use script::script;

/// Shows a verb's result.
pub fn show(ui: &Ui, verb: &str, result: &Value) {
    let shown = match verb {
        "vm_create" => with(result, |view| created(ui, &view)),
        "vm_list" => with(result, |view| lists::machines(ui, &view)),
        "vm_usage" => with(result, |view| lists::usage(ui, &view)),
        "vm_status" => with(result, |view| status(ui, &view)),
        "vm_control" => with(result, |view| controlled(ui, &view)),
        "vm_delete" => with(result, |view| deleted(ui, &view)),
        "cluster_define" => with(result, |view| clusters::defined(ui, &view)),
        "cluster_start" => with(result, |view| clusters::started(ui, &view)),
        "cluster_stop" | "cluster_status" => with(result, |view| clusters::status(ui, &view)),
        "cluster_destroy" => with(result, |view| clusters::destroyed(ui, &view)),
        "cluster_handle" => with(result, |view| clusters::handle(ui, &view)),
        "cluster_list" => with(result, |view| clusters::list(ui, &view)),
        "node_exec" => with(result, |view| clusters::ran(ui, &view)),
        "node_exec_all" => with(result, |view| clusters::ran_on_all(ui, &view)),
        "node_crash" => with(result, |view| clusters::crashed(ui, &view)),
        "snapshot_create" => with(result, |view| clusters::snapshot(ui, &view)),
        "snapshot_list" => with(result, |view| clusters::snapshots(ui, &view)),
        "snapshot_revert" => with(result, |view| clusters::reverted(ui, &view)),
        "snapshot_delete" => with(result, |view| clusters::snapshot_deleted(ui, &view)),
        "branch_create" => with(result, |view| branched(ui, &view)),
        "branch_list" => with(result, |view| lists::branches(ui, &view)),
        "branch_checkout" => with(result, |view| checked_out(ui, &view)),
        "branch_rollback" => with(result, |view| rolled_back(ui, &view)),
        "commit_create" => with(result, |view| committed(ui, &view)),
        "commit_show" => with(result, |view| commit(ui, &view)),
        "commit_verify" => with(result, |view| verified(ui, &view)),
        "connect_info" => with(result, |view: ConnectInfoResult| ui.line(view.command)),
        "image_build" | "image_import" | "image_show" => with(result, |view| image(ui, &view)),
        "topology_validate" => with(result, |view| topology::validated(ui, &view)),
        "topology_list" => with(result, |view| topology::list(ui, &view)),
        "topology_show" => with(result, |view| topology::show(ui, &view)),
        "image_list" => with(result, |view| lists::images(ui, &view)),
        "operation_list" => with(result, |view| lists::operations(ui, &view)),
        "operation_get" | "operation_wait" => with(result, |view| operation(ui, &view)),
        "operation_cancel" => with(result, |view: OperationView| {
            operation(ui, &view);
            if view.status == OperationStatus::Succeeded {
                ui.remark("it had ended already: nothing was cancelled");
            }
        }),
        "state_capture" => with(result, |view| state::captured(ui, &view)),
        "journal_list" => with(result, |view| state::history(ui, &view)),
        "net_partition" | "net_impair" => with(result, |view| network::made(ui, &view)),
        "net_heal" | "net_heal_all" => with(result, |view| network::healed(ui, &view)),
        "net_fault_list" => with(result, |view| network::faults(ui, &view)),
        "net_probe" => with(result, |view| network::probed(ui, &view)),
        "net_capture" => with(result, |view| network::capture(ui, &view)),
        "gc" => with(result, |view| collected(ui, &view)),
        "system_status" => with(result, |view| system(ui, &view)),
        _ => false,
    };
    if !shown {
        fields(ui, result);
    }
}

/// Shows a typed result; false when it is of another shape.
fn with<T: DeserializeOwned>(result: &Value, show: impl FnOnce(T)) -> bool {
    match serde_json::from_value(result.clone()) {
        Ok(view) => {
            show(view);
            true
        }
        Err(_) => false,
    }
}

/// Shows names and values.
fn fields(ui: &Ui, result: &Value) {
    let Value::Object(object) = result else {
        ui.line(result.to_string());
        return;
    };
    for (name, value) in object {
        let text = match value {
            Value::String(text) => printable(text),
            other => other.to_string(),
        };
        field(ui, &name.replace('_', " "), &text);
    }
}

fn field(ui: &Ui, name: &str, value: &str) {
    if !value.is_empty() {
        ui.line(format!("{} {value}", ui.paint(Look::Dim, &format!("{name:<12}"))));
    }
}

/// Writes the short form when quiet, the long one otherwise.
fn say(ui: &Ui, short: &str, long: String) {
    match ui.talk {
        Talk::Quiet => ui.line(short),
        Talk::All => ui.line(long),
    }
}

fn created(ui: &Ui, view: &VmCreateResult) {
    let name = view.name.as_str();
    let how = match (view.warm, view.first_of_its_kind) {
        (true, true) => "first of its kind; the next is ready at once",
        (true, false) => "warm",
        (false, _) => "booted",
    };
    let ready = units::whole_millis(view.ready_ms);
    let bold = ui.paint(Look::Bold, name);
    say(ui, name, format!("{bold} is running ({how}, ready in {ready})"));
    if let Some(script) = &view.user_data {
        let code = script.exit_code.map_or("no exit status".to_owned(), |code| code.to_string());
        ui.remark(format!("its user data script ended with {code}"));
        if script.exit_code != Some(0) {
            ui.remark(script.stderr.trim_end());
        }
    }
    ui.remark(format!(
        "next: pando sh {name}  ·  pando commit {name} -m \"…\"  ·  pando branch {name}"
    ));
}

fn controlled(ui: &Ui, view: &VmControlResult) {
    let state = ui.paint(Look::of_state(view.state), state_name(view.state));
    let took = units::whole_millis(view.duration_ms);
    say(ui, &view.address, format!("{} is {state} ({took})", view.address));
}

fn deleted(ui: &Ui, view: &VmDeleteResult) {
    let name = view.name.as_str();
    if view.removed_overlays {
        say(ui, name, format!("{name} is deleted, with its disks and commits"));
        return;
    }
    let kept = match view.kept_commits {
        0 => "its disks are kept".to_owned(),
        1 => "its disks and its commit are kept".to_owned(),
        count => format!("its disks and {count} commits are kept"),
    };
    say(ui, name, format!("{name} is stopped; {kept}"));
    ui.remark(format!("back: pando start {name}  ·  gone: pando rm --disks {name}"));
}

fn branched(ui: &Ui, view: &BranchCreateResult) {
    if ui.talk == Talk::Quiet {
        for branch in view.branches.iter().filter(|branch| branch.error.is_none()) {
            ui.line(&branch.address);
        }
        return;
    }
    let mut table = Table::new(&["BRANCH", "STATE", "READY", "HOW"]);
    for branch in &view.branches {
        let ready = match &branch.error {
            Some(_) => String::new(),
            None => units::whole_millis(branch.ready_ms),
        };
        let how = match &branch.error {
            Some(error) => Cell::new(Look::Red, &error.message),
            None if branch.warm => {
                let advanced = units::whole_millis(branch.advanced_ms);
                Cell::from(format!("warm, {advanced} past the commit"))
            }
            None => Cell::from("restored"),
        };
        table.row(vec![
            Cell::new(Look::Bold, &branch.address),
            Cell::new(Look::of_state(branch.state), state_name(branch.state)),
            ready.into(),
            how,
        ]);
    }
    table.print(ui);
    for branch in &view.branches {
        for inherited in &branch.inherited {
            let command = printable(&inherited.command);
            ui.remark(format!(
                "{}/{} goes on with `{command}` (pid {})",
                branch.address, inherited.node, inherited.pid
            ));
        }
    }
    if view.pause_ms > 0 && view.branches.iter().any(|branch| branch.state == BranchState::Running)
    {
        ui.remark(format!("the original stood still for {}", units::whole_millis(view.pause_ms)));
    }
}

fn checked_out(ui: &Ui, view: &BranchCheckoutResult) {
    let paused = if view.previous_paused { " (paused)" } else { "" };
    say(
        ui,
        &view.current_branch,
        format!(
            "{}{paused} → {}",
            view.previous_branch,
            ui.paint(Look::Bold, &view.current_branch)
        ),
    );
}

fn rolled_back(ui: &Ui, view: &BranchRollbackResult) {
    let ready = units::whole_millis(view.ready_ms);
    say(
        ui,
        view.rolled_back_to.as_str(),
        format!("{} is at {} (ready in {ready})", view.address, view.rolled_back_to),
    );
    match &view.saved_as {
        Some(saved) => ui.remark(format!(
            "the state before is {saved}: pando rollback {} {saved}",
            view.address
        )),
        None => ui.remark("the state before was not saved"),
    }
}

fn committed(ui: &Ui, view: &CommitCreateResult) {
    let tag = view.tag.as_ref().map_or(String::new(), |tag| format!(" ({tag})"));
    let id = view.commit_id.as_str();
    say(
        ui,
        id,
        format!(
            "{}{tag}  {}, {} paused, durable in {}",
            ui.paint(Look::Yellow, id),
            units::bytes(view.size_bytes),
            units::millis(view.pause_ms),
            units::whole_millis(view.duration_ms),
        ),
    );
    network::not_held(ui, &view.stalled, view.note.as_deref());
}

fn commit(ui: &Ui, view: &CommitShowResult) {
    let commit = &view.commit;
    field(ui, "commit", &ui.paint(Look::Yellow, commit.id.as_str()));
    field(ui, "branch", commit.branch.as_str());
    field(ui, "tags", &joined(&commit.tags));
    field(ui, "parents", &joined(&commit.parents));
    field(ui, "made", &format!("{} by {}", commit.created_at, commit.created_by));
    field(ui, "size", &units::bytes(commit.size_bytes));
    field(ui, "pause", &units::millis(view.pause_ms));
    field(ui, "warm", &format!("{} of {} ready", view.warm_ready, view.warm));
    let restorable = view.restorable_reason.as_deref().unwrap_or("yes");
    field(ui, "restorable", restorable);
    for node in &view.nodes {
        field(
            ui,
            "node",
            &format!(
                "{}  {} vCPU, {} MiB RAM, {} saved",
                node.name,
                node.vcpus,
                node.memory_mib,
                units::bytes(node.memory_bytes)
            ),
        );
    }
    if let Some(held) = &view.network {
        let (frames, faults) = (held.frames_held, held.faults.len());
        field(ui, "network", &format!("{frames} frames on their way, {faults} faults"));
        network::not_held(ui, &held.stalled, held.note.as_deref());
    }
    for command in state::commands(ui, &view.commands) {
        field(ui, "command", &command);
    }
    if view.commands_total > view.commands.len() as u64 {
        field(ui, "commands", &format!("{} in all: pando history", view.commands_total));
    }
    if !commit.message.is_empty() {
        ui.line("");
        for line in commit.message.lines() {
            ui.line(format!("    {}", printable(line)));
        }
    }
}

fn verified(ui: &Ui, view: &CommitVerifyResult) {
    let size = units::bytes(view.bytes_checked);
    let took = units::whole_millis(view.duration_ms);
    say(
        ui,
        view.commit_id.as_str(),
        format!("{} is intact: {size} checked in {took}", view.commit_id),
    );
}

fn image(ui: &Ui, view: &ImageView) {
    if ui.talk == Talk::Quiet {
        return ui.line(view.image_id.as_str());
    }
    field(ui, "image", &ui.paint(Look::Bold, &view.name));
    field(ui, "id", view.image_id.as_str());
    field(ui, "origin", &printable(&view.origin));
    field(ui, "boot", &format!("{}, {}", view.boot, view.init));
    field(ui, "disk", &format!("{} GiB, {} used", view.disk_gib, units::bytes(view.size_bytes)));
    field(ui, "machines", &view.machines.to_string());
    for ready in &view.ready {
        let shape = format!("{} vCPU, {} MiB, {} NIC", ready.vcpus, ready.memory_mib, ready.nics);
        field(ui, "ready for", &format!("{shape}  ({})", units::bytes(ready.size_bytes)));
    }
}

fn status(ui: &Ui, view: &VmStatusResult) {
    let state = ui.paint(Look::of_state(view.state), state_name(view.state));
    let health = format!("{:?}", view.health).to_lowercase();
    field(ui, "machine", &ui.paint(Look::Bold, &view.address));
    field(ui, "state", &format!("{state}, {health}"));
    if let Some(reason) = &view.reason {
        field(ui, "why", &printable(reason));
    }
    field(
        ui,
        "up",
        &if view.uptime_ms == 0 { String::new() } else { units::whole_millis(view.uptime_ms) },
    );
    field(ui, "image", &view.image);
    let resources = &view.resources;
    field(
        ui,
        "shape",
        &format!(
            "{} vCPU, {} MiB RAM, {} GiB disk",
            resources.vcpus, resources.memory_mib, resources.disk_gib
        ),
    );
    let used = [
        resources.host_memory_bytes.map(|count| format!("{} memory", units::bytes(count))),
        resources.host_disk_bytes.map(|count| format!("{} disk", units::bytes(count))),
        resources.cpu_ms.map(|ms| format!("{} CPU", units::whole_millis(ms))),
    ];
    field(ui, "uses", &used.into_iter().flatten().collect::<Vec<_>>().join(", "));
    for interface in &view.network.interfaces {
        let addresses = interface.addresses.join(", ");
        field(ui, "network", &format!("{}  {}  {addresses}", interface.name, interface.mac));
    }
    field(ui, "branches", &view.branches.to_string());
    field(ui, "commit", view.commit_id.as_ref().map_or("", |id| id.as_str()));
    field(ui, "services", &view.services.join(", "));
    if !view.failed_services.is_empty() {
        field(ui, "failed", &ui.paint(Look::Red, &view.failed_services.join(", ")));
    }
    if let Some(guest) = &view.guest {
        field(
            ui,
            "guest",
            &format!("{}, Linux {}", printable(&guest.os), printable(&guest.kernel)),
        );
    }
    field(ui, "id", &view.vm_id);
}

fn operation(ui: &Ui, view: &OperationView) {
    field(ui, "operation", view.operation_id.as_str());
    field(ui, "verb", &view.verb);
    field(ui, "status", &format!("{:?}", view.status).to_lowercase());
    field(ui, "progress", &printable(&view.progress.message));
    field(ui, "by", &view.actor);
    for step in &view.steps {
        let took = step.duration_ms.map(units::whole_millis).unwrap_or_default();
        let status = format!("{:?}", step.status).to_lowercase();
        field(ui, "step", &format!("{:<24} {status:<8} {took}", step.name));
    }
    if let Some(error) = &view.error {
        field(ui, "error", &ui.paint(Look::Red, &printable(&error.message)));
        field(ui, "repair", error.remedy.as_deref().unwrap_or_default());
    }
}

fn collected(ui: &Ui, view: &GcResult) {
    let mut table = Table::new(&["KIND", "ID", "SIZE", "WHY"]);
    for item in &view.removed {
        table.row(vec![
            (&item.kind).into(),
            (&item.id).into(),
            units::bytes(item.bytes).into(),
            (&item.reason).into(),
        ]);
    }
    if !view.removed.is_empty() && ui.talk == Talk::All {
        table.print(ui);
    }
    let freed = units::bytes(view.freed_bytes);
    ui.line(match (view.count, view.dry_run) {
        (0, _) => "nothing to remove".to_owned(),
        (count, true) => format!("would remove {count}, {freed}"),
        (count, false) => format!("removed {count}, {freed}"),
    });
}

fn system(ui: &Ui, view: &SystemStatusResult) {
    field(ui, "daemon", &format!("{}, process {}", view.version, view.pid));
    field(ui, "home", &view.home);
    if let Some(url) = &view.url {
        field(ui, "url", url);
    }
    field(ui, "since", &view.started_at.to_string());
    let counts = &view.counts;
    field(
        ui,
        "branches",
        &format!(
            "{} in {} clusters: {} running, {} paused",
            counts.branches, counts.clusters, counts.running, counts.paused
        ),
    );
    field(ui, "commits", &counts.commits.to_string());
    field(ui, "images", &counts.images.to_string());
    field(
        ui,
        "operations",
        &format!("{} under way, {} stuck", counts.operations, counts.stuck_operations),
    );
    let room = &view.capacity;
    field(
        ui,
        "memory",
        &format!("{} of {} MiB available", room.memory_available_mib, room.memory_total_mib),
    );
    field(ui, "disk", &format!("{} of {} MiB free", room.disk_free_mib, room.disk_total_mib));
    if let Some(profile) = &view.profile {
        field(
            ui,
            "machines",
            &format!(
                "QEMU {}, {}, {}",
                profile.qemu_version,
                profile.machine,
                profile.accelerator.as_str()
            ),
        );
    }
    for warning in &view.warnings {
        field(ui, "warning", &ui.paint(Look::Yellow, &printable(warning)));
    }
}

fn joined<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

const fn state_name(state: BranchState) -> &'static str {
    match state {
        BranchState::Running => "running",
        BranchState::Paused => "paused",
        BranchState::Stopped => "stopped",
    }
}
