//! `pando completions`: what makes a shell ask this program for completions.

use clap::{Arg, ArgMatches, Command};
use clap_complete::env::Shells;
use pando_api::ApiError;
use pando_model::ErrorCode;

use crate::app::Ending;
use crate::commands::text;

/// The variable that says that a shell asks, and which.
pub const VARIABLE: &str = "COMPLETE";

/// Returns the command.
pub fn command() -> Command {
    Command::new("completions")
        .about("Write a shell's completions to stdout; names of machines and branches complete too")
        .after_help(
            "Examples:\n  source <(pando completions bash)\n  \
             pando completions zsh > ~/.zfunc/_pando\n  \
             pando completions fish > ~/.config/fish/completions/pando.fish",
        )
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(["bash", "zsh", "fish", "elvish", "powershell"])
                .help("For which shell"),
        )
}

/// The script for bash. clap's own takes words as readline splits them, which breaks every address
/// at its `@`.
const BASH: &str = include_str!("completions.bash");

/// Writes the completions.
pub fn run(matches: &ArgMatches) -> Ending {
    if text(matches, "shell") == "bash" {
        print!("{}", BASH.replace("VARIABLE", VARIABLE));
        return Ok(0);
    }
    let shells = Shells::builtins();
    let failed = |detail: &str| ApiError::new(ErrorCode::Internal, detail);
    let shell = shells
        .completer(text(matches, "shell"))
        .ok_or_else(|| failed("this shell's completions are not built in"))?;
    shell
        .write_registration(VARIABLE, "pando", "pando", "pando", &mut std::io::stdout())
        .map_err(|source| failed(&source.to_string()))?;
    Ok(0)
}
