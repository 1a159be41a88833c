//! What went over a link, as it is counted per frame. At any time, sent = delivered + held +
//! dropped.

use pando_model::network::{DropReason, LinkCounts};

/// The reasons, in the order in which a state file has their counts.
pub const REASONS: [DropReason; 7] = [
    DropReason::Partition,
    DropReason::Loss,
    DropReason::QueueFull,
    DropReason::RateLimit,
    DropReason::Malformed,
    DropReason::NoReader,
    DropReason::NoRoute,
];

const fn number(reason: DropReason) -> usize {
    match reason {
        DropReason::Partition => 0,
        DropReason::Loss => 1,
        DropReason::QueueFull => 2,
        DropReason::RateLimit => 3,
        DropReason::Malformed => 4,
        DropReason::NoReader => 5,
        DropReason::NoRoute => 6,
    }
}

/// The counts of one link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// As [`LinkCounts::sent`].
    pub sent: u64,
    /// As [`LinkCounts::sent_bytes`].
    pub sent_bytes: u64,
    /// As [`LinkCounts::delivered`].
    pub delivered: u64,
    /// As [`LinkCounts::held`].
    pub held: u64,
    /// As [`LinkCounts::dropped`], in the order of [`REASONS`].
    pub dropped: [u64; REASONS.len()],
    /// As [`LinkCounts::duplicated`].
    pub duplicated: u64,
    /// As [`LinkCounts::corrupted`].
    pub corrupted: u64,
    /// As [`LinkCounts::reordered`].
    pub reordered: u64,
    /// As [`LinkCounts::delayed`].
    pub delayed: u64,
}

impl Counts {
    /// A frame of `length` bytes came in, or was made in addition.
    pub fn send(&mut self, length: usize) {
        self.sent += 1;
        self.sent_bytes += length as u64;
    }

    /// A frame was given up that was on its way nowhere yet.
    pub fn drop(&mut self, reason: DropReason) {
        self.dropped[number(reason)] += 1;
    }

    /// A frame that was held was given up.
    pub fn drop_held(&mut self, reason: DropReason) {
        self.held = self.held.saturating_sub(1);
        self.drop(reason);
    }

    /// A frame that was held reached its machine.
    pub fn deliver_held(&mut self) {
        self.held = self.held.saturating_sub(1);
        self.delivered += 1;
    }

    /// A frame that was taken for delivered turned out not to have been read.
    pub fn take_back(&mut self) {
        if let Some(left) = self.delivered.checked_sub(1) {
            self.delivered = left;
            self.drop(DropReason::NoReader);
        }
    }

    /// Whether every frame is accounted for.
    pub fn balance(&self) -> bool {
        let dropped = self.dropped.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
        let sum = dropped
            .and_then(|dropped| dropped.checked_add(self.delivered))
            .and_then(|sum| sum.checked_add(self.held));
        sum == Some(self.sent)
    }

    /// Returns them as others read them.
    pub fn observe(&self) -> LinkCounts {
        let dropped = REASONS.into_iter().zip(self.dropped).filter(|(_, count)| *count > 0);
        LinkCounts {
            sent: self.sent,
            sent_bytes: self.sent_bytes,
            delivered: self.delivered,
            held: self.held,
            dropped: dropped.collect(),
            duplicated: self.duplicated,
            corrupted: self.corrupted,
            reordered: self.reordered,
            delayed: self.delayed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_place() {
        for (place, reason) in REASONS.into_iter().enumerate() {
            assert_eq!(number(reason), place);
        }
    }
}
