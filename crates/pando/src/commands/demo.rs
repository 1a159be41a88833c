//! `pando demo`: the main job, told as it happens.

use clap::{ArgMatches, Command};
use pando_api::ApiError;
use pando_model::ErrorCode;

use crate::app::{App, Ending};

/// Returns the command.
pub fn command() -> Command {
    Command::new("demo").about("See it all in a minute: boot, commit, branch four ways, roll back")
}

/// Runs the demonstration.
pub async fn run(_: &App, _: &ArgMatches) -> Ending {
    Err(ApiError::new(ErrorCode::Unsupported, "the demonstration is not built in yet"))
}
