//! Whatever a topology says, its canonical form says the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in a helper")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use pando_model::cluster::SshDefaults;
use pando_model::fault::{Burst, Distribution, Impairment, PerMillion};
use pando_model::guest::Command;
use pando_model::network::MacAddress;
use pando_model::{ByteCount, Name, Uplink};
use pando_topology::{
    ExtraDisk, File, Forward, ImageRef, Interface, Limits, Network, Network6, Node, Restart,
    Service, Ssh, Topology, diff, parse,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

fn name(prefix: &str, number: usize) -> Name {
    format!("{prefix}{number}").parse().unwrap()
}

/// Texts as nasty as they come: anything but a zero byte.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9 :#'\"{}\\[\\],&*!|>%@`~.-]{0,24}",
        "([a-z :\t]{0,6}\n){1,4}[a-z ]{0,4}",
        "\\PC{0,12}",
        any::<String>().prop_map(|text| text.replace('\0', "0")),
        Just("null".to_owned()),
        Just("1e3".to_owned()),
        Just("\u{85}\u{2028}\u{feff}\u{7f}".to_owned()),
    ]
}

fn filled() -> impl Strategy<Value = String> {
    text().prop_map(|text| format!("x{text}"))
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        filled().prop_map(Command::Shell),
        (filled(), vec(text(), 0..4)).prop_map(|(first, rest)| {
            Command::Argv(std::iter::once(first).chain(rest).collect())
        }),
    ]
}

fn entries() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[A-Za-z_][A-Za-z0-9_]{0,8}", text(), 0..4)
}

/// A node's environment, whose values are lines of a file.
fn environment() -> impl Strategy<Value = BTreeMap<String, String>> {
    let line = |(name, value): (String, String)| (name, value.replace('\n', " "));
    entries().prop_map(move |entries| entries.into_iter().map(line).collect())
}

fn link() -> impl Strategy<Value = Option<Impairment>> {
    let shares = (1..=1_000_000_u32, 0..=1_000_000_u32, 0..=1_000_000_u32, 0..=1_000_000_u32);
    let parts = (
        1..=60_000_000_u64,
        0..=60_000_000_u64,
        shares,
        proptest::option::of(1..=1_000_000_u32),
        proptest::option::of(1..=100_000_000_u64),
    );
    proptest::option::of(parts.prop_map(|(latency_us, jitter_us, shares, burst, rate)| {
        let (loss, duplicate, corrupt, reorder) = shares;
        Impairment {
            latency_us,
            jitter_us,
            distribution: Distribution::Pareto,
            loss: PerMillion(loss),
            burst: burst.map(|mean_frames| Burst { mean_frames }),
            duplicate: PerMillion(duplicate),
            corrupt: PerMillion(corrupt),
            reorder: PerMillion(reorder),
            rate_bps: rate.map(|kbit| kbit * 1000),
        }
    }))
}

fn network(number: usize) -> impl Strategy<Value = Network> {
    let part = u8::try_from(number).unwrap();
    (link(), any::<bool>(), any::<bool>(), 2..=254_u8).prop_map(move |(link, nat, v6, gateway)| {
        let subnet = Ipv6Addr::new(0xfd00, u16::from(part), 0, 0, 0, 0, 0, 0);
        Network {
            name: name("net", number),
            subnet: Ipv4Addr::new(10, part, 0, 0),
            prefix_bits: 16,
            gateway: Ipv4Addr::new(10, part, 0, gateway),
            ipv6: v6.then(|| Network6 {
                subnet,
                prefix_bits: 64,
                gateway: Ipv6Addr::from(u128::from(subnet) | u128::from(gateway)),
            }),
            uplink: if nat { Uplink::Nat } else { Uplink::None },
            link,
            bridge: None,
        }
    })
}

fn service(number: usize) -> impl Strategy<Value = Service> {
    let restart = prop_oneof![Just(Restart::No), Just(Restart::OnFailure), Just(Restart::Always)];
    (command(), entries(), proptest::option::of("(/[a-z ]{1,8}){1,3}"), restart).prop_map(
        move |(command, env, cwd, restart)| Service {
            name: name("s", number),
            command,
            env,
            cwd,
            user: Some("www-data".to_owned()),
            restart,
            after: (0..number).map(|earlier| name("s", earlier)).collect(),
        },
    )
}

fn file(number: usize) -> impl Strategy<Value = File> {
    (text(), 0..0o10000_u32, "[a-z:# ]{1,8}").prop_map(move |(contents, mode, path)| File {
        path: format!("/{number}{path}"),
        contents,
        mode,
        owner: None,
    })
}

fn extra_disk(number: usize) -> impl Strategy<Value = ExtraDisk> {
    (1..100_u64).prop_map(move |mib| ExtraDisk {
        name: format!("data-{number}").parse().unwrap(),
        size: ByteCount::from_mib(mib),
    })
}

