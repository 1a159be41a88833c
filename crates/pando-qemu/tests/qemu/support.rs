//! Machines for tests: tiny ones that run the probe's boot sector, with a console that can be
//! waited on.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pando_machine::{Firmware, Hypervisor as _, Machine, MachinePlan, Nic, NicBackend};
use pando_model::ByteCount;
use pando_model::machine::{Accelerator, NodeShape};
use pando_qemu::probe::{AtTick, boot_sector};
use pando_qemu::qcow2::{BackingFormat, create_overlay};
use pando_qemu::{Qemu, QemuConfig};
use rustix::event::{PollFd, PollFlags, Timespec};

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
            shape: NodeShape { vcpus: 1, memory: MEMORY, disk: DISK, nics: 1 },
            accelerator: Accelerator::Tcg,
            firmware: Firmware::Bios,
            memory_image: self.path("zero.ram"),
            disk: self.path("top.qcow2"),
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
        let mut machine = self.qemu.spawn(plan).unwrap();
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

/// The serial console of a machine, as a pipe with a name.
pub struct Console {
    pipe: File,
    text: String,
}

impl Console {
    pub fn new(path: &Path) -> Self {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(nonblocking);
        Self { pipe: options.open(path).unwrap(), text: String::new() }
    }

    /// Waits until `wanted` returns something from all the text so far.
    pub fn wait<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let deadline = soon();
        loop {
            if let Some(found) = wanted(&self.text) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
            let ready = rustix::event::poll(&mut fds, Timespec::try_from(left).ok().as_ref());
            assert_ne!(ready, Ok(0), "{what} did not come; the console says: {}", self.text);
            self.read();
        }
    }

    fn read(&mut self) {
        let mut chunk = [0; 4096];
        if let Ok(count) = self.pipe.read(&mut chunk) {
            self.text.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    }

    /// Waits for a tick after `after` and returns its number.
    pub fn tick_after(&mut self, after: u32) -> u32 {
        self.wait("a tick", |text| ticks(text).into_iter().rfind(|tick| *tick > after))
    }

    /// All ticks so far.
    pub fn ticks(&mut self) -> Vec<u32> {
        self.read();
        ticks(&self.text)
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

fn ticks(text: &str) -> Vec<u32> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .filter_map(|line| u32::from_str_radix(line.trim().strip_prefix('T')?, 16).ok())
        .collect()
}
