//! A node's addresses over a reboot: the host tells them once, and whoever boots from the disk
//! again has only what is on it. One line for each address of each interface: MAC address, address,
//! gateway if any.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Instant;

use pando_model::guest::InterfaceConfig;

use super::{apply_network, plan_network, replace};
use crate::limits::{BOOT_POLL, INTERFACES_TIMEOUT};
use crate::netlink::interfaces;
use crate::users::read_table;

/// Where they are kept.
pub const FILE: &str = "var/lib/pando/interfaces";

/// Keeps the addresses of these interfaces, and no others.
pub fn write(root: &Path, interfaces: &[InterfaceConfig]) -> io::Result<()> {
    let mut lines = String::new();
    for InterfaceConfig { mac, address, more, gateway, .. } in interfaces {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{mac} {address} {}", gateway.as_deref().unwrap_or_default());
        for address in more {
            let _ = writeln!(lines, "{mac} {address}");
        }
    }
    replace(&root.join(FILE), &lines, 0o644)
}

/// Returns the interfaces that were kept. Lines that say nothing are left out.
fn read(root: &Path) -> io::Result<Vec<InterfaceConfig>> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (mac, address) = (words.next()?, words.next()?);
        let (was, more, dns) = (None, Vec::new(), Vec::new());
        Some(InterfaceConfig { mac, was, address, more, gateway: words.next(), dns })
    };
    Ok(read_table(&root.join(FILE))?.lines().filter_map(parse).collect())
}

/// Gives this machine's interfaces the addresses that were kept, as soon as the interfaces are
/// there. Does nothing on a machine that has not been told any.
pub fn restore(root: &Path) -> io::Result<()> {
    let wanted = read(root)?;
    let deadline = Instant::now() + INTERFACES_TIMEOUT;
    if wanted.is_empty() {
        return Ok(());
    }
    loop {
        match plan_network(&interfaces()?, &wanted) {
            Ok(plan) => return apply_network(&plan),
            // Their driver may be loaded a moment later.
            Err(_) if Instant::now() < deadline => std::thread::sleep(BOOT_POLL),
            Err(refusal) => return Err(io::Error::other(refusal.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_last_is_read_and_nonsense_is_not() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()).unwrap(), []);
        assert!(restore(root.path()).is_ok(), "a machine without addresses");
        let interface = |mac: &str, gateway: Option<&str>| InterfaceConfig {
            mac: mac.to_owned(),
            was: None,
            address: "10.0.2.15/24".to_owned(),
            more: Vec::new(),
            gateway: gateway.map(str::to_owned),
            dns: Vec::new(),
        };
        let both = [interface("a", None), interface("b", Some("10.0.2.2"))];
        write(root.path(), &both).unwrap();
        assert_eq!(read(root.path()).unwrap(), both);
        let mut two = both[0].clone();
        two.more.push("fd00::5/64".to_owned());
        write(root.path(), &[two]).unwrap();
        let kept: Vec<String> = read(root.path())
            .unwrap()
            .into_iter()
            .map(|kept| kept.mac + " " + &kept.address)
            .collect();
        assert_eq!(kept, ["a 10.0.2.15/24", "a fd00::5/64"]);
        write(root.path(), &both[..1]).unwrap();
        assert_eq!(read(root.path()).unwrap(), both[..1]);
        std::fs::write(root.path().join(FILE), "\n52:54\n a  10.0.2.15/24 \n").unwrap();
        assert_eq!(read(root.path()).unwrap(), both[..1]);
    }
}
