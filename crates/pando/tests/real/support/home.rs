//! A hermetic home and the commands that are run in it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::golden::{self, Base, SHAPE, Share};
use super::{Process, envelope, finish, kill, processes_of, text, until};

/// Directories of a home in which nothing may be left over, beside what the golden home had.
const KEPT: &[&str] = &["branches", "captures", "commits", "keys", "layers", "memory", "tmp"];

/// A home. Dropping it ends everything that runs in it.
pub struct Home {
    /// Home and sockets.
    path: PathBuf,
    directory: Option<tempfile::TempDir>,
    /// The binary.
    program: PathBuf,
    /// What runs the binary, if it is not run as it is.
    through: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The files that were there at the beginning.
    before: BTreeSet<PathBuf>,
}

/// What a running machine says of itself: the same as long as it is the same machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Of this boot.
    pub boot: String,
    /// How far its counter is, which lives in memory only.
    pub count: u64,
}

impl Home {
    /// Returns a home at a path that is there.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            directory: None,
            program: env!("CARGO_BIN_EXE_pando").into(),
            through: Vec::new(),
            environment: Vec::new(),
            before: BTreeSet::new(),
        }
    }

    /// Returns a copy of the golden home.
    pub fn new() -> Self {
        Self::on(Base::Default)
    }

    /// Returns a copy of a golden home.
    pub fn on(base: Base) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (golden, _lock) = golden::get(base);
        let path = directory.path().join("home");
        golden::copy(&golden, &path, Share::Links);
        let mut home = Self::at(path);
        home.directory = Some(directory);
        home.before = files_of(&golden);
        home
    }

    /// Returns a copy of the golden home inside a directory that is there, sharing nothing.
    pub fn inside(directory: &Path) -> Self {
        let (golden, _lock) = golden::get(Base::Default);
        let path = directory.join("home");
        golden::copy(&golden, &path, Share::Nothing);
        let mut home = Self::at(path);
        home.before = files_of(&golden);
        home
    }

    /// Returns a copy of the golden home for another user, who has no other rights.
    pub fn of_user(uid: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut home = Self::inside(directory.path());
        // Nothing of the checkout's need be within this user's reach.
        let images = home.path.join("images");
        let shared = fs::canonicalize(&images).unwrap();
        fs::remove_file(&images).unwrap();
        golden::copy(&shared, &images, Share::Nothing);
        let program = directory.path().join("pando");
        fs::copy(&home.program, &program).unwrap();
        home.program = program;
        give(directory.path(), uid);
        home.through = ["setpriv", &format!("--reuid={uid}"), &format!("--regid={uid}")]
            .into_iter()
            .chain(["--clear-groups", "--no-new-privs"])
            .map(str::to_owned)
            .collect();
        home.directory = Some(directory);
        home
    }

    /// Returns a home with a running machine `shop` that counts in its memory.
    pub fn with_shop() -> Self {
        let home = Self::new();
        home.create_shop();
        home
    }

    /// Creates `shop`.
    pub fn create_shop(&self) {
        self.ok(&[&["vm", "create", "shop"], SHAPE].concat());
        let count = "while :; do n=$((n+1)); echo $n >/dev/shm/count; sleep 0.1; done";
        let count = format!("n=0 setsid sh -c '{count}' >/dev/null 2>&1 </dev/null &");
        self.sh("shop", &format!("echo 0 >/dev/shm/count; {count}"));
    }

    /// Defines the cluster that `topology` describes, in a file beside the home.
    pub fn define(&self, topology: &str) -> Value {
        let file = self.path.with_extension("yaml");
        fs::write(&file, topology).unwrap();
        self.ok(&["cluster", "define", file.to_str().unwrap()])
    }

    /// Sets a variable of every later command, and so of the daemon that it starts.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.push((name, value.into()));
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the binary in this home.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let program = self.program.as_os_str();
        let mut words = self.through.iter().map(OsStr::new).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command
            .args(arguments)
            .env("PANDO_HOME", &self.path)
            .env("HOME", &self.path)
            .env("XDG_RUNTIME_DIR", self.runtime())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("PANDO_SOCKET")
            .env_remove("PANDO_URL")
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    fn runtime(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".run");
        path.into()
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        finish(self.spawn(arguments))
    }

    /// Runs a command with `--json` and returns its envelope.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        let envelope = envelope(&output);
        // A success may still have the exit status of the guest's command.
        let failed = !output.status.success();
        assert!(failed || envelope["success"] == true, "{arguments:?} {envelope}");
        envelope
    }

    /// Runs a command that must succeed and returns its result.
    pub fn ok(&self, arguments: &[&str]) -> Value {
        let mut envelope = self.json(arguments);
        assert_eq!(envelope["success"], true, "{arguments:?}: {envelope:#}\n{}", self.log());
        envelope["result"].take()
    }

    /// Runs a command that must fail with this code and returns its error.
    pub fn fails(&self, arguments: &[&str], code: &str) -> Value {
        let mut envelope = self.json(arguments);
        assert_eq!(envelope["error"]["code"], code, "{arguments:?}: {envelope:#}\n{}", self.log());
        envelope["error"].take()
    }

    /// Runs a line in a guest's shell that must exit with 0, and returns what it printed.
    pub fn sh(&self, address: &str, line: &str) -> String {
        let output = self.run(&["exec", address, "-n", "-c", line]);
        let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{address}: {line}: {} {err}", output.status);
        String::from_utf8(out.clone()).unwrap().trim_end().to_owned()
    }

    /// Asks the counting machine who it is.
    pub fn guest(&self, address: &str) -> Guest {
        // The file is empty for a moment whenever it is written.
        until("the guest says how far it is", || {
            let both = self.sh(address, "cat /proc/sys/kernel/random/boot_id /dev/shm/count");
            let (boot, count) = both.split_once('\n')?;
            Some(Guest { boot: boot.to_owned(), count: count.trim().parse().ok()? })
        })
    }

    /// Asserts that a branch is the machine that it was, and that it goes on.
    pub fn assert_goes_on(&self, address: &str, before: &Guest) {
        until("the guest counts on", || {
            let now = self.guest(address);
            assert_eq!(now.boot, before.boot, "{address} was restarted");
            assert!(now.count >= before.count, "{address} went back: {now:?}, {before:?}");
            (now.count > before.count).then_some(())
        });
    }

    /// Returns the daemon, if there is one.
    pub fn daemon(&self) -> Option<Process> {
        processes_of(&self.path).into_iter().find(Process::is_daemon)
    }

    /// Returns the daemon, if it is the only process of this home.
    pub fn only_process(&self) -> Option<Process> {
        match processes_of(&self.path).as_slice() {
            [one] if one.is_daemon() => Some(one.clone()),
            _ => None,
        }
    }

    /// Kills the daemon, and nothing else, if there is one.
    pub fn kill_daemon(&self) {
        if let Some(daemon) = self.daemon() {
            kill(daemon.pid);
            until("the daemon is gone", || {
                (!processes_of(&self.path).iter().any(|one| one.pid == daemon.pid)).then_some(())
            });
        }
    }

    /// Returns the users that this home's processes run as.
    pub fn owners(&self) -> BTreeSet<u32> {
        let processes = processes_of(&self.path).into_iter();
        let owner = |process: Process| fs::metadata(format!("/proc/{}", process.pid)).ok();
        processes.filter_map(owner).map(|facts| facts.uid()).collect()
    }

    /// Returns the machine of a branch, or of a node of it.
    pub fn machine(&self, address: &str) -> Process {
        let all = processes_of(&self.path);
        let title = match address.contains('/') {
            true => format!("guest={address},"),
            false => format!("guest={address}/"),
        };
        let found = all.iter().find(|process| process.is_machine() && process.mentions(&title));
        found.unwrap_or_else(|| panic!("{address} in {all:#?}")).clone()
    }

    /// Returns the keeper of a branch, which is its machine's parent.
    pub fn keeper(&self, address: &str) -> Process {
        let parent = self.machine(address).parent();
        let all = processes_of(&self.path);
        let found = all.iter().find(|process| process.is_keeper() && process.pid == parent);
        found.unwrap_or_else(|| panic!("{parent} in {all:#?}")).clone()
    }

    /// Kills every process of this home, as a crash of the host would.
    pub fn kill_everything(&self) {
        // A process that was being started during one look is there at the next.
        until("killed processes are gone", || {
            let all = processes_of(&self.path);
            all.iter().for_each(|process| kill(process.pid));
            all.is_empty().then_some(())
        });
    }

    /// Waits until every operation has ended, and asserts that none is stuck.
    pub fn settle(&self) {
        let list = |status| self.ok(&["operation", "list", "--status", status, "--limit", "1"]);
        for status in ["queued", "running", "undoing"] {
            until("operations end", || (list(status)["total"] == 0).then_some(()));
        }
        let stuck = list("stuck");
        assert_eq!(stuck["total"], 0, "{stuck:#}\n{}", self.log());
    }

    /// Asserts that records and world are one: nothing runs or lies about that no record names, and
    /// every running branch has one keeper, and a machine for each node of its cluster.
    pub fn assert_consistent(&self) {
        self.settle();
        let found = self.ok(&["gc", "--dry-run"]);
        assert_eq!(found["count"], 0, "{found:#}\n{}", self.log());
        let (mut branches, mut nodes) = (0, 0);
        for cluster in self.ok(&["cluster", "list"])["clusters"].as_array().unwrap() {
            let of_cluster = self.ok(&["branches", text(cluster, "name")]);
            let live = |branch: &&Value| text(branch, "state") != "stopped";
            let live = of_cluster["branches"].as_array().unwrap().iter().filter(live).count();
            branches += live;
            nodes += live * cluster["nodes"].as_array().unwrap().len();
        }
        until("one keeper for each running branch, and one machine for each of its nodes", || {
            let all = processes_of(&self.path);
            let keepers = all.iter().filter(|process| process.is_keeper()).count();
            let machines = all.iter().filter(|process| process.is_machine()).count();
            (keepers == branches && machines == nodes).then_some(())
        });
    }

    /// Lets the files that are there now stay, such as another ready state of an image.
    pub fn remember(&mut self) {
        self.before = files_of(&self.path);
    }

    /// Deletes a cluster and everything of it.
    pub fn remove(&self, name: &str) {
        self.ok(&["rm", name, "--force", "--disks"]);
    }

    /// Ends the test: every cluster is deleted; then no process, socket, port or file is left.
    pub fn assert_nothing_left(&self) {
        self.settle();
        for cluster in self.ok(&["cluster", "list"])["clusters"].as_array().unwrap() {
            self.remove(text(cluster, "name"));
        }
        self.assert_consistent();
        let output = self.run(&["daemon", "stop"]);
        assert!(output.status.success());
        let left = until("every process ends", || {
            let left = processes_of(&self.path);
            left.is_empty().then_some(left)
        });
        assert!(left.is_empty());
        assert_eq!(sockets_in(&self.runtime()), Vec::<PathBuf>::new());
        let bound = fs::read_to_string("/proc/net/unix").unwrap();
        let runtime = self.runtime().display().to_string();
        assert!(!bound.contains(&runtime), "{bound}");
        let left: Vec<_> = files_of(&self.path).difference(&self.before).cloned().collect();
        assert!(left.is_empty(), "{left:#?}\n{}", self.log());
    }

    /// Returns the end of the daemon's log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.path.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.kill_everything();
        let _ = fs::remove_dir_all(self.runtime());
    }
}

