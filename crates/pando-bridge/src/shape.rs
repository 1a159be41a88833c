//! What `tc` is told, and what it dropped. Pure.
//!
//! A tap that impaired frames go out at has an HTB tree with a class for each tap that they come from
//! (`rules` marks them), and in each class a queue: `netem` where frames are to be delayed, lost or
//! changed, a plain one where only the rate is limited. Unmarked frames pass the tree by.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use pando_model::fault::{Distribution, Effect, Impairment, PerMillion};
use serde_json::Value;

use crate::limits::{
    DELAYED_FRAMES, FRAME_BYTES, MAX_RATE_BPS, RATE_BURST, RATE_BURST_BYTES, RATE_QUEUE,
    RATE_QUEUE_BYTES,
};
use crate::rules::Numbered;
use crate::wiring::{Pair, Wiring};

/// What happens to frames from each other tap.
pub type Shape = BTreeMap<usize, Impairment>;
/// What happens at each tap.
pub type Shapes = BTreeMap<usize, Shape>;

/// Number of the tree.
const TREE: &str = "1:";
/// The first number of queues.
const FIRST_QUEUE: usize = 0x100;

/// Returns the class of what comes from a tap.
pub fn class(from: usize) -> String {
    format!("1:{:x}", from + 1)
}

/// Returns what faults come to.
pub fn shapes(wiring: &Wiring, faults: &[Numbered]) -> Shapes {
    let mut shapes = Shapes::new();
    for pair in &wiring.pairs {
        let own = faults.iter().filter(|one| wiring.works_on(&one.fault, *pair));
        let impairments = own.filter_map(|one| match &one.fault.effect {
            Effect::Impair(impairment) => Some(impairment.clone()),
            Effect::Partition => None,
        });
        if let Some(all) = impairments.reduce(|one, other| both(&one, &other)) {
            shapes.entry(pair.to).or_default().insert(pair.from, all);
        }
    }
    shapes
}

/// Returns what two impairments of one link come to.
fn both(one: &Impairment, other: &Impairment) -> Impairment {
    let either = |a: PerMillion, b: PerMillion| {
        let through =
            u64::from(1_000_000 - a.0.min(1_000_000)) * u64::from(1_000_000 - b.0.min(1_000_000));
        PerMillion(1_000_000 - u32::try_from(through / 1_000_000).unwrap_or(0))
    };
    Impairment {
        latency_us: one.latency_us.saturating_add(other.latency_us),
        jitter_us: one.jitter_us.saturating_add(other.jitter_us),
        distribution: if one.jitter_us > 0 { one.distribution } else { other.distribution },
        loss: either(one.loss, other.loss),
        burst: one.burst.or(other.burst),
        duplicate: either(one.duplicate, other.duplicate),
        corrupt: either(one.corrupt, other.corrupt),
        reorder: either(one.reorder, other.reorder),
        rate_bps: match (one.rate_bps, other.rate_bps) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        },
    }
}

/// Returns the lines for `tc` that put a tree in the place of another one, of a tap.
pub fn replace(device: &str, former: Option<&Shape>, now: Option<&Shape>) -> String {
    let mut lines = String::new();
    if former == now {
        return lines;
    }
    // Writing to a string does not fail.
    if former.is_some() {
        let _ = writeln!(lines, "qdisc del dev {device} root");
    }
    let Some(now) = now else { return lines };
    let _ = writeln!(lines, "qdisc add dev {device} root handle {TREE} htb default 0");
    for (from, impairment) in now {
        let rate = impairment.rate_bps.unwrap_or(MAX_RATE_BPS).clamp(8, MAX_RATE_BPS);
        let burst = in_time(rate, RATE_BURST.as_millis()).max(RATE_BURST_BYTES);
        let (class, queue) = (class(*from), format!("{:x}:", FIRST_QUEUE + from));
        let _ = writeln!(
            lines,
            "class add dev {device} parent {TREE} classid {class} htb rate {rate}bit ceil {rate}bit \
             burst {burst} cburst {burst} quantum 1514"
        );
        let limit = in_time(rate, RATE_QUEUE.as_millis()).max(RATE_QUEUE_BYTES);
        let kind = match impairment.is_more_than_rate() {
            true => netem(impairment),
            false => format!("bfifo limit {}", limit.min(u64::from(u32::MAX))),
        };
        let _ = writeln!(lines, "qdisc add dev {device} parent {class} handle {queue} {kind}");
    }
    lines
}

