//! `pando watch` and `pando top` on a real terminal, in a pipe, and for programs.

use std::io::{BufRead, BufReader};
use std::sync::mpsc;

use pando_api::ApiError;
use pando_model::ErrorCode;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

use crate::pty::Terminal;
use crate::support::{DEADLINE, Fake, finish, shown};

fn machine() -> Value {
    json!({
        "vm_id": "shop@main/shop", "cluster_id": "cl_0123456789ab", "name": "shop", "node": "shop",
        "branch": "main", "branch_id": "br_0123456789ab", "state": "running", "branches": 2,
        "running": 1, "image": "default", "vcpus": 1, "memory_mib": 512, "disk_gib": 4,
        "labels": {}, "created_at": "2026-01-01T00:00:00Z", "created_by": "local:0",
    })
}

fn branch(name: &str, id: &str, state: &str) -> Value {
    json!({
        "id": id, "alias": name, "address": format!("shop@{name}"), "cluster_id": "cl_0123456789ab",
        "state": state, "current": name == "main", "created_at": "2026-01-01T00:00:00Z",
        "created_by": "local:0",
    })
}

fn node(cpu_ms: u64, memory: u64) -> Value {
    json!({
        "address": "shop@main/shop", "cluster_id": "cl_0123456789ab", "branch_id": "br_0123456789ab",
        "node": "shop", "state": "running", "uptime_ms": 65000, "vcpus": 1, "cpu_ms": cpu_ms,
        "memory_mib": 512, "host_memory_bytes": memory, "host_disk_bytes": 1 << 20,
        "keeper_memory_bytes": 3 << 20, "keeper_cpu_ms": 10, "commands": 1,
    })
}

fn list(name: &str, rows: &[Value]) -> Value {
    let mut list = json!({ "total": rows.len(), "returned": rows.len(), "truncated": false });
    list[name] = json!(rows);
    list
}

fn usage(at: &str, nodes: &[Value]) -> Value {
    let mut usage = list("nodes", nodes);
    usage["counted_at"] = json!(at);
    usage
}

/// Returns a daemon with a machine of two branches.
fn with_machine() -> Fake {
    let fake = Fake::new();
    let main = branch("main", "br_0123456789ab", "running");
    let other = branch("try-1", "br_0123456789ac", "paused");
    fake.control
        .answer("vm_list", list("vms", &[machine()]))
        .answer("branch_list", list("branches", &[main, other]))
        .answer("vm_usage", usage("2026-01-01T00:00:01Z", &[node(1000, 100 << 20)]))
        .answer("operation_list", list("operations", &[]));
    fake.control.answer(
        "system_status",
        json!({
            "version": "1", "pid": 1, "home": "/h", "started_at": "2026-01-01T00:00:00Z", "warnings": [],
            "counts": {
                "clusters": 1, "branches": 2, "running": 1, "paused": 1, "commits": 0, "images": 1,
                "operations": 0, "stuck_operations": 0,
            },
            "capacity": {
                "memory_total_mib": 8192, "memory_available_mib": 4096, "disk_total_mib": 102_400,
                "disk_free_mib": 51_200, "processors": 2,
            },
        }),
    );
    fake
}

#[test]
fn a_watched_tree_follows_what_happens_and_gives_the_terminal_back() {
    let fake = with_machine();
    let mut terminal = Terminal::new();
    let before = tcgetattr(&terminal.user).unwrap();
    let child = terminal.start(fake.command(&["watch", "--color", "never"]));
    terminal.wait_for("\x1b[?1049h");
    terminal.wait_for("1 machines, 2 branches, 1 running");
    terminal.wait_for("├─ main *");
    terminal.wait_for("1m 05s");
    terminal.wait_for("1 command");
    terminal.wait_for("└─ try-1");
    assert!(!tcgetattr(&terminal.user).unwrap().local_modes.contains(LocalModes::ICANON));

    // Another branch stops by itself, and the daemon goes away for a moment.
    let mut lost = branch("try-1", "br_0123456789ac", "stopped");
    lost["reason"] = json!("its keeper was lost");
    fake.control.answer("branch_list", list("branches", &[lost]));
    terminal.wait_for("its keeper was lost");
    fake.control.fail("vm_list", ApiError::new(ErrorCode::DaemonUnreachable, "nobody answers"));
    terminal.wait_for("nobody answers");
    fake.control.answer("vm_list", list("vms", &[machine()]));
    terminal.wait_for("└─ try-1");

    terminal.write("q");
    terminal.wait_for("\x1b[?25h\x1b[?1049l");
    assert_eq!(finish(child).status.code(), Some(0));
    let after = tcgetattr(&terminal.user).unwrap();
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.input_modes, before.input_modes);
}

