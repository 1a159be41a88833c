//! What faults do to the frames of one link. Each frame passes the link's faults one after another:
//! partitions first, then impairments, whose delays add. An impairment decides in this order: is it
//! lost; is it delivered twice; and of each copy: does a bit change; does it wait for the rate; how
//! long is it under way, or does it skip that.
//!
//! A fault numbers the frames of the link (those of its segment, if it works in one only), whatever
//! becomes of them at other faults, and decides by those numbers alone (`dice`): no fault changes what
//! another decides. A burst of losses and a rate's
//! queue are what it carries from frame to frame, and a state file has them.

use std::time::Duration;

use pando_model::fault::{Burst, Effect, Fault, Impairment, PerMillion};
use pando_model::network::{DropReason, Link};

use crate::counts::Counts;
use crate::dice::{Dice, Purpose};
use crate::limits::{MAX_COPIES, MAX_DELAY, MIN_FRAME_BYTES, RATE_QUEUE, RATE_QUEUE_BYTES};

/// How far a fault has come on one link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Frames of the link since it began: the number of the next one.
    pub frames: u64,
    /// Of those, it gave up so many.
    pub dropped: u64,
    /// Whether a burst of losses goes on.
    pub in_burst: bool,
    /// When its rate has sent all that waits for it, by the switch's clock.
    pub free_at: Duration,
}

/// One fault on one link.
#[derive(Debug, Clone)]
pub struct LinkFault {
    /// Its place among the switch's faults.
    pub number: usize,
    /// How far it has come.
    pub progress: Progress,
    /// The only segment that it works in.
    segment: Option<usize>,
    effect: Effect,
    dice: Dice,
}

/// What goes on of a frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// Which copy of the frame it is: 0 is the frame itself.
    pub ordinal: u64,
    /// How long it waits.
    pub delay: Duration,
    /// Numbers that choose the bits to change.
    pub flips: Vec<u64>,
    /// Whether it skipped a delay.
    pub overtakes: bool,
}

impl LinkFault {
    /// Returns a fault that has decided on nothing yet; `segment` is the number of the only one that it
    /// works in.
    pub fn new(number: usize, fault: &Fault, segment: Option<usize>, link: &Link) -> Self {
        Self {
            number,
            progress: Progress::default(),
            segment,
            effect: fault.effect.clone(),
            dice: Dice::new(fault.seed, fault.ordinal, link),
        }
    }

    /// Whether nothing gets through.
    pub fn is_partition(&self) -> bool {
        matches!(self.effect, Effect::Partition)
    }

    /// Whether it decides on frames in a segment.
    pub fn works_in(&self, segment: usize) -> bool {
        self.segment.is_none_or(|own| own == segment)
    }

    /// Decides on the copies of the link's next frame; what goes on is appended to `on`.
    fn decide(&mut self, frame: &mut Passing<'_>, copies: &mut Vec<Copy>, on: &mut Vec<Copy>) {
        let Self { effect, dice, progress, .. } = self;
        let index = progress.frames;
        progress.frames += 1;
        let impairment = match effect {
            Effect::Impair(impairment) => impairment,
            Effect::Partition => {
                for _ in copies.drain(..) {
                    progress.dropped += 1;
                    frame.counts.drop(DropReason::Partition);
                }
                return;
            }
        };
        let in_burst = is_in_burst(impairment, *dice, index, &mut progress.in_burst);
        for copy in copies.drain(..) {
            let roll = Roll { dice: *dice, index, ordinal: copy.ordinal };
            if in_burst.unwrap_or_else(|| roll.happens(Purpose::Loss, impairment.loss)) {
                progress.dropped += 1;
                frame.counts.drop(DropReason::Loss);
                continue;
            }
            let twice = roll.happens(Purpose::Duplicate, impairment.duplicate);
            let second = if twice { frame.double(&copy) } else { None };
            for copy in std::iter::once(copy).chain(second) {
                match pass(impairment, *dice, index, frame, &mut progress.free_at, copy) {
                    Some(copy) => on.push(copy),
                    None => {
                        progress.dropped += 1;
                        frame.counts.drop(DropReason::RateLimit);
                    }
                }
            }
        }
    }
}

/// A frame on its way through a link's faults.
struct Passing<'a> {
    now: Duration,
    length: usize,
    /// How many copies were made, the frame itself included.
    copies: u64,
    counts: &'a mut Counts,
}

impl Passing<'_> {
    /// Returns another copy, if there may be one more.
    fn double(&mut self, copy: &Copy) -> Option<Copy> {
        let ordinal = self.copies;
        if ordinal >= MAX_COPIES {
            return None;
        }
        self.copies += 1;
        self.counts.send(self.length);
        self.counts.duplicated += 1;
        Some(Copy { ordinal, ..copy.clone() })
    }
}

