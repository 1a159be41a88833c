//! Addresses: what is written is checked first, and what is left out is then given, in the order of
//! the text, so that the same text always means the same addresses.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use pando_model::Name;
use pando_model::network::{GATEWAY_MAC, MacAddress};

use crate::error::Place;
use crate::input::ForwardInput;
use crate::report::{At, Report};
use crate::resolve::networks::{Planned, address6, is_host_of, last_host};
use crate::resolve::nodes::{Draft, DraftNic};
use crate::scalar::{Mac, V4, V6};
use crate::topology::{Interface, Network, Node};

/// The number of the first machine that gets an address by itself: leaves room for a gateway and
/// for those that are written.
const FIRST_HOST: u32 = 11;
/// First bytes of MAC addresses that are made of an IPv4 address, locally administered; the next is
/// tried where one is taken.
const MAC_PREFIXES: [u8; 4] = [0x52, 0x56, 0x5a, 0x5e];

/// What is taken, and where it is written.
#[derive(Default)]
struct Used {
    v4: BTreeMap<Ipv4Addr, Place>,
    v6: BTreeMap<Ipv6Addr, Place>,
    mac: BTreeMap<MacAddress, Place>,
}

/// Forwards that are written below a node.
pub type NodeForwards = Vec<(Name, Vec<At<ForwardInput>>)>;

/// Returns the nodes with their addresses, and the forwards of each.
pub fn assign(
    report: &mut Report<'_>,
    networks: &[Planned],
    drafts: Vec<Draft>,
) -> (Vec<Node>, NodeForwards) {
    let mut used = Used::default();
    for nic in drafts.iter().flat_map(|draft| &draft.interfaces) {
        if let Some(planned) = networks.get(nic.network) {
            written(report, &mut used, &planned.network, nic);
        }
    }
    let mut forwards = Vec::new();
    let mut nodes = Vec::new();
    for draft in drafts {
        let Draft { mut node, interfaces, forwards: own, .. } = draft;
        for nic in interfaces {
            let Some(planned) = networks.get(nic.network) else { continue };
            node.interfaces.extend(given(report, &mut used, &planned.network, &nic));
        }
        forwards.push((node.name.clone(), own));
        nodes.push(node);
    }
    (nodes, forwards)
}

fn take<T: Copy + Ord + ToString>(
    report: &mut Report<'_>,
    used: &mut BTreeMap<T, Place>,
    at: &At<()>,
    address: T,
) {
    if let Some(first) = used.get(&address) {
        let message = format!("{} is there twice; first at {first}", address.to_string());
        report.wrong(at, message, "choose another, or leave it out");
        return;
    }
    used.insert(address, at.place);
}

fn written(report: &mut Report<'_>, used: &mut Used, network: &Network, nic: &DraftNic) {
    if let Some(at) = &nic.address {
        let V4(address) = at.value;
        match is_host_of(network, address) {
            Err(why) => report.wrong(at, why, host_fix(network)),
            Ok(()) if address == network.gateway => {
                let message = format!("{address} is the gateway of the network `{}`", network.name);
                report.wrong(at, message, "choose another, or another `gateway`");
            }
            Ok(()) => take(report, &mut used.v4, &at.with(()), address),
        }
    }
    if let Some(at) = &nic.address6 {
        let V6(address) = at.value;
        match why_not6(network, address) {
            Some((message, fix)) => report.wrong(at, message, fix),
            None => take(report, &mut used.v6, &at.with(()), address),
        }
    }
    if let Some(at) = &nic.mac {
        let Mac(mac) = at.value;
        if mac.is_group() || mac == MacAddress([0; 6]) || mac == GATEWAY_MAC {
            let whose = if mac == GATEWAY_MAC { "is the gateway's" } else { "is no machine's" };
            report.wrong(at, format!("{mac} {whose}"), "choose another, such as 52:54:00:12:34:56");
        } else {
            take(report, &mut used.mac, &at.with(()), mac);
        }
    }
}

fn host_fix(network: &Network) -> String {
    let first = u32::from(network.subnet).saturating_add(1);
    format!("choose one from {} to {}", Ipv4Addr::from(first), last_host(network))
}

fn why_not6(network: &Network, address: Ipv6Addr) -> Option<(String, String)> {
    let name = &network.name;
    let Some(ipv6) = network.ipv6 else {
        let message = format!("the network `{name}` has no IPv6");
        return Some((message, format!("give `{name}` a `subnet6`, or leave it out")));
    };
    let subnet = format!("{}/{}", ipv6.subnet, ipv6.prefix_bits);
    let base = u128::from(address) & !u128::from(u64::MAX);
    if base != u128::from(ipv6.subnet) {
        let message = format!("{address} is outside of the network `{name}`, {subnet}");
        return Some((message, format!("choose one of {subnet}")));
    }
    if address == ipv6.subnet {
        let message = format!("{address} is the address of the network `{name}` itself");
        return Some((message, format!("choose another of {subnet}")));
    }
    (address == ipv6.gateway).then(|| {
        let message = format!("{address} is the gateway of the network `{name}`");
        (message, format!("choose another of {subnet}"))
    })
}

fn given(
    report: &mut Report<'_>,
    used: &mut Used,
    network: &Network,
    nic: &DraftNic,
) -> Option<Interface> {
    let place = nic.at.place;
    let address = match &nic.address {
        Some(at) => at.value.0,
        None => {
            let Some(free) = free_address(used, network) else {
                let message = format!(
                    "the network `{}`, {}/{}, has no address left",
                    network.name, network.subnet, network.prefix_bits
                );
                report.wrong(&nic.at, message, "give it a larger `subnet`");
                return None;
            };
            used.v4.insert(free, place);
            free
        }
    };
    let address6 = network.ipv6.map(|ipv6| match &nic.address6 {
        Some(at) => at.value.0,
        None => {
            let mut free = address6(ipv6.subnet, network, address);
            // Numbers of machines have 32 bits, so this leaves them at the first step.
            while used.v6.contains_key(&free) {
                free = Ipv6Addr::from(u128::from(free).wrapping_add(1 << 32));
            }
            used.v6.insert(free, place);
            free
        }
    });
    let mac = match &nic.mac {
        Some(at) => at.value.0,
        None => {
            let Some(free) = free_mac(used, address) else {
                let message = format!("every MAC address made of {address} is taken");
                report.wrong(&nic.at, message, "add `mac: …`");
                return None;
            };
            used.mac.insert(free, place);
            free
        }
    };
    Some(Interface { network: network.name.clone(), mac, address, address6 })
}

fn free_address(used: &Used, network: &Network) -> Option<Ipv4Addr> {
    let base = u32::from(network.subnet);
    let last = u32::from(last_host(network));
    let first = base.saturating_add(1);
    let usual = base.saturating_add(FIRST_HOST).min(last);
    // At most one more than there are interfaces is looked at before a free one is found.
    (usual..=last)
        .chain(first..usual)
        .map(Ipv4Addr::from)
        .find(|address| *address != network.gateway && !used.v4.contains_key(address))
}

fn free_mac(used: &Used, address: Ipv4Addr) -> Option<MacAddress> {
    let [a, b, c, d] = address.octets();
    MAC_PREFIXES
        .iter()
        .map(|first| MacAddress([*first, 0x54, a, b, c, d]))
        .find(|mac| !used.mac.contains_key(mac))
}
