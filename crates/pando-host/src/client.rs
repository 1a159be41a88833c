//! One connection to a keeper: the handshake, requests and answers, streams.

use std::time::Duration;

use pando_model::host::HostError;
use pando_model::{BranchId, Layout};
use pando_wire::keeper::{Answer, Frame, Hello, KeeperWireError, PROTOCOL, Reply, Request};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::limits;

/// Bytes in front of a frame that say how long it is.
const PREFIX: usize = 4;
/// Bytes that are read at once where a frame needs fewer: several small frames in one call.
const READ_AHEAD: usize = 4 << 10;

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
pub struct FrameReader {
    socket: OwnedReadHalf,
    /// What was read and is no whole frame yet.
    buffered: Vec<u8>,
}

/// Writes frames.
pub struct FrameWriter {
    socket: OwnedWriteHalf,
    /// Whether a frame was begun and not ended, by a call that was dropped or failed.
    amid_frame: bool,
}

impl FrameReader {
    const fn new(socket: OwnedReadHalf) -> Self {
        Self { socket, buffered: Vec::new() }
    }

    /// Reads the next frame; `None` when the keeper hung up.
    ///
    /// # Cancel safety
    /// What was read of a frame when the call is dropped is kept for the next one.
    pub async fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            let (frame, wanted) = self.whole_frame()?;
            if frame.is_some() {
                return Ok(frame);
            }
            self.buffered.reserve(wanted);
            let count = self.socket.read_buf(&mut self.buffered).await;
            if count.map_err(|error| error.to_string())? == 0 {
                return match self.buffered.is_empty() {
                    true => Ok(None),
                    false => Err("it hung up in the middle of a frame".to_owned()),
                };
            }
        }
    }

    /// Takes a frame out of the buffer, or says how many bytes are missing at least.
    fn whole_frame(&mut self) -> Result<(Option<Frame>, usize), String> {
        let Some((prefix, rest)) = self.buffered.split_first_chunk::<PREFIX>() else {
            return Ok((None, READ_AHEAD));
        };
        let length = Frame::body_length(*prefix).map_err(|error| error.to_string())?;
        let Some(body) = rest.get(..length) else {
            return Ok((None, READ_AHEAD.max(length - rest.len())));
        };
        let frame = Frame::from_body(body.to_vec()).map_err(|error| error.to_string())?;
        self.buffered.drain(..PREFIX + length);
        Ok((Some(frame), 0))
    }

    /// Returns whether the keeper has said nothing that was not read, and has not hung up.
    fn is_quiet(&self) -> bool {
        let (socket, mut one) = (self.socket.as_ref(), [0]);
        let peeked = recv(socket, &mut one, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        self.buffered.is_empty() && peeked.is_err_and(|error| error == Errno::AGAIN)
    }
}

impl FrameWriter {
    const fn new(socket: OwnedWriteHalf) -> Self {
        Self { socket, amid_frame: false }
    }

    /// Writes a frame.
    ///
    /// # Cancel safety
    /// A call that is dropped may leave a part of the frame written; such a connection takes no
    /// other request ([`Connection::is_idle`]).
    pub async fn send(&mut self, frame: &Frame) -> Result<(), String> {
        self.amid_frame = true;
        self.socket.write_all(&frame.encode()).await.map_err(|e| e.to_string())?;
        self.amid_frame = false;
        Ok(())
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
            let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
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

    /// Returns the branch whose keeper is at the other end.
    pub fn branch(&self) -> &BranchId {
        &self.branch
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

    /// Returns whether another request may be sent: the keeper is there and owes no answer, and we
    /// owe it no rest of a frame.
    pub fn is_idle(&self) -> bool {
        self.reader.is_quiet() && !self.writer.amid_frame
    }

    /// Returns a connection whose other end the test has.
    #[cfg(test)]
    pub fn over(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            branch: BranchId::random(),
            generation: 1,
            reader: FrameReader::new(reader),
            writer: FrameWriter::new(writer),
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
