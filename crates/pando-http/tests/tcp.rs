//! What the listener on TCP promises: to this host, to whoever has the token, and to nobody else;
//! and that no bytes disturb it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where it fails"
)]

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pando_api::fake::FakeControl;
use pando_api::{Call, Caller, Control, Envelope};
use pando_http::limits::{MAX_HEAD_BYTES, MAX_JSON_BYTES, REFUSALS_AT_ONCE};
use pando_http::{About, Client, Lock, Loopback, Refused, Server, TokenFile};
use pando_model::ErrorCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

/// A daemon with a scripted engine, on a port.
struct Daemon {
    fake: Arc<FakeControl>,
    directory: tempfile::TempDir,
    url: String,
    token: String,
    refused: Arc<Mutex<Vec<Refused>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Daemon {
    async fn start() -> Self {
        Self::with_head_timeout(Duration::from_secs(10)).await
    }

    async fn with_head_timeout(head_timeout: Duration) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let fake = Arc::new(FakeControl::new());
        fake.answer("vm_list", json!({ "vms": [] })).answer("gc", json!({}));
        let file = TokenFile::new(directory.path().join("http.token"));
        let token = file.read_or_make().expect("a token");
        let port = Loopback::bind("127.0.0.1:0".parse().unwrap()).await.expect("bind");
        let url = port.url();
        let refused = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&refused);
        let on_refused = Arc::new(move |one: &Refused| seen.lock().unwrap().push(one.clone()));
        let control = Arc::clone(&fake) as Arc<dyn Control>;
        let about = About { version: "9".into(), pid: 1, home: "/".into(), url: Some(url.clone()) };
        let server = Server::on_loopback(port, Lock::Token(file), on_refused, control, about)
            .with_head_timeout(head_timeout);
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone()));
        Self { fake, directory, url, token, refused, stop, task }
    }

    fn authority(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn port(&self) -> &str {
        self.authority().rsplit_once(':').unwrap().1
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.authority()).await.expect("connect")
    }

    /// Sends bytes as they are and returns all that comes back.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        // A server that has answered may close before it has read everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends a request line and headers, in which `{P}` is the port and `{T}` the token.
    async fn head(&self, lines: &str) -> String {
        let lines = lines.replace("{P}", self.port()).replace("{T}", &self.token);
        self.raw(format!("{lines}\r\nConnection: close\r\n\r\n").as_bytes()).await
    }

    async fn post(&self, path: &str, body: &[u8]) -> (u16, Envelope) {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            self.authority(),
            self.token,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        parsed(&self.raw(&request).await)
    }

    fn client(&self, token: Option<&str>) -> Client {
        Client::at_url(&self.url, token.map(str::to_owned)).expect("a client")
    }

    async fn end(self) {
        self.stop.cancel();
        soon(self.task).await.expect("the server ends");
    }
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default()
}

fn parsed(answer: &str) -> (u16, Envelope) {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let envelope = serde_json::from_str(body)
        .unwrap_or_else(|error| panic!("no envelope ({error}) in {answer:.300}"));
    (status(answer), envelope)
}

fn list() -> Call {
    Call::parse("vm_list", json!({})).expect("a call")
}

#[tokio::test]
async fn the_token_opens_every_route_and_nothing_else_does() {
    let daemon = Daemon::start().await;
    for path in ["/v1/vm_list", "/healthz", "/version", "/v1/catalogue", "/nothing", "/mcp"] {
        let get = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{{P}}");
        for header in [
            "",
            "\r\nAuthorization: Bearer wrong",
            "\r\nAuthorization: Bearer",
            "\r\nAuthorization: Basic {T}",
            "\r\nAuthorization: {T}",
            "\r\nAuthorization: Bearer {T}x",
            "\r\nAuthorization: Bearer {T}\r\nAuthorization: Bearer {T}",
            "\r\nX-Authorization: Bearer {T}",
        ] {
            let answer = daemon.head(&format!("{get}{header}")).await;
            let (status, envelope) = parsed(&answer);
            assert_eq!(status, 401, "{path} {header}");
            assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
            let error = envelope.error.unwrap();
            assert_eq!(error.code, ErrorCode::Unauthenticated);
            assert!(error.hint.unwrap().contains("pando token show"));
            assert!(!answer.contains(&daemon.token));
        }
        let answer = daemon.head(&format!("{get}\r\nauthorization: bearer {{T}}")).await;
        assert!([200, 404].contains(&status(&answer)), "{path}: {answer}");
        // A token in the target would be in logs.
        let query = format!("GET {path}?token={{T}} HTTP/1.1\r\nHost: 127.0.0.1:{{P}}");
        assert_eq!(status(&daemon.head(&query).await), 401);
    }
    assert_eq!(daemon.fake.calls().len(), 1);
    daemon.end().await;
}

