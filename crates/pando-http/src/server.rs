//! The daemon's socket: bound privately, one task a connection, drained when the daemon stops.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use pando_api::Control;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::limits::{DRAIN_TIMEOUT, HEAD_TIMEOUT, MAX_CONNECTIONS};
use crate::request::Peer;
use crate::routes;

/// What the daemon says of itself without asking the engine.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct About {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its home directory.
    pub home: String,
}

/// Serves a [`Control`] on a unix socket.
pub struct Server {
    listener: UnixListener,
    router: Router,
    tasks: TaskTracker,
    head_timeout: Duration,
}

/// Makes sure that `directory` exists, belongs to this user and is closed to everybody else.
///
/// # Errors
/// When it cannot be made, or somebody else made it first.
pub fn private_directory(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let facts = std::fs::symlink_metadata(directory)?;
    let ours = facts.is_dir() && facts.uid() == rustix::process::geteuid().as_raw();
    if !ours {
        let message = format!("{} belongs to somebody else", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if facts.mode() & 0o077 != 0 {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

impl Server {
    /// Binds the socket at `path`, replacing one that a dead daemon left. The caller holds the
    /// home's lock, so that no living daemon's socket is replaced.
    ///
    /// # Errors
    /// When the directory is not private to this user or the socket cannot be bound.
    pub fn bind(path: &Path, control: Arc<dyn Control>, about: About) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            private_directory(directory)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let tasks = TaskTracker::new();
        Ok(Self {
            listener,
            router: routes::router(control, about, tasks.clone()),
            tasks,
            head_timeout: HEAD_TIMEOUT,
        })
    }

    /// Changes how long a client may take to send a request's head.
    #[must_use]
    pub const fn with_head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }

    /// Answers requests until `stop` is cancelled, then lets open ones end for a moment.
    pub async fn run(self, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let permit = Arc::clone(&permits).acquire_owned();
            // Cancel-safe: a permit or connection that was not taken stays where it is.
            let (permit, stream) = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = async {
                    let permit = permit.await;
                    (permit, self.listener.accept().await)
                } => accepted,
            };
            match (permit, stream) {
                (Ok(permit), Ok((stream, _))) => {
                    let router = self.router.clone();
                    let stop = stop.clone();
                    let head_timeout = self.head_timeout;
                    connections.spawn(async move {
                        serve_connection(stream, router, head_timeout, stop).await;
                        drop(permit);
                    });
                }
                (_, Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors: wait for a connection to end, not for the next error.
                    if connections.join_next().await.is_none() {
                        tokio::task::yield_now().await;
                    }
                }
                (Err(_), Ok(_)) => break,
            }
        }
        self.tasks.close();
        let drained = async {
            while connections.join_next().await.is_some() {}
            self.tasks.wait().await;
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            connections.shutdown().await;
        }
    }
}

async fn serve_connection(
    stream: UnixStream,
    router: Router,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    let uid = match stream.peer_cred() {
        Ok(credentials) => credentials.uid(),
        Err(error) => {
            tracing::warn!(%error, "cannot tell who connected");
            return;
        }
    };
    let owner = rustix::process::geteuid().as_raw();
    if uid != owner && uid != 0 {
        tracing::warn!(uid, "another user connected; refused");
        return;
    }
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer { uid });
        async move { Ok::<_, Infallible>(answer(router.call(request).await)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    // Cancel-safe: the connection is pinned and polled again after the branch for `stop`.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

fn answer<T>(response: Result<T, Infallible>) -> T {
    match response {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
