//! `pando mcp` as a client starts it, against a scripted daemon, and what it writes into clients'
//! configurations.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

#[allow(dead_code, reason = "the tests of the command line use the rest")]
#[path = "cli/support.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use support::{Fake, finish, pando};

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    // Nothing but messages goes to standard output.
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn modern(id: u32, method: &str, mut params: Value) -> String {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

fn initialize() -> String {
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    });
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string()
}

fn answer(lines: &[Value], id: u32) -> &Value {
    lines.iter().find(|line| line["id"] == id).unwrap_or_else(|| panic!("{id} in {lines:?}"))
}

#[test]
fn both_eras_are_served_on_standard_streams() {
    let fake = Fake::new();
    fake.control.answer("vm_list", json!({"vms": [], "total": 0}));
    let call = json!({"name": "vm_list", "arguments": {}});
    let modern = [modern(1, "server/discover", json!({})), modern(2, "tools/call", call.clone())];
    let legacy = [
        initialize(),
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}).to_string(),
    ];
    for session in [modern.join("\n"), legacy.join("\n")] {
        let lines = lines(&fake.run_with(&["mcp"], session.as_bytes()));
        let result = &answer(&lines, 2)["result"];
        assert_eq!(result["isError"], false, "{lines:?}");
        assert_eq!(result["structuredContent"]["result"]["total"], 0);
    }
    let calls = fake.control.calls();
    assert_eq!(calls.len(), 2);
    let sessions: Vec<_> = calls.iter().map(|(caller, _)| caller.session.clone()).collect();
    assert!(sessions[0].as_ref().is_some_and(|session| session.starts_with("mcp:")));
    assert_ne!(sessions[0], sessions[1]);
}

#[test]
fn arguments_choose_what_is_offered() {
    let fake = Fake::new();
    let names = |arguments: &[&str]| -> Vec<String> {
        let request = modern(1, "tools/list", json!({}));
        let lines = lines(&fake.run_with(arguments, request.as_bytes()));
        let tools = answer(&lines, 1)["result"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    let has = |names: &[String], name: &str| names.iter().any(|own| own == name);
    let all = names(&["mcp", "--role", "admin"]);
    assert!(has(&all, "image_build") && has(&all, "exec_run"));
    let ops = names(&["mcp", "--role", "ops"]);
    assert!(has(&ops, "image_build") && !has(&ops, "exec_run"));
    let some = names(&["mcp", "--toolset", "exec"]);
    assert!(has(&some, "connect_info") && !has(&some, "vm_create"));
    let reading = names(&["mcp", "--read-only"]);
    assert!(has(&reading, "vm_list") && !has(&reading, "exec_run"));
    assert!(has(&names(&["mcp", "--compat"]), "vers_execute"));

    let has_role = |role: &str| {
        let mut command = fake.command(&["mcp"]);
        let mut child = command.env("AGENT_ROLE", role).stdin(Stdio::piped()).spawn().unwrap();
        let request = modern(1, "tools/list", json!({}));
        // One that is refused reads nothing.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), request.as_bytes());
        finish(child)
    };
    let ui = has_role("ui");
    let answered = lines(&ui);
    let tools = answer(&answered, 1)["result"]["tools"].as_array().unwrap();
    let changing = tools.iter().filter(|tool| tool["annotations"]["readOnlyHint"] == false);
    let changing: Vec<&Value> = changing.map(|tool| &tool["name"]).collect();
    assert_eq!(changing, ["operation_cancel", "tool_call"]);
    for unknown in ["root", ""] {
        let refused = has_role(unknown);
        assert_eq!(refused.status.code(), Some(2));
        assert!(refused.stdout.is_empty());
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains("dev, ops, admin, ui, lab"), "{text}");
    }

    let wrong = fake.run(&["mcp", "--toolset", "nothing"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("machine,cluster,branch"), "{wrong:?}");
}

#[test]
fn a_server_that_only_reads_says_so_to_the_daemon_too() {
    let fake = Fake::new();
    fake.control.answer("vm_list", json!({"vms": []}));
    let call = |id, name| modern(id, "tools/call", json!({"name": name, "arguments": {}}));
    let session = [call(1, "vm_list"), call(2, "exec_run")].join("\n");
    let lines = lines(&fake.run_with(&["mcp", "--read-only"], session.as_bytes()));
    let refused = &answer(&lines, 2)["result"]["structuredContent"]["error"];
    assert_eq!(refused["code"], "forbidden");
    let calls = fake.control.calls();
    assert!(calls.len() == 1 && calls[0].0.read_only);
}

#[test]
fn without_a_daemon_tools_are_listed_and_calls_say_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let call = modern(2, "tools/call", json!({"name": "vm_list", "arguments": {}}));
    let session = [modern(1, "tools/list", json!({})), call].join("\n");
    let mut command = pando(directory.path());
    command.env("PANDO_SOCKET", directory.path().join("none.sock")).arg("mcp");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), session.as_bytes()).unwrap();
    let lines = lines(&finish(child));
    assert!(answer(&lines, 1)["result"]["tools"].is_array());
    let error = &answer(&lines, 2)["result"]["structuredContent"]["error"];
    assert_eq!(error["code"], "daemon_unreachable");
}

