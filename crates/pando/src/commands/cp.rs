//! `pando cp`: files between this machine and guests, streamed.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::{ApiError, Control, PullRequest, PushRequest};
use pando_model::guest::FileFacts;
use pando_model::operation::Progress;
use pando_model::{Address, ErrorCode};
use serde_json::json;
use tokio::sync::mpsc;

use crate::app::{App, Ending};
use crate::commands::text;
use crate::limits::{CHUNK_BYTES, CHUNKS};
use crate::output::progress::Meter;
use crate::output::{Format, units};

/// Returns the command.
pub fn command() -> Command {
    Command::new("cp")
        .about("Copy a file into or out of a machine")
        .after_help(
            "Examples:\n  pando cp app.conf shop:/etc/app.conf\n  pando cp shop:/var/log/syslog .\n  \
             pando cp shop:/etc/os-release -\n\nDirectories:\n  tar -c DIR | pando exec shop -- tar -x -C /srv",
        )
        .arg(Arg::new("from").value_name("SRC").required(true).help("FILE, or ADDRESS:/PATH"))
        .arg(
            Arg::new("to")
                .value_name("DST")
                .required(true)
                .help("ADDRESS:/PATH, or a file, directory, or - for stdout"),
        )
        .arg(
            Arg::new("parents")
                .long("parents")
                .short('p')
                .action(ArgAction::SetTrue)
                .help("Make missing directories in the guest"),
        )
        .arg(Arg::new("mode").long("mode").value_name("OCTAL").help("Permission bits; the file's own if left out"))
        .arg(Arg::new("owner").long("owner").value_name("USER").help("Owner in the guest [default: root]"))
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Here(PathBuf),
    There(Address, String),
}

/// Returns what a text names: `ADDRESS:/PATH` is in a guest, all else is here.
fn end(text: &str) -> Result<End, ApiError> {
    let Some((address, path)) = text.split_once(':') else {
        return Ok(End::Here(text.into()));
    };
    match address.parse::<Address>() {
        Ok(address) if path.starts_with('/') => Ok(End::There(address, path.to_owned())),
        Ok(address) if !Path::new(text).exists() => Err(ApiError::parameter(
            "path",
            format!("`{path}` is not an absolute path in the guest"),
        )
        .hint(format!("{address}:/{path}"))),
        _ => Ok(End::Here(text.into())),
    }
}

/// Copies.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let (from, to) = (text(matches, "from"), text(matches, "to"));
    let facts = match (end(from)?, end(to)?) {
        (End::Here(from), End::There(address, path)) => {
            push(app, matches, &from, address, path).await?
        }
        (End::There(address, path), End::Here(to)) => pull(app, address, path, &to).await?,
        (End::Here(_), End::Here(_)) => {
            return Err(ApiError::parameter("to", "neither end is in a machine")
                .hint(format!("pando cp {from} ADDRESS:/PATH")));
        }
        (End::There(..), End::There(..)) => {
            return Err(ApiError::parameter(
                "to",
                "both ends are in machines; copy through a file",
            )
            .hint(format!("pando cp {from} FILE")));
        }
    };
    if to != "-" || app.ui.format == Format::Json {
        let words = format!("{to}  {}", units::bytes(facts.size));
        app.ui.answer(&words, json!({ "path": facts.path, "size_bytes": facts.size }));
    }
    Ok(0)
}

fn here(what: &str, path: &Path, source: &std::io::Error) -> ApiError {
    let code = match source.kind() {
        std::io::ErrorKind::NotFound => ErrorCode::NotFound,
        std::io::ErrorKind::StorageFull => ErrorCode::DiskFull,
        _ => ErrorCode::InvalidParameter,
    };
    ApiError::new(code, format!("cannot {what} {}: {source}", path.display()))
}

async fn push(
    app: &App,
    matches: &ArgMatches,
    from: &Path,
    address: Address,
    mut path: String,
) -> Result<FileFacts, ApiError> {
    let mut file = std::fs::File::open(from).map_err(|source| here("open", from, &source))?;
    let facts = file.metadata().map_err(|source| here("read", from, &source))?;
    if !facts.is_file() {
        let from = from.display();
        return Err(ApiError::parameter("from", format!("{from} is not a regular file"))
            .hint(format!("tar -c {from} | pando exec {address} -- tar -x -C {path}")));
    }
    if path.ends_with('/') {
        path.push_str(&from.file_name().unwrap_or_default().to_string_lossy());
    }
    let mode = match matches.get_one::<String>("mode") {
        Some(text) => u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| ApiError::parameter("mode", format!("`{text}` is no octal mode")))?,
        None => facts.permissions().mode() & 0o777,
    };
    let request = PushRequest {
        address,
        path,
        mode,
        owner: matches.get_one::<String>("owner").cloned(),
        make_parents: matches.get_flag("parents"),
        size: facts.len(),
    };
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let read = async {
        let mut meter = Meter::new(&app.ui);
        let mut done = 0;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = file.read(&mut chunk).map_err(|source| here("read", from, &source))?;
            let piece = chunk.get(..count).unwrap_or_default();
            if piece.is_empty() || sender.send(piece.to_vec()).await.is_err() {
                break;
            }
            done += piece.len() as u64;
            meter.draw(&copying(done, facts.len()));
        }
        drop(sender);
        Ok::<(), ApiError>(())
    };
    let caller = app.caller();
    let (pushed, read) = tokio::join!(app.client.push(&caller, request, chunks), read);
    read.and(pushed)
}

fn copying(done: u64, total: u64) -> Progress {
    Progress { message: "copying".to_owned(), done, total }
}

async fn pull(app: &App, address: Address, path: String, to: &Path) -> Result<FileFacts, ApiError> {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(CHUNKS);
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let request = PullRequest { address, path };
    let caller = app.caller();
    let pull = app.client.pull(&caller, request, sender);
    if to == Path::new("-") {
        let write = async {
            while let Some(chunk) = chunks.recv().await {
                if std::io::stdout().lock().write_all(&chunk).is_err() {
                    return;
                }
            }
        };
        return tokio::join!(pull, write).0;
    }
    let target = if to.is_dir() { to.join(name) } else { to.to_owned() };
    let directory = target.parent().filter(|path| !path.as_os_str().is_empty());
    let failed = |source: std::io::Error| here("write", &target, &source);
    // Whole under its name or not there.
    let mut file =
        tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new("."))).map_err(failed)?;
    let write = async {
        let mut meter = Meter::new(&app.ui);
        let mut done = 0;
        while let Some(chunk) = chunks.recv().await {
            file.write_all(&chunk).map_err(failed)?;
            done += chunk.len() as u64;
            meter.draw(&copying(done, 0));
        }
        Ok::<(), ApiError>(())
    };
    let (pulled, written) = tokio::join!(pull, write);
    let facts = written.and(pulled)?;
    let mode = std::fs::Permissions::from_mode(facts.mode & 0o777);
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.persist(&target).map_err(|error| failed(error.error))?;
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_with_an_address_is_in_a_guest() {
        let there = |text: &str| End::There("shop@a/db".parse().unwrap(), text.to_owned());
        assert_eq!(end("shop@a/db:/etc/x").unwrap(), there("/etc/x"));
        for text in ["a", "./a:b", "/tmp/x:/y", "-"] {
            assert_eq!(end(text).unwrap(), End::Here(text.into()), "{text}");
        }
        assert_eq!(end("shop:etc").unwrap_err().hint.as_deref(), Some("shop:/etc"));
    }
}
