//! Measures the way to other addresses: asks all of them at once, and takes the time until each
//! answers. No child processes, and nothing that stays: the neighbour table is left to the kernel.
//!
//! A target is asked again as soon as it has answered, or, while it does not, at even intervals, so
//! that a network that works is measured in its own time and one that does not in the time allowed.

mod messages;
mod sockets;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use pando_model::network::{ProbeMethod, ProbeResult, ProbeTarget, RoundTrips};
use pando_wire::guest::{Answer, Refusal, RefusalKind, Reply};

use self::messages::{Heard, Mark};
use self::sockets::Sockets;
use crate::limits::{MAX_PROBE_COUNT, MAX_PROBE_TARGETS, MAX_PROBE_TIMEOUT};

/// Asks each target `count` times and waits for the answers for at most `timeout_ms`.
pub fn measure(targets: Vec<ProbeTarget>, count: u32, timeout_ms: u64) -> Answer {
    if targets.len() > MAX_PROBE_TARGETS || count > MAX_PROBE_COUNT {
        let message = format!(
            "a probe has at most {MAX_PROBE_TARGETS} targets and {MAX_PROBE_COUNT} questions to each"
        );
        return Err(Refusal::new(RefusalKind::Limit, message));
    }
    let timeout = Duration::from_millis(timeout_ms).min(MAX_PROBE_TIMEOUT);
    let object = |error: std::io::Error| Refusal::from_io("the probe's sockets", &error);
    let mark = Mark::random().map_err(|error| Refusal::from_io("random bytes", &error))?;
    let mut sockets = Sockets::open(&targets).map_err(object)?;
    let asked = targets.into_iter().map(|target| Asked::new(target, count)).collect();
    let mut probe = Probe { asked, count, mark, interval: timeout / (2 * count.max(1)) };
    let end = Instant::now() + timeout;
    loop {
        let now = Instant::now();
        let next = probe.ask(&mut sockets, now).min(end);
        if now >= end || probe.is_over() {
            break;
        }
        for (heard, at) in sockets.wait(next).map_err(object)? {
            probe.hear(&heard, at);
        }
    }
    Ok(Reply::Probed(probe.asked.into_iter().map(Asked::result).collect()))
}

struct Probe {
    asked: Vec<Asked>,
    count: u32,
    mark: Mark,
    interval: Duration,
}

impl Probe {
    /// Asks whoever is to be asked again; returns when the next one is.
    fn ask(&mut self, sockets: &mut Sockets, now: Instant) -> Instant {
        let mut next = now + MAX_PROBE_TIMEOUT;
        for (index, asked) in self.asked.iter_mut().enumerate() {
            if asked.rounds.len() >= self.count as usize {
                continue;
            }
            let due = asked.due(self.interval).unwrap_or(now);
            if due > now {
                next = next.min(due);
                continue;
            }
            let sequence = sequence(index, asked.rounds.len(), self.count);
            // Before it is sent: a busy machine may not go on until long after.
            asked.rounds.push(Round { sent: Instant::now(), took: None });
            // Where there is no way there is no answer either.
            let _ = sockets.send(&asked.target, &self.mark, sequence);
            next = next.min(now + self.interval);
        }
        next
    }

