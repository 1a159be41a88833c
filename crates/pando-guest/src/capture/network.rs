//! The network as the kernel has it: links, addresses, routes; the resolver, the host's name, and
//! the settings that decide what is forwarded and accepted.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use pando_model::capture::{Aspect, CaptureRecord, Coverage};

use super::{Teller, Told, short};
use crate::limits::{MAX_CAPTURED_ITEMS, MAX_SETTING_BYTES};
use crate::netlink::{Netlink, interfaces};

/// Directories of settings; those of single interfaces follow from these.
const SETTINGS: &[&str] = &["net/ipv4", "net/ipv4/conf/all", "net/ipv6/conf/all", "net/core"];
/// Settings that change by themselves.
const VOLATILE: &[&str] = &["tcp_fastopen_key", "netdev_rss_key"];

/// Tells the network.
pub fn network(root: &Path, teller: &mut Teller<'_>) -> Told {
    let mut all = BTreeMap::new();
    let mut unknown = Vec::new();
    let names = links(&mut all).unwrap_or_else(|| {
        unknown.push("links");
        BTreeMap::new()
    });
    if addresses(&names, &mut all).is_none() {
        unknown.push("addresses");
    }
    for (table, parse) in [("route", route_4 as fn(&str) -> _), ("ipv6_route", route_6)] {
        match fs::read_to_string(format!("/proc/net/{table}")) {
            Ok(text) => {
                for (name, way) in text.lines().filter_map(parse) {
                    also(&mut all, format!("route {name}"), &way);
                }
            }
            // A kernel without IPv6 has no such table.
            Err(_) if table == "ipv6_route" => {}
            Err(_) => unknown.push("routes"),
        }
    }
    if let Ok(text) = fs::read_to_string(root.join("etc/resolv.conf")) {
        let lines = text.lines().map(str::trim);
        let said = lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
        all.insert("resolver".to_owned(), said.collect::<Vec<_>>().join("; "));
    }
    if let Ok(name) = fs::read_to_string("/proc/sys/kernel/hostname") {
        all.insert("hostname".to_owned(), name.trim().to_owned());
    }
    settings(&mut all);
    for (name, state) in all.into_iter().take(MAX_CAPTURED_ITEMS) {
        teller.tell(&CaptureRecord::Network(short(&name), short(&state)))?;
    }
    let coverage = match unknown.as_slice() {
        [] => Coverage::Complete,
        some => Coverage::Partial(format!("the kernel does not tell its {}", some.join(", "))),
    };
    teller.covered(Aspect::Network, coverage)
}

/// Adds what there may be several of under one name.
fn also(all: &mut BTreeMap<String, String>, name: String, state: &str) {
    let known = all.entry(name).or_default();
    if !known.is_empty() {
        known.push_str("; ");
    }
    known.push_str(state);
}

/// Returns the names of the links by their numbers.
fn links(all: &mut BTreeMap<String, String>) -> Option<BTreeMap<u32, String>> {
    let mut names = BTreeMap::new();
    for link in interfaces().ok()? {
        let mtu = fs::read_to_string(format!("/sys/class/net/{}/mtu", link.name));
        let mtu = mtu.map(|mtu| mtu.trim().to_owned()).unwrap_or_default();
        let up = if link.up { "up" } else { "down" };
        all.insert(format!("link {}", link.name), format!("{up}, mtu {mtu}, {}", link.mac));
        names.insert(link.index, link.name);
    }
    Some(names)
}

fn addresses(names: &BTreeMap<u32, String>, all: &mut BTreeMap<String, String>) -> Option<()> {
    for (index, address) in Netlink::open().and_then(|link| link.addresses()).ok()? {
        let link = names.get(&index).cloned().unwrap_or_else(|| index.to_string());
        let name = format!("address {}/{}", address.address, address.bits);
        also(all, name, &format!("on {link}"));
    }
    Some(())
}

