//! A defect in one request is an error of that request, and not the end of a session without an
//! answer.
//!
//! The work stays in the task of its request: the protocol's library knows by the task which
//! request a question to the client belongs to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Turns a panic of a future into `None`. The future is not polled again after one.
pub struct Caught<F>(Pin<Box<F>>);

impl<F> Caught<F> {
    /// Returns the future that catches the panics of another.
    pub fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.0.as_mut();
        match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(state) => state.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}
