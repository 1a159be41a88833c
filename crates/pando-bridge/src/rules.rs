//! What `nft` is told, and what it counted. Pure.
//!
//! The `bridge` family sees every frame between two taps, whatever protocol it is of, once for each
//! tap that it goes out at. A map leads it to the chain of its pair, which counts it, drops it for a
//! partition, or marks it for the class of traffic control that impairs what its sender sends:
//!
//! ```text
//!   sTAP_TAP   frames of a pair                 fN_TAP_TAP  those since fault N began
//!   pTAP_TAP   those that partitions dropped    dN_TAP_TAP  those that fault N dropped
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use pando_model::fault::{Effect, Fault};
use serde_json::Value;

use crate::shape;
use crate::wiring::{Pair, Wiring};

/// The table, of the family `bridge`.
const TABLE: &str = "bridge pando";

/// What a counter says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was counted, by name of the counter.
pub type Counters = BTreeMap<String, Counted>;

/// A fault under a number of its own, which names its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// The number.
    pub number: u32,
    /// The fault.
    pub fault: Fault,
}

/// Returns the name of a counter of a pair.
pub fn pair_counter(kind: char, pair: Pair) -> String {
    format!("{kind}{}_{}", pair.from, pair.to)
}

/// Returns the name of a fault's counter of a pair.
pub fn fault_counter(kind: char, number: u32, pair: Pair) -> String {
    format!("{kind}{number}_{}_{}", pair.from, pair.to)
}

fn chain(pair: Pair) -> String {
    pair_counter('l', pair)
}

/// Returns the text that makes the table, in which nothing is wrong yet.
pub fn make(wiring: &Wiring) -> String {
    let mut text = format!("table {TABLE} {{\n");
    for pair in &wiring.pairs {
        let (sent, dropped) = (pair_counter('s', *pair), pair_counter('p', *pair));
        // Writing to a string does not fail.
        let _ = writeln!(text, "counter {sent} {{ }}\ncounter {dropped} {{ }}");
        let _ = writeln!(text, "chain {} {{\ncounter name {sent}\n}}", chain(*pair));
    }
    text.push_str("map links {\ntype ifname . ifname : verdict\n");
    let device = |tap: usize| wiring.taps.get(tap).map_or("", |tap| tap.device.as_str());
    let element = |pair: &Pair| {
        format!("\"{}\" . \"{}\" : jump {}", device(pair.from), device(pair.to), chain(*pair))
    };
    let elements: Vec<String> = wiring.pairs.iter().map(element).collect();
    if !elements.is_empty() {
        let _ = writeln!(text, "elements = {{ {} }}", elements.join(",\n"));
    }
    text.push_str("}\nchain forward {\ntype filter hook forward priority 0; policy accept;\n");
    text.push_str("iifname . oifname vmap @links\n}\n}\n");
    text
}

/// The rules of each pair that faults work on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    pairs: BTreeMap<Pair, Vec<String>>,
    counters: BTreeSet<String>,
}

impl Rules {
    /// Returns the rules of these faults.
    pub fn of(wiring: &Wiring, faults: &[Numbered]) -> Self {
        let mut rules = Self::default();
        for pair in &wiring.pairs {
            let own: Vec<&Numbered> =
                faults.iter().filter(|one| wiring.works_on(&one.fault, *pair)).collect();
            if !own.is_empty() {
                rules.add(*pair, &own);
            }
        }
        rules
    }

    fn add(&mut self, pair: Pair, faults: &[&Numbered]) {
        let mut lines = vec![format!("counter name {}", pair_counter('s', pair))];
        for one in faults {
            let seen = fault_counter('f', one.number, pair);
            lines.push(format!("counter name {seen}"));
            self.counters.insert(seen);
        }
        let mut partitions = faults.iter().filter(|one| one.fault.effect == Effect::Partition);
        if let Some(first) = partitions.next() {
            let (all, own) = (pair_counter('p', pair), fault_counter('d', first.number, pair));
            lines.push(format!("counter name {all} counter name {own} drop"));
            self.counters.insert(own);
        } else {
            lines.push(format!("meta priority set {}", shape::class(pair.from)));
        }
        self.pairs.insert(pair, lines);
    }

    /// Returns the text that puts these rules in the place of others, all at once: no frame is
    /// forwarded by a mixture.
    pub fn replace(&self, former: &Self) -> String {
        let mut text = String::new();
        for counter in self.counters.difference(&former.counters) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "add counter {TABLE} {counter}");
        }
        let pairs: BTreeSet<&Pair> = self.pairs.keys().chain(former.pairs.keys()).collect();
        for pair in pairs {
            let (now, before) = (self.pairs.get(pair), former.pairs.get(pair));
            if now == before {
                continue;
            }
            let chain = chain(*pair);
            let _ = writeln!(text, "flush chain {TABLE} {chain}");
            let unharmed = vec![format!("counter name {}", pair_counter('s', *pair))];
            for line in now.unwrap_or(&unharmed) {
                let _ = writeln!(text, "add rule {TABLE} {chain} {line}");
            }
        }
        for counter in former.counters.difference(&self.counters) {
            let _ = writeln!(text, "delete counter {TABLE} {counter}");
        }
        text
    }
}