    fn hear(&mut self, heard: &Heard, at: Instant) {
        match heard {
            Heard::Echo { from, mark, sequence } if *mark == self.mark => {
                let (index, round) = place(*sequence, self.count);
                if let Some(asked) = self.asked.get_mut(index)
                    && asked.target.method == ProbeMethod::Icmp
                    && asked.target.address == *from
                    && let Some(round) = asked.rounds.get_mut(round)
                {
                    round.answered(at);
                }
            }
            Heard::Echo { .. } => {}
            Heard::Neighbour { address } => {
                for asked in self.asked.iter_mut().filter(|asked| asked.is_neighbour(*address)) {
                    // It does not say which question it answers: the first that waits.
                    if let Some(round) = asked.rounds.iter_mut().find(|round| round.took.is_none())
                    {
                        round.answered(at);
                    }
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.asked.iter().all(|asked| {
            asked.rounds.len() >= self.count as usize
                && asked.rounds.iter().all(|round| round.took.is_some())
        })
    }
}

/// A number that tells which target was asked, and when; limits keep it below 2¹⁶.
fn sequence(index: usize, round: usize, count: u32) -> u16 {
    u16::try_from(index * count as usize + round).unwrap_or(u16::MAX)
}

fn place(sequence: u16, count: u32) -> (usize, usize) {
    let count = (count as usize).max(1);
    (usize::from(sequence) / count, usize::from(sequence) % count)
}

/// One target and what came of it.
struct Asked {
    target: ProbeTarget,
    rounds: Vec<Round>,
}

struct Round {
    sent: Instant,
    took: Option<Duration>,
}

impl Round {
    fn answered(&mut self, at: Instant) {
        self.took.get_or_insert(at.saturating_duration_since(self.sent));
    }
}

impl Asked {
    fn new(target: ProbeTarget, count: u32) -> Self {
        Self { target, rounds: Vec::with_capacity(count as usize) }
    }

    /// When it is to be asked again; `None` means at once.
    fn due(&self, interval: Duration) -> Option<Instant> {
        let last = self.rounds.last()?;
        last.took.is_none().then(|| last.sent + interval)
    }

    fn is_neighbour(&self, address: IpAddr) -> bool {
        self.target.method == ProbeMethod::Arp && self.target.address == address
    }

    fn result(self) -> ProbeResult {
        let times: Vec<Duration> = self.rounds.iter().filter_map(|round| round.took).collect();
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let received = u32::try_from(times.len()).unwrap_or(u32::MAX);
        let sum: Duration = times.iter().sum();
        let rtt = match (times.iter().min(), times.iter().max()) {
            (Some(min), Some(max)) => Some(RoundTrips {
                min_us: us(*min),
                avg_us: us(sum / received.max(1)),
                max_us: us(*max),
            }),
            _ => None,
        };
        let sent = u32::try_from(self.rounds.len()).unwrap_or(u32::MAX);
        ProbeResult { target: self.target, sent, received, rtt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str, method: ProbeMethod) -> ProbeTarget {
        ProbeTarget { name: address.to_owned(), address: address.parse().unwrap(), method }
    }

    fn probed(targets: Vec<ProbeTarget>, count: u32, timeout_ms: u64) -> Vec<ProbeResult> {
        match measure(targets, count, timeout_ms) {
            Ok(Reply::Probed(results)) => results,
            other => panic!("{other:?}"),
        }
    }

    /// Whether this process may open raw sockets; in a guest it may.
    fn may() -> bool {
        match Sockets::open(&[target("127.0.0.1", ProbeMethod::Icmp)]) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
                false
            }
        }
    }

    #[test]
    fn this_machine_answers_itself_over_both_protocols() {
        if !may() {
            return;
        }
        let targets = ["127.0.0.1", "::1", "127.0.0.2"].map(|one| target(one, ProbeMethod::Icmp));
        let started = Instant::now();
        for result in probed(targets.to_vec(), 3, 10_000) {
            assert_eq!((result.sent, result.received), (3, 3), "{result:?}");
            let rtt = result.rtt.unwrap();
            assert!(rtt.min_us <= rtt.avg_us && rtt.avg_us <= rtt.max_us, "{rtt:?}");
        }
        assert!(started.elapsed() < Duration::from_secs(5), "it waits for nothing");
    }

    #[test]
    fn silence_costs_the_timeout_and_no_more() {
        if !may() {
            return;
        }
        let started = Instant::now();
        // No interface is beside it: it is set aside for no use.
        let results = probed(vec![target("240.0.0.1", ProbeMethod::Arp)], 2, 200);
        assert_eq!((results[0].sent, results[0].received, results[0].rtt), (2, 0, None));
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn too_much_at_once_is_refused() {
        let targets = vec![target("127.0.0.1", ProbeMethod::Icmp); MAX_PROBE_TARGETS + 1];
        for (targets, count) in [(targets, 1), (Vec::new(), MAX_PROBE_COUNT + 1)] {
            let refusal = measure(targets, count, 1).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Limit);
        }
    }

    #[test]
    fn every_question_has_a_number_of_its_own() {
        let count = MAX_PROBE_COUNT;
        let (last, round) = (MAX_PROBE_TARGETS - 1, count as usize - 1);
        assert_eq!(place(sequence(last, round, count), count), (last, round));
        assert!(sequence(last, round, count) < u16::MAX);
    }

    #[test]
    fn an_answer_counts_once_and_for_its_own_question() {
        let mark = Mark::random().unwrap();
        let now = Instant::now();
        let mut asked = Asked::new(target("10.0.0.1", ProbeMethod::Icmp), 2);
        asked.rounds.extend([1, 2].map(|_| Round { sent: now, took: None }));
        let mut probe =
            Probe { asked: vec![asked], count: 2, mark, interval: Duration::from_secs(1) };
        let mut hear = |from: &str, mark, sequence| {
            probe.hear(&Heard::Echo { from: from.parse().unwrap(), mark, sequence }, now);
            probe.asked[0].rounds.iter().filter(|round| round.took.is_some()).count()
        };
        assert_eq!(hear("10.0.0.2", mark, 0), 0, "somebody else");
        assert_eq!(hear("10.0.0.1", Mark::random().unwrap(), 0), 0, "another probe");
        assert_eq!(hear("10.0.0.1", mark, 2), 0, "a question that was not asked");
        assert_eq!(hear("10.0.0.1", mark, 1), 1);
        assert_eq!(hear("10.0.0.1", mark, 1), 1, "twice");
        assert_eq!(hear("10.0.0.1", mark, 0), 2);
        assert!(probe.is_over());
    }
}
