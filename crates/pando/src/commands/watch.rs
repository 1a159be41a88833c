//! `pando watch`: machines, branches and nodes as they are, again and again.

use std::collections::BTreeMap;

use clap::{ArgMatches, Command};
use jiff::Timestamp;
use pando_api::ApiError;
use pando_api::branch::{BranchListResult, BranchRow};
use pando_api::machine::{VmListResult, VmRow};
use pando_api::operation::{OperationListResult, OperationView};
use pando_api::usage::{VmUsageResult, VmUsageRow};
use serde_json::json;

use crate::app::{App, Ending};
use crate::commands::live::{self, Live, Mode, Next};
use crate::commands::typed;
use crate::limits::{PS_ROWS, WATCHED_OPERATIONS};
use crate::output::table::{Cell, Table, printable};
use crate::output::{Look, Ui, units};

/// Returns the command.
pub fn command() -> Command {
    Command::new("watch")
        .about("Watch machines, branches and operations as they change")
        .after_help(
            "On a terminal the tree is drawn again, and q leaves; into a pipe goes a line for each change, and with \
             --json an object for each look.",
        )
        .args(live::arguments())
}

/// What is there at one moment.
struct Seen {
    machines: Vec<VmRow>,
    branches: Vec<BranchRow>,
    nodes: Vec<VmUsageRow>,
    operations: Vec<OperationView>,
}

/// Watches until somebody leaves.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let mut live = Live::begin(&app.ui, matches)?;
    let mut before: Option<BTreeMap<String, String>> = None;
    let mut seen = look(app).await;
    loop {
        match (live.mode, &seen) {
            (Mode::Screen, Ok(now)) => live.draw(&screen(app.ui, &live, now)),
            (Mode::Screen, Err(error)) => live.draw(&[format!("… {}", printable(&error.message))]),
            (Mode::Once | Mode::Json | Mode::Lines, Err(error)) => return Err(error.clone()),
            (Mode::Once, Ok(now)) => {
                once(app, now);
                return Ok(0);
            }
            (Mode::Json, Ok(now)) => app.show("", &value(now)),
            (Mode::Lines, Ok(now)) => {
                let states = states(now);
                for line in changes(before.as_ref(), &states) {
                    app.ui.line(format!("{}  {line}", clock(Timestamp::now())));
                }
                before = Some(states);
            }
        }
        match live.wait().await {
            Next::Leave => return Ok(0),
            Next::Draw(_) => {}
            Next::Look => seen = look(app).await,
        }
    }
}

async fn look(app: &App) -> Result<Seen, ApiError> {
    let rows = json!({ "limit": PS_ROWS });
    let machines: VmListResult = typed(app.look("vm_list", rows.clone()).await?)?;
    let branches: BranchListResult = typed(app.look("branch_list", rows.clone()).await?)?;
    let nodes: VmUsageResult = typed(app.look("vm_usage", rows).await?)?;
    let newest = json!({ "limit": WATCHED_OPERATIONS });
    let operations: OperationListResult = typed(app.look("operation_list", newest).await?)?;
    Ok(Seen {
        machines: machines.vms,
        branches: branches.branches,
        nodes: nodes.nodes,
        operations: operations.operations,
    })
}

fn value(seen: &Seen) -> serde_json::Value {
    let running: Vec<&OperationView> = running(seen).collect();
    json!({
        "seen_at": Timestamp::now(), "vms": seen.machines, "branches": seen.branches,
        "nodes": seen.nodes, "operations": running,
    })
}

fn running(seen: &Seen) -> impl Iterator<Item = &OperationView> {
    seen.operations.iter().filter(|operation| !operation.status.is_final())
}

fn once(app: &App, seen: &Seen) {
    if app.ui.format == crate::output::Format::Json {
        return app.show("", &value(seen));
    }
    for line in tree(seen, app.ui.now).lines(app.ui.width, app.ui.colours_stdout()) {
        app.ui.line(line);
    }
}

fn screen(ui: Ui, live: &Live, seen: &Seen) -> Vec<String> {
    let now = Timestamp::now();
    let (columns, rows) = live.size();
    let head = format!(
        "pando  {}  {} machines, {} branches, {} running   q leaves",
        clock(now),
        seen.machines.len(),
        seen.branches.len(),
        seen.nodes.len(),
    );
    let head: String = head.chars().take(columns).collect();
    let mut lines = vec![ui.paint(Look::Dim, &head), String::new()];
    lines.extend(tree(seen, now).lines(Some(columns), ui.colours_stdout()));
    let room = rows.saturating_sub(2);
    if lines.len() > room && room > 0 {
        let hidden = lines.len() - room;
        lines.truncate(room);
        lines.push(ui.paint(Look::Dim, &format!("… {hidden} more")));
    }
    lines
}

