//! A scripted daemon, and the binary run against it.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pando_api::Control;
use pando_api::fake::FakeControl;
use pando_http::{About, Lock, Loopback, Server, TokenFile};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// No test waits longer for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Returns the binary in a hermetic environment.
pub fn pando(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pando"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("PANDO_HOME", home.join("home"))
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .stdin(Stdio::null());
    command
}

/// Waits for a child with the deadline.
pub fn finish(mut child: Child) -> Output {
    let until = Instant::now() + DEADLINE;
    let (sender, receiver) = std::sync::mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || {
        let all = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            bytes
        };
        let errors = std::thread::spawn(move || all(stderr.map(|pipe| Box::new(pipe) as _)));
        let stdout = all(stdout.map(|pipe| Box::new(pipe) as _));
        let _ = sender.send((stdout, errors.join().expect("reader")));
    });
    let (stdout, stderr) = receiver
        .recv_timeout(until.saturating_duration_since(Instant::now()))
        .unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("the command did not end within {DEADLINE:?}");
        });
    reader.join().expect("reader");
    Output { status: child.wait().expect("status"), stdout, stderr }
}

/// What a command wrote and how it ended, in one text for snapshots.
pub fn shown(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !errors.is_empty() {
        text.push_str("--- stderr\n");
        text.push_str(&errors);
    }
    match output.status.code() {
        Some(0) => {}
        Some(code) => text.push_str(&format!("--- exit status {code}\n")),
        None => text.push_str("--- ended by a signal\n"),
    }
    text
}

fn about(version: &str) -> About {
    About { version: version.to_owned(), pid: 1, home: "/h".to_owned(), url: None }
}

/// A daemon with a scripted engine.
pub struct Fake {
    /// The engine.
    pub control: Arc<FakeControl>,
    /// Home and sockets.
    pub directory: tempfile::TempDir,
    /// What leads the binary here.
    environment: Vec<(&'static str, String)>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
    runtime: Runtime,
}

impl Fake {
    /// Starts one.
    pub fn new() -> Self {
        Self::of_version(env!("CARGO_PKG_VERSION"))
    }

    /// Starts one that says it is of this version.
    pub fn of_version(version: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let control = Arc::new(FakeControl::new());
        let runtime = Runtime::new().expect("runtime");
        let stop = CancellationToken::new();
        let socket = directory.path().join("s/daemon.sock");
        let task = {
            let _guard = runtime.enter();
            let engine: Arc<dyn Control> = Arc::<FakeControl>::clone(&control);
            let server = Server::bind(&socket, engine, about(version)).expect("bind");
            runtime.spawn(server.run(stop.clone()))
        };
        let environment = vec![("PANDO_SOCKET", socket.display().to_string())];
        Self { control, directory, environment, stop, task: Some(task), runtime }
    }

    /// Starts one that is reached over TCP only.
    pub fn on_port() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let control = Arc::new(FakeControl::new());
        let runtime = Runtime::new().expect("runtime");
        let stop = CancellationToken::new();
        let file = TokenFile::new(directory.path().join("http.token"));
        let token = file.read_or_make().expect("a token");
        let address = "127.0.0.1:0".parse().expect("an address");
        let port = runtime.block_on(Loopback::bind(address)).expect("bind");
        let environment = vec![("PANDO_URL", port.url()), ("PANDO_TOKEN", token)];
        let engine: Arc<dyn Control> = Arc::<FakeControl>::clone(&control);
        let about = about(env!("CARGO_PKG_VERSION"));
        let server = Server::on_loopback(port, Lock::Token(file), Arc::new(|_| {}), engine, about);
        let task = runtime.spawn(server.run(stop.clone()));
        Self { control, directory, environment, stop, task: Some(task), runtime }
    }

    /// Returns the binary, pointed at this daemon.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = pando(self.directory.path());
        command
            .envs(self.environment.iter().cloned())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        finish(self.command(arguments).spawn().expect("start"))
    }

    /// Runs it with this standard input.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("start");
        let mut stdin = child.stdin.take().expect("stdin");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = finish(child);
        writer.join().expect("writer");
        output
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = self.runtime.block_on(task);
        }
    }
}