#[test]
fn every_way_out_gives_the_terminal_back() {
    let fake = with_machine();
    for command in ["watch", "top"] {
        for way in ["\x03", "TERM"] {
            let mut terminal = Terminal::new();
            let before = tcgetattr(&terminal.user).unwrap();
            let child = terminal.start(fake.command(&[command]));
            terminal.wait_for("q leaves");
            if way == "TERM" {
                let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
                kill_process(pid, Signal::TERM).unwrap();
            } else {
                terminal.write(way);
            }
            terminal.wait_for("\x1b[?1049l");
            assert_eq!(finish(child).status.code(), Some(0));
            let after = tcgetattr(&terminal.user).unwrap();
            assert_eq!(after.local_modes, before.local_modes, "{command} {way}");
        }
    }
}

#[test]
fn a_small_terminal_shows_what_fits() {
    let fake = with_machine();
    let many = |number: usize| branch(&format!("b{number}"), &format!("br_{number:012}"), "paused");
    let branches: Vec<Value> = (0..40).map(many).collect();
    fake.control.answer("branch_list", list("branches", &branches));
    let mut terminal = Terminal::new();
    terminal.resize(10, 40);
    let child = terminal.start(fake.command(&["watch"]));
    terminal.wait_for("more");
    terminal.write("q");
    terminal.wait_for("\x1b[?1049l");
    finish(child);
}

#[test]
fn a_pipe_gets_a_line_for_each_change() {
    let fake = with_machine();
    let mut child = fake.command(&["watch"]).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let next = || lines.recv_timeout(DEADLINE).unwrap();
    assert!(next().ends_with("shop@main  running"));
    assert!(next().ends_with("shop@try-1  paused"));
    let gone = list("branches", &[branch("main", "br_0123456789ab", "stopped")]);
    fake.control.answer("branch_list", gone);
    assert!(next().ends_with("shop@main  stopped"));
    let line = next();
    assert!(line.ends_with("shop@try-1  gone") && !line.contains('\x1b'), "{line}");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(finish(child).status.code(), Some(0));
    reader.join().unwrap();
}

#[test]
fn one_look_is_a_tree_or_an_object() {
    let fake = with_machine();
    let text = shown(&fake.run(&["watch", "--once"]));
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows.len(), 4, "{text}");
    assert!(rows[1].starts_with("shop") && rows[1].ends_with("default"), "{text}");
    assert!(rows[2].starts_with("├─ main *  running  1m 05s"), "{text}");
    assert!(rows[3].starts_with("└─ try-1   paused"), "{text}");

    let object = fake.run(&["watch", "--once", "--json"]);
    let object: Value = serde_json::from_slice(&object.stdout).unwrap();
    assert_eq!(object["result"]["vms"][0]["name"], "shop");
    assert_eq!(object["result"]["nodes"][0]["uptime_ms"], 65000);

    fake.control.fail("vm_usage", ApiError::new(ErrorCode::Internal, "no"));
    assert_eq!(fake.run(&["watch", "--once"]).status.code(), Some(70));
    assert_eq!(fake.run(&["top", "--once"]).status.code(), Some(70));
}

#[test]
fn how_busy_machines_are_is_counted_between_two_looks() {
    let fake = with_machine();
    // One second and 500 ms of processor time later.
    let later = std::sync::atomic::AtomicBool::new(false);
    fake.control.on(
        "vm_usage",
        std::sync::Arc::new(move |_, _| {
            Ok(match later.swap(true, std::sync::atomic::Ordering::Relaxed) {
                false => usage("2026-01-01T00:00:01Z", &[node(1000, 100 << 20)]),
                true => usage("2026-01-01T00:00:02Z", &[node(1500, 120 << 20)]),
            })
        }),
    );
    let object = fake.run(&["top", "--once", "--json"]);
    let object: Value = serde_json::from_slice(&object.stdout).unwrap();
    let row = &object["result"]["nodes"][0];
    assert_eq!((&row["cpu_percent"], &row["host_memory_bytes"]), (&json!(50.0), &json!(120 << 20)));
    assert_eq!(object["result"]["capacity"]["processors"], 2);
}

#[test]
fn a_key_sorts_the_table() {
    let fake = with_machine();
    let mut small = node(9000, 1 << 20);
    small["address"] = json!("shop@try-1/shop");
    small["branch_id"] = json!("br_0123456789ac");
    let nodes = [node(1000, 100 << 20), small];
    fake.control.answer("vm_usage", usage("2026-01-01T00:00:01Z", &nodes));
    let mut terminal = Terminal::new();
    let child = terminal.start(fake.command(&["top", "--sort", "name", "--color", "never"]));
    terminal.wait_for("sorted by name");
    terminal.wait_for("shop@main/shop");
    terminal.wait_for("shop@try-1/shop");
    terminal.write("m");
    terminal.wait_for("sorted by memory");
    terminal.wait_for("100 MiB");
    terminal.write("q");
    terminal.wait_for("\x1b[?1049l");
    finish(child);

    let text = shown(&fake.run(&["top", "--once", "--sort", "memory"]));
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows[0].contains("2 processors") && rows[2].starts_with("shop@main/shop"), "{text}");
    assert_eq!(fake.run(&["top", "--sort", "luck"]).status.code(), Some(2));
}
