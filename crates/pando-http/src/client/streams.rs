//! The client's ends of streams: events, an attached command, files.

use std::future::pending;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pando_api::{
    ApiError, AttachIo, AttachRequest, Caller, OperationView, PullRequest, PushRequest,
};
use pando_model::guest::{ExecInput, ExecOutcome, ExecOutput, FileFacts};
use pando_model::{ErrorCode, OperationId};
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, watch};

use crate::body::ChannelBody;
use crate::client::connection::{Body, Lost};
use crate::client::{Client, Head, Repeat, decoded, envelope, lost};
use crate::frames::{Decoder, Frame, FrameError, FrameReader};
use crate::limits::{MAX_EVENT_BYTES, RECONNECT_TIMEOUT};
use crate::pipe::{FrameWriter, PROTOCOL};
use crate::streams::FRAMES;

/// Pause before a daemon that went away is looked for again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

fn broken(error: &FrameError) -> ApiError {
    ApiError::new(
        ErrorCode::DaemonUnreachable,
        format!("the stream from the daemon broke: {error}"),
    )
    .hint("pando daemon status")
}

/// Reads JSON lines from a body.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// Returns the next line, or `None` when the stream has ended or broken.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Some(self.buffer.split_to(end + 1).freeze());
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                return None;
            }
            let data = self.body.frame().await?.ok()?.into_data().ok()?;
            self.buffer.extend_from_slice(&data);
        }
    }
}

async fn open_events(
    client: &Client,
    caller: &Caller,
    operation: &OperationId,
) -> Result<Lines, ApiError> {
    let head = Head::get(format!("/v1/operations/{operation}/events"), caller);
    let response = client.request(&head, Bytes::new(), Repeat::Safe).await?;
    if response.status() != StatusCode::OK {
        return Err(unexpected(response).await);
    }
    Ok(Lines { body: response.into_body(), buffer: BytesMut::new() })
}

/// Returns the error that an answer other than a stream carries.
async fn unexpected(response: Response<Incoming>) -> ApiError {
    match envelope(response).await {
        Err(error) => error,
        Ok(_) => lost("a stream"),
    }
}

pub(super) async fn watch(
    client: Client,
    caller: Caller,
    operation: OperationId,
) -> Result<watch::Receiver<OperationView>, ApiError> {
    let mut lines = open_events(&client, &caller, &operation).await?;
    let first = lines.next().await.ok_or_else(|| lost("an operation's events"))?;
    let (sender, receiver) = watch::channel(view(&first)?);
    // Ends with the operation, with its last receiver, or when no daemon can be found.
    tokio::spawn(async move {
        let mut lost_at = None;
        while !sender.borrow().status.is_final() {
            // Cancel-safe: when nobody listens any more, a lost line does not matter.
            let line = tokio::select! {
                line = lines.next() => line,
                () = sender.closed() => return,
            };
            if let Some(Ok(view)) = line.as_deref().map(view) {
                lost_at = None;
                sender.send_replace(view);
                continue;
            }
            let since = *lost_at.get_or_insert_with(Instant::now);
            if since.elapsed() > RECONNECT_TIMEOUT {
                return;
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
            match open_events(&client, &caller, &operation).await {
                Ok(opened) => lines = opened,
                Err(error) if error.code == ErrorCode::DaemonUnreachable => {}
                Err(_) => return,
            }
        }
    });
    Ok(receiver)
}

fn view(line: &[u8]) -> Result<OperationView, ApiError> {
    decoded(serde_json::from_slice(line).unwrap_or_default())
}

pub(super) async fn attach(
    client: &Client,
    caller: &Caller,
    request: &AttachRequest,
    io: AttachIo,
) -> Result<ExecOutcome, ApiError> {
    let body = serde_json::to_vec(request)
        .map_err(|source| ApiError::new(ErrorCode::Internal, source.to_string()))?;
    let head = Head::post("/v1/attach".to_owned(), caller, None);
    let mut message = client.message(&head, Body::new(Full::new(body.into())))?;
    let headers = message.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    let mut sender = client.connections.connect().await?;
    let response = sender.send_request(message).await.map_err(|_| lost("attach"))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(unexpected(response).await);
    }
    let stream = hyper::upgrade::on(response).await.map_err(|_| lost("attach"))?;
    let (read, write) = tokio::io::split(TokioIo::new(stream));
    let AttachIo { input, output } = io;
    // Cancel-safe: sending stops for good when the outcome is there.
    tokio::select! {
        outcome = receive(FrameReader::new(read), output) => outcome,
        () = send(FrameWriter::new(write), input) => Err(lost("attach")),
    }
}

