//! `pando top`: what running machines take of this host.

use std::cmp::Reverse;

use clap::{Arg, ArgMatches, Command};
use jiff::Timestamp;
use pando_api::ApiError;
use pando_api::system::SystemStatusResult;
use pando_api::usage::{VmUsageResult, VmUsageRow};
use pando_model::BranchState;
use serde_json::{Value, json};

use crate::app::{App, Ending};
use crate::commands::live::{self, Live, Mode, Next};
use crate::commands::{text, typed};
use crate::limits::PS_ROWS;
use crate::output::table::{Cell, Table, printable};
use crate::output::{Format, Look, Ui, units};

/// What rows are sorted by, and the key that chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Cpu,
    Memory,
    Disk,
    Up,
    Name,
}

const ORDERS: &[(&str, u8, Order)] = &[
    ("cpu", b'c', Order::Cpu),
    ("memory", b'm', Order::Memory),
    ("disk", b'd', Order::Disk),
    ("up", b'u', Order::Up),
    ("name", b'n', Order::Name),
];

/// Returns the command.
pub fn command() -> Command {
    Command::new("top")
        .about("Show what running machines take of this host, again and again")
        .after_help(
            "The keys c, m, d, u and n sort by processor, memory, disk, uptime and name; q leaves.\n\
             CPU is of one processor: 200% is two. MEMORY is the host's, shared pages counted in \
             proportion; DISK is what was written since the latest commit.",
        )
        .args(live::arguments())
        .arg(
            Arg::new("sort")
                .long("sort")
                .short('s')
                .value_name("BY")
                .value_parser(ORDERS.iter().map(|(name, ..)| *name).collect::<Vec<_>>())
                .default_value("cpu")
                .help("What comes first"),
        )
}

/// One look at the host, and how busy machines were since the one before.
struct Seen {
    usage: VmUsageResult,
    host: SystemStatusResult,
    /// Processor use in percent of one processor, row by row; `None` when it is not known yet.
    busy: Vec<Option<f64>>,
}

/// Shows it until somebody leaves.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let mut live = Live::begin(&app.ui, matches)?;
    let wanted = text(matches, "sort");
    let mut order =
        ORDERS.iter().find(|(name, ..)| *name == wanted).map_or(Order::Cpu, |(.., order)| *order);
    let mut seen = look(app, None).await;
    if matches!(live.mode, Mode::Once | Mode::Lines | Mode::Json) {
        // How busy a machine is takes two looks.
        tokio::time::sleep(live.interval).await;
        seen = look(app, seen.ok().as_ref()).await;
    }
    loop {
        match (live.mode, &seen) {
            (Mode::Screen, Ok(now)) => live.draw(&screen(app.ui, &live, now, order)),
            (Mode::Screen, Err(error)) => live.draw(&[format!("… {}", printable(&error.message))]),
            (_, Err(error)) => return Err(error.clone()),
            (_, Ok(now)) => print(app, now, order),
        }
        if live.mode == Mode::Once {
            return Ok(0);
        }
        match live.wait().await {
            Next::Leave => return Ok(0),
            Next::Draw(key) => {
                let chosen = ORDERS.iter().find(|(_, own, _)| Some(*own) == key);
                order = chosen.map_or(order, |(.., order)| *order);
            }
            Next::Look => seen = look(app, seen.ok().as_ref()).await,
        }
    }
}

async fn look(app: &App, before: Option<&Seen>) -> Result<Seen, ApiError> {
    let usage: VmUsageResult = typed(app.look("vm_usage", json!({ "limit": PS_ROWS })).await?)?;
    let host: SystemStatusResult = typed(app.look("system_status", json!({})).await?)?;
    let busy = usage.nodes.iter().map(|row| busy(before.map(|seen| &seen.usage), &usage, row));
    let busy = busy.collect();
    Ok(Seen { usage, host, busy })
}

/// Returns how busy a machine was between two looks, in percent of one processor.
fn busy(before: Option<&VmUsageResult>, now: &VmUsageResult, row: &VmUsageRow) -> Option<f64> {
    let before = before?;
    let same = |other: &&VmUsageRow| other.branch_id == row.branch_id && other.node == row.node;
    let old = before.nodes.iter().find(same)?;
    // Another incarnation counts from the beginning.
    if old.uptime_ms > row.uptime_ms {
        return None;
    }
    let passed = now.counted_at.as_millisecond() - before.counted_at.as_millisecond();
    let used = row.cpu_ms.checked_sub(old.cpu_ms)?;
    if passed <= 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    Some(used as f64 * 100.0 / passed as f64)
}

/// Returns rows with how busy each is, in order.
fn sorted(seen: &Seen, order: Order) -> Vec<(&VmUsageRow, Option<f64>)> {
    let mut rows: Vec<_> = seen.usage.nodes.iter().zip(seen.busy.iter().copied()).collect();
    match order {
        Order::Cpu => {
            rows.sort_by(|(_, a), (_, b)| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0)));
        }
        Order::Memory => rows.sort_by_key(|(row, _)| Reverse(row.host_memory_bytes)),
        Order::Disk => rows.sort_by_key(|(row, _)| Reverse(row.host_disk_bytes)),
        Order::Up => rows.sort_by_key(|(row, _)| Reverse(row.uptime_ms)),
        Order::Name => rows.sort_by(|(a, _), (b, _)| a.address.cmp(&b.address)),
    }
    rows
}

