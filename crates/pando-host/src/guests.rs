//! Streams to and from guests: commands, files.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pando_driver::host::{ExecInput, ExecIo, ExecOutput, HostError};
use pando_model::guest::{ExecOutcome, ExecSpec, FileFacts, OutputStream, PushSpec};
use pando_model::{BranchId, Name};
use pando_wire::keeper::{Control, Frame, MAX_DATA, Reply, Request};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::client::{Connection, FrameWriter, unexpected};
use crate::{LocalHost, limits};

impl LocalHost {
    pub(crate) async fn exec_in(
        &self,
        branch: &BranchId,
        node: &Name,
        spec: &ExecSpec,
        io: ExecIo,
    ) -> Result<ExecOutcome, HostError> {
        let (peer, mut connection) = self.borrow(branch).await?;
        connection.send(&Request::Exec { node: node.clone(), spec: spec.clone() }).await?;
        let ExecIo { mut input, output } = io;
        let Connection { reader, writer, .. } = &mut connection;
        let patience = Duration::from_millis(spec.timeout_ms) + limits::GRACE * 2;
        // Whether a frame of input may have been written in part.
        let amid_input = AtomicBool::new(false);
        // Beside the output and not between its frames: a command that waits for its output to be
        // taken takes no input.
        let feed = async {
            while let Some(next) = input.recv().await {
                amid_input.store(true, Ordering::Relaxed);
                // A command that is over takes no input; its end is on its way.
                if send_input(writer, next).await.is_err() {
                    break;
                }
                amid_input.store(false, Ordering::Relaxed);
            }
            pending::<()>().await;
        };
        let hear = async {
            loop {
                // Cancel-safe, both: see `next`; `closed` of a channel is.
                let frame = tokio::select! {
                    frame = reader.next() => frame,
                    () = output.closed() => return Err(HostError::Cancelled),
                };
                match frame {
                    Ok(Some(Frame::Data(stream, bytes))) => {
                        if output.send(ExecOutput { stream, bytes }).await.is_err() {
                            return Err(HostError::Cancelled);
                        }
                    }
                    Ok(Some(frame)) => return Ok(frame),
                    Ok(None) => {
                        return Err(HostError::KeeperLost {
                            branch: branch.clone(),
                            detail: "it hung up in the middle of a command".into(),
                        });
                    }
                    Err(detail) => {
                        return Err(HostError::KeeperLost { branch: branch.clone(), detail });
                    }
                }
            }
        };
        // Cancel-safe: input that was not written when the command ended matters to nobody, and the
        // connection is closed if it may be amid a frame.
        let run = async {
            tokio::select! {
                heard = hear => heard,
                () = feed => Err(HostError::Cancelled),
            }
        };
        let ended = match timeout(patience, run).await {
            Ok(Ok(frame)) => {
                if !amid_input.load(Ordering::Relaxed) {
                    self.idle.give_back(peer, connection);
                }
                answer(&frame)
            }
            // The connection is closed with this call, which ends the command.
            Ok(Err(error)) => Err(error),
            Err(_) => Err(HostError::Deadline {
                what: "the command".into(),
                waited_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
            }),
        };
        match ended? {
            Reply::Ended { outcome } => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn push_to(
        &self,
        branch: &BranchId,
        node: &Name,
        spec: &PushSpec,
        mut chunks: mpsc::Receiver<Vec<u8>>,
    ) -> Result<FileFacts, HostError> {
        let mut connection = self.connect(branch).await?;
        connection.send(&Request::Push { node: node.clone(), spec: spec.clone() }).await?;
        let (mut reader, mut writer) = (connection.reader, connection.writer);
        let feed = async {
            while let Some(chunk) = chunks.recv().await {
                for part in chunk.chunks(MAX_DATA) {
                    let frame = Frame::Data(OutputStream::Stdout, part.to_vec());
                    if writer.send(&frame).await.is_err() {
                        return;
                    }
                }
            }
            let _ = writer.message(&Control::Eof).await;
        };
        let hear = async { reader.next().await };
        let (frame, ()) = {
            tokio::pin!(feed, hear);
            tokio::select! {
                // An early answer is a refusal: what is left need not be sent.
                frame = &mut hear => (frame, ()),
                () = &mut feed => (hear.await, ()),
            }
        };
        match frame {
            Ok(Some(frame)) => match answer(&frame)? {
                Reply::File { facts } => Ok(facts),
                other => Err(unexpected(&other)),
            },
            _ => Err(HostError::KeeperLost {
                branch: branch.clone(),
                detail: "it hung up in the middle of a file".into(),
            }),
        }
    }

    pub(crate) async fn pull_from(
        &self,
        branch: &BranchId,
        node: &Name,
        path: &str,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> Result<FileFacts, HostError> {
        let mut connection = self.connect(branch).await?;
        let request = Request::Pull { node: node.clone(), path: path.to_owned() };
        connection.send(&request).await?;
        loop {
            match connection.reader.next().await {
                Ok(Some(Frame::Data(_, bytes))) => {
                    if chunks.send(bytes).await.is_err() {
                        return Err(HostError::Cancelled);
                    }
                }
                Ok(Some(frame)) => match answer(&frame)? {
                    Reply::File { facts } => return Ok(facts),
                    other => return Err(unexpected(&other)),
                },
                Ok(None) => return Err(connection.lost("it hung up in the middle of a file")),
                Err(detail) => return Err(connection.lost(detail)),
            }
        }
    }
}

fn answer(frame: &Frame) -> Result<Reply, HostError> {
    frame
        .parse::<pando_wire::keeper::Answer>()
        .map_err(|error| HostError::Protocol { detail: error.to_string() })?
}

async fn send_input(writer: &mut FrameWriter, input: ExecInput) -> Result<(), String> {
    match input {
        ExecInput::Data(bytes) => {
            for part in bytes.chunks(MAX_DATA) {
                writer.send(&Frame::Data(OutputStream::Stdout, part.to_vec())).await?;
            }
            Ok(())
        }
        ExecInput::Eof => writer.message(&Control::Eof).await,
        ExecInput::Signal(signal) => writer.message(&Control::Signal { signal }).await,
        ExecInput::Resize(size) => writer.message(&Control::Resize { size }).await,
    }
}
