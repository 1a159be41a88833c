//! Networks: subnets that make sense and do not overlap, and what their links suffer.

use std::net::{Ipv4Addr, Ipv6Addr};

use pando_model::fault::{Burst, Impairment, PerMillion};
use pando_model::{Name, Uplink};

use crate::input::{LinkInput, NetworkInput};
use crate::record::List;
use crate::report::{At, Report};
use crate::resolve::{Taken, bridges, limited, ranged};
use crate::scalar::{Net4, Net6, Number, V4};
use crate::topology::{Network, Network6};

/// Shortest and longest prefix of a subnet: room for the gateway and a node, and no more than a
/// private range.
const PREFIX_BITS: std::ops::RangeInclusive<u8> = 8..=30;
/// The prefix of IPv6 networks: what neighbour discovery and other tools expect.
const PREFIX6_BITS: u8 = 64;
/// Longest delay, in milliseconds: TCP gives up on longer ones.
const MAX_DELAY_MS: f64 = 60_000.0;
/// Highest rate, in kbit/s: 100 Gbit/s.
const MAX_RATE_KBIT: i64 = 100_000_000;

/// A network and where it is written.
pub struct Planned {
    /// The network.
    pub network: Network,
    /// Where.
    pub at: At<()>,
}

/// Returns the networks, at least one.
pub fn networks(
    report: &mut Report<'_>,
    whole: &At<()>,
    one: Option<At<NetworkInput>>,
    several: Option<At<List<NetworkInput>>>,
) -> Vec<Planned> {
    let inputs = match (one, several) {
        (Some(one), Some(several)) => {
            report.wrong(&several, "`network` is given too", "move it into `networks`");
            vec![one]
        }
        (Some(one), None) => vec![one],
        (None, several) => {
            let most = report.limits.networks;
            limited(report, several, most, "networks")
        }
    };
    if inputs.is_empty() {
        let number = 0;
        return vec![planned(report, number, true, whole.with(None))];
    }
    let alone = inputs.len() == 1;
    let mut names = Taken::default();
    let mut networks: Vec<Planned> = Vec::new();
    for (number, input) in inputs.into_iter().enumerate() {
        let at = input.with(());
        let name_at = input.value.name.as_ref().map(|name| name.with(()));
        let planned = planned(report, number, alone, at.with(Some(input.value)));
        let name = planned.network.name.to_string();
        if names.take(report, name_at.as_ref().unwrap_or(&at), "the network", &name) {
            refuse_overlap(report, &networks, &planned);
            bridges::refuse_mixture(report, networks.iter().map(|one| &one.network), &planned);
            networks.push(planned);
        }
    }
    networks
}

fn planned(
    report: &mut Report<'_>,
    number: usize,
    alone: bool,
    input: At<Option<NetworkInput>>,
) -> Planned {
    let at = input.with(());
    let input = input.value;
    let part = |index: usize| u8::try_from(index).unwrap_or(u8::MAX);
    let default = (Ipv4Addr::new(10, 20, part(number), 0), 24);
    let Some(input) = input else {
        let network = network(default, Ipv4Addr::new(10, 20, part(number), 1), fallback_name());
        return Planned { network, at };
    };
    if input.name.is_none() && !alone {
        report.wrong(&at, "`name` is missing", "add `name: …`; nodes name their networks");
    }
    let bridge = bridges::bridge(report, number, &at, &input);
    note_unused(report, &input, bridge.is_some());
    let name = input.name.map_or_else(fallback_name, |at| at.value.0);
    let (subnet, prefix_bits) = match &input.subnet {
        Some(at) => subnet(report, at).unwrap_or(default),
        None => default,
    };
    let first = Ipv4Addr::from(u32::from(subnet).saturating_add(1));
    let mut network = network((subnet, prefix_bits), first, name);
    if let Some(at) = &input.gateway {
        let V4(gateway) = at.value;
        if let Err(why) = is_host_of(&network, gateway) {
            report.wrong(at, why, format!("choose one of {subnet}/{prefix_bits}, such as {first}"));
        } else {
            network.gateway = gateway;
        }
    }
    network.ipv6 = input.subnet6.as_ref().and_then(|at| subnet6(report, at, &network));
    network.uplink = input.uplink.map_or(Uplink::None, |at| at.value.0);
    network.bridge = bridge;
    network.link = input.link.and_then(|at| link(report, &at.value));
    Planned { network, at }
}

fn fallback_name() -> Name {
    #[expect(clippy::expect_used, reason = "a constant that is a name")]
    "net".parse().expect("a name")
}

