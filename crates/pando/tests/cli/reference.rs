//! The pages under `docs/reference`: that they are what this program writes, and that the call each
//! example makes is the same over every front end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pando_api::{Call, Toolset, Verb, catalogue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{DEADLINE, Fake, finish, pando, shown};

/// Verbs whose command streams and makes no such call.
const STREAMED: &[&str] = &["file_push", "file_pull"];

/// Verbs that MCP answers from an operation's events.
const FOLLOWED: &[&str] = &["operation_wait"];

/// Parameters that a command gives another default, as `cli::parity` lists with the reason.
const OF_COMMANDS: &[(&str, &str)] = &[("state_diff", "max_bytes")];

/// Parameters that MCP gives another value: a result has at most 8 KB, a call waits less than a
/// minute, so a command that may take longer is an operation.
const OF_TOOLS: &[(&str, &str)] = &[
    ("", "limit"),
    ("", "max_bytes"),
    ("", "max_output_bytes"),
    ("", "tail_bytes"),
    ("exec_run", "detach"),
];

fn pages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference")
}

/// Returns each verb's example, as its page has it: the command line and the parameters.
fn examples() -> BTreeMap<&'static str, (String, Value)> {
    let mut examples = BTreeMap::new();
    for toolset in Toolset::ALL {
        let page =
            std::fs::read_to_string(pages().join(format!("{}.md", toolset.as_str()))).unwrap();
        for section in page.split("\n## ").skip(1) {
            let name = section.lines().next().unwrap();
            let line = section.split("\n$ ").nth(1).unwrap().lines().next().unwrap();
            let params = section.split("```json\n").nth(1).unwrap().lines().next().unwrap();
            let verb = Verb::find(name).expect(name);
            examples.insert(verb.name, (line.to_owned(), serde_json::from_str(params).unwrap()));
        }
    }
    examples
}

#[test]
fn the_reference_is_what_the_verbs_say() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = pando(directory.path());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().unwrap())
    };
    let output = run(&["gen", "--check", pages().to_str().unwrap()]);
    assert!(output.status.success(), "{}", shown(&output));

    // What is checked is what would be written, and every difference is named.
    let mine = directory.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    let path = mine.to_str().unwrap();
    assert!(run(&["gen", path]).status.success());
    assert!(run(&["gen", "--check", path]).status.success());
    std::fs::remove_file(mine.join("errors.md")).unwrap();
    std::fs::write(mine.join("exec.md"), "# Work").unwrap();
    std::fs::write(mine.join("notes.md"), "mine").unwrap();
    let output = run(&["gen", "--check", path]);
    assert_eq!(output.status.code(), Some(4));
    let text = shown(&output);
    assert!(text.contains("errors.md, exec.md, notes.md"), "{text}");
    assert!(text.contains(&format!("cargo run -p pando -- gen {path}")), "{text}");
    assert!(run(&["gen", path]).status.success());
    assert_eq!(std::fs::read_to_string(mine.join("notes.md")).unwrap(), "mine");
    assert_eq!(run(&["gen", "/nonexistent"]).status.code(), Some(2));

    let document = run(&["gen", "openapi"]);
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document, pando_api::openapi());
}

/// Returns the result that a verb's example is answered with: for a list, an empty one.
fn scripted(fake: &Fake) {
    for verb in catalogue() {
        fake.control.answer(verb.name, json!({}));
    }
}

/// Runs a line of the reference in a shell, and returns the calls that it made.
fn typed(fake: &Fake, line: &str) -> Vec<Call> {
    let before = fake.control.calls().len();
    let binary = Path::new(env!("CARGO_BIN_EXE_pando")).parent().unwrap();
    let line = line.replacen("pando", "pando --json", 1);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &line])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
        .env("HOME", fake.directory.path())
        .env("PANDO_SOCKET", fake.directory.path().join("s/daemon.sock"))
        .current_dir(fake.directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = finish(command.spawn().unwrap());
    let calls: Vec<Call> = fake.control.calls().drain(before..).map(|(_, call)| call).collect();
    assert!(!calls.is_empty() || line.contains(" cp "), "{line}: {}", shown(&output));
    calls
}

/// Posts parameters to a verb's route.
async fn posted(fake: &Fake, name: &str, params: &Value) -> u16 {
    let body = params.to_string();
    let request = format!(
        "POST /v1/{name} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let socket = fake.directory.path().join("s/daemon.sock");
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap();
    answer[9..12].parse().unwrap()
}

/// Calls a tool as an agent does, and confirms the plan if there is one.
fn called(fake: &Fake, verb: &'static Verb, params: &Value) -> Vec<Call> {
    let request = |arguments: &Value| {
        let params = json!({
            "name": verb.name, "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        });
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string()
    };
    let before = fake.control.calls().len();
    let output = fake.run_with(&["mcp", "--role", "admin"], request(params).as_bytes());
    assert!(output.status.success(), "{}: {}", verb.name, shown(&output));
    fake.control.calls().drain(before..).map(|(_, call)| call).collect()
}

/// Returns a call with the parameters of this list as they were given, or with their defaults.
fn usual(call: &Call, list: &[(&str, &str)], given: &Value) -> Call {
    let mut params = call.params().unwrap();
    let object = params.as_object_mut().unwrap();
    for (_, name) in list.iter().filter(|(verb, _)| verb.is_empty() || *verb == call.name()) {
        object.remove(*name);
        if let Some(value) = given.get(name) {
            object.insert((*name).to_owned(), value.clone());
        }
    }
    Call::parse(call.name(), params).unwrap()
}

#[test]
fn an_example_is_the_same_call_over_every_front_end() {
    let fake = Fake::new();
    scripted(&fake);
    std::fs::write(fake.directory.path().join("motd"), "hello\n").unwrap();
    fake.control.put_file("/etc/os-release", 0o644, b"ID=debian\n");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let examples = examples();
    assert_eq!(examples.len(), catalogue().len());
    for verb in catalogue() {
        let (line, params) = &examples[verb.name];
        let expected = Call::parse(verb.name, params.clone()).expect(verb.name);

        let before = fake.control.calls().len();
        assert_eq!(runtime.block_on(posted(&fake, verb.name, params)), 200, "{}", verb.name);
        assert_eq!(fake.control.calls()[before].1, expected, "HTTP: {params}");

        if STREAMED.contains(&verb.name) {
            assert_eq!(typed(&fake, line), [], "{line}");
        } else {
            let typed: Vec<Call> =
                typed(&fake, line).iter().map(|call| usual(call, OF_COMMANDS, params)).collect();
            assert_eq!(typed, std::slice::from_ref(&expected), "{line}");
        }

        // A destructive tool asks for its plan to be confirmed before the call is made at all;
        // `pando-mcp` tests that the confirmed call is the planned one.
        if FOLLOWED.contains(&verb.name) {
            continue;
        }
        let called = called(&fake, verb, params);
        let made: Vec<Call> = called
            .iter()
            .filter(|call| call.name() == verb.name)
            .map(|call| usual(call, OF_TOOLS, params))
            .collect();
        if made.is_empty() {
            assert_eq!(verb.effect, pando_api::Effect::Destructive, "MCP: {params}: {called:?}");
        } else {
            assert_eq!(made, [expected], "MCP: {params}");
        }
    }
    assert_eq!(fake.control.file("/etc/motd"), Some((0o644, b"hello\n".to_vec())));
}
