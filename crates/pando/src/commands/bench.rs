//! `pando bench`: the figures that SPECIFICATION.md quotes.

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::app::{App, Ending};
use crate::figures::{self, BenchOptions, SCENARIOS};
use crate::output::Format;

/// Returns the command.
pub fn command() -> Command {
    Command::new("bench")
        .about("Measure what SPECIFICATION.md promises, on this machine")
        .arg(
            Arg::new("scenario")
                .value_name("SCENARIO")
                .num_args(0..)
                .value_parser(SCENARIOS.to_vec())
                .help("What to measure; everything if left out"),
        )
        .arg(
            Arg::new("runs")
                .long("runs")
                .value_name("N")
                .default_value("10")
                .value_parser(value_parser!(u16).range(1..=1000))
                .help("Repetitions of each measurement"),
        )
        .arg(
            Arg::new("image")
                .long("image")
                .value_name("IMAGE")
                .default_value("default")
                .help("What to measure with"),
        )
}

/// Runs the benchmark; ends with 1 when a promise was missed.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let options = BenchOptions {
        only: matches.get_many::<String>("scenario").into_iter().flatten().cloned().collect(),
        runs: usize::from(matches.get_one::<u16>("runs").copied().unwrap_or(10)),
        image: matches.get_one::<String>("image").cloned().unwrap_or_default(),
        scratch: app.layout.home().to_owned(),
    };
    let human = app.ui.format == Format::Human;
    let report = figures::run(&app.client, &options, &mut |figure| {
        if human {
            app.ui.line(figures::row(figure));
        }
    })
    .await?;
    if !human {
        app.show("", &figures::to_json(&report));
    }
    let missed = report.figures.iter().any(|figure| figure.holds() == Some(false));
    Ok(u8::from(missed))
}
