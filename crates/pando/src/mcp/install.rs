//! `pando mcp install`: writes this server into a client's configuration, after showing how the
//! file changes. What else the file holds stays as it is.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::ApiError;
use pando_model::{ErrorCode, Layout};
use serde_json::{Value, json};
use toml_edit::{Array, InlineTable};

use super::merge;
use super::way::{Program, Url, Way};
use crate::app::Ending;
use crate::commands::{text, texts};
use crate::output::{Format, Ui};

/// Under which name clients know the server.
const NAME: &str = "pando";

/// How a client is configured.
struct Client {
    name: &'static str,
    /// In a project's directory; empty if it has no such file.
    project: &'static str,
    /// In the user's home.
    user: &'static str,
    /// Where servers are listed.
    list: &'static str,
    /// What it wants to be told beside a program.
    kind: Option<&'static str>,
    /// What it wants to be told beside a URL.
    http_kind: Option<&'static str>,
    /// How it is told to take the token from its environment, so that no file holds it.
    token: &'static str,
}

const CLIENTS: &[Client] = &[
    Client {
        name: "claude",
        project: ".mcp.json",
        user: ".claude.json",
        list: "mcpServers",
        kind: None,
        http_kind: Some("http"),
        token: "${PANDO_TOKEN}",
    },
    Client {
        name: "vscode",
        project: ".vscode/mcp.json",
        user: ".config/Code/User/mcp.json",
        list: "servers",
        kind: Some("stdio"),
        http_kind: Some("http"),
        token: "${env:PANDO_TOKEN}",
    },
    Client {
        name: "cursor",
        project: ".cursor/mcp.json",
        user: ".cursor/mcp.json",
        list: "mcpServers",
        kind: None,
        http_kind: None,
        token: "${env:PANDO_TOKEN}",
    },
    Client {
        name: "codex",
        project: "",
        user: ".codex/config.toml",
        list: "mcp_servers",
        kind: None,
        http_kind: None,
        token: "PANDO_TOKEN",
    },
];

/// Returns the command.
pub fn command() -> Command {
    Command::new("install")
        .about("Write this server into an AI client's configuration")
        .arg(
            Arg::new("client")
                .long("client")
                .value_name("CLIENT")
                .required(true)
                .value_parser(clap::builder::PossibleValuesParser::new(
                    CLIENTS.iter().map(|client| client.name),
                ))
                .hide_possible_values(true)
                .help("claude, vscode, cursor or codex"),
        )
        .arg(
            Arg::new("http")
                .long("http")
                .action(ArgAction::SetTrue)
                .help("The daemon's URL in place of a program; the token comes from PANDO_TOKEN"),
        )
        .arg(
            Arg::new("user")
                .long("user")
                .action(ArgAction::SetTrue)
                .help("For all of your projects; otherwise for the one in this directory"),
        )
        .arg(
            Arg::new("dry_run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Only show the change"),
        )
        .arg(
            Arg::new("options")
                .value_name("OPTIONS")
                .num_args(0..)
                .last(true)
                .help("Options for `pando mcp`, after `--`: -- --role ops --read-only"),
        )
}

/// Shows the change, and makes it unless told not to.
pub fn run(ui: Ui, layout: &Layout, matches: &ArgMatches) -> Ending {
    let name = text(matches, "client");
    let Some(client) = CLIENTS.iter().find(|client| client.name == name) else {
        return Err(ApiError::parameter("client", format!("there is no client `{name}`")));
    };
    let options = texts(matches, "options");
    // What the server would refuse is refused here.
    let line = ["pando".to_owned(), "mcp".to_owned()].into_iter().chain(options.clone());
    let wanted = crate::cli::root().try_get_matches_from(line).map_err(|source| {
        let message = source.to_string();
        let message = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
        ApiError::parameter("options", message).hint("pando mcp --help")
    })?;
    let way = match matches.get_flag("http") {
        true => Way::Url(Url::find(ui, layout, &wanted)?),
        false => Way::Program(Program::find(layout.home(), options)),
    };
    let path = file(client, matches.get_flag("user"))?;
    let before = read(&path)?;
    let after = merged(client, &before, &way).map_err(|source| {
        ApiError::new(
            ErrorCode::ConfigInvalid,
            format!("{} cannot be changed safely: {source}", path.display()),
        )
        .subject(path.display().to_string())
        .hint(format!(
            "add this by hand, under `{}`:\n{}",
            client.list,
            entry(client, &way)
        ))
    })?;
    let is_new = before != after;
    let write = is_new && !matches.get_flag("dry_run");
    if ui.format == Format::Human {
        let shown = if is_new {
            format!("{}\n{}", path.display(), change(&before, &after))
        } else {
            format!("{} has it already", path.display())
        };
        ui.answer(&shown, Value::Null);
    }
    if write {
        replace(&path, &after)?;
    }
    if ui.format == Format::Json {
        let change = change(&before, &after);
        let path = path.display().to_string();
        ui.answer("", json!({"client": name, "path": path, "change": change, "written": write}));
    } else if write {
        ui.remark(format!("written; {} finds it when it starts next", client.name));
        if matches!(way, Way::Url(_)) {
            ui.remark(
                "it needs the token in its environment: export PANDO_TOKEN=\"$(pando token show)\"",
            );
        }
    } else if is_new {
        ui.remark("nothing was written");
    }
    Ok(0)
}

