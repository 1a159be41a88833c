//! A home of its own for a test, on the shared default image, and the few moves that tests make.

#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

pub mod cluster;
pub mod memory;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use pando_driver::BranchHost;
use pando_driver::host::{
    AfterCut, AfterStart, BranchSpec, Clock, CutNode, CutReport, CutSpec, ExecIo, MemoryChain,
    MemoryLink, NodeSpec, NodeStart, StopMode,
};
use pando_driver::progress::Reporter;
use pando_host::{HostConfig, LocalHost};
use pando_machine::Hypervisor;
use pando_model::commit::{Below, CommitKind, Layer};
use pando_model::guest::{Command, ExecSpec, Identity, InterfaceConfig, OutputStream, Stdin};
use pando_model::{
    Accelerator, BranchId, ByteCount, ClusterId, CommitId, Image, LayerId, Layout, Name,
    NodeLayers, NodeShape, Uplink,
};
use pando_qemu::{Qcow2Layers, Qemu, QemuConfig};
use tokio::sync::mpsc;

const DISK: ByteCount = ByteCount::from_gib(8);

/// A home with its host.
pub struct World {
    pub host: LocalHost,
    pub layout: Layout,
    image: Image,
    home: tempfile::TempDir,
    /// What branches made from here on reach.
    pub uplink: Uplink,
    /// Whether a cut said that frames may have been lost at a guest that left no room for them.
    frames_lost: AtomicBool,
}

/// A branch that a test made.
pub struct Branch {
    pub spec: BranchSpec,
}

/// A commit that a test made, with the commits that its memory lies on.
pub struct Cut {
    pub report: CutReport,
    pub chain: MemoryChain,
}

/// Returns the directory of the images that all tests share; `./test` makes it.
fn assets() -> PathBuf {
    std::env::var_os("PANDO_TEST_HOME").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-assets/home"),
        PathBuf::from,
    )
}

fn default_image(images: &Path) -> Image {
    std::fs::read_dir(images)
        .unwrap_or_else(|error| panic!("{}: {error}; run ./test once", images.display()))
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("image.json")).ok())
        .find_map(|json| {
            let value: serde_json::Value = serde_json::from_slice(&json).ok()?;
            let image = value.get("image").cloned().unwrap_or(value);
            serde_json::from_value(image).ok()
        })
        .expect("an image; run ./test once")
}

fn host(layout: &Layout) -> LocalHost {
    let qemu = Arc::new(Qemu::new(QemuConfig { binary: None, version: None }).unwrap());
    let profile = qemu.profile(Accelerator::Tcg);
    let tests = std::env::current_exe().unwrap();
    LocalHost::new(HostConfig {
        layout: layout.clone(),
        keeper_program: tests.parent().unwrap().parent().unwrap().join("examples/keeper"),
        profile: Arc::new(move || Ok(profile.clone())),
        kernel_network: Arc::new(Default::default),
        disks: Arc::new(Qcow2Layers),
        seeds: Arc::new(|_| Ok(Vec::new())),
        memory_reserve: ByteCount(0),
    })
}

