//! `vm_usage`: what machines take of their host, and how many commands are waited for in them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use pando_api::usage::{VmUsageParams, VmUsageResult, VmUsageRow};
use pando_driver::store::Query;
use pando_model::{Branch, BranchState, Cluster};

use crate::engine::Engine;
use crate::failure::Result;
use crate::paging::page;

/// Commands that are waited for, by `BRANCH/NODE`.
#[derive(Debug, Default)]
pub(crate) struct Waited(Mutex<BTreeMap<String, u32>>);

/// One of them; dropping it says that it is over.
#[derive(Debug)]
pub(crate) struct Waiting {
    all: Arc<Waited>,
    target: String,
}

impl Waited {
    /// Counts a command from here on.
    pub fn begin(self: &Arc<Self>, target: &str) -> Waiting {
        *self.lock().entry(target.to_owned()).or_default() += 1;
        Waiting { all: Arc::clone(self), target: target.to_owned() }
    }

    fn count(&self, target: &str) -> u32 {
        self.lock().get(target).copied().unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u32>> {
        // Nothing under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.target) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.target);
            }
        }
    }
}

impl Engine {
    pub(super) async fn vm_usage(&self, params: VmUsageParams) -> Result<VmUsageResult> {
        let mut clusters: Vec<Cluster> = match &params.cluster {
            Some(name) => vec![self.cluster(name).await?],
            None => self.store.list(&Query::all()).await?,
        };
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        let mut live = Vec::new();
        for cluster in clusters {
            let mut branches = self.branches_of(&cluster.id).await?;
            branches.retain(|branch| branch.state != BranchState::Stopped);
            branches.sort_by(|a, b| a.name.cmp(&b.name));
            live.extend(branches.into_iter().map(|branch| (cluster.clone(), branch)));
        }
        // Only the branches of this page are looked at.
        let cursor = params.cursor.as_deref();
        let (live, page) = page(live, params.limit, cursor, |(_, branch)| branch.id.to_string())?;
        let mut nodes = Vec::new();
        for (cluster, branch) in &live {
            nodes.extend(self.usage(cluster, branch).await?);
        }
        Ok(VmUsageResult { counted_at: Timestamp::now(), nodes, page })
    }

    /// Returns what the nodes of a branch take; nothing for one whose keeper was lost.
    async fn usage(&self, cluster: &Cluster, branch: &Branch) -> Result<Vec<VmUsageRow>> {
        let Some(seen) = self.host.measure(&branch.host_id).await? else { return Ok(Vec::new()) };
        let rows = seen.nodes.iter().filter_map(|node| {
            let def = cluster.nodes.iter().find(|def| def.name == node.name)?;
            Some(VmUsageRow {
                address: format!("{}@{}/{}", cluster.name, branch.name, node.name),
                cluster_id: cluster.id.clone(),
                branch_id: branch.id.clone(),
                node: node.name.clone(),
                state: node.state,
                uptime_ms: node.up_ms,
                vcpus: def.shape.vcpus,
                cpu_ms: node.cpu_ms,
                memory_mib: def.shape.memory.mib(),
                host_memory_bytes: node.memory_used.unwrap_or_default().0,
                host_disk_bytes: node.disk_used.0,
                keeper_memory_bytes: seen.keeper_memory.unwrap_or_default().0,
                keeper_cpu_ms: seen.keeper_cpu_ms,
                commands: self.waited.count(&format!("{}/{}", branch.id, node.name)),
            })
        });
        Ok(rows.collect())
    }
}
