//! `pando daemon` and `pando serve`.

use std::os::unix::net::UnixStream;

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::ApiError;
use pando_model::{ErrorCode, Layout};
use serde_json::json;

use crate::app::Ending;
use crate::daemon::launch;
use crate::daemon::serve::{self, Place};
use crate::daemon::stop::{Stopped, stop};
use crate::output::Ui;

/// Returns the command.
pub fn command() -> Command {
    Command::new("daemon")
        .about("Start, stop, restart or look at the daemon; branches go on without it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("start").about("Start it, unless it runs"))
        .subcommand(Command::new("stop").about("End it; running branches go on"))
        .subcommand(Command::new("restart").about("End it and start it again"))
        .subcommand(Command::new("status").about("Say whether it runs"))
}

/// Returns the command that is the daemon.
pub fn serve_command() -> Command {
    Command::new("serve").hide(true).about("Be the daemon, in this terminal").arg(
        Arg::new("detached")
            .long("detached")
            .action(ArgAction::SetTrue)
            .hide(true)
            .help("Be it in a session of its own; say on stdout when it listens"),
    )
}

/// Is the daemon.
pub fn serve(layout: &Layout, matches: &ArgMatches) -> Ending {
    let place = if matches.get_flag("detached") { Place::Detached } else { Place::Foreground };
    serve::run(layout, place)
}

/// Runs `pando daemon`.
pub fn run(ui: Ui, layout: &Layout, matches: &ArgMatches) -> Ending {
    let socket = layout.daemon_socket();
    match matches.subcommand_name() {
        Some("start") => {
            launch::start(layout, ui)?;
            ui.answer("the daemon runs", json!({ "running": true, "socket": socket }));
        }
        Some("stop") => {
            let (words, was_running) = match stop(layout)? {
                Stopped::Ended => ("the daemon has ended; running branches go on", true),
                Stopped::NoneRan => ("no daemon ran", false),
            };
            ui.answer(words, json!({ "running": false, "was_running": was_running }));
        }
        Some("restart") => {
            stop(layout)?;
            launch::start(layout, ui)?;
            ui.answer("the daemon runs again", json!({ "running": true, "socket": socket }));
        }
        _ => {
            if UnixStream::connect(&socket).is_err() {
                let message = format!("no daemon answers at {}", socket.display());
                return Err(ApiError::new(ErrorCode::DaemonUnreachable, message)
                    .hint("pando daemon start\npando logs"));
            }
            let words = format!("the daemon runs, at {}", socket.display());
            ui.answer(&words, json!({ "running": true, "socket": socket }));
        }
    }
    Ok(0)
}
