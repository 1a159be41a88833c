//! Results: tables, graphs, JSON, progress, failures.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use pando_api::{ApiError, Call};
use pando_model::ErrorCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{DEADLINE, Fake, finish, shown};

const THEN: &str = "2020-01-02T03:04:05Z";

fn page(count: usize) -> Value {
    json!({ "total": count, "returned": count, "truncated": false })
}

fn with(mut list: Value, page: &Value) -> Value {
    let (list_fields, page) = (list.as_object_mut().unwrap(), page.as_object().unwrap());
    list_fields.extend(page.clone());
    list
}

/// Returns an id that stands for a name; ids have no `i`, `l`, `o` and `u`.
fn id(kind: &str, name: &str) -> String {
    let name = name.replace('o', "0").replace(['i', 'l'], "1").replace('u', "v");
    format!("{kind}_{name:0>12}")
}

fn vm(name: &str, branches: u32) -> Value {
    json!({
        "vm_id": "br_00000000000a", "cluster_id": id("cl", name), "name": name,
        "node": name, "branch": "main", "branch_id": "br_00000000000a", "state": "running",
        "branches": branches, "running": 1, "image": "default", "vcpus": 1, "memory_mib": 512,
        "disk_gib": 4, "created_at": THEN, "created_by": "local:0",
    })
}

fn branch(cluster: &str, name: &str, state: &str, current: bool) -> Value {
    json!({
        "id": id("br", name), "alias": name, "address": format!("{cluster}@{name}"),
        "cluster_id": id("cl", cluster), "commit_id": "cm_0123456789ab", "state": state,
        "current": current, "created_at": THEN, "created_by": "local:0",
    })
}

fn commit(letter: char, parents: &[char], branch: &str, message: &str) -> Value {
    let full = |letter: &char| format!("cm_00000000000{letter}");
    json!({
        "id": full(&letter), "parents": parents.iter().map(full).collect::<Vec<_>>(),
        "tags": if letter == 'a' { vec!["v1"] } else { vec![] },
        "heads": if letter == 'd' { vec!["main"] } else { vec![] },
        "branch": branch, "branch_id": "br_00000000000a", "cluster_id": id("cl", "shop"),
        "vm_id": "br_00000000000a", "message": message, "kind": "full", "size_bytes": 6_291_456,
        "created_at": THEN, "created_by": "local:0",
    })
}

