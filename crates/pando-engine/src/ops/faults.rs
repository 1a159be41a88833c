//! `net_partition`, `net_impair`, `net_heal`, `net_heal_all`: what a branch's network does wrong.
//!
//! The branch's record says it first; then the switch is told all of it; then it is looked at. A fault
//! that could not be made is undone. A healing goes forward: a fault that was taken away for a moment
//! has lost its place in its sequence of decisions, so it could not be brought back as it was.

use std::collections::BTreeSet;
use std::time::Instant;

use async_trait::async_trait;
use jiff::Timestamp;
use pando_api::network::{NetFaultResult, NetHealResult, Verified};
use pando_driver::host::HostError;
use pando_driver::store::Transaction;
use pando_model::fault::{Effect, Fault};
use pando_model::network::{Link, NetworkObservation};
use pando_model::{Branch, BranchState, Cluster, ClusterId, FaultId, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod witness;

use self::witness::{Question, Verdict};
use super::milliseconds;
use crate::failure::Result;
use crate::locks::{Hold, LockSet};
use crate::network::{Way, fault_of, ways, working};
use crate::operation::{Cx, Direction, Kind, memo};

#[derive(Serialize, Deserialize)]
pub(crate) struct Faults {
    pub cluster: Cluster,
    /// The branch as it was.
    pub before: Branch,
    /// The branch with the faults that it is to have.
    pub after: Branch,
    pub change: Change,
    pub started_us: i64,
    #[serde(default)]
    pub seen: Seen,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Make(FaultId),
    Heal(Vec<FaultId>),
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    applied_us: u64,
    verify_us: u64,
    verified: Verified,
    evidence: String,
}

impl Faults {
    pub fn locks_for(cluster: &Cluster, branch: &Branch) -> LockSet {
        LockSet::new().cluster(&cluster.id, Hold::Shared).branch(&branch.id)
    }

    /// Tells the switch which faults a branch has. A branch without one is told when it starts.
    async fn tell(cx: &Cx, branch: &Branch) -> Result<()> {
        if branch.state == BranchState::Stopped {
            return Ok(());
        }
        let faults = working(&branch.faults, Timestamp::now());
        match cx.engine.host.set_faults(&branch.host_id, &faults).await {
            Ok(()) | Err(HostError::NotRunning { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn made(&self) -> Option<&Fault> {
        let Change::Make(id) = &self.change else { return None };
        self.after.faults.iter().find(|fault| fault.id == *id)
    }

    /// Looks whether it works. Whatever is in the way of looking is no reason to take it back.
    async fn look(&mut self, cx: &Cx) {
        let (verified, evidence) = self.seen_by_all(cx).await;
        (self.seen.verified, self.seen.evidence) = (verified, evidence);
    }

    async fn seen_by_all(&self, cx: &Cx) -> Verdict {
        if self.after.state == BranchState::Stopped {
            return unknown("the branch is stopped: it works from the next start");
        }
        let observed = match cx.engine.host.network(&self.after.host_id).await {
            Ok(observed) => observed,
            Err(error) => return unknown(format!("the switch was not read: {error}")),
        };
        match (&self.change, self.made()) {
            (Change::Heal(healed), _) => self.look_at_healing(cx, healed, &observed).await,
            (Change::Make(_), Some(fault)) => self.look_at_fault(cx, fault, &observed).await,
            (Change::Make(_), None) => unknown("it is not recorded"),
        }
    }

    async fn look_at_healing(
        &self,
        cx: &Cx,
        healed: &[FaultId],
        observed: &NetworkObservation,
    ) -> Verdict {
        if observed.faults.iter().any(|fault| healed.contains(&fault.id)) {
            return (Verified::No, "the switch still applies it".to_owned());
        }
        if healed.is_empty() {
            return (Verified::Yes, "there was nothing to heal".to_owned());
        }
        if self.after.state == BranchState::Paused {
            return unknown("the switch has forgotten it, but the guests are paused");
        }
        let ended = self.before.faults.iter().filter(|fault| healed.contains(&fault.id));
        let silenced = |way: &Way| {
            let meets = |fault: &&Fault| match (&fault.segment, &way.segment) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            };
            // An answer comes back over the other link.
            let back = Link { from: way.link.to.clone(), to: way.link.from.clone() };
            let is = |link: &Link| *link == way.link || *link == back;
            let left = self.after.faults.iter().filter(|fault| witness::may_silence(fault));
            left.filter(meets).any(|fault| fault.links.iter().any(is))
        };
        let free: BTreeSet<Way> = ended.flat_map(ways).filter(|way| !silenced(way)).collect();
        if free.is_empty() {
            return unknown("the switch has forgotten it; other faults work on all its links");
        }
        let free: Vec<Way> = free.into_iter().collect();
        let witnessed =
            witness::ask(cx, &self.cluster, &self.after.host_id, &free, Question::HEALED).await;
        witness::healed(&witnessed)
    }

    async fn look_at_fault(&self, cx: &Cx, fault: &Fault, before: &NetworkObservation) -> Verdict {
        let applied = before.faults.iter().any(|seen| {
            (&seen.id, &seen.effect, &seen.links, &seen.segment)
                == (&fault.id, &fault.effect, &fault.links, &fault.segment)
        });
        if !applied {
            return (Verified::No, "the switch does not apply it".to_owned());
        }
        if self.after.state == BranchState::Paused {
            return unknown("the switch applies it, but the guests are paused");
        }
        let question = match &fault.effect {
            Effect::Partition => Question::PARTITIONED,
            Effect::Impair(impairment) => Question::impaired(impairment),
        };
        let host_id = &self.after.host_id;
        let ways: Vec<Way> = ways(fault).collect();
        let witnessed = witness::ask(cx, &self.cluster, host_id, &ways, question).await;
        let after = match cx.engine.host.network(host_id).await {
            Ok(after) => after,
            Err(error) => return unknown(format!("the switch was not read: {error}")),
        };
        let counts = |observed: &NetworkObservation, link: &Link| {
            let mut counts = observed.fault_counts.iter();
            let own = counts.find(|count| count.fault == fault.id && count.link == *link);
            own.map_or((0, 0), |count| (count.frames, count.dropped))
        };
        match &fault.effect {
            Effect::Partition => {
                let met = |link: &Link| counts(&after, link).1 > counts(before, link).1;
                let cut = |link: &Link| self.is_cut_besides(fault, link);
                witness::partitioned(fault.links.len(), &witnessed, met, cut)
            }
            Effect::Impair(impairment) => {
                let met = |link: &Link| counts(&after, link).0 > counts(before, link).0;
                witness::impaired(fault, impairment, &witnessed, met)
            }
        }
    }

    /// Whether another partition than `fault` cuts a link.
    fn is_cut_besides(&self, fault: &Fault, link: &Link) -> bool {
        self.after.faults.iter().any(|other| {
            let everywhere = other.segment.is_none() || other.segment == fault.segment;
            other.id != fault.id
                && other.effect == Effect::Partition
                && everywhere
                && other.links.contains(link)
        })
    }

    /// Returns what to do when it is not as asked for.
    fn warning(&self, address: &str) -> Option<String> {
        if self.seen.verified != Verified::No {
            return None;
        }
        Some(match self.made() {
            Some(fault) => format!(
                "its effect was not seen: `pando net probe {address}` measures what gets through, \
                 `pando net heal {address} {}` takes it back",
                fault.id
            ),
            None => format!("it may still work: `pando net faults {address}` shows what does"),
        })
    }
}

fn unknown(evidence: impl Into<String>) -> Verdict {
    (Verified::Unknown, evidence.into())
}

fn us(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Kind for Faults {
    fn steps(&self) -> &'static [&'static str] {
        &["apply", "verify"]
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.cluster, &self.before)
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    fn intent(&self) -> Transaction {
        let mut records = Transaction::new();
        records.put(&self.after);
        records
    }

    fn revert(&self) -> Transaction {
        let mut records = Transaction::new();
        records.put(&self.before);
        records
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        if step == "apply" {
            Self::tell(cx, &self.after).await?;
            let now = Timestamp::now().as_microsecond();
            self.seen.applied_us = u64::try_from(now - self.started_us).unwrap_or(0);
        } else {
            cx.reporter.report("asking the guests", 0, 0);
            let began = Instant::now();
            self.look(cx).await;
            self.seen.verify_us = us(began);
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        if step == "apply" {
            Self::tell(cx, &self.before).await?;
        }
        Ok(Transaction::new())
    }

    async fn direction(&mut self, _: &Cx) -> Result<Direction> {
        Ok(match self.change {
            Change::Make(_) => Direction::Back,
            Change::Heal(_) => Direction::Forward,
        })
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        let mut records = Transaction::new();
        records.put(&self.after);
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        let address = format!("{}@{}", self.cluster.name, self.after.name);
        let branch_id = self.after.id.clone();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        match (&self.change, self.made()) {
            (Change::Heal(healed), _) => memo(&NetHealResult {
                branch_id,
                count: count(healed.len()),
                healed: healed.clone(),
                remaining: count(self.after.faults.len()),
                verified: self.seen.verified,
                evidence: self.seen.evidence.clone(),
                warning: self.warning(&address),
                address,
            }),
            (Change::Make(_), Some(fault)) => memo(&NetFaultResult {
                fault: fault_of(&self.cluster, fault, None),
                branch_id,
                verified: self.seen.verified,
                evidence: self.seen.evidence.clone(),
                warning: self.warning(&address),
                address,
                applied_ms: milliseconds(self.seen.applied_us),
                verify_ms: milliseconds(self.seen.verify_us),
            }),
            (Change::Make(_), None) => Value::Null,
        }
    }

    fn remedy(&self, _: &OperationId) -> String {
        let address = format!("{}@{}", self.cluster.name, self.before.name);
        format!("pando net heal-all {address}, or pando vm control {address} kill")
    }
}
