//! `commit_delete`: forget a commit. Its files go at once, or with the last commit or branch that
//! is made of them.

use async_trait::async_trait;
use pando_api::commit::CommitDeleteResult;
use pando_api::snapshot::SnapshotDeleteResult;
use pando_driver::store::{Record, Transaction};
use pando_model::commit::Tag;
use pando_model::{Branch, Cluster, ClusterId, Commit, Name, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Result;
use crate::garbage::{Gone, branch_layers, commit_layers};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Direction, Kind, memo};

#[derive(Serialize, Deserialize)]
pub(crate) struct CommitDelete {
    pub cluster: Cluster,
    pub commit: Commit,
    pub tags: Vec<Tag>,
    /// Its parked copies, which end with it.
    pub parked: Vec<Branch>,
    /// Commits whose parent it is; they get its parent.
    pub children: Vec<Commit>,
    /// Branches whose latest commit it is; they get its parent.
    pub heads: Vec<Branch>,
    pub freed_bytes: u64,
    pub kept_for_others: bool,
    /// Asked for as `snapshot_delete`, by this name.
    #[serde(default)]
    pub as_snapshot: Option<Name>,
}

impl CommitDelete {
    /// Everything of the cluster stands still: parents, heads and bases all may change.
    pub fn locks_for(cluster: &ClusterId) -> LockSet {
        LockSet::new().cluster(cluster, Hold::Exclusive)
    }

    async fn remove(&mut self, cx: &Cx) -> Result<()> {
        let mut records = Transaction::new();
        for tag in &self.tags {
            records.delete::<Tag>(tag.key());
        }
        for child in &self.children {
            records.put(&Commit { parent: self.commit.parent.clone(), ..child.clone() });
        }
        for branch in &self.heads {
            records.put(&Branch { head: self.commit.parent.clone(), ..branch.clone() });
        }
        let mut tops = commit_layers(&self.commit);
        tops.extend(self.parked.iter().flat_map(branch_layers));
        let gone = Gone {
            branches: self.parked.clone(),
            commits: vec![self.commit.id.clone()],
            records,
            tops,
        };
        let swept = cx.engine.sweep(gone).await?;
        self.freed_bytes += swept.commits.iter().map(|commit| commit.size.0).sum::<u64>();
        let left: Option<Commit> = cx.engine.store.get(self.commit.id.as_str()).await?;
        self.kept_for_others = left.is_some();
        Ok(())
    }
}

#[async_trait]
impl Kind for CommitDelete {
    fn steps(&self) -> &'static [&'static str] {
        &["end parked copies", "remove"]
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.cluster.id)
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        if step == "remove" {
            self.remove(cx).await?;
            return Ok(Transaction::new());
        }
        for parked in &self.parked {
            cx.engine.remove_incarnation(&parked.host_id).await?;
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    /// Files that were removed do not come back.
    async fn direction(&mut self, _: &Cx) -> Result<Direction> {
        Ok(Direction::Forward)
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    fn result(&self, _: &OperationId) -> Value {
        if let Some(name) = &self.as_snapshot {
            return memo(&SnapshotDeleteResult {
                snapshot_name: name.clone(),
                commit_id: self.commit.id.clone(),
                deleted_nodes: self.commit.nodes.iter().map(|node| node.name.clone()).collect(),
                freed_bytes: self.freed_bytes,
            });
        }
        memo(&CommitDeleteResult {
            commit_id: self.commit.id.clone(),
            freed_bytes: self.freed_bytes,
            kept_for_others: self.kept_for_others,
            removed_tags: self.tags.iter().map(|tag| tag.name.clone()).collect(),
        })
    }
}