fn scripted() -> Fake {
    let fake = Fake::new();
    let control = &fake.control;
    let branches = json!([
        branch("shop", "main", "running", true),
        branch("shop", "try1", "paused", false),
        branch("web", "main", "stopped", true),
    ]);
    control.answer("vm_list", with(json!({ "vms": [vm("shop", 2), vm("web", 1)] }), &page(2)));
    control.answer("branch_list", with(json!({ "branches": branches }), &page(3)));
    control.answer(
        "commit_list",
        with(
            json!({ "commits": [
                commit('d', &['b'], "main", "after"),
                commit('c', &['b'], "try1", "\u{1b}[31mred herring"),
                commit('b', &['a'], "main", ""),
                commit('a', &[], "main", "the first"),
            ]}),
            &json!({ "total": 9, "returned": 4, "truncated": true, "next_cursor": "x4" }),
        ),
    );
    control.answer(
        "vm_create",
        json!({
            "cluster_id": id("cl", "shop"), "branch_id": "br_00000000000a",
            "vm_id": "br_00000000000a", "name": "shop", "node": "shop", "address": "shop@main",
            "image_id": "im_0123456789ab", "state": "running", "warm": true, "ready_ms": 240,
        }),
    );
    control.answer(
        "branch_create",
        json!({
            "branches": [
                { "branch_id": "br_00000000try1", "vm_id": "br_00000000try1", "name": "try1",
                  "address": "shop@try1", "state": "running", "warm": true, "advanced_ms": 12,
                  "ready_ms": 14, "inherited": [{ "node": "shop", "pid": 7, "command": "sleep 1000" }] },
                { "name": "try2", "address": "shop@try2", "state": "stopped", "warm": false,
                  "advanced_ms": 0, "ready_ms": 0,
                  "error": { "code": "memory_full", "message": "not enough memory", "recoverable": true } },
            ],
            "commit_id": "cm_0123456789ab", "succeeded": 1, "failed": 1, "pause_ms": 15,
        }),
    );
    control.answer(
        "commit_create",
        json!({
            "commit_id": "cm_0123456789ab", "tag": "v1", "branch_id": "br_00000000000a",
            "address": "shop@main", "kind": "full", "pause_ms": 12.4, "duration_ms": 130,
            "size_bytes": 20_971_520,
        }),
    );
    control.answer(
        "branch_rollback",
        json!({
            "success": true, "rolled_back_to": "cm_0123456789ab", "saved_as": "cm_00000000000c",
            "branch_id": "br_00000000000a", "address": "shop@main", "state": "running",
            "warm": false, "advanced_ms": 0, "ready_ms": 210,
        }),
    );
    control.answer(
        "exec_fanout",
        json!({
            "results": [
                { "branch": "shop@main", "stdout": "up\n", "stderr": "", "exit_code": 0,
                  "timed_out": false, "duration_ms": 3.2, "stdout_bytes": 3, "stderr_bytes": 0,
                  "stdout_truncated": false, "stderr_truncated": false },
                { "branch": "shop@try1", "stdout": "", "stderr": "no\n", "exit_code": 2,
                  "timed_out": false, "duration_ms": 3.2, "stdout_bytes": 0, "stderr_bytes": 3,
                  "stdout_truncated": false, "stderr_truncated": false },
            ],
            "succeeded": 1, "failed": 1, "duration_ms": 9,
        }),
    );
    control.answer(
        "system_status",
        json!({
            "version": "0.1.0", "pid": 7, "home": "/h", "started_at": THEN,
            "counts": { "clusters": 2, "branches": 3, "running": 1, "paused": 1, "commits": 4,
                        "images": 1, "operations": 0, "stuck_operations": 0 },
            "capacity": { "memory_total_mib": 8192, "memory_available_mib": 4096,
                          "disk_total_mib": 100, "disk_free_mib": 50, "processors": 2 },
            "warnings": ["QEMU is untested on this distribution"],
        }),
    );
    let node = |name: &str, state: &str, ssh: bool| {
        json!({ "name": name, "role": "node", "ip": "10.0.0.1", "domain_state": state,
                "answers": state == "running", "ssh_reachable": ssh })
    };
    control.answer(
        "cluster_start",
        json!({
            "cluster_name": "duo", "cluster_id": id("cl", "duo"), "address": "duo@main",
            "branch_id": "br_00000000000a", "state": "running", "fresh": false, "network_active": true,
            "active_faults": 0, "branches": 1, "running_branches": 1,
            "nodes": [node("db", "running", false), node("web", "crashed", false)],
            "started": ["db"], "warm": true, "ready_ms": 700, "set_up": 0,
            "ssh_missing": { "db": "no SSH server answers on duo@main/db" },
            "hint": "the nodes run, and commands need no SSH",
        }),
    );
    control.answer(
        "gc",
        json!({ "dry_run": true, "count": 1, "freed_bytes": 4096,
                "removed": [{ "kind": "layer", "id": "ly_0123456789ab", "bytes": 4096, "reason": "no branch needs it" }] }),
    );
    fake
}