#[tokio::test]
async fn names_that_only_lead_here_are_refused_before_the_token_is_looked_at() {
    let daemon = Daemon::start().await;
    let cases: &[(&str, u16)] = &[
        ("GET /v1/vm_list HTTP/1.1\r\nHost: localhost:{P}", 200),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: LOCALHOST:{P}", 200),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: 127.0.0.1:{P}", 200),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: [::1]:{P}", 200),
        ("GET /v1/vm_list HTTP/1.0\r\nHost: localhost:{P}", 200),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: evil.example", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: evil.example:{P}", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: 127.0.0.1.evil.example:{P}", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: localhost.evil.example:{P}", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: localhost", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: localhost:1", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: ", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: 127.0.0.1:{P}, evil.example", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: evil.example\r\nHost: localhost:{P}", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nHost: localhost:{P}\r\nHost: localhost:{P}", 403),
        ("GET /v1/vm_list HTTP/1.1\r\nX-Forwarded-Host: localhost:{P}", 403),
        ("GET /v1/vm_list HTTP/1.0", 403),
        // Absolute-form targets: what they name counts as well.
        ("GET http://localhost:{P}/v1/vm_list HTTP/1.1\r\nHost: localhost:{P}", 200),
        ("GET http://evil.example/v1/vm_list HTTP/1.1\r\nHost: localhost:{P}", 403),
        ("GET http://localhost:{P}/v1/vm_list HTTP/1.1\r\nHost: evil.example", 403),
        ("GET http://localhost:{P}@evil.example/ HTTP/1.1\r\nHost: localhost:{P}", 403),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost:{P}", 403),
        ("CONNECT localhost:{P} HTTP/1.1\r\nHost: localhost:{P}", 404),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost:{P}", 404),
    ];
    for (lines, expected) in cases {
        let answer = daemon.head(&format!("{lines}\r\nAuthorization: Bearer {{T}}")).await;
        assert_eq!(status(&answer), *expected, "{lines}: {answer}");
        // Whoever comes by a wrong name learns nothing of tokens.
        if *expected == 403 {
            let (status, envelope) = parsed(&daemon.head(lines).await);
            assert_eq!((status, envelope.error.unwrap().code), (403, ErrorCode::Forbidden));
        }
    }
    daemon.end().await;
}

#[tokio::test]
async fn web_pages_of_other_hosts_are_refused_and_no_answer_is_shared_with_any() {
    let daemon = Daemon::start().await;
    let cases: &[(&str, u16)] = &[
        ("http://localhost:{P}", 200),
        ("https://localhost", 200),
        ("http://127.0.0.1:3000", 200),
        ("http://[::1]:3000", 200),
        ("null", 403),
        ("", 403),
        ("http://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://localhost.evil.example:{P}", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("http://evil.example@localhost", 403),
        ("http://localhost:{P}/", 403),
        ("file://", 403),
        ("chrome-extension://localhost", 403),
        ("localhost", 403),
        ("http://localhost http://evil.example", 403),
        ("http://localhost\r\nOrigin: http://evil.example", 403),
        ("http://evil.example\r\nOrigin: http://localhost", 403),
    ];
    for method in ["GET", "POST"] {
        for path in ["/v1/vm_list", "/mcp"] {
            for (origin, expected) in cases {
                let lines = format!(
                    "{method} {path} HTTP/1.1\r\nHost: localhost:{{P}}\r\nOrigin: {origin}\r\n\
                     Content-Length: 0\r\nAuthorization: Bearer {{T}}"
                );
                let answer = daemon.head(&lines).await;
                // Nothing is mounted at /mcp here; what matters is that the door let it through.
                let fine = if path == "/mcp" { 404 } else { 200 };
                let expected = if *expected == 200 { fine } else { *expected };
                assert_eq!(status(&answer), expected, "{method} {path} {origin}: {answer}");
                assert!(!answer.to_lowercase().contains("access-control"), "{answer}");
            }
        }
    }
    daemon.end().await;
}

#[tokio::test]
async fn the_client_carries_its_token_and_its_caller_is_told_apart() {
    let daemon = Daemon::start().await;
    let client = daemon.client(Some(&daemon.token));
    assert_eq!(soon(client.about()).await.unwrap().url.as_deref(), Some(daemon.url.as_str()));
    let mut caller = Caller::local(12345);
    caller.session = Some("terminal:7".into());
    soon(client.call(&caller, list())).await.unwrap();
    caller.session = None;
    soon(client.call(&caller, list())).await.unwrap();
    let callers: Vec<Caller> = daemon.fake.calls().into_iter().map(|(caller, _)| caller).collect();
    let own = format!("local:{}", rustix::process::geteuid().as_raw());
    assert!(callers.iter().all(|caller| caller.principal == own));
    assert_eq!(callers[0].session.as_deref(), Some("http:terminal:7"));
    assert!(callers[1].session.as_deref().unwrap().starts_with("http:127.0.0.1:"));

    for client in [daemon.client(None), daemon.client(Some("wrong"))] {
        let error = soon(client.call(&caller, list())).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unauthenticated);
        assert_eq!(error.code.http_status(), 401);
    }
    daemon.end().await;
}

