//! `pando mcp`: the MCP server on this process's standard streams, over the same client of the
//! daemon as every command, so that a session outlives a daemon's restart.

pub mod install;
mod merge;
mod way;

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::{ApiError, Caller, Control};
use pando_mcp::handler::Handler;
use pando_mcp::{Access, Names, Profile, Role};
use pando_model::ErrorCode;

use crate::app::{App, Ending};

/// The variable that says what an agent's work is.
const ROLE_VARIABLE: &str = "AGENT_ROLE";

/// Returns the command.
pub fn command() -> Command {
    let roles = Role::ALL.iter().map(|(name, _)| *name);
    Command::new("mcp")
        .about("Serve AI agents over MCP on standard input and output")
        .args_conflicts_with_subcommands(true)
        .arg(
            Arg::new("toolset")
                .long("toolset")
                .value_name("A,B")
                .help("Offer these toolsets only, and list all of their tools"),
        )
        .arg(
            Arg::new("role")
                .long("role")
                .value_name("ROLE")
                .value_parser(clap::builder::PossibleValuesParser::new(roles))
                .help(
                    "Offer what this work needs: dev, ops, admin (everything, all listed), ui \
                     (reading) or lab (everything but the host); AGENT_ROLE if left out",
                )
                .hide_possible_values(true),
        )
        .arg(
            Arg::new("compat")
                .long("compat")
                .action(ArgAction::SetTrue)
                .help("List tools under the names of earlier systems, where they have one"),
        )
        .after_help(
            "A client starts it: `pando mcp install` writes that into the client's \
             configuration.\nThe everyday tools are listed and all can be called, unless an \
             option says otherwise.",
        )
        .subcommand(install::command())
}

fn profile(caller: &Caller, matches: &ArgMatches) -> Result<Profile, ApiError> {
    let toolsets = matches.get_one::<String>("toolset").map(|list| Profile::toolsets(list));
    let role = role(matches.get_one::<String>("role").cloned())?;
    let access = if caller.read_only { Access::ReadOnly } else { Access::Full };
    let names = if matches.get_flag("compat") { Names::Compat } else { Names::Own };
    Ok(Profile { toolsets: toolsets.transpose()?, role, access, names })
}

/// Returns the role of the argument, or of the environment of a client that gives roles so.
///
/// # Errors
/// `invalid_parameter` for one that is unknown: it may have been meant to permit less.
fn role(argument: Option<String>) -> Result<Option<Role>, ApiError> {
    let name = match argument {
        Some(name) => name,
        None => match std::env::var_os(ROLE_VARIABLE) {
            None => return Ok(None),
            Some(name) => name.to_string_lossy().into_owned(),
        },
    };
    Role::named(&name).map(Some)
}

/// Serves one client until it closes its end.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let mut caller = app.caller();
    // One key for every call of a session would make them all the same call.
    caller.idempotency_key = None;
    caller.session = Some(format!("mcp:{}", std::process::id()));
    let profile = profile(&caller, matches)?;
    if std::io::stdin().is_terminal() {
        app.ui.remark("this speaks MCP, to a client that starts it; see: pando mcp install --help");
    }
    let control: Arc<dyn Control> = Arc::new(app.client.clone());
    let handler = Handler::new(control, caller, profile, key()?);
    pando_mcp::serve_stdio(handler).await.map_err(|source| {
        ApiError::new(ErrorCode::Internal, source.to_string()).hint(
            "the client must begin with `initialize`, or with requests that say their version",
        )
    })?;
    Ok(0)
}

/// Returns what makes the tokens of plans this process's own.
pub fn key() -> Result<[u8; 32], ApiError> {
    let mut key = [0; 32];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut key));
    read.map(|()| key).map_err(|source| {
        ApiError::new(ErrorCode::Internal, format!("no random numbers: {source}"))
    })
}
