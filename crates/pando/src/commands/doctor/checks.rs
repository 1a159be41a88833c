//! The checks.

use std::fs;
use std::path::{Path, PathBuf};

use pando_model::{ByteCount, KernelNetwork, Layout};
use pando_qemu::probe::Report;
use pando_qemu::{QemuError, Version};
use rustix::fs::{Access, access, ioctl_ficlone, statvfs};

use super::Finding;
use crate::output::progress::Meter;
use crate::settings::Settings;
use crate::wire::{self, machines};
use crate::{home, wire::machines::Probing};

/// Distributions that pando was run on; others may work.
const TESTED: &[&str] = &["Debian GNU/Linux 12"];
/// Free memory for the default machine and the daemon.
const ENOUGH_MEMORY: ByteCount = ByteCount::from_mib(1024);
/// Free disk space for the default image, its ready state and a few commits.
const ENOUGH_DISK: ByteCount = ByteCount::from_gib(5);

/// A program: name, Debian package, what it is for, whether nothing works without it.
struct Tool {
    name: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { name: "qemu-img", package: "qemu-utils", purpose: "images" },
    Tool { name: "mmdebstrap", package: "mmdebstrap", purpose: "image build" },
    Tool { name: "fakeroot", package: "fakeroot", purpose: "image build" },
    Tool { name: "mkfs.ext4", package: "e2fsprogs", purpose: "image build" },
    Tool { name: "xz", package: "xz-utils", purpose: "image build" },
    Tool { name: "zstd", package: "zstd", purpose: "image build" },
    Tool { name: "ssh", package: "openssh-client", purpose: "pando ssh" },
    Tool { name: "passt", package: "passt", purpose: "machines with an uplink" },
];

pub(super) fn all(
    layout: &Layout,
    settings: &Settings,
    probing: Probing,
    meter: &mut Meter<'_>,
    findings: &mut Vec<Finding>,
) {
    findings.push(distribution());
    let usable = home_directory(layout, findings);
    hypervisor(layout, settings, probing, meter, findings, usable);
    findings.push(guest_program(settings));
    findings.push(memory());
    findings.push(noted_writes());
    if usable {
        findings.push(disk(layout.home()));
        findings.push(reflink(layout.home()));
    }
    findings.extend(TOOLS.iter().map(tool));
    findings.push(kernel_network(&pando_bridge::probe()));
}

/// Whether commits read what was written since the one before, and no more.
fn noted_writes() -> Finding {
    const WHAT: &str = "noted writes";
    match pando_delta::tracking::try_out() {
        Ok(()) => Finding::fine(WHAT, "a commit reads what was written since the one before"),
        Err(error) => Finding::poor(
            WHAT,
            format!("the kernel does not note what machines write: {error}"),
            "Linux 6.7 or later; in a container, a seccomp profile that permits userfaultfd and ptrace\n\
             (without, a commit reads all that was ever written: machines stand still for longer)",
        ),
    }
}

/// What clusters with `mode: kernel` need; no other does.
fn kernel_network(can: &KernelNetwork) -> Finding {
    const WHAT: &str = "kernel network";
    const FOR: &str = "for networks with `mode: kernel`; others need nothing";
    let poor =
        |found: String, remedy: &str| Finding::poor(WHAT, found, format!("{remedy}\n({FOR})"));
    if let Some(lack) = can.lacks.first() {
        return poor(lack.what.clone(), &lack.remedy);
    }
    let (less, remedies): (Vec<&str>, Vec<&str>) = [&can.no_rate, &can.no_netem]
        .into_iter()
        .flatten()
        .map(|lack| (lack.what.as_str(), lack.remedy.as_str()))
        .unzip();
    if less.is_empty() {
        return Finding::fine(WHAT, "bridges, partitions, rates and impairments");
    }
    poor(format!("bridges and partitions work, but {}", less.join(", ")), &remedies.join("\n"))
}

fn distribution() -> Finding {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("unknown".to_owned(), |name| name.trim_matches('"').to_owned());
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let found = format!("{name}, Linux {kernel}");
    if TESTED.iter().any(|tested| name.starts_with(tested)) {
        Finding::fine("distribution", found)
    } else {
        let fix = format!("pando was tested on {}; elsewhere it is untested", TESTED.join(", "));
        Finding::poor("distribution", found, fix)
    }
}

fn home_directory(layout: &Layout, findings: &mut Vec<Finding>) -> bool {
    match home::prepare(layout).and_then(|()| {
        fs::create_dir_all(layout.tmp()).map_err(|source| {
            pando_api::ApiError::new(pando_model::ErrorCode::ConfigInvalid, source.to_string())
        })
    }) {
        Ok(()) => {
            findings.push(Finding::fine("home", layout.home().display().to_string()));
            true
        }
        Err(error) => {
            let fix = error.hint.clone().unwrap_or_default();
            findings.push(Finding::missing("home", error.message, fix));
            false
        }
    }
}