/// Passes a frame of `length` bytes through faults of a link; what goes on of it is in `copies`
/// afterwards, in order. What does not is counted.
pub fn judge<'a>(
    faults: impl IntoIterator<Item = &'a mut LinkFault>,
    now: Duration,
    length: usize,
    copies: &mut Vec<Copy>,
    counts: &mut Counts,
) {
    copies.clear();
    copies.push(Copy::default());
    let mut frame = Passing { now, length, copies: 1, counts };
    let mut on = Vec::new();
    for fault in faults {
        fault.decide(&mut frame, copies, &mut on);
        std::mem::swap(copies, &mut on);
    }
}

/// The dice for one copy of one frame.
#[derive(Clone, Copy)]
struct Roll {
    dice: Dice,
    index: u64,
    ordinal: u64,
}

impl Roll {
    fn happens(self, purpose: Purpose, chance: PerMillion) -> bool {
        self.dice.happens(self.index, purpose, self.ordinal, chance)
    }
}

/// Returns whether the frame is part of a burst of losses; `None` if losses come one by one.
fn is_in_burst(
    impairment: &Impairment,
    dice: Dice,
    index: u64,
    in_burst: &mut bool,
) -> Option<bool> {
    let burst = impairment.burst.filter(|_| impairment.loss.0 > 0)?;
    let (begin, end) = burst_odds(burst, impairment.loss);
    let roll = dice.roll(index, Purpose::Loss, 0);
    *in_burst = if *in_burst { roll >= end } else { roll < begin };
    Some(*in_burst)
}

/// Returns how likely a burst begins at a frame, and ends at one, in 2^-64. In the long run, the
/// losses are as many as asked for and as many in a row. Where the losses are too many for bursts
/// that short, each frame between bursts is alone, and bursts are longer.
fn burst_odds(burst: Burst, loss: PerMillion) -> (u64, u64) {
    const ONE: u128 = u64::MAX as u128;
    let lost = u128::from(loss.0.min(1_000_000));
    let kept = 1_000_000 - lost;
    if kept == 0 {
        return (u64::MAX, 0);
    }
    let end = (ONE / u128::from(burst.mean_frames.max(1))).min(ONE * kept / lost.max(1));
    let begin = (end * lost / kept).min(ONE);
    (u64::try_from(begin).unwrap_or(u64::MAX), u64::try_from(end).unwrap_or(u64::MAX))
}

/// Returns what goes on of a copy that is not lost; `None` if its rate's queue is full.
fn pass(
    impairment: &Impairment,
    dice: Dice,
    index: u64,
    frame: &Passing<'_>,
    free_at: &mut Duration,
    mut copy: Copy,
) -> Option<Copy> {
    let (now, ordinal) = (frame.now, copy.ordinal);
    let roll = Roll { dice, index, ordinal };
    if roll.happens(Purpose::Corrupt, impairment.corrupt) {
        copy.flips.push(dice.roll(index, Purpose::Bit, ordinal));
    }
    if let Some(rate) = impairment.rate_bps.filter(|rate| *rate > 0) {
        let begin = (*free_at).max(now);
        if begin - now > RATE_QUEUE.max(time_to_send(RATE_QUEUE_BYTES, rate)) {
            return None;
        }
        *free_at = begin + time_to_send(frame.length as u64, rate);
        copy.delay += *free_at - now;
    }
    if impairment.latency_us > 0 || impairment.jitter_us > 0 {
        if roll.happens(Purpose::Reorder, impairment.reorder) {
            copy.overtakes = true;
        } else {
            let around = (impairment.latency_us, impairment.jitter_us);
            copy.delay += dice.delay(index, ordinal, around, impairment.distribution);
        }
    }
    copy.delay = copy.delay.min(MAX_DELAY);
    Some(copy)
}

/// Returns how long so many bytes take at a rate in bits a second.
fn time_to_send(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(MAX_DELAY)
}

