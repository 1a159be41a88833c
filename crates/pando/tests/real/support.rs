//! A home with a machine in it, and the moves that tests make.

pub mod disk;
mod golden;
mod home;
mod processes;

use std::process::{Child, Output};
use std::time::{Duration, Instant};

pub use golden::{Base, SHAPE};
pub use home::{Home, all_files};
pub use processes::{Process, held_by, kill, processes_of, resident, resident_now, signal};
use serde_json::Value;

/// No test waits longer for one thing.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Waits until `found` returns something.
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a child, and takes what it writes meanwhile.
pub fn finish(child: Child) -> Output {
    finish_within(child, DEADLINE)
}

/// Waits this long for a child, and takes what it writes meanwhile.
pub fn finish_within(mut child: Child, patience: Duration) -> Output {
    fn all(pipe: Option<impl std::io::Read>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        bytes
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let stdout = std::thread::spawn(move || all(stdout));
    let stderr = std::thread::spawn(move || all(stderr));
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("the command did not end within {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Returns the envelope that a command with `--json` wrote.
pub fn envelope(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let (out, err) = (&output.stdout, &output.stderr);
        let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
        panic!("no envelope ({error}), {}:\n{out}\n{err}", output.status)
    })
}

/// Returns a result's text.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}
