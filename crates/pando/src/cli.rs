//! The commands: most are made from the verb catalogue (`generated`), some by hand
//! (`crate::commands`), all under one root.

pub mod by_hand;
pub mod complete;
pub mod example;
pub mod generated;
#[cfg(test)]
mod hints;
#[cfg(test)]
mod parity;

use std::fmt::Write as _;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, ArgAction, Command};
use pando_api::catalogue;

use crate::commands;

/// Commands by what people want, for the first screen of help.
const GROUPS: &[(&str, &[&str])] = &[
    ("Start here", &["demo", "doctor", "init"]),
    ("Machines", &["vm", "ps", "watch", "top", "start", "stop", "pause", "resume", "rm"]),
    ("Clusters", &["cluster", "node", "snapshot", "topology"]),
    ("Work in them", &["exec", "sh", "cp", "ssh", "console", "fanout", "connect-info"]),
    (
        "State like git",
        &[
            "commit", "log", "show", "verify", "tag", "branch", "branches", "checkout", "rollback",
            "history", "diff", "capture",
        ],
    ),
    ("Break it on purpose", &["net"]),
    ("Images", &["image", "images"]),
    ("For AI agents", &["mcp"]),
    (
        "Housekeeping",
        &[
            "status",
            "operation",
            "gc",
            "logs",
            "daemon",
            "serve",
            "token",
            "config",
            "bench",
            "completions",
            "man",
        ],
    ),
];

/// Words of groups of generated commands: name, other names, what is in it.
const PARENTS: &[(&str, &[&str], &str)] = &[
    ("vm", &[], "Create, list, inspect and control machines"),
    ("image", &[], "Build, import and inspect images"),
    ("net", &[], "Break a branch's network on purpose, measure it, heal it"),
    ("operation", &["op"], "Look at operations, wait for them, cancel them"),
    ("tag", &[], "Name commits"),
    ("cluster", &[], "Define, start, inspect, stop and destroy clusters of several machines"),
    ("node", &[], "Run commands on nodes of a cluster, and crash them"),
    ("snapshot", &[], "Snapshot clusters, list snapshots, revert to them"),
    ("topology", &[], "Check, list and show what clusters are defined from"),
];

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ABOUT: &str = "Whole running systems that behave like git: virtual machines, and clusters of \
    them, that can be committed with their memory, branched many ways at once, broken on purpose, and \
    rolled back.";

const EXAMPLES: &str = "\
Examples:
  pando vm create shop                 a Debian machine, ready in a moment
  pando sh shop                        a shell in it
  pando commit shop -m 'before' -t v1  memory, devices and disk, at one instant
  pando branch shop -n 4               four live copies, same addresses, no collision
  pando fanout --all shop -- uptime    one command in all of them
  pando rollback shop v1               back, in place
  pando cluster define trio.yaml       several machines and their network, from a topology
  pando net partition trio@try-1 a     one branch's network, cut; no other branch notices

An address is CLUSTER[@BRANCH][/NODE]; an id (br_…, cm_…) or, for commits, a tag stands as well.";

/// Returns the whole command line.
pub fn root() -> Command {
    let mut root = Command::new("pando")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .styles(STYLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(100)
        .args(global());
    for (name, aliases, about) in PARENTS {
        let parent = Command::new(*name)
            .about(*about)
            .visible_aliases(aliases.iter().copied())
            .subcommand_required(true)
            .arg_required_else_help(true);
        let children = catalogue().iter().filter(|verb| !verb.cli.by_hand);
        let parent = children
            .filter_map(|verb| match verb.cli.path {
                [first, word] if first == name => Some(generated::command(verb, word)),
                _ => None,
            })
            .fold(parent, Command::subcommand);
        let short = match *name {
            "vm" => commands::sugar::actions(),
            "net" => vec![commands::net::command()],
            _ => Vec::new(),
        };
        root = root.subcommand(parent.subcommands(short));
    }
    for verb in catalogue().iter().filter(|verb| !verb.cli.by_hand) {
        if let [word] = verb.cli.path {
            root = root.subcommand(generated::command(verb, word));
        }
    }
    root = root.subcommands(commands::all());
    let grouped = grouped(&root);
    root.help_template(
        "{about}\n\n{usage-heading} pando [OPTIONS] COMMAND{after-help}\n\nOptions:\n{options}\n",
    )
    .after_help(grouped)
}

/// Returns the names of all commands, in the order of the first screen of help.
pub fn command_names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(|(_, names)| names.iter().copied())
}

/// Returns an argument of a command by its id.
pub fn argument(path: &[&str], id: &str) -> Option<Arg> {
    let root = root();
    let command = path.iter().try_fold(&root, |above, word| above.find_subcommand(word))?;
    command.get_arguments().find(|arg| arg.get_id() == id).cloned()
}

/// Returns an argument as it is typed: `-m, --memory <SIZE>`, `<NAME>`, `[NAME]…`.
pub fn spelling(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(<[_]>::first).map(ToString::to_string);
    let value = value.unwrap_or_else(|| arg.get_id().as_str().to_uppercase());
    let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    if arg.is_positional() {
        let value = if arg.is_required_set() { format!("<{value}>") } else { format!("[{value}]") };
        return if many { format!("{value}…") } else { value };
    }
    let names = [
        arg.get_short().map(|short| format!("-{short}")),
        arg.get_long().map(|long| format!("--{long}")),
    ];
    let names = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() { format!("{names} <{value}>") } else { names }
}

fn global() -> Vec<Arg> {
    let heading = "Global options";
    vec![
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Write the result envelope as JSON, and nothing else, to stdout"),
        Arg::new("quiet")
            .long("quiet")
            .short('q')
            .action(ArgAction::SetTrue)
            .help("Write names and ids only; no progress, no remarks"),
        Arg::new("color")
            .long("color")
            .alias("colour")
            .value_name("WHEN")
            .value_parser(["auto", "always", "never"])
            .default_value("auto")
            .hide_possible_values(true)
            .hide_default_value(true)
            .help("Colour: auto, always or never"),
        Arg::new("home")
            .long("home")
            .value_name("DIR")
            .value_parser(clap::value_parser!(std::path::PathBuf))
            .help("Use this home in place of PANDO_HOME"),
        Arg::new("url")
            .long("url")
            .value_name("URL")
            .help("Speak to the daemon at this URL (PANDO_URL), with the token in PANDO_TOKEN"),
        Arg::new("key")
            .long("key")
            .value_name("KEY")
            .help("Idempotency key: the same key again finds the first call's operation"),
        Arg::new("read_only")
            .long("read-only")
            .action(ArgAction::SetTrue)
            .help("Refuse everything that would change something"),
    ]
    .into_iter()
    .map(|arg| arg.global(true).help_heading(heading))
    .collect()
}

fn grouped(root: &Command) -> String {
    let mut text = String::new();
    for (heading, names) in GROUPS {
        let _ = writeln!(text, "{heading}:");
        for name in *names {
            if let Some(command) = root.find_subcommand(name) {
                let about = command.get_about().map(ToString::to_string).unwrap_or_default();
                let _ = writeln!(text, "  {name:<13} {}", about.trim_end_matches('.'));
            }
        }
        text.push('\n');
    }
    text.push_str(EXAMPLES);
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        root().debug_assert();
    }

    #[test]
    fn every_command_is_on_the_first_screen() {
        let shown: BTreeSet<&str> =
            GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let root = root();
        for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(shown.contains(command.get_name()), "{}", command.get_name());
        }
        for name in shown {
            assert!(root.find_subcommand(name).is_some(), "{name}");
        }
    }
}
