//! Routes whose bodies are streams: a command's input and output, files in and out.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use pando_api::{ApiError, AttachIo, AttachRequest, Caller, PullRequest, PushRequest};
use pando_model::ErrorCode;
use pando_model::guest::{ExecInput, ExecOutcome, ExecOutput, FileFacts, OutputStream};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::io::Interest;
use tokio::sync::mpsc;

use crate::body::ChannelBody;
use crate::frames::{Frame, FrameReader};
use crate::limits::{CHUNK_TIMEOUT, STREAM_CHUNKS};
use crate::pipe::{FrameWriter, PROTOCOL};
use crate::routes::{App, Shared, identify, json_body, pairs, parse_json, respond};
use crate::stream::{ReadHalf, Stream};
use crate::unwind::Caught;

/// The content type of a body that is made of frames.
pub(crate) const FRAMES: &str = "application/vnd.pando.frames";

/// How often a connection whose command does not read its input is looked at for a hang-up, which
/// the kernel does not report past unread bytes.
const HANG_UP_INTERVAL: Duration = Duration::from_millis(500);

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|source| {
        let detail: String = source.to_string().chars().take(240).collect();
        ApiError::new(ErrorCode::InvalidParameter, detail)
    })
}

pub(crate) async fn attach(State(app): Shared, request: Request) -> Response {
    match begin_attach(&app, request).await {
        Ok(response) => response,
        Err(error) => respond(None, StatusCode::OK, Err(error)),
    }
}

