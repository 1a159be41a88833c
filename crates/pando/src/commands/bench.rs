//! `pando bench`: the figures that SPECIFICATION.md quotes.

use clap::{ArgMatches, Command};
use pando_api::ApiError;
use pando_model::ErrorCode;

use crate::app::{App, Ending};

/// Returns the command.
pub fn command() -> Command {
    Command::new("bench").about("Measure what SPECIFICATION.md promises")
}

/// Runs the benchmark.
pub async fn run(_: &App, _: &ArgMatches) -> Ending {
    Err(ApiError::new(ErrorCode::Unsupported, "the benchmark is not built in yet"))
}