/// The arguments that make `nft` tell its counters.
pub const LIST: [&str; 6] = ["-j", "list", "counters", "table", "bridge", "pando"];

/// Returns what `nft` counted, of its answer to [`LIST`].
pub fn counters(json: &str) -> Option<Counters> {
    let answer: Value = serde_json::from_str(json).ok()?;
    let objects = answer.get("nftables")?.as_array()?;
    let counter = |object: &Value| {
        let counter = object.get("counter")?;
        let number = |key: &str| counter.get(key)?.as_u64();
        let counted = Counted { frames: number("packets")?, bytes: number("bytes")? };
        Some((counter.get("name")?.as_str()?.to_owned(), counted))
    };
    Some(objects.iter().filter_map(counter).collect())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pando_model::FaultId;
    use pando_model::fault::Impairment;
    use pando_model::network::Link;

    use super::*;
    use crate::wiring::tests::{link, spec};

    fn numbered(number: u32, effect: Effect, links: &[Link]) -> Numbered {
        let fault = Fault {
            id: FaultId::random(),
            label: None,
            effect,
            links: links.to_vec(),
            segment: None,
            seed: 1,
            ordinal: 0,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
        };
        Numbered { number, fault }
    }

    #[test]
    fn a_partition_drops_on_every_pair_of_its_link_and_on_no_other() {
        let wiring = Wiring::new(&spec()).unwrap();
        let rules = Rules::of(&wiring, &[numbered(3, Effect::Partition, &[link("a", "b")])]);
        let text = rules.replace(&Rules::default());
        assert_eq!(
            text,
            "add counter bridge pando d3_0_3\nadd counter bridge pando d3_1_2\n\
             add counter bridge pando f3_0_3\nadd counter bridge pando f3_1_2\n\
             flush chain bridge pando l0_3\n\
             add rule bridge pando l0_3 counter name s0_3\n\
             add rule bridge pando l0_3 counter name f3_0_3\n\
             add rule bridge pando l0_3 counter name p0_3 counter name d3_0_3 drop\n\
             flush chain bridge pando l1_2\n\
             add rule bridge pando l1_2 counter name s1_2\n\
             add rule bridge pando l1_2 counter name f3_1_2\n\
             add rule bridge pando l1_2 counter name p1_2 counter name d3_1_2 drop\n"
        );
        let healed = Rules::default().replace(&rules);
        assert!(healed.contains("flush chain bridge pando l0_3\n"), "{healed}");
        assert!(healed.contains("delete counter bridge pando d3_0_3\n"), "{healed}");
        assert!(!healed.contains("drop"), "{healed}");
    }

    #[test]
    fn a_fault_of_one_segment_is_on_its_pairs_only() {
        let wiring = Wiring::new(&spec()).unwrap();
        let mut cut = numbered(3, Effect::Partition, &[link("a", "b")]);
        cut.fault.segment = Some(wiring.segments[wiring.taps[3].bridge].clone());
        let text = Rules::of(&wiring, &[cut]).replace(&Rules::default());
        assert!(text.contains("l0_3 "), "{text}");
        assert!(!text.contains("l1_2 "), "{text}");
    }

    #[test]
    fn a_fault_that_stays_is_left_alone() {
        let wiring = Wiring::new(&spec()).unwrap();
        let stays = numbered(0, Effect::Partition, &[link("a", "c")]);
        let comes = numbered(1, Effect::Impair(Impairment::default()), &[link("b", "a")]);
        let before = Rules::of(&wiring, std::slice::from_ref(&stays));
        let text = Rules::of(&wiring, &[stays, comes]).replace(&before);
        assert!(!text.contains("l0_4"), "{text}");
        assert!(text.contains("add rule bridge pando l2_1 meta priority set 1:3\n"), "{text}");
        assert_eq!(before.replace(&before), "");
    }

    #[test]
    fn counters_are_read_and_nonsense_is_not() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"counter": {"family":
            "bridge", "name": "s0_1", "table": "pando", "handle": 3, "packets": 7, "bytes": 9}}]}"#;
        let expected = Counters::from([("s0_1".to_owned(), Counted { frames: 7, bytes: 9 })]);
        assert_eq!(counters(text), Some(expected));
        assert_eq!(counters("{}"), None);
        assert_eq!(counters("no"), None);
    }
}
