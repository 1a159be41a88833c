//! Which machines can be started here. What is slow to find out (QEMU's version, which
//! accelerators really work) is remembered in the home, under what it depends on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pando_machine::Hypervisor;
use pando_model::host::HostError;
use pando_model::{Accelerator, Layout, MachineProfile};
use pando_qemu::probe::{ProbeKernel, Report, Stage, probe};
use pando_qemu::{Qemu, QemuConfig, QemuError, Version};
use serde::{Deserialize, Serialize};

use crate::limits::PROBE_STAGE;
use crate::settings::{AcceleratorChoice, Settings};

/// What is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// QEMU's program as it was: path, size, time of change.
    program: Option<(PathBuf, u64, i64)>,
    /// Its version.
    version: Option<String>,
    /// Probes by accelerator, under `QEMU version, kernel release`.
    reports: BTreeMap<String, Report>,
}

fn memory_path(layout: &Layout) -> PathBuf {
    layout.home().join("machines.json")
}

fn recall(layout: &Layout) -> Memory {
    let text = fs::read(memory_path(layout)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Keeps what was found out; what cannot be kept is found out again.
fn remember(layout: &Layout, memory: &Memory) {
    let Ok(text) = serde_json::to_vec_pretty(memory) else { return };
    if let Ok(mut file) = tempfile::NamedTempFile::new_in(layout.home())
        && std::io::Write::write_all(&mut file, &text).is_ok()
    {
        let _ = file.persist(memory_path(layout));
    }
}

fn identity(program: &Path) -> Option<(PathBuf, u64, i64)> {
    let facts = fs::metadata(program).ok()?;
    Some((program.to_owned(), facts.size(), facts.mtime()))
}

/// Returns QEMU, without running it when its version is known.
///
/// # Errors
/// When it is not there or too old.
pub fn qemu(layout: &Layout, settings: &Settings) -> Result<Qemu, QemuError> {
    let mut memory = recall(layout);
    let configured = (!settings.qemu.is_empty()).then(|| PathBuf::from(&settings.qemu));
    let wanted = configured.or_else(Qemu::in_path);
    let known = memory
        .program
        .as_ref()
        .filter(|(path, ..)| wanted.as_ref() == Some(path) && identity(path) == memory.program);
    if let (Some((path, ..)), Some(Ok(version))) =
        (known, memory.version.as_ref().map(|text| text.parse::<Version>()))
    {
        return Qemu::new(QemuConfig { binary: Some(path.clone()), version: Some(version) });
    }
    let qemu = Qemu::new(QemuConfig { binary: wanted, version: None })?;
    memory.program = identity(qemu.binary());
    memory.version = Some(qemu.version().to_string());
    remember(layout, &memory);
    Ok(qemu)
}

/// Whether what is remembered may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// Where it still applies.
    Remembered,
    /// Never: everything is tried now.
    Fresh,
}

/// One probe of this process at a time: whoever comes second finds what the first remembers.
static TRYING: Mutex<()> = Mutex::new(());

/// Returns what each accelerator can do here, the fastest first. KVM is believed only after a real
/// kernel has booted under it, so it needs an image to try with.
pub fn reports(layout: &Layout, qemu: &Qemu, probing: Probing) -> Vec<Report> {
    let _turn = TRYING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut memory = recall(layout);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let kernel = any_kernel(layout);
    let mut reports = Vec::new();
    let mut is_new = false;
    for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
        let key = format!("{} {} {release}", accelerator.as_str(), qemu.version());
        let wants_kernel = accelerator == Accelerator::Kvm && kernel.is_some();
        let known = memory.reports.get(&key).filter(|report| {
            let decided = !report.works() || !wants_kernel || passed(report, Stage::Kernel);
            probing == Probing::Remembered && decided
        });
        if let Some(report) = known {
            reports.push(report.clone());
            continue;
        }
        let kernel = kernel.as_ref().filter(|_| wants_kernel);
        clear_dead_probes(&layout.tmp());
        let report = probe(qemu, accelerator, kernel, &layout.tmp(), PROBE_STAGE);
        memory.reports.insert(key, report.clone());
        reports.push(report);
        is_new = true;
    }
    if is_new {
        remember(layout, &memory);
    }
    reports
}

