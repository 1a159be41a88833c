//! `cluster_define`: a cluster's record, its keys to come, and one fresh branch whose disks lie on
//! its images' ready states. Nothing runs.

use async_trait::async_trait;
use pando_api::cluster::{ClusterDefineResult, ClusterStatusResult};
use pando_api::topology::Drift;
use pando_driver::store::{Record, Transaction};
use pando_model::{Branch, Cluster, ClusterId, ClusterState, CommitId, Name, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::incarnation::Disks;
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Kind, memo};
use crate::verbs::clusters::resting;

#[derive(Serialize, Deserialize)]
pub(crate) struct ClusterDefine {
    pub cluster: Cluster,
    pub branch: Branch,
    /// Nodes whose images read cloud-config in a first boot of their own.
    pub cold: Vec<Name>,
    pub disks: Disks,
    /// The cluster exists: this is how it differs, and nothing is done.
    pub drift: Option<Vec<Drift>>,
    /// What it does then.
    #[serde(default)]
    pub seen: Option<ClusterStatusResult>,
    pub notes: Vec<String>,
    pub branches: u32,
    pub running: u32,
    pub started_us: i64,
}

impl ClusterDefine {
    pub fn locks_for(name: &Name) -> LockSet {
        LockSet::new().with(format!("cluster `{name}`"), Hold::Exclusive)
    }

    pub fn locks_to_make(cluster: &Cluster) -> LockSet {
        let set = Self::locks_for(&cluster.name).cluster(&cluster.id, Hold::Exclusive);
        cluster.nodes.iter().fold(set, |set, node| set.image(&node.image, Hold::Shared))
    }

    /// Returns the disks of a node and the ready state that they lie on.
    async fn prepare(&self, number: usize, cx: &Cx) -> Result<(Disks, Option<CommitId>)> {
        let def = self.cluster.nodes.get(number);
        let def = def.ok_or_else(|| Failure::internal("a node that is not there"))?;
        let image = cx.engine.image(&def.image).await?;
        if self.cold.contains(&def.name) {
            return Ok((Disks::on_image(def, &image), None));
        }
        let ready = cx.engine.ensure_ready(&image, &def.shape, cx).await?;
        let disks = cx.engine.disks_on_commit(&ready, Some(&def.name)).await?;
        Ok((disks, Some(ready.id)))
    }

    /// Waits for the images' ready states. The disks are named and written before their files are
    /// made.
    async fn wait_for_ready(&mut self, cx: &Cx) -> Result<Transaction> {
        let mut disks = Disks::default();
        let total = self.cluster.nodes.len() as u64;
        for number in 0..self.cluster.nodes.len() {
            cx.reporter.report("waiting for ready states", number as u64, total);
            let (mut own, ready) = self.prepare(number, cx).await?;
            own.nodes.iter_mut().for_each(|node| node.ready.clone_from(&ready));
            disks.extend(own);
        }
        self.branch.nodes.clone_from(&disks.nodes);
        self.disks = disks;
        let mut records = Transaction::new();
        records.put(&self.branch);
        Ok(records)
    }
}

#[async_trait]
impl Kind for ClusterDefine {
    fn steps(&self) -> &'static [&'static str] {
        match self.drift {
            Some(_) => &[],
            None => &["ready states", "disks"],
        }
    }

    fn locks(&self) -> LockSet {
        match self.drift {
            Some(_) => Self::locks_for(&self.cluster.name),
            None => Self::locks_to_make(&self.cluster),
        }
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    fn intent(&self) -> Transaction {
        let mut records = Transaction::new();
        if self.drift.is_none() {
            records.put(&self.cluster).put(&self.branch);
        }
        records
    }

    fn revert(&self) -> Transaction {
        let mut records = Transaction::new();
        if self.drift.is_none() {
            records.delete::<Cluster>(self.cluster.key()).delete::<Branch>(self.branch.key());
        }
        records
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "ready states" => return self.wait_for_ready(cx).await,
            _ => self.disks.create(&cx.engine).await?,
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        if step == "disks" {
            self.disks.discard(&cx.engine).await?;
        }
        Ok(Transaction::new())
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        let mut records = Transaction::new();
        if self.drift.is_some() {
            return Ok(records);
        }
        self.cluster.state = ClusterState::Ready;
        records.put(&self.cluster).put(&self.branch);
        for layer in &self.disks.layers {
            records.put(layer);
        }
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        let counts = (self.branches, self.running);
        let digest = self.cluster.topology.as_ref().map(|source| source.digest.clone());
        memo(&ClusterDefineResult {
            status: self
                .seen
                .clone()
                .unwrap_or_else(|| resting(&self.cluster, &self.branch, counts)),
            created: self.drift.is_none(),
            topology_digest: digest.unwrap_or_default(),
            drift: self.drift.clone().unwrap_or_default(),
            notes: self.notes.clone(),
            duration_ms: super::elapsed_ms(self.started_us),
        })
    }
}