/// Hands output on until the last frame.
async fn receive<R: AsyncRead + Unpin>(
    mut reader: FrameReader<R>,
    output: mpsc::Sender<ExecOutput>,
) -> Result<ExecOutcome, ApiError> {
    loop {
        // Cancel-safe: `next` keeps what it has read.
        let frame = tokio::select! {
            frame = reader.next() => frame.map_err(|error| broken(&error))?,
            () = output.closed() => return Err(abandoned()),
        };
        match frame {
            Some(Frame::Output(stream, bytes)) => {
                let chunk = ExecOutput { stream, bytes: bytes.to_vec() };
                if output.send(chunk).await.is_err() {
                    return Err(abandoned());
                }
            }
            Some(Frame::Exit(outcome)) => return Ok(outcome),
            Some(Frame::Error(error)) => return Err(error),
            Some(Frame::Input(_) | Frame::File(_)) | None => return Err(lost("attach")),
        }
    }
}

fn abandoned() -> ApiError {
    ApiError::new(ErrorCode::Cancelled, "nobody reads the command's output; it was killed")
}

/// Hands input on; returns only when the connection fails, so that what the daemon said before it
/// closed is still read.
async fn send<W: tokio::io::AsyncWrite + Unpin>(
    mut writer: FrameWriter<W>,
    mut input: mpsc::Receiver<ExecInput>,
) {
    while let Some(piece) = input.recv().await {
        writer.queue(&Frame::Input(piece));
        if writer.flush().await.is_err() {
            return pending().await;
        }
    }
    writer.queue(&Frame::Input(ExecInput::Eof));
    let _ = writer.flush().await;
    pending::<()>().await;
}

/// Returns a query string of pairs.
fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text
}

pub(super) async fn push(
    client: &Client,
    caller: &Caller,
    request: &PushRequest,
    chunks: mpsc::Receiver<Vec<u8>>,
) -> Result<FileFacts, ApiError> {
    let address = request.address.to_string();
    let mode = format!("{:o}", request.mode);
    let mut pairs =
        vec![("address", address.as_str()), ("path", &request.path), ("mode", mode.as_str())];
    if let Some(owner) = &request.owner {
        pairs.push(("owner", owner));
    }
    if request.make_parents {
        pairs.push(("make_parents", "true"));
    }
    let mut head = Head::get(format!("/v1/files{}", query(&pairs)), caller);
    head.method = Method::PUT;
    let mut message = client.message(&head, Body::new(ChannelBody::new(chunks)))?;
    message.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(request.size));
    let response = match client.connections.send(message).await {
        Ok(response) => response,
        Err(Lost::Refused(error)) => return Err(error),
        Err(Lost::Unsent | Lost::InFlight) => return Err(lost("a file's transfer")),
    };
    decoded(envelope(response).await?)
}

pub(super) async fn pull(
    client: &Client,
    caller: &Caller,
    request: &PullRequest,
    chunks: mpsc::Sender<Vec<u8>>,
) -> Result<FileFacts, ApiError> {
    let address = request.address.to_string();
    let query = query(&[("address", &address), ("path", &request.path)]);
    let head = Head::get(format!("/v1/files{query}"), caller);
    let response = client.request(&head, Bytes::new(), Repeat::Safe).await?;
    if response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != FRAMES) {
        return Err(unexpected(response).await);
    }
    let mut body = response.into_body();
    let mut decoder = Decoder::default();
    loop {
        while let Some(frame) = decoder.next_frame().map_err(|error| broken(&error))? {
            match frame {
                Frame::Output(_, bytes) => {
                    if chunks.send(bytes.to_vec()).await.is_err() {
                        return Err(abandoned());
                    }
                }
                Frame::File(facts) => return Ok(facts),
                Frame::Error(error) => return Err(error),
                Frame::Input(_) | Frame::Exit(_) => return Err(lost("a file's transfer")),
            }
        }
        let Some(Ok(part)) = body.frame().await else {
            return Err(lost("a file's transfer"));
        };
        if let Ok(data) = part.into_data() {
            decoder.push(&data);
        }
    }
}
