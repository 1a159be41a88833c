//! Which faults work: applying them to links, and their ends.

use std::collections::HashMap;

use jiff::Timestamp;
use pando_model::FaultId;
use pando_model::fault::Fault;
use pando_model::network::FaultCounts;

use super::{Core, SpecError};
use crate::fault::{LinkFault, Progress};
use crate::limits::{MAX_FAULT_LINKS, MAX_FAULTS};
use crate::links::{LinkNumber, Links};

/// Every fault on every link, and how far it has come there.
pub type AllProgress = HashMap<(FaultId, LinkNumber), Progress>;

impl Core {
    /// Makes these the faults that work, or leaves all as it is. One that worked before goes on where
    /// it was.
    pub fn set_faults(&mut self, faults: Vec<Fault>) -> Result<(), SpecError> {
        let named = faults.iter().map(|fault| fault.links.len()).sum();
        if faults.len() > MAX_FAULTS || named > MAX_FAULT_LINKS {
            return Err(SpecError::TooManyFaults(named));
        }
        let segments = self.segments_of(&faults)?;
        let places = places(&mut self.links, &faults)?;
        let before = self.progress();
        for state in self.links.iter_mut() {
            state.faults.clear();
        }
        for (number, place) in places {
            let fault = &faults[number];
            let link = self.links.name(place);
            let mut on_link = LinkFault::new(number, fault, segments[number], &link);
            if let Some(progress) = before.get(&(fault.id.clone(), place)) {
                on_link.progress = *progress;
            }
            self.links.state(place).faults.push(on_link);
        }
        for state in self.links.iter_mut() {
            state.faults.sort_by_key(|fault| !fault.is_partition());
        }
        self.faults = faults;
        Ok(())
    }

    /// Returns the number of the only segment that each fault works in.
    fn segments_of(&self, faults: &[Fault]) -> Result<Vec<Option<usize>>, SpecError> {
        let number = |fault: &Fault| {
            let Some(name) = &fault.segment else { return Ok(None) };
            let number = self.spec.segments.iter().position(|segment| segment.name == *name);
            let missing =
                || SpecError::NoFaultSegment { fault: fault.id.clone(), segment: name.clone() };
            number.map(Some).ok_or_else(missing)
        };
        faults.iter().map(number).collect()
    }

    /// Ends the faults whose time is over.
    pub fn expire(&mut self, wall: Timestamp) {
        let is_over = |fault: &Fault| fault.expires_at.is_some_and(|end| end <= wall);
        if self.is_held || !self.faults.iter().any(is_over) {
            return;
        }
        let left = self.faults.iter().filter(|fault| !is_over(fault)).cloned().collect();
        let applied = self.set_faults(left);
        debug_assert!(applied.is_ok(), "they were applied before");
    }

    /// When [`Self::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        if self.is_held {
            return None;
        }
        self.faults.iter().filter_map(|fault| fault.expires_at).min()
    }

    /// The faults that work.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    pub(super) fn fault_counts(&self) -> Vec<FaultCounts> {
        let mut counts = Vec::new();
        for state in self.links.iter() {
            for on_link in &state.faults {
                counts.push(FaultCounts {
                    fault: self.faults[on_link.number].id.clone(),
                    link: self.links.link(state),
                    frames: on_link.progress.frames,
                    dropped: on_link.progress.dropped,
                });
            }
        }
        counts.sort_unstable_by(|one, other| {
            (&one.fault, &one.link).cmp(&(&other.fault, &other.link))
        });
        counts
    }

    pub(super) fn progress(&self) -> AllProgress {
        let mut all = AllProgress::new();
        for (number, state) in self.links.numbered() {
            for on_link in &state.faults {
                let fault = self.faults[on_link.number].id.clone();
                all.insert((fault, number), on_link.progress);
            }
        }
        all
    }
}

/// Returns each place that a fault works at, once: the fault's number and the link.
fn places(links: &mut Links, faults: &[Fault]) -> Result<Vec<(usize, LinkNumber)>, SpecError> {
    let mut places = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        let end = |links: &Links, end: &pando_model::network::End| {
            links
                .end_number(end)
                .ok_or_else(|| SpecError::NoNode { fault: fault.id.clone(), node: end.clone() })
        };
        let first = places.len();
        for link in &fault.links {
            let (from, to) = (end(links, &link.from)?, end(links, &link.to)?);
            places.push((number, links.between(from, to)));
        }
        places[first..].sort_unstable();
    }
    places.dedup();
    Ok(places)
}
