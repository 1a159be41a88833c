//! Completion: words of the command line, and the names of what there is. Shells run this program
//! for it, so it asks the daemon only if one runs, and for a moment.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use pando_api::{Call, Caller, Control};
use pando_http::Client;
use serde_json::{Value, json};

use crate::settings::KEYS;
use crate::{cli, daemon, home};

/// How long a person waits for a completion.
const PATIENCE: Duration = Duration::from_millis(700);

/// What an argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Machines,
    Clusters,
    Branches,
    Nodes,
    Commits,
    Tags,
    Images,
    Topologies,
    Operations,
    Settings,
}

/// Returns the command line with completion of names.
pub fn root() -> Command {
    with_names(cli::root(), "")
}

fn with_names(command: Command, parent: &str) -> Command {
    let path = format!("{parent} {}", command.get_name());
    let command = command.mut_args(|arg| match names_of(&path, &arg) {
        Some(names) => arg.add(ArgValueCandidates::new(move || candidates(names))),
        None => arg,
    });
    command.mut_subcommands(|below| with_names(below, &path))
}

fn names_of(path: &str, arg: &Arg) -> Option<Names> {
    Some(match (arg.get_id().as_str(), path) {
        ("name", " pando vm rm") | ("cluster" | "all", _) => Names::Machines,
        ("words", " pando rollback") | ("commit", _) => Names::Commits,
        ("address" | "addresses" | "branch" | "branches" | "from" | "targets" | "to", _) => {
            Names::Branches
        }
        ("cluster_name", " pando cluster define" | " pando cluster list") => return None,
        ("cluster_name", _) => Names::Clusters,
        (
            "node" | "node_name" | "nodes" | "partition_a" | "partition_b" | "source_node"
            | "target_node",
            _,
        ) => Names::Nodes,
        ("snapshot_name", " pando snapshot revert" | " pando snapshot delete")
        | ("tag", " pando tag rm") => Names::Tags,
        // Elsewhere a topology is most often a file, which the shell knows.
        ("topology", " pando topology show") => Names::Topologies,
        ("image", _) => Names::Images,
        ("id", _) => Names::Operations,
        ("config_key", _) => Names::Settings,
        _ => return None,
    })
}

fn candidates(names: Names) -> Vec<CompletionCandidate> {
    let found: BTreeSet<String> = match names {
        Names::Settings => KEYS.iter().map(|key| (*key).to_owned()).collect(),
        _ => ask(names).unwrap_or_default().into_iter().collect(),
    };
    found.into_iter().map(CompletionCandidate::new).collect()
}

fn ask(names: Names) -> Option<Vec<String>> {
    let client = match daemon::elsewhere(None).ok()? {
        Some(client) => client,
        None => Client::new(home::layout(None).ok()?.daemon_socket(), None),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asked = async {
        let caller = Caller::local(rustix::process::geteuid().as_raw());
        let mut found = Vec::new();
        for (verb, list, fields) in lists(names) {
            let call = Call::parse(verb, json!({ "limit": 200 })).ok()?;
            let result = client.call(&caller, call).await.ok()?;
            for row in result.get(list)?.as_array()? {
                found.extend(fields.iter().filter_map(|field| texts(row.get(field)?)).flatten());
            }
        }
        Some(found)
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.ok().flatten() })
}

/// Returns which verbs' lists hold the names, in which fields.
const fn lists(names: Names) -> &'static [(&'static str, &'static str, &'static [&'static str])] {
    match names {
        Names::Machines => &[("vm_list", "vms", &["name"])],
        Names::Branches => {
            &[("vm_list", "vms", &["name"]), ("branch_list", "branches", &["address"])]
        }
        Names::Clusters => {
            &[("cluster_list", "clusters", &["name"]), ("branch_list", "branches", &["address"])]
        }
        Names::Nodes => &[("cluster_list", "clusters", &["nodes"])],
        Names::Tags => &[("commit_list", "commits", &["tags"])],
        Names::Topologies => &[("topology_list", "topologies", &["name"])],
        Names::Commits => &[("commit_list", "commits", &["tags", "id"])],
        Names::Images => &[("image_list", "images", &["name"])],
        Names::Operations => &[("operation_list", "operations", &["operation_id"])],
        Names::Settings => &[],
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => {
            Some(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => None,
    }
}
