//! `pando ps`: every cluster, which may be of one machine, with its branches.

use std::collections::BTreeMap;

use clap::Command;
use pando_api::branch::{BranchListResult, BranchRow};
use pando_api::machine::{VmListResult, VmRow};
use serde_json::json;

use crate::app::{App, Ending};
use crate::commands::typed;
use crate::limits::PS_ROWS;
use crate::output::table::{Cell, Table};
use crate::output::{Format, Look, Talk, Ui, units};

/// Returns the command.
pub fn command() -> Command {
    Command::new("ps").about("Show every machine and cluster with its branches")
}

/// Shows them.
pub async fn run(app: &App) -> Ending {
    let vms = app.call("vm_list", json!({ "limit": PS_ROWS })).await?;
    let branches = app.call("branch_list", json!({ "limit": PS_ROWS })).await?;
    if app.ui.format == Format::Json {
        app.show("", &json!({ "vms": vms["vms"], "branches": branches["branches"] }));
        return Ok(0);
    }
    show(&app.ui, &typed(vms)?, &typed(branches)?);
    Ok(0)
}

fn show(ui: &Ui, vms: &VmListResult, branches: &BranchListResult) {
    if vms.vms.is_empty() {
        ui.remark("nothing here yet; make a machine:  pando vm create shop");
        ui.remark("or a cluster of several:           pando cluster define FILE");
        ui.remark("or see it all in some minutes:     pando demo");
        return;
    }
    let mut of_cluster: BTreeMap<&str, Vec<&BranchRow>> = BTreeMap::new();
    for branch in &branches.branches {
        of_cluster.entry(branch.cluster_id.as_str()).or_default().push(branch);
    }
    if ui.talk == Talk::Quiet {
        branches.branches.iter().for_each(|branch| ui.line(&branch.address));
        return;
    }
    let mut clusters: Vec<Vec<&VmRow>> = Vec::new();
    for vm in &vms.vms {
        match clusters.iter_mut().find(|nodes| nodes[0].cluster_id == vm.cluster_id) {
            Some(nodes) => nodes.push(vm),
            None => clusters.push(vec![vm]),
        }
    }
    let mut table = Table::new(&[
        "NAME", "", "BRANCH", "STATE", "COMMIT", "AGE", "NODES", "CPU", "MEMORY", "IMAGE",
    ]);
    for nodes in &clusters {
        let branches = of_cluster.get(nodes[0].cluster_id.as_str()).map_or(&[][..], Vec::as_slice);
        for (index, branch) in branches.iter().enumerate() {
            table.row(row(ui, nodes, branch, index == 0));
        }
    }
    table.print(ui);
}

/// Returns a branch's row; the first one of a cluster has what its machines have, all together.
fn row(ui: &Ui, nodes: &[&VmRow], branch: &BranchRow, is_first: bool) -> Vec<Cell> {
    let once = |text: String| if is_first { text } else { String::new() };
    let state = serde_json::to_value(branch.state).unwrap_or_default();
    let sum = |what: fn(&VmRow) -> u64| nodes.iter().map(|node| what(node)).sum::<u64>();
    let mut images: Vec<&str> = nodes.iter().map(|node| node.image.as_str()).collect();
    images.sort_unstable();
    images.dedup();
    vec![
        Cell::new(Look::Bold, once(nodes[0].name.to_string())),
        Cell::new(Look::Green, if branch.current { "*" } else { "" }),
        Cell::from(branch.alias.as_str()),
        Cell::new(Look::of_state(branch.state), state.as_str().unwrap_or_default()),
        Cell::new(Look::Yellow, branch.commit_id.as_ref().map_or("-", |id| id.as_str())),
        Cell::from(units::age(branch.created_at, ui.now)),
        Cell::from(once(nodes.len().to_string())),
        Cell::from(once(sum(|node| node.vcpus.into()).to_string())),
        Cell::from(once(units::bytes(sum(|node| node.memory_mib) << 20))),
        Cell::from(once(images.join(", "))),
    ]
}
