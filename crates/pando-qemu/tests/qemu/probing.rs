//! The accelerator probe on this host, and on one that pretends.

use std::path::Path;
use std::time::{Duration, Instant};

use pando_model::machine::Accelerator;
use pando_qemu::Qemu;
use pando_qemu::probe::{ProbeKernel, Report, Stage, probe};

use crate::assets::Assets;
use crate::support::{qemu, wrapped};

const PATIENCE: Duration = Duration::from_secs(60);

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

fn probe_in(qemu: &Qemu, patience: Duration) -> Report {
    let scratch = tempfile::tempdir().unwrap();
    let report = probe(qemu, Accelerator::Tcg, None, scratch.path(), patience);
    assert!(is_empty(scratch.path()), "the probe left files");
    report
}

#[test]
fn the_translator_works_here() {
    let started = Instant::now();
    let report = probe_in(&qemu(), PATIENCE);
    eprintln!("probe: {:?}: {report:?}", started.elapsed());
    assert!(report.works(), "{report:?}");
    let stages: Vec<Stage> = report.passed.iter().map(|passed| passed.stage).collect();
    assert_eq!(stages, [Stage::Device, Stage::Boot, Stage::Save, Stage::Restore]);
}

#[test]
fn a_kernel_has_the_last_word() {
    let scratch = tempfile::tempdir().unwrap();
    let Assets { kernel, initrd } = Assets::get();
    let with = |kernel: &Path| {
        let kernel = ProbeKernel { kernel: kernel.to_owned(), initrd: initrd.clone() };
        probe(&qemu(), Accelerator::Tcg, Some(&kernel), scratch.path(), PATIENCE)
    };
    let report = with(&kernel);
    assert!(report.works(), "{report:?}");
    assert_eq!(report.passed.last().unwrap().stage, Stage::Kernel);
    let report = with(&initrd);
    assert_eq!(report.failure.unwrap().stage, Stage::Kernel);
    assert!(is_empty(scratch.path()), "the probe left files");
}

#[test]
fn a_guest_that_hangs_does_not_work() {
    let directory = tempfile::tempdir().unwrap();
    // Firmware that jumps to itself from the first instruction on.
    let firmware = directory.path().join("firmware");
    std::fs::write(&firmware, [0xeb, 0xfe].repeat(32 << 10)).unwrap();
    let script = format!(r#"exec QEMU "$@" -bios {}"#, firmware.display());
    let patience = Duration::from_millis(300);
    let report = probe_in(&wrapped(directory.path(), &script), patience);
    let failure = report.failure.unwrap();
    assert_eq!(failure.stage, Stage::Boot);
    assert!(failure.reason.contains("did not count within 300ms"), "{}", failure.reason);
}

#[test]
fn a_host_that_refuses_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let script =
        r#"case $1 in --version) exec QEMU "$@";; esac; echo 'no memory today' >&2; exit 1"#;
    let report = probe_in(&wrapped(directory.path(), script), PATIENCE);
    let failure = report.failure.unwrap();
    assert_eq!(failure.stage, Stage::Boot);
    assert!(failure.reason.contains("no memory today"), "{}", failure.reason);
}

#[test]
fn hardware_is_believed_only_after_a_guest_ran() {
    let scratch = tempfile::tempdir().unwrap();
    let report = probe(&qemu(), Accelerator::Kvm, None, scratch.path(), Duration::from_secs(5));
    eprintln!("{report:?}");
    let restored = report.passed.iter().any(|passed| passed.stage == Stage::Restore);
    assert_eq!(report.works(), restored);
    assert!(is_empty(scratch.path()), "the probe left files");
}
