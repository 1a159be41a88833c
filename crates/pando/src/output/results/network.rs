//! Networks and their faults, for people.

use pando_api::commit::StalledPort;
use pando_api::network::{
    FaultType, LinkInfo, NetCaptureResult, NetFaultInfo, NetFaultListResult, NetFaultResult,
    NetHealResult, NetProbeResult, ProbeRow, Verified,
};
use serde_json::Value;

use super::say;
use crate::output::table::{Cell, Table, printable};
use crate::output::{Look, Talk, Ui, units};

/// Links that are named one by one.
const LINKS: usize = 4;

/// Shows a fault that was made.
pub fn made(ui: &Ui, view: &NetFaultResult) {
    let handle = view.fault.handle_id.as_str();
    let what = format!(
        "{} in {}: {}",
        ui.paint(Look::Bold, handle),
        view.address,
        described(view.fault.fault_type, &view.fault.parameters)
    );
    say(ui, handle, what);
    seen(ui, view.verified, &view.evidence);
    warn(ui, view.warning.as_deref());
    ui.remark(format!("heal: pando net heal {} {handle}", view.address));
}

fn seen(ui: &Ui, verified: Verified, evidence: &str) {
    let (look, word) = match verified {
        Verified::Yes => (Look::Green, "verified"),
        Verified::No => (Look::Red, "not so"),
        Verified::Unknown => (Look::Yellow, "unknown"),
    };
    ui.remark(format!("{}: {}", ui.paint(look, word), printable(evidence)));
}

fn warn(ui: &Ui, warning: Option<&str>) {
    if let Some(warning) = warning {
        ui.remark(format!("{}: {}", ui.paint(Look::Red, "warning"), printable(warning)));
    }
}

/// Shows what was healed.
pub fn healed(ui: &Ui, view: &NetHealResult) {
    let left = match view.remaining {
        0 => "none is left".to_owned(),
        some => format!("{some} left"),
    };
    let count = match view.count {
        1 => "1 fault".to_owned(),
        count => format!("{count} faults"),
    };
    say(ui, &view.count.to_string(), format!("{}: {count} healed, {left}", view.address));
    if view.count > 0 {
        seen(ui, view.verified, &view.evidence);
    }
    warn(ui, view.warning.as_deref());
}

/// Shows faults, and links if there are any.
pub fn faults(ui: &Ui, view: &NetFaultListResult) {
    if ui.talk == Talk::Quiet {
        return view.faults.iter().for_each(|fault| ui.line(fault.handle_id.as_str()));
    }
    if view.faults.is_empty() {
        ui.remark(format!("{} has no faults", view.address));
    } else {
        let mut table =
            Table::new(&["FAULT", "WHAT", "LINKS", "FRAMES", "DROPPED", "ENDS", "LABEL"]);
        for fault in &view.faults {
            let count = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
            table.row(vec![
                Cell::new(Look::Bold, fault.handle_id.as_str()),
                effect(fault.fault_type, &fault.parameters).into(),
                links(fault).into(),
                count(fault.counters.map(|counters| counters.frames)).into(),
                count(fault.counters.map(|counters| counters.dropped)).into(),
                fault.expires_at.map(|end| end.to_string()).unwrap_or_default().into(),
                fault.label.clone().unwrap_or_default().into(),
            ]);
        }
        table.print(ui);
    }
    if let Some(spoofed) = view.spoofed.filter(|spoofed| *spoofed > 0) {
        ui.remark(format!("{spoofed} frames were sent under another port's address"));
    }
    if !view.links.is_empty() {
        ui.line("");
        counts(ui, &view.links);
    }
}

fn counts(ui: &Ui, links: &[LinkInfo]) {
    let mut table = Table::new(&["FROM", "TO", "SENT", "BYTES", "DELIVERED", "HELD", "DROPPED"]);
    for link in links {
        let dropped: u64 = link.dropped.values().sum();
        let look = if dropped > 0 { Look::Yellow } else { Look::Plain };
        table.row(vec![
            link.from.as_str().into(),
            link.to.as_str().into(),
            link.sent.to_string().into(),
            units::bytes(link.bytes).into(),
            link.delivered.to_string().into(),
            link.held.to_string().into(),
            Cell::new(look, dropped.to_string()),
        ]);
    }
    table.print(ui);
}

/// Returns what a fault does to frames, and on which network if on one only.
pub fn effect(fault_type: FaultType, parameters: &Value) -> String {
    let effect = match fault_type {
        FaultType::Partition => "partition".to_owned(),
        FaultType::Impairment => impairment(parameters),
    };
    match parameters.get("network").and_then(Value::as_str) {
        Some(network) => format!("{effect} on {network}"),
        None => effect,
    }
}