fn settings(all: &mut BTreeMap<String, String>) {
    for directory in SETTINGS {
        let Ok(entries) = fs::read_dir(Path::new("/proc/sys").join(directory)) else { continue };
        for entry in entries.take(MAX_CAPTURED_ITEMS).flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !VOLATILE.contains(name)) else {
                continue;
            };
            // Some are for writing only, and directories are none.
            let Ok(value) = fs::read_to_string(entry.path()) else { continue };
            if value.len() <= MAX_SETTING_BYTES {
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                all.insert(format!("setting {}.{name}", directory.replace('/', ".")), value);
            }
        }
    }
}

fn way(gateway: Option<String>, link: &str, metric: u32) -> String {
    let via = gateway.map(|gateway| format!("via {gateway} ")).unwrap_or_default();
    let metric = if metric == 0 { String::new() } else { format!(", metric {metric}") };
    format!("{via}on {link}{metric}")
}

/// Returns destination and way of a line of `/proc/net/route`: addresses are words in the machine's
/// byte order.
fn route_4(line: &str) -> Option<(String, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |at: usize| {
        let word = u32::from_str_radix(fields.get(at)?, 16).ok()?;
        Some(Ipv4Addr::from(word.to_ne_bytes()))
    };
    let (link, to, gateway, mask) = (fields.first()?, address(1)?, address(2)?, address(7)?);
    let metric = fields.get(6)?.parse().ok()?;
    let bits = u32::from(mask).count_ones();
    let name = if bits == 0 { "default".to_owned() } else { format!("{to}/{bits}") };
    let gateway = (!gateway.is_unspecified()).then(|| gateway.to_string());
    Some((name, way(gateway, link, metric)))
}

/// Returns destination and way of a line of `/proc/net/ipv6_route`, of what is not only local.
fn route_6(line: &str) -> Option<(String, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
    let address =
        |at: usize| u128::from_str_radix(fields.get(at)?, 16).ok().map(Ipv6Addr::from_bits);
    let (to, bits, gateway, metric) = (address(0)?, number(1)?, address(4)?, number(5)?);
    let (flags, link) = (number(8)?, fields.get(9)?);
    const RTF_UP: u32 = 1;
    // The kernel's own routes to its own addresses, and to groups.
    if *link == "lo" || to.is_multicast() || bits == 128 || flags & RTF_UP == 0 {
        return None;
    }
    let name = if bits == 0 { "default (IPv6)".to_owned() } else { format!("{to}/{bits}") };
    let gateway = (!gateway.is_unspecified()).then(|| gateway.to_string());
    Some((name, way(gateway, link, metric)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_people_write_them() {
        let four = [
            (
                "eth0\t00000000\t0200000A\t0003\t0\t0\t100\t00000000\t0\t0\t0",
                Some(("default", "via 10.0.0.2 on eth0, metric 100")),
            ),
            (
                "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0",
                Some(("10.0.0.0/24", "on eth0")),
            ),
            ("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU", None),
            ("", None),
        ];
        for (line, expected) in four {
            let expected = expected.map(|(to, way): (&str, &str)| (to.to_owned(), way.to_owned()));
            assert_eq!(route_4(line), expected, "{line}");
        }
        let zeros = "0".repeat(32);
        let line = |to: &str, bits: &str, via: &str, link: &str| {
            format!("{to} {bits} {zeros} 00 {via} 00000400 00000001 00000000 00000003 {link}")
        };
        let fd = format!("fd{}", "0".repeat(30));
        let gateway = format!("fe80{}1", "0".repeat(27));
        assert_eq!(
            route_6(&line(&zeros, "00", &gateway, "eth0")),
            Some(("default (IPv6)".to_owned(), "via fe80::1 on eth0, metric 1024".to_owned()))
        );
        assert_eq!(route_6(&line(&fd, "40", &zeros, "eth0")).unwrap().0, "fd00::/64");
        assert_eq!(route_6(&line(&fd, "80", &zeros, "eth0")), None);
        assert_eq!(route_6(&line(&fd, "40", &zeros, "lo")), None);
        assert_eq!(route_6("x"), None);
    }
}
