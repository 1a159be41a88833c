//! Which faults a branch begins with, until when, and what they decide by. Pure.

use jiff::Timestamp;
use pando_api::limits::MAX_SEED;
use pando_model::fault::Fault;
use pando_model::{Cluster, Commit};

use crate::network::working;

/// Returns the faults that a branch of a commit begins with: those that worked at the cut, each with
/// the time that it had left. A disk has no memory of them: the cluster's own work then.
pub(crate) fn faults_at(cluster: &Cluster, commit: &Commit, now: Timestamp) -> Vec<Fault> {
    let Some(network) = &commit.network else { return cluster.faults.clone() };
    let cut_at = commit.cut_at();
    let anchored = |fault: &Fault| {
        let end = fault.expires_at.map(|end| now.checked_add(end.duration_since(cut_at)));
        Fault { expires_at: end.map(|end| end.unwrap_or(Timestamp::MAX)), ..fault.clone() }
    };
    network.faults.iter().map(anchored).collect()
}

/// Returns the faults that worked when a commit was cut.
pub(crate) fn faults_of(cluster: &Cluster, commit: &Commit) -> Vec<Fault> {
    working(&faults_at(cluster, commit, commit.cut_at()), commit.cut_at())
}

/// Returns the faults under seeds of their own that follow from `seed`.
pub(crate) fn reseeded(faults: Vec<Fault>, seed: u64) -> Vec<Fault> {
    let anew = |fault: Fault| {
        let mut hasher = blake3::Hasher::new_derive_key("pando 2026-11 seeds of a branch");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&fault.seed.to_le_bytes()).update(&fault.ordinal.to_le_bytes());
        Fault { seed: seed_of(&hasher.finalize()), ..fault }
    };
    faults.into_iter().map(anew).collect()
}

/// Returns the faults, none of which ends by itself.
pub(crate) fn without_end(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.iter_mut().for_each(|fault| fault.expires_at = None);
    faults
}

/// Returns the seed that follows from a digest.
pub(crate) fn seed_of(digest: &blake3::Hash) -> u64 {
    let low = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(low) & MAX_SEED
}

/// Returns the least number that no fault of this seed has.
pub(crate) fn free_ordinal(faults: &[Fault], seed: u64) -> u32 {
    let taken =
        |number: &u32| faults.iter().any(|fault| fault.seed == seed && fault.ordinal == *number);
    (0..).find(|number| !taken(number)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use pando_model::FaultId;
    use pando_model::fault::Effect;

    use super::*;

    fn fault(seed: u64, ordinal: u32) -> Fault {
        Fault {
            id: FaultId::random(),
            label: None,
            effect: Effect::Partition,
            links: Vec::new(),
            segment: None,
            seed,
            ordinal,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
        }
    }

    #[test]
    fn faults_of_one_seed_are_numbered_and_a_number_is_used_again() {
        assert_eq!(free_ordinal(&[], 7), 0);
        let faults = [fault(7, 0), fault(8, 1), fault(7, 2)];
        assert_eq!(free_ordinal(&faults, 7), 1);
        assert_eq!(free_ordinal(&faults, 8), 0);
    }

    #[test]
    fn a_new_seed_is_a_new_one_for_each_fault_and_the_same_one_each_time() {
        let faults = vec![fault(7, 0), fault(7, 1), fault(8, 0)];
        let seeds = |seed| -> Vec<u64> {
            reseeded(faults.clone(), seed).iter().map(|fault| fault.seed).collect()
        };
        let first = seeds(1);
        assert_eq!(seeds(1), first);
        let mut all: Vec<u64> = first.into_iter().chain(seeds(2)).chain([7, 8]).collect();
        assert!(all.iter().all(|seed| *seed <= MAX_SEED));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8);
    }
}
