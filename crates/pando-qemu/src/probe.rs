//! Finds out what really works on this host, by doing it.
//!
//! That `/dev/kvm` opens proves nothing: on some hosts QEMU then aborts, on others the guest hangs
//! in its firmware. So a tiny guest is booted, saved, restored and watched while it counts on, with
//! the code that real machines use; this also tests the parts of QEMU that are outside its
//! stability promise. Where a kernel is at hand, it has the last word.
//!
//! ```text
//! Device ─► Boot ─► Save ─► Restore ─► Kernel (when given)
//! ```
//!
//! Nothing is remembered here; the caller keeps the [`Report`].

mod console;
mod payload;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pando_machine::{
    DiskRole, EndReason, Firmware, Hypervisor as _, Machine, MachineError, MachinePlan, Nic,
    NicBackend,
};
use pando_model::ByteCount;
use pando_model::machine::{Accelerator, NodeShape};
use serde::{Deserialize, Serialize};

pub use self::console::ConsolePipe;
pub use self::payload::{AtTick, boot_sector, ticks};
use crate::hypervisor::Qemu;
use crate::qcow2::{BackingFormat, Qcow2Error, create_overlay};

const MEMORY: ByteCount = ByteCount::from_mib(16);
const KERNEL_MEMORY: ByteCount = ByteCount::from_mib(256);
const DISK: ByteCount = ByteCount::from_mib(1);
/// Ticks that a guest must count before it is believed to run: interrupts keep coming.
const ENOUGH_TICKS: u32 = 5;
/// What the kernel prints, with `ignore_loglevel`, when it leaves its own code for the first time.
const KERNEL_IS_UP: &str = "Run /init as init process";
const KERNEL_CMDLINE: &str = "console=ttyS0 ignore_loglevel panic=-1";

/// A kernel to probe with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeKernel {
    /// The kernel.
    pub kernel: PathBuf,
    /// Any initial RAM disk with an `/init`.
    pub initrd: PathBuf,
}

/// What is tried, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The host's device can be opened.
    Device,
    /// A guest boots, in long mode and with timer interrupts.
    Boot,
    /// Its devices, disk and memory are saved.
    Save,
    /// A copy goes on where the saved one was.
    Restore,
    /// A real kernel boots.
    Kernel,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How guest code ran.
    pub accelerator: Accelerator,
    /// QEMU's version.
    pub qemu_version: String,
    /// What worked, and how long it took.
    pub passed: Vec<Passed>,
    /// What did not, if anything.
    pub failure: Option<Failure>,
}

/// A stage that worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// The stage.
    pub stage: Stage,
    /// How long it took.
    pub took_ms: u64,
}

/// The stage that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The stage.
    pub stage: Stage,
    /// Why, for people.
    pub reason: String,
}

impl Report {
    /// Returns whether machines can be run, committed and branched.
    pub const fn works(&self) -> bool {
        self.failure.is_none()
    }
}

/// Why a stage failed.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("cannot use {path}", path = path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a disk")]
    Disk(#[from] Qcow2Error),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("the guest did not {what} within {waited:?}; it printed {printed:?}")]
    Silent { what: &'static str, waited: Duration, printed: String },
    #[error("the guest went wrong: saved at tick {saved}, it went on at {resumed}")]
    Diverged { saved: u32, resumed: u32 },
    #[error("the guest ended: {0:?}")]
    Ended(EndReason),
}

/// Tries an accelerator. `scratch` is an existing directory on the file system where machines will
/// be; it holds files of the probe until this returns. Each stage may take `patience`; 10 seconds
/// are plenty on a busy host.
pub fn probe(
    qemu: &Qemu,
    accelerator: Accelerator,
    kernel: Option<&ProbeKernel>,
    scratch: &Path,
    patience: Duration,
) -> Report {
    let mut report = Report {
        accelerator,
        qemu_version: qemu.version().to_string(),
        passed: Vec::new(),
        failure: None,
    };
    let directory = scratch.join(format!("probe-{}-{}", accelerator.as_str(), std::process::id()));
    let mut probe = Probe { qemu, accelerator, directory, patience, parent: None };
    let mut stages = vec![Stage::Device, Stage::Boot, Stage::Save, Stage::Restore];
    stages.extend(kernel.map(|_| Stage::Kernel));
    for stage in stages {
        let started = Instant::now();
        let outcome = match (stage, kernel) {
            (Stage::Device, _) => probe.device(),
            (Stage::Boot, _) => probe.boot(),
            (Stage::Save, _) => probe.save(),
            (Stage::Restore, _) => probe.restore(),
            (Stage::Kernel, Some(kernel)) => probe.kernel(kernel),
            (Stage::Kernel, None) => Ok(()),
        };
        if let Err(error) = outcome {
            report.failure = Some(Failure { stage, reason: reason(&error) });
            break;
        }
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.passed.push(Passed { stage, took_ms });
    }
    report
}

/// An error and its sources, in one line.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A probe under way; dropping it removes its files.
struct Probe<'a> {
    qemu: &'a Qemu,
    accelerator: Accelerator,
    directory: PathBuf,
    patience: Duration,
    /// The guest of `Boot`, and after `Save` the tick that it was saved at.
    parent: Option<Guest>,
}

