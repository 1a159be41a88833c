//! `pando man`: manual pages, for packages and for `man -l`.

use std::path::Path;

use clap::{Arg, ArgMatches, Command};
use clap_mangen::Man;
use pando_api::ApiError;
use pando_model::ErrorCode;
use serde_json::json;

use crate::app::Ending;
use crate::cli;
use crate::commands::text;
use crate::output::Ui;

/// Returns the command.
pub fn command() -> Command {
    Command::new("man")
        .about("Write manual pages into a directory")
        .arg(Arg::new("directory").value_name("DIR").required(true).help("An existing directory"))
}

/// Writes one page for each command.
pub fn run(ui: Ui, matches: &ArgMatches) -> Ending {
    let directory = text(matches, "directory");
    let count = pages(cli::root(), "", Path::new(directory)).map_err(|source| {
        ApiError::new(
            ErrorCode::InvalidParameter,
            format!("cannot write manual pages into {directory}: {source}"),
        )
        .subject("directory")
    })?;
    ui.answer(&format!("{count} pages in {directory}"), json!({ "pages": count }));
    ui.remark(format!("read one: man -l {directory}/pando.1"));
    Ok(0)
}

fn pages(command: Command, parent: &str, directory: &Path) -> std::io::Result<u32> {
    let name = format!("{parent}{}", command.get_name());
    let mut count = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        count += pages(below.clone(), &format!("{name}-"), directory)?;
    }
    let mut page = Vec::new();
    Man::new(command.name(name.clone()).display_name(name.clone())).render(&mut page)?;
    std::fs::write(directory.join(format!("{name}.1")), page)?;
    Ok(count)
}
