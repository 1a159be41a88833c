//! The first process of a machine that pando boots directly.
//!
//! ```text
//!   initramfs: mount /proc /sys /dev · load modules · wait for the root device
//!            · mount it · grow it to the device · make it "/"
//!        fork ─┬─ child:  this program again, as "@pando-guest": serves the host
//!              └─ parent: the system's own init; or, if it has none, a minimal one
//! ```
//!
//! Nothing is installed in the root file system. The `@` keeps systemd from killing the child when
//! it shuts down (it takes it for a root storage daemon). Whatever fails is said on the console,
//! and the machine switches itself off: one that hangs would only be noticed by a time limit.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::limits::{DEVICE_POLL, ROOT_DEVICE_TIMEOUT};
use crate::power::{self, Power};
use crate::sys::{self, Forked};

mod cmdline;
mod ext4;
mod minimal;

use cmdline::BootOptions;

/// Where the initramfs says which modules to load, in this order.
const MODULES: &str = "/etc/pando/modules";
/// Where the root file system is mounted until it becomes `/`.
const NEW_ROOT: &str = "/newroot";
/// The name under which the guest program runs beside a real init.
const AGENT_NAME: &str = "@pando-guest";
/// The guest channel's port.
pub const PORT: &str = "pando.0";

/// Why a machine could not be booted.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("cannot mount {what} on {target}")]
    Mount {
        what: String,
        target: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot load the module {module}")]
    Module {
        module: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path}")]
    Read {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the root device {device} did not appear within {ROOT_DEVICE_TIMEOUT:?}")]
    NoRoot { device: String },
    #[error("cannot {what}")]
    Switch {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Boots the machine. Ends only with it.
pub fn run() -> ! {
    let error = match boot() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("pando-guest: {}", with_causes(&error));
    eprintln!("pando-guest: the machine cannot boot and is switched off");
    // If even that fails, the kernel panics at our exit, which ends the machine as well.
    let _ = power::now(Power::Off);
    std::process::exit(1);
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn boot() -> Result<std::convert::Infallible, BootError> {
    mount_basics()?;
    load_modules()?;
    let cmdline = fs::read_to_string("/proc/cmdline");
    let cmdline = cmdline.map_err(|source| BootError::Read { path: "/proc/cmdline", source })?;
    let options = BootOptions::parse(&cmdline);
    wait_for(&options.root)?;
    mount_root(&options)?;
    switch_root()?;
    if !is_executable(&options.init) {
        eprintln!("pando-guest: the system has no {}; this program is its init", options.init);
        return minimal::run()
            .map_err(|source| BootError::Switch { what: "serve the host", source });
    }
    match sys::fork().map_err(|source| BootError::Switch { what: "fork", source })? {
        Forked::Child => {
            let source = agent().exec();
            // The system boots without us; the host notices that nobody answers.
            eprintln!("pando-guest: cannot start the guest program: {source}");
            std::process::exit(1);
        }
        Forked::Parent { .. } => {
            let source = Command::new(&options.init).args(std::env::args_os().skip(1)).exec();
            Err(BootError::Switch { what: "run the system's init", source })
        }
    }
}

/// This program again, to serve the host. Its file is gone with the initramfs, but not its image.
fn agent() -> Command {
    // Being nobody's session member, it survives what happens to the console.
    let _ = rustix::process::setsid();
    let mut command = Command::new("/proc/self/exe");
    command.arg0(AGENT_NAME).args(["--port", PORT]);
    command
}

fn mount_basics() -> Result<(), BootError> {
    let none = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_at("proc", "/proc", "proc", none | MountFlags::NODEV)?;
    mount_at("sysfs", "/sys", "sysfs", none | MountFlags::NODEV)?;
    mount_at("devtmpfs", "/dev", "devtmpfs", none)?;
    // The initramfs may have no console node, and then we have no standard descriptors yet.
    if let Ok(console) = OpenOptions::new().read(true).write(true).open("/dev/console") {
        let _ = dup2_stdin(&console);
        let _ = dup2_stdout(&console);
        let _ = dup2_stderr(&console);
    }
    Ok(())
}

fn mount_at(
    what: &str,
    target: &'static str,
    kind: &str,
    flags: MountFlags,
) -> Result<(), BootError> {
    let mounted =
        fs::create_dir_all(target).and_then(|()| Ok(mount(what, target, kind, flags, None)?));
    mounted.map_err(|source| BootError::Mount { what: what.to_owned(), target, source })
}

fn load_modules() -> Result<(), BootError> {
    let list = match fs::read_to_string(MODULES) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BootError::Read { path: MODULES, source }),
    };
    for module in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let loaded = fs::File::open(module)
            .and_then(|file| Ok(rustix::system::finit_module(&file, c"", 0)?));
        match loaded {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(BootError::Module { module: module.to_owned(), source }),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn wait_for(device: &str) -> Result<(), BootError> {
    let deadline = Instant::now() + ROOT_DEVICE_TIMEOUT;
    while !Path::new(device).exists() {
        if Instant::now() >= deadline {
            return Err(BootError::NoRoot { device: device.to_owned() });
        }
        std::thread::sleep(DEVICE_POLL);
    }
    Ok(())
}

fn mount_root(options: &BootOptions) -> Result<(), BootError> {
    mount_at(&options.root, NEW_ROOT, &options.file_system, MountFlags::NOATIME)?;
    if options.file_system == "ext4" {
        match ext4::grow(Path::new(&options.root), Path::new(NEW_ROOT)) {
            Ok(()) => {}
            // A system with less room than it could have still boots.
            Err(error) => eprintln!("pando-guest: cannot grow {}: {error}", options.root),
        }
    }
    Ok(())
}

/// Makes the mounted root file system `/`, and gives back the memory of the initramfs.
fn switch_root() -> Result<(), BootError> {
    let failed = |what| move |source: io::Error| BootError::Switch { what, source };
    for directory in ["/proc", "/sys", "/dev"] {
        let target = format!("{NEW_ROOT}{directory}");
        let moved = fs::create_dir_all(&target).and_then(|()| Ok(mount_move(directory, &target)?));
        moved.map_err(failed("move a mount into the root file system"))?;
    }
    free_initramfs();
    std::env::set_current_dir(NEW_ROOT).map_err(failed("enter the root file system"))?;
    mount_move(".", "/").map_err(|errno| failed("make it the root")(errno.into()))?;
    rustix::process::chroot(".").map_err(|errno| failed("make it the root")(errno.into()))?;
    std::env::set_current_dir("/").map_err(failed("enter the root"))
}

/// Deletes the initramfs' files, but nothing that is mounted in it.
fn free_initramfs() {
    let Ok(device) = rustix::fs::lstat("/").map(|facts| facts.st_dev) else { return };
    // What cannot be deleted only costs memory.
    if let Ok(entries) = fs::read_dir("/") {
        for entry in entries.filter_map(Result::ok) {
            remove(&entry.path(), device);
        }
    }
}

fn remove(path: &Path, device: u64) {
    let Ok(facts) = rustix::fs::lstat(path) else { return };
    if facts.st_dev != device {
        return;
    }
    let is_directory = rustix::fs::FileType::from_raw_mode(facts.st_mode).is_dir();
    if !is_directory {
        let _ = fs::remove_file(path);
        return;
    }
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.filter_map(Result::ok) {
            remove(&entry.path(), device);
        }
    }
    let _ = fs::remove_dir(path);
}

fn is_executable(path: &str) -> bool {
    let runs = rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    runs && Path::new(path).is_file()
}
