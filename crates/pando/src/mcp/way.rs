//! How a client reaches the server: by starting a program, or at a URL.

use std::fs;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;
use pando_api::ApiError;
use pando_mcp::Profile;
use pando_model::{ErrorCode, Layout};

use crate::daemon::{self, launch};
use crate::output::Ui;
use crate::settings::{HttpListen, Settings, Sources};

/// The program's name, where it is found by that.
const NAME: &str = "pando";

/// See the module.
pub enum Way {
    /// It starts this.
    Program(Program),
    /// It asks there.
    Url(Url),
}

/// What a client is to start.
pub struct Program {
    /// The program.
    pub path: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What is added to its environment.
    pub environment: Vec<(String, String)>,
}

impl Program {
    /// Returns this program as a client starts it: by its name where that finds it.
    pub fn find(home: &Path, options: Vec<String>) -> Self {
        let own = launch::program().and_then(fs::canonicalize).ok();
        let search = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&search)
            .map(|directory| directory.join(NAME))
            .find_map(|path| fs::canonicalize(path).ok());
        let path = match own {
            Some(own) if found.as_ref() != Some(&own) => own.to_string_lossy().into_owned(),
            _ => NAME.to_owned(),
        };
        let mut arguments = vec!["mcp".to_owned()];
        arguments.extend(options);
        // A client has an environment of its own, in which another home would be the default.
        let named = std::env::var_os("PANDO_HOME").is_some_and(|value| !value.is_empty());
        let home = home.to_string_lossy().into_owned();
        let environment = if named { vec![("PANDO_HOME".to_owned(), home)] } else { Vec::new() };
        Self { path, arguments, environment }
    }
}

/// Where the daemon serves MCP, with what is offered there in its query.
pub struct Url(pub String);

impl Url {
    /// Returns the URL of this home's daemon, for the options of `pando mcp` in `wanted`.
    ///
    /// # Errors
    /// `config_invalid` when it listens nowhere, `invalid_parameter` for an option that a URL
    /// cannot carry.
    pub fn find(ui: Ui, layout: &Layout, wanted: &ArgMatches) -> Result<Self, ApiError> {
        let query = query(wanted)?;
        let (settings, _) = Settings::resolve(&Sources::of_process(&layout.config())?)?;
        let running = daemon::about(layout).ok().and_then(|about| about.url);
        let base = match (running, settings.http_listen) {
            (_, HttpListen::At(address)) if address.port() != 0 => format!("http://{address}"),
            (Some(url), _) => {
                ui.remark(
                    "this port is the running daemon's only; for one that stays: \
                     pando config set http.listen on",
                );
                url
            }
            (None, _) => {
                let message = "the daemon does not listen on TCP";
                return Err(ApiError::new(ErrorCode::ConfigInvalid, message)
                    .subject("http.listen")
                    .hint("pando config set http.listen on\npando daemon restart"));
            }
        };
        Ok(Self(format!("{base}/mcp{query}")))
    }
}

/// Returns the options of `pando mcp` as a query.
fn query(wanted: &ArgMatches) -> Result<String, ApiError> {
    let Some((_, wanted)) = wanted.subcommand() else { return Ok(String::new()) };
    let given = wanted
        .ids()
        .map(clap::Id::as_str)
        .filter(|id| wanted.value_source(id) == Some(ValueSource::CommandLine));
    let mut pairs = Vec::new();
    for id in given {
        let value = match id {
            "role" | "toolset" => wanted.get_one::<String>(id).cloned().unwrap_or_default(),
            "read_only" | "compat" => "true".to_owned(),
            _ => {
                return Err(ApiError::parameter("options", format!("a URL cannot carry `{id}`"))
                    .hint("any of --role, --toolset, --read-only and --compat"));
            }
        };
        pairs.push((id.to_owned(), value.split_whitespace().collect::<String>()));
    }
    // What the server would refuse is refused here; what it takes needs no escapes.
    Profile::of_query(&pairs)?;
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) })
}
