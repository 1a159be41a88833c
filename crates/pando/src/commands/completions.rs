//! `pando completions`: what shells need to complete commands and flags.

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::app::Ending;
use crate::cli;

/// Returns the command.
pub fn command() -> Command {
    Command::new("completions")
        .about("Write a shell's completions to stdout")
        .after_help(
            "Example: pando completions bash > ~/.local/share/bash-completion/completions/pando",
        )
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(value_parser!(Shell))
                .help("bash, zsh, fish, elvish or powershell"),
        )
}

/// Writes the completions.
pub fn run(matches: &ArgMatches) -> Ending {
    if let Some(shell) = matches.get_one::<Shell>("shell") {
        clap_complete::generate(*shell, &mut cli::root(), "pando", &mut std::io::stdout());
    }
    Ok(0)
}