fn install(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = pando(directory);
    command.env_remove("PANDO_HOME").current_dir(directory).args(["mcp", "install"]);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap())
}

#[test]
fn every_client_is_configured_after_showing_how() {
    let cases = [
        ("claude", &[][..], ".mcp.json", "mcpServers"),
        ("claude", &["--user"][..], ".claude.json", "mcpServers"),
        ("vscode", &[][..], ".vscode/mcp.json", "servers"),
        ("cursor", &[][..], ".cursor/mcp.json", "mcpServers"),
    ];
    for (client, extra, file, list) in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file);
        let arguments =
            |more: &[&'static str]| -> Vec<&str> { [&["--client", client], extra, more].concat() };
        let dry = install(directory.path(), &arguments(&["--dry-run"]));
        assert!(dry.status.success(), "{dry:?}");
        let shown = String::from_utf8(dry.stdout).unwrap();
        assert!(shown.contains(file) && shown.contains("+     \"pando\""), "{shown}");
        assert!(!path.exists());

        let done = install(directory.path(), &arguments(&["--", "--role", "ops"]));
        assert!(done.status.success(), "{done:?}");
        let written = fs::read_to_string(&path).unwrap();
        let value: Value = serde_json::from_str(&written).unwrap();
        let entry = &value[list]["pando"];
        assert_eq!(entry["args"], json!(["mcp", "--role", "ops"]));
        assert!(Path::new(entry["command"].as_str().unwrap()).is_absolute());
        assert_eq!(entry.get("type").is_some(), client == "vscode");

        let again = install(directory.path(), &arguments(&["--", "--role", "ops"]));
        assert!(String::from_utf8_lossy(&again.stdout).contains("has it already"), "{again:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), written);
    }
}

#[test]
fn a_configuration_keeps_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(".mcp.json");
    let theirs = "{\n  \"z\": 1.0,\n  \"mcpServers\": {\n    \"other\": {\"url\": \"x\"}\n  }\n}\n";
    fs::write(&path, theirs).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let done = install(directory.path(), &["--client", "claude"]);
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(!shown.contains("\"z\""), "{shown}");
    let ours = fs::read_to_string(&path).unwrap();
    assert!(
        ours.starts_with(
            "{\n  \"z\": 1.0,\n  \"mcpServers\": {\n    \"other\": {\"url\": \"x\"},\n"
        )
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);

    fs::write(&path, "// mine\n{}").unwrap();
    let refused = install(directory.path(), &["--client", "claude"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("\"command\""), "{refused:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "// mine\n{}");
}

#[test]
fn codex_is_configured_in_toml() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(".codex/config.toml");
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "model = \"x\" # mine\n").unwrap();
    let done = install(directory.path(), &["--client", "codex"]);
    assert!(done.status.success(), "{done:?}");
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written.starts_with("model = \"x\" # mine\n\n[mcp_servers.pando]\ncommand = "),
        "{written}"
    );
    assert!(written.ends_with("args = [\"mcp\"]\n"), "{written}");
}
