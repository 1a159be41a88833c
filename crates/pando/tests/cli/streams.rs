//! Commands whose streams are handed on: exec, cp.

use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{DEADLINE, Fake, finish, shown};

#[test]
fn exec_hands_on_output_and_the_exit_status() {
    let fake = Fake::new();
    let output = fake.run(&["exec", "shop", "--", "echo", "a", "b"]);
    assert_eq!(shown(&output), "a b\n--- stderr\nwarned\n");
    assert_eq!(fake.run(&["exec", "shop", "--", "exit", "3"]).status.code(), Some(3));
    let output = fake.run(&["exec", "shop", "-c", "unknown command"]);
    assert_eq!(output.status.code(), Some(127), "it could not be started");
    assert!(shown(&output).contains("echo hello"), "{}", shown(&output));
}

#[test]
fn exec_hands_on_piped_input_byte_for_byte() {
    let fake = Fake::new();
    let input: Vec<u8> = (0..1_000_000u32).map(|index| (index % 253) as u8).collect();
    let output = fake.run_with(&["exec", "shop", "--", "cat"], &input);
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
    assert!(fake.run_with(&["exec", "-n", "shop", "--", "cat"], b"x").stdout.is_empty());
}

#[test]
fn an_interrupt_goes_to_the_command() {
    let fake = Fake::new();
    let mut command = fake.command(&["exec", "shop", "--", "signal"]);
    let child = command.stdin(Stdio::null()).spawn().unwrap();
    // The command is attached only after the handlers are there.
    let until = Instant::now() + DEADLINE;
    while fake.control.attached() == 0 {
        assert!(Instant::now() < until, "the command never began");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(finish(child).status.code(), Some(130));
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let fake = Fake::new();
    let mut child = fake.command(&["exec", "shop", "--", "flood", "100000000"]).spawn().unwrap();
    drop(child.stdout.take());
    finish(child);
    let until = Instant::now() + DEADLINE;
    while fake.control.killed() == 0 {
        assert!(Instant::now() < until, "the command was not ended");
        std::thread::yield_now();
    }
}

#[test]
fn exec_as_json_is_the_verb() {
    let fake = Fake::new();
    fake.control.answer(
        "exec_run",
        json!({ "stdout": "x", "stderr": "", "exit_code": 4, "timed_out": false, "duration_ms": 1.0,
                "stdout_bytes": 1, "stderr_bytes": 0, "stdout_truncated": false, "stderr_truncated": false }),
    );
    let output = fake.run_with(&["--json", "exec", "shop", "-e", "A=1", "--", "wc"], b"in");
    let envelope: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(envelope["result"]["stdout"], "x");
    assert_eq!(output.status.code(), Some(4));
    let (_, call) = fake.control.calls().pop().unwrap();
    let params = call.params().unwrap();
    assert_eq!(params["argv"], json!(["wc"]));
    assert_eq!((&params["stdin"], &params["env"]["A"]), (&json!("in"), &json!("1")));
}

#[test]
fn files_are_copied_whole_with_their_mode() {
    let fake = Fake::new();
    let directory = fake.directory.path();
    let here = directory.join("app.conf");
    let contents: Vec<u8> = (0..300_000u32).map(|index| (index % 251) as u8).collect();
    std::fs::write(&here, &contents).unwrap();
    let here = here.to_str().unwrap();
    let output = fake.run(&["cp", here, "shop:/etc/", "--mode", "640"]);
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(fake.control.file("/etc/app.conf"), Some((0o640, contents.clone())));

    let back = directory.join("back");
    let output = fake.run(&["cp", "shop:/etc/app.conf", back.to_str().unwrap()]);
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(std::fs::read(&back).unwrap(), contents);
    let output = fake.run(&["cp", "shop:/etc/app.conf", "-"]);
    assert_eq!(output.stdout, contents);

    let output = fake.run(&["cp", "shop:/none", back.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(std::fs::read(&back).unwrap(), contents, "a failed copy changes nothing");
}
