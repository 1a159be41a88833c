//! Topologies: what was found in one, and which there are.

use pando_api::topology::{
    Note, TopologyListResult, TopologyShowResult, TopologyValidateResult, TopologyView,
};

use super::lists::table;
use super::say;
use crate::output::table::{Cell, printable};
use crate::output::{Look, Talk, Ui, units};

/// Most characters of an error in a list.
const MAX_ERROR_CHARS: usize = 72;

pub(super) fn validated(ui: &Ui, result: &TopologyValidateResult) {
    let place = result.path.as_deref().unwrap_or("the topology");
    if let Some(view) = &result.topology {
        say(ui, view.cluster.as_str(), format!("{} is valid: {}", printable(place), short(view)));
        return notes(ui, &result.notes);
    }
    for error in &result.errors {
        ui.line(ui.paint(Look::Red, &printable(&error.to_string())));
        ui.line(format!("    {}", ui.paint(Look::Cyan, &printable(&error.fix))));
    }
    if result.more_errors > 0 {
        ui.line(format!("and {} more", result.more_errors));
    }
}

/// Returns what a cluster of it is, in a line.
fn short(view: &TopologyView) -> String {
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    format!(
        "cluster {}, {}, {}, {} CPU, {}",
        view.cluster,
        count(view.nodes.len(), "node"),
        count(view.networks.len(), "network"),
        view.vcpus,
        units::bytes(view.memory_mib << 20),
    )
}

fn notes(ui: &Ui, notes: &[Note]) {
    for note in notes {
        ui.remark(printable(&note.to_string()));
    }
}

pub(super) fn list(ui: &Ui, list: &TopologyListResult) {
    if list.topologies.is_empty() {
        return ui.remark(format!("no topologies in {}", printable(&list.directory)));
    }
    let rows = list.topologies.iter().map(|row| {
        let name = Cell::new(Look::Bold, &row.name);
        match &row.topology {
            Some(view) => vec![
                name,
                view.cluster.as_str().into(),
                view.nodes.len().to_string().into(),
                units::bytes(view.memory_mib << 20).into(),
                view.images.join(", ").into(),
                printable(&view.description).into(),
            ],
            None => {
                let error = printable(row.error.as_deref().unwrap_or_default());
                let error: String = error.chars().take(MAX_ERROR_CHARS).collect();
                let empty = || Cell::from("");
                vec![name, empty(), empty(), empty(), empty(), Cell::new(Look::Red, error)]
            }
        }
    });
    let headings = ["NAME", "CLUSTER", "NODES", "MEMORY", "IMAGES", "WHAT"];
    let names: Vec<String> = list.topologies.iter().map(|row| row.name.clone()).collect();
    table(ui, &headings, rows.collect(), &names, &list.page);
}

pub(super) fn show(ui: &Ui, result: &TopologyShowResult) {
    // As it would be written to a file: printable already, but for line breaks.
    for line in result.yaml.lines() {
        ui.line(printable(line));
    }
    if ui.talk == Talk::All {
        ui.remark(format!("digest {}", result.topology.digest));
        notes(ui, &result.notes);
    }
}
