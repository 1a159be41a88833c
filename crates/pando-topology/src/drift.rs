//! What differs between two topologies, in the keys of the text: what a cluster was defined from,
//! and what its file says.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::canonical::{Tree, tree};
use crate::topology::Topology;
use crate::yaml::shown;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Drift {
    /// What differs, with entries by their names: `nodes[db].memory`.
    pub path: String,
    /// What the cluster was defined with; `None` if it had none.
    pub defined: Option<String>,
    /// What the text says; `None` if it has none.
    pub file: Option<String>,
}

/// Returns what differs, in the order of the canonical form; empty if both mean the same.
pub fn diff(defined: &Topology, file: &Topology) -> Vec<Drift> {
    let mut drifts = Vec::new();
    compare(&mut drifts, "", Some(&tree(defined)), Some(&tree(file)));
    drifts
}

fn compare(drifts: &mut Vec<Drift>, path: &str, defined: Option<&Tree>, file: Option<&Tree>) {
    if defined == file {
        return;
    }
    match (defined, file) {
        (Some(Tree::Map(defined)), Some(Tree::Map(file))) => {
            let below =
                |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            pairs(drifts, &by_key(defined), &by_key(file), below);
        }
        (Some(Tree::List(defined)), Some(Tree::List(file))) => {
            let names = (by_name(defined), by_name(file));
            let numbered = || (by_number(defined), by_number(file));
            let (defined, file) = match names {
                (Some(defined), Some(file)) => (defined, file),
                _ => numbered(),
            };
            pairs(drifts, &defined, &file, |name| format!("{path}[{name}]"));
        }
        (defined, file) => drifts.push(drift(path, defined, file)),
    }
}

type Pairs<'t> = Vec<(Cow<'t, str>, &'t Tree)>;

fn by_key(entries: &[(String, Tree)]) -> Pairs<'_> {
    entries.iter().map(|(key, value)| (key.as_str().into(), value)).collect()
}

/// Returns the entries of a list by what names them, if each has a name.
fn by_name(items: &[Tree]) -> Option<Pairs<'_>> {
    items.iter().map(|item| Some((name_of(item)?.into(), item))).collect()
}

fn by_number(items: &[Tree]) -> Pairs<'_> {
    items.iter().enumerate().map(|(index, item)| (index.to_string().into(), item)).collect()
}

fn name_of(item: &Tree) -> Option<&str> {
    let Tree::Map(entries) = item else { return None };
    let (_, name) = entries.iter().find(|(key, _)| matches!(key.as_str(), "name" | "path"))?;
    match name {
        Tree::Text(text) => Some(text.as_str()),
        _ => None,
    }
}

fn pairs(
    drifts: &mut Vec<Drift>,
    defined: &Pairs<'_>,
    file: &Pairs<'_>,
    below: impl Fn(&str) -> String,
) {
    let in_file: BTreeMap<&str, &Tree> = file.iter().map(|(key, tree)| (&**key, *tree)).collect();
    let in_defined: BTreeSet<&str> = defined.iter().map(|(key, _)| &**key).collect();
    for (key, value) in defined {
        compare(drifts, &below(key), Some(value), in_file.get(&**key).copied());
    }
    for (key, value) in file.iter().filter(|(key, _)| !in_defined.contains(&**key)) {
        compare(drifts, &below(key), None, Some(value));
    }
}

fn drift(path: &str, defined: Option<&Tree>, file: Option<&Tree>) -> Drift {
    Drift { path: path.to_owned(), defined: defined.map(brief), file: file.map(brief) }
}

/// Returns a value on one line.
fn brief(tree: &Tree) -> String {
    match tree {
        Tree::Plain(text) | Tree::Text(text) => shown(text),
        Tree::List(items) => {
            let items: Vec<String> = items.iter().map(brief).collect();
            shown(&format!("[{}]", items.join(", ")))
        }
        Tree::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{key}: {}", brief(value))).collect();
            shown(&format!("{{{}}}", entries.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, parse};
    use pando_model::cluster::SshDefaults;

    fn drifts(defined: &str, file: &str) -> Vec<String> {
        let read = |text| parse(text, &Limits::default(), &SshDefaults::default()).unwrap();
        let or = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
        diff(&read(defined), &read(file))
            .into_iter()
            .map(|Drift { path, defined, file }| format!("{path}: {} -> {}", or(defined), or(file)))
            .collect()
    }

    #[test]
    fn drift_names_what_changed() {
        let defined = "name: a\nnodes: [{name: x, ip: 10.20.0.9}, {name: y, env: {A: b}}]\n";
        assert_eq!(drifts(defined, &format!("# another text\n{defined}")), [""; 0]);
        let file = "name: a\nnetwork: {uplink: nat}\nnodes: \
                    [{name: y, env: {A: c, B: d}}, {name: x, memory: 1G, ip: 10.20.0.8}, {name: z}]\n";
        assert_eq!(
            drifts(defined, file),
            [
                "networks[net].uplink: none -> nat",
                "nodes[x].memory: 512M -> 1G",
                "nodes[x].interfaces[0].ip: 10.20.0.9 -> 10.20.0.8",
                "nodes[x].interfaces[0].mac: 52:54:0a:14:00:09 -> 52:54:0a:14:00:08",
                "nodes[y].env.A: b -> c",
                "nodes[y].env.B: nothing -> d",
                "nodes[z]: nothing -> {name: z, role: node, image: default, vcpus: 1, memory: 512M…",
            ]
        );
    }
}
