//! Help, completions, mistakes.

use pando_api::catalogue;
use serde_json::json;

use crate::support::{Fake, finish, pando, shown};

/// Every command, as it is typed.
const COMMANDS: &[&str] = &[
    "",
    "bench",
    "branch",
    "branches",
    "capture",
    "checkout",
    "cluster",
    "cluster define",
    "cluster destroy",
    "cluster handle",
    "cluster list",
    "cluster start",
    "cluster status",
    "cluster stop",
    "commit",
    "completions",
    "config",
    "config get",
    "config path",
    "config set",
    "config show",
    "config unset",
    "connect-info",
    "console",
    "cp",
    "daemon",
    "daemon restart",
    "daemon start",
    "daemon status",
    "daemon stop",
    "demo",
    "diff",
    "doctor",
    "exec",
    "fanout",
    "gc",
    "history",
    "image",
    "image build",
    "image import",
    "image list",
    "image rm",
    "image show",
    "images",
    "init",
    "log",
    "logs",
    "man",
    "mcp",
    "mcp install",
    "net",
    "net capture",
    "net faults",
    "net heal",
    "net heal-all",
    "net impair",
    "net partition",
    "net probe",
    "node",
    "node crash",
    "node exec",
    "node exec-all",
    "operation",
    "operation cancel",
    "operation list",
    "operation show",
    "operation wait",
    "pause",
    "ps",
    "resume",
    "rm",
    "rollback",
    "serve",
    "sh",
    "show",
    "snapshot",
    "snapshot create",
    "snapshot delete",
    "snapshot list",
    "snapshot revert",
    "ssh",
    "start",
    "status",
    "stop",
    "tag",
    "tag rm",
    "tag set",
    "token",
    "token rotate",
    "token show",
    "top",
    "topology",
    "topology list",
    "topology show",
    "topology validate",
    "verify",
    "vm",
    "vm control",
    "vm create",
    "vm list",
    "vm rm",
    "vm status",
    "vm usage",
    "watch",
];

fn run(arguments: &[&str]) -> std::process::Output {
    let directory = tempfile::tempdir().unwrap();
    let mut command = pando(directory.path());
    command.args(arguments).stdout(std::process::Stdio::piped());
    finish(command.stderr(std::process::Stdio::piped()).spawn().unwrap())
}

