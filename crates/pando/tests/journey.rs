//! What a newcomer does, with the real binary on real machines: create, change, commit with the
//! memory, branch four ways, run in all of them, roll back — and the daemon killed in the middle.
//! Afterwards nothing is left.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pando_driver::Store;
use pando_driver::store::Transaction;
use pando_model::Image;
use pando_store::SqliteStore;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No command of a journey takes longer, on a busy machine under TCG.
const DEADLINE: Duration = Duration::from_secs(180);

/// A home of its own on the shared image; whatever runs in it ends with it.
struct Home {
    directory: tempfile::TempDir,
}

/// Returns the home whose images all tests share; `./test` makes it.
fn assets() -> PathBuf {
    std::env::var_os("PANDO_TEST_HOME").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-assets/home"),
        PathBuf::from,
    )
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("pando-journey-").tempdir().unwrap();
        let home = Self { directory };
        std::fs::create_dir_all(home.images()).unwrap();
        let image = home.link_image();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(home.record(&image));
        home
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn images(&self) -> PathBuf {
        self.path().join("images")
    }

    /// Makes the shared image this home's own, without copying its bytes.
    fn link_image(&self) -> Image {
        let shared = assets().join("images");
        let found = std::fs::read_dir(&shared)
            .unwrap_or_else(|error| panic!("{}: {error}; run ./test once", shared.display()))
            .flatten()
            .find(|entry| entry.path().join("image.json").is_file())
            .expect("an image; run ./test once");
        let own = self.images().join(found.file_name());
        std::fs::create_dir(&own).unwrap();
        for file in std::fs::read_dir(found.path()).unwrap().flatten() {
            let target = own.join(file.file_name());
            if std::fs::hard_link(file.path(), &target).is_err() {
                std::fs::copy(file.path(), &target).unwrap();
            }
        }
        let json = std::fs::read(own.join("image.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&json).unwrap();
        let image = manifest.get("image").cloned().unwrap_or(manifest);
        serde_json::from_value(image).unwrap()
    }

    /// Records the image, as `image build` would have.
    async fn record(&self, image: &Image) {
        let store = SqliteStore::open(&self.path().join("pando.db")).await.unwrap();
        let mut transaction = Transaction::new();
        transaction.put(image);
        store.write(&transaction).await.unwrap();
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let guest = std::env::var_os("PANDO_GUEST").unwrap_or_default();
        Command::new(env!("CARGO_BIN_EXE_pando"))
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("PANDO_GUEST", guest)
            .env("PANDO_HOME", self.path())
            .env("XDG_RUNTIME_DIR", self.directory.path().join("run"))
            // Machines are the same everywhere, and KVM is not tried.
            .env("PANDO_QEMU_ACCELERATOR", "tcg")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let child = self.spawn(arguments);
        let id = Pid::from_child(&child);
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let _ = sender.send(child.wait_with_output());
        });
        let output = receiver.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            let _ = kill_process(id, Signal::KILL);
            panic!("{arguments:?} took too long\n{}", self.log());
        });
        waiter.join().unwrap();
        output.unwrap()
    }

    /// Runs a command that must succeed and returns what it wrote.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs a command that must succeed and returns its result.
    fn result(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[arguments, &["--json"]].concat());
        let envelope: Value = serde_json::from_str(&text).unwrap();
        envelope["result"].clone()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("daemon.log")).unwrap_or_default()
    }

    fn kill_daemon(&self) {
        let pid = std::fs::read_to_string(self.path().join("daemon.lock")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }

    /// Returns the processes whose command line names this home, as lines of text.
    fn processes(&self) -> Vec<String> {
        let home = self.path().display().to_string();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(&home))
            .collect()
    }

    /// Returns the names in one of the home's directories.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path().join(directory)).into_iter().flatten();
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for name in self.output(&["vm", "list", "-q"]).stdout.split(|byte| *byte == b'\n') {
            let name = String::from_utf8_lossy(name);
            if !name.is_empty() {
                self.output(&["rm", "--force", "--disks", &name]);
            }
        }
        self.output(&["daemon", "stop"]);
    }
}

