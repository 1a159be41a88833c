//! `pando doctor` on machines where something is missing.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{finish, pando, shown};

#[test]
fn what_is_missing_comes_with_its_fix() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = pando(directory.path());
        command
            .args(arguments)
            .env("PATH", "/nonexistent")
            .env("PANDO_GUEST", "/nonexistent/guest");
        finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    };
    let output = run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(9), "{}", shown(&output));
    let envelope: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(envelope["result"]["ready"], false);
    let checks = envelope["result"]["checks"].as_array().unwrap();
    let find = |what: &str| checks.iter().find(|check| check["what"] == what).expect("a check");
    for (what, verdict, fix) in [
        ("QEMU", "missing", "apt install qemu-system-x86"),
        ("guest program", "missing", "image.guest_program"),
        ("mmdebstrap", "poor", "apt install mmdebstrap"),
    ] {
        let check = find(what);
        assert_eq!(check["verdict"], verdict, "{check}");
        assert!(check["fix"].as_str().unwrap().contains(fix), "{check}");
    }
    for what in ["configuration", "home", "memory", "disk", "reflink", "distribution"] {
        assert!(!find(what)["found"].as_str().unwrap().is_empty(), "{what}");
    }
    let text = shown(&run(&["doctor"]));
    assert!(text.contains("missing") && text.contains("apt install qemu-system-x86"), "{text}");
}

#[test]
fn a_wrong_setting_is_found_and_does_not_hide_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = pando(directory.path());
    command.args(["doctor"]).env("PATH", "/nonexistent").env("PANDO_LIMITS_WORKERS", "many");
    let output = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let text = shown(&output);
    assert!(text.contains("limits.workers") && text.contains("reflink"), "{text}");
}

#[test]
fn a_qemu_that_comes_first_in_the_path_is_taken_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let found = |version: &str| {
        let bin = directory.path().join(version);
        std::fs::create_dir(&bin).unwrap();
        let program = bin.join("qemu-system-x86_64");
        let script = format!("#!/bin/sh\necho QEMU emulator version {version}\n");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let mut command = pando(directory.path());
        command.args(["doctor", "--json"]).env("PATH", &bin);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = finish(child);
        let envelope: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = envelope["result"]["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["what"] == "QEMU").unwrap();
        check["found"].as_str().unwrap().to_owned()
    };
    for version in ["10.0.2", "10.1.0"] {
        let text = found(version);
        assert!(
            text.contains(version) && text.contains(&*directory.path().to_string_lossy()),
            "{text}"
        );
    }
}
