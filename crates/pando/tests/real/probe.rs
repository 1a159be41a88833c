//! What is asked of QEMU is tested when a daemon starts, once for each QEMU.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use crate::support::{Home, until};

#[test]
fn a_daemon_tests_qemu_when_it_starts_and_remembers_it() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("home"));
    let remembered = home.path().join("machines.json");
    let began = Instant::now();
    home.ok(&["ps"]);
    println!("first answer: {:?}", began.elapsed());
    let report = until("QEMU is tested", || {
        let memory: Value = serde_json::from_slice(&fs::read(&remembered).ok()?).ok()?;
        let reports = memory["reports"].as_object()?;
        reports.iter().find(|(key, _)| key.starts_with("tcg "))?.1.clone().into()
    });
    println!("tested: {:?}: {report}", began.elapsed());
    assert_eq!(report["failure"], Value::Null, "{report}");
    // Saving asks for the state of queues and devices.
    let stages: Vec<&Value> =
        report["passed"].as_array().unwrap().iter().map(|passed| &passed["stage"]).collect();
    assert_eq!(stages, ["device", "boot", "save", "restore"]);

    let doctor = home.json(&["doctor"]);
    let checks = doctor["result"]["checks"].as_array().unwrap();
    let tcg = checks.iter().find(|check| check["what"] == "TCG").unwrap();
    assert_eq!(tcg["verdict"], "fine", "{tcg}");

    // An end waits for a test that is under way: what is not written by then was not done again.
    home.ok(&["daemon", "stop"]);
    let before = fs::metadata(&remembered).unwrap().modified().unwrap();
    home.ok(&["ps"]);
    home.ok(&["daemon", "stop"]);
    assert_eq!(fs::metadata(&remembered).unwrap().modified().unwrap(), before);
    home.assert_nothing_left();
}
