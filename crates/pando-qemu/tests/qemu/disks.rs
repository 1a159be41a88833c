//! Disks on real QEMU: our qcow2 files against `qemu-img`, and chains that are cut and flattened
//! under a running machine.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::support::{Bench, DISK, soon};
use pando_machine::{DiskRole, Machine, MachineError};
use pando_model::ByteCount;
use pando_qemu::probe::AtTick;
use pando_qemu::qcow2::{BackingFormat, create_empty, create_overlay, inspect};
use serde_json::Value;

fn run(program: &str, arguments: &[&str], files: &[&Path]) -> String {
    let output = Command::new(program).args(arguments).args(files).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{complaint}");
    text
}

fn info(file: &Path) -> Value {
    serde_json::from_str(&run("qemu-img", &["info", "-U", "--output=json"], &[file])).unwrap()
}

/// Writes `length` bytes of `pattern` at `offset` of a disk, as a guest would.
fn write(disk: &Path, pattern: u8, offset: &str, length: &str) {
    let command = format!("write -P {pattern} {offset} {length}");
    run("qemu-io", &["-f", "qcow2", "-c", &command], &[disk]);
}

fn assert_holds(disk: &Path, pattern: u8, offset: &str, length: &str) {
    let command = format!("read -P {pattern} {offset} {length}");
    let output = run("qemu-io", &["-U", "-r", "-f", "qcow2", "-c", &command], &[disk]);
    assert!(!output.contains("verification failed"), "{}: {output}", disk.display());
}

fn refusal<T: std::fmt::Debug>(result: Result<T, MachineError>) -> String {
    match result {
        Err(MachineError::Refused { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn overlays_are_what_qemu_img_expects() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (number, size) in [512, 1 << 20, (1 << 30) + 512, 3 << 40].into_iter().enumerate() {
        let base = path(&format!("base-{number}"));
        std::fs::File::create(&base).unwrap().set_len(size.min(1 << 20)).unwrap();
        let overlay = path(&format!("overlay-{number}"));
        let name = format!("base-{number}");
        create_overlay(&overlay, &name, BackingFormat::Raw, ByteCount(size)).unwrap();
        run("qemu-img", &["check"], &[&overlay]);
        let info = info(&overlay);
        let data = &info["format-specific"]["data"];
        assert_eq!(info["virtual-size"], size);
        assert_eq!(info["cluster-size"], 131_072);
        assert_eq!(info["backing-filename"], name.as_str());
        assert_eq!(info["backing-filename-format"], "raw");
        assert_eq!((&data["extended-l2"], &data["corrupt"]), (&true.into(), &false.into()));
        if size > 512 {
            write(&overlay, 7, "4096", "5000");
            write(&overlay, 8, &(size - 512).to_string(), "512");
            assert_holds(&overlay, 7, "4096", "5000");
            assert_holds(&overlay, 8, &(size - 512).to_string(), "512");
            run("qemu-img", &["check"], &[&overlay]);
        }
    }
}

#[test]
fn an_empty_overlay_equals_its_base() {
    let directory = tempfile::tempdir().unwrap();
    let (base, overlay) = (directory.path().join("base"), directory.path().join("overlay"));
    create_empty(&base, DISK).unwrap();
    write(&base, 3, "100k", "1M");
    create_overlay(&overlay, "base", BackingFormat::Qcow2, DISK).unwrap();
    run("qemu-img", &["compare"], &[&base, &overlay]);
    write(&overlay, 4, "100k", "1");
    let compare = Command::new("qemu-img").arg("compare").args([&base, &overlay]).status();
    assert_eq!(compare.unwrap().code(), Some(1));
}

#[test]
fn what_qemu_img_makes_is_inspected_alike() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("base"), [0; 512]).unwrap();
    let create = |name: &str, options: &[&str]| {
        let file = path(name);
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]).args(options);
        let status = command.arg(&file).arg("1M").current_dir(directory.path()).status();
        assert!(status.unwrap().success());
        inspect(&file).unwrap()
    };
    assert!(create("v3", &[]).is_self_contained());
    assert_eq!(create("v2", &["-o", "compat=0.10"]).version, 2);
    assert_eq!(create("small", &["-o", "cluster_size=512"]).cluster_bytes, 512);
    let backed = create("backed", &["-b", "base", "-F", "raw"]);
    assert_eq!(backed.backing.unwrap().name, b"base");
    assert!(create("external", &["-o", "data_file=data"]).external_data);
    let secret = [
        "--object",
        "secret,id=s,data=x",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    ];
    assert!(create("secret", &secret).encrypted);
}

/// A machine with the layers base.raw ← top ← one ← two, each with data of its own.
fn cut_twice(bench: &Bench) -> Box<dyn Machine> {
    write(&bench.path("top.qcow2"), 1, "1M", "2M");
    let mut overlays = Vec::new();
    for (name, below, pattern) in [("one.qcow2", "top.qcow2", 2), ("two.qcow2", "one.qcow2", 3)] {
        let overlay = bench.overlay(name, below);
        write(&overlay, pattern, &format!("{pattern}M"), "64k");
        overlays.push(overlay);
    }
    let (mut machine, _console) = bench.start(&bench.plan("m"));
    machine.resume(soon()).unwrap();
    for overlay in overlays {
        machine.prepare_overlay(DiskRole::Root, &overlay, soon()).unwrap();
        machine.pause(soon()).unwrap();
        machine.save_devices(None, soon()).unwrap();
        machine.resume(soon()).unwrap();
    }
    machine
}

fn assert_content(disk: &Path) {
    run("qemu-img", &["check", "-U"], &[disk]);
    assert_holds(disk, 1, "1M", "1M");
    assert_holds(disk, 2, "2M", "64k");
    assert_holds(disk, 3, "3M", "64k");
    assert_holds(disk, 0, "3200k", "500k");
}

