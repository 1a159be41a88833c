//! `pando log`: commits, newest first.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use pando_api::ApiError;
use pando_model::{Address, CommitId};
use serde_json::{Map, Value};

use crate::app::{App, Ending};
use crate::commands::typed;
use crate::output::Format;
use crate::output::results::{Shape, commits};

/// Returns the command.
pub fn command() -> Command {
    Command::new("log")
        .about("Show commits, newest first; --graph draws how they descend")
        .arg(Arg::new("address").value_name("ADDRESS").help(
            "CLUSTER for all its commits, CLUSTER@BRANCH for a branch's; the only cluster if \
             left out",
        ))
        .arg(
            Arg::new("graph")
                .long("graph")
                .short('g')
                .action(ArgAction::SetTrue)
                .help("Draw lines of descent"),
        )
        .arg(
            Arg::new("limit")
                .long("limit")
                .short('n')
                .value_name("N")
                .value_parser(value_parser!(u32))
                .help("Most commits to show [default: 50]"),
        )
        .arg(
            Arg::new("cursor")
                .long("cursor")
                .value_name("CURSOR")
                .help("Go on after an earlier one"),
        )
}

/// Shows them.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let mut params = Map::new();
    if let Some(text) = matches.get_one::<String>("address") {
        if text.parse::<CommitId>().is_ok() {
            return Err(ApiError::parameter("address", format!("`{text}` is one commit"))
                .hint(format!("pando show {text}")));
        }
        let address: Address =
            text.parse().map_err(|source| ApiError::parameter("address", format!("{source}")))?;
        params.insert("cluster".to_owned(), Value::from(address.cluster));
        if let Some(branch) = address.branch {
            params.insert("branch".to_owned(), Value::from(branch.as_str()));
        }
    }
    if let Some(limit) = matches.get_one::<u32>("limit") {
        params.insert("limit".to_owned(), Value::from(*limit));
    }
    if let Some(cursor) = matches.get_one::<String>("cursor") {
        params.insert("cursor".to_owned(), Value::from(cursor.as_str()));
    }
    let result = app.call("commit_list", Value::Object(params)).await?;
    if app.ui.format == Format::Json {
        app.show("", &result);
        return Ok(0);
    }
    let shape = if matches.get_flag("graph") { Shape::Graph } else { Shape::Plain };
    commits(&app.ui, &typed(result)?, shape);
    Ok(0)
}
