//! Boots a kernel, an initramfs with the guest program and a root disk in QEMU, by hand, and
//! measures the guest channel:
//! `cargo run --example boot -- KERNEL INITRD DISK [--append WORDS] [COMMAND…]`.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command as Process, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pando_link::{ExecEvent, GuestClock, GuestLink, LinkError};
use pando_model::guest::{Command, ExecSpec, Stdin};

const SAMPLES: usize = 300;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(kernel), Some(initrd), Some(disk)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: boot KERNEL INITRD DISK [--append WORDS] [COMMAND…]");
        return ExitCode::from(2);
    };
    let mut append = String::from("console=ttyS0 quiet");
    let mut commands = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--append" {
            append.push(' ');
            append.push_str(&arguments.next().unwrap_or_default());
        } else {
            commands.push(argument);
        }
    }
    let (host, guest) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return fail(&error),
    };
    // Standard input is the one descriptor that can be handed down without unsafe code.
    let machine = Process::new("qemu-system-x86_64")
        .args(["-M", "q35,hpet=off", "-accel", "tcg", "-cpu", "max", "-m", "512"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-kernel", &kernel, "-initrd", &initrd, "-append", &append])
        .args(["-drive", &format!("file={disk},format=raw,if=virtio,snapshot=on")])
        .args(["-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,netdev=n,romfile="])
        .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
        .args(["-chardev", "socket,id=g,fd=0", "-device", "virtserialport,chardev=g,name=pando.0"])
        .args(["-serial", "file:/dev/stderr"])
        .stdin(OwnedFd::from(guest))
        .stdout(Stdio::null())
        .spawn();
    let mut machine = match machine {
        Ok(machine) => machine,
        Err(error) => return fail(&error),
    };
    let measured = GuestLink::new(host, "boot")
        .map_err(|source| LinkError::Local { what: "open the link", source })
        .and_then(|link| measure(&link, &commands));
    let _ = machine.kill();
    let _ = machine.wait();
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("boot: {error}");
    ExitCode::FAILURE
}

fn measure(link: &GuestLink, commands: &[String]) -> Result<(), LinkError> {
    let soon = || Instant::now() + Duration::from_secs(60);
    let started = Instant::now();
    let welcome = link.hello(GuestClock::Step, soon())?;
    println!("welcome after {:?}: {welcome:?}", started.elapsed());
    println!("booted: {:?} after {:?}", link.wait_booted(soon())?, started.elapsed());
    println!("facts: {:#?}", link.facts(soon())?);
    for command in commands {
        println!("$ {command}");
        let ran = Instant::now();
        let output = run(link, Command::Shell(command.clone()))?;
        println!("{}({:?})", String::from_utf8_lossy(&output), ran.elapsed());
    }
    sample("ping", || link.ping(soon()))?;
    sample("true", || run(link, Command::Argv(vec!["true".into()])).map(drop))?;
    sample("sh -c true", || run(link, Command::Shell("true".into())).map(drop))?;
    sample("1 MB", || {
        run(link, Command::Shell("dd if=/dev/zero bs=62500 count=16 2>/dev/null".into())).map(drop)
    })?;
    Ok(())
}

fn run(link: &GuestLink, command: Command) -> Result<Vec<u8>, LinkError> {
    let soon = Instant::now() + Duration::from_secs(60);
    let spec = ExecSpec {
        command,
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        timeout_ms: 60_000,
        terminal: None,
        stdin: Stdin::Open,
    };
    let handle = link.exec(&spec, soon)?;
    handle.close_stdin(soon)?;
    let mut output = Vec::new();
    loop {
        match handle.next_event(soon)? {
            ExecEvent::Output { bytes, .. } => output.extend(bytes),
            ExecEvent::Ended(_) => return Ok(output),
        }
    }
}

fn sample(name: &str, mut act: impl FnMut() -> Result<(), LinkError>) -> Result<(), LinkError> {
    let mut times = Vec::new();
    for _ in 0..SAMPLES {
        let started = Instant::now();
        act()?;
        times.push(started.elapsed());
    }
    times.sort();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    println!("{name}: p50 {:?} p99 {:?} min {:?}", at(50), at(99), at(0));
    Ok(())
}
