//! Starts a daemon where none answers. Any number of commands may do so at once: one lock lets
//! them pass one by one, and all but the first find a daemon.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use async_trait::async_trait;
use pando_api::ApiError;
use pando_http::Launch;
use pando_model::{ErrorCode, Layout};

use super::READY;
use crate::home;
use crate::limits::{DAEMON_START, LOG_LINES, MAX_LOG_BYTES};
use crate::output::Ui;

/// Starts the daemon of one home.
pub struct Launcher {
    layout: Layout,
    ui: Ui,
}

impl Launcher {
    /// Returns a launcher; nothing is touched before it is used.
    pub fn new(layout: Layout, ui: Ui) -> Self {
        Self { layout, ui }
    }
}

#[async_trait]
impl Launch for Launcher {
    async fn launch(&self) -> Result<(), ApiError> {
        let layout = self.layout.clone();
        let ui = self.ui;
        let started = tokio::task::spawn_blocking(move || start(&layout, ui)).await;
        started.unwrap_or_else(|panic| {
            Err(ApiError::new(ErrorCode::Internal, format!("the start ended: {panic}")))
        })
    }
}

fn failed(message: String, log: &Path) -> ApiError {
    ApiError::new(ErrorCode::DaemonUnreachable, message)
        .hint("pando doctor\npando logs")
        .subject(log.display().to_string())
}

/// Returns once a daemon listens. Waits for other starters without a deadline of its own: each of
/// them has one.
///
/// # Errors
/// `daemon_unreachable` with the end of its log.
pub fn start(layout: &Layout, ui: Ui) -> Result<(), ApiError> {
    home::prepare(layout)?;
    let log = layout.daemon_log();
    let lock_path = layout.home().join("start.lock");
    let system =
        |what: &str, source: std::io::Error| failed(format!("cannot {what}: {source}"), &log);
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|source| system("open the start lock", source))?;
    lock.lock().map_err(|source| system("take the start lock", source))?;
    if UnixStream::connect(layout.daemon_socket()).is_ok() {
        return Ok(());
    }
    ui.remark("starting the daemon");
    spawn(layout)
}

/// How the C library gives memory back. A diff reads tens of megabytes, on whichever thread; by
/// default as many of them stay with the daemon for ever. (Numbers in bytes; other C libraries take
/// no notice.)
const ALLOCATOR: &[(&str, &str)] = &[
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_TRIM_THRESHOLD_", "262144"),
    ("MALLOC_MMAP_THRESHOLD_", "262144"),
];

fn spawn(layout: &Layout) -> Result<(), ApiError> {
    let log_path = layout.daemon_log();
    let system =
        |what: &str, source: std::io::Error| failed(format!("cannot {what}: {source}"), &log_path);
    shorten(&log_path).map_err(|source| system("shorten the log", source))?;
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|source| system("open the log", source))?;
    let program = program().map_err(|source| system("find this program", source))?;
    let mut child = Command::new(program)
        .args(["serve", "--detached", "--home"])
        .arg(layout.home())
        .envs(ALLOCATOR.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log))
        .spawn()
        .map_err(|source| system("start the daemon", source))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(failed("the daemon has no stdout".to_owned(), &log_path));
    };
    // The read ends with the daemon's word or its end; the thread only adds a deadline to it.
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut word = String::new();
        let _ = BufReader::new(stdout.take(64)).read_line(&mut word);
        let _ = sender.send(word);
    });
    match receiver.recv_timeout(DAEMON_START) {
        Ok(word) if word.trim_end() == READY => Ok(()),
        Ok(_) => {
            let status = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
            let end = tail(&log_path);
            Err(failed(format!("the daemon did not start ({status})\n{end}"), &log_path))
        }
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            let seconds = DAEMON_START.as_secs();
            Err(failed(format!("the daemon did not listen within {seconds} s"), &log_path))
        }
    }
}

/// Returns this program, also after it was replaced by a newer one at the same path.
pub fn program() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

/// Removes the older half of a log that has become too long.
fn shorten(path: &Path) -> std::io::Result<()> {
    let Ok(mut log) = File::options().read(true).write(true).open(path) else {
        return Ok(());
    };
    let length = log.metadata()?.len();
    if length <= MAX_LOG_BYTES {
        return Ok(());
    }
    let mut newer = Vec::new();
    log.seek(SeekFrom::Start(length - MAX_LOG_BYTES / 2))?;
    log.read_to_end(&mut newer)?;
    std::fs::write(path, newer)
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines[from..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
