//! Taking a node's identity away, right before a ready state is taken of it: nothing that two nodes
//! must not share stays in its memory's files or on its disk.
//!
//! What stays on purpose: the system's clock, logs and packages (they are the image's), and the
//! keys of users. Memory that was freed keeps its old contents; it came from this image's boot and
//! tells nothing of any node.

use std::fs;
use std::io;
use std::path::Path;

use pando_wire::guest::{Answer, Refusal, Reply};

use crate::config::{Authority, Config};
use crate::identity::remembered;
use crate::netlink::{Netlink, Up, interfaces};

/// Seeds of random number generators, which two nodes must not share.
const SEEDS: [&str; 3] =
    ["var/lib/systemd/random-seed", "var/lib/urandom/random-seed", "var/lib/private/random-seed"];

/// Removes the identity.
pub fn scrub(config: &Config) -> Answer {
    let object = |what: &'static str| move |error: io::Error| Refusal::from_io(what, &error);
    remove_files(&config.root).map_err(object("the files of the identity"))?;
    if config.authority == Authority::Machine {
        take_network_down().map_err(object("the network interfaces"))?;
        rustix::fs::sync();
        // Clean pages would be saved with the memory, and are on the disk anyway.
        fs::write("/proc/sys/vm/drop_caches", "3").map_err(object("the page cache"))?;
    }
    Ok(Reply::Done)
}

fn remove_files(root: &Path) -> io::Result<()> {
    // Empty and not missing: that is how an image says "to be made".
    let id = root.join("etc/machine-id");
    if id.exists() {
        fs::write(&id, "")?;
    }
    let bus = root.join("var/lib/dbus/machine-id");
    if fs::symlink_metadata(&bus).is_ok_and(|facts| facts.is_file()) {
        fs::remove_file(&bus)?;
    }
    for file in SEEDS.iter().chain([&remembered::FILE]) {
        remove(&root.join(file))?;
    }
    let ssh = match fs::read_dir(root.join("etc/ssh")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in ssh {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn take_network_down() -> io::Result<()> {
    let netlink = Netlink::open()?;
    for interface in interfaces()?.iter().filter(|interface| interface.name != "lo") {
        netlink.flush_addresses(interface.index)?;
        netlink.set_up(interface.index, Up::No)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for directory in ["etc/ssh", "var/lib/systemd", "var/lib/dbus", "var/lib/pando"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let gone = [
            "etc/ssh/ssh_host_rsa_key",
            "etc/ssh/ssh_host_rsa_key.pub",
            SEEDS[0],
            remembered::FILE,
            "var/lib/dbus/machine-id",
        ];
        let kept = ["etc/ssh/sshd_config", "etc/hostname"];
        for file in gone.iter().chain(&kept).chain(&["etc/machine-id"]) {
            fs::write(root.join(file), "x").unwrap();
        }
        for _ in 0..2 {
            assert_eq!(scrub(&Config::embedded(root)), Ok(Reply::Done));
            assert!(gone.iter().all(|file| !root.join(file).exists()));
            assert!(kept.iter().all(|file| root.join(file).exists()));
            assert_eq!(fs::read_to_string(root.join("etc/machine-id")).unwrap(), "");
        }
        assert_eq!(scrub(&Config::embedded(&root.join("empty"))), Ok(Reply::Done));
    }
}
