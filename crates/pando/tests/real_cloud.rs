//! A distribution's cloud image, imported and used with the real binary: UEFI firmware, cloud-init
//! and the distribution's own kernel, none of which pando made. `scripts/make-cloud-image.sh` makes
//! the image once.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No command takes longer: a first boot under translation on a busy machine.
const DEADLINE: Duration = Duration::from_secs(280);

/// How long the image may take to make.
const MAKE_DEADLINE: Duration = Duration::from_secs(900);

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Returns the cloud image, made if it is missing.
fn cloud_image() -> String {
    let script = checkout().join("scripts/make-cloud-image.sh");
    let child = Command::new(&script).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let output = finish(child, MAKE_DEADLINE);
    assert!(output.status.success(), "{}: {}", script.display(), output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits for a child, which is killed if it takes too long.
fn finish(child: Child, deadline: Duration) -> Output {
    let id = Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let _ = sender.send(child.wait_with_output());
    });
    let output = receiver.recv_timeout(deadline).unwrap_or_else(|_| {
        let _ = kill_process(id, Signal::KILL);
        panic!("a command did not end within {deadline:?}");
    });
    waiter.join().unwrap();
    output.unwrap()
}

/// A home of its own; whatever runs in it ends with it.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    /// Returns an empty home into which the cloud image was imported as `cloud`.
    fn with_cloud_image(firmware: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("pando-cloud-").tempdir().unwrap();
        let home = Self { directory };
        let path = cloud_image();
        let import = ["image", "import", "cloud", &path, "--kind", "disk", "--firmware", firmware];
        let image = home.ok(&import);
        assert_eq!(image["boot"], firmware, "{image}");
        home
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let guest = std::env::var_os("PANDO_GUEST").map_or_else(
            || checkout().join("target/x86_64-unknown-linux-gnu/guest/pando-guest"),
            PathBuf::from,
        );
        let child = Command::new(env!("CARGO_BIN_EXE_pando"))
            .args(arguments)
            .env_remove("PANDO_SOCKET")
            .env_remove("PANDO_URL")
            .env("PANDO_GUEST", guest)
            .env("HOME", self.directory.path())
            .env("PANDO_HOME", self.path())
            .env("XDG_RUNTIME_DIR", self.directory.path().join("run"))
            // Machines are the same everywhere, and KVM is not tried.
            .env("PANDO_QEMU_ACCELERATOR", "tcg")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        finish(child, DEADLINE)
    }

    /// Runs a command that must succeed and returns what it wrote.
    fn run(&self, arguments: &[&str]) -> String {
        let began = Instant::now();
        let output = self.output(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}\n{}", self.logs());
        eprintln!("{:6.1} s  pando {}", began.elapsed().as_secs_f32(), arguments.join(" "));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs a command that must succeed and returns its result.
    fn ok(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[&["--json"], arguments].concat());
        let mut envelope: Value = serde_json::from_str(&text).unwrap();
        envelope["result"].take()
    }

    /// Runs a line in a guest's shell and returns what it printed.
    fn sh(&self, address: &str, line: &str) -> String {
        self.run(&["exec", address, "-n", "-c", line])
    }

    /// Returns the daemon's log and the ends of all consoles.
    fn logs(&self) -> String {
        let mut text = std::fs::read_to_string(self.path().join("daemon.log")).unwrap_or_default();
        for branch in std::fs::read_dir(self.path().join("branches")).into_iter().flatten() {
            for file in std::fs::read_dir(branch.unwrap().path()).into_iter().flatten() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "console") {
                    let console = std::fs::read(&path).unwrap_or_default();
                    let end = console.len().saturating_sub(3000);
                    text.push_str(&String::from_utf8_lossy(&console[end..]));
                }
            }
        }
        text
    }

    /// Returns the processes that name this home, and their command lines.
    fn processes(&self) -> Vec<(Pid, String)> {
        let home = self.path().display().to_string();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let named = all.filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        });
        named.filter(|(_, line)| line.contains(&home)).collect()
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path().join(directory)).into_iter().flatten();
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Deletes a machine, the image and all there is; then nothing is left.
    fn assert_nothing_left(&self, machine: &str) {
        self.run(&["rm", "--force", "--disks", machine]);
        self.run(&["image", "rm", "cloud"]);
        self.run(&["gc"]);
        for directory in ["branches", "commits", "images", "keys", "layers"] {
            assert_eq!(self.names(directory), Vec::<String>::new(), "{directory}");
        }
        // Empty memory is kept for the next machine, and is sparse.
        let memory = self.names("memory");
        assert!(memory.iter().all(|name| name.starts_with("zero-")), "{memory:?}");
        self.run(&["daemon", "stop"]);
        self.wait_for_end();
        let bound = std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(!bound.contains(&self.directory.path().display().to_string()), "{bound}");
    }

    fn wait_for_end(&self) {
        let until = Instant::now() + DEADLINE;
        while !self.processes().is_empty() {
            assert!(Instant::now() < until, "{:?}", self.processes());
            std::thread::yield_now();
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A process that was being started during one look is there at the next.
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            let all = self.processes();
            if all.is_empty() {
                return;
            }
            for (pid, _) in all {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_cloud_image_behaves_like_git_under_uefi() {
    let home = Home::with_cloud_image("uefi");
    let created = home.ok(&["vm", "create", "web", "--image", "cloud"]);
    assert_eq!((&created["state"], &created["warm"]), (&"running".into(), &true.into()));
    assert_eq!(home.sh("web", "hostname; test -d /sys/firmware/efi && echo uefi"), "web\nuefi");
    assert_eq!(home.run(&["ssh", "web", "--", "hostname"]), "web");

    // The image's ready state is there: the next machine is another one, and fast.
    let second = home.ok(&["vm", "create", "other", "--image", "cloud"]);
    assert!(second["ready_ms"].as_u64().unwrap() < 20_000, "{second}");
    assert_eq!(home.sh("other", "hostname"), "other");
    let own = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub";
    assert_ne!(home.sh("web", own), home.sh("other", own));
    home.run(&["rm", "--force", "--disks", "other"]);

    // Something on the disk, in memory, and in the firmware's variables.
    let variable = "/sys/firmware/efi/efivars/Note-7c436110-ab2a-4bbb-a880-fe41995c9f82";
    // A variable that is there is protected from mistakes by the kernel.
    let write = |text: &str| {
        let unprotect = format!("if test -e {variable}; then chattr -i {variable}; fi");
        format!("{unprotect} && printf '\\007\\0\\0\\0{text}' > {variable}")
    };
    let read = format!("cat /root/note; cat {variable} | tail -c +5; echo; ls /dev/shm");
    home.sh("web", &format!("echo first > /root/note && {} && touch /dev/shm/a", write("one")));
    home.run(&["commit", "web", "-t", "clean"]);
    home.run(&["branch", "web@clean", "--name", "try"]);
    home.sh("web@try", &format!("echo second > /root/note && {} && rm /dev/shm/a", write("two")));
    assert_eq!(home.sh("web@main", &read), "first\none\na");
    assert_eq!(home.sh("web@try", &read), "second\ntwo");
    assert_eq!(home.run(&["ssh", "web@try", "--", "hostname"]), "web");

    // A boot in place: disks and variables are the branch's, memory is new, and it is still itself.
    let keys = home.sh("web@try", own);
    home.run(&["vm", "control", "web@try", "restart"]);
    assert_eq!(home.sh("web@try", &read), "second\ntwo");
    assert_eq!(home.sh("web@try", "hostname"), "web");
    assert_eq!(home.sh("web@try", own), keys);
    assert_eq!(home.run(&["ssh", "web@try", "--", "hostname"]), "web");

    home.run(&["rollback", "web@try", "clean"]);
    assert_eq!(home.sh("web@try", &read), "first\none\na");
    home.assert_nothing_left("web");
}

#[test]
fn cloud_config_is_honoured_under_bios() {
    let home = Home::with_cloud_image("bios");
    let config = home.directory.path().join("config");
    let text = "#cloud-config
write_files:
  - path: /srv/written
    content: by cloud-init
runcmd:
  - [sh, -c, 'hostname > /srv/ran']
";
    std::fs::write(&config, text).unwrap();
    let config = format!("@{}", config.display());
    let create = ["vm", "create", "app", "--image", "cloud", "--user-data", &config, "--disk", "4"];
    let created = home.ok(&create);
    assert_eq!((&created["state"], &created["warm"]), (&"running".into(), &false.into()));
    assert_eq!(home.sh("app", "cat /srv/written /srv/ran"), "by cloud-initapp");
    assert_eq!(home.sh("app", "test -d /sys/firmware/efi || echo bios"), "bios");
    // The root file system has grown with the disk.
    let size: u64 = home.sh("app", "df --output=size -B1M / | tail -n 1").trim().parse().unwrap();
    assert!(size > 3000, "{size} MiB");
    assert_eq!(home.run(&["ssh", "app", "--", "hostname"]), "app");
    home.assert_nothing_left("app");
}

#[test]
fn a_topology_of_vmcluster_starts_cloud_images() {
    let home = Home::with_cloud_image("bios");
    let file = home.directory.path().join("lab.yaml");
    let text = format!(
        "cluster_name: lab
base_image: {}
network: {{name: lab-net, bridge: virbr-lab, subnet: 192.168.100.0/24, gateway: 192.168.100.1}}
nodes:
  - {{name: node-1, role: server, vcpus: 1, memory_mb: 512, ip: 192.168.100.11}}
  - {{name: node-2, role: client, vcpus: 1, memory_mb: 512, ip: 192.168.100.12}}
",
        cloud_image()
    );
    std::fs::write(&file, text).unwrap();
    home.ok(&["cluster", "define", file.to_str().unwrap()]);
    let started = home.ok(&["cluster", "start", "lab"]);
    assert_eq!(started["started"], serde_json::json!(["node-1", "node-2"]), "{started}");
    for (node, address) in [("node-1", "192.168.100.11"), ("node-2", "192.168.100.12")] {
        let who = home.run(&["ssh", &format!("lab/{node}"), "--", "hostname; hostname -I"]);
        assert!(who.starts_with(node) && who.contains(address), "{who}");
    }
    assert_eq!(home.ok(&["net", "probe", "lab"])["unreachable"], 0);
    assert!(home.sh("lab/node-1", "getent hosts node-2").starts_with("192.168.100.12"));

    home.sh("lab/node-2", "echo one >/dev/shm/state");
    home.run(&["commit", "lab", "-t", "one"]);
    home.sh("lab/node-2", "echo two >/dev/shm/state");
    home.run(&["branch", "lab@one", "--name", "side"]);
    assert_eq!(home.sh("lab@side/node-2", "cat /dev/shm/state"), "one");
    assert_eq!(home.ok(&["net", "probe", "lab@side"])["unreachable"], 0);
    home.assert_nothing_left("lab");
}
