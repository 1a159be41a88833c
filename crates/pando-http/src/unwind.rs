//! A defect in the engine is an `internal` error of one call, not the end of a connection without
//! an answer.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pando_api::ApiError;
use pando_model::ErrorCode;

/// Turns a panic of the future into an error. The future is not polled again after one.
pub(crate) struct Caught<F>(Pin<Box<F>>);

impl<F> Caught<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<T, F: Future<Output = Result<T, ApiError>>> Future for Caught<F> {
    type Output = Result<T, ApiError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.0.as_mut();
        catch_unwind(AssertUnwindSafe(|| future.poll(context))).unwrap_or_else(|_| {
            Poll::Ready(Err(ApiError::new(
                ErrorCode::Internal,
                "a defect of pando ended this call; the daemon's log has the place",
            )
            .hint("pando logs")))
        })
    }
}