/// Returns the file to change.
fn file(client: &Client, user: bool) -> Result<PathBuf, ApiError> {
    if !user && !client.project.is_empty() {
        let directory = std::env::current_dir().map_err(|source| {
            ApiError::new(ErrorCode::ConfigInvalid, format!("no current directory: {source}"))
        })?;
        return Ok(directory.join(client.project));
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let (Some(own), "codex") = (set("CODEX_HOME"), client.name) {
        return Ok(Path::new(&own).join("config.toml"));
    }
    set("HOME").map(|home| Path::new(&home).join(client.user)).ok_or_else(|| {
        ApiError::new(ErrorCode::ConfigInvalid, "there is no home: $HOME is not set")
    })
}

fn read(path: &Path) -> Result<String, ApiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(unusable(path, &source)),
    }
}

fn unusable(path: &Path, source: &std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::ConfigInvalid, format!("{} is not usable: {source}", path.display()))
        .subject(path.display().to_string())
}

fn entry(client: &Client, way: &Way) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let mut lines = Vec::new();
    let mut line = |key: &str, value: String| lines.push(format!("  \"{key}\": {value}"));
    match way {
        Way::Program(Program { path, arguments, environment }) => {
            if let Some(kind) = client.kind {
                line("type", quoted(kind));
            }
            line("command", quoted(path));
            let arguments: Vec<String> = arguments.iter().map(|text| quoted(text)).collect();
            line("args", format!("[{}]", arguments.join(", ")));
            if !environment.is_empty() {
                let pairs = environment.iter();
                let pairs: Vec<String> = pairs
                    .map(|(name, value)| format!("{}: {}", quoted(name), quoted(value)))
                    .collect();
                line("env", format!("{{{}}}", pairs.join(", ")));
            }
        }
        Way::Url(Url(url)) => {
            if let Some(kind) = client.http_kind {
                line("type", quoted(kind));
            }
            line("url", quoted(url));
            let bearer = quoted(&format!("Bearer {}", client.token));
            line("headers", format!("{{\"Authorization\": {bearer}}}"));
        }
    }
    format!("{{\n{}\n}}", lines.join(",\n"))
}

/// What an entry of either form says in TOML.
const PROGRAM_KEYS: &[&str] = &["command", "args", "env"];
const URL_KEYS: &[&str] = &["url", "bearer_token_env_var"];

fn merged(client: &Client, before: &str, way: &Way) -> Result<String, merge::MergeError> {
    if !client.user.ends_with(".toml") {
        return merge::json(before, client.list, NAME, &entry(client, way));
    }
    match way {
        Way::Program(Program { path, arguments, environment }) => {
            let arguments: Array = arguments.iter().collect();
            let mut keys = vec![("command", path.into()), ("args", arguments.into())];
            if !environment.is_empty() {
                let table: InlineTable = environment.iter().cloned().collect();
                keys.push(("env", table.into()));
            }
            merge::toml(before, client.list, NAME, &keys, URL_KEYS)
        }
        Way::Url(Url(url)) => {
            let keys = [("url", url.into()), ("bearer_token_env_var", client.token.into())];
            merge::toml(before, client.list, NAME, &keys, PROGRAM_KEYS)
        }
    }
}

/// Returns the lines that go and the lines that come.
fn change(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[same..], &new[same..]);
    let ending = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let gone = old[..old.len() - ending].iter().map(|line| format!("- {line}"));
    let come = new[..new.len() - ending].iter().map(|line| format!("+ {line}"));
    gone.chain(come).collect::<Vec<_>>().join("\n")
}

/// Writes a file whole or not at all, with the permissions that it had.
fn replace(path: &Path, text: &str) -> Result<(), ApiError> {
    // A link stays one: what it leads to is written.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let write = || -> std::io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(text.as_bytes())?;
        if let Ok(metadata) = fs::metadata(&path) {
            file.as_file().set_permissions(metadata.permissions())?;
        }
        file.as_file().sync_all()?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|source| unusable(&path, &source))
}
