//! Connections to the daemon: opened when needed, kept for the next call, and a daemon started
//! where none listens.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pando_api::ApiError;
use pando_model::ErrorCode;
use tokio::net::{TcpStream, UnixStream};

use crate::client::Launch;
use crate::limits::{CONNECT_TIMEOUT, IDLE_CONNECTIONS};
use crate::stream::Stream;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why a request has no answer.
pub(super) enum Lost {
    /// The daemon never saw it.
    Unsent,
    /// The daemon may have seen it.
    InFlight,
    /// There is no daemon, and none can be started.
    Refused(ApiError),
}

/// Where the daemon is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// At a socket.
    Socket(PathBuf),
    /// At a port of this host's loopback, behind a token.
    Port { address: SocketAddr, token: Option<String> },
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(formatter),
            Self::Port { address, .. } => write!(formatter, "http://{address}"),
        }
    }
}

pub(super) struct Connections {
    place: Place,
    launcher: Option<Arc<dyn Launch>>,
    /// Held for a push or a pop only.
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl Connections {
    pub(super) fn new(place: Place, launcher: Option<Arc<dyn Launch>>) -> Self {
        Self { place, launcher, idle: Mutex::new(Vec::new()) }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Sends one request and returns its answer's head. The connection is kept for the next one.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Lost> {
        let mut sender = match self.take_idle() {
            Some(sender) => sender,
            None => self.connect().await.map_err(Lost::Refused)?,
        };
        if sender.ready().await.is_err() {
            return Err(Lost::Unsent);
        }
        match sender.send_request(request).await {
            Ok(response) => {
                self.keep(sender);
                Ok(response)
            }
            Err(error) if error.is_canceled() => Err(Lost::Unsent),
            Err(_) => Err(Lost::InFlight),
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Body>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(sender);
        }
    }

    /// Opens a connection, starting a daemon first where none listens.
    pub(super) async fn connect(&self) -> Result<SendRequest<Body>, ApiError> {
        let stream = match self.open().await {
            Ok(stream) => stream,
            Err(error) => {
                let absent = matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                );
                match &self.launcher {
                    Some(launcher) if absent => launcher.launch().await?,
                    _ => return Err(self.unreachable(&error)),
                }
                self.open().await.map_err(|error| self.unreachable(&error))?
            }
        };
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        // Ends with its sender, which this client drops with itself.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "the connection to the daemon ended");
            }
        });
        Ok(sender)
    }

    async fn open(&self) -> io::Result<Stream> {
        let connect = async {
            match &self.place {
                Place::Socket(path) => UnixStream::connect(path).await.map(Stream::Unix),
                Place::Port { address, .. } => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    // Else the end of a client whose command reads no input stays behind what was
                    // not read, and the command goes on.
                    stream.set_zero_linger()?;
                    Ok(Stream::Tcp(stream))
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> ApiError {
        ApiError::new(
            ErrorCode::DaemonUnreachable,
            format!("no daemon answers at {}: {error}", self.place),
        )
        .hint(match self.place {
            Place::Socket(_) => "pando daemon start",
            Place::Port { .. } => "pando daemon status",
        })
    }
}