fn network((subnet, prefix_bits): (Ipv4Addr, u8), gateway: Ipv4Addr, name: Name) -> Network {
    let (uplink, bridge) = (Uplink::None, None);
    Network { name, subnet, prefix_bits, gateway, ipv6: None, uplink, link: None, bridge }
}

fn note_unused(report: &mut Report<'_>, input: &NetworkInput, is_bridged: bool) {
    if let Some(at) = input.bridge.as_ref().filter(|_| !is_bridged) {
        report.note(
            at,
            "not used: each branch has a switch of its own, which needs no bridge on this host; \
             `mode: kernel` makes one",
        );
        if input.uplink.is_none() {
            report.note(at, "nodes do not reach the outside unless the network has `uplink: nat`");
        }
    }
    if let Some(at) = &input.dhcp {
        let note = match is_bridged {
            true => "not used: nodes have fixed addresses, and nobody offers them by DHCP",
            false => "not used: nodes have fixed addresses, and the switch offers them by DHCP",
        };
        report.note(at, note);
    }
    if let Some(at) = input.rdma.as_ref().filter(|at| at.value.0) {
        report.note(at, "not used: the switch carries Ethernet only; there are no RDMA devices");
    }
}

/// Returns the broadcast address.
fn broadcast(subnet: Ipv4Addr, prefix_bits: u8) -> Ipv4Addr {
    let hosts = u32::MAX.checked_shr(u32::from(prefix_bits)).unwrap_or(0);
    Ipv4Addr::from(u32::from(subnet) | hosts)
}

/// Returns the network address of an address.
fn network_of(address: Ipv4Addr, prefix_bits: u8) -> Ipv4Addr {
    let hosts = u32::MAX.checked_shr(u32::from(prefix_bits)).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & !hosts)
}

/// Says why an address is none that a machine of the network can have.
pub fn is_host_of(network: &Network, address: Ipv4Addr) -> Result<(), String> {
    let Network { name, subnet, prefix_bits, .. } = network;
    if network_of(address, *prefix_bits) != *subnet {
        return Err(format!(
            "{address} is outside of the network `{name}`, {subnet}/{prefix_bits}"
        ));
    }
    if address == *subnet {
        return Err(format!("{address} is the address of the network `{name}` itself"));
    }
    if address == broadcast(*subnet, *prefix_bits) {
        return Err(format!("{address} is the broadcast address of the network `{name}`"));
    }
    Ok(())
}

/// Returns the last address that a machine of the network can have.
pub fn last_host(network: &Network) -> Ipv4Addr {
    let last = broadcast(network.subnet, network.prefix_bits);
    Ipv4Addr::from(u32::from(last).saturating_sub(1))
}

fn subnet(report: &mut Report<'_>, at: &At<Net4>) -> Option<(Ipv4Addr, u8)> {
    let Net4((address, bits)) = at.value;
    if !PREFIX_BITS.contains(&bits) {
        let (least, most) = PREFIX_BITS.into_inner();
        let message = format!("a prefix of {bits} bits is out of range: {least} to {most}");
        report.wrong(at, message, "write a usual one: 10.20.0.0/24");
        return None;
    }
    let base = network_of(address, bits);
    if base != address {
        let message = format!("{address}/{bits} is a machine's address, not a network's");
        report.wrong(at, message, format!("write {base}/{bits}"));
        return None;
    }
    let last = broadcast(base, bits);
    let odd = |one: Ipv4Addr| {
        one.is_loopback() || one.is_link_local() || one.octets()[0] == 0 || one.octets()[0] >= 224
    };
    if odd(base) || odd(last) {
        let message = format!("{base}/{bits} is reserved and cannot be a network of machines");
        report.wrong(at, message, "take a private one: 10.20.0.0/24");
        return None;
    }
    Some((base, bits))
}

fn subnet6(report: &mut Report<'_>, at: &At<Net6>, network: &Network) -> Option<Network6> {
    let Net6((address, bits)) = at.value;
    if bits != PREFIX6_BITS {
        let message = format!("a prefix of {bits} bits is not {PREFIX6_BITS}");
        report.wrong(at, message, "write one of 64 bits: fd00:20::/64");
        return None;
    }
    let base = Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX));
    if base != address {
        let message = format!("{address}/{bits} is a machine's address, not a network's");
        report.wrong(at, message, format!("write {base}/{bits}"));
        return None;
    }
    let odd = base.is_multicast()
        || base.is_unicast_link_local()
        || base.segments().starts_with(&[0, 0, 0, 0]);
    if odd {
        let message = format!("{base}/{bits} is reserved and cannot be a network of machines");
        report.wrong(at, message, "take a private one: fd00:20::/64");
        return None;
    }
    let gateway = address6(base, network, network.gateway);
    Some(Network6 { subnet: base, prefix_bits: bits, gateway })
}

