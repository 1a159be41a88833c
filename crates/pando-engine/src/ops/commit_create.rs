//! `commit_create`: cut a branch; the commit exists once its record does.

use async_trait::async_trait;
use pando_api::commit::CommitCreateResult;
use pando_api::snapshot::SnapshotInfo;
use pando_driver::store::Transaction;
use pando_model::commit::Tag;
use pando_model::{BranchId, ClusterId, Commit, Name, OperationId, OperationStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cut::Cut;
use crate::engine::Engine;
use crate::failure::Result;
use crate::kernel;
use crate::locks::{Hold, LockSet};
use crate::network::stalled;
use crate::operation::{Cx, Direction, Kind, memo};
use crate::verbs::snapshots::info;

#[derive(Serialize, Deserialize)]
pub(crate) struct CommitCreate {
    pub cut: Cut,
    pub tag: Option<Name>,
    pub started_us: i64,
    pub made: Option<Commit>,
    /// Asked for as `snapshot_create`.
    #[serde(default)]
    pub as_snapshot: bool,
    #[serde(default)]
    pub snapshot: Option<SnapshotInfo>,
}

impl CommitCreate {
    pub fn locks_for(cluster: &ClusterId, branch: &BranchId, tag: Option<&Name>) -> LockSet {
        let locks = LockSet::new().cluster(cluster, Hold::Shared).branch(branch);
        tag.into_iter().fold(locks, |locks, tag| locks.tag(cluster, tag))
    }
}

#[async_trait]
impl Kind for CommitCreate {
    fn steps(&self) -> &'static [&'static str] {
        &["cut"]
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.cut.cluster.id, &self.cut.branch.id, self.tag.as_ref())
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cut.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, _: &str, cx: &Cx) -> Result<Transaction> {
        self.cut.make(cx).await?;
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, cx: &Cx) -> Result<Transaction> {
        self.cut.undo(cx).await
    }

    /// A cut that was made is kept: its files are durable, and the branch has moved on.
    async fn direction(&mut self, cx: &Cx) -> Result<Direction> {
        match self.cut.adopted(cx).await? {
            true => Ok(Direction::Forward),
            false => Ok(Direction::Back),
        }
    }

    async fn finish(&mut self, cx: &Cx) -> Result<Transaction> {
        let (mut records, commit) = self.cut.records(cx);
        if let Some(name) = &self.tag {
            records.put(&Tag {
                cluster: self.cut.cluster.id.clone(),
                name: name.clone(),
                commit: commit.id.clone(),
            });
        }
        if let (true, Some(tag)) = (self.as_snapshot, &self.tag) {
            let sizes = cx.engine.host.list_layers().await?;
            let layout = &cx.engine.config.layout;
            self.snapshot = Some(info(layout, &self.cut.cluster, &commit, tag, &sizes));
        }
        self.made = Some(commit);
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        let cut = &self.cut;
        let made = self.made.as_ref();
        if self.as_snapshot {
            return self.snapshot.as_ref().map_or(Value::Null, memo);
        }
        memo(&CommitCreateResult {
            commit_id: cut.commit.clone(),
            tag: self.tag.clone(),
            branch_id: cut.branch.id.clone(),
            address: format!("{}@{}", cut.cluster.name, cut.branch.name),
            parent_id: cut.branch.head.clone(),
            kind: cut.kind,
            pause_ms: made.map_or(0.0, |made| super::milliseconds(made.pause_us)),
            duration_ms: super::elapsed_ms(self.started_us),
            size_bytes: made.map_or(0, |made| made.size.0),
            stalled: made.map(stalled).unwrap_or_default(),
            note: made.and_then(|made| kernel::not_in(&cut.cluster, made)),
        })
    }

    fn settled(&self, engine: &Engine, status: OperationStatus) {
        if status == OperationStatus::Succeeded {
            engine.after_commit(&self.cut.commit, &self.cut.branch.id);
        }
    }
}
