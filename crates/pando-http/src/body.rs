//! A response body that is fed through a bounded channel: a slow reader slows the writer down.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

/// Ends when the sender is dropped.
pub(crate) struct ChannelBody<T> {
    chunks: mpsc::Receiver<T>,
}

impl<T> ChannelBody<T> {
    pub(crate) fn new(chunks: mpsc::Receiver<T>) -> Self {
        Self { chunks }
    }
}

impl<T: Into<Bytes>> http_body::Body for ChannelBody<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.chunks.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk.into()))))
    }
}