/// Returns the IPv6 address that belongs to an IPv4 address: the same number of the machine.
pub fn address6(subnet6: Ipv6Addr, network: &Network, address: Ipv4Addr) -> Ipv6Addr {
    let number = u32::from(address).wrapping_sub(u32::from(network.subnet));
    Ipv6Addr::from(u128::from(subnet6) | u128::from(number))
}

fn refuse_overlap(report: &mut Report<'_>, networks: &[Planned], planned: &Planned) {
    let Planned { network, at, .. } = planned;
    for other in networks {
        let bits = network.prefix_bits.min(other.network.prefix_bits);
        if network_of(network.subnet, bits) == network_of(other.network.subnet, bits) {
            let message = format!(
                "the network `{}`, {}/{}, overlaps `{}`, {}/{}",
                network.name,
                network.subnet,
                network.prefix_bits,
                other.network.name,
                other.network.subnet,
                other.network.prefix_bits
            );
            report.wrong(at, message, "give each a `subnet` of its own");
        }
        let subnet6 = |network: &Network| network.ipv6.map(|ipv6| ipv6.subnet);
        if subnet6(network).is_some() && subnet6(network) == subnet6(&other.network) {
            let message = format!(
                "the networks `{}` and `{}` have the same `subnet6`",
                network.name, other.network.name
            );
            report.wrong(at, message, "give each a `subnet6` of its own");
        }
    }
}

fn link(report: &mut Report<'_>, input: &LinkInput) -> Option<Impairment> {
    let latency_us = delay(report, input.latency_ms.as_ref());
    let impairment = Impairment {
        latency_us,
        jitter_us: delay(report, input.jitter_ms.as_ref()),
        distribution: input.distribution.as_ref().map(|at| at.value.0).unwrap_or_default(),
        loss: share(report, input.loss_pct.as_ref()),
        burst: input.burst_frames.as_ref().and_then(|at| {
            let fix = "write the mean number of frames lost in a row";
            ranged(report, at, 1..=1_000_000, fix).map(|mean_frames| Burst { mean_frames })
        }),
        duplicate: share(report, input.duplicate_pct.as_ref()),
        corrupt: share(report, input.corrupt_pct.as_ref()),
        reorder: share(report, input.reorder_pct.as_ref()),
        rate_bps: input.rate_kbit.as_ref().and_then(|at| {
            let kbit: Option<u64> =
                ranged(report, at, 1..=MAX_RATE_KBIT, "write thousands of bits a second");
            kbit.map(|kbit| kbit.saturating_mul(1000))
        }),
    };
    if let Some(at) = input.reorder_pct.as_ref().filter(|_| latency_us == 0) {
        without(report, &at.with(()), "latency_ms");
    }
    if let Some(at) = input.burst_frames.as_ref().filter(|_| impairment.loss.0 == 0) {
        without(report, &at.with(()), "loss_pct");
    }
    (impairment != Impairment::default()).then_some(impairment)
}

fn without(report: &mut Report<'_>, at: &At<()>, needed: &str) {
    let message = format!("without `{needed}` it has no effect");
    report.wrong(at, message, format!("add `{needed}: …`, or remove it"));
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range was checked, and thousandths are enough"
)]
fn delay(report: &mut Report<'_>, at: Option<&At<Number>>) -> u64 {
    let Some(at) = at else { return 0 };
    let Number(ms) = at.value;
    if !(0.0..=MAX_DELAY_MS).contains(&ms) {
        let message = format!("{ms} is out of range: 0 to {MAX_DELAY_MS}");
        report.wrong(at, message, "write milliseconds");
        return 0;
    }
    (ms * 1000.0).round() as u64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range was checked, and parts per million are what there is"
)]
fn share(report: &mut Report<'_>, at: Option<&At<Number>>) -> PerMillion {
    let Some(at) = at else { return PerMillion(0) };
    let Number(percent) = at.value;
    if !(0.0..=100.0).contains(&percent) {
        report.wrong(at, format!("{percent} is out of range: 0 to 100"), "write per cent");
        return PerMillion(0);
    }
    PerMillion((percent * 10_000.0).round() as u32)
}
