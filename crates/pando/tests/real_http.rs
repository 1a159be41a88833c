//! The daemon's port with real machines behind it: the API over TCP by the command line, and MCP by
//! the protocol library's own client in both eras, with the daemon killed in the middle. Afterwards
//! nothing is left.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod agents;
#[path = "agents/follow.rs"]
mod follow;
#[allow(dead_code, unused_imports, reason = "other journeys use the rest")]
mod real {
    pub mod support;
}

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::{Agent, Era};
use crate::real::support::{Home, until};

/// A home whose daemon listens on a port, and the way there.
struct Served {
    home: Home,
    url: String,
    token: String,
}

impl Served {
    fn new() -> Self {
        let mut home = Home::new();
        home.set("PANDO_HTTP_LISTEN", "127.0.0.1:0");
        home.ok(&["daemon", "start"]);
        let url = home.ok(&["daemon", "status"])["url"].as_str().unwrap().to_owned();
        // The next daemon takes the same port.
        home.set("PANDO_HTTP_LISTEN", url.strip_prefix("http://").unwrap());
        let token = home.ok(&["token", "show"])["token"].as_str().unwrap().to_owned();
        Self { home, url, token }
    }

    /// Runs the command line over TCP.
    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.home.command(arguments);
        command.env("PANDO_URL", &self.url).env("PANDO_TOKEN", &self.token);
        // Nothing but the URL may lead to the daemon.
        command.env("PANDO_HOME", "/nowhere/pando");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // Input is written while output is read: what comes back may be more than all the pipes and
        // sockets between here and the guest hold.
        std::thread::scope(|scope| {
            scope.spawn(move || pipe.write_all(input).unwrap());
            child.wait_with_output().unwrap()
        })
    }

    fn ok(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat(), b"");
        let mut envelope: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(envelope["success"], true, "{arguments:?}: {envelope:#}");
        envelope["result"].take()
    }

    fn sh(&self, address: &str, line: &str) -> String {
        let output = self.run(&["exec", address, "-n", "-c", line], b"");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{address}: {line}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Kills the daemon and starts the next one.
    fn restart(&self) {
        self.home.kill_daemon();
        self.home.ok(&["daemon", "start"]);
    }
}

