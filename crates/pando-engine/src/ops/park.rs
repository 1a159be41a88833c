//! A parked copy of a warm commit: restored, touched once, stopped. It becomes somebody's branch
//! in one step, or ends with its commit.

use async_trait::async_trait;
use jiff::Timestamp;
use pando_driver::host::AfterStart;
use pando_driver::store::Transaction;
use pando_model::branch::BranchRole;
use pando_model::{Branch, BranchState, Cluster, ClusterId, Commit, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::branch_create::{Origin, new_branch};
use crate::engine::Engine;
use crate::failure::Result;
use crate::faults::{faults_at, without_end};
use crate::incarnation::{Disks, Incarnation};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Kind, memo};

/// The verb under which it is recorded.
pub(crate) const VERB: &str = "commit_park";

#[derive(Serialize, Deserialize)]
pub(crate) struct Park {
    pub cluster: Cluster,
    pub commit: Commit,
    pub branch: Branch,
    pub disks: Disks,
}

impl Park {
    pub async fn plan(engine: &Engine, cluster: Cluster, commit: Commit) -> Result<Self> {
        let disks = engine.disks_on_commit(&commit, None).await?;
        let name = commit.branch_name.clone();
        let origin = Origin {
            cluster: &cluster,
            parent: &commit.branch,
            commit: &commit.id,
            kind: commit.kind,
            // Their time goes on when it becomes a branch.
            faults: &without_end(faults_at(&cluster, &commit, Timestamp::now())),
        };
        let mut branch = new_branch(&origin, name, &disks, &commit.created_by);
        branch.role = BranchRole::Parked;
        // It may become the next incarnation of any branch, whose generation must not decrease: a
        // clock of seconds is ahead of every count of starts.
        branch.generation = u64::try_from(Timestamp::now().as_second()).unwrap_or(1);
        Ok(Self { cluster, commit, branch, disks })
    }

    pub fn locks_for(commit: &Commit) -> LockSet {
        LockSet::new().cluster(&commit.cluster, Hold::Shared).commit(&commit.id)
    }
}

#[async_trait]
impl Kind for Park {
    fn steps(&self) -> &'static [&'static str] {
        &["disks", "park"]
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.commit)
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        if step == "disks" {
            self.disks.create(&cx.engine).await?;
            return Ok(Transaction::new());
        }
        let incarnation = Incarnation {
            from: Some(&self.commit),
            after: AfterStart::Park,
            ..Incarnation::new(&cx.engine, &self.cluster, &self.branch)
        };
        let report = incarnation.start(cx).await?;
        // It ran for less: most of this time its QEMU was starting.
        self.branch.advanced_ms = (report.answered_us + report.ready_us) / 1000;
        Ok(Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "disks" => self.disks.discard(&cx.engine).await?,
            _ => cx.engine.remove_incarnation(&self.branch.host_id).await?,
        }
        Ok(Transaction::new())
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        self.branch.state = BranchState::Paused;
        self.branch.created_at = Timestamp::now();
        let mut records = Transaction::new();
        records.put(&self.branch);
        for layer in &self.disks.layers {
            records.put(layer);
        }
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        serde_json::json!({ "commit_id": self.commit.id })
    }
}