/// Removes the scratch files of probes whose process was killed.
fn clear_dead_probes(scratch: &Path) {
    let of_dead = |name: &str| {
        let process = name.strip_prefix("probe-").and_then(|rest| rest.rsplit('-').next());
        let process = process.and_then(|text| text.parse::<u32>().ok());
        process.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists())
    };
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(of_dead) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Tests what machines ask of QEMU, its interfaces outside its stability promise among them, unless
/// that is remembered of this QEMU and kernel. Notes in the log what was found; a call that needs a
/// machine says it again.
pub fn self_test(layout: &Layout, settings: &Settings) {
    let qemu = match qemu(layout, settings) {
        Ok(qemu) => qemu,
        Err(error) => return tracing::warn!(%error, "no machine can be started"),
    };
    if let Err(error) = fs::create_dir_all(layout.tmp()) {
        return tracing::warn!(%error, "QEMU is not tested");
    }
    for report in reports(layout, &qemu, Probing::Remembered) {
        let accelerator = report.accelerator.as_str();
        let failure = report.failure.as_ref().map(|failure| failure.reason.as_str());
        tracing::info!(accelerator, qemu = report.qemu_version, failure, "QEMU is tested");
    }
}

fn passed(report: &Report, stage: Stage) -> bool {
    report.passed.iter().any(|passed| passed.stage == stage)
}

/// Returns whether machines are started under this accelerator.
pub fn is_trusted(report: &Report) -> bool {
    report.works() && (report.accelerator == Accelerator::Tcg || passed(report, Stage::Kernel))
}

/// Returns the kernel of any image.
fn any_kernel(layout: &Layout) -> Option<ProbeKernel> {
    let images = fs::read_dir(layout.images()).ok()?;
    images.flatten().find_map(|entry| {
        let found = ProbeKernel {
            kernel: entry.path().join("kernel"),
            initrd: entry.path().join("initrd"),
        };
        (found.kernel.is_file() && found.initrd.is_file()).then_some(found)
    })
}

/// Returns what a machine started now would record.
///
/// # Errors
/// When there is no usable QEMU, or the accelerator that was asked for does not work.
pub fn profile(layout: &Layout, settings: &Settings) -> Result<MachineProfile, HostError> {
    let failed = |detail: String| HostError::Machine { node: "any".to_owned(), detail };
    let qemu = qemu(layout, settings).map_err(|error| failed(error.to_string()))?;
    fs::create_dir_all(layout.tmp()).map_err(|error| failed(error.to_string()))?;
    let wanted = match settings.accelerator {
        AcceleratorChoice::Auto => None,
        AcceleratorChoice::Fixed(accelerator) => Some(accelerator),
    };
    let mut reports = reports(layout, &qemu, Probing::Remembered);
    if !reports.iter().any(is_trusted) {
        // Whatever was in the way may be gone.
        reports = self::reports(layout, &qemu, Probing::Fresh);
    }
    let chosen = reports.iter().find(|report| match wanted {
        Some(wanted) => report.accelerator == wanted && report.works(),
        None => is_trusted(report),
    });
    match chosen {
        Some(report) => Ok(qemu.profile(report.accelerator)),
        None => {
            let reasons: Vec<String> = reports
                .iter()
                .filter_map(|report| {
                    let failure = report.failure.as_ref()?;
                    Some(format!("{}: {}", report.accelerator.as_str(), failure.reason))
                })
                .collect();
            Err(failed(format!("no accelerator works here ({})", reasons.join("; "))))
        }
    }
}