#[test]
fn the_command_line_works_over_tcp_with_real_machines() {
    let served = Served::new();
    let made = served.ok(&["vm", "create", "shop", "-m", "256M"]);
    assert_eq!(made["state"], "running");
    assert_eq!(served.sh("shop", "echo one >/srv/state; hostname"), "shop");
    let commit = served.ok(&["commit", "shop", "-t", "before"]);
    assert_eq!(served.ok(&["branch", "shop@before", "-n", "2"])["succeeded"], 2);
    let branches: Vec<String> = served.ok(&["branches", "shop"])["branches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|branch| branch["address"].as_str().unwrap().to_owned())
        .filter(|address| address != "shop@main")
        .collect();
    let [one, two] = branches.as_slice() else { panic!("{branches:?}") };

    // Streams: input and output, a file in and out.
    let input: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    let output = served.run(&["exec", one, "--", "cat"], &input);
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
    let directory = tempfile::tempdir().unwrap();
    let (here, back) = (directory.path().join("in"), directory.path().join("out"));
    std::fs::write(&here, &input).unwrap();
    let there = format!("{one}:/root/file");
    for pair in [[here.to_str().unwrap(), &there], [&there, back.to_str().unwrap()]] {
        let output = served.run(&["cp", pair[0], pair[1]], b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(std::fs::read(&back).unwrap() == input);
    assert_eq!(served.run(&["exec", one, "-c", "exit 7"], b"").status.code(), Some(7));

    // The command ends with its caller, also one that leaves its input unread.
    let mut command = served.home.command(&["exec", one, "--", "sleep", "987"]);
    command.env("PANDO_URL", &served.url).env("PANDO_TOKEN", &served.token);
    let mut waiting = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let running = || served.sh(one, "pgrep -f 'sleep [9]87' || true");
    until("the command runs", || (!running().is_empty()).then_some(()));
    let mut unread = waiting.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || {
        let chunk = vec![0; 1 << 20];
        while unread.write_all(&chunk).is_ok() {}
    });
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    feeding.join().unwrap();
    until("the command ends", || running().is_empty().then_some(()));

    served.restart();
    served.sh(one, "echo two >/srv/state");
    let differences = served.ok(&["diff", one, two]).to_string();
    assert!(differences.contains("/srv/state"), "{differences}");
    served.ok(&["rollback", one, "before"]);
    assert_eq!(served.sh(one, "cat /srv/state"), "one");
    let kept = served.ok(&["log", "shop"]).to_string();
    assert!(kept.contains(commit["commit_id"].as_str().unwrap()), "{kept}");

    let status = served.home.daemon().expect("a daemon").pid;
    let status = std::fs::read_to_string(format!("/proc/{status}/status")).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    println!("the daemon after it all: {resident}");
    served.home.assert_nothing_left();
}

fn work(era: Era) {
    let served = Served::new();
    let url = format!("{}/mcp", served.url);
    let agent = Agent::connect(&url, Some(&served.token), era).expect("a session");
    let made = agent.ok("vm_create", &json!({"name": "shop", "memory_mib": 256}));
    assert_eq!(made["state"], "running");
    assert_eq!(agent.sh("shop", "echo one >/srv/state; hostname"), "shop");
    let commit = agent.ok("commit_create", &json!({"branch": "shop", "tag": "before"}));
    let branched = json!({"from": "shop@before", "names": ["a", "b"]});
    assert_eq!(agent.ok("branch_create", &branched)["succeeded"], 2);
    agent.sh("shop@a", "echo two >/srv/state");

    // The daemon dies in the middle of a call, which is done or undone; the agent and its machines
    // go on.
    let third = json!({"from": "shop@before", "names": ["c"]});
    std::thread::scope(|scope| {
        scope.spawn(|| agent.call_in_vain("branch_create", &third));
        served.home.kill_daemon();
    });
    served.home.ok(&["daemon", "start"]);
    served.home.assert_consistent();
    assert_eq!(agent.sh("shop@a", "cat /srv/state"), "two", "{era:?}");

    let differences =
        agent.ok("state_diff", &json!({"from": "shop@b", "to": "shop@a"})).to_string();
    assert!(differences.contains("/srv/state"), "{differences}");
    let back = agent.ok("branch_rollback", &json!({"branch": "shop@a", "target": "before"}));
    assert_eq!(back["rolled_back_to"], commit["commit_id"]);
    assert_eq!(agent.sh("shop@a", "cat /srv/state"), "one");

    let mut times: Vec<Duration> = (0..40)
        .map(|_| {
            let began = Instant::now();
            agent.ok("exec_run", &json!({"address": "shop@main", "argv": ["true"]}));
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("exec true through MCP over HTTP: p50 {:?}, p90 {:?}", times[20], times[36]);

    // What may lose something is confirmed, and the plan of before a restart still holds.
    let gone = json!({"name": "shop", "force": true, "remove_overlays": true});
    let plan = agent.try_call("vm_delete", &gone).unwrap();
    assert_eq!(plan["result"]["status"], "confirmation_required", "{plan:#}");
    served.restart();
    let next = &plan["next"];
    let deleted = agent.ok(next["tool"].as_str().unwrap(), &next["arguments"]);
    assert_eq!(deleted["removed_overlays"], true, "{deleted:#}");
    assert_eq!(agent.ok("vm_list", &json!({}))["total"], 0);
    agent.end();
    served.home.assert_nothing_left();
}

#[test]
fn an_agent_of_the_stateless_era_works_over_http_and_outlives_the_daemon() {
    work(Era::Modern);
}

#[test]
fn an_agent_with_a_session_works_over_http_and_outlives_the_daemon() {
    work(Era::Legacy);
}
