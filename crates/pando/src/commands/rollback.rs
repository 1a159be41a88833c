//! `pando rollback [ADDRESS] TARGET`.

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::Verb;
use serde_json::{Value, json};

use crate::app::{App, Ending, Wait};
use crate::commands::texts;

/// Returns the command.
pub fn command() -> Command {
    Command::new("rollback")
        .about("Return a branch, in place, to a commit; its state before is committed first")
        .override_usage("pando rollback [OPTIONS] [ADDRESS] TARGET")
        .arg(
            Arg::new("words").value_name("TARGET").required(true).num_args(1..=2).help(
                "The commit (a tag or an id), after the branch unless there is only one machine",
            ),
        )
        .arg(
            Arg::new("no_save")
                .long("no-save")
                .action(ArgAction::SetTrue)
                .help("Do not commit the state before: it is lost"),
        )
        .arg(
            Arg::new("exact")
                .long("exact")
                .action(ArgAction::SetTrue)
                .help("Start at exactly the commit's instant, never from a warm copy"),
        )
}

/// Rolls back.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let words = texts(matches, "words");
    let mut params = json!({
        "save": !matches.get_flag("no_save"),
        "exact": matches.get_flag("exact"),
        "target": words.last(),
    });
    if let [branch, _] = words.as_slice() {
        params["branch"] = Value::from(branch.as_str());
    }
    match Verb::find("branch_rollback") {
        Some(verb) => app.verb(verb, params, Wait::Finished).await,
        None => Ok(1),
    }
}