/// A node of number `number`, plugged into each network that its bits name.
fn node(number: usize, networks: Vec<Network>) -> impl Strategy<Value = Node> {
    let machine = (1..=32_u8, 48..1000_u64, proptest::option::of(1..9999_u64));
    let parts = (
        environment(),
        proptest::option::of(text().prop_map(|rest| format!("#!/bin/sh\n{rest}"))),
        (0..3_usize).prop_flat_map(|count| (0..count).map(file).collect::<Vec<_>>()),
        vec(command(), 0..3),
        (0..3_usize).prop_flat_map(|count| (0..count).map(service).collect::<Vec<_>>()),
        (0..3_usize).prop_flat_map(|count| (0..count).map(extra_disk).collect::<Vec<_>>()),
        filled().prop_map(|role| role.chars().filter(char::is_ascii_alphanumeric).collect()),
    );
    (machine, parts, any::<u8>(), any::<bool>()).prop_map(
        move |((vcpus, memory, disk), parts, plugged, own_mac)| {
            let (env, user_data, files, commands, services, extra_disks, role) = parts;
            let host = u8::try_from(number).unwrap() + 1;
            let interfaces = networks
                .iter()
                .enumerate()
                .filter(|(index, _)| plugged >> index & 1 == 1)
                .map(|(_, network)| {
                    let [a, b, _, _] = network.subnet.octets();
                    let address = Ipv4Addr::new(a, b, host, 7);
                    let first = if own_mac { 0x02 } else { 0x52 };
                    Interface {
                        network: network.name.clone(),
                        mac: MacAddress([first, 0x54, a, b, host, 7]),
                        address,
                        address6: network.ipv6.map(|ipv6| {
                            Ipv6Addr::from(u128::from(ipv6.subnet) | 0xffff_0000 | u128::from(host))
                        }),
                    }
                })
                .collect();
            Node {
                name: name("node", number),
                role,
                image: ImageRef { name: "default".to_owned(), file: None },
                vcpus,
                memory: ByteCount::from_mib(2 * memory),
                disk: disk.map(ByteCount::from_mib),
                extra_disks,
                interfaces,
                env,
                user_data,
                files,
                commands,
                services,
                labels: BTreeMap::new(),
            }
        },
    )
}

fn topology() -> impl Strategy<Value = Topology> {
    (1..4_usize, 1..5_usize)
        .prop_flat_map(|(networks, nodes)| {
            let networks: Vec<_> = (0..networks).map(network).collect();
            (networks, Just(nodes))
        })
        .prop_flat_map(|(networks, count)| {
            let nodes: Vec<_> = (0..count).map(|number| node(number, networks.clone())).collect();
            let login = proptest::option::of("(/[a-zé #:'\"]{1,8}){1,3}");
            // Each port of a node is led to once.
            let ports = btree_set((1..999_u16, 0..count), 0..4);
            (Just(networks), nodes, text(), entries(), ports, login)
        })
        .prop_map(|(networks, nodes, description, labels, ports, key_path)| {
            let forwards = ports
                .into_iter()
                .enumerate()
                .map(|(index, (port, node))| Forward {
                    host_port: (index % 2 == 0)
                        .then_some(port + u16::try_from(index).unwrap() * 1000),
                    node: name("node", node),
                    guest_port: port,
                })
                .collect();
            Topology {
                name: "shop".parse().unwrap(),
                description,
                networks,
                nodes,
                forwards,
                ssh: Ssh { key_path, ..Ssh::default() },
                snapshots: BTreeMap::from([(name("a", 1), name("b", 2))]),
                labels,
                notes: Vec::new(),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_canonical_form_reads_back_as_the_same(topology in topology()) {
        let text = topology.to_yaml();
        let again = parse(&text, &Limits::default(), &SshDefaults::default())
            .map_err(|errors| TestCaseError::fail(format!("{errors}\n{text}")))?;
        prop_assert_eq!(&again, &topology, "{}", text);
        prop_assert_eq!(diff(&topology, &again), vec![]);
    }

    /// The digest is of the meaning: another order of nodes is the same cluster, another amount of
    /// memory is not.
    #[test]
    fn the_digest_is_of_the_meaning(topology in topology()) {
        let mut turned = topology.clone();
        turned.nodes.reverse();
        turned.networks.reverse();
        prop_assert_eq!(turned.digest(), topology.digest());
        prop_assert_eq!(diff(&topology, &turned), vec![]);
        turned.nodes[0].memory = ByteCount::from_gib(7);
        prop_assert_ne!(turned.digest(), topology.digest());
        let drifts = diff(&topology, &turned);
        prop_assert_eq!(drifts.len(), 1);
        prop_assert_eq!(&drifts[0].path, &format!("nodes[{}].memory", turned.nodes[0].name));
        prop_assert_eq!(drifts[0].file.as_deref(), Some("7G"));
    }
}
