//! What the socket promises to any client, and what our client promises to the CLI: over a real
//! unix socket, and where it matters over loopback TCP, with a scripted engine behind it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test ends where it fails"
)]

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pando_api::fake::FakeControl;
use pando_api::{
    ApiError, AttachIo, AttachRequest, Call, Caller, Control, Envelope, PullRequest, PushRequest,
    Verb, catalogue,
};
use pando_http::{About, Client, Launch, Lock, Loopback, Server, TokenFile};
use pando_model::guest::{Command, ExecInput, ExecOutput, ExecStatus, OutputStream, TerminalSize};
use pando_model::operation::OperationStatus;
use pando_model::{ErrorCode, OperationId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

/// A daemon with a scripted engine.
struct Daemon {
    fake: Arc<FakeControl>,
    directory: tempfile::TempDir,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn about() -> About {
    About { version: "9.9.9".into(), pid: 1, home: "/nowhere".into(), url: None }
}

fn serve(fake: &Arc<FakeControl>, socket: PathBuf) -> (CancellationToken, JoinHandle<()>) {
    let control = Arc::clone(fake) as Arc<dyn Control>;
    let server = Server::bind(&socket, control, about()).expect("bind");
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(server.run(stop)))
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let fake = Arc::new(FakeControl::new());
        let (stop, task) = serve(&fake, directory.path().join("run/daemon.sock"));
        Self { fake, directory, stop, task }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/daemon.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket(), None)
    }

    /// Returns a client of the socket, and one of a port that serves the same engine.
    async fn clients(&self) -> [Client; 2] {
        let port = Loopback::bind("127.0.0.1:0".parse().unwrap()).await.expect("bind");
        let url = port.url();
        let file = TokenFile::new(self.directory.path().join("http.token"));
        let token = file.read_or_make().expect("a token");
        let control = Arc::clone(&self.fake) as Arc<dyn Control>;
        let server =
            Server::on_loopback(port, Lock::Token(file), Arc::new(|_| {}), control, about());
        tokio::spawn(server.run(self.stop.clone()));
        [self.client(), Client::at_url(&url, Some(token)).expect("a client")]
    }

    /// Sends bytes as they are and returns all that comes back.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.expect("connect");
        // A server that has answered may close before it has read everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn post(&self, path: &str, body: &[u8]) -> (u16, Envelope) {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        parsed(&self.raw(&request).await)
    }

    async fn get(&self, path: &str) -> (u16, Envelope) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        parsed(&self.raw(request.as_bytes()).await)
    }

    async fn end(self) {
        self.stop.cancel();
        soon(self.task).await.expect("the server ends");
    }
}

fn parsed(answer: &str) -> (u16, Envelope) {
    let status = answer.get(9..12).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let envelope = serde_json::from_str(body).unwrap_or_else(|error| {
        panic!("no envelope ({error}) in {answer:.300}");
    });
    (status.expect("a status"), envelope)
}

fn caller() -> Caller {
    Caller::local(0)
}

fn call(verb: &str, params: Value) -> Call {
    Call::parse(verb, params).expect(verb)
}

fn argv(words: &[&str]) -> AttachRequest {
    serde_json::from_value(json!({ "address": "shop", "command": {"argv": words} }))
        .expect("request")
}

#[tokio::test]
async fn the_socket_is_private() {
    let daemon = Daemon::start();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(daemon.socket()), 0o600);
    assert_eq!(mode(daemon.directory.path().join("run")), 0o700);
    daemon.end().await;
}

#[tokio::test]
async fn a_call_goes_through_and_back_as_an_envelope() {
    let daemon = Daemon::start();
    daemon.fake.answer("vm_list", json!({ "vms": [], "total": 0 }));
    let (status, envelope) = daemon.post("/v1/vm_list", b"{\"limit\": 5}").await;
    assert_eq!((status, envelope.success), (200, true));
    let (status, envelope) = daemon.get("/v1/vm.list?limit=7&name_prefix=12").await;
    assert_eq!((status, envelope.success), (200, true));

    let limits: Vec<_> = daemon.fake.calls().into_iter().map(|(_, call)| call).collect();
    assert_eq!(limits[0], call("vm_list", json!({ "limit": 5 })));
    assert_eq!(limits[1], call("vm_list", json!({ "limit": 7, "name_prefix": "12" })));
    daemon.end().await;
}