async fn begin_attach(app: &Arc<App>, mut request: Request) -> Result<Response, ApiError> {
    let caller = identify(&request)?;
    if request.headers().get(header::UPGRADE).is_none_or(|value| value != PROTOCOL) {
        return Err(ApiError::parameter(
            "upgrade",
            format!("`/v1/attach` is a stream: send `Connection: upgrade`, `Upgrade: {PROTOCOL}`"),
        )
        .hint("without a stream, POST /v1/exec_run"));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let bytes = json_body(request.into_body()).await?;
    let wanted: AttachRequest = typed(parse_json(&bytes)?)?;
    let control = Arc::clone(&app.control);
    app.tasks.spawn(run_attached(upgrade, |io| async move {
        Caught::new(control.attach(&caller, wanted, io)).await
    }));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

async fn run_attached<F, W>(upgrade: OnUpgrade, work: F)
where
    F: FnOnce(AttachIo) -> W,
    W: Future<Output = Result<ExecOutcome, ApiError>>,
{
    let Some((stream, early)) = upgraded(upgrade).await else { return };
    let (read, write) = stream.into_split();
    let (input, for_command) = mpsc::channel(STREAM_CHUNKS);
    let (from_command, mut output) = mpsc::channel(STREAM_CHUNKS);
    let mut reader = FrameReader::new(read);
    reader.push(&early);
    let mut writer = FrameWriter::new(write);
    let work = work(AttachIo { input: for_command, output: from_command });
    tokio::pin!(work);

    // Cancel-safe: unsent output stays in `writer`, and a lost input matters to nobody after the
    // command's end.
    let outcome = tokio::select! {
        outcome = work.as_mut() => Some(outcome),
        () = send_output(&mut output, &mut writer) => None,
        () = receive_input(&mut reader, input) => None,
    };
    let Some(outcome) = outcome else {
        // The caller is gone: a closed output is what kills its command.
        drop(output);
        let _ = work.await;
        return;
    };
    while let Some(chunk) = output.recv().await {
        writer.queue(&Frame::Output(chunk.stream, chunk.bytes.into()));
        if writer.flush().await.is_err() {
            return;
        }
    }
    writer.queue(&match outcome {
        Ok(outcome) => Frame::Exit(outcome),
        Err(error) => Frame::Error(error),
    });
    let _ = writer.finish().await;
}

/// Returns the raw connection and what was read from it beyond the request.
async fn upgraded(upgrade: OnUpgrade) -> Option<(Stream, Bytes)> {
    let connection: Upgraded = upgrade.await.ok()?;
    let parts = connection.downcast::<TokioIo<Stream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// Returns when the connection fails.
async fn send_output<W: tokio::io::AsyncWrite + Unpin>(
    output: &mut mpsc::Receiver<ExecOutput>,
    writer: &mut FrameWriter<W>,
) {
    while let Some(chunk) = output.recv().await {
        writer.queue(&Frame::Output(chunk.stream, chunk.bytes.into()));
        if writer.flush().await.is_err() {
            return;
        }
    }
    pending::<()>().await;
}

/// Returns when the connection ends or says something that is not input.
async fn receive_input(reader: &mut FrameReader<ReadHalf>, input: mpsc::Sender<ExecInput>) {
    while let Ok(Some(Frame::Input(piece))) = reader.next().await {
        // Cancel-safe: a hang-up that wins ends the command, and the piece does not matter.
        tokio::select! {
            _ = input.send(piece) => {}
            () = hung_up(reader.get_ref()) => return,
        }
    }
}

async fn hung_up(read: &ReadHalf) {
    let mut ticks = tokio::time::interval(HANG_UP_INTERVAL);
    loop {
        ticks.tick().await;
        match read.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => {}
            _ => return,
        }
    }
}

pub(crate) async fn push(State(app): Shared, request: Request) -> Response {
    let outcome = receive_file(&app, request).await;
    let outcome = outcome.and_then(|facts| {
        serde_json::to_value(facts)
            .map_err(|source| ApiError::new(ErrorCode::Internal, source.to_string()))
    });
    respond(None, StatusCode::OK, outcome)
}

async fn receive_file(app: &App, request: Request) -> Result<FileFacts, ApiError> {
    let caller = identify(&request)?;
    let wanted = push_request(&request)?;
    let (sender, chunks) = mpsc::channel(STREAM_CHUNKS);
    let forward = forward_body(request.into_body(), sender);
    let work = Caught::new(app.control.push(&caller, wanted, chunks));
    tokio::pin!(work, forward);
    // Cancel-safe: both are pinned, and the one that did not end is awaited after.
    let early = tokio::select! {
        outcome = work.as_mut() => return outcome,
        early = forward.as_mut() => early,
    };
    let outcome = work.await;
    match (early, outcome) {
        (Err(error), Err(_)) => Err(error),
        (_, outcome) => outcome,
    }
}

/// Hands a body's bytes on and closes the channel, at the body's end or its failure.
async fn forward_body(mut body: Body, sender: mpsc::Sender<Vec<u8>>) -> Result<(), ApiError> {
    loop {
        let frame = tokio::time::timeout(CHUNK_TIMEOUT, body.frame()).await.map_err(|_| {
            ApiError::new(
                ErrorCode::DeadlineExceeded,
                format!("no more of the file was sent within {} s", CHUNK_TIMEOUT.as_secs()),
            )
        })?;
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.map_err(|source| {
            ApiError::new(
                ErrorCode::InvalidParameter,
                format!("the file was not sent whole: {source}"),
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if sender.send(data.to_vec()).await.is_err() {
            return Ok(());
        }
    }
}

fn push_request(request: &Request) -> Result<PushRequest, ApiError> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let size = length.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let size: u64 = size.ok_or_else(|| {
        ApiError::parameter("content-length", "a file needs its `Content-Length`")
    })?;
    let mut fields = query_object(request)?;
    let mode = match fields.remove("mode") {
        None => 0o644,
        Some(text) => text
            .as_str()
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .filter(|bits| *bits <= 0o7777)
            .ok_or_else(|| ApiError::parameter("mode", "`mode` is no octal mode (such as 644)"))?,
    };
    if let Some(flag) = fields.get_mut("make_parents") {
        *flag = Value::from(flag == "true");
    }
    fields.insert("mode".to_owned(), Value::from(mode));
    fields.insert("size".to_owned(), Value::from(size));
    let wanted: PushRequest = typed(Value::Object(fields))?;
    absolute(&wanted.path)?;
    Ok(wanted)
}

fn query_object(request: &Request) -> Result<Map<String, Value>, ApiError> {
    Ok(pairs(request)?.into_iter().map(|(name, text)| (name, Value::from(text))).collect())
}

fn absolute(path: &str) -> Result<(), ApiError> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    Err(ApiError::parameter("path", "`path` is not an absolute path in the guest"))
}

pub(crate) async fn pull(State(app): Shared, request: Request) -> Response {
    let response = match pull_request(&request) {
        Ok((caller, wanted)) => send_file(&app, caller, wanted).await,
        Err(error) => Err(error),
    };
    response.unwrap_or_else(|error| respond(None, StatusCode::OK, Err(error)))
}

fn pull_request(request: &Request) -> Result<(Caller, PullRequest), ApiError> {
    let caller = identify(request)?;
    let wanted: PullRequest = typed(Value::Object(query_object(request)?))?;
    absolute(&wanted.path)?;
    Ok((caller, wanted))
}

async fn send_file(
    app: &Arc<App>,
    caller: Caller,
    wanted: PullRequest,
) -> Result<Response, ApiError> {
    let (sender, mut chunks) = mpsc::channel(STREAM_CHUNKS);
    let mut work = Box::pin(pull_owned(Arc::clone(app), caller, wanted, sender));
    // Cancel-safe: the work is pinned, and a chunk that was not taken stays in the channel.
    let (first, mut outcome) = tokio::select! {
        biased;
        first = chunks.recv() => (first, None),
        outcome = work.as_mut() => (None, Some(outcome?)),
    };
    let (sender, body) = mpsc::channel(STREAM_CHUNKS);
    app.tasks.spawn(async move {
        let frame = |chunk: Vec<u8>| Frame::Output(OutputStream::Stdout, chunk.into()).to_bytes();
        if let Some(first) = first
            && sender.send(frame(first)).await.is_err()
        {
            return;
        }
        loop {
            // Cancel-safe, as above.
            let chunk = tokio::select! {
                biased;
                chunk = chunks.recv() => chunk,
                // Nobody reads any more.
                () = sender.closed() => return,
                done = work.as_mut(), if outcome.is_none() => {
                    match done {
                        Ok(facts) => outcome = Some(facts),
                        Err(error) => {
                            let _ = sender.send(Frame::Error(error).to_bytes()).await;
                            return;
                        }
                    }
                    continue;
                }
            };
            match chunk {
                Some(chunk) => {
                    if sender.send(frame(chunk)).await.is_err() {
                        return;
                    }
                }
                None => break,
            }
        }
        let last = match outcome {
            Some(facts) => Ok(facts),
            None => work.await,
        };
        let last = last.map_or_else(Frame::Error, Frame::File);
        let _ = sender.send(last.to_bytes()).await;
    });
    let mut response = Response::new(Body::new(ChannelBody::new(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(FRAMES));
    Ok(response)
}

async fn pull_owned(
    app: Arc<App>,
    caller: Caller,
    wanted: PullRequest,
    sender: mpsc::Sender<Vec<u8>>,
) -> Result<FileFacts, ApiError> {
    Caught::new(app.control.pull(&caller, wanted, sender)).await
}