fn clock(now: Timestamp) -> String {
    now.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// Returns the tree of what is there: machines, their branches, and nodes where a branch has
/// several or one that is not as its branch is.
fn tree(seen: &Seen, now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "UP", "AGE", "COMMIT", "NOW"]);
    for machine in &seen.machines {
        table.row(vec![
            Cell::new(Look::Bold, machine.name.as_str()),
            Cell::from(""),
            Cell::from(""),
            Cell::from(units::age(machine.created_at, now)),
            Cell::from(""),
            Cell::new(Look::Dim, &machine.image),
        ]);
        let mine = |branch: &&BranchRow| branch.cluster_id == machine.cluster_id;
        let branches: Vec<&BranchRow> = seen.branches.iter().filter(mine).collect();
        for (index, branch) in branches.iter().enumerate() {
            let is_last = index + 1 == branches.len();
            branch_rows(&mut table, seen, branch, if is_last { "└─" } else { "├─" }, now);
        }
        let of_machine = running(seen)
            .filter(|operation| operation.cluster_id.as_ref() == Some(&machine.cluster_id));
        of_machine.for_each(|operation| operation_row(&mut table, operation, now));
    }
    let known = |operation: &&OperationView| {
        let of = |machine: &VmRow| operation.cluster_id.as_ref() == Some(&machine.cluster_id);
        !seen.machines.iter().any(of)
    };
    running(seen).filter(known).for_each(|operation| operation_row(&mut table, operation, now));
    table
}

fn branch_rows(table: &mut Table, seen: &Seen, branch: &BranchRow, edge: &str, now: Timestamp) {
    let nodes: Vec<&VmUsageRow> =
        seen.nodes.iter().filter(|node| node.branch_id == branch.id).collect();
    let up = nodes.iter().map(|node| node.uptime_ms).max();
    let commands: u32 = nodes.iter().map(|node| node.commands).sum();
    let doing = match (&branch.reason, commands) {
        (Some(reason), _) => reason.clone(),
        (None, 0) => String::new(),
        (None, 1) => "1 command".to_owned(),
        (None, more) => format!("{more} commands"),
    };
    let mark = if branch.current { " *" } else { "" };
    table.row(vec![
        Cell::from(format!("{edge} {}{mark}", branch.alias)),
        Cell::new(Look::of_state(branch.state), state(branch.state)),
        Cell::from(up.map_or_else(String::new, units::whole_millis)),
        Cell::from(units::age(branch.created_at, now)),
        Cell::new(Look::Yellow, branch.commit_id.as_ref().map_or("-", |id| id.as_str())),
        Cell::from(doing),
    ]);
    let telling = nodes.len() > 1 || nodes.iter().any(|node| node.state != branch.state);
    for node in nodes.iter().filter(|_| telling) {
        let below = if edge == "└─" { "   " } else { "│  " };
        table.row(vec![
            Cell::from(format!("{below}· {}", node.node)),
            Cell::new(Look::of_state(node.state), state(node.state)),
            Cell::from(units::whole_millis(node.uptime_ms)),
            Cell::from(""),
            Cell::from(""),
            Cell::from(""),
        ]);
    }
}

fn operation_row(table: &mut Table, operation: &OperationView, now: Timestamp) {
    let progress = &operation.progress;
    let far = match progress.total {
        0 => String::new(),
        total => format!(" {}%", u128::from(progress.done.min(total)) * 100 / u128::from(total)),
    };
    table.row(vec![
        Cell::new(Look::Cyan, format!("⟳ {}", operation.verb)),
        Cell::from(format!("{:?}", operation.status).to_lowercase()),
        Cell::from(""),
        Cell::from(units::age(operation.created_at, now)),
        Cell::new(Look::Dim, operation.operation_id.as_str()),
        Cell::from(format!("{}{far}", progress.message)),
    ]);
}

fn state(state: pando_model::BranchState) -> String {
    format!("{state:?}").to_lowercase()
}

/// Returns everything that a change is told of, by its name.
fn states(seen: &Seen) -> BTreeMap<String, String> {
    let branches = seen.branches.iter().map(|branch| {
        let why =
            branch.reason.as_ref().map_or_else(String::new, |why| format!(" ({})", printable(why)));
        (branch.address.clone(), format!("{}{why}", state(branch.state)))
    });
    let operations = seen.operations.iter().map(|operation| {
        let status = format!("{:?}", operation.status).to_lowercase();
        (operation.operation_id.to_string(), format!("{} {status}", operation.verb))
    });
    branches.chain(operations).collect()
}

/// Returns a line for each thing that came, went or changed. At first all is new, but operations
/// that have ended are not worth a line.
fn changes(
    before: Option<&BTreeMap<String, String>>,
    now: &BTreeMap<String, String>,
) -> Vec<String> {
    let is_operation = |name: &str| name.starts_with("op_");
    let ended = |text: &str| {
        ["succeeded", "failed", "cancelled"].iter().any(|status| text.ends_with(status))
    };
    let mut lines = Vec::new();
    for (name, text) in now {
        let old = before.and_then(|before| before.get(name));
        if old == Some(text) || (before.is_none() && is_operation(name) && ended(text)) {
            continue;
        }
        lines.push(format!("{name}  {text}"));
    }
    // An operation that is not among the newest any more has not gone anywhere.
    let gone = before.into_iter().flatten().map(|(name, _)| name);
    let gone = gone.filter(|name| !now.contains_key(*name) && !is_operation(name));
    lines.extend(gone.map(|name| format!("{name}  gone")));
    lines
}

#[cfg(test)]
mod tests {
    use super::changes;

    #[test]
    fn a_change_is_one_line() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let first =
            map(&[("op_1", "gc succeeded"), ("op_2", "gc running"), ("shop@main", "running")]);
        assert_eq!(changes(None, &first), ["op_2  gc running", "shop@main  running"]);
        assert!(changes(Some(&first), &first).is_empty());
        let second = map(&[("op_2", "gc succeeded"), ("op_3", "gc failed"), ("shop@b", "paused")]);
        assert_eq!(
            changes(Some(&first), &second),
            ["op_2  gc succeeded", "op_3  gc failed", "shop@b  paused", "shop@main  gone"]
        );
    }
}
