//! What the guest says of itself, read from `/proc`, `/sys` and `/etc`: no child processes.
//!
//! Services are the control groups that systemd made for them. Which of them *failed* only systemd
//! knows, and is asked.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

use pando_model::ByteCount;
use pando_model::guest::{GuestFacts, InterfaceFacts};

use crate::capture::failed_units;
use crate::config::Config;
use crate::limits::{MAX_FACT_FILE_BYTES, MAX_SERVICES};
use crate::netlink::{Netlink, interfaces};

/// Gathers the facts.
pub fn gather(config: &Config) -> GuestFacts {
    let root = config.root.as_path();
    let (disk_total, disk_free) = disk(root);
    let memory = read(Path::new("/proc/meminfo"));
    GuestFacts {
        hostname: line("/proc/sys/kernel/hostname"),
        kernel: line("/proc/sys/kernel/osrelease"),
        os: os_name(&read(&root.join("etc/os-release"))),
        boot_id: boot_id(),
        uptime_ms: decimal(&read(Path::new("/proc/uptime")), 1000),
        load_percent: decimal(&read(Path::new("/proc/loadavg")), 100),
        memory_total: memory_field(&memory, "MemTotal:"),
        memory_available: memory_field(&memory, "MemAvailable:"),
        disk_total,
        disk_free,
        interfaces: addresses(),
        services: services(root),
        failed_services: failed_units(root),
        guest_version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// The kernel's boot id. Read once: it is told with every greeting, and this process does not outlive
/// the boot.
pub fn boot_id() -> String {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| line("/proc/sys/kernel/random/boot_id")).clone()
}

/// Reads the first bytes of a file; what cannot be read is empty.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // A part is better than nothing.
        let _ = file.take(MAX_FACT_FILE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn line(path: &str) -> String {
    read(Path::new(path)).trim().to_owned()
}

fn os_name(release: &str) -> String {
    let value = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
}

/// Returns the first number of `text`, which may have a fraction, times `scale`.
fn decimal(text: &str, scale: u64) -> u64 {
    let number = text.split_whitespace().next().unwrap_or_default();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().unwrap_or(0);
    let digits = u32::try_from(fraction.len()).unwrap_or(0).min(6);
    let fraction: u64 =
        fraction.get(..digits as usize).and_then(|text| text.parse().ok()).unwrap_or(0);
    whole.saturating_mul(scale).saturating_add(fraction * scale / 10u64.pow(digits))
}

fn memory_field(text: &str, name: &str) -> ByteCount {
    let field = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = field.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    ByteCount(kib.unwrap_or(0) * 1024)
}

fn disk(root: &Path) -> (ByteCount, ByteCount) {
    match rustix::fs::statvfs(root) {
        Ok(facts) => (
            ByteCount(facts.f_blocks.saturating_mul(facts.f_frsize)),
            ByteCount(facts.f_bavail.saturating_mul(facts.f_frsize)),
        ),
        Err(_) => (ByteCount(0), ByteCount(0)),
    }
}

fn addresses() -> Vec<InterfaceFacts> {
    let addresses = Netlink::open().and_then(|netlink| netlink.addresses()).unwrap_or_default();
    let interfaces = interfaces().unwrap_or_default().into_iter();
    let facts = interfaces.filter(|interface| interface.name != "lo").map(|interface| {
        let own = addresses.iter().filter(|(index, _)| *index == interface.index);
        InterfaceFacts {
            addresses: own.map(|(_, one)| format!("{}/{}", one.address, one.bits)).collect(),
            name: interface.name,
            mac: interface.mac,
            up: interface.up,
        }
    });
    facts.collect()
}

fn services(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join("sys/fs/cgroup/system.slice")) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.ends_with(".service")).take(MAX_SERVICES).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_fractions_are_scaled() {
        let cases = [("12.34 5", 1000, 12_340), ("0.07 0.1", 100, 7), ("3", 10, 30), ("", 10, 0)];
        for (text, scale, expected) in cases {
            assert_eq!(decimal(text, scale), expected, "{text}");
        }
    }

    #[test]
    fn facts_come_from_the_kernel_and_the_root() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        fs::create_dir_all(path.join("etc")).unwrap();
        fs::write(path.join("etc/os-release"), "ID=x\nPRETTY_NAME=\"Pando Linux 1\"\n").unwrap();
        let slice = path.join("sys/fs/cgroup/system.slice");
        for name in ["ssh.service", "cron.service", "tmp.mount"] {
            fs::create_dir_all(slice.join(name)).unwrap();
        }
        let facts = gather(&Config::embedded(path));
        assert_eq!(facts.os, "Pando Linux 1");
        assert_eq!(facts.services, ["cron.service", "ssh.service"]);
        assert_eq!(facts.boot_id.len(), 36);
        assert!(facts.memory_total > facts.memory_available);
        assert!(facts.uptime_ms > 0 && facts.disk_total > facts.disk_free);
        assert!(facts.interfaces.iter().all(|interface| interface.name != "lo"));
    }
}