/// Returns all files of a home and of its sockets' directory.
pub fn all_files(home: &Home) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    list(&home.path, &mut files);
    list(&home.runtime(), &mut files);
    files
}

/// Returns all files of a home that must not be left over, by their paths in it. Memory of zeros
/// belongs to no machine, and the host keys that `pando ssh` writes for OpenSSH are scratch, which
/// the next daemon removes.
fn files_of(home: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for directory in KEPT {
        list(&home.join(directory), &mut files);
    }
    files.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        !name.starts_with("zero-") && !name.starts_with("known_hosts.")
    });
    files.iter().map(|path| path.strip_prefix(home).unwrap().to_owned()).collect()
}

fn list(path: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(path).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), files);
        } else {
            files.insert(entry.path());
        }
    }
}

fn sockets_in(path: &Path) -> Vec<PathBuf> {
    let mut files = BTreeSet::new();
    list(path, &mut files);
    let is_socket = |path: &PathBuf| fs::metadata(path).is_ok_and(|of| of.file_type().is_socket());
    files.into_iter().filter(is_socket).collect()
}

/// Makes a directory another user's.
fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            give(&entry.path(), uid);
        } else if kind.is_file() {
            chown(entry.path(), Some(uid), Some(uid)).unwrap();
        }
    }
}