/// Waits for a predicate, with the deadline.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn a_newcomer_commits_branches_and_rolls_back_while_the_daemon_is_killed() {
    let home = Home::new();
    let created = home.result(&["vm", "create", "shop"]);
    assert_eq!(created["state"], "running");
    assert_eq!(home.run(&["exec", "shop", "--", "hostname"]), "shop");

    // Something on the disk, and something that only memory holds.
    home.run(&["exec", "shop", "--", "sh", "-c", "echo before > /root/note; mkdir /run/held"]);
    home.run(&["exec", "shop", "-d", "--", "sleep", "86400"]);
    let commit = home.result(&["commit", "shop", "-m", "before it", "-t", "clean"]);
    assert_eq!(commit["tag"], "clean");

    let branched = home.result(&["branch", "shop@clean", "-n", "4"]);
    assert_eq!(branched["succeeded"], 4, "{branched}");
    for branch in branched["branches"].as_array().unwrap() {
        let inherited = branch["inherited"].as_array().expect("what runs on");
        assert_eq!(inherited.len(), 1, "{branch}");
        assert_eq!(inherited[0]["node"], "shop", "{branch}");
    }

    // The daemon dies; machines go on, and the next command finds them.
    home.kill_daemon();
    let script = "test -d /run/held && cat /root/note && echo $$ > /root/note && hostname";
    let fanned = home.result(&["fanout", "--all", "shop", "-c", script]);
    assert_eq!((&fanned["succeeded"], &fanned["failed"]), (&5.into(), &0.into()), "{fanned}");
    for result in fanned["results"].as_array().unwrap() {
        assert_eq!(result["stdout"], "before\nshop\n");
    }

    // It dies again, in the middle of an operation: done or undone, never half.
    let mut child = home.spawn(&["branch", "shop@clean", "late"]);
    eventually("an operation under way", || {
        let list = home.result(&["operation", "list", "--verb", "branch_create", "--limit", "1"]);
        child.try_wait().unwrap().is_some() || list["operations"][0]["status"] == "running"
    });
    home.kill_daemon();
    child.wait_with_output().unwrap();
    let last = &home.result(&["operation", "list", "--verb", "branch_create", "--limit", "1"]);
    let id = last["operations"][0]["operation_id"].as_str().unwrap();
    let waited = home.output(&["operation", "wait", id, "--timeout", "2m", "--json"]);
    let ended = serde_json::from_slice::<Value>(&waited.stdout).unwrap()["result"].clone();
    assert_eq!(waited.status.success(), ended["status"] == "succeeded", "{ended}");
    let exists = home.run(&["branches", "shop", "-q"]).contains("shop@late");
    assert_eq!(exists, ended["status"] == "succeeded", "{ended}");
    assert_ne!(ended["status"], "stuck", "{ended}");

    let rolled = home.result(&["rollback", "shop@main", "clean"]);
    assert_eq!(rolled["rolled_back_to"], commit["commit_id"]);
    assert_eq!(home.run(&["exec", "shop@main", "--", "cat", "/root/note"]), "before");
    let saved = rolled["saved_as"].as_str().unwrap();
    home.run(&["rollback", "shop@main", saved]);
    assert_ne!(home.run(&["exec", "shop@main", "--", "cat", "/root/note"]), "before");
    home.run(&["verify", "shop@clean"]);
    assert!(home.run(&["log", "--graph", "shop"]).contains("tag: clean"));

    // A file there and back, and a guest's way to shut down.
    let here = home.directory.path().join("file");
    std::fs::File::create(&here).unwrap().write_all(&[7; 200_000]).unwrap();
    home.run(&["cp", here.to_str().unwrap(), "shop@try-1:/srv/file"]);
    let back = home.output(&["cp", "shop@try-1:/srv/file", "-"]);
    assert!(back.stdout == vec![7; 200_000]);
    home.run(&["stop", "shop@try-1"]);
    home.run(&["start", "shop@try-1"]);
    assert_eq!(
        home.run(&["exec", "shop@try-1", "--", "wc", "-c", "/srv/file"]),
        "200000 /srv/file"
    );

    home.run(&["rm", "--force", "--disks", "shop"]);
    eventually("the end of every machine", || {
        home.processes().iter().all(|line| !line.contains("keeper") && !line.contains("qemu"))
    });
    home.run(&["gc"]);
    assert_eq!(home.names("branches"), Vec::<String>::new());
    home.run(&["daemon", "stop"]);
    assert_eq!(home.processes(), Vec::<String>::new());
}
