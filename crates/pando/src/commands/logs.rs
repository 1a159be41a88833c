//! `pando logs`: the daemon's log, or a branch's keeper's. Reads files, so it works when nothing
//! else does.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::ApiError;
use pando_model::{BranchId, ErrorCode, Layout};
use serde_json::json;

use crate::app::Ending;
use crate::limits::{FOLLOW_INTERVAL, LOG_BYTES};
use crate::output::{Format, Ui};

/// Returns the command.
pub fn command() -> Command {
    Command::new("logs")
        .about("Show the daemon's log, or the keeper's of a branch (br_…)")
        .arg(Arg::new("branch").value_name("BRANCH_ID").help("A branch's id, for its keeper's log"))
        .arg(
            Arg::new("follow")
                .long("follow")
                .short('f')
                .action(ArgAction::SetTrue)
                .help("Go on with what comes"),
        )
        .arg(
            Arg::new("lines")
                .long("lines")
                .short('n')
                .value_name("N")
                .value_parser(clap::value_parser!(usize))
                .default_value("100")
                .help("Lines from the end"),
        )
}

/// Shows it.
pub fn run(ui: Ui, layout: &Layout, matches: &ArgMatches) -> Ending {
    let path = match matches.get_one::<String>("branch") {
        Some(text) => {
            let branch: BranchId = text.parse().map_err(|source| {
                ApiError::parameter("branch", format!("{source}")).hint("pando branches --json")
            })?;
            layout.keeper_log(&branch)
        }
        None => layout.daemon_log(),
    };
    let lines = matches.get_one::<usize>("lines").copied().unwrap_or(100);
    let failed = |source: std::io::Error| {
        ApiError::new(ErrorCode::NotFound, format!("no log at {}: {source}", path.display()))
    };
    let mut file = File::open(&path).map_err(failed)?;
    let end = tail(&mut file, lines).map_err(failed)?;
    if ui.format == Format::Json {
        ui.answer("", json!({ "path": path, "lines": end.lines().collect::<Vec<_>>() }));
        return Ok(0);
    }
    if write(end.as_bytes()).is_ok() && matches.get_flag("follow") {
        follow(&mut file, &path).map_err(failed)?;
    }
    Ok(0)
}

fn write(bytes: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Returns the last lines, and leaves the file at its end.
fn tail(file: &mut File, lines: usize) -> std::io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let from = text.lines().count().saturating_sub(lines);
    Ok(text.split_inclusive('\n').skip(from).collect())
}

fn follow(file: &mut File, path: &Path) -> std::io::Result<()> {
    loop {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if !bytes.is_empty() && write(&bytes).is_err() {
            return Ok(());
        }
        // A log that became shorter was cut; begin again.
        let position = file.stream_position()?;
        if std::fs::metadata(path).is_ok_and(|facts| facts.len() < position) {
            *file = File::open(path)?;
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn the_last_lines_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        let mut file = std::fs::File::open(&path).unwrap();
        assert_eq!(tail(&mut file, 2).unwrap(), "b\nc\n");
        assert_eq!(tail(&mut file, 9).unwrap(), "a\nb\nc\n");
        assert_eq!(tail(&mut file, 0).unwrap(), "");
    }
}
