//! A keeper as a program of its own: what the tests of this crate start instead of pando.
//! Usage: `keeper keeper --home DIR --runtime DIR --branch ID`, its socket as standard input. What
//! `PANDO_BENCH_NETWORK` names takes the place of the switch: `relay` or `wire`.

#![allow(clippy::unwrap_used, reason = "a keeper of a test fails by panicking")]

mod plain;

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;

use pando_keeper::KeeperConfig;
use pando_machine::Switches;
use pando_model::Layout;
use pando_qemu::{Qemu, QemuConfig};
use pando_switch::UserSwitches;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name).unwrap();
        arguments[at + 1].clone()
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    rustix::process::setsid().unwrap();
    let qemu = Qemu::new(QemuConfig { binary: None, version: None }).unwrap();
    let switches: Arc<dyn Switches> = match std::env::var("PANDO_BENCH_NETWORK").as_deref() {
        Ok("relay") => Arc::new(plain::Relay),
        Ok("wire") => Arc::new(plain::Wire),
        _ => Arc::new(UserSwitches),
    };
    pando_keeper::run(KeeperConfig {
        layout: Layout::new(value("--home"), value("--runtime")),
        branch: value("--branch").parse().unwrap(),
        hypervisor: Arc::new(qemu),
        switches,
        listener: UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap()),
    })
}
