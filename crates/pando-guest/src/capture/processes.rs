//! Processes and listening sockets, as `/proc` tells them.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use pando_model::capture::{Aspect, CaptureRecord, Coverage, Port, Process};

use super::{TICKS_PER_SECOND, Teller, Told, short};
use crate::limits::MAX_CAPTURED_ITEMS;
use crate::spare;

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

fn file(pid: u32, name: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/{name}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Tells the processes; kernel threads have no command line and are left out.
pub fn processes(teller: &mut Teller<'_>) -> Told {
    let pids = pids();
    let coverage = match pids.len() > MAX_CAPTURED_ITEMS {
        true => Coverage::Partial(format!("there are more than {MAX_CAPTURED_ITEMS} processes")),
        false => Coverage::Complete,
    };
    for pid in pids.into_iter().take(MAX_CAPTURED_ITEMS) {
        // It may end while it is looked at.
        if let Some(process) = process(pid) {
            teller.tell(&CaptureRecord::Process(process))?;
        }
    }
    teller.covered(Aspect::Processes, coverage)
}

fn process(pid: u32) -> Option<Process> {
    let command = file(pid, "cmdline")?;
    if command.is_empty() {
        return None;
    }
    let (name, parent, started_ms) = stat(&file(pid, "stat")?)?;
    let status = file(pid, "status")?;
    let value = |name| status.lines().find_map(|line: &str| line.strip_prefix(name));
    let uid = value("Uid:")?.split_whitespace().next()?.parse().ok()?;
    let tracer = value("TracerPid:").and_then(|pid| pid.trim().parse().ok());
    if tracer == Some(std::process::id()) {
        // It is the shell of a command that nobody has given yet.
        return None;
    }
    let started_ms = spare::began_ms(pid, started_ms);
    let command = command.trim_end_matches('\0').replace('\0', " ");
    let service = service(&file(pid, "cgroup").unwrap_or_default());
    Some(Process { pid, parent, uid, started_ms, name, command: short(&command), service })
}

/// Returns name, parent and time of start of a line of `/proc/PID/stat`. The name stands in
/// brackets and may hold anything.
fn stat(line: &str) -> Option<(String, u32, u64)> {
    let (before, after) = line.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started: u64 = fields.nth(17)?.parse().ok()?;
    Some((short(name), parent, started.saturating_mul(1000 / TICKS_PER_SECOND)))
}

/// Returns the unit that a process belongs to.
fn service(cgroup: &str) -> String {
    let unit = cgroup.trim().rsplit('/').find(|part| part.ends_with(".service"));
    unit.map(short).unwrap_or_default()
}

/// Tells the listening sockets and who listens.
pub fn ports(teller: &mut Teller<'_>) -> Told {
    let mut found = Vec::new();
    let mut readable = false;
    // 0A listens; a datagram socket that is bound and not connected is in state 07.
    for (table, protocol, state) in
        [("tcp", "tcp", "0A"), ("tcp6", "tcp", "0A"), ("udp", "udp", "07"), ("udp6", "udp", "07")]
    {
        let Ok(text) = fs::read_to_string(format!("/proc/net/{table}")) else { continue };
        readable = true;
        let rows = text.lines().skip(1).filter_map(|line| row(line, state));
        found.extend(rows.map(|(address, port, inode)| (protocol, address, port, inode)));
    }
    if !readable {
        let why = "/proc/net cannot be read".to_owned();
        return teller.covered(Aspect::Ports, Coverage::Absent(why));
    }
    found.truncate(MAX_CAPTURED_ITEMS);
    let mut owners: HashMap<u64, Option<u32>> =
        found.iter().map(|(.., inode)| (*inode, None)).collect();
    if !found.is_empty() {
        find_owners(&mut owners);
    }
    for (protocol, address, port, inode) in found {
        let pid = owners.get(&inode).copied().flatten();
        let name = pid.and_then(|pid| file(pid, "comm"));
        let record = Port {
            protocol: protocol.to_owned(),
            address: address.to_string(),
            port,
            process: name.map(|name| short(name.trim())).unwrap_or_default(),
            pid: pid.unwrap_or(0),
        };
        teller.tell(&CaptureRecord::Port(record))?;
    }
    teller.covered(Aspect::Ports, Coverage::Complete)
}

/// Finds the first process that holds each of these sockets.
fn find_owners(owners: &mut HashMap<u64, Option<u32>>) {
    for pid in pids().into_iter().take(MAX_CAPTURED_ITEMS) {
        let Ok(descriptors) = fs::read_dir(PathBuf::from(format!("/proc/{pid}/fd"))) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:["));
            let inode = inode.and_then(|text| text.trim_end_matches(']').parse().ok());
            if let Some(owner) = inode.and_then(|inode: u64| owners.get_mut(&inode)) {
                owner.get_or_insert(pid);
            }
        }
    }
}

/// Returns address, port and inode of a line of a table of sockets in this state.
fn row(line: &str, wanted: &str) -> Option<(IpAddr, u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != wanted {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    Some((ip(address)?, u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?))
}

/// Returns an address that is written as words in the machine's byte order.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at..at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_anything() {
        let rest = "S 7 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4250 0 0";
        let line = format!("42 (a) S 9 (b) {rest}");
        assert_eq!(stat(&line), Some(("a) S 9 (b".to_owned(), 7, 42_500)));
        for line in ["", "42", "42 (a)", "42 (a) S", "42 )a( S 7"] {
            assert_eq!(stat(line), None, "{line}");
        }
    }

    #[test]
    fn listening_sockets_are_told_from_others() {
        let listening = "0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 777 1";
        assert_eq!(row(listening, "0A"), Some(("127.0.0.1".parse().unwrap(), 8080, 777)));
        assert_eq!(row(listening, "07"), None);
        let six = "0: 00000000000000000000000001000000:0016 0:0 0A 0:0 00:0 0 0 0 7 1";
        assert_eq!(row(six, "0A"), Some(("::1".parse().unwrap(), 22, 7)));
        for line in ["", "0: x 0 0A", "0: é000007F:1F90 0 0A 0 0 0 0 0 7"] {
            assert_eq!(row(line, "0A"), None, "{line}");
        }
    }

    #[test]
    fn a_process_knows_its_service() {
        let cases = [
            ("0::/system.slice/ssh.service\n", "ssh.service"),
            ("0::/user.slice/user-0.slice/user@0.service/app.slice/x.scope", "user@0.service"),
            ("0::/init.scope", ""),
        ];
        for (cgroup, unit) in cases {
            assert_eq!(service(cgroup), unit);
        }
    }
}