#[tokio::test]
async fn headers_say_who_calls_and_how() {
    let daemon = Daemon::start();
    daemon.fake.answer("gc", json!({}));
    let answer = daemon
        .raw(
            b"POST /v1/gc HTTP/1.1\r\nhost: x\r\nconnection: close\r\nidempotency-key: k1\r\n\
              x-request-id: rq_0123456789ab\r\nx-pando-session: s\r\nx-pando-read-only: true\r\n\r\n",
        )
        .await;
    assert!(answer.contains("x-request-id: rq_0123456789ab"), "{answer}");
    let (caller, _) = daemon.fake.calls().remove(0);
    assert_eq!(caller.idempotency_key.as_deref(), Some("k1"));
    assert_eq!(caller.session.as_deref(), Some("s"));
    assert!(caller.read_only);
    assert!(caller.principal.starts_with("local:"), "{}", caller.principal);

    let answer = daemon
        .raw(b"GET /v1/vm_list HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-pando-read-only: maybe\r\n\r\n")
        .await;
    assert_eq!(parsed(&answer).0, 400, "{answer}");
    daemon.end().await;
}

#[tokio::test]
async fn malformed_input_gets_an_envelope() {
    let daemon = Daemon::start();
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(10 << 20)).into_bytes();
    let too_large = vec![b' '; pando_http::limits::MAX_JSON_BYTES + 1];
    let cases: &[(&str, &[u8], u16)] = &[
        ("/v1/vm_create", b"{", 400),
        ("/v1/vm_create", b"\xff\xfe{}", 400),
        ("/v1/vm_create", b"[1]", 400),
        ("/v1/vm_create", b"{\"name\": 7}", 400),
        ("/v1/vm_create", b"{\"name\": \"a\", \"name\": \"b\", \"nmae\": 1}", 400),
        ("/v1/vm_create", &deep, 400),
        ("/v1/vm_create", &huge, 400),
        ("/v1/vm_create", &too_large, 400),
        ("/v1/vm_craete", b"{}", 404),
        ("/v1/../../etc/passwd", b"{}", 404),
        ("/v1/%00%ff", b"{}", 400),
        ("/", b"", 404),
        ("/v1/attach", b"{}", 400),
        ("/v1/operations/x/events", b"", 404),
        ("/v1/files", b"", 404),
    ];
    for (path, body, expected) in cases {
        let (status, envelope) = daemon.post(path, body).await;
        assert_eq!(status, *expected, "{path}: {envelope:?}");
        let error = envelope.error.expect("an error");
        assert!(error.message.len() < 600, "{path}: {} bytes", error.message.len());
    }
    let (status, envelope) = daemon.get("/v1/vm_delete?name=shop").await;
    assert_eq!(status, 400);
    assert_eq!(envelope.error.unwrap().hint.as_deref(), Some("POST /v1/vm_delete"));
    assert_eq!(daemon.get("/v1/operations/br_0123456789ab/events").await.0, 400);
    assert_eq!(daemon.get("/v1/files?address=shop&path=etc").await.0, 400);
    assert_eq!(daemon.get("/v1/files?address=..&path=/etc/x").await.0, 400);
    assert!(daemon.fake.calls().is_empty());
    daemon.end().await;
}

/// Returns a verb's example as a query.
fn query(params: &Value) -> String {
    let pairs = params.as_object().into_iter().flatten().flat_map(|(name, value)| match value {
        Value::Array(items) => items.iter().map(|item| (name, item)).collect(),
        other => vec![(name, other)],
    });
    let encoded = pairs.map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let safe = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        });
        format!("{name}={}", safe.collect::<String>())
    });
    encoded.collect::<Vec<_>>().join("&")
}

