//! `pando token`: the secret that opens the daemon's port.

use clap::{ArgMatches, Command};
use pando_http::TokenFile;
use pando_model::Layout;
use serde_json::json;

use crate::app::Ending;
use crate::daemon::door::unusable_token;
use crate::home;
use crate::output::Ui;

/// Returns the command.
pub fn command() -> Command {
    Command::new("token")
        .about("Show or replace the token that opens the daemon's port on TCP")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("show").about("Show it; it is made if there is none"))
        .subcommand(
            Command::new("rotate").about("Replace it: the old one opens nothing from now on"),
        )
        .after_help(
            "Who has the token is you, to the daemon: whoever has it runs commands in your \
             machines. It is in a file that only you can read.\n\n  \
             export PANDO_TOKEN=\"$(pando token show)\"",
        )
}

/// Runs `pando token`.
pub fn run(ui: Ui, layout: &Layout, matches: &ArgMatches) -> Ending {
    home::prepare(layout)?;
    let file = TokenFile::new(layout.http_token());
    let token = match matches.subcommand_name() {
        Some("rotate") => {
            let token = file.rotate().map_err(|error| unusable_token(&error))?;
            ui.remark("clients that were given the old one need this one");
            token
        }
        _ => file.read_or_make().map_err(|error| unusable_token(&error))?,
    };
    ui.answer(&token, json!({ "token": token, "path": file.path() }));
    Ok(0)
}
