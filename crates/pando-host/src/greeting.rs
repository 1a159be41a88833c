//! What a server in a guest says first, such as an SSH server, asked through its forward.

use std::net::Ipv4Addr;

use pando_model::host::{HostError, Patience};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::limits::{GREETING, GREETING_POLL};

/// Returns the first bytes that come from a port of the loopback; tries again until the time is up.
/// The forward takes every connection, and closes those that nobody in the guest takes; one that is
/// taken and stays silent is given up when its own time is up.
pub(crate) async fn of(
    port: u16,
    patience: Patience,
    what: impl Fn() -> String,
) -> Result<Vec<u8>, HostError> {
    let deadline = Instant::now() + patience.total;
    loop {
        let attempt = deadline.min(Instant::now() + patience.each);
        if let Ok(Ok(greeting)) = timeout_at(attempt, once(port)).await
            && !greeting.is_empty()
        {
            return Ok(greeting);
        }
        if Instant::now() + GREETING_POLL >= deadline {
            let waited_ms = u64::try_from(patience.total.as_millis()).unwrap_or(u64::MAX);
            return Err(HostError::Deadline { what: what(), waited_ms });
        }
        sleep(GREETING_POLL).await;
    }
}

async fn once(port: u16) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut bytes = vec![0; GREETING];
    let count = stream.read(&mut bytes).await?;
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn heard(port: u16, each_ms: u64, total_ms: u64) -> Result<Vec<u8>, HostError> {
        let [each, total] = [each_ms, total_ms].map(Duration::from_millis);
        of(port, Patience { each, total }, || "words".into()).await
    }

    #[tokio::test]
    async fn a_server_that_comes_late_is_heard_and_none_is_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            // Nobody in the guest takes the first connection.
            drop(listener.accept().await.unwrap());
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-Test\r\n").await.unwrap();
        });
        assert_eq!(heard(port, 20_000, 20_000).await.unwrap(), b"SSH-2.0-Test\r\n");
        server.await.unwrap();
        let none = heard(port, 20_000, 30).await;
        assert!(matches!(none, Err(HostError::Deadline { .. })), "{none:?}");
    }

    #[tokio::test]
    async fn a_connection_that_stays_silent_is_given_up_and_another_one_tried() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (silent, _) = listener.accept().await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-Test\r\n").await.unwrap();
            drop(silent);
        });
        assert_eq!(heard(port, 200, 60_000).await.unwrap(), b"SSH-2.0-Test\r\n");
        server.await.unwrap();
    }
}
