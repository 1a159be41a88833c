//! What guests say of the links that a fault works on, or no longer works on: they are asked, all at
//! once and one time, and what they measured is judged. Judging is pure.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use pando_api::network::Verified;
use pando_model::fault::{Distribution, Effect, Fault, Impairment};
use pando_model::network::{Link, ProbeResult, ProbeTarget};
use pando_model::{BranchId, Cluster};

use crate::network::{Way, witnesses};
use crate::operation::Cx;

/// How long guests are given to reach one another in spite of a partition: a hundred times what they
/// take when nothing is in the way.
const PARTITION_PATIENCE: Duration = Duration::from_millis(250);
/// The same over an impaired link, beside its delays: they answer, and no time is lost.
const IMPAIRED_PATIENCE: Duration = Duration::from_millis(500);
/// The same over a healed link: a guest that has lost sight of another asks for it once a second.
const HEALED_PATIENCE: Duration = Duration::from_secs(2);
/// The longest wait for a slow link's answers: whoever asked for the fault waits too.
const MOST_PATIENCE: Duration = Duration::from_secs(2);
/// Questions over a link that loses some.
const LOSSY_COUNT: u32 = 4;
/// How much earlier than its delay an answer may seem to come, by the guest's clock.
const CLOCK_ERROR_US: u64 = 500;

/// How guests ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// Questions to each address.
    count: u32,
    patience: Duration,
}

impl Question {
    /// Over a link that nothing gets through: once more than would be lost by chance.
    pub const PARTITIONED: Self = Self { count: 2, patience: PARTITION_PATIENCE };
    pub const HEALED: Self = Self { count: 1, patience: HEALED_PATIENCE };

    /// Over links that are worse there and perhaps back.
    pub fn impaired(impairment: &Impairment) -> Self {
        let there = impairment.latency_us.saturating_add(impairment.jitter_us.saturating_mul(3));
        let delays = Duration::from_micros(there.saturating_mul(2));
        let loses = impairment.loss.0 > 0 || impairment.corrupt.0 > 0;
        let (count, patience) = match loses {
            true => (LOSSY_COUNT, PARTITION_PATIENCE),
            false => (1, IMPAIRED_PATIENCE),
        };
        Self { count, patience: patience.saturating_add(delays).min(MOST_PATIENCE) }
    }
}

/// What came of asking over a way.
pub(super) struct Witnessed {
    pub way: Way,
    pub answered: Result<Heard, String>,
}

/// What was heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    sent: u32,
    received: u32,
    /// The fastest answer, in microseconds.
    rtt_us: Option<u64>,
}

impl Heard {
    fn of(results: impl Iterator<Item = ProbeResult>) -> Self {
        results.fold(Self::default(), |all, one| {
            let rtt = one.rtt.map(|rtt| rtt.min_us);
            Self {
                sent: all.sent + one.sent,
                received: all.received + one.received,
                rtt_us: all.rtt_us.into_iter().chain(rtt).min(),
            }
        })
    }
}

/// Lets every node at the beginning of a way ask the one at its end, all at once.
pub(super) async fn ask(
    cx: &Cx,
    cluster: &Cluster,
    host_id: &BranchId,
    ways: &[Way],
    question: Question,
) -> Vec<Witnessed> {
    let asked = witnesses(cluster, ways);
    let probes = asked.iter().map(async |(node, ways)| {
        let targets: Vec<ProbeTarget> =
            ways.iter().flat_map(|(_, targets)| targets.clone()).collect();
        let Question { count, patience } = question;
        let results = cx.engine.host.probe(host_id, node, &targets, count, patience).await;
        let mut results = match results {
            Ok(results) => results.into_iter(),
            Err(error) => {
                let error = error.to_string();
                let silent = |(way, _): &(Way, Vec<ProbeTarget>)| Witnessed {
                    way: way.clone(),
                    answered: Err(error.clone()),
                };
                return ways.iter().map(silent).collect::<Vec<_>>();
            }
        };
        let each = ways.iter().map(|(way, targets)| Witnessed {
            way: way.clone(),
            answered: Ok(Heard::of(results.by_ref().take(targets.len()))),
        });
        each.collect()
    });
    join_all(probes).await.into_iter().flatten().collect()
}

/// What is made of it: whether an effect was seen, and by what.
pub(super) type Verdict = (Verified, String);

/// Returns each way that was asked over, with what was heard; or why nothing can be said.
fn all_heard(witnessed: &[Witnessed]) -> Result<Vec<(&Way, Heard)>, Verdict> {
    let mut heard = Vec::with_capacity(witnessed.len());
    for one in witnessed {
        match &one.answered {
            Ok(own) => heard.push((&one.way, *own)),
            Err(error) => {
                let evidence = format!("{} was not probed: {error}", one.way);
                return Err((Verified::Unknown, evidence));
            }
        }
    }
    match heard.is_empty() {
        true => {
            let evidence = "no guest could be asked: no link of it begins at a node";
            Err((Verified::Unknown, evidence.to_owned()))
        }
        false => Ok(heard),
    }
}

