//! The page of the command line: every command with its usage, arguments and options.

use clap::{Arg, Command};
use pando_api::catalogue;

use crate::cli;
use crate::reference::markdown::{Table, block, cell, code};
use crate::reference::verbs;

/// Returns the page.
pub(super) fn page() -> String {
    let mut root = cli::root();
    root.build();
    let mut page = format!(
        "# Commands\n\n{}\n\nA command that calls a verb has a link to it: its parameters and result are \
         there. With `--json` a command writes the result envelope and nothing else. The exit status is \
         0 when all went well; the others are in [errors](errors.md).\n\n## Options of every \
         command\n\n",
        root.get_about().map(ToString::to_string).unwrap_or_default(),
    );
    let global = root.get_arguments().filter(|arg| arg.is_global_set());
    page.push_str(&options(global).to_string());
    let names = cli::command_names();
    for name in names {
        if let Some(command) = root.find_subcommand(name) {
            page.push_str(&sections(command));
        }
    }
    page
}

fn sections(command: &Command) -> String {
    let mut text = String::new();
    let below: Vec<&Command> = visible(command).collect();
    text.push_str(&section(command));
    for command in below {
        text.push_str(&sections(command));
    }
    text
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
}

fn section(command: &Command) -> String {
    let path = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text =
        format!("## {path}\n\n{}.\n\n", about.trim_end_matches('.').replace('<', "&lt;"));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").lines().map(str::trim).collect::<Vec<_>>();
    text.push_str(&block("text", &usage.join("\n")));
    let words: Vec<&str> = path.split(' ').skip(1).collect();
    let verbs: Vec<String> = catalogue()
        .iter()
        .filter(|verb| verb.cli.path == words)
        .map(|verb| format!("[`{0}`]({1}#{0})", verb.name, verbs::file(verb.toolset)))
        .collect();
    if !verbs.is_empty() {
        text.push_str(&format!("Calls {}.\n\n", verbs.join(", ")));
    }
    let table = options(command.get_arguments().filter(|arg| !arg.is_global_set()));
    if !table.is_empty() {
        text.push_str(&table.to_string());
    }
    if let Some(after) = command.get_after_help() {
        text.push_str(&block("text", &after.to_string()));
    }
    text
}

fn options<'a>(args: impl Iterator<Item = &'a Arg>) -> Table {
    let mut table = Table::new(&["option", "what it is"]);
    for arg in args.filter(|arg| !arg.is_hide_set() && arg.get_id() != "help") {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        table.row([code(&cli::spelling(arg)), cell(&help)]);
    }
    table
}