fn hypervisor(
    layout: &Layout,
    settings: &Settings,
    probing: Probing,
    meter: &mut Meter<'_>,
    findings: &mut Vec<Finding>,
    usable: bool,
) {
    let qemu = match machines::qemu(layout, settings) {
        Ok(qemu) => qemu,
        Err(error) => {
            findings.push(Finding::missing("QEMU", error.to_string(), qemu_fix(&error)));
            return;
        }
    };
    let found = format!("{} at {}", qemu.version(), qemu.binary().display());
    findings.push(Finding::fine("QEMU", found));
    if !usable {
        return;
    }
    meter.draw(&pando_model::operation::Progress {
        message: "booting a probe guest under each accelerator".to_owned(),
        done: 0,
        total: 0,
    });
    let reports = machines::reports(layout, &qemu, probing);
    let any = reports.iter().any(machines::is_trusted);
    findings.extend(reports.iter().map(|report| accelerator(report, any)));
}

fn qemu_fix(error: &QemuError) -> String {
    let oldest = Version::OLDEST;
    match error {
        QemuError::TooOld { .. } => format!(
            "pando needs QEMU {oldest} or newer; on Debian 12, with bookworm-backports enabled:\n\
             apt install -t bookworm-backports qemu-system-x86 qemu-utils"
        ),
        _ => format!("apt install qemu-system-x86 qemu-utils   (QEMU {oldest} or newer)"),
    }
}

fn accelerator(report: &Report, any_works: bool) -> Finding {
    let name = report.accelerator.as_str();
    let (what, is_tcg) = if name == "kvm" { ("KVM", false) } else { ("TCG", true) };
    if let Some(failure) = &report.failure {
        let stage = format!("{:?}", failure.stage).to_lowercase();
        let found = format!("does not work ({stage}): {}", failure.reason);
        return if is_tcg {
            Finding::missing(what, found, "reinstall qemu-system-x86")
        } else {
            let fix =
                "machines run under TCG, slower; KVM needs a host (or hypervisor) that offers it";
            Finding::poor(what, found, if any_works { fix } else { "enable virtualisation" })
        };
    }
    let took: u64 = report.passed.iter().map(|stage| stage.took_ms).sum();
    if machines::is_trusted(report) {
        Finding::fine(
            what,
            format!("boots, stops, saves and restores a guest as commits do ({took} ms)"),
        )
    } else {
        let fix = "with an image, a real kernel is tried: pando image build";
        Finding::poor(what, "runs a tiny guest; not yet tried with a real kernel", fix)
    }
}

fn guest_program(settings: &Settings) -> Finding {
    let path = wire::guest_program(settings);
    if path.is_file() {
        return Finding::fine("guest program", path.display().to_string());
    }
    let found = format!("{} is not there", path.display());
    Finding::missing("guest program", found, "pando config set image.guest_program PATH")
}

fn memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(ByteCount(0), |kib| ByteCount(kib << 10));
    let found = format!("{available} available");
    if available >= ENOUGH_MEMORY {
        Finding::fine("memory", found)
    } else {
        Finding::poor("memory", found, format!("free some: {ENOUGH_MEMORY} are comfortable"))
    }
}

fn disk(home: &Path) -> Finding {
    let Ok(facts) = statvfs(home) else {
        return Finding::poor("disk", "cannot tell the free space", "df -h");
    };
    let free = ByteCount(facts.f_bavail.saturating_mul(facts.f_frsize));
    let found = format!("{free} free");
    if free >= ENOUGH_DISK {
        Finding::fine("disk", found)
    } else {
        Finding::poor(
            "disk",
            found,
            format!("{ENOUGH_DISK} are comfortable; PANDO_HOME may be elsewhere"),
        )
    }
}

/// Tries whether the home's file system can share blocks between files.
fn reflink(home: &Path) -> Finding {
    let tried = || -> std::io::Result<()> {
        let mut from = tempfile::tempfile_in(home)?;
        std::io::Write::write_all(&mut from, &[1; 4096])?;
        let to = tempfile::tempfile_in(home)?;
        ioctl_ficlone(&to, &from)?;
        Ok(())
    };
    match tried() {
        Ok(()) => Finding::fine("reflink", "the home's file system shares blocks between files"),
        Err(_) => {
            Finding::fine("reflink", "not on this file system; memory images are copied instead")
        }
    }
}

fn tool(tool: &Tool) -> Finding {
    match find(tool.name) {
        Some(path) => Finding::fine(tool.name, path.display().to_string()),
        None => {
            let found = format!("not found (for: {})", tool.purpose);
            Finding::poor(tool.name, found, format!("apt install {}", tool.package))
        }
    }
}

/// Looks for a program in PATH, and where only root's PATH leads.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories
        .map(|directory| directory.join(program))
        .find(|path| path.is_file() && access(path, Access::EXEC_OK).is_ok())
}