/// Judges a partition of so many links; `met` says whether the switch dropped what a guest sent, `cut`
/// whether an earlier partition did before this one could.
pub(super) fn partitioned(
    links: usize,
    witnessed: &[Witnessed],
    met: impl Fn(&Link) -> bool,
    cut: impl Fn(&Link) -> bool,
) -> Verdict {
    let through = |one: &&Witnessed| matches!(one.answered, Ok(Heard { received: 1.., .. }));
    if let Some(through) = witnessed.iter().find(through) {
        return (Verified::No, format!("{} answers are still heard", through.way));
    }
    let heard = match all_heard(witnessed) {
        Ok(heard) => heard,
        Err(verdict) => return verdict,
    };
    let unmet = heard.iter().find(|(way, _)| !met(&way.link) && !cut(&way.link));
    if let Some((unmet, _)) = unmet {
        return (Verified::Unknown, format!("no frame from {unmet} met it"));
    }
    let mut evidence = format!(
        "probed {} of {links} links from the guests: no answer, and the switch dropped what they sent",
        heard.len()
    );
    if let Some((first, _)) = heard.iter().find(|(way, _)| cut(&way.link)) {
        // Writing to a string does not fail.
        let _ = write!(evidence, "; {first} was cut by an earlier fault already");
    }
    (Verified::Yes, evidence)
}

/// Judges an impairment; `met` says whether it decided on what a guest sent.
pub(super) fn impaired(
    fault: &Fault,
    impairment: &Impairment,
    witnessed: &[Witnessed],
    met: impl Fn(&Link) -> bool,
) -> Verdict {
    let heard = match all_heard(witnessed) {
        Ok(heard) => heard,
        Err(verdict) => return verdict,
    };
    if let Some((unmet, _)) = heard.iter().find(|(way, _)| !met(&way.link)) {
        return (Verified::Unknown, format!("no frame from {unmet} met it"));
    }
    let may_be_silent = impairment.loss.0 >= 1_000_000 || impairment.corrupt.0 >= 1_000_000;
    if heard.iter().all(|(_, own)| own.received == 0) && !may_be_silent {
        let silence = measured(&heard, Question::impaired(impairment).patience);
        let evidence =
            format!("it met what the guests sent, but what it does was not seen: {silence}");
        return (Verified::Unknown, evidence);
    }
    for (way, own) in &heard {
        if own.received > 0 && impairment.loss.0 >= 1_000_000 {
            return (Verified::No, format!("{way} answers in spite of it"));
        }
        let back = Link { from: way.link.to.clone(), to: way.link.from.clone() };
        let ways = 1 + u64::from(fault.links.contains(&back));
        let least_us = least_us(impairment).saturating_mul(ways);
        if own.rtt_us.is_some_and(|rtt| rtt + CLOCK_ERROR_US < least_us) {
            let (rtt, least) = (ms(own.rtt_us.unwrap_or(0)), ms(least_us));
            return (Verified::No, format!("{way} answers in {rtt}, not in {least}"));
        }
    }
    let (probed, links) = (heard.len(), fault.links.len());
    let patience = Question::impaired(impairment).patience;
    let evidence = format!(
        "probed {probed} of {links} links from the guests, and it met what they sent: {}",
        measured(&heard, patience)
    );
    (Verified::Yes, evidence)
}

/// Whether a fault may keep guests from answering over its links in time.
pub(super) fn may_silence(fault: &Fault) -> bool {
    match &fault.effect {
        Effect::Partition => true,
        Effect::Impair(impairment) => {
            let loses = impairment.loss.0 > 0 || impairment.corrupt.0 > 0;
            let is_slow = Question::impaired(impairment).patience >= HEALED_PATIENCE;
            loses || is_slow || impairment.rate_bps.is_some()
        }
    }
}

/// Judges links that the switch no longer does anything to.
pub(super) fn healed(witnessed: &[Witnessed]) -> Verdict {
    let heard = match all_heard(witnessed) {
        Ok(heard) => heard,
        Err((verified, why)) => return (verified, format!("the switch has forgotten it; {why}")),
    };
    let evidence = format!("the switch has forgotten it; {}", measured(&heard, HEALED_PATIENCE));
    match heard.iter().all(|(_, own)| own.received > 0) {
        true => (Verified::Yes, evidence),
        false => (Verified::Unknown, evidence),
    }
}

/// Returns the least delay that an impairment gives every frame on its way, in microseconds.
fn least_us(impairment: &Impairment) -> u64 {
    match impairment.distribution {
        _ if impairment.reorder.0 > 0 => 0,
        Distribution::Uniform => impairment.latency_us.saturating_sub(impairment.jitter_us),
        Distribution::Normal | Distribution::Pareto if impairment.jitter_us > 0 => 0,
        Distribution::Normal | Distribution::Pareto => impairment.latency_us,
    }
}