/// Returns what a fault does, and to whom.
pub fn described(fault_type: FaultType, parameters: &Value) -> String {
    let names = |name: &str| match parameters.get(name) {
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Some(Value::String(name)) => name.clone(),
        _ => String::new(),
    };
    let is = |name: &str, value: &Value| parameters.get(name) == Some(value);
    let effect = effect(fault_type, parameters);
    match fault_type {
        FaultType::Partition => {
            let sign = if is("direction", &"both".into()) { "|" } else { "→" };
            format!("{effect} {} {sign} {}", names("partition_a"), names("partition_b"))
        }
        FaultType::Impairment if parameters.get("source_node").is_some() => {
            let sign = if is("both_directions", &true.into()) { "↔" } else { "→" };
            format!("{effect} {} {sign} {}", names("source_node"), names("target_node"))
        }
        FaultType::Impairment => format!("{effect} on several links"),
    }
}

fn impairment(parameters: &Value) -> String {
    let number = |name: &str| parameters.get(name).and_then(Value::as_f64);
    let mut parts = Vec::new();
    for (name, before, unit) in [
        ("latency_ms", "", " ms"),
        ("jitter_ms", "±", " ms"),
        ("loss_pct", "loss ", " %"),
        ("duplicate_pct", "duplicate ", " %"),
        ("corrupt_pct", "corrupt ", " %"),
        ("reorder_pct", "reorder ", " %"),
        ("rate_kbit", "", " kbit/s"),
    ] {
        parts.extend(number(name).map(|value| format!("{before}{value}{unit}")));
    }
    parts.join(", ")
}

/// Tells of frames that a commit does not hold.
pub fn not_held(ui: &Ui, stalled: &[StalledPort], note: Option<&str>) {
    for port in stalled {
        let StalledPort { node, nic } = port;
        ui.remark(format!("{node} did not read all that was sent to its interface {nic}"));
    }
    if let Some(note) = note {
        ui.remark(printable(note));
    }
}

fn links(fault: &NetFaultInfo) -> String {
    let shown = fault.links.iter().take(LINKS).map(String::as_str);
    let text = shown.collect::<Vec<_>>().join(" ");
    match fault.links.len().saturating_sub(LINKS) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// Shows who reaches whom.
pub fn probed(ui: &Ui, view: &NetProbeResult) {
    if ui.talk == Talk::Quiet {
        return ui.line(format!("{} {} {}", view.reachable, view.unreachable, view.unknown));
    }
    let mut table = Table::new(&["FROM", "TO", "ADDRESS", "ANSWERS", "RTT", "MIN", "MAX"]);
    for row in &view.rows {
        let ms = |value: Option<f64>| value.map(|ms| format!("{ms:.2} ms")).unwrap_or_default();
        table.row(vec![
            row.from.as_str().into(),
            row.to.as_str().into(),
            row.address.as_str().into(),
            answers(row),
            ms(row.rtt_ms).into(),
            ms(row.min_ms).into(),
            ms(row.max_ms).into(),
        ]);
    }
    table.print(ui);
    let all = view.reachable + view.unreachable + view.unknown;
    let unknown = match view.unknown {
        0 => String::new(),
        some => format!(", {some} unknown"),
    };
    ui.remark(format!("{} of {all} reached{unknown}", view.reachable));
    if view.truncated {
        ui.remark("there are more: --sources and --targets narrow it");
    }
}

fn answers(row: &ProbeRow) -> Cell {
    match row.reachable {
        None => Cell::new(Look::Yellow, row.error.as_deref().unwrap_or("unknown")),
        Some(false) => Cell::new(Look::Red, "none"),
        Some(true) if row.received < row.sent => {
            Cell::new(Look::Yellow, format!("{} of {}", row.received, row.sent))
        }
        Some(true) => Cell::new(Look::Green, "all"),
    }
}

/// Shows a capture that was begun or ended.
pub fn capture(ui: &Ui, view: &NetCaptureResult) {
    if view.content_base64.is_some() {
        return;
    }
    let Some(taken) = view.taken else {
        return ui.remark(format!("{}: pando net capture {0} stop", view.address));
    };
    let why = if taken.limited { ", where a limit ended it" } else { "" };
    let size = units::bytes(taken.bytes);
    say(
        ui,
        &taken.frames.to_string(),
        format!("{}: {} frames, {size}{why}", view.address, taken.frames),
    );
    if taken.lost > 0 {
        ui.remark(format!("{} more were lost: the disk was too slow", taken.lost));
    }
}
