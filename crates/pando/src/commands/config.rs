//! `pando config` and `pando init`.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::ApiError;
use pando_model::{ErrorCode, Layout};
use serde_json::{Value, json};

use crate::app::Ending;
use crate::commands::text;
use crate::home;
use crate::output::table::{Cell, Table};
use crate::output::{Format, Look, Ui};
use crate::settings::{Ignored, Origin, Settings, Shown, Sources, variable, write};

/// Returns the command.
pub fn command() -> Command {
    let key = || Arg::new("config_key").value_name("KEY").required(true).help("SECTION.NAME");
    Command::new("config")
        .about("Show and change settings")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("show").about("Show every setting as it is in force").arg(
                Arg::new("origin")
                    .long("origin")
                    .action(ArgAction::SetTrue)
                    .help("Also where each value comes from, and what it is"),
            ),
        )
        .subcommand(Command::new("get").about("Show one setting").arg(key()))
        .subcommand(
            Command::new("set")
                .about("Write a setting to the file; it holds from the daemon's next start")
                .arg(key())
                .arg(Arg::new("value").value_name("VALUE").required(true).help("The value")),
        )
        .subcommand(Command::new("unset").about("Remove a setting from the file").arg(key()))
        .subcommand(Command::new("path").about("Show where the file is"))
}

/// Returns the command that makes a home.
pub fn init_command() -> Command {
    Command::new("init").about("Make a home with a commented configuration file")
}

/// Runs `pando config`.
pub fn run(ui: Ui, layout: &Layout, matches: &ArgMatches) -> Ending {
    let path = layout.config();
    match matches.subcommand() {
        Some(("show", matches)) => {
            let sources = Sources::of_process(&path)?;
            let (_, shown) = Settings::resolve(&sources)?;
            show(ui, &shown, &sources.ignored(), matches.get_flag("origin"));
        }
        Some(("get", matches)) => {
            let key = text(matches, "config_key");
            known(key)?;
            let (_, shown) = Settings::resolve(&Sources::of_process(&path)?)?;
            if let Some(one) = shown.iter().find(|one| one.key == key) {
                ui.answer(&one.value, json!({ "key": one.key, "value": one.value }));
            }
        }
        Some(("set", matches)) => {
            let (key, value) = (text(matches, "config_key"), text(matches, "value"));
            Settings::check(key, value)?;
            home::prepare(layout)?;
            write(&path, key, Some(value))?;
            let name = variable(key);
            if std::env::var_os(&name).is_some() {
                ui.remark(format!("{name} is set in this environment and wins over the file"));
            }
            ui.remark("it holds from the next start: pando daemon restart");
            ui.answer(&format!("{key} = {value}"), json!({ "key": key, "value": value }));
        }
        Some(("unset", matches)) => {
            let key = text(matches, "config_key");
            known(key)?;
            if path.exists() {
                write(&path, key, None)?;
            }
            ui.answer(&format!("{key} is unset"), json!({ "key": key }));
        }
        _ => ui.answer(&path.display().to_string(), json!({ "path": path })),
    }
    Ok(0)
}

/// Refuses a key that is none, whatever its value.
fn known(key: &str) -> Result<(), ApiError> {
    match crate::settings::KEYS.contains(&key) {
        true => Ok(()),
        false => Settings::check(key, ""),
    }
}

fn origin(shown: &Shown) -> String {
    match &shown.origin {
        Origin::Default => "default".to_owned(),
        Origin::File => "file".to_owned(),
        Origin::Environment(name) | Origin::Foreign(name) => name.clone(),
    }
}

fn show(ui: Ui, shown: &[Shown], ignored: &[Ignored], with_origin: bool) {
    if ui.format == Format::Json {
        let settings: Vec<Value> = shown
            .iter()
            .map(|one| json!({ "key": one.key, "value": one.value, "origin": origin(one) }))
            .collect();
        return ui.answer("", json!({ "settings": settings, "ignored": ignored }));
    }
    if !with_origin {
        for one in shown {
            ui.line(format!("{} = {}", one.key, one.value));
        }
        return;
    }
    let mut table = Table::new(&["KEY", "VALUE", "ORIGIN", "WHAT"]);
    for one in shown {
        let look = if one.origin == Origin::Default { Look::Dim } else { Look::Bold };
        table.row(vec![
            Cell::from(one.key),
            Cell::new(look, &one.value),
            Cell::from(origin(one)),
            Cell::new(Look::Dim, one.doc),
        ]);
    }
    table.print(&ui);
    for one in ignored {
        ui.remark(format!("{} is set and not used: {}", one.what(), one.why));
    }
}

/// Makes the home and, unless there is one, a configuration file in which everything is a comment.
pub fn init(ui: Ui, layout: &Layout) -> Ending {
    home::prepare(layout)?;
    let path = layout.config();
    let is_new = !path.exists();
    if is_new {
        let (_, shown) = Settings::resolve(&Sources::default())?;
        let text = template(&shown);
        std::fs::write(&path, text).map_err(|source| {
            ApiError::new(
                ErrorCode::ConfigInvalid,
                format!("cannot write {}: {source}", path.display()),
            )
        })?;
    }
    let topologies = topologies(layout, &path)?;
    let what = if is_new { "is ready" } else { "was there already" };
    let home = layout.home().display().to_string();
    ui.answer(
        &format!("the home {home} {what}"),
        json!({ "home": home, "config": path, "topologies": topologies }),
    );
    ui.remark("next: pando doctor  ·  pando image build  ·  pando vm create NAME");
    ui.remark(format!(
        "a cluster: {}/NAME.yaml  ·  pando cluster define NAME  ·  pando cluster start NAME",
        topologies.display()
    ));
    Ok(0)
}

/// Makes the directory of the topologies that have a name, and returns it.
///
/// # Errors
/// `config_invalid` when it cannot be made, or the settings cannot be read.
fn topologies(layout: &Layout, config: &Path) -> Result<PathBuf, ApiError> {
    let (settings, _) = Settings::resolve(&Sources::of_process(config)?)?;
    let directory = settings.topologies(layout);
    std::fs::create_dir_all(&directory).map_err(|source| {
        ApiError::new(
            ErrorCode::ConfigInvalid,
            format!("cannot make {}: {source}", directory.display()),
        )
        .hint("`cluster.topology_dir` names another directory for topologies")
    })?;
    Ok(directory)
}

fn template(shown: &[Shown]) -> String {
    let mut text = String::from("# pando's settings. The environment wins: PANDO_SECTION_NAME.\n");
    let mut section = "";
    for one in shown {
        let (of, name) = one.key.split_once('.').unwrap_or(("", one.key));
        if of != section {
            section = of;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let value = match (one.value.parse::<i64>(), one.value.parse::<bool>()) {
            (Err(_), Err(_)) => format!("\"{}\"", one.value),
            _ => one.value.clone(),
        };
        text.push_str(&format!("# {}\n# {name} = {value}\n", one.doc));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_file_of_defaults() {
        let (_, shown) = Settings::resolve(&Sources::default()).unwrap();
        let text = template(&shown);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, &text).unwrap();
        assert!(crate::settings::read(&path).unwrap().is_empty());
        let active: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.contains(" = ") => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(&path, active).unwrap();
        let sources = Sources { file: crate::settings::read(&path).unwrap(), ..Sources::default() };
        assert_eq!(Settings::resolve(&sources).unwrap().0, Settings::default());
    }
}
