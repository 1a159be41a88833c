//! `gc` and `system_status`.

use pando_api::system::{CapacityView, Counts, GcParams, SystemStatusResult};
use pando_driver::store::{Query, Table};

use super::Planned;
use crate::engine::Engine;
use crate::failure::Result;
use crate::operation::Plan;
use crate::ops::gc::{Gc, UNFINISHED};

impl Engine {
    pub(super) async fn plan_gc(&self, params: &GcParams) -> Result<Planned> {
        let guard = self.hold(Gc::locks(), "gc").await?;
        let kind = Gc { dry_run: params.dry_run, found: Vec::new() };
        Ok(Plan { kind: Box::new(kind), guard, timeout: self.config.image_timeout }.into())
    }

    async fn counts(&self) -> Result<Counts> {
        let with =
            |statuses: &[&'static str]| Query { statuses: statuses.to_vec(), ..Query::all() };
        let count = async |table, query: Query| self.store.count(table, &query).await;
        Ok(Counts {
            clusters: count(Table::Clusters, Query::all()).await?,
            branches: count(Table::Branches, with(&["running", "paused", "stopped"])).await?,
            running: count(Table::Branches, with(&["running"])).await?,
            paused: count(Table::Branches, with(&["paused"])).await?,
            commits: count(Table::Commits, with(&["kept"])).await?,
            images: count(Table::Images, Query::all()).await?,
            operations: count(Table::Operations, with(&UNFINISHED)).await?,
            stuck_operations: count(Table::Operations, with(&["stuck"])).await?,
        })
    }

    pub(super) async fn system_status(&self) -> Result<SystemStatusResult> {
        let counts = self.counts().await?;
        let capacity = self.host.capacity().await?;
        let profile = self.host.profile().await;
        let mut warnings = Vec::new();
        if counts.stuck_operations > 0 {
            let count = counts.stuck_operations;
            warnings.push(format!(
                "{count} operations are stuck: `pando operation list --status stuck`"
            ));
        }
        if capacity.disk_free < self.config.disk_reserve {
            warnings.push(format!("only {} of disk is free: `pando gc`", capacity.disk_free));
        }
        if let Err(error) = &profile {
            warnings.push(format!("no machine can be started: {error}"));
        }
        Ok(SystemStatusResult {
            version: self.config.version.clone(),
            pid: std::process::id(),
            home: self.config.layout.home().display().to_string(),
            url: self.config.url.clone(),
            started_at: self.started_at,
            counts,
            capacity: CapacityView {
                memory_total_mib: capacity.memory_total.mib(),
                memory_available_mib: capacity.memory_available.mib(),
                disk_total_mib: capacity.disk_total.mib(),
                disk_free_mib: capacity.disk_free.mib(),
                processors: capacity.processors,
            },
            profile: profile.ok(),
            warnings,
        })
    }
}