/// Returns how many bytes go over a rate in so many milliseconds.
fn in_time(rate_bps: u64, ms: u128) -> u64 {
    u64::try_from(u128::from(rate_bps) * ms / 8000).unwrap_or(u64::MAX)
}

fn netem(impairment: &Impairment) -> String {
    let Impairment { latency_us, jitter_us, distribution, loss, burst, .. } = impairment;
    let mut text = format!("netem limit {}", delayed_frames(impairment));
    if *latency_us > 0 || *jitter_us > 0 {
        // Writing to a string does not fail.
        let _ = write!(text, " delay {latency_us}us");
    }
    if *jitter_us > 0 {
        let _ = write!(text, " {jitter_us}us");
        text.push_str(match distribution {
            Distribution::Uniform => "",
            Distribution::Normal => " distribution normal",
            Distribution::Pareto => " distribution pareto",
        });
    }
    match burst {
        Some(burst) if loss.0 > 0 && loss.0 < 1_000_000 => {
            let (mean, loss) = (f64::from(burst.mean_frames.max(1)), f64::from(loss.0) / 1e6);
            let ends = 1.0 / mean;
            let begins = (loss * ends / (1.0 - loss)).min(1.0);
            let _ = write!(text, " loss gemodel {:.4}% {:.4}%", begins * 100.0, ends * 100.0);
        }
        _ if loss.0 > 0 => {
            let _ = write!(text, " loss {}", percent(*loss));
        }
        _ => {}
    }
    for (word, share) in [
        ("duplicate", impairment.duplicate),
        ("corrupt", impairment.corrupt),
        ("reorder", impairment.reorder),
    ] {
        if share.0 > 0 {
            let _ = write!(text, " {word} {}", percent(share));
        }
    }
    text
}

/// Returns how many frames may wait for their delay: with a rate, those of its queue and those that it
/// lets through in the time of the delay.
fn delayed_frames(impairment: &Impairment) -> u64 {
    let Some(rate) = impairment.rate_bps else { return DELAYED_FRAMES };
    let delay = Duration::from_micros(impairment.latency_us.saturating_add(impairment.jitter_us));
    let bytes = in_time(rate, RATE_QUEUE.saturating_add(delay).as_millis()).max(RATE_QUEUE_BYTES);
    (bytes / FRAME_BYTES).min(DELAYED_FRAMES)
}

fn percent(PerMillion(share): PerMillion) -> String {
    format!("{}.{:04}%", share / 10_000, share % 10_000)
}

/// What a class has dropped and still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// From which tap to which.
    pub pair: Pair,
    /// Frames that it dropped.
    pub dropped: u64,
    /// Frames that wait in it.
    pub waiting: u64,
}

/// The arguments that make `tc` tell its queues.
pub const LIST: [&str; 4] = ["-s", "-j", "qdisc", "show"];

/// Returns what the queues of all classes say, of the answer of `tc` to [`LIST`].
pub fn queued(json: &str, wiring: &Wiring) -> Option<Vec<Queued>> {
    let answer: Value = serde_json::from_str(json).ok()?;
    let queue = |object: &Value| {
        let device = object.get("dev")?.as_str()?;
        let to = wiring.taps.iter().position(|tap| tap.device == device)?;
        let class = object.get("parent")?.as_str()?.strip_prefix(TREE)?;
        let from = usize::from_str_radix(class, 16).ok()?.checked_sub(1)?;
        let number = |key: &str| object.get(key)?.as_u64();
        let pair = Pair { from, to };
        Some(Queued { pair, dropped: number("drops")?, waiting: number("qlen")? })
    };
    Some(answer.as_array()?.iter().filter_map(queue).collect())
}

