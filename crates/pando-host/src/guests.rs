//! Streams to and from guests: commands, files.

use std::future::pending;
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
        let patience = Duration::from_millis(spec.timeout_ms) + limits::GRACE * 2;
        let ended = match timeout(patience, converse(&mut connection, io)).await {
            Ok(Ok(frame)) => {
                self.idle.give_back(peer, connection);
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

/// Carries a command's input and output until the keeper answers; returns the answer's frame.
///
/// Input is written beside the output and not between its frames: a command may take no input before
/// its output is taken.
async fn converse(connection: &mut Connection, io: ExecIo) -> Result<Frame, HostError> {
    let ExecIo { mut input, output } = io;
    let branch = connection.branch().clone();
    let lost = |detail| HostError::KeeperLost { branch, detail };
    let Connection { reader, writer, .. } = connection;
    let feed = async {
        while let Some(next) = input.recv().await {
            // A command that is over takes no input; its end is on its way.
            if send_input(writer, next).await.is_err() {
                break;
            }
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
                Ok(None) => return Err(lost("it hung up in the middle of a command".into())),
                Err(detail) => return Err(lost(detail)),
            }
        }
    };
    // Cancel-safe: input that was not written when the command ended matters to nobody.
    tokio::select! {
        heard = hear => heard,
        () = feed => Err(HostError::Cancelled),
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

#[cfg(test)]
mod tests {
    use pando_model::guest::ExecStatus;
    use pando_wire::keeper::Answer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    /// More than a socket holds.
    const PARTS: usize = 32;

    #[tokio::test]
    async fn a_command_that_takes_no_input_before_its_output_is_taken_ends() {
        let (ours, mut keeper) = UnixStream::pair().unwrap();
        let mut connection = Connection::over(ours);
        let (input, input_end) = mpsc::channel(1);
        let (output_end, mut output) = mpsc::channel::<ExecOutput>(1);
        let part = || vec![7; MAX_DATA];
        let command = async {
            // Input is on its way before the first word is said.
            let mut first = [0; 1];
            keeper.read_exact(&mut first).await.unwrap();
            for _ in 0..PARTS {
                let frame = Frame::Data(OutputStream::Stdout, part());
                keeper.write_all(&frame.encode()).await.unwrap();
            }
            let frame = Frame::Data(OutputStream::Stdout, part()).encode().len();
            let mut rest = vec![0; PARTS * frame - 1];
            keeper.read_exact(&mut rest).await.unwrap();
            let outcome = ExecOutcome { status: ExecStatus::Exited(0), duration_us: 1 };
            let answer: Answer = Ok(Reply::Ended { outcome });
            keeper.write_all(&Frame::message(&answer).unwrap().encode()).await.unwrap();
        };
        let feed = async {
            for _ in 0..PARTS {
                input.send(ExecInput::Data(part())).await.unwrap();
            }
            input.closed().await;
        };
        let take = async {
            let mut taken = 0;
            while let Some(chunk) = output.recv().await {
                taken += chunk.bytes.len();
            }
            taken
        };
        let io = ExecIo { input: input_end, output: output_end };
        let all = async { tokio::join!(converse(&mut connection, io), command, feed, take) };
        let all = timeout(Duration::from_secs(20), all).await;
        let (heard, (), (), taken) = all.expect("nobody waits for one who waits for him");
        assert!(matches!(answer(&heard.unwrap()).unwrap(), Reply::Ended { .. }));
        assert_eq!(taken, PARTS * MAX_DATA);
        assert!(connection.is_idle());
    }

    #[tokio::test]
    async fn a_connection_amid_a_frame_of_input_takes_no_other_request() {
        let (ours, mut keeper) = UnixStream::pair().unwrap();
        let mut connection = Connection::over(ours);
        let (input, input_end) = mpsc::channel(PARTS);
        let (output_end, _output) = mpsc::channel(1);
        for _ in 0..PARTS {
            input.send(ExecInput::Data(vec![7; MAX_DATA])).await.unwrap();
        }
        let command = async {
            // The socket is full when the command ends.
            let mut first = [0; 1];
            keeper.read_exact(&mut first).await.unwrap();
            let refused: Answer = Err(HostError::Cancelled);
            keeper.write_all(&Frame::message(&refused).unwrap().encode()).await.unwrap();
        };
        let io = ExecIo { input: input_end, output: output_end };
        let (heard, ()) = tokio::join!(converse(&mut connection, io), command);
        assert!(answer(&heard.unwrap()).is_err());
        assert!(!connection.is_idle());
    }
}
