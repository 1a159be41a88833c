//! `net_partition`, `net_impair`, `net_heal`, `net_heal_all`: what a branch's network does wrong.
//!
//! The branch's record says it first; then the switch is told all of it; then it is looked at. A fault
//! that could not be made is undone. A healing goes forward: a fault that was taken away for a moment
//! has lost its place in its sequence of decisions, so it could not be brought back as it was.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;
use pando_api::network::{NetFaultResult, NetHealResult, Verified};
use pando_driver::host::HostError;
use pando_driver::store::Transaction;
use pando_model::fault::{Effect, Fault};
use pando_model::network::{Link, NetworkObservation, ProbeTarget};
use pando_model::{Branch, BranchState, Cluster, ClusterId, FaultId, Name, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::milliseconds;
use crate::failure::Result;
use crate::locks::{Hold, LockSet};
use crate::network::{fault_info, witnesses, working};
use crate::operation::{Cx, Direction, Kind, memo};

/// How long guests are given to reach one another in spite of a partition: a hundred times what they
/// take when nothing is in the way.
const WITNESS_PATIENCE: Duration = Duration::from_millis(250);
/// How often each is asked: once more than would be lost by chance.
const WITNESS_COUNT: u32 = 2;

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

impl Seen {
    fn say(&mut self, verified: Verified, evidence: impl Into<String>) {
        self.verified = verified;
        self.evidence = evidence.into();
    }
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
        if self.after.state == BranchState::Stopped {
            return self
                .seen
                .say(Verified::Unknown, "the branch is stopped: it works from the next start");
        }
        let observed = match cx.engine.host.network(&self.after.host_id).await {
            Ok(observed) => observed,
            Err(error) => {
                return self
                    .seen
                    .say(Verified::Unknown, format!("the switch was not read: {error}"));
            }
        };
        match self.change.clone() {
            Change::Heal(healed) => {
                let left = observed.faults.iter().any(|fault| healed.contains(&fault.id));
                match left {
                    true => self.seen.say(Verified::No, "the switch still applies it"),
                    false => self.seen.say(Verified::Yes, "the switch has forgotten it"),
                }
            }
            Change::Make(_) => self.look_at_fault(cx, &observed).await,
        }
    }

    async fn look_at_fault(&mut self, cx: &Cx, before: &NetworkObservation) {
        let Some(fault) = self.made().cloned() else { return };
        let applied = before.faults.iter().any(|seen| {
            seen.id == fault.id && seen.effect == fault.effect && seen.links == fault.links
        });
        if !applied {
            return self.seen.say(Verified::No, "the switch does not apply it");
        }
        if fault.effect != Effect::Partition {
            return self.seen.say(Verified::Yes, "the switch applies it");
        }
        if self.after.state == BranchState::Paused {
            return self
                .seen
                .say(Verified::Unknown, "the switch applies it, but the guests are paused");
        }
        let asked = witnesses(&self.cluster, &fault.links);
        let witnessed = self.ask(cx, &asked).await;
        let after = match cx.engine.host.network(&self.after.host_id).await {
            Ok(after) => after,
            Err(error) => {
                return self
                    .seen
                    .say(Verified::Unknown, format!("the switch was not read: {error}"));
            }
        };
        let dropped = |observed: &NetworkObservation, link: &Link| {
            let mut counts = observed.fault_counts.iter();
            let own = counts.find(|count| count.fault == fault.id && count.link == *link);
            own.map_or(0, |count| count.dropped)
        };
        let met = |link: &Link| dropped(&after, link) > dropped(before, link);
        self.judge(fault.links.len(), &witnessed, met);
    }

    /// Lets every node at the beginning of a link ask the one at its end, all at once.
    async fn ask(
        &self,
        cx: &Cx,
        asked: &BTreeMap<Name, Vec<(Link, Vec<ProbeTarget>)>>,
    ) -> Vec<Witnessed> {
        let probes = asked.iter().map(async |(node, links)| {
            let targets: Vec<ProbeTarget> =
                links.iter().flat_map(|(_, targets)| targets.clone()).collect();
            let host = &cx.engine.host;
            let results = host
                .probe(&self.after.host_id, node, &targets, WITNESS_COUNT, WITNESS_PATIENCE)
                .await;
            let mut results = match results {
                Ok(results) => results.into_iter(),
                Err(error) => {
                    let error = error.to_string();
                    let silent = |(link, _): &(Link, Vec<ProbeTarget>)| Witnessed {
                        link: link.clone(),
                        answered: Err(error.clone()),
                    };
                    return links.iter().map(silent).collect::<Vec<_>>();
                }
            };
            let each = links.iter().map(|(link, targets)| {
                let own = results.by_ref().take(targets.len());
                let answered = own.filter(|one| one.received > 0).count();
                Witnessed { link: link.clone(), answered: Ok(answered) }
            });
            each.collect()
        });
        join_all(probes).await.into_iter().flatten().collect()
    }

    fn judge(&mut self, links: usize, witnessed: &[Witnessed], met: impl Fn(&Link) -> bool) {
        let name = |link: &Link| format!("{}>{}", link.from, link.to);
        if let Some(through) = witnessed.iter().find(|one| matches!(one.answered, Ok(1..))) {
            let evidence = format!("{} answers are still heard", name(&through.link));
            return self.seen.say(Verified::No, evidence);
        }
        if let Some((link, error)) =
            witnessed.iter().find_map(|one| Some((&one.link, one.answered.as_ref().err()?)))
        {
            return self
                .seen
                .say(Verified::Unknown, format!("{} was not probed: {error}", name(link)));
        }
        if let Some(unmet) = witnessed.iter().find(|one| !met(&one.link)) {
            let evidence = format!("no frame from {} met it", name(&unmet.link));
            return self.seen.say(Verified::Unknown, evidence);
        }
        let probed = witnessed.len();
        if probed == 0 {
            return self
                .seen
                .say(Verified::Unknown, "no guest could be asked: no link of it begins at a node");
        }
        let evidence = format!(
            "probed {probed} of {links} links from the guests: no answer, and the switch dropped what they sent"
        );
        self.seen.say(Verified::Yes, evidence);
    }
}

/// What a guest said of a link.
struct Witnessed {
    link: Link,
    /// How many addresses answered.
    answered: std::result::Result<usize, String>,
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
                address,
                count: count(healed.len()),
                healed: healed.clone(),
                remaining: count(self.after.faults.len()),
                verified: self.seen.verified,
            }),
            (Change::Make(_), Some(fault)) => memo(&NetFaultResult {
                fault: fault_info(fault, None),
                branch_id,
                address,
                verified: self.seen.verified,
                evidence: self.seen.evidence.clone(),
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
