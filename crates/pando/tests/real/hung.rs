//! A machine that hangs: nothing of it can be saved, and each refusal names the command that helps.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, signal, text};

const DUO: &str = "name: duo
image: default
network: {name: lan, subnet: 10.9.0.0/24}
nodes:
  - {name: a, memory: 256 MiB, services: [{name: broken, command: /bin/false}]}
  - {name: b, memory: 256 MiB}
";

/// Runs the last command of a hint.
fn follow(home: &Home, error: &Value) -> Value {
    let command = text(error, "hint").split('`').rfind(|part| part.starts_with("pando "));
    let words: Vec<&str> = command.unwrap().split_whitespace().skip(1).collect();
    println!("{words:?}");
    home.ok(&words)
}

/// Asks about a cluster whose node `b` hangs: everything is told of the others, and of `b` that it does
/// not answer, and soon.
fn ask(home: &Home) {
    let began = Instant::now();
    let status = home.ok(&["cluster", "status", "duo"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(
        (&status["nodes"][0]["answers"], &status["nodes"][1]["answers"]),
        (&true.into(), &false.into())
    );
    assert!(text(&status["nodes"][1], "reason").contains("not answered"), "{status:#}");
    // Once a second it runs for a moment.
    let is_told = || {
        let status = home.ok(&["vm", "status", "duo/a"]);
        status["health"] == "degraded" && status["failed_services"][0] == "broken.service"
    };
    assert!((0..10).any(|_| is_told()), "a service that failed is told");

    let began = Instant::now();
    let command = ["node", "exec", "duo", "b", "true", "--timeout", "1s"];
    let refused = home.fails(&command, "guest_unreachable");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(text(&refused, "hint").contains("`pando node crash duo@main b`"), "{refused:#}");
    let cut = home.ok(&["net", "partition", "duo", "a"]);
    assert_eq!(cut["verified"], "unknown", "{cut:#}");
    assert!(text(&cut, "evidence").contains("guest of `b`"), "{cut:#}");
}

#[test]
fn what_hangs_cannot_be_saved_and_the_hint_says_how_to_go_on() {
    let mut home = Home::new();
    home.define(DUO);
    // Nodes with an interface have a ready state of their own.
    home.remember();
    home.ok(&["cluster", "start", "duo"]);
    let on_b = |line: &str| {
        let ran = home.ok(&["node", "exec", "duo", "b", line]);
        text(&ran, "stdout").trim_end().to_owned()
    };
    on_b("echo one >/dev/shm/state");
    home.ok(&["commit", "duo", "-t", "v1"]);
    on_b("echo two >/dev/shm/state; echo disk >/root/state; sync");

    signal(home.machine("duo@main/b").pid, Signal::STOP);
    let refused = home.fails(&["rollback", "duo", "v1"], "machine_failed");
    println!("{refused:#}");
    assert!(text(&refused, "hint").contains("`save: false`"), "{refused:#}");
    let back = follow(&home, &refused);
    assert_eq!(back.get("saved_as").and_then(Value::as_str), None, "{back}");
    assert_eq!(on_b("cat /dev/shm/state; cat /root/state 2>&1 | grep -c No"), "one\n1");

    on_b("echo disk >/root/state; sync");
    signal(home.machine("duo@main/b").pid, Signal::STOP);
    ask(&home);
    let refused = home.fails(&["commit", "duo"], "machine_failed");
    println!("{refused:#}");
    assert_eq!(follow(&home, &refused)["restarted"], true);
    assert_eq!(on_b("cat /root/state"), "disk");
    assert_eq!(home.ok(&["cluster", "status", "duo"])["state"], "running");
    home.ok(&["cluster", "destroy", "duo", "--remove-overlays"]);
    home.assert_nothing_left();
}
