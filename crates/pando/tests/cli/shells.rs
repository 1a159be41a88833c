//! Completion in real shells, on a real terminal: what is typed, a tab, and what the line then
//! says.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::pty::Terminal;
use crate::support::Fake;

/// Returns a scripted daemon with things whose names complete.
fn named() -> Fake {
    let fake = Fake::new();
    fake.control.answer("vm_list", json!({ "vms": [{ "name": "shop" }, { "name": "web" }] }));
    fake.control.answer(
        "branch_list",
        json!({ "branches": [{ "address": "shop@main" }, { "address": "shop@try-1" }] }),
    );
    fake.control
        .answer("commit_list", json!({ "commits": [{ "id": "cm_0123456789ab", "tags": ["v1"] }] }));
    let clusters = json!({ "clusters": [{ "name": "trio", "nodes": ["db", "web-1"] }] });
    fake.control.answer("cluster_list", clusters);
    fake.control.answer("image_list", json!({ "images": [{ "name": "default" }] }));
    fake.control
        .answer("operation_list", json!({ "operations": [{ "operation_id": "op_0123456789ab" }] }));
    fake
}

/// What is typed before the tab, and what the line says after it.
const LINES: &[(&str, &str)] = &[
    ("pando rollb", "pando rollback"),
    ("pando vm rm w", "pando vm rm web"),
    ("pando exec shop@t", "pando exec shop@try-1"),
    ("pando diff shop@main shop@t", "pando diff shop@main shop@try-1"),
    ("pando show v", "pando show v1"),
    ("pando vm create x --image d", "pando vm create x --image default"),
    ("pando cluster start tr", "pando cluster start trio"),
    ("pando node exec trio w", "pando node exec trio web-1"),
    ("pando net partition shop@t", "pando net partition shop@try-1"),
    ("pando snapshot revert trio v", "pando snapshot revert trio v1"),
    ("pando operation wait op", "pando operation wait op_0123456789ab"),
];

/// Types each line into a shell and asserts what a tab makes of it.
fn complete(fake: &Fake, words: &[&str], prepare: &str) {
    // With the terminal as its own, as a shell that somebody sits at has it.
    let mut shell = Command::new("setsid");
    shell.args(["--ctty", "--wait"]).args(words);
    let binary = Path::new(env!("CARGO_BIN_EXE_pando")).parent().unwrap();
    shell
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
        .env("HOME", fake.directory.path())
        .env("TERM", "dumb")
        .env("PANDO_HOME", fake.directory.path().join("home"))
        .env("PANDO_SOCKET", fake.directory.path().join("s/daemon.sock"))
        .current_dir(fake.directory.path());
    let mut terminal = Terminal::new();
    let mut child = terminal.start(shell);
    // Two halves, so that the typed line is not taken for its answer.
    terminal.write(&format!("{prepare}; echo rea''dy\n"));
    terminal.wait_for("ready");
    for (typed, expected) in LINES {
        // How the line looks is the shell's affair; what it says is told by making it an argument.
        terminal.write(&format!("{typed}\t\x01echo sa''id: \n"));
        terminal.wait_for(&format!("said: {expected}"));
    }
    terminal.write("exit\n");
    drop(terminal);
    let _ = child.wait();
}

fn installed(shell: &str) -> bool {
    Path::new("/usr/bin").join(shell).exists() || Path::new("/bin").join(shell).exists()
}

#[test]
fn names_complete_in_bash() {
    let shell = ["bash", "--norc", "--noprofile", "-i"];
    complete(&named(), &shell, "source <(pando completions bash)");
}

#[test]
fn names_complete_in_zsh() {
    if !installed("zsh") {
        return;
    }
    complete(
        &named(),
        &["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -u -D; source <(pando completions zsh)",
    );
}

#[test]
fn names_complete_in_fish() {
    if !installed("fish") {
        return;
    }
    complete(&named(), &["fish", "--no-config", "-i"], "pando completions fish | source");
}