struct Guest {
    machine: Box<dyn Machine>,
    console: ConsolePipe,
    saved_at: u32,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.parent = None;
        // What stays is in a directory of scratch files, which the daemon empties.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Probe<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn device(&self) -> Result<(), ProbeError> {
        let open = |path: PathBuf| match File::options().read(true).write(true).open(&path) {
            Ok(_) => Ok(()),
            Err(source) => Err(ProbeError::File { path, source }),
        };
        match self.accelerator {
            Accelerator::Kvm => open("/dev/kvm".into()),
            Accelerator::Tcg => Ok(()),
        }
    }

    fn boot(&mut self) -> Result<(), ProbeError> {
        self.prepare_files()?;
        let plan = self.plan("parent");
        let mut guest = self.start(&plan)?;
        guest.machine.resume(self.deadline())?;
        self.wait_tick(&mut guest, ENOUGH_TICKS)?;
        self.parent = Some(guest);
        Ok(())
    }

    fn save(&mut self) -> Result<(), ProbeError> {
        let Some(mut guest) = self.parent.take() else { return Ok(()) };
        let overlay = self.path("after.qcow2");
        create_overlay(&overlay, "parent.qcow2", BackingFormat::Qcow2, DISK)?;
        let machine = &mut guest.machine;
        machine.prepare_overlay(DiskRole::Root, &overlay, self.deadline())?;
        machine.stand_still(self.deadline())?;
        machine.save_devices(Some(&self.path("state")), self.deadline())?;
        self.copy_ram(&**machine)?;
        guest.console.read().map_err(|source| self.unusable("parent.console", source))?;
        guest.saved_at = ticks(guest.console.text()).last().copied().unwrap_or_default();
        guest.machine.resume(self.deadline())?;
        let saved_at = guest.saved_at;
        self.wait_tick(&mut guest, saved_at + ENOUGH_TICKS)?;
        self.parent = Some(guest);
        Ok(())
    }

    fn restore(&mut self) -> Result<(), ProbeError> {
        let Some(parent) = self.parent.take() else { return Ok(()) };
        let saved = parent.saved_at;
        drop(parent);
        let disk = self.path("child.qcow2");
        create_overlay(&disk, "parent.qcow2", BackingFormat::Qcow2, DISK)?;
        let mut plan = self.plan("child");
        plan.memory_image = self.path("saved.ram");
        plan.restore = true;
        let mut guest = self.start(&plan)?;
        guest.machine.load_devices(&self.path("state"), self.deadline())?;
        guest.machine.resume(self.deadline())?;
        self.wait_tick(&mut guest, saved + ENOUGH_TICKS)?;
        // The tick that was being printed comes again, or the next one is the first.
        match ticks(guest.console.text()).first() {
            Some(first) if (saved..=saved + 2).contains(first) => Ok(()),
            first => Err(ProbeError::Diverged { saved, resumed: first.copied().unwrap_or(0) }),
        }
    }

    fn kernel(&mut self, kernel: &ProbeKernel) -> Result<(), ProbeError> {
        self.make_ram("kernel.ram", KERNEL_MEMORY)?;
        let disk = self.path("kernel.qcow2");
        create_overlay(&disk, "base.raw", BackingFormat::Raw, DISK)?;
        let mut plan = self.plan("kernel");
        plan.memory_image = self.path("kernel.ram");
        plan.shape.memory = KERNEL_MEMORY;
        plan.firmware = Firmware::Direct {
            kernel: kernel.kernel.clone(),
            initrd: kernel.initrd.clone(),
            cmdline: KERNEL_CMDLINE.to_owned(),
        };
        let mut guest = self.start(&plan)?;
        guest.machine.resume(self.deadline())?;
        self.wait_text(&mut guest, "boot a kernel", |text| text.contains(KERNEL_IS_UP))
    }

    fn prepare_files(&self) -> Result<(), ProbeError> {
        let unusable = |source| ProbeError::File { path: self.directory.clone(), source };
        std::fs::create_dir(&self.directory).map_err(unusable)?;
        std::fs::write(self.path("base.raw"), boot_sector(AtTick::Nothing))
            .map_err(|source| self.unusable("base.raw", source))?;
        create_overlay(&self.path("parent.qcow2"), "base.raw", BackingFormat::Raw, DISK)?;
        self.make_ram("zero.ram", MEMORY)
    }

    fn make_ram(&self, name: &str, size: ByteCount) -> Result<(), ProbeError> {
        File::create(self.path(name))
            .and_then(|file| file.set_len(size.bytes()))
            .map_err(|source| self.unusable(name, source))
    }

    fn unusable(&self, name: &str, source: io::Error) -> ProbeError {
        ProbeError::File { path: self.path(name), source }
    }

    fn plan(&self, name: &str) -> MachinePlan {
        let mac = "52:54:00:70:61:6e".to_owned();
        MachinePlan {
            name: format!("probe {name}"),
            shape: NodeShape {
                vcpus: 1,
                memory: MEMORY,
                disk: DISK,
                nics: 1,
                extra_disks: Vec::new(),
            },
            accelerator: self.accelerator,
            firmware: Firmware::Bios,
            memory_image: self.path("zero.ram"),
            disk: self.path(&format!("{name}.qcow2")),
            extra_disks: Vec::new(),
            seed: None,
            durable_disk: false,
            nics: vec![Nic { mac, backend: NicBackend::Isolated }],
            console: self.path(&format!("{name}.console")),
            log: self.path(&format!("{name}.log")),
            restore: false,
        }
    }

    fn start(&self, plan: &MachinePlan) -> Result<Guest, ProbeError> {
        let console = ConsolePipe::create(&plan.console)
            .map_err(|source| ProbeError::File { path: plan.console.clone(), source })?;
        let mut machine = self.qemu.spawn(plan, Vec::new())?;
        machine.wait_ready(self.deadline())?;
        Ok(Guest { machine, console, saved_at: 0 })
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    fn wait_tick(&self, guest: &mut Guest, tick: u32) -> Result<(), ProbeError> {
        self.wait_text(guest, "count", |text| ticks(text).last().is_some_and(|last| *last >= tick))
    }

    fn wait_text(
        &self,
        guest: &mut Guest,
        what: &'static str,
        is_there: impl Fn(&str) -> bool,
    ) -> Result<(), ProbeError> {
        let waited = guest
            .console
            .wait(self.deadline(), is_there)
            .map_err(|source| self.unusable("console", source))?;
        if waited {
            return Ok(());
        }
        if let Some(reason) = guest.machine.wait_end(Duration::ZERO)? {
            return Err(ProbeError::Ended(reason));
        }
        let text = guest.console.text();
        let start = text.char_indices().rev().nth(199).map_or(0, |(index, _)| index);
        let printed = text.get(start..).unwrap_or_default().to_owned();
        Err(ProbeError::Silent { what, waited: self.patience, printed })
    }

    /// Copies the RAM of a stopped machine as a commit does: by reading the process.
    fn copy_ram(&self, machine: &dyn Machine) -> Result<(), ProbeError> {
        let ram = machine.ram()?;
        let copy = || -> io::Result<()> {
            let memory = File::open(format!("/proc/{}/mem", ram.pid))?;
            let saved = File::create_new(self.path("saved.ram"))?;
            saved.set_len(ram.length)?;
            let mut chunk = vec![0; 1 << 20];
            let mut done = 0;
            while done < ram.length {
                let left = usize::try_from(ram.length - done).unwrap_or(usize::MAX);
                let length = left.min(chunk.len());
                let part = chunk.get_mut(..length).unwrap_or_default();
                memory.read_exact_at(part, ram.address + done)?;
                if part.iter().any(|byte| *byte != 0) {
                    saved.write_all_at(part, done)?;
                }
                done += length as u64;
            }
            Ok(())
        };
        copy().map_err(|source| self.unusable("saved.ram", source))
    }
}
