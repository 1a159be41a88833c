//! The daemon itself: locks its home, makes an engine, serves it on a socket and, if told to, on a
//! port, and ends when told to.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, mpsc};

use pando_api::{ApiError, Control};
use pando_http::{About, Server};
use pando_model::{ErrorCode, Layout};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::door::{self, Demand};
use super::{READY, VERSION};
use crate::app::Ending;
use crate::limits::DAEMON_STOP;
use crate::output::Ui;
use crate::settings::{HttpListen, Settings, Sources};
use crate::{home, wire};

/// Where the daemon's life goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this terminal, until it is interrupted.
    Foreground,
    /// In a session of its own; says on stdout when it listens.
    Detached,
}

/// How to serve.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where.
    pub place: Place,
    /// Where to listen on TCP, in place of what the settings say.
    pub http: Option<HttpListen>,
    /// What a request over TCP must show.
    pub demand: Demand,
}

/// Threads of the daemon: what is slow is done by QEMU, by keepers and by blocking threads.
const WORKERS: usize = 2;

/// Serves this home until told to end.
///
/// # Errors
/// `already_exists` when another daemon serves it, `daemon_unreachable` when it cannot listen,
/// `config_invalid`, or what the engine needs and has not.
pub fn run(ui: Ui, layout: &Layout, options: Options) -> Ending {
    if options.place == Place::Detached {
        // A starter's terminal must not end us. It fails for a session's leader, which needs none.
        let _ = rustix::process::setsid();
    }
    home::prepare(layout)?;
    let (mut settings, _) = Settings::resolve(&Sources::of_process(&layout.config())?)?;
    settings.http_listen = options.http.unwrap_or(settings.http_listen);
    if options.place == Place::Foreground {
        refuse_second(layout, &settings)?;
    }
    begin_log(&settings.log)?;
    let lock = lock(&layout.daemon_lock())?;
    // Again: a daemon that was just ending may have removed what was empty.
    home::prepare(layout)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|source| ApiError::new(ErrorCode::Internal, format!("no runtime: {source}")))?;
    let ended = runtime.block_on(serve(ui, layout, &settings, options));
    drop(runtime);
    home::tidy(layout);
    drop(lock);
    if let Err(error) = &ended {
        tracing::error!(code = %error.code, %error, "the daemon cannot go on");
    }
    ended.map(|()| 0)
}

/// Refuses to be a second daemon of a home, saying how the first one gets what was asked for.
fn refuse_second(layout: &Layout, settings: &Settings) -> Result<(), ApiError> {
    let Ok(about) = super::about(layout) else { return Ok(()) };
    let at = about.url.as_deref().map_or("not on TCP".to_owned(), |url| format!("at {url}"));
    let message = format!("process {} is the daemon of this home already, {at}", about.pid);
    let error = ApiError::new(ErrorCode::AlreadyExists, message);
    Err(match settings.http_listen {
        HttpListen::At(address) if about.url.is_none() => {
            error.hint(format!("pando config set http.listen {address}\npando daemon restart"))
        }
        _ => error.hint("pando daemon status\npando daemon stop"),
    })
}

async fn serve(
    ui: Ui,
    layout: &Layout,
    settings: &Settings,
    options: Options,
) -> Result<(), ApiError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(|source| no_signals(&source))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|source| no_signals(&source))?;
    // Before anything is recovered or changed: a port that is taken must have no consequences.
    let port = door::bind(layout, settings.http_listen, options.demand).await?;
    let url = port.as_ref().map(door::Port::url);
    let engine = wire::engine(layout, settings, url.clone()).await?;
    let about = About {
        version: VERSION.to_owned(),
        pid: std::process::id(),
        home: layout.home().display().to_string(),
        url: url.clone(),
    };
    let control: Arc<dyn Control> = Arc::new(engine.clone());
    let socket = layout.daemon_socket();
    let server = Server::bind(&socket, control, about.clone()).map_err(|source| {
        ApiError::new(
            ErrorCode::DaemonUnreachable,
            format!("cannot listen on {}: {source}", socket.display()),
        )
    })?;
    tracing::info!(version = VERSION, socket = %socket.display(), url, "serving");
    match options.place {
        Place::Detached => say_ready(),
        Place::Foreground => {
            let words = url.as_deref().map_or_else(|| socket.display().to_string(), str::to_owned);
            ui.answer(&words, json!({ "socket": socket, "url": url }));
        }
    }
    let tested = (layout.clone(), settings.clone());
    let self_test =
        tokio::task::spawn_blocking(move || wire::machines::self_test(&tested.0, &tested.1));
    let signals = async {
        // Cancel-safe: a signal that is not taken here ends nothing else.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    };
    let serving_port = async {
        if let Some(port) = port {
            port.serve(&engine, about, stop.clone()).await;
        }
    };
    tokio::join!(server.run(stop.clone()), serving_port, signals);
    // Nobody is to find a socket that nobody answers.
    let _ = std::fs::remove_file(&socket);
    engine.shutdown().await;
    if let Err(error) = self_test.await {
        tracing::warn!(%error, "the test of QEMU");
    }
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
