//! What faults decide by: numbers that look random and are a pure function of the fault's seed, its
//! number among the faults of that seed, the link and the number of the frame. A fault's id has no
//! part in it: the same fault, made anew in another branch, decides the same.
//!
//! The first three are hashed once into a key with BLAKE3, so that neighbouring seeds or similar
//! names have nothing in common. Each decision then mixes key, frame and purpose with two rounds of
//! SplitMix64's finalizer (Stafford's variant 13, which passes BigCrush as a counter-based
//! generator): a few nanoseconds, no state to share or save, and, because each round is a bijection,
//! no frame numbers that fall together. Only integers and IEEE square roots are used, so that every
//! host decides the same.

use std::time::Duration;

use pando_model::fault::{Distribution, PerMillion};
use pando_model::network::{End, Link};

use crate::limits::MAX_DELAY;

const MILLION: u32 = 1_000_000;

/// What a number is for: each purpose has numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Whether it is lost.
    Loss = 1,
    /// Whether it is delivered twice.
    Duplicate,
    /// Whether a bit changes.
    Corrupt,
    /// Which bit.
    Bit,
    /// Whether it skips the delay.
    Reorder,
    /// How long it is delayed.
    Delay,
    /// The same, further.
    Delay2,
    /// The same, further.
    Delay3,
}

/// Room for the purposes of one copy.
const PURPOSES: u64 = 16;

/// The dice of one fault on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dice {
    keys: [u64; 2],
}

impl Dice {
    /// Returns the dice of a fault on this link, by its seed and its number among those of that seed.
    pub fn new(seed: u64, ordinal: u32, link: &Link) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("pando 2026-11 decisions of a fault");
        hasher.update(&seed.to_le_bytes()).update(&ordinal.to_le_bytes());
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        for end in [&link.from, &link.to] {
            match end {
                End::Node(name) => text(name.as_str()),
                // No name is empty.
                End::Gateway => text(""),
            }
        }
        let mut keys = [[0; 8]; 2];
        hasher.finalize_xof().fill(keys.as_flattened_mut());
        Self { keys: keys.map(u64::from_le_bytes) }
    }

    /// Returns the number for a copy of frame `index` and a purpose.
    pub fn roll(self, index: u64, purpose: Purpose, copy: u64) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let purpose = (purpose as u64 + PURPOSES * copy).wrapping_mul(GOLDEN);
        mix(mix(index ^ self.keys[0]).wrapping_add(purpose) ^ self.keys[1])
    }

    /// Returns whether something of this probability happens.
    pub fn happens(self, index: u64, purpose: Purpose, copy: u64, chance: PerMillion) -> bool {
        chance.0 > 0 && below(self.roll(index, purpose, copy), chance)
    }

    /// Returns a delay around `latency`.
    pub fn delay(
        self,
        index: u64,
        copy: u64,
        (latency_us, jitter_us): (u64, u64),
        distribution: Distribution,
    ) -> Duration {
        let latency = i128::from(latency_us) * 1000;
        let jitter = i128::from(jitter_us) * 1000;
        let roll = |purpose| self.roll(index, purpose, copy);
        let around = match distribution {
            _ if jitter == 0 => 0,
            Distribution::Uniform => scale(jitter, centred(roll(Purpose::Delay))),
            Distribution::Normal => {
                let numbers = [Purpose::Delay, Purpose::Delay2, Purpose::Delay3].map(roll);
                scale(jitter, normal(numbers))
            }
            Distribution::Pareto => scale(jitter, pareto(roll(Purpose::Delay))),
        };
        let nanos = (latency + around).clamp(0, MAX_DELAY.as_nanos().cast_signed());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }
}

/// SplitMix64's finalizer with Stafford's constants 13.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether a number, as a fraction of 2^64, is below a probability.
pub fn below(number: u64, chance: PerMillion) -> bool {
    u128::from(number) * u128::from(MILLION) < u128::from(chance.0) << 64
}

/// `amount` times a factor in 2^-32.
fn scale(amount: i128, factor: i128) -> i128 {
    amount.saturating_mul(factor) >> 32
}

/// Returns a number evenly in [-1, 1), in 2^-32.
fn centred(number: u64) -> i128 {
    i128::from(number >> 31) - (1 << 32)
}

