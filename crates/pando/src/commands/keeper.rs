//! `pando keeper`: the process of one running branch; started by the daemon only. It reads no more
//! of the command line and the configuration than it must: there is one for every branch.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;

use pando_keeper::KeeperConfig;
use pando_model::{BranchId, Layout};
use tracing_subscriber::EnvFilter;

use crate::settings::{Settings, Sources};
use crate::wire::EverySwitch;
use crate::wire::machines;

/// Runs a keeper on this thread until its branch ends. The arguments are the daemon's own.
pub fn run(arguments: &[OsString]) -> ExitCode {
    match prepare(arguments) {
        Ok(config) => pando_keeper::run(config),
        Err(why) => {
            eprintln!("pando keeper: {why}");
            ExitCode::FAILURE
        }
    }
}

fn argument<'a>(arguments: &'a [OsString], name: &str) -> Result<&'a OsStr, String> {
    let mut pairs = arguments.chunks_exact(2);
    let found = pairs.find_map(|pair| match pair {
        [known, value] if known == name => Some(value.as_os_str()),
        _ => None,
    });
    found.ok_or_else(|| format!("{name} is missing"))
}

fn prepare(arguments: &[OsString]) -> Result<KeeperConfig, String> {
    let home = argument(arguments, "--home")?;
    let layout = Layout::new(home, argument(arguments, "--runtime")?);
    let branch = argument(arguments, "--branch")?.to_string_lossy();
    let branch: BranchId = branch.parse().map_err(|error| format!("{error}"))?;
    let sources = Sources::of_process(&layout.config()).map_err(|error| error.to_string())?;
    let (settings, _) = Settings::resolve(&sources).map_err(|error| error.to_string())?;
    let filter = settings.log.parse().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    // The daemon's end must not be ours; it fails for a session's leader, which is as good.
    let _ = rustix::process::setsid();
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
    let hypervisor = machines::qemu(&layout, &settings).map_err(|error| error.to_string())?;
    // The socket that the daemon bound and gave us as stdin.
    let listener = UnixListener::from(stdin);
    let (hypervisor, switches) = (Arc::new(hypervisor), Arc::new(EverySwitch));
    Ok(KeeperConfig { layout, branch, hypervisor, switches, listener })
}
