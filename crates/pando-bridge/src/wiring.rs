//! Which taps and bridges a branch has, and which pairs of taps a link is. Pure.

use pando_model::bridge::TAP;
use pando_model::fault::Fault;
use pando_model::network::{End, Link, NetworkSpec, Port};
use pando_model::{BridgeName, Name};

use crate::limits::MAX_PORTS;

/// What a branch's network is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// The bridges, by segment.
    pub bridges: Vec<BridgeName>,
    /// The segments' names.
    pub segments: Vec<Name>,
    /// The taps, in the order of the specification's ports.
    pub taps: Vec<Tap>,
    /// The pairs that frames can go between.
    pub pairs: Vec<Pair>,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// The device's name.
    pub device: String,
    /// Whose it is.
    pub node: Name,
    /// Which of its interfaces.
    pub nic: u8,
    /// Which bridge it is on.
    pub bridge: usize,
}

/// The way from one tap to another, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
}

impl Wiring {
    /// Returns the wiring of a network, or why there is none.
    pub fn new(spec: &NetworkSpec) -> Result<Self, String> {
        if spec.ports.len() > MAX_PORTS {
            return Err(format!("{} ports, but at most {MAX_PORTS} fit", spec.ports.len()));
        }
        let mut bridges: Vec<BridgeName> = Vec::with_capacity(spec.segments.len());
        for segment in &spec.segments {
            let bridge = segment.bridge.clone();
            let bridge = bridge.ok_or_else(|| format!("`{}` names no bridge", segment.name))?;
            if bridges.contains(&bridge) {
                return Err(format!("two segments name the bridge `{bridge}`"));
            }
            bridges.push(bridge);
        }
        let tap = |(number, port): (usize, &Port)| {
            let bridge = spec.segments.iter().position(|segment| segment.name == port.segment);
            let missing = || format!("`{}` has a port of `{}`", port.node, port.segment);
            Ok(Tap {
                device: format!("{TAP}{number}"),
                node: port.node.clone(),
                nic: port.nic,
                bridge: bridge.ok_or_else(missing)?,
            })
        };
        let taps = spec.ports.iter().enumerate().map(tap).collect::<Result<Vec<Tap>, String>>()?;
        let pairs = pairs(&taps);
        let segments = spec.segments.iter().map(|segment| segment.name.clone()).collect();
        Ok(Self { bridges, segments, taps, pairs })
    }

    /// Returns the link that a pair belongs to.
    pub fn link(&self, pair: Pair) -> Option<Link> {
        let end = |tap: usize| Some(End::Node(self.taps.get(tap)?.node.clone()));
        Some(Link { from: end(pair.from)?, to: end(pair.to)? })
    }

    /// Returns whether a fault works on what goes from one tap of a pair to the other.
    pub fn works_on(&self, fault: &Fault, pair: Pair) -> bool {
        let segment = self.taps.get(pair.to).and_then(|tap| self.segments.get(tap.bridge));
        let link = self.link(pair);
        link.zip(segment).is_some_and(|(link, segment)| fault.works_on(&link, segment))
    }

    /// Returns the taps of a node by number of the interface.
    pub fn taps_of(&self, node: &Name) -> Vec<usize> {
        let mut own: Vec<(u8, usize)> = self
            .taps
            .iter()
            .enumerate()
            .filter(|(_, tap)| tap.node == *node)
            .map(|(number, tap)| (tap.nic, number))
            .collect();
        own.sort_unstable();
        own.into_iter().map(|(_, number)| number).collect()
    }

    /// Returns the lines for `ip` that make the bridges, down.
    pub fn make_bridges(&self) -> String {
        let make =
            |bridge| format!("link add name {bridge} type bridge stp_state 0 mcast_snooping 0\n");
        self.bridges.iter().map(make).collect()
    }