fn table(seen: &Seen, order: Order) -> Table {
    let mut table = Table::new(&[
        "MACHINE", "STATE", "CPU", "TIME", "MEMORY", "OF", "DISK", "UP", "COMMANDS", "KEEPER",
    ]);
    for (row, busy) in sorted(seen, order) {
        let hot =
            if busy.is_some_and(|percent| percent >= 90.0) { Look::Yellow } else { Look::Plain };
        table.row(vec![
            Cell::new(Look::Bold, &row.address),
            Cell::new(Look::of_state(row.state), state(row.state)),
            Cell::new(hot, busy.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}%"))),
            Cell::from(units::whole_millis(row.cpu_ms)),
            Cell::from(units::bytes(row.host_memory_bytes)),
            Cell::from(units::bytes(row.memory_mib << 20)),
            Cell::from(units::bytes(row.host_disk_bytes)),
            Cell::from(units::whole_millis(row.uptime_ms)),
            Cell::from(row.commands.to_string()),
            Cell::from(units::bytes(row.keeper_memory_bytes)),
        ]);
    }
    table
}

fn state(state: BranchState) -> String {
    format!("{state:?}").to_lowercase()
}

fn head(seen: &Seen) -> String {
    let capacity = &seen.host.capacity;
    format!(
        "{} running   {} processors   memory {} of {} free   disk {} free",
        seen.usage.nodes.len(),
        capacity.processors,
        units::bytes(capacity.memory_available_mib << 20),
        units::bytes(capacity.memory_total_mib << 20),
        units::bytes(capacity.disk_free_mib << 20),
    )
}

fn screen(ui: Ui, live: &Live, seen: &Seen, order: Order) -> Vec<String> {
    let (columns, _) = live.size();
    let sorted_by = ORDERS.iter().find(|(.., own)| *own == order).map_or("", |(name, ..)| *name);
    let keys = format!("sorted by {sorted_by}   c m d u n sort, q leaves");
    let cut = |text: &str| text.chars().take(columns).collect::<String>();
    let mut lines = vec![
        ui.paint(Look::Dim, &cut(&head(seen))),
        ui.paint(Look::Dim, &cut(&keys)),
        String::new(),
    ];
    lines.extend(table(seen, order).lines(Some(columns), ui.colours_stdout()));
    lines
}

fn print(app: &App, seen: &Seen, order: Order) {
    if app.ui.format == Format::Json {
        return app.show("", &value(seen, order));
    }
    app.ui.line(head(seen));
    for line in table(seen, order).lines(app.ui.width, app.ui.colours_stdout()) {
        app.ui.line(line);
    }
    app.ui.line("");
}

fn value(seen: &Seen, order: Order) -> Value {
    let rows = sorted(seen, order).into_iter().map(|(row, busy)| {
        let mut value = serde_json::to_value(row).unwrap_or_default();
        // A machine that was not there at the look before is not known to be idle.
        value["cpu_percent"] =
            busy.map_or(Value::Null, |percent| json!((percent * 10.0).round() / 10.0));
        value
    });
    let counted: Timestamp = seen.usage.counted_at;
    json!({ "counted_at": counted, "nodes": rows.collect::<Vec<_>>(), "capacity": seen.host.capacity })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(at_ms: i64, cpu_ms: u64, uptime_ms: u64) -> VmUsageResult {
        let row = json!({
            "address": "shop@main/shop", "cluster_id": "cl_0123456789ab",
            "branch_id": "br_0123456789ab", "node": "shop", "state": "running",
            "uptime_ms": uptime_ms, "vcpus": 1, "cpu_ms": cpu_ms, "memory_mib": 512,
            "host_memory_bytes": 1, "host_disk_bytes": 1, "keeper_memory_bytes": 1,
            "keeper_cpu_ms": 1, "commands": 0,
        });
        let at = Timestamp::from_millisecond(at_ms).expect("a time");
        let page = json!({ "total": 1, "returned": 1, "truncated": false });
        let mut value = json!({ "counted_at": at, "nodes": [row] });
        value.as_object_mut().expect("an object").extend(page.as_object().expect("one").clone());
        serde_json::from_value(value).expect("a result")
    }

    #[test]
    fn how_busy_a_machine_is_takes_two_looks_at_one_incarnation() {
        let before = usage(1000, 100, 5000);
        let percent = |now: &VmUsageResult, before| busy(before, now, &now.nodes[0]);
        assert_eq!(percent(&before, None), None);
        assert_eq!(percent(&usage(2000, 600, 6000), Some(&before)), Some(50.0));
        assert_eq!(percent(&usage(1500, 1100, 5500), Some(&before)), Some(200.0));
        // It was started again, or time stood still.
        assert_eq!(percent(&usage(2000, 50, 900), Some(&before)), None);
        assert_eq!(percent(&usage(1000, 100, 5000), Some(&before)), None);
    }
}
