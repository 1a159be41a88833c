//! `pando gen`: writes the reference into the source tree, or says where it differs from what this
//! program would write.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::ApiError;
use pando_model::ErrorCode;
use serde_json::json;

use crate::app::Ending;
use crate::output::Ui;
use crate::reference;

/// Returns the command.
pub fn command() -> Command {
    Command::new("gen")
        .about("Write the reference of verbs, commands, errors and settings into a directory")
        .hide(true)
        .args_conflicts_with_subcommands(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("directory")
                .value_name("DIR")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("An existing directory: docs/reference"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Write nothing; fail if anything would change"),
        )
        .subcommand(Command::new("openapi").about("Write the OpenAPI document to stdout"))
}

/// Writes, or compares.
pub fn run(ui: Ui, matches: &ArgMatches) -> Ending {
    if matches.subcommand().is_some() {
        ui.line(reference::openapi().trim_end());
        return Ok(0);
    }
    let directory = matches.get_one::<PathBuf>("directory").map_or(Path::new(""), PathBuf::as_path);
    let wanted = reference::files();
    let changes = changes(directory, &wanted).map_err(|source| failed(directory, &source))?;
    if matches.get_flag("check") {
        return check(ui, directory, &changes);
    }
    for (name, text) in wanted.iter().filter(|(name, _)| changes.contains(*name)) {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(|source| failed(&path, &source))?;
    }
    for name in changes.iter().filter(|name| !wanted.contains_key(*name)) {
        ui.remark(format!("{name} is none of the reference's; remove it"));
    }
    let changed: Vec<&String> = changes.iter().filter(|name| wanted.contains_key(*name)).collect();
    ui.answer(&format!("{} files written", changed.len()), json!({ "changed": changed }));
    Ok(0)
}

/// Returns the names of files that are missing, that differ, or that are none of the reference's.
fn changes(
    directory: &Path,
    wanted: &BTreeMap<String, String>,
) -> std::io::Result<BTreeSet<String>> {
    let mut changes = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !wanted.contains_key(&name) {
            changes.insert(name);
        }
    }
    for (name, text) in wanted {
        if std::fs::read(directory.join(name)).ok().as_deref() != Some(text.as_bytes()) {
            changes.insert(name.clone());
        }
    }
    Ok(changes)
}

fn check(ui: Ui, directory: &Path, changes: &BTreeSet<String>) -> Ending {
    let directory = directory.display();
    if changes.is_empty() {
        ui.answer(&format!("{directory} is up to date"), json!({ "changed": [] }));
        return Ok(0);
    }
    let names: Vec<&str> = changes.iter().map(String::as_str).collect();
    Err(ApiError::new(
        ErrorCode::WrongState,
        format!("{directory} is not what the verbs say: {}", names.join(", ")),
    )
    .hint(format!("cargo run -p pando -- gen {directory}")))
}

fn failed(path: &Path, source: &std::io::Error) -> ApiError {
    let message = format!("{}: {source}", path.display());
    ApiError::parameter("directory", message)
}
