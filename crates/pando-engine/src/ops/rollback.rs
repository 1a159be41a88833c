//! `branch_rollback`: a new incarnation from the commit comes up beside the old one, takes its
//! place in one transaction, and only then is the old one ended. Until that transaction the old one
//! can go on as if nothing had happened; after it there is only forward.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pando_api::branch::{BranchRollbackResult, InheritedCommand};
use pando_api::snapshot::SnapshotRevertResult;
use pando_driver::host::{AfterStart, Clock, StartReport};
use pando_driver::store::{Guard, Record, Table, Transaction};
use pando_model::{
    Branch, BranchState, Cluster, ClusterId, Commit, CommitKind, ErrorCode, OperationId,
    OperationStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::branch_create::unpark_faults;
use super::cut::Cut;
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::faults::faults_at;
use crate::garbage::{Gone, branch_layers};
use crate::incarnation::{Disks, Incarnation};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Direction, Kind, memo};
use crate::verbs::clusters::{resting, running, ssh_answers};

#[derive(Serialize, Deserialize)]
pub(crate) struct Rollback {
    pub cluster: Cluster,
    pub target: Commit,
    /// The branch as it was.
    pub before: Branch,
    /// The branch as it will be: another host id, the next generation, other disks.
    pub after: Branch,
    /// The state before as a commit.
    pub save: Option<Cut>,
    /// What of it that commit does not hold, and why.
    #[serde(default)]
    pub save_note: Option<String>,
    pub disks: Disks,
    /// The parked copy that becomes the new incarnation.
    pub parked: Option<Branch>,
    pub started_us: i64,
    pub ready_ms: u64,
    pub inherited: Vec<InheritedCommand>,
    /// Asked for as `snapshot_revert`.
    #[serde(default)]
    pub as_snapshot: Option<Revert>,
    /// Whether the new incarnation took the old one's place under an earlier daemon, or in an earlier
    /// attempt. It is never made again: it has run since, on disks that its commit's memory does not know.
    #[serde(skip)]
    pub swapped: bool,
    /// Whether the undoing ended the new incarnation, with the parked copy that it came from.
    #[serde(skip)]
    pub unmade: bool,
}

/// What `snapshot_revert` wants beyond a rollback.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Revert {
    /// What the branch does afterwards.
    pub then: BranchState,
    /// How long to wait for SSH, if at all.
    pub ssh_timeout_ms: Option<u64>,
    /// Branches of the cluster, and others that run.
    pub counts: (u32, u32),
}

impl Rollback {
    /// Returns what the branch does afterwards: by itself, what it did, or run.
    fn then(&self) -> BranchState {
        match (&self.as_snapshot, self.before.state) {
            (Some(revert), _) => revert.then,
            (None, BranchState::Paused) => BranchState::Paused,
            (None, _) => BranchState::Running,
        }
    }

    async fn start(&mut self, cx: &Cx) -> Result<()> {
        self.after.faults = faults_at(&self.cluster, &self.target, Timestamp::now());
        if self.then() == BranchState::Stopped {
            return self.disks.create(&cx.engine).await;
        }
        let paused = self.then() == BranchState::Paused;
        let report = if self.parked.is_some() {
            unpark_faults(&cx.engine, &self.after).await?;
            if !paused {
                cx.engine.host.resume(&self.after.host_id, Clock::Step).await?;
            }
            StartReport { answered_us: 0, ready_us: 0, inherited: BTreeMap::new() }
        } else {
            self.disks.create(&cx.engine).await?;
            let full = self.target.kind == CommitKind::Full;
            let incarnation = Incarnation {
                from: full.then_some(&self.target),
                after: if paused { AfterStart::Hold } else { AfterStart::Run },
                ..Incarnation::new(&cx.engine, &self.cluster, &self.after)
            };
            incarnation.start(cx).await?
        };
        let revert = self.as_snapshot.as_ref();
        if let Some(timeout_ms) = revert.and_then(|revert| revert.ssh_timeout_ms) {
            // Before the swap: all of it, or nothing.
            let timeout = Duration::from_millis(timeout_ms);
            ssh_answers(&cx.engine, &self.cluster, &self.after, timeout).await?;
        }
        self.ready_ms = super::elapsed_ms(self.started_us);
        self.inherited = super::inherited(report);
        Ok(())
    }

    /// Returns why the state before cannot be saved. Where calling again, or making room, may not help,
    /// the hint is the rollback that gives that state up.
    fn or_without_saving(&self, why: Failure) -> Failure {
        let may_pass = matches!(
            why.code(),
            ErrorCode::Cancelled | ErrorCode::DiskFull | ErrorCode::MemoryFull
        );
        if may_pass {
            return why;
        }
        let address = format!("{}@{}", self.cluster.name, self.before.name);
        let target = &self.target.id;
        let command = match self.as_snapshot {
            None => format!("`pando rollback {address} {target} --no-save`"),
            Some(_) => format!("`pando snapshot revert {address} {target} --no-save`"),
        };
        why.hint(format!(
            "the state before could not be saved, and nothing was changed; `save: false` gives it up: \
             {command}"
        ))
    }

