//! After a start: unfinished operations first, then intent against fact. Takes no input, and may
//! run twice: the second time there is nothing to do.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pando_driver::host::{EndKind, NodeEnd, StopMode};
use pando_driver::store::{Event, Query, Transaction};
use pando_model::branch::BranchRole;
use pando_model::fault::Fault;
use pando_model::{
    Branch, BranchState, Cluster, Commit, FaultId, Image, Operation, OperationStatus,
};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::locks::{Guard, Hold, LockSet};
use crate::network::working;
use crate::operation::{Kind, outcome};
use crate::ops::image_add::step_aside;
use crate::ops::{self, gc::UNFINISHED};
use pando_api::OperationView;

/// An operation of an earlier daemon.
struct Unfinished {
    operation: Operation,
    kind: Box<dyn Kind>,
    /// Its locks, if they were free.
    guard: Option<Guard>,
    /// For those who wait for it.
    what: String,
}

impl Engine {
    /// Records the images of a home whose database is new: they describe themselves, and were not
    /// cheap. In a home with a past, an image without a record is what a crash has left, and is
    /// for recovery or `gc` to remove.
    pub(crate) async fn adopt_images(&self) -> Result<()> {
        let any = Query { limit: Some(1), ..Query::all() };
        let past: Vec<Operation> = self.store.list(&any).await?;
        let recorded: Vec<Image> = self.store.list(&any).await?;
        if !past.is_empty() || !recorded.is_empty() {
            return Ok(());
        }
        let mut records = Transaction::new();
        let mut names = BTreeSet::new();
        // The newest first: it keeps its name, older ones of the same name step aside.
        for image in self.images.list().await? {
            let image = match names.insert(image.name.clone()) {
                true => image,
                false => step_aside(image)?,
            };
            tracing::info!(image = %image.id, name = %image.name, "found in a new home");
            records.put(&image);
        }
        self.store.write(&records).await?;
        Ok(())
    }

    /// Takes the locks of all unfinished operations, then goes on in the background.
    pub(crate) async fn begin_recovery(&self) -> Result<()> {
        let query = Query { statuses: UNFINISHED.to_vec(), ..Query::all() };
        let unfinished: Vec<Operation> = self.store.list(&query).await?;
        let mut held = Vec::new();
        for operation in unfinished {
            match ops::revive(&operation.verb, &operation.memo) {
                Ok(Some(kind)) => {
                    let what = format!("{} {} (recovering)", operation.verb, operation.id);
                    // They held these locks together before, so they can now.
                    let guard = self.locks.try_acquire(kind.locks(), &what);
                    held.push(Unfinished { operation, kind, guard, what });
                }
                Ok(None) | Err(_) => self.strand(operation).await?,
            }
        }
        let engine = self.clone();
        let busy = self.background.begin();
        self.tasks.spawn(async move {
            let _busy = busy;
            engine.recover(held).await;
            engine.background.set_recovered();
        });
        Ok(())
    }

    async fn recover(&self, held: Vec<Unfinished>) {
        let mut running: Vec<watch::Receiver<OperationView>> = Vec::new();
        for Unfinished { operation, kind, guard, what } in held {
            tracing::info!(operation = %operation.id, verb = operation.verb, "recovering");
            let guard = match guard {
                Some(guard) => Ok(guard),
                None => self.locks.acquire(kind.locks(), &what, self.config.image_timeout).await,
            };
            match guard {
                Ok(guard) => running.push(self.resume_operation(operation, kind, guard)),
                Err(error) => tracing::error!(error = %error.0, what, "cannot be recovered now"),
            }
        }
        for operation in running {
            // How each of them ended is in its record.
            let _ = outcome(operation).await;
        }
        if let Err(error) = self.reconcile().await {
            tracing::error!(error = %error.0, "records could not be compared with the world");
        }
    }

    /// Ends an operation whose memo this pando cannot read.
    async fn strand(&self, mut operation: Operation) -> Result<()> {
        tracing::error!(operation = %operation.id, verb = operation.verb, "is not understood");
        operation.status = OperationStatus::Stuck;
        operation.updated_at = Timestamp::now();
        self.store.write(Transaction::new().put(&operation)).await?;
        Ok(())
    }

    /// Makes records say what is true, and looks after parked copies.
    pub(crate) async fn reconcile(&self) -> Result<()> {
        let branches: Vec<Branch> = self.store.list(&Query::all()).await?;
        for branch in branches {
            let locks = LockSet::new().cluster(&branch.cluster, Hold::Shared).branch(&branch.id);
            // Whoever holds it is changing it, and records what is true at the end.
            let Some(_held) = self.locks.try_acquire(locks, "reconciling") else { continue };
            let now: Option<Branch> = self.store.get(branch.id.as_str()).await?;
            if let Some(branch) = now
                && let Err(error) = self.reconcile_branch(branch).await
            {
                tracing::warn!(error = %error.0, "a branch could not be compared with the world");
            }
        }
        let commits: Vec<Commit> = self.store.list(&Query::all()).await?;
        for commit in commits.iter().filter(|commit| commit.warm > 0 && !commit.deleted) {
            let branches = self.branches_of(&commit.cluster).await?;
            // The copies of a cluster that was put to rest are not wanted before it wakes.
            if branches.iter().any(|branch| branch.state != BranchState::Stopped) {
                self.replenish(&commit.id);
            }
        }
        Ok(())
    }

