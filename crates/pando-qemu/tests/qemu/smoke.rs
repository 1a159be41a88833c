//! One tiny machine at a time on real QEMU: every method of the contract.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use crate::support::{Bench, copy_ram, soon};
use pando_machine::{DiskRole, EndReason, Link, MachineError, Stillness};
use pando_qemu::probe::AtTick;

const TICKS: NonZeroU16 = NonZeroU16::new(5).unwrap();

#[test]
fn a_machine_runs_only_between_resume_and_pause() {
    let bench = Bench::new(AtTick::Nothing);
    let started = Instant::now();
    let (mut machine, mut console) = bench.start(&bench.plan("m"));
    eprintln!("spawn to ready: {:?}", started.elapsed());
    assert_eq!(console.ticks(), [] as [u32; 0]);
    machine.resume(soon()).unwrap();
    let tick = console.tick_after(0);
    eprintln!("spawn to the first tick: {:?}", started.elapsed());
    assert_eq!(machine.crowded(soon()).unwrap(), []);
    let still = machine.stand_still(soon()).unwrap();
    assert_eq!(still, Stillness { quiet: true, crowded: Vec::new() });
    let stopped_at = console.ticks();
    machine.set_link(0, Link::Down, soon()).unwrap();
    machine.set_link(0, Link::Up, soon()).unwrap();
    assert_eq!(machine.wait_end(Duration::from_millis(50)).unwrap(), None);
    assert_eq!(console.ticks(), stopped_at);
    machine.resume(soon()).unwrap();
    assert!(console.tick_after(tick) > tick);
    machine.power_button(soon()).unwrap();
    assert!(machine.take_guest_port().is_some());
    assert!(machine.take_guest_port().is_none());
    assert_eq!(machine.kill(), EndReason::Killed);
    assert_eq!(machine.wait_end(Duration::ZERO).unwrap(), Some(EndReason::Killed));
}

#[test]
fn a_restored_machine_counts_on_and_so_does_the_original() {
    let bench = Bench::new(AtTick::Nothing);
    let (mut parent, mut console) = bench.start(&bench.plan("parent"));
    parent.resume(soon()).unwrap();
    console.tick_after(3);
    let overlay = bench.overlay("next.qcow2", "top.qcow2");
    parent.prepare_overlay(DiskRole::Root, &overlay, soon()).unwrap();

    let state = bench.path("state");
    parent.pause(soon()).unwrap();
    let started = Instant::now();
    parent.save_devices(Some(&state), soon()).unwrap();
    eprintln!("save: {:?}", started.elapsed());
    copy_ram(&*parent, &bench.path("commit.ram"));
    parent.resume(soon()).unwrap();
    let committed_at = *console.ticks().last().unwrap();

    bench.overlay("child.qcow2", "top.qcow2");
    let mut plan = bench.plan("child");
    plan.memory_image = bench.path("commit.ram");
    plan.disk = bench.path("child.qcow2");
    plan.restore = true;
    let started = Instant::now();
    let (mut child, mut child_console) = bench.start(&plan);
    eprintln!("spawn to ready: {:?}", started.elapsed());
    let started = Instant::now();
    child.load_devices(&state, soon()).unwrap();
    eprintln!("load: {:?}", started.elapsed());
    assert_eq!(child.wait_end(Duration::from_millis(50)).unwrap(), None);
    assert_eq!(child_console.ticks(), [] as [u32; 0], "it must stay stopped");
    child.resume(soon()).unwrap();
    child_console.tick_after(committed_at + 3);
    // It went on where the parent was, and not from a boot.
    let first = child_console.ticks()[0];
    assert!((committed_at..committed_at + 2).contains(&first), "{first} after {committed_at}");
    assert!(!child_console.text().contains("pando"), "{}", child_console.text());
    console.tick_after(committed_at + 3);
}

#[test]
fn ends_have_reasons() {
    for (at_tick, reason) in [
        (AtTick::PowerOff(TICKS), EndReason::GuestShutdown),
        (AtTick::Reset(TICKS), EndReason::GuestReset),
    ] {
        let bench = Bench::new(at_tick);
        let (mut machine, _console) = bench.start(&bench.plan("m"));
        machine.resume(soon()).unwrap();
        let ended = machine.wait_end(Duration::from_secs(60)).unwrap();
        assert_eq!(ended, Some(reason.clone()));
        assert_eq!(machine.kill(), reason, "a kill does not change how it ended");
    }
}

#[test]
fn a_dropped_machine_leaves_no_process() {
    let bench = Bench::new(AtTick::Nothing);
    let (mut machine, mut console) = bench.start(&bench.plan("m"));
    machine.resume(soon()).unwrap();
    console.tick_after(0);
    let process = format!("/proc/{}", machine.pid());
    assert!(std::fs::exists(&process).unwrap());
    drop(machine);
    assert!(!std::fs::exists(&process).unwrap());
}

#[test]
fn a_crash_is_told_from_a_kill() {
    let bench = Bench::new(AtTick::Nothing);
    let (mut machine, _console) = bench.start(&bench.plan("m"));
    let pid = rustix::process::Pid::from_raw(machine.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::SEGV).unwrap();
    match machine.wait_end(Duration::from_secs(60)).unwrap() {
        Some(EndReason::Crashed { detail }) => assert!(detail.contains("SIGSEGV"), "{detail}"),
        other => panic!("{other:?}"),
    }
    match machine.resume(soon()) {
        Err(MachineError::Ended { name, detail }) => {
            assert_eq!(name, "m");
            assert!(detail.contains("SIGSEGV"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusal_at_start_quotes_the_log() {
    let bench = Bench::new(AtTick::Nothing);
    let mut plan = bench.plan("m");
    plan.disk = bench.path("absent,disk.qcow2");
    let mut machine = pando_machine::Hypervisor::spawn(&bench.qemu, &plan, Vec::new()).unwrap();
    match machine.wait_ready(soon()) {
        Err(MachineError::Ended { detail, .. }) => {
            assert!(detail.contains("absent,disk.qcow2"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_memory_image_of_another_size_is_refused() {
    let bench = Bench::new(AtTick::Nothing);
    std::fs::write(bench.path("zero.ram"), "short").unwrap();
    match pando_machine::Hypervisor::spawn(&bench.qemu, &bench.plan("m"), Vec::new()) {
        Err(MachineError::File { path, .. }) => assert_eq!(path, bench.path("zero.ram")),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started"),
    }
}

#[test]
fn loading_garbage_is_an_error_and_not_a_machine() {
    let bench = Bench::new(AtTick::Nothing);
    let mut plan = bench.plan("m");
    plan.restore = true;
    let (mut machine, _console) = bench.start(&plan);
    std::fs::write(bench.path("state"), "nonsense").unwrap();
    match machine.load_devices(&bench.path("state"), soon()) {
        Err(MachineError::Ended { detail, .. } | MachineError::Refused { detail, .. }) => {
            assert!(detail.to_lowercase().contains("not a migration"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}