    /// Returns the lines for `ip` that put taps on their bridges.
    pub fn plug(&self, taps: &[usize]) -> String {
        let taps = taps.iter().filter_map(|tap| self.taps.get(*tap));
        let bridge = |tap: &Tap| self.bridges.get(tap.bridge).map(ToString::to_string);
        taps.filter_map(|tap| Some((tap, bridge(tap)?)))
            .map(|(tap, bridge)| format!("link set dev {} master {bridge} up\n", tap.device))
            .collect()
    }

    /// Returns the lines for `ip` that let all bridges carry frames, or none.
    pub fn set_bridges(&self, carries: Carries) -> String {
        let state = match carries {
            Carries::Frames => "up",
            Carries::Nothing => "down",
        };
        self.bridges.iter().map(|bridge| format!("link set dev {bridge} {state}\n")).collect()
    }
}

/// Whether bridges forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// They do.
    Frames,
    /// They drop what comes in.
    Nothing,
}

fn pairs(taps: &[Tap]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (from, one) in taps.iter().enumerate() {
        for (to, other) in taps.iter().enumerate() {
            if from != to && one.bridge == other.bridge {
                pairs.push(Pair { from, to });
            }
        }
    }
    pairs
}

#[cfg(test)]
pub mod tests {
    use std::net::Ipv4Addr;

    use pando_model::Uplink;
    use pando_model::network::{MacAddress, Segment};

    use super::*;

    pub fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    pub fn link(from: &str, to: &str) -> Link {
        Link { from: End::Node(name(from)), to: End::Node(name(to)) }
    }

    /// Two segments: `a` and `b` are in both, `c` in the second one only.
    pub fn spec() -> NetworkSpec {
        let segment = |text: &str, third: u8| Segment {
            name: name(text),
            subnet: Ipv4Addr::new(10, 20, third, 0),
            prefix_bits: 24,
            gateway: Ipv4Addr::new(10, 20, third, 1),
            gateway6: None,
            uplink: Uplink::None,
            bridge: Some(format!("br-{text}").parse().unwrap()),
        };
        let port = |node: &str, nic, segment: &str, last| Port {
            node: name(node),
            nic,
            segment: name(segment),
            mac: MacAddress([0x52, 0x54, 0, 0, 0, last]),
            address: None,
            address6: None,
        };
        NetworkSpec {
            domain: "shop".to_owned(),
            segments: vec![segment("lan", 0), segment("san", 1)],
            ports: vec![
                port("a", 1, "san", 1),
                port("a", 0, "lan", 2),
                port("b", 0, "lan", 3),
                port("b", 1, "san", 4),
                port("c", 0, "san", 5),
            ],
            ..NetworkSpec::default()
        }
    }

    #[test]
    fn frames_go_between_taps_of_one_bridge() {
        let wiring = Wiring::new(&spec()).unwrap();
        let pairs: Vec<(usize, usize)> =
            wiring.pairs.iter().map(|pair| (pair.from, pair.to)).collect();
        assert_eq!(pairs, [(0, 3), (0, 4), (1, 2), (2, 1), (3, 0), (3, 4), (4, 0), (4, 3)]);
        assert_eq!(wiring.link(wiring.pairs[1]), Some(link("a", "c")));
        assert_eq!(wiring.taps_of(&name("a")), [1, 0]);
        assert_eq!(
            wiring.plug(&[1, 4]),
            "link set dev tap1 master br-lan up\nlink set dev tap4 master br-san up\n"
        );
    }

    #[test]
    fn a_network_that_is_none_is_refused() {
        let mut twice = spec();
        twice.segments[1].bridge = twice.segments[0].bridge.clone();
        assert!(Wiring::new(&twice).unwrap_err().contains("br-lan"));
        let mut nowhere = spec();
        nowhere.segments.remove(1);
        assert!(Wiring::new(&nowhere).is_err());
        let mut no_bridge = spec();
        no_bridge.segments[0].bridge = None;
        assert!(Wiring::new(&no_bridge).is_err());
    }
}