    /// Returns the records with which the new incarnation takes the place of the old one.
    fn swap(&mut self, cx: &Cx) -> Transaction {
        let mut records = Transaction::new();
        if let Some(save) = &self.save {
            records.merge(save.records(cx).0);
        }
        if let Some(parked) = &self.parked {
            records.delete::<Branch>(parked.key());
        }
        for layer in &self.disks.layers {
            records.put(layer);
        }
        self.after.state = self.then();
        if self.after.state == BranchState::Stopped {
            self.after = self.after.stopped();
        }
        records.put(&self.after);
        records
    }

    /// Ends the old incarnation, and the disks that only it had.
    async fn retire(&self, cx: &Cx) -> Result<()> {
        // What led to a rollback may be in the frames that were captured before it.
        cx.engine.host.move_capture(&self.before.host_id, &self.after.host_id).await?;
        cx.engine.remove_incarnation(&self.before.host_id).await?;
        // One that has ended meanwhile is noticed as such, and has no ports.
        if matches!(cx.engine.host.observe(&self.after.host_id).await, Ok(Some(_))) {
            cx.engine.reopen_ports(&self.cluster, &self.after).await?;
        }
        let mut tops = branch_layers(&self.before);
        if let Some(save) = &self.save {
            tops.extend(save.next_layers().iter().map(|layer| layer.id.clone()));
        }
        cx.engine.sweep(Gone { tops, ..Gone::default() }).await?;
        Ok(())
    }

    async fn unmake(&self, engine: &Engine) -> Result<()> {
        engine.remove_incarnation(&self.after.host_id).await?;
        self.disks.discard(engine).await?;
        for layer in self.parked.iter().flat_map(branch_layers) {
            engine.host.discard_layer(&layer).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Kind for Rollback {
    fn steps(&self) -> &'static [&'static str] {
        &["save", "start", "swap", "end the old one"]
    }

    fn locks(&self) -> LockSet {
        let set = LockSet::new()
            .cluster(&self.cluster.id, Hold::Shared)
            .branch(&self.before.id)
            .commit(&self.target.id);
        self.parked.iter().fold(set, |set, parked| set.branch(&parked.id))
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    fn intent(&self) -> Transaction {
        let mut records = Transaction::new();
        if let Some(parked) = &self.parked {
            records.guard(Guard::Status(Table::Branches, parked.key(), "parked"));
        }
        records
    }

    fn unrecord(&self) -> Transaction {
        Transaction::new()
    }

    fn revert(&self) -> Transaction {
        let mut records = Transaction::new();
        records.put(&self.before);
        if let (Some(parked), true) = (&self.parked, self.unmade) {
            records.delete::<Branch>(parked.key());
            for layer in branch_layers(parked) {
                records.delete::<pando_model::commit::Layer>(layer.to_string());
            }
        }
        for layer in &self.disks.layers {
            records.delete::<pando_model::commit::Layer>(layer.id.as_str());
        }
        if let Some(save) = &self.save {
            records.delete::<Commit>(save.commit.as_str());
        }
        records
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "save" | "start" | "swap" if self.swapped => {}
            "save" => {
                if let Some(save) = &mut self.save {
                    let made = save.make(cx).await;
                    made.map_err(|why| self.or_without_saving(why))?;
                }
            }
            "start" => self.start(cx).await?,
            "swap" => return Ok(self.swap(cx)),
            _ => self.retire(cx).await?,
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match (step, &mut self.save) {
            ("start", _) => {
                self.unmake(&cx.engine).await?;
                self.unmade = true;
            }
            ("save", Some(save)) => return save.undo(cx).await,
            _ => {}
        }
        Ok(Transaction::new())
    }

    /// Only the records know whether the swap happened.
    async fn direction(&mut self, cx: &Cx) -> Result<Direction> {
        let now: Option<Branch> = cx.engine.store.get(self.before.id.as_str()).await?;
        match now {
            Some(now) if now.host_id == self.after.host_id => {
                self.swapped = true;
                Ok(Direction::Forward)
            }
            _ => Ok(Direction::Back),
        }
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    fn result(&self, _: &OperationId) -> Value {
        if let Some(revert) = &self.as_snapshot {
            let (branches, others) = revert.counts;
            let status = match self.after.state {
                BranchState::Running => {
                    let ssh = revert.ssh_timeout_ms.is_some();
                    running(&self.cluster, &self.after, (branches, others + 1), ssh)
                }
                _ => resting(&self.cluster, &self.after, (branches, others)),
            };
            return memo(&SnapshotRevertResult {
                status,
                reverted_to: self.target.id.clone(),
                saved_as: self.save.as_ref().map(|save| save.commit.clone()),
                save_note: self.save_note.clone(),
                ready_ms: self.ready_ms,
            });
        }
        memo(&BranchRollbackResult {
            success: true,
            rolled_back_to: self.target.id.clone(),
            saved_as: self.save.as_ref().map(|save| save.commit.clone()),
            save_note: self.save_note.clone(),
            branch_id: self.after.id.clone(),
            address: format!("{}@{}", self.cluster.name, self.after.name),
            state: self.after.state,
            warm: self.parked.is_some(),
            advanced_ms: self.parked.as_ref().map_or(0, |parked| parked.advanced_ms),
            ready_ms: self.ready_ms,
            inherited: self.inherited.clone(),
        })
    }

    fn settled(&self, engine: &Engine, status: OperationStatus) {
        if self.parked.is_some() {
            engine.replenish_later(&self.target.id);
        }
        if let Some(save) = &self.save
            && status == OperationStatus::Succeeded
        {
            engine.after_commit(&save.commit, &self.before.id);
        }
    }
}
