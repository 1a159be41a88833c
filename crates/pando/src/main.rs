//! The one binary: the command line, the daemon (`serve`) and the keepers. The only crate that
//! names concrete drivers (`wire`); everything else speaks to a [`pando_api::Control`].
//!
//! Reading order: [`app`] (from arguments to an exit status) → `cli` (commands made from the verb
//! catalogue) → `commands` (those made by hand) → `daemon` (how one is started and served) →
//! `wire`.

mod app;
mod cli;
mod commands;
mod daemon;
mod figures;
mod home;
mod limits;
mod mcp;
mod output;
mod reference;
mod session;
mod settings;
mod story;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use clap_complete::CompleteEnv;

use crate::commands::completions;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        // Asked by scripts and prompts all the time: answered before anything is built.
        [only] if only == "--version" || only == "-V" => {
            println!("pando {}", daemon::VERSION);
            ExitCode::SUCCESS
        }
        // One for every branch, on the way to its first command: without a command line to build.
        [first, rest @ ..] if first == "keeper" => commands::keeper::run(rest),
        _ => {
            // Ends the process when a shell asks for completions.
            if std::env::var_os(completions::VARIABLE).is_some() {
                CompleteEnv::with_factory(cli::complete::root).complete();
            }
            app::run()
        }
    }
}