#[test]
fn a_chain_is_flattened_under_a_running_machine() {
    let bench = Bench::new(AtTick::Nothing);
    let mut machine = cut_twice(&bench);
    let two = bench.path("two.qcow2");
    assert_content(&two);
    machine.flatten(DiskRole::Root, &bench.path("base.raw"), soon()).unwrap();
    assert_eq!(info(&two)["backing-filename"], "base.raw");
    assert_eq!(info(&two)["backing-filename-format"], "raw");

    let three = bench.overlay("three.qcow2", "two.qcow2");
    machine.prepare_overlay(DiskRole::Root, &three, soon()).unwrap();
    machine.pause(soon()).unwrap();
    machine.save_devices(None, soon()).unwrap();
    // The layers that are out of the chain are closed, so that nothing holds them.
    assert_eq!(open_disks(machine.pid(), &bench), ["three.qcow2", "two.qcow2"]);
    machine.kill();
    std::fs::remove_file(bench.path("one.qcow2")).unwrap();
    std::fs::remove_file(bench.path("top.qcow2")).unwrap();
    assert_content(&three);
}

#[test]
fn a_flatten_keeps_the_layers_below() {
    let bench = Bench::new(AtTick::Nothing);
    let mut machine = cut_twice(&bench);
    let one_before = std::fs::read(bench.path("one.qcow2")).unwrap();
    machine.flatten(DiskRole::Root, &bench.path("top.qcow2"), soon()).unwrap();
    // Nothing is left to do the second time.
    machine.flatten(DiskRole::Root, &bench.path("top.qcow2"), soon()).unwrap();
    machine.kill();
    assert_eq!(info(&bench.path("two.qcow2"))["backing-filename"], "top.qcow2");
    assert_content(&bench.path("two.qcow2"));
    assert!(std::fs::read(bench.path("one.qcow2")).unwrap() == one_before);
}

#[test]
fn a_flatten_that_is_late_stops_and_blocks_no_cut() {
    let bench = Bench::new(AtTick::Nothing);
    let mut machine = cut_twice(&bench);
    let late = machine.flatten(DiskRole::Root, &bench.path("base.raw"), Instant::now());
    assert!(matches!(late, Err(MachineError::Deadline { .. })), "{late:?}");
    let three = bench.overlay("three.qcow2", "two.qcow2");
    machine.prepare_overlay(DiskRole::Root, &three, soon()).unwrap();
    machine.pause(soon()).unwrap();
    machine.save_devices(None, soon()).unwrap();
    machine.flatten(DiskRole::Root, &bench.path("base.raw"), soon()).unwrap();
    machine.kill();
    assert_eq!(info(&three)["backing-filename"], "base.raw");
    assert_content(&three);
}

#[test]
fn only_layers_of_the_chain_can_be_kept() {
    let bench = Bench::new(AtTick::Nothing);
    let mut machine = cut_twice(&bench);
    let detail = refusal(machine.flatten(DiskRole::Root, &bench.path("zero.ram"), soon()));
    assert!(detail.ends_with("zero.ram is not in the chain"), "{detail}");
    let keep = bench.path("top.qcow2");
    let detail = refusal(machine.flatten(DiskRole::Firmware, &keep, soon()));
    assert!(detail.contains("no Firmware disk"), "{detail}");
}

#[test]
fn overlays_are_given_up_and_prepared_again() {
    let bench = Bench::new(AtTick::Nothing);
    let (mut machine, _console) = bench.start(&bench.plan("m"));
    let detail = refusal(machine.save_devices(None, soon()));
    assert!(detail.contains("no overlay is prepared"), "{detail}");
    machine.discard_overlays(soon()).unwrap();
    let overlay = bench.overlay("one.qcow2", "top.qcow2");
    for _ in 0..2 {
        machine.prepare_overlay(DiskRole::Root, &overlay, soon()).unwrap();
        let detail = refusal(machine.prepare_overlay(DiskRole::Root, &overlay, soon()));
        assert!(detail.contains("prepared already"), "{detail}");
        machine.discard_overlays(soon()).unwrap();
    }
    assert!(machine.save_devices(None, soon()).is_err());
    let missing = bench.path("absent.qcow2");
    refusal(machine.prepare_overlay(DiskRole::Root, &missing, soon()));
    machine.prepare_overlay(DiskRole::Root, &overlay, soon()).unwrap();
    machine.save_devices(None, soon()).unwrap();
}

#[test]
fn disks_stay_where_they_are_when_the_state_cannot_be_saved() {
    let bench = Bench::new(AtTick::Nothing);
    let (mut machine, mut console) = bench.start(&bench.plan("m"));
    machine.resume(soon()).unwrap();
    let tick = console.tick_after(0);
    let overlay = bench.overlay("one.qcow2", "top.qcow2");
    machine.prepare_overlay(DiskRole::Root, &overlay, soon()).unwrap();
    machine.pause(soon()).unwrap();
    refusal(machine.save_devices(Some(&bench.path("no/such/directory")), soon()));
    refusal(machine.save_devices(Some(Path::new("/dev/full")), soon()));
    assert_eq!(open_disks(machine.pid(), &bench), ["one.qcow2", "top.qcow2"]);
    machine.discard_overlays(soon()).unwrap();
    assert_eq!(open_disks(machine.pid(), &bench), ["top.qcow2"]);
    machine.resume(soon()).unwrap();
    console.tick_after(tick);
}

/// Names of the qcow2 files that a process has open.
fn open_disks(pid: u32, bench: &Bench) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.parent() == Some(bench.directory.path()))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".qcow2"))
        .collect();
    names.sort();
    names.dedup();
    names
}