impl World {
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("pando-real-").tempdir().unwrap();
        let layout = Layout::new(home.path(), home.path().join("run"));
        let images = assets().join("images");
        std::os::unix::fs::symlink(images.canonicalize().unwrap(), layout.images()).unwrap();
        let image = default_image(&layout.images());
        Self {
            host: host(&layout),
            layout,
            image,
            home,
            uplink: Uplink::None,
            frames_lost: AtomicBool::new(false),
        }
    }

    /// Returns a second host on the same home: what a restarted daemon has.
    pub fn another_host(&self) -> LocalHost {
        host(&self.layout)
    }

    async fn layer(&self, below: Below, depth: u32) -> LayerId {
        let layer = Layer { id: LayerId::random(), below, size: DISK, depth };
        self.host.create_layer(&layer).await.unwrap();
        layer.id
    }

    /// Returns a branch that is not started, on a disk of its own over the image or a commit's.
    pub async fn new_branch(&self, name: &str, start: NodeStart) -> Branch {
        self.branch_over(name, start, Below::Image(self.image.id.clone())).await
    }

    async fn branch_over(&self, name: &str, start: NodeStart, below: Below) -> Branch {
        let layer = self.layer(below, 1).await;
        let node = NodeSpec {
            name: "db".parse().unwrap(),
            shape: NodeShape {
                vcpus: 1,
                memory: ByteCount::from_mib(512),
                disk: DISK,
                nics: 1,
                extra_disks: Vec::new(),
            },
            image: self.image.id.clone(),
            boot: self.image.boot.clone(),
            init: self.image.init.clone(),
            layers: NodeLayers::of_root(layer),
            start,
            macs: vec!["52:54:00:12:34:56".into()],
            uplink: self.uplink,
            identity: None,
            seed: None,
        };
        Branch {
            spec: BranchSpec {
                branch: BranchId::random(),
                cluster: ClusterId::random(),
                title: format!("test@{name}"),
                generation: 1,
                token: "0123456789abcdef0123456789abcdef".into(),
                accelerator: Accelerator::Tcg,
                nodes: vec![node],
                network: None,
                clock: Clock::Step,
                after: AfterStart::Run,
                durable_disk: false,
                ready_timeout: Duration::from_secs(60),
            },
        }
    }

    pub async fn boot(&self, name: &str) -> Branch {
        let branch = self.new_branch(name, NodeStart::Boot).await;
        let began = Instant::now();
        let report = self.host.start(&branch.spec, &Reporter::silent()).await.unwrap();
        println!("boot: {:?}, answers after {} us", began.elapsed(), report.answered_us);
        branch
    }

    /// Returns a cut to ask for, its next layer made.
    pub async fn cut_spec(&self, branch: &Branch, kind: CommitKind) -> CutSpec {
        let observed = self.host.observe(&branch.spec.branch).await.unwrap().unwrap();
        let top = observed.nodes[0].layers.root.clone();
        let next_layer = self.layer(Below::Layer(top), 2).await;
        CutSpec {
            commit: CommitId::random(),
            kind,
            nodes: vec![CutNode { name: name("db"), next: NodeLayers::of_root(next_layer) }],
            then: AfterCut::Continue,
            timeout: Duration::from_secs(60),
        }
    }

    pub async fn cut(&self, branch: &Branch, kind: CommitKind) -> Cut {
        let spec = self.cut_spec(branch, kind).await;
        let report = self.host.cut(&branch.spec.branch, &spec, &Reporter::silent()).await.unwrap();
        assert_eq!(report.failed, None);
        println!(
            "cut: pause {} us, total {} us, {:?}",
            report.pause_us, report.total_us, report.nodes[0].memory
        );
        let adopted = self.host.adopt_cut(&branch.spec.branch, &spec.commit).await.unwrap();
        assert_eq!(adopted.as_ref(), Some(&report));
        let cut = self.cut_from(report);
        if let Some(memory) = &cut.report.nodes[0].memory {
            self.host.verify(&cut.chain, &memory.device_digest).await.unwrap();
        }
        cut
    }

    pub fn cut_from(&self, report: CutReport) -> Cut {
        Cut { chain: self.chain(&report), report }
    }

    /// Follows the deltas down by what the commits' own reports say.
    fn chain(&self, report: &CutReport) -> MemoryChain {
        let mut links = Vec::new();
        let mut next = Some(report.clone());
        while let Some(report) = next {
            let Some(memory) = report.nodes[0].memory.clone() else { break };
            links.push(MemoryLink {
                commit: report.commit.clone(),
                node: name("db"),
                digest: memory.digest,
            });
            next = memory.base.map(|base| {
                let path = self.layout.commit(&base).join("report.json");
                serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
            });
        }
        MemoryChain { links, size: ByteCount::from_mib(512) }
    }

    /// Returns a branch whose guests stand as they were cut.
    pub async fn held_branch(&self, cut: &Cut) -> Branch {
        self.host.materialise(&cut.chain, &Reporter::silent()).await.unwrap();
        let below = Below::Layer(cut.report.nodes[0].layers.root.clone());
        let start = NodeStart::Restore { commit: cut.report.commit.clone(), saved_as: name("db") };
        let mut branch = self.branch_over("held", start, below).await;
        branch.spec.after = AfterStart::Hold;
        self.host.start(&branch.spec, &Reporter::silent()).await.unwrap();
        branch
    }

    pub async fn branch(&self, cut: &Cut, after: AfterStart) -> Branch {
        let began = Instant::now();
        self.host.materialise(&cut.chain, &Reporter::silent()).await.unwrap();
        let flat = began.elapsed();
        let commit = cut.report.commit.clone();
        let below = Below::Layer(cut.report.nodes[0].layers.root.clone());
        let start = NodeStart::Restore { commit, saved_as: name("db") };
        let mut branch = self.branch_over("child", start, below).await;
        branch.spec.after = after;
        let report = self.host.start(&branch.spec, &Reporter::silent()).await.unwrap();
        let started = began.elapsed();
        self.sh(&branch, "true").await;
        println!(
            "branch: flat {flat:?}, started {started:?} (keeper {} us), exec {:?}",
            report.ready_us,
            began.elapsed()
        );
        branch
    }

    /// Returns a running node with an identity, from a ready state.
    pub async fn branch_as(&self, cut: &Cut, identity: Identity) -> Branch {
        self.host.materialise(&cut.chain, &Reporter::silent()).await.unwrap();
        let below = Below::Layer(cut.report.nodes[0].layers.root.clone());
        let start = NodeStart::Restore { commit: cut.report.commit.clone(), saved_as: name("db") };
        let mut branch = self.branch_over(&identity.hostname, start, below).await;
        branch.spec.nodes[0].identity = Some(identity);
        self.host.start(&branch.spec, &Reporter::silent()).await.unwrap();
        branch
    }

    /// Returns fresh keys, made by OpenSSH itself.
    pub fn ssh_keys(&self) -> SshKeys {
        let directory = self.home.path().join("ssh");
        std::fs::create_dir(&directory).unwrap();
        for key in ["host", "user"] {
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"])
                .arg(directory.join(key))
                .status();
            assert!(made.unwrap().success());
        }
        SshKeys { directory }
    }

    pub fn identity(&self, hostname: &str, keys: &SshKeys) -> Identity {
        Identity {
            hostname: hostname.into(),
            machine_id: keys.machine_id(hostname),
            ssh_host_key: keys.read("host"),
            ssh_host_key_public: keys.read("host.pub").trim().to_owned(),
            authorized_keys: vec![keys.read("user.pub").trim().to_owned()],
            interfaces: vec![InterfaceConfig {
                was: None,
                more: Vec::new(),
                mac: "52:54:00:12:34:56".into(),
                address: "10.0.2.15/24".into(),
                gateway: Some("10.0.2.2".into()),
                dns: vec![],
            }],
            env: BTreeMap::from([("COLOUR".into(), "green".into())]),
        }
    }

    async fn run(&self, branch: &Branch, command: &str) -> (i32, String) {
        self.run_on(branch, &name("db"), command).await
    }

    async fn run_on(&self, branch: &Branch, node: &Name, command: &str) -> (i32, String) {
        let spec = ExecSpec {
            command: Command::Shell(command.into()),
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            timeout_ms: 30_000,
            terminal: None,
            stdin: Stdin::Open,
        };
        let (_input, input) = mpsc::channel(1);
        let (output, mut received) = mpsc::channel(16);
        let io = ExecIo { input, output };
        let exec = self.host.exec(&branch.spec.branch, node, &spec, io);
        let collect = async {
            let mut text = String::new();
            while let Some(chunk) = received.recv().await {
                if chunk.stream == OutputStream::Stdout {
                    text.push_str(&String::from_utf8_lossy(&chunk.bytes));
                } else {
                    eprintln!("{}", String::from_utf8_lossy(&chunk.bytes));
                }
            }
            text
        };
        let (outcome, text) = tokio::join!(exec, collect);
        (outcome.unwrap().status.shell_code(), text)
    }

    /// Runs a command that must succeed and returns its standard output.
    pub async fn sh(&self, branch: &Branch, command: &str) -> String {
        let (code, text) = self.run(branch, command).await;
        assert_eq!(code, 0, "`{command}`: {text}");
        text
    }

    /// Starts a command that may not live to tell.
    pub async fn detach(&self, branch: &Branch, command: &str) {
        self.sh(branch, &format!("(sleep 0.2; {command}) > /dev/null 2>&1 &")).await;
    }

    /// Waits until the guest answers with another boot id.
    pub async fn until_boot_changes(&self, branch: &Branch, before: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let facts = self.host.facts(&branch.spec.branch, &name("db")).await;
            if let Ok(facts) = facts
                && facts.boot_id != before.trim()
            {
                return self.sh(branch, "cat /proc/sys/kernel/random/boot_id").await;
            }
            if Instant::now() >= deadline {
                let observed = self.host.observe(&branch.spec.branch).await;
                let console = std::fs::read(self.layout.console(&branch.spec.branch, &name("db")));
                let console = String::from_utf8_lossy(&console.unwrap()).into_owned();
                let log = std::fs::read_to_string(self.layout.keeper_log(&branch.spec.branch));
                panic!("no other boot id: {observed:?}\n{console}\n{}", log.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a process is gone.
    pub async fn until_gone(&self, pid: u32) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while is_alive(pid) {
            assert!(Instant::now() < deadline, "process {pid} is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn end(&self, branches: &[&Branch]) {
        for branch in branches {
            self.host.stop(&branch.spec.branch, StopMode::Kill).await.unwrap();
            self.host.discard_branch(&branch.spec.branch).await.unwrap();
        }
        self.assert_nothing_runs();
    }

    /// Asserts that no process mentions this home.
    pub fn assert_nothing_runs(&self) {
        assert_eq!(self.processes(), []);
    }

    /// Returns the processes whose command line mentions this home.
    fn processes(&self) -> Vec<(u32, String)> {
        let home = self.home.path().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(&home) {
                found.push((pid, command));
            }
        }
        found
    }
}

impl Drop for World {
    /// A test that failed half-way leaves keepers; they must not outlive it.
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A host key and a user's key.
pub struct SshKeys {
    directory: PathBuf,
}

impl SshKeys {
    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory.join(file)).unwrap()
    }

    /// Returns a machine id that goes with a host name.
    pub fn machine_id(&self, hostname: &str) -> String {
        let hash = blake3::hash(hostname.as_bytes()).to_hex();
        hash[..32].to_owned()
    }

    /// Runs a command over SSH, the host's key checked, and returns its output.
    pub async fn ssh(&self, port: u16, command: &str) -> String {
        let known = self.directory.join("known");
        let key = self.read("host.pub");
        std::fs::write(&known, format!("[127.0.0.1]:{port} {key}")).unwrap();
        let output = tokio::process::Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .arg("-i")
            .arg(self.directory.join("user"))
            .args(["-p", &port.to_string(), "root@127.0.0.1", command])
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(30), output).await.unwrap().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Kills a process of ours.
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Whether a process runs; one that waits to be reaped does not.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}