#[test]
fn results_are_as_reviewed() {
    let fake = scripted();
    let mut all = String::new();
    for line in [
        "ps",
        "ps -q",
        "vm list",
        "vm ls -q",
        "branches shop",
        "log",
        "log --graph shop@main",
        "vm create shop",
        "vm create shop -q",
        "vm create shop --no-wait -q",
        "branch shop try1 try2",
        "branch shop try1 try2 -q",
        "commit shop -m x -t v1",
        "rollback shop v1",
        "rollback v1 --no-save",
        "fanout shop@main shop@try1 -- uptime",
        "cluster start duo",
        "status",
        "gc --dry-run",
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let text = shown(&fake.run(&words));
        let text = text.lines().map(|line| match line.split_once("op_") {
            Some((before, after)) => {
                format!("{before}op_…{}", after.get(12..).unwrap_or_default())
            }
            None => line.to_owned(),
        });
        let text = text.collect::<Vec<_>>().join("\n");
        all.push_str(&format!("$ pando {line}\n{text}\n\n"));
    }
    insta::assert_snapshot!("results", all);
    let calls: Vec<Call> = fake.control.calls().into_iter().map(|(_, call)| call).collect();
    let last = calls.iter().rfind(|call| call.name() == "branch_rollback").unwrap();
    assert_eq!(last.params().unwrap(), json!({ "target": "v1", "save": false, "exact": false }));
}

#[test]
fn json_is_the_envelope_and_nothing_else() {
    let fake = scripted();
    for line in
        ["ps --json", "--json vm list", "log --json", "vm create shop --json", "status --json"]
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = fake.run(&words);
        assert!(output.stderr.is_empty(), "{line}: {}", shown(&output));
        let envelope: Value = serde_json::from_slice(&output.stdout).expect(line);
        assert_eq!(envelope["success"], true, "{line}");
        assert!(envelope["result"].is_object(), "{line}");
    }
}

