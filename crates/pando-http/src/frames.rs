//! Frames of an upgraded connection: one byte of kind, four of length (big endian), the payload.
//! The decoder is total and holds at most one frame.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pando_api::ApiError;
use pando_model::guest::{ExecInput, ExecOutcome, FileFacts, OutputStream, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::MAX_FRAME_BYTES;

const HEAD_BYTES: usize = 5;
const READ_BYTES: usize = 16 * 1024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// What the client sends to the command.
    Input(ExecInput),
    /// A piece of output, or of a file.
    Output(OutputStream, Bytes),
    /// How the command ended; the last frame.
    Exit(ExecOutcome),
    /// The file that was sent; the last frame.
    File(FileFacts),
    /// Why not; the last frame.
    Error(ApiError),
}

/// Why bytes are not frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// No frame has this kind.
    #[error("frame kind {0} is unknown")]
    Kind(u8),
    /// The payload does not fit its kind.
    #[error("the payload of a frame of kind {kind} is malformed")]
    Payload {
        /// The kind.
        kind: u8,
    },
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

mod kind {
    pub(super) const STDIN: u8 = 0;
    pub(super) const EOF: u8 = 1;
    pub(super) const SIGNAL: u8 = 2;
    pub(super) const RESIZE: u8 = 3;
    pub(super) const STDOUT: u8 = 16;
    pub(super) const STDERR: u8 = 17;
    pub(super) const EXIT: u8 = 18;
    pub(super) const FILE: u8 = 19;
    pub(super) const ERROR: u8 = 20;
}

impl Frame {
    /// Appends the frame to `out`; data longer than a frame becomes several.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Input(ExecInput::Data(bytes)) => put_data(out, kind::STDIN, bytes),
            Self::Input(ExecInput::Eof) => put(out, kind::EOF, &[]),
            Self::Input(ExecInput::Signal(signal)) => {
                put(out, kind::SIGNAL, &signal.to_be_bytes());
            }
            Self::Input(ExecInput::Resize(TerminalSize { columns, rows })) => {
                let [a, b] = columns.to_be_bytes();
                let [c, d] = rows.to_be_bytes();
                put(out, kind::RESIZE, &[a, b, c, d]);
            }
            Self::Output(OutputStream::Stdout, bytes) => put_data(out, kind::STDOUT, bytes),
            Self::Output(OutputStream::Stderr, bytes) => put_data(out, kind::STDERR, bytes),
            Self::Exit(outcome) => put_json(out, kind::EXIT, outcome),
            Self::File(facts) => put_json(out, kind::FILE, facts),
            Self::Error(error) => put_json(out, kind::ERROR, error),
        }
    }

    /// Returns the frame as bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }

    fn decode(kind: u8, payload: Bytes) -> Result<Self, FrameError> {
        let malformed = || FrameError::Payload { kind };
        Ok(match kind {
            kind::STDIN => Self::Input(ExecInput::Data(payload.to_vec())),
            kind::EOF if payload.is_empty() => Self::Input(ExecInput::Eof),
            kind::SIGNAL => {
                let bytes = <[u8; 4]>::try_from(payload.as_ref()).map_err(|_| malformed())?;
                Self::Input(ExecInput::Signal(i32::from_be_bytes(bytes)))
            }
            kind::RESIZE => {
                let [a, b, c, d] =
                    <[u8; 4]>::try_from(payload.as_ref()).map_err(|_| malformed())?;
                let columns = u16::from_be_bytes([a, b]);
                let rows = u16::from_be_bytes([c, d]);
                Self::Input(ExecInput::Resize(TerminalSize { columns, rows }))
            }
            kind::STDOUT => Self::Output(OutputStream::Stdout, payload),
            kind::STDERR => Self::Output(OutputStream::Stderr, payload),
            kind::EXIT => Self::Exit(serde_json::from_slice(&payload).map_err(|_| malformed())?),
            kind::FILE => Self::File(serde_json::from_slice(&payload).map_err(|_| malformed())?),
            kind::ERROR => Self::Error(serde_json::from_slice(&payload).map_err(|_| malformed())?),
            kind::EOF => return Err(malformed()),
            other => return Err(FrameError::Kind(other)),
        })
    }
}

