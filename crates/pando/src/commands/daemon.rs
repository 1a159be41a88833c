//! `pando daemon` and `pando serve`.

use std::os::unix::net::UnixStream;

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::ApiError;
use pando_http::About;
use pando_model::{ErrorCode, Layout};
use serde_json::json;

use crate::app::Ending;
use crate::daemon::door::Demand;
use crate::daemon::launch;
use crate::daemon::serve::{self, Options, Place};
use crate::daemon::stop::{Stopped, stop};
use crate::output::Ui;
use crate::settings::{HttpListen, Setting};

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
    let command = Command::new("serve")
        .about("Be the daemon, in this terminal; over HTTP too, if told to")
        .arg(
            Arg::new("http")
                .long("http")
                .value_name("ADDR:PORT")
                .num_args(0..=1)
                .default_missing_value("on")
                .value_parser(|text: &str| {
                    HttpListen::parse(text).map_err(|why| format!("must be {why}"))
                })
                .help("Also listen on loopback TCP, for whoever has the token (127.0.0.1:7717)"),
        )
        .arg(
            Arg::new("detached")
                .long("detached")
                .action(ArgAction::SetTrue)
                .hide(true)
                .help("Be it in a session of its own; say on stdout when it listens"),
        )
        .after_help(
            "The URL is written to standard output once it is served; port 0 is any free one. \
             `pando token show` shows the token.\nA daemon that is started on demand listens \
             where the setting `http.listen` says.",
        );
    #[cfg(feature = "conformance")]
    let command = command.arg(
        Arg::new("no_token")
            .long("no-token")
            .action(ArgAction::SetTrue)
            .help("Let everybody on this host in: only to check the server with"),
    );
    command
}

/// Is the daemon.
pub fn serve(ui: Ui, layout: &Layout, matches: &ArgMatches) -> Ending {
    let place = if matches.get_flag("detached") { Place::Detached } else { Place::Foreground };
    let http = matches.get_one::<HttpListen>("http").copied();
    serve::run(ui, layout, Options { place, http, demand: demand(matches) })
}

#[cfg(feature = "conformance")]
fn demand(matches: &ArgMatches) -> Demand {
    if matches.get_flag("no_token") { Demand::Nothing } else { Demand::Token }
}

#[cfg(not(feature = "conformance"))]
fn demand(_: &ArgMatches) -> Demand {
    Demand::Token
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
            let about = crate::daemon::about(layout)?;
            let mut words = format!("the daemon runs, at {}", socket.display());
            if let Some(url) = &about.url {
                words.push_str(&format!(
                    "\nand at {url}, for the token that `pando token show` shows"
                ));
            }
            let About { version, pid, url, .. } = about;
            ui.answer(
                &words,
                json!({
                    "running": true, "socket": socket, "url": url, "pid": pid, "version": version,
                }),
            );
        }
    }
    Ok(0)
}
