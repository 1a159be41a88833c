//! `vm_delete`: stop all branches of a cluster; with `remove_overlays`, also remove its disks,
//! commits, keys and name.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use pando_api::cluster::ClusterDestroyResult;
use pando_api::machine::VmDeleteResult;
use pando_driver::host::StopMode;
use pando_driver::store::{Record, Transaction};
use pando_model::branch::{BranchRole, Checkout};
use pando_model::commit::Tag;
use pando_model::{Branch, BranchState, Cluster, ClusterId, ClusterState, Commit, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Result;
use crate::garbage::{Gone, branch_layers, commit_layers};
use crate::keys;
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Direction, Kind, memo};
use crate::verbs::clusters::off;

/// How long guests may take to shut down before they are killed.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Guests that shut down at the same time: they mostly wait.
const STOPS_AT_ONCE: usize = 16;

#[derive(Serialize, Deserialize)]
pub(crate) struct VmDelete {
    pub cluster: Cluster,
    /// All its branches, parked copies included.
    pub branches: Vec<Branch>,
    pub commits: Vec<Commit>,
    pub tags: Vec<Tag>,
    pub checkouts: Vec<Checkout>,
    pub remove: bool,
    pub force: bool,
    /// Whether it was asked for as `cluster_destroy`.
    #[serde(default)]
    pub as_cluster: bool,
}

impl VmDelete {
    pub fn locks_for(cluster: &ClusterId) -> LockSet {
        LockSet::new().cluster(cluster, Hold::Exclusive)
    }

    /// What goes: everything, or the parked copies only, which are memory and nothing else.
    fn going(&self) -> impl Iterator<Item = &Branch> {
        let remove = self.remove;
        self.branches.iter().filter(move |branch| remove || branch.role == BranchRole::Parked)
    }

    fn staying(&self) -> impl Iterator<Item = &Branch> {
        let remove = self.remove;
        self.branches.iter().filter(move |branch| !remove && branch.role != BranchRole::Parked)
    }

    async fn stop_one(&self, branch: &Branch, cx: &Cx) -> Result<()> {
        let graceful = !self.remove && !self.force && branch.state == BranchState::Running;
        let mode = match graceful {
            true => StopMode::Shutdown { timeout: SHUTDOWN },
            false => StopMode::Kill,
        };
        Ok(cx.engine.host.stop(&branch.host_id, mode).await?)
    }

    async fn stop(&self, cx: &Cx) -> Result<()> {
        let total = self.branches.len() as u64;
        let mut stops = Vec::with_capacity(self.branches.len());
        for branch in &self.branches {
            stops.push(self.stop_one(branch, cx));
        }
        let mut stopping = futures_util::stream::iter(stops).buffer_unordered(STOPS_AT_ONCE);
        let mut done = 0;
        while let Some(stopped) = stopping.next().await {
            stopped?;
            done += 1;
            cx.reporter.report("stopping branches", done, total);
        }
        drop(stopping);
        for branch in self.going() {
            cx.engine.host.discard_branch(&branch.host_id).await?;
        }
        Ok(())
    }

    async fn remove(&self, cx: &Cx) -> Result<()> {
        let mut records = Transaction::new();
        if self.remove {
            for tag in &self.tags {
                records.delete::<Tag>(tag.key());
            }
            for checkout in &self.checkouts {
                records.delete::<Checkout>(checkout.key());
            }
            keys::remove_cluster_key(&cx.engine.config.layout, &self.cluster.id)?;
        }
        let gone = self.remove.then_some(&self.commits).into_iter().flatten();
        let mut tops: Vec<_> = self.going().flat_map(branch_layers).collect();
        tops.extend(gone.clone().flat_map(commit_layers));
        cx.engine
            .sweep(Gone {
                branches: self.going().cloned().collect(),
                commits: gone.map(|commit| commit.id.clone()).collect(),
                records,
                tops,
            })
            .await?;
        Ok(())
    }
}

#[async_trait]
impl Kind for VmDelete {
    fn steps(&self) -> &'static [&'static str] {
        &["stop", "remove"]
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

    fn intent(&self) -> Transaction {
        let mut records = Transaction::new();
        if self.remove {
            records.put(&Cluster { state: ClusterState::Deleting, ..self.cluster.clone() });
        }
        records
    }

    fn revert(&self) -> Transaction {
        let mut records = Transaction::new();
        records.put(&self.cluster);
        records
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "stop" => self.stop(cx).await?,
            _ => self.remove(cx).await?,
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    /// Memory that was let go does not come back.
    async fn direction(&mut self, _: &Cx) -> Result<Direction> {
        Ok(Direction::Forward)
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        let mut records = Transaction::new();
        if self.remove {
            records.delete::<Cluster>(self.cluster.key());
        }
        for branch in self.staying() {
            records.put(&branch.stopped());
        }
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let stopped = self.branches.iter().filter(|branch| {
            branch.role == BranchRole::Live && branch.state != BranchState::Stopped
        });
        let kept = self.commits.iter().filter(|commit| !self.remove && !commit.deleted);
        if self.as_cluster {
            return memo(&ClusterDestroyResult {
                cluster_name: self.cluster.name.clone(),
                cluster_id: self.cluster.id.clone(),
                network_active: false,
                nodes: self.cluster.nodes.iter().map(|def| off(&self.cluster, def)).collect(),
                stopped_branches: count(stopped.count()),
                kept_commits: count(kept.count()),
                removed_overlays: self.remove,
            });
        }
        memo(&VmDeleteResult {
            cluster_id: self.cluster.id.clone(),
            name: self.cluster.name.clone(),
            stopped_branches: count(stopped.count()),
            kept_commits: count(kept.count()),
            removed_overlays: self.remove,
        })
    }

    fn remedy(&self, _: &OperationId) -> String {
        match self.remove {
            true => format!("pando vm rm {} --remove-overlays --force", self.cluster.name),
            false => format!("pando vm rm {}", self.cluster.name),
        }
    }
}