#[test]
fn help_is_as_reviewed() {
    let mut all = String::new();
    for command in COMMANDS {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        words.push("--help");
        let text = shown(&run(&words)).replace(env!("CARGO_PKG_VERSION"), "VERSION");
        // The global options are the same everywhere.
        let text = text.split("\nGlobal options:").next().unwrap_or_default();
        all.push_str(&format!("$ pando {}\n{}\n\n", words.join(" "), text.trim_end()));
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn every_verb_has_a_command() {
    for verb in catalogue() {
        let path = verb.cli.path.join(" ");
        assert!(COMMANDS.contains(&path.as_str()), "{}: {path}", verb.name);
    }
}

#[test]
fn mistakes_are_explained() {
    let fake = Fake::new();
    let mut all = String::new();
    for line in [
        "vm craete shop",
        "vm create",
        "vm create shop --memmory 1G",
        "vm create shop -m 1X",
        "vm create Shop",
        "vm control shop explode",
        "exec shop",
        "fanout -- uptime",
        "cp a b",
        "operation show br_0123456789ab",
        "--json vm create Shop",
        "--json frobnicate",
        "log cm_0123456789ab",
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        all.push_str(&format!("$ pando {line}\n{}\n", shown(&fake.run(&words))));
    }
    insta::assert_snapshot!("mistakes", all);
    assert!(fake.control.calls().is_empty());
}

/// Returns what a shell is offered for the last of these words.
fn completed(fake: &Fake, words: &[&str]) -> Vec<String> {
    let mut command = fake.command(&[&["--"], words].concat());
    command
        .env("COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_SPACE", "false");
    let output = finish(command.spawn().unwrap());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn words_and_names_complete() {
    let fake = Fake::new();
    fake.control.answer("vm_list", json!({ "vms": [{ "name": "shop" }, { "name": "web" }] }));
    fake.control.answer("branch_list", json!({ "branches": [{ "address": "shop@try-1" }] }));
    fake.control
        .answer("commit_list", json!({ "commits": [{ "id": "cm_0123456789ab", "tags": ["v1"] }] }));
    let cases: &[(&[&str], &[&str])] = &[
        (&["pando", "roll"], &["rollback"]),
        (&["pando", "vm", "cr"], &["create"]),
        (&["pando", "exec", "sh"], &["shop", "shop@try-1"]),
        (&["pando", "vm", "rm", ""], &["shop", "web"]),
        (&["pando", "rollback", "v"], &["v1"]),
        (&["pando", "config", "get", "daemon"], &["daemon.log"]),
        (&["pando", "vm", "control", "shop", "pa"], &["pause"]),
    ];
    for (words, expected) in cases {
        let offered = completed(&fake, words);
        for word in *expected {
            assert!(offered.iter().any(|one| one == word), "{words:?}: {offered:?}");
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(shown(&fake.run(&["completions", shell])).contains("pando"), "{shell}");
    }
}

#[test]
fn completion_without_a_daemon_is_of_words_only() {
    let fake = Fake::new();
    std::fs::remove_file(fake.directory.path().join("s/daemon.sock")).unwrap();
    assert_eq!(completed(&fake, &["pando", "exec", "sh"]), Vec::<String>::new());
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["man", directory.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", shown(&output));
    for command in COMMANDS {
        let name = format!("pando {command}").trim().replace(' ', "-");
        let page = std::fs::read_to_string(directory.path().join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME"), "{name}");
    }
    assert_eq!(run(&["man", "/nonexistent"]).status.code(), Some(2));
}

#[test]
fn whoever_begins_is_told_how() {
    let directory = tempfile::tempdir().unwrap();
    let bare = |prepare: &dyn Fn(&mut std::process::Command)| {
        let mut command = pando(directory.path());
        prepare(&mut command);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        finish(command.spawn().unwrap())
    };
    let first = bare(&|_| {});
    assert!(first.status.success());
    let text = String::from_utf8(first.stdout).unwrap();
    for wanted in ["pando doctor", "pando image build", "pando vm create", "home/", "--help"] {
        assert!(text.contains(wanted.trim_end_matches('/')), "{wanted}: {text}");
    }
    // Nothing was started or made for it.
    assert!(!directory.path().join("home").exists());
    // Whoever has an image, or another's daemon, knows where to begin.
    let other = bare(&|command| {
        command.env("PANDO_SOCKET", "/nonexistent");
    });
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("Start here:"));
    std::fs::create_dir_all(directory.path().join("home/images/im_0123456789ab")).unwrap();
    assert_eq!(bare(&|_| {}).status.code(), Some(2));
}

#[test]
fn the_version_needs_nothing() {
    let output = run(&["--version"]);
    assert_eq!(shown(&output), format!("pando {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn settings_are_shown_changed_and_refused() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = pando(directory.path());
        command.args(arguments).env("PANDO_LIMITS_MAX_PARKED", "3");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let text = shown(&finish(command.spawn().unwrap()));
        text.replace(directory.path().to_str().unwrap(), "HOME")
    };
    let mut all = String::new();
    for line in [
        "init",
        "init",
        "config path",
        "config set daemon.log debug",
        "config set daemon.lgo debug",
        "config set machine.durable_disk maybe",
        "config set limits.max_parked 5",
        "config get daemon.log",
        "config get daemon.lgo",
        "config show",
        "config show --origin",
        "config unset daemon.log",
        "config get daemon.log --json",
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        all.push_str(&format!("$ pando {line}\n{}\n", run(&words)));
    }
    insta::assert_snapshot!("settings", all);
    assert!(directory.path().join("home/topologies").is_dir());
}
