//! The sending half of an upgraded connection, in a form that can be dropped in the middle of a
//! write and gone on with: what was not written yet stays in the buffer.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::frames::Frame;

/// The protocol's name in the `Upgrade` header.
pub(crate) const PROTOCOL: &str = "pando-attach/1";

/// Sends frames.
pub(crate) struct FrameWriter<W> {
    writer: W,
    pending: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self { writer, pending: BytesMut::new() }
    }

    /// Adds a frame to what is to be sent.
    pub(crate) fn queue(&mut self, frame: &Frame) {
        frame.encode(&mut self.pending);
    }

    /// Sends all that was queued. Cancel-safe: goes on where it was when called again.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            if self.writer.write_buf(&mut self.pending).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.writer.flush().await
    }

    /// Sends all that was queued and says that nothing follows.
    pub(crate) async fn finish(mut self) -> io::Result<()> {
        self.flush().await?;
        self.writer.shutdown().await
    }
}
