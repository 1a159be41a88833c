//! Short forms of verbs: `pando pause shop`, `pando images`.

use clap::{Arg, ArgMatches, Command};
use pando_api::Verb;
use serde_json::{Map, Value, json};

use crate::app::{App, Ending, Wait};
use crate::cli::generated::seconds;
use crate::commands::texts;

/// What can be done to machines: the action, and what it is.
const ACTIONS: &[(&str, &str)] = &[
    ("start", "Boot machines from their disks"),
    ("stop", "Ask machines to shut down; kill them when the time is up"),
    ("restart", "Stop machines and start them again"),
    ("pause", "Let machines stand still with all their state"),
    ("resume", "Let paused machines go on"),
    ("kill", "Cut machines' power"),
];

/// Returns the commands that do something to machines, for the root and for `pando vm`.
pub fn actions() -> Vec<Command> {
    let actions = ACTIONS.iter().map(|(name, about)| {
        Command::new(*name)
            .about(*about)
            .hide(matches!(*name, "restart" | "kill"))
            .arg(
                Arg::new("addresses")
                    .value_name("ADDRESS")
                    .required(true)
                    .num_args(1..)
                    .help("CLUSTER[@BRANCH] or an id"),
            )
            .arg(
                Arg::new("timeout")
                    .long("timeout")
                    .value_name("TIME")
                    .hide(!matches!(*name, "stop" | "restart"))
                    .help("How long a guest may take to shut down [default: 30s]"),
            )
    });
    actions.collect()
}

/// Returns `pando images`.
pub fn images() -> Command {
    Command::new("images").about("List images")
}

/// Runs one of them; `None` if this is none.
pub async fn run(app: &App, name: &str, matches: &ArgMatches) -> Option<Ending> {
    if name == "images" {
        return Some(call(app, "image_list", json!({})).await);
    }
    let (action, _) = ACTIONS.iter().find(|(known, _)| *known == name)?;
    Some(control(app, action, matches).await)
}

async fn control(app: &App, action: &str, matches: &ArgMatches) -> Ending {
    let mut params = Map::new();
    params.insert("action".to_owned(), Value::from(action));
    if let Some(time) = matches.get_one::<String>("timeout") {
        params.insert("timeout_s".to_owned(), Value::from(seconds("timeout", time)?));
    }
    for address in texts(matches, "addresses") {
        params.insert("address".to_owned(), Value::from(address));
        call(app, "vm_control", Value::Object(params.clone())).await?;
    }
    Ok(0)
}

async fn call(app: &App, verb: &str, params: Value) -> Ending {
    match Verb::find(verb) {
        Some(verb) => app.verb(verb, params, Wait::Finished).await,
        None => Ok(1),
    }
}