/// Changes one bit of a frame's payload. Returns whether it has one.
pub fn flip(frame: &mut [u8], number: u64) -> bool {
    let payload = frame.get_mut(MIN_FRAME_BYTES..).unwrap_or_default();
    let bits = payload.len() as u64 * 8;
    if bits == 0 {
        return false;
    }
    let bit = number % bits;
    if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|place| payload.get_mut(place)) {
        *byte ^= 1 << (bit % 8);
    }
    true
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pando_model::fault::Distribution;
    use pando_model::network::End;

    use super::*;

    fn fault(impairment: Impairment) -> LinkFault {
        let node = |name: &str| End::Node(name.parse().unwrap());
        let link = Link { from: node("a"), to: node("b") };
        let fault = Fault {
            id: "ft_000000000000".parse().unwrap(),
            label: None,
            effect: Effect::Impair(impairment),
            links: vec![link.clone()],
            segment: None,
            seed: 42,
            ordinal: 0,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
        };
        LinkFault::new(0, &fault, None, &link)
    }

    fn run(faults: &mut [LinkFault], frames: u64) -> (Vec<Vec<Copy>>, Counts) {
        let (mut counts, mut copies) = (Counts::default(), Vec::new());
        let all = (0..frames).map(|_| {
            counts.send(1000);
            judge(faults.iter_mut(), Duration::ZERO, 1000, &mut copies, &mut counts);
            counts.delivered += copies.len() as u64;
            copies.clone()
        });
        let all = all.collect();
        assert!(counts.balance());
        (all, counts)
    }

    /// 99 of 100 samples of a binomial distribution are within 2.576 deviations of its mean.
    fn within_binomial(count: u64, of: u64, chance: f64) -> bool {
        let mean = of as f64 * chance;
        (count as f64 - mean).abs() <= 2.576 * (mean * (1.0 - chance)).sqrt()
    }

    #[test]
    fn a_tenth_of_ten_thousand_is_lost_and_the_same_ones_again() {
        let impairment = Impairment { loss: PerMillion(100_000), ..Impairment::default() };
        let (first, counts) = run(&mut [fault(impairment.clone())], 10_000);
        assert!(within_binomial(counts.dropped[1], 10_000, 0.1), "{}", counts.dropped[1]);
        assert_eq!(run(&mut [fault(impairment)], 10_000).0, first);
    }

    #[test]
    fn bursts_have_the_length_and_the_losses_that_were_asked_for() {
        for (loss, mean_frames, length) in [(0.1, 5, 5.0), (0.02, 10, 10.0), (0.9, 1, 9.0)] {
            let impairment = Impairment {
                loss: PerMillion((loss * 1e6) as u32),
                burst: Some(Burst { mean_frames }),
                ..Impairment::default()
            };
            let (all, counts) = run(&mut [fault(impairment)], 400_000);
            let share = counts.dropped[1] as f64 / 400_000.0;
            assert!((share - loss).abs() < loss * 0.05, "{share} for {loss}");
            let bursts = all.windows(2).filter(|two| !two[0].is_empty() && two[1].is_empty());
            let mean = counts.dropped[1] as f64 / bursts.count() as f64;
            assert!((mean - length).abs() < length * 0.05, "{mean} for {length}");
        }
    }

    #[test]
    fn duplicates_and_changed_bits_are_as_many_as_asked_for() {
        let impairment = Impairment {
            duplicate: PerMillion(50_000),
            corrupt: PerMillion(20_000),
            ..Impairment::default()
        };
        let (all, counts) = run(&mut [fault(impairment)], 10_000);
        assert!(within_binomial(counts.duplicated, 10_000, 0.05), "{}", counts.duplicated);
        assert_eq!(counts.sent, 10_000 + counts.duplicated);
        let changed = all.iter().flatten().filter(|copy| !copy.flips.is_empty()).count() as u64;
        assert!(within_binomial(changed, counts.sent, 0.02), "{changed}");
    }

    #[test]
    fn delays_of_several_faults_add_and_overtaking_skips_one() {
        let latency = |latency_us, reorder| {
            let reorder = PerMillion(reorder);
            fault(Impairment { latency_us, reorder, ..Impairment::default() })
        };
        let (all, _) = run(&mut [latency(20, 0), latency(3, 0)], 1);
        assert_eq!(all[0][0].delay, Duration::from_micros(23));
        let (all, _) = run(&mut [latency(20, 0), latency(3, 1_000_000)], 1);
        assert_eq!((all[0][0].delay, all[0][0].overtakes), (Duration::from_micros(20), true));
    }

    #[test]
    fn a_rate_sends_one_frame_after_another_and_its_queue_is_bounded() {
        // A thousand bytes take a millisecond.
        let impairment = Impairment { rate_bps: Some(8_000_000), ..Impairment::default() };
        let (all, counts) = run(&mut [fault(impairment)], 1000);
        assert_eq!(all[0][0].delay, Duration::from_millis(1));
        assert_eq!(all[100][0].delay, Duration::from_millis(101));
        assert_eq!(counts.delivered, 201);
        assert_eq!(counts.dropped[3], 799);
        let slow = Impairment { rate_bps: Some(1), ..Impairment::default() };
        let (_, counts) = run(&mut [fault(slow)], 10);
        assert!(counts.delivered >= 2, "a slow link has a queue too");
    }

    #[test]
    fn faults_without_effect_do_nothing() {
        let nothing = Impairment {
            burst: Some(Burst { mean_frames: 0 }),
            distribution: Distribution::Pareto,
            reorder: PerMillion(1_000_000),
            rate_bps: Some(0),
            ..Impairment::default()
        };
        let (all, _) = run(&mut [fault(nothing)], 100);
        assert!(all.into_iter().all(|copies| copies == [Copy::default()]));
    }

    #[test]
    fn copies_of_copies_are_bounded() {
        let double = Impairment { duplicate: PerMillion(1_000_000), ..Impairment::default() };
        let mut faults: Vec<_> = (0..20).map(|_| fault(double.clone())).collect();
        let (all, _) = run(&mut faults, 2);
        assert!(all[0].len() as u64 == MAX_COPIES, "{}", all[0].len());
    }

    #[test]
    fn one_bit_of_the_payload_changes() {
        for number in [0, 7, 8, 48 * 8 - 1, 48 * 8, u64::MAX] {
            let mut frame = [0u8; 14 + 48];
            assert!(flip(&mut frame, number));
            assert_eq!(frame[..14], [0; 14]);
            assert_eq!(frame.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        }
        assert!(!flip(&mut [0; 14], 3));
    }
}