    /// Returns a branch as it is, whose lock is held: one that should live and has no keeper is
    /// recorded as stopped.
    pub(crate) async fn settled(&self, branch: Branch) -> Result<Branch> {
        if branch.state == BranchState::Stopped
            || self.host.observe(&branch.host_id).await?.is_some()
        {
            return Ok(branch);
        }
        let id = branch.id.clone();
        self.reconcile_branch(branch).await?;
        let branch: Option<Branch> = self.store.get(id.as_str()).await?;
        branch.ok_or_else(|| Failure::not_found("branch", id.as_str()))
    }

    async fn reconcile_branch(&self, branch: Branch) -> Result<()> {
        let observed = self.host.observe(&branch.host_id).await?;
        let stale = observed.as_ref().is_some_and(|seen| seen.generation != branch.generation);
        let dead = observed.as_ref().is_some_and(|seen| seen.state == BranchState::Stopped);
        let unwanted = branch.state == BranchState::Stopped && observed.is_some();
        if stale || dead || unwanted {
            self.host.stop(&branch.host_id, StopMode::Kill).await?;
        }
        let lives = observed.as_ref().filter(|_| !stale && !dead && !unwanted);
        match (branch.role, lives) {
            (BranchRole::Parked | BranchRole::Template, None) => {
                self.remove_incarnation(&branch.host_id).await?;
                let tops = crate::garbage::branch_layers(&branch);
                let gone = crate::garbage::Gone {
                    branches: vec![branch],
                    tops,
                    ..crate::garbage::Gone::default()
                };
                self.sweep(gone).await?;
            }
            (BranchRole::Live, None) if branch.state != BranchState::Stopped => {
                let ends: Vec<NodeEnd> = match observed {
                    Some(seen) => seen.nodes.into_iter().filter_map(|node| node.ended).collect(),
                    None => self.host.ends(&branch.host_id).await?.into_values().collect(),
                };
                self.record_stop(branch, &ends).await?;
            }
            (BranchRole::Live, Some(seen)) if seen.state != branch.state => {
                let branch = Branch { state: seen.state, ..branch };
                self.store.write(Transaction::new().put(&branch)).await?;
            }
            (BranchRole::Live, lives) => self.reconcile_faults(branch, lives.is_some()).await?,
            _ => {}
        }
        Ok(())
    }

    /// Forgets faults that have ended by themselves, and makes a switch that runs obey the others.
    async fn reconcile_faults(&self, branch: Branch, lives: bool) -> Result<()> {
        let faults = working(&branch.faults, Timestamp::now());
        // Also without any: what a switch was told last may come from a daemon that is gone.
        if lives && self.has_network(&branch).await? {
            let observed = self.host.network(&branch.host_id).await?;
            let ids = |faults: &[Fault]| -> BTreeSet<FaultId> {
                faults.iter().map(|fault| fault.id.clone()).collect()
            };
            // One that ends at this moment may have ended for one of the two.
            let now = working(&observed.faults, Timestamp::now());
            if ids(&now) != ids(&working(&faults, Timestamp::now())) {
                tracing::warn!(branch = %branch.id, "its switch has other faults than it should");
                self.host.set_faults(&branch.host_id, &faults).await?;
            }
        }
        if faults.len() < branch.faults.len() {
            let branch = Branch { faults, ..branch };
            self.store.write(Transaction::new().put(&branch)).await?;
        }
        Ok(())
    }

    async fn has_network(&self, branch: &Branch) -> Result<bool> {
        let cluster: Option<Cluster> = self.store.get(branch.cluster.as_str()).await?;
        Ok(cluster.is_some_and(|cluster| !cluster.networks.is_empty()))
    }

    async fn record_stop(&self, branch: Branch, ends: &[NodeEnd]) -> Result<()> {
        let all_ended = ends.len() == branch.nodes.len();
        let powered_off = all_ended && ends.iter().all(|end| end.kind == EndKind::PoweredOff);
        let why = why_stopped(&branch, ends);
        let cluster: Option<Cluster> = self.store.get(branch.cluster.as_str()).await?;
        let name = cluster.map_or_else(|| branch.cluster.to_string(), |c| c.name.to_string());
        let now = Timestamp::now();
        let event = Event {
            id: format!("ev_{:020}_{}", now.as_nanosecond(), branch.id.suffix()),
            at: now,
            cluster: Some(branch.cluster.clone()),
            branch: Some(branch.id.clone()),
            kind: "branch_stopped".to_owned(),
            message: format!("{name}@{} stopped: {why}", branch.name),
        };
        tracing::warn!("{}", event.message);
        let branch = Branch { stopped_because: Some(why), powered_off, ..branch.stopped() };
        self.store.write(Transaction::new().put(&branch).put(&event)).await?;
        Ok(())
    }
}

/// Returns why a branch stopped by itself, by the ends of its machines.
pub fn why_stopped(branch: &Branch, ends: &[NodeEnd]) -> String {
    let crash = ends.iter().find(|end| end.kind == EndKind::Crashed);
    match crash.or(ends.first()) {
        Some(end) if ends.len() == branch.nodes.len() => format!("its machine ended: {}", end.why),
        _ => "its keeper was lost".to_owned(),
    }
}
