//! `pando console`: a machine's serial console.

use std::io::Write;

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::exec::ConsoleReadResult;
use serde_json::{Map, Value};

use crate::app::{App, Ending};
use crate::commands::typed;
use crate::limits::FOLLOW_INTERVAL;
use crate::output::Format;

/// Returns the command.
pub fn command() -> Command {
    Command::new("console")
        .about("Read a machine's serial console")
        .arg(Arg::new("address").value_name("ADDRESS").help("The only machine if left out"))
        .arg(
            Arg::new("follow")
                .long("follow")
                .short('f')
                .action(ArgAction::SetTrue)
                .help("Go on with what comes"),
        )
        .arg(
            Arg::new("bytes")
                .long("bytes")
                .value_name("N")
                .value_parser(clap::value_parser!(u64))
                .help("Bytes from the end [default: 16384]"),
        )
        .arg(
            Arg::new("offset")
                .long("offset")
                .value_name("N")
                .value_parser(clap::value_parser!(u64))
                .conflicts_with("bytes")
                .help("From this byte on: an earlier result's `next_offset`"),
        )
}

/// Reads it.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let mut params = Map::new();
    if let Some(address) = matches.get_one::<String>("address") {
        params.insert("address".to_owned(), Value::from(address.as_str()));
    }
    if let Some(bytes) = matches.get_one::<u64>("bytes") {
        params.insert("tail_bytes".to_owned(), Value::from(*bytes));
    }
    if let Some(offset) = matches.get_one::<u64>("offset") {
        params.insert("offset".to_owned(), Value::from(*offset));
    }
    loop {
        let result = app.call("console_read", Value::Object(params.clone())).await?;
        if app.ui.format == Format::Json {
            app.show("", &result);
            return Ok(0);
        }
        let piece: ConsoleReadResult = typed(result)?;
        let mut stdout = std::io::stdout().lock();
        if stdout.write_all(piece.text.as_bytes()).and_then(|()| stdout.flush()).is_err()
            || !matches.get_flag("follow")
        {
            return Ok(0);
        }
        drop(stdout);
        params.insert("offset".to_owned(), Value::from(piece.next_offset));
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}
