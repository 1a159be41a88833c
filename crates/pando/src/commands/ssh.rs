//! `pando ssh`: the SSH client of this machine, with the port, key and host key that belong to a
//! guest.

use std::os::unix::process::CommandExt;

use clap::{Arg, ArgMatches, Command};
use pando_api::ApiError;
use pando_api::exec::ConnectInfoResult;
use pando_model::ErrorCode;
use serde_json::json;

use crate::app::{App, Ending};
use crate::commands::{text, texts, typed};
use crate::output::Format;

/// Returns the command.
pub fn command() -> Command {
    Command::new("ssh")
        .about("Log in to a machine with this machine's SSH client")
        .override_usage("pando ssh [OPTIONS] ADDRESS [-- COMMAND [ARG]…]")
        .arg(
            Arg::new("address")
                .value_name("ADDRESS")
                .required(true)
                .help("CLUSTER[@BRANCH][/NODE]"),
        )
        .arg(
            Arg::new("words")
                .value_name("ARG")
                .last(true)
                .num_args(0..)
                .help("Given to ssh after the host: a command to run"),
        )
}

/// Becomes the SSH client.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let result = app.call("connect_info", json!({ "address": text(matches, "address") })).await?;
    if app.ui.format == Format::Json {
        app.show("", &result);
        return Ok(0);
    }
    let info: ConnectInfoResult = typed(result)?;
    // The daemon empties that directory when it starts.
    let known_hosts = app.layout.tmp().join(format!("known_hosts.{}", info.port));
    std::fs::write(&known_hosts, format!("{}\n", info.known_hosts_line)).map_err(|source| {
        ApiError::new(
            ErrorCode::Internal,
            format!("cannot write {}: {source}", known_hosts.display()),
        )
    })?;
    let error = std::process::Command::new("ssh")
        .arg("-i")
        .arg(&info.key_path)
        .args(["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"])
        .args(["-o", "LogLevel=ERROR", "-F", "/dev/null"])
        .arg("-o")
        .arg(format!("ConnectTimeout={}", info.connect_timeout_s))
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
        .args(["-p", &info.port.to_string()])
        // Words after the host would otherwise still be read as options, of a client on this host.
        .arg("--")
        .arg(format!("{}@{}", info.user, info.host))
        .args(texts(matches, "words"))
        .exec();
    Err(ApiError::new(ErrorCode::ToolMissing, format!("cannot start ssh: {error}"))
        .hint(format!("apt install openssh-client\npando sh {}", text(matches, "address"))))
}
