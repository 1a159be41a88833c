//! `pando demo`: the main job, told as it happens.

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::ApiError;
use pando_model::ErrorCode;

use crate::app::{App, Ending};
use crate::output::Format;
use crate::story::{self, Story, StoryError, StoryOptions};

/// Returns the command.
pub fn command() -> Command {
    Command::new("demo")
        .about(
            "See it all: start three nodes, commit, branch three ways, break, compare, roll back",
        )
        .arg(
            Arg::new("machine")
                .long("machine")
                .action(ArgAction::SetTrue)
                .help("Tell it of one machine instead, in a minute"),
        )
        .arg(
            Arg::new("keep")
                .long("keep")
                .action(ArgAction::SetTrue)
                .help("Leave everything there at the end"),
        )
        .arg(
            Arg::new("name")
                .long("name")
                .value_name("NAME")
                .default_value("demo")
                .help("The cluster's or the machine's name"),
        )
        .arg(
            Arg::new("image")
                .long("image")
                .value_name("IMAGE")
                .default_value("default")
                .help("What the one machine starts from"),
        )
}

/// Runs the demonstration.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let story = if matches.get_flag("machine") { Story::Machine } else { Story::Cluster };
    let options = StoryOptions {
        story,
        name: text("name"),
        image: text("image"),
        keep: matches.get_flag("keep"),
    };
    let told = match app.ui.format {
        Format::Json => story::tell(&app.client, &options, std::io::sink(), false).await,
        Format::Human => {
            story::tell(&app.client, &options, std::io::stdout().lock(), app.ui.colours_stdout())
                .await
        }
    };
    match told {
        Ok(figures) => {
            if app.ui.format == Format::Json {
                app.show("", &figures);
            }
            Ok(0)
        }
        Err(StoryError::Call(error)) => Err(error),
        Err(error) => Err(ApiError::new(ErrorCode::Internal, error.to_string())
            .hint("pando logs shows what the daemon did")),
    }
}