fn put(out: &mut BytesMut, kind: u8, payload: &[u8]) {
    out.put_u8(kind);
    #[expect(clippy::cast_possible_truncation, reason = "payloads are at most MAX_FRAME_BYTES")]
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
}

fn put_data(out: &mut BytesMut, kind: u8, bytes: &[u8]) {
    for chunk in bytes.chunks(MAX_FRAME_BYTES) {
        put(out, kind, chunk);
    }
}

fn put_json(out: &mut BytesMut, kind: u8, value: &impl serde::Serialize) {
    let text = serde_json::to_vec(value).unwrap_or_default();
    // An error's texts are bounded where they are made; one that is not would end the stream.
    let text = if text.len() <= MAX_FRAME_BYTES { text } else { Vec::new() };
    put(out, kind, &text);
}

/// Bytes in, frames out.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes that were received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// The first malformed frame; the stream cannot be read on from there.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        let payload = self.buffer.split_to(length).freeze();
        Frame::decode(kind, payload).map(Some)
    }

    /// Returns whether a frame has begun and not ended.
    pub fn is_inside_frame(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// Reads frames from a connection.
pub(crate) struct FrameReader<R> {
    reader: R,
    decoder: Decoder,
    chunk: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Returns a reader of `reader`'s frames.
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, decoder: Decoder::default(), chunk: vec![0; READ_BYTES] }
    }

    /// Adds bytes that were received before this reader existed.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// Returns the connection.
    pub(crate) fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Returns the next frame, or `None` at the connection's orderly end.
    ///
    /// # Cancel safety
    /// Cancel-safe: bytes that were read are in the decoder.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            let count = self.reader.read(&mut self.chunk).await?;
            if count == 0 {
                let ended_well = !self.decoder.is_inside_frame();
                return if ended_well { Ok(None) } else { Err(FrameError::Truncated) };
            }
            self.decoder.push(self.chunk.get(..count).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pando_model::ErrorCode;
    use pando_model::guest::ExecStatus;
    use proptest::prelude::*;

    fn all(decoder: &mut Decoder) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let bytes = || prop::collection::vec(any::<u8>(), 1..200);
        prop_oneof![
            bytes().prop_map(|bytes| Frame::Input(ExecInput::Data(bytes))),
            Just(Frame::Input(ExecInput::Eof)),
            any::<i32>().prop_map(|signal| Frame::Input(ExecInput::Signal(signal))),
            any::<(u16, u16)>().prop_map(|(columns, rows)| Frame::Input(ExecInput::Resize(
                TerminalSize { columns, rows }
            ))),
            bytes().prop_map(|bytes| Frame::Output(OutputStream::Stdout, bytes.into())),
            bytes().prop_map(|bytes| Frame::Output(OutputStream::Stderr, bytes.into())),
            (any::<i32>(), any::<u64>()).prop_map(|(code, duration_us)| Frame::Exit(ExecOutcome {
                status: ExecStatus::Exited(code),
                duration_us
            })),
            ".{0,40}".prop_map(|text| Frame::Error(ApiError::new(ErrorCode::NotFound, text))),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(frames in prop::collection::vec(any_frame(), 1..8), step in 1usize..40) {
            let mut wire = BytesMut::new();
            frames.iter().for_each(|frame| frame.encode(&mut wire));
            let mut decoder = Decoder::default();
            let mut received = Vec::new();
            for chunk in wire.chunks(step) {
                decoder.push(chunk);
                received.extend(all(&mut decoder).unwrap());
            }
            prop_assert_eq!(received, frames);
            prop_assert!(!decoder.is_inside_frame());
        }

        #[test]
        fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            let _ = all(&mut decoder);
        }
    }

    #[test]
    fn long_data_becomes_several_frames_and_long_frames_are_refused() {
        let data = vec![7; MAX_FRAME_BYTES + 1];
        let mut decoder = Decoder::default();
        decoder.push(&Frame::Output(OutputStream::Stdout, data.into()).to_bytes());
        assert_eq!(all(&mut decoder).unwrap().len(), 2);

        decoder.push(&[kind::STDOUT, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong(_))));
    }
}