/// Returns a number that is normally distributed with deviation 1, in 2^-32: the sum of twelve even
/// ones (Irwin–Hall), within half a per cent of the real one up to three deviations and never beyond
/// six.
fn normal(numbers: [u64; 3]) -> i128 {
    let parts = numbers.into_iter().flat_map(u64::to_le_bytes);
    let parts: Vec<u8> = parts.collect();
    let sum: i128 =
        parts.as_chunks::<2>().0.iter().map(|part| i128::from(u16::from_le_bytes(*part))).sum();
    // Twelve times the mean of a part; a part's deviation times the root of twelve is 2^16.
    (sum - 6 * 65_535) << 16
}

/// Returns a number from Pareto's second distribution (Lomax) with form 2 and mean 1, in 2^-32.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "53 bits are what a number in (0, 1] has, and its root is at least 2^-27"
)]
fn pareto(number: u64) -> i128 {
    const STEPS: f64 = (1u64 << 53) as f64;
    let even = ((number >> 11) + 1) as f64 / STEPS;
    ((even.sqrt().recip() - 1.0) * (1u64 << 32) as f64) as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dice(seed: u64) -> Dice {
        let link = Link { from: End::Node("a".parse().unwrap()), to: End::Gateway };
        Dice::new(seed, 0, &link)
    }

    /// Commits hold how far a fault came, and not what it decides: that must not change.
    #[test]
    fn decisions_are_the_same_in_every_release() {
        let rolls = [0, 1, 2].map(|index| dice(7).roll(index, Purpose::Loss, 0));
        assert_eq!(rolls, PINNED, "{rolls:#x?}");
    }

    const PINNED: [u64; 3] = [0xd2ac_79a2_af84_b08b, 0x8b6b_330f_7ac3_9e5e, 0xe061_66d9_7442_ff83];

    #[test]
    fn each_input_changes_the_numbers() {
        let to = |name: &str| End::Node(name.parse().unwrap());
        let link = Link { from: to("a"), to: to("b") };
        let back = Link { from: to("b"), to: to("a") };
        let base = Dice::new(1, 0, &link);
        let mut seen = vec![
            base.roll(5, Purpose::Loss, 0),
            base.roll(6, Purpose::Loss, 0),
            base.roll(5, Purpose::Corrupt, 0),
            base.roll(5, Purpose::Loss, 1),
            Dice::new(2, 0, &link).roll(5, Purpose::Loss, 0),
            Dice::new(1, 1, &link).roll(5, Purpose::Loss, 0),
            Dice::new(1, 0, &back).roll(5, Purpose::Loss, 0),
        ];
        assert_eq!(base.roll(5, Purpose::Loss, 0), seen[0]);
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn the_ends_of_a_probability_are_certain() {
        assert!(!below(0, PerMillion(0)));
        assert!(below(u64::MAX, PerMillion(MILLION)));
        assert!(below(u64::MAX / 2, PerMillion(500_000)));
        assert!(!below(u64::MAX / 2 + 1, PerMillion(500_000)));
    }

    #[test]
    fn delays_have_the_mean_and_the_form_that_was_asked_for() {
        const N: u64 = 100_000;
        for (distribution, mean_us, below_latency) in [
            (Distribution::Uniform, 50_000.0, 0.5),
            (Distribution::Normal, 50_000.0, 0.5),
            (Distribution::Pareto, 55_000.0, 0.0),
        ] {
            let delays: Vec<f64> = (0..N)
                .map(|index| dice(3).delay(index, 0, (50_000, 5_000), distribution))
                .map(|delay| delay.as_secs_f64() * 1e6)
                .collect();
            let mean = delays.iter().sum::<f64>() / N as f64;
            assert!((mean - mean_us).abs() < 100.0, "{distribution:?}: {mean}");
            let share = delays.iter().filter(|delay| **delay < 50_000.0).count() as f64 / N as f64;
            assert!((share - below_latency).abs() < 0.01, "{distribution:?}: {share}");
            let deviation =
                (delays.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / N as f64).sqrt();
            match distribution {
                Distribution::Uniform => assert!((deviation - 2_887.0).abs() < 30.0, "{deviation}"),
                Distribution::Normal => assert!((deviation - 5_000.0).abs() < 50.0, "{deviation}"),
                Distribution::Pareto => assert!(delays.iter().any(|delay| *delay > 200_000.0)),
            }
        }
        let exact = dice(3).delay(9, 0, (50_000, 0), Distribution::Normal);
        assert_eq!(exact, Duration::from_millis(50));
        let bounded = dice(3).delay(9, 0, (u64::MAX, u64::MAX), Distribution::Pareto);
        assert_eq!(bounded, MAX_DELAY);
    }
}
