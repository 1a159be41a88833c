//! The init of a system that has none: mounts what programs expect, adopts what they leave behind,
//! and serves the host.

use std::convert::Infallible;
use std::fs;
use std::io;

use rustix::mount::{MountFlags, mount};

use crate::config::Config;
use crate::netlink::{Netlink, Up};
use crate::{port, serve};

/// Serves until the machine ends.
pub fn run() -> io::Result<Infallible> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    // A system without one of these is poorer, and still of use.
    for (kind, target) in [("devpts", "/dev/pts"), ("tmpfs", "/dev/shm"), ("tmpfs", "/run")] {
        let mounted =
            fs::create_dir_all(target).and_then(|()| Ok(mount(kind, target, kind, flags, None)?));
        if let Err(error) = mounted {
            eprintln!("pando-guest: cannot mount {kind} on {target}: {error}");
        }
    }
    if let Err(error) = Netlink::open().and_then(|netlink| netlink.set_up(1, Up::Yes)) {
        eprintln!("pando-guest: cannot bring the loopback interface up: {error}");
    }
    crate::settle();
    serve(port::open(super::PORT)?, Config::machine())?;
    Err(io::ErrorKind::ConnectionAborted.into())
}