#[cfg(test)]
mod tests {
    use pando_model::fault::Burst;

    use super::*;
    use crate::wiring::tests::spec;

    fn shape(impairment: Impairment) -> Shape {
        BTreeMap::from([(11, impairment)])
    }

    #[test]
    fn a_rate_is_a_class_with_a_queue_of_a_fifth_of_a_second() {
        let shape = shape(Impairment { rate_bps: Some(8_000_000), ..Impairment::default() });
        assert_eq!(
            replace("tap1", None, Some(&shape)),
            "qdisc add dev tap1 root handle 1: htb default 0\n\
             class add dev tap1 parent 1: classid 1:c htb rate 8000000bit ceil 8000000bit burst \
             10000 cburst 10000 quantum 1514\n\
             qdisc add dev tap1 parent 1:c handle 10b: bfifo limit 200000\n"
        );
        assert_eq!(replace("tap1", Some(&shape), Some(&shape)), "");
        assert_eq!(replace("tap1", Some(&shape), None), "qdisc del dev tap1 root\n");
    }

    #[test]
    fn everything_else_is_the_queue_that_delays() {
        let impairment = Impairment {
            latency_us: 50_000,
            jitter_us: 2_500,
            distribution: Distribution::Normal,
            loss: PerMillion(100_000),
            burst: Some(Burst { mean_frames: 4 }),
            duplicate: PerMillion(12_345),
            corrupt: PerMillion(10_000),
            reorder: PerMillion(1),
            rate_bps: None,
        };
        assert_eq!(
            netem(&impairment),
            "netem limit 8192 delay 50000us 2500us distribution normal loss gemodel 2.7778% \
             25.0000% duplicate 1.2345% corrupt 1.0000% reorder 0.0001%"
        );
    }

    #[test]
    fn what_a_rate_and_a_delay_keep_waiting_follows_from_both() {
        let queue = |rate_bps, latency_us| {
            netem(&Impairment { rate_bps: Some(rate_bps), latency_us, ..Impairment::default() })
        };
        // A quarter of a second at a million bytes a second, in frames of 1514.
        assert_eq!(queue(8_000_000, 50_000), "netem limit 165 delay 50000us");
        assert_eq!(queue(64_000, 1_000), "netem limit 32 delay 1000us");
        assert_eq!(queue(10_000_000_000, 1_000), "netem limit 8192 delay 1000us");
    }

    #[test]
    fn impairments_of_one_link_add_up() {
        let slow = Impairment { latency_us: 10, rate_bps: Some(5), ..Impairment::default() };
        let lossy =
            Impairment { latency_us: 5, loss: PerMillion(500_000), ..Impairment::default() };
        let all = both(&both(&slow, &lossy), &lossy);
        assert_eq!((all.latency_us, all.rate_bps), (20, Some(5)));
        assert_eq!(all.loss, PerMillion(750_000));
    }

    #[test]
    fn queues_are_read_and_nonsense_is_not() {
        let wiring = Wiring::new(&spec()).unwrap();
        let text = r#"[{"kind":"htb","handle":"1:","dev":"tap1","root":true,"drops":0,"qlen":0},
            {"kind":"bfifo","handle":"102:","dev":"tap1","parent":"1:3","drops":4,"qlen":2}]"#;
        let pair = Pair { from: 2, to: 1 };
        assert_eq!(queued(text, &wiring), Some(vec![Queued { pair, dropped: 4, waiting: 2 }]));
        assert_eq!(queued("{}", &wiring), None);
    }
}