#[tokio::test]
async fn a_new_token_holds_at_once_and_a_lost_one_lets_nobody_in() {
    let daemon = Daemon::start().await;
    let file = TokenFile::new(daemon.directory.path().join("http.token"));
    let caller = Caller::local(0);
    let old = daemon.client(Some(&daemon.token));
    soon(old.call(&caller, list())).await.unwrap();
    let new = daemon.client(Some(&file.rotate().unwrap()));
    // Also on the connection that the old one is still open on.
    let error = soon(old.call(&caller, list())).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unauthenticated);
    soon(new.call(&caller, list())).await.unwrap();
    std::fs::remove_file(file.path()).unwrap();
    let error = soon(new.call(&caller, list())).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unauthenticated);
    assert_eq!(error.hint.as_deref(), Some("pando token show"));
    daemon.end().await;
}

#[tokio::test]
async fn refusals_are_told_of_and_do_not_fill_the_log() {
    let daemon = Daemon::start().await;
    let attempts = REFUSALS_AT_ONCE * 3;
    for _ in 0..attempts {
        let guess = "GET /v1/vm_list?secret=1 HTTP/1.1\r\nHost: localhost:{P}\r\n\
                     Authorization: Bearer guess";
        assert_eq!(status(&daemon.head(guess).await), 401);
    }
    let refused = daemon.refused.lock().unwrap().clone();
    let told = u32::try_from(refused.len()).unwrap();
    assert!((REFUSALS_AT_ONCE..attempts).contains(&told), "{told}");
    assert_eq!(refused[0].request, "GET /v1/vm_list");
    assert!(refused[0].peer.ip().is_loopback());
    assert_eq!(refused[0].error.code, ErrorCode::Unauthenticated);
    assert!(!format!("{refused:?}").contains("guess"));
    daemon.end().await;
}

#[tokio::test]
async fn malformed_input_gets_an_answer_and_the_next_client_is_served() {
    let daemon = Daemon::start().await;
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(10 << 20)).into_bytes();
    let too_large = vec![b' '; MAX_JSON_BYTES + 1];
    for body in [&b"{"[..], b"\xff", b"[1]", &deep, &long, &too_large] {
        let (status, envelope) = daemon.post("/v1/vm_create", body).await;
        assert_eq!(status, 400);
        assert!(envelope.error.unwrap().message.len() < 600);
    }
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES * 2));
    assert_eq!(status(&daemon.raw(huge.as_bytes()).await), 431);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert_eq!(status(&daemon.raw(many.as_bytes()).await), 431);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD_BYTES * 2));
    assert!([414, 431].contains(&status(&daemon.raw(long.as_bytes()).await)));
    let garbage: &[&[u8]] = &[
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/gc HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/gc HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /v1/gc HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
    ];
    for bytes in garbage {
        let mut stream = daemon.connect().await;
        stream.write_all(bytes).await.unwrap();
        // Nothing follows: whoever still waits for more is told that none comes.
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert!(daemon.fake.calls().is_empty());
    soon(daemon.client(Some(&daemon.token)).call(&Caller::local(0), list())).await.unwrap();
    daemon.end().await;
}

#[tokio::test]
async fn clients_that_are_slow_or_leave_half_way_hold_nobody_up() {
    let daemon = Daemon::with_head_timeout(Duration::from_millis(200)).await;
    let head = format!(
        "POST /v1/gc HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n",
        daemon.authority(),
        daemon.token
    );
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(daemon.connect().await);
    }
    let mut slow = daemon.connect().await;
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut half = daemon.connect().await;
    half.write_all(format!("{head}\r\n{{").as_bytes()).await.unwrap();
    half.shutdown().await.unwrap();
    let mut gone = daemon.connect().await;
    gone.write_all(format!("{head}\r\n{{").as_bytes()).await.unwrap();
    drop(gone);
    soon(daemon.client(Some(&daemon.token)).call(&Caller::local(0), list())).await.unwrap();
    for mut stream in silent.into_iter().chain([slow, half]) {
        let mut answer = Vec::new();
        // Each is given up, and the connection ends.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    }
    assert!(daemon.fake.calls().iter().all(|(_, call)| call.name() == "vm_list"));
    daemon.end().await;
}

#[tokio::test]
async fn only_loopback_is_bound_and_a_taken_port_is_an_error() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let error = Loopback::bind(address.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{address}");
    }
    let daemon = Daemon::start().await;
    let taken = Loopback::bind(daemon.authority().parse().unwrap()).await.unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    daemon.end().await;
}