/// Returns what was measured, as a clause.
fn measured(heard: &[(&Way, Heard)], patience: Duration) -> String {
    let times = heard.iter().filter_map(|(way, own)| Some((own.rtt_us?, *way)));
    let (fastest, slowest) = (times.clone().min(), times.clone().max());
    let mut text = match (fastest, slowest) {
        (Some((rtt, way)), Some((_, other))) if way == other => {
            format!("{way} answers in {}", ms(rtt))
        }
        (Some((fast, _)), Some((slow, _))) => {
            format!("{} links answer in {} to {}", times.count(), ms(fast), ms(slow))
        }
        _ => String::new(),
    };
    let silent: Vec<&Way> =
        heard.iter().filter(|(_, own)| own.received == 0).map(|(way, _)| *way).collect();
    if let Some(first) = silent.first() {
        let more = match silent.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let before = if text.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{before}no answer over {first}{more} within {patience:?}");
    }
    let (sent, received) = heard
        .iter()
        .fold((0, 0), |(sent, received), (_, own)| (sent + own.sent, received + own.received));
    if received > 0 && received < sent {
        // Writing to a string does not fail.
        let _ = write!(text, "; {received} of {sent} questions answered");
    }
    text
}

fn ms(us: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "seconds at most")]
    let ms = us as f64 / 1000.0;
    format!("{ms:.1} ms")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pando_model::FaultId;
    use pando_model::fault::{Effect, PerMillion};
    use pando_model::network::End;

    use super::*;

    fn link(from: &str, to: &str) -> Link {
        let end = |name: &str| End::Node(name.parse().unwrap());
        Link { from: end(from), to: end(to) }
    }

    fn fault(impairment: &Impairment, links: &[Link]) -> Fault {
        Fault {
            id: FaultId::random(),
            label: None,
            effect: Effect::Impair(impairment.clone()),
            links: links.to_vec(),
            segment: None,
            seed: 1,
            ordinal: 0,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
        }
    }

    fn heard(link: &Link, sent: u32, rtts_us: &[u64]) -> Witnessed {
        let received = u32::try_from(rtts_us.len()).unwrap();
        let rtt_us = rtts_us.iter().copied().min();
        Witnessed {
            way: Way { link: link.clone(), segment: None },
            answered: Ok(Heard { sent, received, rtt_us }),
        }
    }

    #[test]
    fn a_delay_is_believed_when_it_was_measured() {
        let (there, back) = (link("a", "b"), link("b", "a"));
        let slow = Impairment { latency_us: 20_000, ..Impairment::default() };
        let one_way = fault(&slow, std::slice::from_ref(&there));
        let both = fault(&slow, &[there.clone(), back]);
        for (fault, rtt_us, expected) in [
            (&one_way, 20_300, Verified::Yes),
            (&one_way, 600, Verified::No),
            (&both, 40_300, Verified::Yes),
            (&both, 20_300, Verified::No),
        ] {
            let verdict = impaired(fault, &slow, &[heard(&there, 1, &[rtt_us])], |_| true);
            assert_eq!(verdict.0, expected, "{verdict:?}");
            assert!(verdict.1.contains(&ms(rtt_us)), "{verdict:?}");
        }
        let unmet = impaired(&one_way, &slow, &[heard(&there, 1, &[20_300])], |_| false);
        assert_eq!(unmet, (Verified::Unknown, "no frame from a>b met it".to_owned()));
        let jitter = Impairment { jitter_us: 20_000, ..slow };
        let early = impaired(&one_way, &jitter, &[heard(&there, 1, &[300])], |_| true);
        assert_eq!(early.0, Verified::Yes, "a frame may have no delay at all: {early:?}");
    }

    #[test]
    fn losses_are_told_and_a_total_one_lets_nothing_through() {
        let there = link("a", "b");
        let loses = |share| Impairment { loss: PerMillion(share), ..Impairment::default() };
        let judge = |share, rtts_us: &[u64]| {
            let impairment = loses(share);
            let fault = fault(&impairment, std::slice::from_ref(&there));
            impaired(&fault, &impairment, &[heard(&there, 4, rtts_us)], |_| true)
        };
        let half = judge(500_000, &[400, 500]);
        assert_eq!(half.0, Verified::Yes);
        assert!(half.1.ends_with("a>b answers in 0.4 ms; 2 of 4 questions answered"), "{half:?}");
        let none = judge(500_000, &[]);
        assert!(none.1.ends_with("no answer over a>b within 250ms"), "{none:?}");
        assert_eq!(judge(1_000_000, &[]).0, Verified::Yes);
        assert_eq!(judge(1_000_000, &[400]).0, Verified::No);
    }

    #[test]
    fn a_healing_is_believed_when_every_link_answers() {
        let (one, other) = (link("a", "b"), link("a", "c"));
        let all = healed(&[heard(&one, 1, &[400]), heard(&other, 1, &[900])]);
        assert_eq!(all.0, Verified::Yes);
        assert!(all.1.ends_with("2 links answer in 0.4 ms to 0.9 ms"), "{all:?}");
        let some = healed(&[heard(&one, 1, &[400]), heard(&other, 1, &[])]);
        assert_eq!(some.0, Verified::Unknown);
        assert!(some.1.contains("no answer over a>c within 2s"), "{some:?}");
        assert_eq!(healed(&[]).0, Verified::Unknown);
    }
}
