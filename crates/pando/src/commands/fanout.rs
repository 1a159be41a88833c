//! `pando fanout`: one command in many branches.

use clap::{Arg, ArgMatches, Command as Cli};
use pando_api::ApiError;
use pando_api::exec::{ExecFanoutResult, FanoutRow};
use pando_model::guest::Command;
use serde_json::{Value, json};

use crate::app::{App, Ending};
use crate::cli::generated::text_or_file;
use crate::commands::{exec, texts, typed};
use crate::output::{Format, Look, Ui, units};

/// Returns the command.
pub fn command() -> Cli {
    Cli::new("fanout")
        .about("Run one command in many branches at once")
        .override_usage(
            "pando fanout [OPTIONS] ADDRESS… -- COMMAND [ARG]…\n       \
             pando fanout [OPTIONS] --all CLUSTER -- COMMAND [ARG]…",
        )
        .arg(
            Arg::new("branches")
                .value_name("ADDRESS")
                .num_args(0..)
                .conflicts_with("all")
                .help("Addresses or ids"),
        )
        .arg(
            Arg::new("all")
                .long("all")
                .short('a')
                .value_name("CLUSTER")
                .help("All running branches of this cluster"),
        )
        .args(exec::options())
        .arg(
            Arg::new("stdin")
                .long("stdin")
                .value_name("TEXT|@FILE")
                .help("Standard input, the same everywhere; none if left out"),
        )
        .arg(exec::max_output())
        .arg(exec::line())
        .arg(exec::words())
}

/// Runs it. The exit status is 0 if it was everywhere.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let command = exec::wanted(matches, "pando fanout --all CLUSTER -- uptime")?;
    let mut params = exec::common(matches)?;
    exec::bound(matches, &mut params)?;
    if let Some(text) = matches.get_one::<String>("stdin") {
        params.insert("stdin".to_owned(), text_or_file("stdin", text)?);
    }
    match command {
        Command::Argv(words) => params.insert("argv".to_owned(), json!(words)),
        Command::Shell(line) => params.insert("command".to_owned(), json!(line)),
    };
    match matches.get_one::<String>("all") {
        Some(cluster) => params.insert("cluster".to_owned(), json!(cluster)),
        None => params.insert("branches".to_owned(), json!(texts(matches, "branches"))),
    };
    if params.get("branches").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        return Err(ApiError::parameter("branches", "there is no branch to run it in")
            .hint("pando fanout --all CLUSTER -- uptime"));
    }
    let result = app.call("exec_fanout", Value::Object(params)).await?;
    let view: ExecFanoutResult = typed(result.clone())?;
    match app.ui.format {
        Format::Json => app.show("", &result),
        Format::Human => show(&app.ui, &view),
    }
    Ok(u8::from(view.failed > 0))
}

fn show(ui: &Ui, view: &ExecFanoutResult) {
    for row in &view.results {
        let (look, verdict) = verdict(row);
        let took = units::millis(row.outcome.duration_ms);
        ui.line(format!(
            "{}  {}  {took}",
            ui.paint(Look::Bold, &row.branch),
            ui.paint(look, &verdict)
        ));
        for (text, look) in [(&row.outcome.stdout, Look::Plain), (&row.outcome.stderr, Look::Red)] {
            for line in text.lines() {
                ui.line(format!("  {}", ui.paint(look, line)));
            }
        }
    }
    let took = units::whole_millis(view.duration_ms);
    ui.remark(format!("{} succeeded, {} failed, in {took}", view.succeeded, view.failed));
}

fn verdict(row: &FanoutRow) -> (Look, String) {
    match (&row.error, row.outcome.exit_code, row.outcome.signal) {
        (Some(error), ..) => (Look::Red, error.message.clone()),
        (None, Some(0), _) => (Look::Green, "ok".to_owned()),
        (None, Some(code), _) => (Look::Red, format!("exit status {code}")),
        (None, None, Some(signal)) => (Look::Red, format!("ended by signal {signal}")),
        (None, None, None) => (Look::Red, "timed out".to_owned()),
    }
}
