//! Finding QEMU, and starting machines with it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use pando_machine::{Hypervisor, Machine, MachineError, MachinePlan, UplinkPlan};
use pando_model::machine::{Accelerator, MachineProfile};
use rustix::event::{PollFd, PollFlags};

use crate::limits::{HELPER_DEADLINE, MAX_HELPER_OUTPUT_BYTES};
use crate::machine::QemuMachine;
use crate::uplink::Passt;
use crate::version::{Version, VersionError};
use crate::{args, wait};

/// The program that is used when none is configured.
const PROGRAM: &str = "qemu-system-x86_64";

/// How to find QEMU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QemuConfig {
    /// The program; `None` finds `qemu-system-x86_64` in `PATH`.
    pub binary: Option<PathBuf>,
    /// Its version, where the caller has asked before: it saves running the program once. Every
    /// machine still compares it with what QEMU says in its greeting.
    pub version: Option<Version>,
}

/// Why QEMU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// Not there.
    #[error("{program} was not found")]
    NotFound {
        /// What was looked for.
        program: String,
    },
    /// It did not run.
    #[error("cannot run {program}", program = program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran, but is something else.
    #[error("{program} did not tell its version", program = program.display())]
    NotQemu {
        /// The program.
        program: PathBuf,
        /// What it said.
        #[source]
        source: VersionError,
    },
    /// Too old.
    #[error("{program} is version {version}, but {oldest} is needed", program = program.display(), oldest = Version::OLDEST)]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        version: Version,
    },
}

/// QEMU on this host.
#[derive(Debug, Clone)]
pub struct Qemu {
    binary: PathBuf,
    version: Version,
    host_cpu: String,
}

impl Qemu {
    /// Returns the user's own QEMU, whatever its version.
    pub fn in_path() -> Option<PathBuf> {
        find_in_path(PROGRAM)
    }

    /// Finds QEMU and checks its version.
    ///
    /// # Errors
    /// [`QemuError`].
    pub fn new(config: QemuConfig) -> Result<Self, QemuError> {
        let binary = match config.binary {
            Some(binary) => binary,
            None => Self::in_path()
                .ok_or_else(|| QemuError::NotFound { program: PROGRAM.to_owned() })?,
        };
        let version = match config.version {
            Some(version) => version,
            None => ask_version(&binary)?,
        };
        if version < Version::OLDEST {
            return Err(QemuError::TooOld { program: binary, version });
        }
        Ok(Self { binary, version, host_cpu: host_cpu() })
    }

    /// Returns the program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Returns its version.
    pub const fn version(&self) -> Version {
        self.version
    }
}

impl Hypervisor for Qemu {
    fn spawn(
        &self,
        plan: &MachinePlan,
        ports: Vec<OwnedFd>,
    ) -> Result<Box<dyn Machine>, MachineError> {
        Ok(Box::new(QemuMachine::spawn(&self.binary, self.version, plan, &ports)?))
    }

    fn spawn_uplink(
        &self,
        plan: &UplinkPlan,
    ) -> Result<(Box<dyn pando_machine::Uplink>, UnixStream), MachineError> {
        let (uplink, socket) = Passt::spawn(plan)?;
        Ok((Box::new(uplink), socket))
    }

    fn profile(&self, accelerator: Accelerator) -> MachineProfile {
        let model = args::cpu_model(accelerator);
        MachineProfile {
            qemu_version: self.version.to_string(),
            machine: args::MACHINE.to_owned(),
            cpu: match accelerator {
                // A guest sees the host's own CPU there, and cannot be moved to another kind.
                Accelerator::Kvm => format!("{model} ({})", self.host_cpu),
                Accelerator::Tcg => model.to_owned(),
            },
            accelerator,
        }
    }
}

/// Returns a program of the user's `PATH`.
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    use rustix::fs::{Access, access};
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}

fn host_cpu() -> String {
    // No more is read than is needed: for each CPU the kernel asks that one how fast it is.
    let file = File::open("/proc/cpuinfo").map(BufReader::new).into_iter();
    file.flat_map(BufReader::lines)
        .map_while(Result::ok)
        .find_map(|line| {
            Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

fn ask_version(binary: &Path) -> Result<Version, QemuError> {
    let failed = |source| QemuError::Run { program: binary.to_owned(), source };
    let banner = output_of(binary, "--version").map_err(failed)?;
    Version::from_banner(&banner)
        .map_err(|source| QemuError::NotQemu { program: binary.to_owned(), source })
}

/// Returns what a helper prints, whatever its exit status.
fn output_of(program: &Path, argument: &str) -> io::Result<String> {
    let deadline = Instant::now() + HELPER_DEADLINE;
    let mut child = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut text = Vec::new();
    let mut read = || -> io::Result<()> {
        let Some(output) = child.stdout.as_mut() else { return Ok(()) };
        let mut output = output.take(MAX_HELPER_OUTPUT_BYTES);
        loop {
            let mut fds = [PollFd::new(output.get_ref(), PollFlags::IN)];
            if !wait::poll(&mut fds, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut chunk = [0; 4096];
            match output.read(&mut chunk)? {
                0 => return Ok(()),
                count => text.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            }
        }
    };
    let outcome = read();
    // It closed its output or is stuck; either way nothing more is wanted of it.
    child.kill()?;
    child.wait()?;
    outcome.map(|()| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let (source, path) = (directory.path().join("source"), directory.path().join("qemu"));
        std::fs::write(&source, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Written by another process: a test that forks at this moment would hold the file open for
        // writing for a while, and then it could not be run.
        assert!(Command::new("cp").args([&source, &path]).status().unwrap().success());
        (directory, path)
    }

    fn new(binary: PathBuf) -> Result<Qemu, QemuError> {
        Qemu::new(QemuConfig { binary: Some(binary), version: None })
    }

    #[test]
    fn an_old_qemu_is_refused() {
        let (_directory, path) = script("echo 'QEMU emulator version 7.2.9 (Debian)'");
        let error = new(path).unwrap_err();
        assert!(error.to_string().ends_with("is version 7.2.9, but 8.2.0 is needed"), "{error}");
    }

    #[test]
    fn what_is_not_qemu_is_refused() {
        let (_directory, path) = script("echo hello");
        assert!(matches!(new(path), Err(QemuError::NotQemu { .. })));
        assert!(matches!(new("/nonexistent".into()), Err(QemuError::Run { .. })));
    }

    #[test]
    fn a_known_version_is_not_asked_for_again() {
        let version = Some(Version::new(10, 0, 2));
        let qemu = Qemu::new(QemuConfig { binary: Some("/nonexistent".into()), version }).unwrap();
        assert_eq!(qemu.profile(Accelerator::Tcg).qemu_version, "10.0.2");
    }
}
