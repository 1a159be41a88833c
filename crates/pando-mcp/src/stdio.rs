//! The server on a pair of streams: the standard ones of a process that a client started, or any
//! others.

use rmcp::service::{QuitReason, ServerInitializeError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::handler::Handler;
use crate::lines::Lines;

/// Why a server ended before its client did.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client's first messages are none of this protocol's.
    #[error("no session was begun: {0}")]
    NotBegun(String),
    /// The task that serves ended by itself.
    #[error("the server ended by itself: {0}")]
    Ended(String),
}

/// Serves one client on this process's standard streams, until it closes them.
///
/// # Errors
/// When no session was begun, or a defect ended it.
pub async fn serve_stdio(handler: Handler) -> Result<(), ServeError> {
    let (reader, writer) = rmcp::transport::stdio_pipes();
    serve(handler, reader, writer).await
}

/// Serves one client until it closes its stream.
///
/// # Errors
/// When no session was begun, or a defect ended it.
pub async fn serve<R, W>(handler: Handler, reader: R, writer: W) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let closed = CancellationToken::new();
    let lines = Lines::new(reader, writer, closed.clone());
    let running = match rmcp::serve_server(handler.until(closed), lines).await {
        Ok(running) => running,
        // It went away without having asked anything: that is no error.
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(ServeError::NotBegun(error.to_string())),
    };
    match running.waiting().await {
        Ok(QuitReason::JoinError(error)) | Err(error) => Err(ServeError::Ended(error.to_string())),
        Ok(_) => Ok(()),
    }
}
