//! MCP over the daemon's port, as clients meet it: with the configuration that `pando mcp install
//! --http` writes, and the protocol library's own client.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod agents;
#[path = "agents/follow.rs"]
mod follow;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::agents::{Agent, Era};

/// A home whose daemon listens on a port, and is ended with it.
struct Home {
    directory: tempfile::TempDir,
    url: String,
    token: String,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut home = Self { directory, url: String::new(), token: String::new() };
        home.start("127.0.0.1:0");
        home.url = home.json(&["daemon", "status"])["url"].as_str().unwrap().to_owned();
        home.token = text(&home.run(&["token", "show"])).trim().to_owned();
        home
    }

    fn start(&self, listen: &str) {
        let mut command = self.command(&["daemon", "start"]);
        let output = command.env("PANDO_HTTP_LISTEN", listen).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pando"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("PANDO_HOME", self.path().join("home"))
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .current_dir(self.path())
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let envelope: Value = serde_json::from_slice(&output.stdout).expect("an envelope");
        envelope["result"].clone()
    }

    fn kill_daemon(&self) {
        let text = fs::read_to_string(self.path().join("home/daemon.lock")).unwrap();
        let pid = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        // Its lock is free once it is gone.
        let lock = fs::File::open(self.path().join("home/daemon.lock")).unwrap();
        lock.lock().unwrap();
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["daemon", "stop"]);
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// Returns the URL and the header of an entry as a client takes them, with the variable replaced as
/// that client replaces it.
fn taken(client: &str, written: &str, token: &str) -> (String, String) {
    let (url, header, variable) = match client {
        "codex" => {
            let value: toml_edit::DocumentMut = written.parse().expect("TOML");
            let entry = &value["mcp_servers"]["pando"];
            assert_eq!(entry["bearer_token_env_var"].as_str(), Some("PANDO_TOKEN"));
            assert!(entry.get("command").is_none());
            (entry["url"].as_str().unwrap().to_owned(), format!("Bearer {token}"), "")
        }
        _ => {
            let value: Value = serde_json::from_str(written).expect("JSON");
            let list = if client == "vscode" { "servers" } else { "mcpServers" };
            let entry = &value[list]["pando"];
            let kind = (client != "cursor").then_some("http");
            assert_eq!(entry["type"].as_str(), kind, "{entry}");
            let variable = if client == "claude" { "${PANDO_TOKEN}" } else { "${env:PANDO_TOKEN}" };
            let header = entry["headers"]["Authorization"].as_str().unwrap().to_owned();
            (entry["url"].as_str().unwrap().to_owned(), header, variable)
        }
    };
    assert!(!written.contains(token), "no file holds the token");
    (url, if variable.is_empty() { header } else { header.replace(variable, token) })
}

#[test]
fn every_client_is_configured_to_a_url_that_works() {
    let home = Home::new();
    let cases = [
        ("claude", ".mcp.json", Era::Modern),
        ("vscode", ".vscode/mcp.json", Era::Legacy),
        ("cursor", ".cursor/mcp.json", Era::Legacy),
        ("codex", ".codex/config.toml", Era::Modern),
    ];
    for (client, file, era) in cases {
        // The other form first: nothing of it may be left.
        let stdio = home.run(&["mcp", "install", "--client", client]);
        assert!(stdio.status.success(), "{}", text(&stdio));
        let install = ["mcp", "install", "--http", "--client", client];
        let path = home.path().join(file);
        let before = fs::read_to_string(&path).unwrap();
        let dry = text(&home.run(&[&install[..], &["--dry-run"]].concat()));
        assert!(dry.contains(&home.url) && dry.contains("nothing was written"), "{dry}");
        assert_eq!(fs::read_to_string(&path).unwrap(), before);

        let done = text(&home.run(&install));
        assert!(done.contains("export PANDO_TOKEN"), "{done}");
        let (url, header) = taken(client, &fs::read_to_string(&path).unwrap(), &home.token);
        assert_eq!(url, format!("{}/mcp", home.url));
        let token = header.strip_prefix("Bearer ").expect("a bearer token");
        let agent = Agent::connect(&url, Some(token), era).expect("a session");
        assert!(agent.tools().contains(&"vm_create".to_owned()));
        assert_eq!(agent.ok("vm_list", &json!({}))["total"], 0, "{client}");
        agent.end();
    }
}

#[test]
fn options_become_the_urls_query_and_hold_there() {
    let home = Home::new();
    let install = |options: &[&str]| {
        let line = ["mcp", "install", "--http", "--client", "claude", "--"];
        home.run(&[&line[..], options].concat())
    };
    for wrong in [&["--home", "/x"][..], &["--role", "king"], &["--toolset", "exec,x"], &["--x"]] {
        let refused = install(wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}: {}", text(&refused));
    }
    assert!(!home.path().join(".mcp.json").exists());
    let done = install(&["--read-only", "--toolset", "exec, commit"]);
    assert!(done.status.success(), "{}", text(&done));
    let written = fs::read_to_string(home.path().join(".mcp.json")).unwrap();
    let (url, _) = taken("claude", &written, &home.token);
    assert_eq!(url, format!("{}/mcp?read_only=true&toolset=exec,commit", home.url));
    for era in [Era::Modern, Era::Legacy] {
        let agent = Agent::connect(&url, Some(&home.token), era).expect("a session");
        let tools = agent.tools();
        assert!(tools.contains(&"commit_list".to_owned()), "{tools:?}");
        assert!(!tools.contains(&"commit_create".to_owned()), "{tools:?}");
        let refused = agent.envelope("vm_create", &json!({"name": "shop"}));
        assert_eq!(refused["error"]["code"], "forbidden", "{refused}");
        agent.end();
    }
}

#[test]
fn a_url_is_written_only_if_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home { directory, url: String::new(), token: String::new() };
    let install = ["mcp", "install", "--http", "--client", "cursor"];
    let none = home.run(&install);
    assert_eq!(none.status.code(), Some(9), "{}", text(&none));
    assert!(text(&none).contains("pando config set http.listen on"), "{}", text(&none));
    assert!(!home.path().join(".cursor").exists());
    // The setting is enough: clients may be configured before the daemon runs.
    assert!(home.run(&["config", "set", "http.listen", "on"]).status.success());
    let done = text(&home.run(&install));
    assert!(done.contains("http://127.0.0.1:7717/mcp"), "{done}");
}

#[test]
fn without_the_token_no_session_begins_and_every_era_outlives_the_daemon() {
    let home = Home::new();
    let url = format!("{}/mcp", home.url);
    let listen = home.url.strip_prefix("http://").unwrap();
    for era in [Era::Modern, Era::Legacy] {
        for token in [None, Some("pando_guess")] {
            let error = Agent::connect(&url, token, era).err().expect("refused");
            assert!(error.contains("AuthRequired"), "{error}");
        }
        let agent = Agent::connect(&url, Some(&home.token), era).expect("a session");
        assert_eq!(agent.ok("vm_list", &json!({}))["total"], 0);
        home.kill_daemon();
        home.start(listen);
        assert_eq!(agent.ok("vm_list", &json!({}))["total"], 0, "{era:?}");
        agent.end();
    }
    let log = fs::read_to_string(home.path().join("home/daemon.log")).unwrap();
    assert!(log.contains("turned away") && !log.contains(&home.token), "{log}");
}