#[test]
fn failures_say_what_next_and_set_the_exit_status() {
    let fake = Fake::new();
    let error = ApiError::new(ErrorCode::NotFound, "no cluster is named `shpo`")
        .hint("pando ps")
        .subject("shpo");
    fake.control.fail("vm_status", error.clone()).fail("vm_delete", error);
    let output = fake.run(&["vm", "status", "shpo"]);
    assert_eq!(
        shown(&output),
        "--- stderr\npando: no cluster is named `shpo`\n  try:   pando ps\n--- exit status 3\n"
    );
    let output = fake.run(&["vm", "rm", "shpo", "--json"]);
    let envelope: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(envelope["error"]["code"], "not_found");
    assert!(envelope["error"]["operation"].is_string());
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn an_empty_home_says_how_to_begin() {
    let fake = Fake::new();
    fake.control.answer("vm_list", with(json!({ "vms": [] }), &page(0)));
    fake.control.answer("branch_list", with(json!({ "branches": [] }), &page(0)));
    assert!(shown(&fake.run(&["ps"])).contains("pando vm create shop"));
}

#[test]
fn globals_travel_with_the_call() {
    let fake = scripted();
    fake.run(&["vm", "create", "shop", "--key", "k1", "--read-only"]);
    let (caller, _) = fake.control.calls().pop().unwrap();
    assert_eq!(caller.idempotency_key.as_deref(), Some("k1"));
    assert!(caller.read_only);
}

#[test]
fn what_a_read_only_session_may_not_do_itself_is_refused_too() {
    let fake = scripted();
    for command in [
        &["daemon", "stop"][..],
        &["config", "set", "http.listen", "on"],
        &["token", "rotate"],
        &["ssh", "shop", "--", "true"],
        &["mcp", "install", "--client", "claude"],
        &["init"],
        &["demo"],
    ] {
        let refused = fake.run(&[&["--read-only", "--json"], command].concat());
        let envelope: Value = serde_json::from_slice(&refused.stdout).unwrap();
        assert_eq!(envelope["error"]["code"], "forbidden", "{command:?}: {envelope}");
    }
    assert!(fake.run(&["config", "path", "--read-only"]).status.success());
}

#[test]
fn numbers_may_have_fractions_and_be_below_zero() {
    let fake = scripted();
    fake.control.fail("net_impair", ApiError::new(ErrorCode::NotFound, "there is no trio"));
    let numbers = ["--loss-pct", "0.5", "--latency-ms", "10", "--jitter-ms", "2.5"];
    fake.run(&[&["net", "impair", "trio", "a", "b"], &numbers[..]].concat());
    let (_, call) = fake.control.calls().pop().unwrap();
    let params = call.params().unwrap();
    assert_eq!((&params["loss_pct"], &params["jitter_ms"]), (&0.5.into(), &2.5.into()));
    for (number, words) in [("-5", "latency_ms"), ("a lot", "is not a number")] {
        let output = fake.run(&["net", "impair", "trio", "a", "b", "--latency-ms", number]);
        assert_eq!(output.status.code(), Some(2), "{number}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{number}: {said}");
    }
}

#[test]
fn waiting_for_what_failed_fails() {
    let fake = scripted();
    for (status, expected) in [("succeeded", 0), ("running", 0), ("failed", 1), ("cancelled", 1)] {
        fake.control.answer("operation_wait", json!({"status": status}));
        let output = fake.run(&["operation", "wait", "op_000000000001"]);
        assert_eq!(output.status.code(), Some(expected), "{status}");
    }
}

#[test]
fn another_version_of_the_daemon_is_mentioned() {
    let fake = Fake::of_version("0.0.1");
    fake.control.answer("system_status", json!({}));
    assert!(shown(&fake.run(&["status"])).contains("pando daemon restart"));
}

#[test]
fn each_of_several_targets_is_a_request_of_its_own() {
    let fake = Fake::new();
    fake.control.answer("vm_control", json!({}));
    fake.run(&["stop", "shop", "web"]);
    fake.run(&["stop", "shop", "web", "--key", "k1"]);
    let calls = fake.control.calls();
    let callers: Vec<_> = calls
        .into_iter()
        .filter(|(_, call)| call.name() == "vm_control")
        .map(|(caller, _)| caller)
        .collect();
    let requests: BTreeSet<_> = callers.iter().map(|caller| caller.request_id.clone()).collect();
    assert_eq!(requests.len(), 4, "{callers:?}");
    let keys: Vec<_> = callers[2..].iter().map(|c| c.idempotency_key.as_deref()).collect();
    assert_eq!(keys, [Some("k1"), Some("k1/1")]);
}

#[test]
fn progress_without_a_terminal_is_lines() {
    let fake = Fake::new();
    let id = fake.control.begin("image_build");
    fake.control.answer("image_build", json!({ "operation": id }));
    let mut child = fake.command(&["image", "build"]).spawn().unwrap();
    let control = Arc::clone(&fake.control);
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    // Said only once the work has taken a while, so the first line is waited for.
    control.progress(&id, "unpacking packages", 1);
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    assert_eq!(line, "… unpacking packages\n");
    control.finish(&id, Ok(json!({ "name": "default" })));
    assert!(finish(child).status.success());
}

#[test]
fn an_interrupt_leaves_the_operation_and_says_where_it_is() {
    let fake = Fake::new();
    let id = fake.control.begin("image_build");
    fake.control.answer("image_build", json!({ "operation": id }));
    let child = fake.command(&["image", "build"]).spawn().unwrap();
    let until = Instant::now() + DEADLINE;
    while fake.control.calls().is_empty() {
        assert!(Instant::now() < until, "the call never came");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(6), "{}", shown(&output));
    assert!(shown(&output).contains(&format!("pando operation wait {id}")), "{}", shown(&output));
}

#[test]
fn a_daemon_that_is_not_there_is_named() {
    let fake = Fake::new();
    let mut command = fake.command(&["ps"]);
    command.env("PANDO_SOCKET", fake.directory.path().join("none.sock"));
    let output = finish(command.spawn().unwrap());
    assert_eq!(output.status.code(), Some(9));
    assert!(shown(&output).contains("pando daemon start"), "{}", shown(&output));
}
