//! The daemon's listeners, a private unix socket and loopback TCP: one task a connection, drained
//! when the daemon stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use pando_api::{ApiError, Control};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::door::{Door, Lock, OnRefused, challenge};
use crate::limits::{DRAIN_TIMEOUT, HEAD_TIMEOUT, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_HEADERS};
use crate::request::Peer;
use crate::routes;
use crate::stream::Stream;

/// What the daemon says of itself without asking the engine.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct About {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its home directory.
    pub home: String,
    /// Where it listens on TCP, if it does: `http://127.0.0.1:7717`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A port of this host's loopback that nobody else has.
#[derive(Debug)]
pub struct Loopback {
    listener: TcpListener,
    address: SocketAddr,
}

impl Loopback {
    /// Binds it; port 0 is any free one.
    ///
    /// # Errors
    /// When the address is another than loopback, or the port is taken.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let message = "only loopback is served without TLS, which is not there yet";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Returns its URL, with the port that it really has.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener, Arc<Door>),
}

/// A connection, and who made it.
enum Accepted {
    Unix(UnixStream),
    Tcp(Stream, SocketAddr, Arc<Door>),
}

impl Listener {
    /// Cancel-safe: a connection that is not taken stays in the kernel.
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Accepted::Unix(stream))
            }
            Self::Tcp(listener, door) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are written whole: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                Ok(Accepted::Tcp(Stream::Tcp(stream), peer, Arc::clone(door)))
            }
        }
    }
}

/// Serves a [`Control`] on one listener.
pub struct Server {
    listener: Listener,
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
        Ok(Self::new(Listener::Unix(listener), control, about))
    }

    /// Serves the port: to whoever opens `lock`. `on_refused` is told who did not, not more often
    /// than is good for a log.
    pub fn on_loopback(
        port: Loopback,
        lock: Lock,
        on_refused: OnRefused,
        control: Arc<dyn Control>,
        about: About,
    ) -> Self {
        let door = Door::new(port.address.port(), lock, on_refused);
        Self::new(Listener::Tcp(port.listener, Arc::new(door)), control, about)
    }

    fn new(listener: Listener, control: Arc<dyn Control>, about: About) -> Self {
        let tasks = TaskTracker::new();
        let router = routes::router(control, about, tasks.clone());
        Self { listener, router, tasks, head_timeout: HEAD_TIMEOUT }
    }

    /// Serves these routes, at least one, as well. Each of their requests carries its
    /// [`pando_api::Caller`] as an extension.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.router = self.router.merge(routes.route_layer(from_fn(identified)));
        self
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
                (Ok(permit), Ok(accepted)) => {
                    let router = self.router.clone();
                    let stop = stop.clone();
                    let head_timeout = self.head_timeout;
                    connections.spawn(async move {
                        serve_connection(accepted, router, head_timeout, stop).await;
                        drop(permit);
                    });
                }
                (_, Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors: wait for a connection to end, not for the next
                    // error.
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

/// Returns the user who connected to the socket, if it may.
fn admitted(stream: &UnixStream) -> Option<u32> {
    let uid = match stream.peer_cred() {
        Ok(credentials) => credentials.uid(),
        Err(error) => {
            tracing::warn!(%error, "cannot tell who connected");
            return None;
        }
    };
    let owner = rustix::process::geteuid().as_raw();
    if uid != owner && uid != 0 {
        tracing::warn!(uid, "another user connected; refused");
        return None;
    }
    Some(uid)
}

async fn serve_connection(
    accepted: Accepted,
    router: Router,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    let (stream, peer, door) = match accepted {
        Accepted::Unix(stream) => {
            let Some(uid) = admitted(&stream) else { return };
            (Stream::Unix(stream), Peer::Local { uid }, None)
        }
        Accepted::Tcp(stream, address, door) => {
            let uid = rustix::process::geteuid().as_raw();
            (stream, Peer::Tcp { uid, address }, Some((address, door)))
        }
    };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        let (head, body) = request.into_parts();
        let refused = door.as_ref().and_then(|(peer, door)| door.admit(*peer, &head).err());
        let mut request = Request::from_parts(head, Body::new(body));
        request.extensions_mut().insert(peer);
        async move {
            Ok::<_, Infallible>(match refused {
                Some(error) => refusal(error),
                None => answer(router.call(request).await),
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
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

/// Answers a request that was not let in.
fn refusal(error: ApiError) -> Response {
    let challenge = challenge(&error);
    let mut response = routes::respond(None, StatusCode::OK, Err(error));
    response.headers_mut().extend(challenge);
    response
}

/// Lets routes that are not ours know who calls.
async fn identified(mut request: Request, next: Next) -> Response {
    match routes::identify(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => routes::respond(None, StatusCode::OK, Err(error)),
    }
}

fn answer<T>(response: Result<T, Infallible>) -> T {
    match response {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
