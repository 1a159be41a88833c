//! Commands made by hand: those that stream, that draw, or that need no daemon.

pub mod bench;
pub mod completions;
mod config;
mod console;
mod cp;
mod daemon;
pub mod demo;
mod diff;
mod doctor;
mod exec;
mod fanout;
pub mod first;
mod generate;
pub mod keeper;
pub mod live;
mod log;
mod logs;
mod man;
pub mod net;
mod ps;
mod rm;
mod rollback;
mod ssh;
pub mod sugar;
pub mod terminal;
mod token;
mod top;
mod watch;

use clap::{ArgMatches, Command};
use pando_api::ApiError;
use pando_model::Layout;
use serde_json::Value;

use crate::app::{App, Ending};
use crate::mcp;
use crate::output::Ui;

/// Returns every command made by hand.
pub fn all() -> Vec<Command> {
    let mut all = vec![
        bench::command(),
        completions::command(),
        config::command(),
        config::init_command(),
        console::command(),
        cp::command(),
        daemon::command(),
        daemon::serve_command(),
        demo::command(),
        diff::command(),
        doctor::command(),
        exec::command(),
        exec::shell_command(),
        fanout::command(),
        generate::command(),
        log::command(),
        logs::command(),
        man::command(),
        mcp::command(),
        ps::command(),
        rm::command(),
        rollback::command(),
        ssh::command(),
        top::command(),
        watch::command(),
        token::command(),
    ];
    all.extend(sugar::actions());
    all.push(sugar::images());
    all
}

/// Whether a command changes something without asking the daemon, which refuses what is not allowed.
pub fn changes_something(name: &str, matches: &ArgMatches) -> bool {
    let below = matches.subcommand_name().unwrap_or_default();
    match name {
        "bench" | "demo" | "init" | "ssh" => true,
        "config" => matches!(below, "set" | "unset"),
        "daemon" => matches!(below, "stop" | "restart"),
        "mcp" => below == "install",
        "token" => below == "rotate",
        _ => false,
    }
}

/// Runs a command that needs no daemon; `None` if this is none.
pub fn without_daemon(ui: Ui, layout: &Layout, name: &str, matches: &ArgMatches) -> Option<Ending> {
    Some(match name {
        "completions" => completions::run(matches),
        "config" => config::run(ui, layout, matches),
        "init" => config::init(ui, layout),
        "daemon" => daemon::run(ui, layout, matches),
        "doctor" => doctor::run(ui, layout, matches),
        "gen" => generate::run(ui, matches),
        "man" => man::run(ui, matches),
        "mcp" => match matches.subcommand() {
            Some((_, matches)) => mcp::install::run(ui, layout, matches),
            None => return None,
        },
        "logs" => logs::run(ui, layout, matches),
        "serve" => daemon::serve(ui, layout, matches),
        "token" => token::run(ui, layout, matches),
        _ => return None,
    })
}

/// Runs a command that speaks to the daemon; `None` if it is a generated one.
pub async fn with_daemon(app: &App, name: &str, matches: &ArgMatches) -> Option<Ending> {
    Some(match name {
        "bench" => bench::run(app, matches).await,
        "console" => console::run(app, matches).await,
        "cp" => cp::run(app, matches).await,
        "demo" => demo::run(app, matches).await,
        "diff" => diff::run(app, matches).await,
        "exec" => exec::run(app, matches).await,
        "fanout" => fanout::run(app, matches).await,
        "log" => log::run(app, matches).await,
        "net" => match matches.subcommand()? {
            ("capture", matches) => net::capture(app, matches).await,
            _ => return None,
        },
        "ps" => ps::run(app).await,
        "rm" => rm::run(app, matches).await,
        "rollback" => rollback::run(app, matches).await,
        "sh" => exec::shell(app, matches).await,
        "ssh" => ssh::run(app, matches).await,
        "top" => top::run(app, matches).await,
        "watch" => watch::run(app, matches).await,
        "vm" => {
            let (action, matches) = matches.subcommand()?;
            return sugar::run(app, action, matches).await;
        }
        _ => return sugar::run(app, name, matches).await,
    })
}

/// Returns a result of a verb as its type.
///
/// # Errors
/// `daemon_unreachable` when the daemon speaks another version's language.
pub fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|source| {
        ApiError::new(
            pando_model::ErrorCode::DaemonUnreachable,
            format!("the daemon's answer is not understood: {source}"),
        )
        .hint("pando daemon restart")
    })
}

/// Returns an argument that clap made sure of.
pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// Returns all values of a repeated argument.
pub fn texts(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
}
