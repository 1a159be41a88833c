//! The daemon itself: locks its home, makes an engine, serves it, and ends when told to.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc;

use pando_api::ApiError;
use pando_http::{About, Server};
use pando_model::{ErrorCode, Layout};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{READY, VERSION};
use crate::app::Ending;
use crate::limits::DAEMON_STOP;
use crate::settings::{Settings, Sources};
use crate::{home, wire};

/// Where the daemon's life goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this terminal, until it is interrupted.
    Foreground,
    /// In a session of its own; says on stdout when it listens.
    Detached,
}

/// Threads of the daemon: what is slow is done by QEMU, by keepers and by blocking threads.
const WORKERS: usize = 2;

/// Serves this home until told to end.
///
/// # Errors
/// `daemon_unreachable` when another daemon serves it, `config_invalid`, or what the engine needs
/// and has not.
pub fn run(layout: &Layout, place: Place) -> Ending {
    if place == Place::Detached {
        // A starter's terminal must not end us. It fails for a session's leader, which needs none.
        let _ = rustix::process::setsid();
    }
    home::prepare(layout)?;
    let (settings, _) = Settings::resolve(&Sources::of_process(&layout.config())?)?;
    begin_log(&settings.log)?;
    let lock = lock(&layout.daemon_lock())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|source| ApiError::new(ErrorCode::Internal, format!("no runtime: {source}")))?;
    let ended = runtime.block_on(serve(layout, &settings, place));
    drop(runtime);
    drop(lock);
    if let Err(error) = &ended {
        tracing::error!(code = %error.code, %error, "the daemon cannot go on");
    }
    ended.map(|()| 0)
}

async fn serve(layout: &Layout, settings: &Settings, place: Place) -> Result<(), ApiError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(|source| no_signals(&source))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|source| no_signals(&source))?;
    let engine = wire::engine(layout, settings).await?;
    let about = About {
        version: VERSION.to_owned(),
        pid: std::process::id(),
        home: layout.home().display().to_string(),
        url: None,
    };
    let control = std::sync::Arc::new(engine.clone());
    let socket = layout.daemon_socket();
    let server = Server::bind(&socket, control, about).map_err(|source| {
        ApiError::new(
            ErrorCode::DaemonUnreachable,
            format!("cannot listen on {}: {source}", socket.display()),
        )
    })?;
    tracing::info!(version = VERSION, socket = %socket.display(), "serving");
    if place == Place::Detached {
        say_ready();
    }
    let signals = async {
        // Cancel-safe: a signal that is not taken here ends nothing else.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    };
    tokio::join!(server.run(stop.clone()), signals);
    // Nobody is to find a socket that nobody answers.
    let _ = std::fs::remove_file(&socket);
    engine.shutdown().await;
    tracing::info!("ended");
    Ok(())
}

fn no_signals(source: &std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("cannot listen for signals: {source}"))
}

/// Says that this daemon listens, and lets go of the starter's pipe.
fn say_ready() {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{READY}");
    let _ = stdout.flush();
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

fn begin_log(filter: &str) -> Result<(), ApiError> {
    let filter = filter.parse::<EnvFilter>().map_err(|source| {
        ApiError::new(ErrorCode::ConfigInvalid, format!("`daemon.log` is `{filter}`: {source}"))
            .hint("pando config set daemon.log info")
    })?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .init();
    Ok(())
}

/// Takes the home's lock for this process's life. A daemon that is just ending gets a moment.
fn lock(path: &Path) -> Result<File, ApiError> {
    let failed = |detail: &dyn std::fmt::Display| {
        ApiError::new(
            ErrorCode::DaemonUnreachable,
            format!("cannot lock {}: {detail}", path.display()),
        )
    };
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(&error))?;
    if file.try_lock().is_err() {
        let (sender, receiver) = mpsc::channel();
        let waiting = file.try_clone().map_err(|error| failed(&error))?;
        std::thread::spawn(move || {
            let _ = sender.send(waiting.lock());
        });
        match receiver.recv_timeout(DAEMON_STOP) {
            Ok(Ok(())) => {}
            _ => return Err(failed(&"another daemon serves this home").hint("pando daemon status")),
        }
    }
    let _ = file.set_len(0).and_then(|()| file.rewind());
    let _ = writeln!(file, "{}", std::process::id());
    Ok(file)
}
