//! `pando diff [FROM [TO]]`.

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::ApiError;
use pando_api::state::StateDiffResult;
use pando_model::capture::Aspect;
use serde_json::{Map, Value};

use crate::app::{App, Ending};
use crate::cli::generated::size;
use crate::commands::typed;
use crate::output::Format;
use crate::output::results::{Extent, differences, script};

/// Bytes of differences that a person is shown at once.
const MAX_BYTES: u64 = 1024 * 1024;

/// Returns the command.
pub fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("diff")
        .about("Say what differs between two branches or commits, and because of what")
        .arg(Arg::new("from").value_name("FROM").help(
            "CLUSTER[@BRANCH|@TAG][/NODE], or the id of a branch, commit or capture; alone: what \
             changed on this branch since its latest commit",
        ))
        .arg(Arg::new("to").value_name("TO").help("What to compare it with"))
        .arg(flag("stat", "Only how much differs"))
        .arg(
            Arg::new("node")
                .long("node")
                .value_name("NODE")
                .requires("from")
                .help("Compare only this node of clusters: as CLUSTER[@BRANCH]/NODE does"),
        )
        .arg(
            Arg::new("aspect")
                .long("aspect")
                .short('a')
                .value_name("ASPECT")
                .action(ArgAction::Append)
                .value_parser(Aspect::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>())
                .hide_possible_values(true)
                .help(
                    "Only this aspect: packages, config, files, services, users, ports, network, \
                     database, processes, env or kernel; may be repeated",
                ),
        )
        .arg(
            Arg::new("hunks")
                .long("hunks")
                .value_name("PATH")
                .help("Also show this file's differing lines"),
        )
        .arg(
            Arg::new("since")
                .long("since")
                .value_name("COMMAND")
                .help("Only what changed from this command on: an id of `pando history`"),
        )
        .arg(
            Arg::new("max")
                .long("max")
                .alias("max-bytes")
                .value_name("SIZE")
                .help("Most differences in one result [default: 1MiB]"),
        )
        .arg(
            Arg::new("cursor")
                .long("cursor")
                .value_name("CURSOR")
                .help("Go on after an earlier result: its next_cursor"),
        )
        .arg(flag("as-script", "Write the commands that caused the differences, as a script"))
        .arg(flag("exit-code", "Exit with status 1 if anything differs"))
}

/// Returns an address with its node.
fn on_node(address: &str, node: &str) -> Result<String, ApiError> {
    match address.split_once('/') {
        None => Ok(format!("{address}/{node}")),
        Some((_, named)) if named == node => Ok(address.to_owned()),
        Some(_) => {
            let message = format!("`{address}` names another node than `--node {node}`");
            Err(ApiError::parameter("node", message).hint("name the node once"))
        }
    }
}

/// Returns whether anything differs, or a node of one side could not be compared with the other's.
fn differs(view: &StateDiffResult) -> bool {
    let between = view.cluster.as_ref();
    !view.differences.is_empty()
        || between.is_some_and(|one| one.faults_differ > 0 || one.reachability.differ > 0)
        || view.nodes.iter().any(|node| node.not_compared.is_some() && node.from != node.to)
}

/// Compares and shows.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let mut params = Map::new();
    for name in ["from", "to", "hunks", "since", "cursor"] {
        if let Some(text) = matches.get_one::<String>(name) {
            params.insert(name.to_owned(), Value::from(text.as_str()));
        }
    }
    if let Some(node) = matches.get_one::<String>("node") {
        for name in ["from", "to"] {
            if let Some(Value::String(address)) = params.get_mut(name) {
                *address = on_node(address, node)?;
            }
        }
    }
    let aspects: Vec<&String> = matches.get_many("aspect").into_iter().flatten().collect();
    if !aspects.is_empty() {
        params.insert(
            "aspects".to_owned(),
            Value::from(aspects.into_iter().cloned().collect::<Vec<_>>()),
        );
    }
    let most = matches.get_one::<String>("max");
    let most = most.map_or(Ok(MAX_BYTES), |text| size("max_bytes", 0, text))?;
    params.insert("max_bytes".to_owned(), Value::from(most));
    let result = app.call("state_diff", Value::Object(params)).await?;
    let view: StateDiffResult = typed(result.clone())?;
    let differs = differs(&view);
    if app.ui.format == Format::Json {
        app.show("state_diff", &result);
    } else if matches.get_flag("as-script") {
        if view.cluster.is_some() {
            return Err(ApiError::parameter("as-script", "a script is for one node")
                .hint("name it: --node NODE"));
        }
        script(&app.ui, &view);
    } else {
        let extent = if matches.get_flag("stat") { Extent::Counts } else { Extent::All };
        differences(&app.ui, &view, extent);
    }
    let failed = matches.get_flag("exit-code") && differs;
    Ok::<_, ApiError>(u8::from(failed))
}
