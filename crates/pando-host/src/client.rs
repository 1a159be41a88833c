//! One connection to a keeper: the handshake, requests and answers, streams.

use std::time::Duration;

use pando_model::host::HostError;
use pando_model::{BranchId, Layout};
use pando_wire::keeper::{Answer, Frame, Hello, KeeperWireError, PROTOCOL, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::limits;

/// Who is expected on the other side.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The branch.
    pub branch: BranchId,
    /// Its incarnation's secret.
    pub token: String,
}

/// A connection whose handshake was made.
pub struct Connection {
    branch: BranchId,
    /// The incarnation that answered.
    pub generation: u64,
    pub reader: FrameReader,
    pub writer: FrameWriter,
}

/// Reads frames.
pub struct FrameReader(OwnedReadHalf);

/// Writes frames.
pub struct FrameWriter(OwnedWriteHalf);

impl FrameReader {
    /// Reads the next frame; `None` when the keeper hung up. Not cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Frame>, String> {
        let mut prefix = [0; 4];
        match self.0.read_exact(&mut prefix).await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.to_string()),
            Ok(_) => {}
        }
        let length = Frame::body_length(prefix).map_err(|e| e.to_string())?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.map_err(|e| e.to_string())?;
        Frame::from_body(body).map(Some).map_err(|e| e.to_string())
    }
}

impl FrameWriter {
    /// Writes a frame.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), String> {
        self.0.write_all(&frame.encode()).await.map_err(|e| e.to_string())
    }

    /// Writes a message.
    pub async fn message<T: serde::Serialize>(&mut self, message: &T) -> Result<(), String> {
        let frame = Frame::message(message).map_err(|e: KeeperWireError| e.to_string())?;
        self.send(&frame).await
    }
}

impl Connection {
    /// Connects to a branch's keeper and makes sure that it is the one.
    ///
    /// # Errors
    /// [`HostError::KeeperLost`]: nobody listens, or it is another branch's or incarnation's.
    pub async fn open(layout: &Layout, peer: &Peer) -> Result<Self, HostError> {
        let lost = |detail: String| HostError::KeeperLost { branch: peer.branch.clone(), detail };
        let shake_hands = async {
            let path = layout.keeper_socket(&peer.branch);
            let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
            let (reader, writer) = stream.into_split();
            let (mut reader, mut writer) = (FrameReader(reader), FrameWriter(writer));
            let hello = Hello {
                protocol: PROTOCOL,
                branch: peer.branch.clone(),
                token: peer.token.clone(),
                generation: 0,
            };
            writer.message(&hello).await?;
            let frame = reader.next().await?.ok_or("it hung up at the handshake")?;
            let theirs: Hello = frame.parse().map_err(|e| e.to_string())?;
            if theirs.branch != peer.branch || theirs.token != peer.token {
                return Err("it is not the keeper of this branch".to_owned());
            }
            Ok((theirs.generation, reader, writer))
        };
        match timeout(limits::ANSWER, shake_hands).await {
            Ok(Ok((generation, reader, writer))) => {
                Ok(Self { branch: peer.branch.clone(), generation, reader, writer })
            }
            Ok(Err(detail)) => Err(lost(detail)),
            Err(_) => Err(lost("it does not shake hands".into())),
        }
    }

    /// Returns the error of a keeper that does not answer as it should.
    pub fn lost(&self, detail: impl Into<String>) -> HostError {
        HostError::KeeperLost { branch: self.branch.clone(), detail: detail.into() }
    }

    /// Sends a request.
    pub async fn send(&mut self, request: &Request) -> Result<(), HostError> {
        match self.writer.message(request).await {
            Ok(()) => Ok(()),
            Err(detail) => Err(self.lost(detail)),
        }
    }

    /// Sends a request and waits for its answer.
    pub async fn ask(&mut self, request: &Request, wait: Duration) -> Result<Reply, HostError> {
        self.send(request).await?;
        match timeout(wait, self.reader.next()).await {
            Ok(Ok(Some(frame))) => self.answer(&frame),
            Ok(Ok(None)) => Err(self.lost("it ended in the middle of a request")),
            Ok(Err(detail)) => Err(self.lost(detail)),
            Err(_) => Err(self.lost(format!("no answer within {} s", wait.as_secs()))),
        }
    }

    /// Returns what a frame answers.
    pub fn answer(&self, frame: &Frame) -> Result<Reply, HostError> {
        match frame.parse::<Answer>() {
            Ok(answer) => answer,
            Err(error) => Err(HostError::Protocol { detail: error.to_string() }),
        }
    }

    /// Waits until the keeper hangs up: its process has ended, or soon will.
    pub async fn wait_hangup(mut self) {
        while let Ok(Some(_)) = self.reader.next().await {}
    }
}

/// Returns the error of an answer that does not belong to its request.
pub fn unexpected(reply: &Reply) -> HostError {
    HostError::Protocol { detail: format!("the answer does not fit the request: {reply:?}") }
}