#[tokio::test]
async fn every_documented_route_answers() {
    let daemon = Daemon::start();
    let answer =
        daemon.raw(b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/json"), "{head}");
    let document: Value = serde_json::from_str(body).unwrap();
    assert_eq!(document, pando_api::openapi());

    let operation = daemon.fake.begin("gc");
    daemon.fake.finish(&operation, Ok(json!({})));
    daemon.fake.put_file("/etc/x", 0o644, b"hello");
    for verb in catalogue() {
        daemon.fake.answer(verb.name, json!({ "answered": verb.name }));
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{id}", operation.as_str());
            let verb = path.strip_prefix("/v1/").and_then(Verb::find);
            let example = verb.map(Verb::example).unwrap_or_default();
            let (path, body) = match (path.as_str(), method.as_str(), verb) {
                ("/v1/files", "get", _) => {
                    ("/v1/files?address=shop&path=/etc/x".to_owned(), String::new())
                }
                ("/v1/files", ..) => {
                    ("/v1/files?address=shop&path=/etc/y".to_owned(), "hello".to_owned())
                }
                ("/v1/attach", ..) => (path, r#"{"address":"shop"}"#.to_owned()),
                (_, "get", Some(_)) => (format!("{path}?{}", query(&example)), String::new()),
                (_, "post", Some(_)) => (path, example.to_string()),
                _ => (path, String::new()),
            };
            let upgrade = if path == "/v1/attach" {
                "connection: upgrade\r\nupgrade: pando-attach/1"
            } else {
                "connection: close"
            };
            let head = format!("{} {path} HTTP/1.1\r\nhost: x\r\n", method.to_uppercase());
            let length = body.len();
            let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
            let request = format!("{head}{upgrade}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            soon(stream.read_to_end(&mut answer)).await.unwrap();
            let answer = String::from_utf8_lossy(&answer);
            let expected = if path == "/v1/attach" { "101" } else { "200" };
            assert_eq!(answer.get(9..12), Some(expected), "{method} {path}: {answer:.400}");
            if let Some(verb) = verb {
                assert_eq!(parsed(&answer).1.result.unwrap()["answered"], verb.name);
                let (_, call) = daemon.fake.calls().pop().unwrap();
                assert_eq!(call, Call::parse(verb.name, example).unwrap(), "{method} {path}");
            }
        }
    }
    daemon.end().await;
}

#[tokio::test]
async fn what_is_no_http_does_not_disturb_others() {
    let daemon = Daemon::start();
    daemon.fake.answer("vm_list", json!({}));
    for garbage in [&b"\x00\x01\x02\x03\r\n\r\n"[..], b"GET\r\n\r\n", b"POST /v1/gc HTTP/1.1\r\n"] {
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
    }
    // Clients that say nothing, and one that sends half a body and leaves.
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(UnixStream::connect(daemon.socket()).await.unwrap());
    }
    let mut half = UnixStream::connect(daemon.socket()).await.unwrap();
    half.write_all(b"POST /v1/gc HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    drop(half);
    assert_eq!(daemon.get("/v1/vm_list").await.0, 200);
    assert!(daemon.fake.calls().iter().all(|(_, call)| call.name() == "vm_list"));
    drop(idle);
    daemon.end().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Arc::new(FakeControl::new());
    let socket = directory.path().join("run/daemon.sock");
    let server = Server::bind(&socket, Arc::clone(&fake) as Arc<dyn Control>, about())
        .unwrap()
        .with_head_timeout(Duration::from_millis(50));
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.run(stop.clone()));
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    stream.write_all(b"POST /v1/gc HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    assert!(fake.calls().is_empty());
    stop.cancel();
    soon(task).await.unwrap();
}

#[tokio::test]
async fn a_defect_of_the_engine_is_one_failed_call() {
    let daemon = Daemon::start();
    daemon.fake.on("vm_list", Arc::new(|_, _| panic!("scripted")));
    let (status, envelope) = daemon.get("/v1/vm_list").await;
    assert_eq!(status, 500);
    assert_eq!(envelope.error.unwrap().code, ErrorCode::Internal);
    daemon.end().await;
}

#[tokio::test]
async fn the_catalogue_health_and_version_are_served() {
    let daemon = Daemon::start();
    let (_, envelope) = daemon.get("/v1/catalogue").await;
    let verbs = envelope.result.unwrap()["verbs"].as_array().unwrap().len();
    assert_eq!(verbs, catalogue().len());
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert_eq!(soon(daemon.client().about()).await.unwrap().version, "9.9.9");
    daemon.end().await;
}

#[tokio::test]
async fn the_client_carries_results_and_errors() {
    let daemon = Daemon::start();
    let error = ApiError::new(ErrorCode::NotFound, "no cluster `shop`").hint("pando ps");
    daemon.fake.answer("vm_list", json!({ "total": 3 })).fail("vm_status", error.clone());
    let client = daemon.client();
    let list = soon(client.call(&caller(), call("vm_list", json!({})))).await.unwrap();
    assert_eq!(list, json!({ "total": 3 }));
    let status = call("vm_status", json!({ "address": "shop" }));
    assert_eq!(soon(client.call(&caller(), status)).await.unwrap_err(), error);
    daemon.end().await;
}

#[tokio::test]
async fn operations_are_watched_to_their_end() {
    let daemon = Daemon::start();
    for client in daemon.clients().await {
        watch_one_operation(&daemon, &client).await;
    }
    daemon.end().await;
}

async fn watch_one_operation(daemon: &Daemon, client: &Client) {
    let id = daemon.fake.begin("vm_create");
    daemon.fake.answer("vm_create", json!({ "operation": id }));
    let create = call("vm_create", json!({ "name": "shop" }));
    assert_eq!(soon(client.start(&caller(), create)).await.unwrap(), id);

    let mut states = soon(client.watch_operation(&caller(), &id)).await.unwrap();
    assert_eq!(states.borrow_and_update().status, OperationStatus::Running);
    daemon.fake.progress(&id, "booting", 1);
    soon(states.wait_for(|view| view.progress.message == "booting")).await.unwrap();
    daemon.fake.finish(&id, Ok(json!({ "name": "shop" })));
    let last = soon(states.wait_for(|view| view.status.is_final())).await.unwrap().clone();
    assert_eq!(last.result, Some(json!({ "name": "shop" })));

    let (caller, nothing) = (caller(), OperationId::random());
    let missing = client.watch_operation(&caller, &nothing);
    assert_eq!(soon(missing).await.unwrap_err().code, ErrorCode::NotFound);
    let direct = client.start(&caller, call("vm_list", json!({})));
    assert_eq!(soon(direct).await.unwrap_err().code, ErrorCode::InvalidParameter);
}

/// Runs an attached command with this input and returns its stdout, stderr and outcome.
async fn attached(
    client: &Client,
    request: AttachRequest,
    input: Vec<ExecInput>,
) -> (Vec<u8>, Vec<u8>, Result<ExecStatus, ApiError>) {
    let (sender, for_command) = mpsc::channel(4);
    let (output, mut from_command) = mpsc::channel::<ExecOutput>(4);
    let feed = async move {
        for piece in input {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    };
    let collect = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = from_command.recv().await {
            match chunk.stream {
                OutputStream::Stdout => stdout.extend(chunk.bytes),
                OutputStream::Stderr => stderr.extend(chunk.bytes),
            }
        }
        (stdout, stderr)
    };
    let caller = caller();
    let io = AttachIo { input: for_command, output };
    let run = client.attach(&caller, request, io);
    let (outcome, (), (stdout, stderr)) = soon(async { tokio::join!(run, feed, collect) }).await;
    (stdout, stderr, outcome.map(|outcome| outcome.status))
}

#[tokio::test]
async fn an_attached_command_has_its_streams_and_its_end() {
    let daemon = Daemon::start();
    for client in daemon.clients().await {
        attach_in_every_way(&client).await;
    }
    daemon.end().await;
}

async fn attach_in_every_way(client: &Client) {
    let (stdout, stderr, status) = attached(client, argv(&["echo", "a", "b"]), vec![]).await;
    assert_eq!((stdout, stderr), (b"a b\n".to_vec(), b"warned\n".to_vec()));
    assert_eq!(status.unwrap(), ExecStatus::Exited(0));

    let data = vec![7u8; 300_000];
    let input = vec![ExecInput::Data(data.clone()), ExecInput::Eof];
    let (stdout, _, _) = attached(client, argv(&["cat"]), input).await;
    assert_eq!(stdout, data);

    let (stdout, _, _) = attached(client, argv(&["flood", "5000000"]), vec![]).await;
    assert_eq!(stdout.len(), 5_000_000);

    let (_, _, status) = attached(client, argv(&["exit", "3"]), vec![]).await;
    assert_eq!(status.unwrap(), ExecStatus::Exited(3));

    let (_, _, status) = attached(client, argv(&["signal"]), vec![ExecInput::Signal(15)]).await;
    assert_eq!(status.unwrap(), ExecStatus::Signaled(15));

    let mut request = argv(&["terminal"]);
    request.terminal = Some(TerminalSize { columns: 80, rows: 24 });
    let resize = ExecInput::Resize(TerminalSize { columns: 100, rows: 30 });
    let (stdout, _, _) = attached(client, request, vec![resize]).await;
    let text = String::from_utf8(stdout).unwrap();
    assert!(text.contains("80") && text.contains("[100,30]"), "{text}");

    let (_, _, status) = attached(client, argv(&["unknown"]), vec![]).await;
    assert_eq!(status.unwrap_err().hint.as_deref(), Some("echo hello"));

    let (_, _, status) = attached(client, argv(&["panic"]), vec![]).await;
    assert_eq!(status.unwrap_err().code, ErrorCode::Internal);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_its_command() {
    let daemon = Daemon::start();
    let [socket, port] = daemon.clients().await;
    // One that hangs, and one that does not read what it is sent.
    let cases = [(&socket, 0), (&socket, 64), (&port, 0), (&port, 64)];
    for (client, input) in cases {
        let before = daemon.fake.killed();
        let (sender, for_command) = mpsc::channel(4);
        let (output, from_command) = mpsc::channel(4);
        let (client, request) = (client.clone(), argv(&["hang"]));
        let run = tokio::spawn(async move {
            client.attach(&caller(), request, AttachIo { input: for_command, output }).await
        });
        for _ in 0..input {
            let piece = ExecInput::Data(vec![0; 65_536]);
            if tokio::time::timeout(Duration::from_millis(200), sender.send(piece)).await.is_err() {
                break;
            }
        }
        drop(from_command);
        assert_eq!(soon(run).await.unwrap().unwrap_err().code, ErrorCode::Cancelled);
        soon(async {
            while daemon.fake.killed() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    daemon.end().await;
}

#[tokio::test]
async fn files_go_in_and_out_whole() {
    let daemon = Daemon::start();
    for client in daemon.clients().await {
        copy_in_and_out(&daemon, &client).await;
    }
    daemon.end().await;
}

async fn copy_in_and_out(daemon: &Daemon, client: &Client) {
    for size in [0usize, 1, 3_000_000] {
        let contents: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        let request = PushRequest {
            address: "shop".parse().unwrap(),
            path: "/srv/a b&c?.bin".into(),
            mode: 0o750,
            owner: Some("www-data".into()),
            make_parents: true,
            size: size as u64,
        };
        let (sender, chunks) = mpsc::channel(2);
        let pieces: Vec<Vec<u8>> = contents.chunks(10_000).map(<[u8]>::to_vec).collect();
        let feed = async move {
            for piece in pieces {
                sender.send(piece).await.unwrap();
            }
        };
        let caller = caller();
        let (pushed, ()) =
            soon(async { tokio::join!(client.push(&caller, request, chunks), feed) }).await;
        assert_eq!(pushed.unwrap().size, size as u64);
        assert_eq!(daemon.fake.file("/srv/a b&c?.bin"), Some((0o750, contents.clone())));

        let (sender, mut chunks) = mpsc::channel(2);
        let request =
            PullRequest { address: "shop".parse().unwrap(), path: "/srv/a b&c?.bin".into() };
        let collect = async {
            let mut all = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                all.extend(chunk);
            }
            all
        };
        let (pulled, all) =
            soon(async { tokio::join!(client.pull(&caller, request, sender), collect) }).await;
        assert_eq!((pulled.unwrap().mode, all), (0o750, contents));
    }
    let (sender, _chunks) = mpsc::channel(2);
    let request = PullRequest { address: "shop".parse().unwrap(), path: "/none".into() };
    let missing = soon(client.pull(&caller(), request, sender)).await;
    assert_eq!(missing.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_file_that_was_not_sent_whole_does_not_appear() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream
        .write_all(b"PUT /v1/files?address=shop&path=/a HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    drop(stream);
    daemon.stop.cancel();
    soon(daemon.task).await.unwrap();
    assert_eq!(daemon.fake.file("/a"), None);
}

/// Starts the daemon again when asked.
struct Relaunch {
    fake: Arc<FakeControl>,
    socket: PathBuf,
    launched: AtomicU32,
    running: std::sync::Mutex<Vec<(CancellationToken, JoinHandle<()>)>>,
}

#[async_trait]
impl Launch for Relaunch {
    async fn launch(&self) -> Result<(), ApiError> {
        self.launched.fetch_add(1, Ordering::SeqCst);
        self.running.lock().unwrap().push(serve(&self.fake, self.socket.clone()));
        Ok(())
    }
}

#[tokio::test]
async fn the_client_starts_a_daemon_and_outlives_it() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Arc::new(FakeControl::new());
    fake.answer("vm_list", json!({})).answer("gc", json!({}));
    let socket = directory.path().join("run/daemon.sock");
    let launcher = Arc::new(Relaunch {
        fake: Arc::clone(&fake),
        socket: socket.clone(),
        launched: AtomicU32::new(0),
        running: std::sync::Mutex::default(),
    });
    let client = Client::new(&socket, Some(Arc::clone(&launcher) as Arc<dyn Launch>));
    for expected in 1..=3 {
        soon(client.call(&caller(), call("vm_list", json!({})))).await.unwrap();
        soon(client.call(&caller(), call("gc", json!({})))).await.unwrap();
        assert_eq!(launcher.launched.load(Ordering::SeqCst), expected);
        let (stop, task) = launcher.running.lock().unwrap().pop().unwrap();
        stop.cancel();
        soon(task).await.unwrap();
        std::fs::remove_file(&socket).unwrap();
    }
    let keys = fake.calls();
    let (gc, _) = keys.iter().find(|(_, call)| call.name() == "gc").unwrap();
    assert_eq!(gc.idempotency_key.as_deref(), Some(gc.request_id.as_str()));

    let nobody = Client::new(&socket, None);
    let error = soon(nobody.call(&caller(), call("vm_list", json!({})))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DaemonUnreachable);
}

#[tokio::test]
async fn a_socket_in_somebody_elses_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("target");
    std::fs::create_dir(&elsewhere).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    let control: Arc<dyn Control> = Arc::new(FakeControl::new());
    assert!(Server::bind(&link.join("daemon.sock"), control, about()).is_err());
}

#[test]
fn a_shell_line_stays_one_argument() {
    let request: AttachRequest =
        serde_json::from_value(json!({ "address": "shop", "command": {"shell": "a; b"} })).unwrap();
    assert_eq!(request.command, Some(Command::Shell("a; b".into())));
}
