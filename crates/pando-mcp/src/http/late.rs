//! Answers that take their time. The protocol's library sends a response's head with the first
//! message of its handler, so a call without progress would send nothing for as long as it waits,
//! and proxies and clients give up on what is silent. After a moment the head is sent anyway, as
//! that of a stream of events, which is kept alive until the answer is there.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Interval, interval, timeout};

use crate::limits::{HEAD_WAIT, KEEP_ALIVE};

const EVENTS: &str = "text/event-stream";

type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Returns a response at the latest after [`HEAD_WAIT`]. Dropping it, or its body, drops the
/// answer: so the library hears that the client is gone.
pub async fn respond(answering: impl Future<Output = Response> + Send + 'static) -> Response {
    let mut answering: Answering = Box::pin(answering);
    match timeout(HEAD_WAIT, answering.as_mut()).await {
        Ok(response) => response,
        Err(_) => {
            let late = Late { stage: Stage::Waiting(answering), beats: interval(KEEP_ALIVE) };
            let mut response = Response::new(Body::new(late));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENTS));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
            response
        }
    }
}

/// The body of a response whose head went ahead.
struct Late {
    stage: Stage,
    beats: Interval,
}

enum Stage {
    /// There is no answer yet.
    Waiting(Answering),
    /// The answer is a stream of events itself.
    Events(Body),
    /// The answer is one message, which becomes an event; its first part is to be written.
    Message(Body),
    /// As before; its middle is written.
    Middle(Body),
    End,
}

fn is(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.starts_with(kind))
}

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let text = |text: &'static str| Poll::Ready(Some(Ok(Frame::data(text.into()))));
        loop {
            match &mut self.stage {
                Stage::Waiting(answering) => match answering.as_mut().poll(context) {
                    Poll::Ready(response) => {
                        let (head, body) = response.into_parts();
                        self.stage = if is(&head.headers, EVENTS) {
                            Stage::Events(body)
                        } else if is(&head.headers, "application/json") {
                            Stage::Message(body)
                        } else {
                            // The server is closing: there is no message.
                            Stage::End
                        };
                    }
                    Poll::Pending => {
                        return match self.beats.poll_tick(context) {
                            Poll::Ready(_) => text(": waiting\n\n"),
                            Poll::Pending => Poll::Pending,
                        };
                    }
                },
                Stage::Message(body) => {
                    self.stage = Stage::Middle(std::mem::take(body));
                    return text("data: ");
                }
                Stage::Events(body) => {
                    return Pin::new(body).poll_frame(context).map(|frame| frame?.ok().map(Ok));
                }
                Stage::Middle(body) => {
                    return match Pin::new(body).poll_frame(context) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
                        Poll::Ready(None | Some(Err(_))) => {
                            self.stage = Stage::End;
                            text("\n\n")
                        }
                    };
                }
                Stage::End => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::oneshot;

    use super::*;

    async fn frame(body: &mut Body) -> String {
        let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn of_kind(kind: &'static str, body: &'static str) -> Response {
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_message_becomes_an_event_after_signs_of_life() {
        let (answer, answered) = oneshot::channel::<Response>();
        let response = respond(async move { answered.await.unwrap() }).await;
        assert!(is(response.headers(), EVENTS));
        let mut body = response.into_body();
        for _ in 0..5 {
            assert_eq!(frame(&mut body).await, ": waiting\n\n");
        }
        answer.send(of_kind("application/json", "{}")).unwrap();
        let mut rest = String::new();
        while let Some(Ok(part)) = body.frame().await {
            rest.push_str(std::str::from_utf8(&part.into_data().unwrap()).unwrap());
        }
        assert_eq!(rest, "data: {}\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_stream_goes_on_as_it_is() {
        let (answer, answered) = oneshot::channel::<Response>();
        let mut body = respond(async move { answered.await.unwrap() }).await.into_body();
        frame(&mut body).await;
        answer.send(of_kind(EVENTS, "data: 1\n\n")).unwrap();
        assert_eq!(frame(&mut body).await, "data: 1\n\n");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_reads_drops_the_answer() {
        let (answer, answered) = oneshot::channel::<Response>();
        let response = respond(async move { answered.await.unwrap() }).await;
        drop(response);
        assert!(answer.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_is_left_alone() {
        let response = respond(async { of_kind("application/json", "{}") }).await;
        assert!(is(response.headers(), "application/json"));
    }
}
