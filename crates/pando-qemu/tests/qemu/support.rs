//! Machines for tests: tiny ones that run the probe's boot sector, with a console that can be
//! waited on.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pando_machine::{Firmware, Hypervisor as _, Machine, MachinePlan, Nic, NicBackend};
use pando_model::ByteCount;
use pando_model::machine::{Accelerator, NodeShape};
use pando_qemu::probe::{AtTick, ConsolePipe, boot_sector, ticks};
use pando_qemu::qcow2::{BackingFormat, create_overlay};
use pando_qemu::{Qemu, QemuConfig};

/// RAM of a tiny machine.
pub const MEMORY: ByteCount = ByteCount::from_mib(16);
/// Disk of a tiny machine.
pub const DISK: ByteCount = ByteCount::from_mib(4);

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub fn qemu() -> Qemu {
    Qemu::new(QemuConfig::default()).expect("the tests need qemu-system-x86_64")
}

/// QEMU started by a shell script, in which QEMU stands for the program.
pub fn wrapped(directory: &Path, script: &str) -> Qemu {
    let (source, binary) = (directory.join("source"), directory.join("wrapper"));
    let program = qemu().binary().display().to_string();
    std::fs::write(&source, format!("#!/bin/sh\n{}\n", script.replace("QEMU", &program))).unwrap();
    copy_program(&source, &binary);
    Qemu::new(QemuConfig { binary: Some(binary), version: None }).unwrap()
}

/// Makes a copy that everybody can run. Another process writes it: a test that forks at this moment
/// would hold the file open for writing for a while, and then it could not be run.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([from, to]).status();
    assert!(status.unwrap().success());
}

/// A directory with the files of some machines.
pub struct Bench {
    pub directory: tempfile::TempDir,
    pub qemu: Qemu,
}

impl Bench {
    pub fn new(at_tick: AtTick) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Self { directory, qemu: qemu() };
        let mut disk = boot_sector(at_tick).to_vec();
        disk.resize(usize::try_from(DISK.bytes()).unwrap(), 0);
        std::fs::write(bench.path("base.raw"), disk).unwrap();
        create_overlay(&bench.path("top.qcow2"), "base.raw", BackingFormat::Raw, DISK).unwrap();
        File::create(bench.path("zero.ram")).unwrap().set_len(MEMORY.bytes()).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A plan that boots `top.qcow2` from nothing.
    pub fn plan(&self, name: &str) -> MachinePlan {
        MachinePlan {
            name: name.to_owned(),
            shape: NodeShape {
                vcpus: 1,
                memory: MEMORY,
                disk: DISK,
                nics: 1,
                extra_disks: Vec::new(),
            },
            accelerator: Accelerator::Tcg,
            firmware: Firmware::Bios,
            memory_image: self.path("zero.ram"),
            disk: self.path("top.qcow2"),
            extra_disks: Vec::new(),
            seed: None,
            durable_disk: false,
            nics: vec![Nic { mac: "52:54:00:00:00:01".to_owned(), backend: NicBackend::Isolated }],
            console: self.path(&format!("{name}.console")),
            log: self.path(&format!("{name}.log")),
            restore: false,
        }
    }

    /// Starts a machine that is ready and stopped.
    pub fn start(&self, plan: &MachinePlan) -> (Box<dyn Machine>, Console) {
        let console = Console::new(&plan.console);
        let mut machine = self.qemu.spawn(plan, Vec::new()).unwrap();
        machine.wait_ready(soon()).unwrap();
        (machine, console)
    }

    /// An empty overlay over the file `below` of this directory.
    pub fn overlay(&self, name: &str, below: &str) -> PathBuf {
        let path = self.path(name);
        create_overlay(&path, below, BackingFormat::Qcow2, DISK).unwrap();
        path
    }
}

/// Copies the whole RAM of a stopped machine.
pub fn copy_ram(machine: &dyn Machine, to: &Path) {
    let ram = machine.ram().unwrap();
    let memory = File::open(format!("/proc/{}/mem", ram.pid)).unwrap();
    let mut bytes = vec![0; usize::try_from(ram.length).unwrap()];
    memory.read_exact_at(&mut bytes, ram.address).unwrap();
    File::create(to).unwrap().write_all(&bytes).unwrap();
}

/// The serial console of a tiny machine.
pub struct Console(ConsolePipe);

impl Console {
    pub fn new(path: &Path) -> Self {
        Self(ConsolePipe::create(path).unwrap())
    }

    /// Waits for a tick after `after` and returns its number.
    pub fn tick_after(&mut self, after: u32) -> u32 {
        let later = |text: &str| ticks(text).into_iter().rfind(|tick| *tick > after);
        let found = self.0.wait(soon(), |text| later(text).is_some()).unwrap();
        assert!(found, "no tick after {after}; the console says: {}", self.0.text());
        later(self.0.text()).unwrap()
    }

    /// All ticks so far.
    pub fn ticks(&mut self) -> Vec<u32> {
        self.0.read().unwrap();
        ticks(self.0.text())
    }

    pub fn text(&self) -> &str {
        self.0.text()
    }
}
