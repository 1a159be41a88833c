//! Frames that wait for their time: by when they are due, and those due together in the order in
//! which they came.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::core::Target;
use crate::limits::{DELAY_BYTES, DELAYED_OVERHEAD_BYTES};
use crate::links::LinkNumber;

/// A frame that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delayed {
    /// When it goes on, by the switch's clock.
    pub due: Duration,
    /// How many waited before it, ever.
    pub number: u64,
    /// The link that it is on.
    pub link: LinkNumber,
    /// Where it goes.
    pub target: Target,
    /// The frame.
    pub frame: Box<[u8]>,
}

/// Returns the bytes that a frame of `length` takes while it waits.
pub const fn cost(length: usize) -> usize {
    length + DELAYED_OVERHEAD_BYTES
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// All frames of a switch that wait.
#[derive(Debug, Default)]
pub struct DelayLine {
    frames: BinaryHeap<Reverse<Delayed>>,
    bytes: usize,
    next_number: u64,
}

impl DelayLine {
    /// Whether a frame of `length` bytes still fits.
    pub fn has_room(&self, length: usize) -> bool {
        self.bytes + cost(length) <= DELAY_BYTES
    }

    /// Lets a frame wait until `due`.
    pub fn push(&mut self, due: Duration, link: LinkNumber, target: Target, frame: &[u8]) {
        let number = self.next_number;
        self.next_number += 1;
        self.put_back(Delayed { due, number, link, target, frame: frame.into() });
    }

    /// Lets a frame wait on that waited before.
    pub fn put_back(&mut self, delayed: Delayed) {
        self.bytes += cost(delayed.frame.len());
        self.next_number = self.next_number.max(delayed.number.saturating_add(1));
        self.frames.push(Reverse(delayed));
    }

    /// Returns when the next one is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.frames.peek().map(|Reverse(delayed)| delayed.due)
    }

    /// Takes the next one that is due.
    pub fn pop(&mut self, now: Duration) -> Option<Delayed> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(delayed) = self.frames.pop()?;
        self.bytes -= cost(delayed.frame.len());
        Some(delayed)
    }

    /// Those that wait, in order.
    pub fn frames(&self) -> Vec<&Delayed> {
        let mut frames: Vec<_> = self.frames.iter().map(|Reverse(delayed)| delayed).collect();
        frames.sort_unstable();
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_keep_the_order() {
        let mut line = DelayLine::default();
        for (due, frame) in [(5, 0u8), (3, 1), (5, 2), (3, 3), (4, 4)] {
            line.push(Duration::from_secs(due), LinkNumber(0), Target::Port(0), &[frame]);
        }
        assert_eq!(line.next_due(), Some(Duration::from_secs(3)));
        assert!(line.pop(Duration::from_secs(2)).is_none());
        let order: Vec<u8> = std::iter::from_fn(|| line.pop(Duration::MAX))
            .map(|delayed| delayed.frame[0])
            .collect();
        assert_eq!(order, [1, 3, 4, 0, 2]);
        assert_eq!(line.bytes, 0);
    }
}
