//! Work that nobody waits for: making a commit's memory mappable, keeping parked copies ready,
//! shortening disk chains. All of it may be lost to a crash and is done again when it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pando_driver::Reporter;
use pando_driver::store::Query;
use pando_model::branch::BranchRole;
use pando_model::commit::{Below, Layer};
use pando_model::disk::DiskRole;
use pando_model::limits::MAX_CHAIN_LAYERS;
use pando_model::{Branch, BranchId, BranchState, Cluster, Commit, CommitId, LayerId};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::failure::Result;
use crate::locks::{Hold, LockSet};
use crate::operation::{Plan, Request, outcome};
use crate::ops::flatten::{self, Flatten};
use crate::ops::park::{self, Park};
use crate::resolve::must_stay;

/// Who the engine's own operations are by.
const ACTOR: &str = "pando";

/// What runs in the background.
pub(crate) struct Background {
    /// Operations and background tasks under way.
    busy: watch::Sender<usize>,
    recovered: watch::Sender<bool>,
    /// The newest commit of each branch that waits to be made mappable.
    commits: Mutex<BTreeMap<BranchId, CommitId>>,
    /// Commits whose parked copies are being looked after.
    replenishing: Mutex<BTreeSet<CommitId>>,
}

impl Default for Background {
    fn default() -> Self {
        Self {
            busy: watch::Sender::new(0),
            recovered: watch::Sender::new(false),
            commits: Mutex::default(),
            replenishing: Mutex::default(),
        }
    }
}

/// Counts as work until it is dropped.
pub(crate) struct Busy(watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Background {
    pub fn begin(&self) -> Busy {
        self.busy.send_modify(|count| *count += 1);
        Busy(self.busy.clone())
    }

    pub async fn idle(&self) {
        // The sender is `self`'s, so this only ends by the condition.
        let _ = self.busy.subscribe().wait_for(|count| *count == 0).await;
    }

    pub fn set_recovered(&self) {
        self.recovered.send_replace(true);
    }

    pub async fn recovered(&self) {
        // As above.
        let _ = self.recovered.subscribe().wait_for(|recovered| *recovered).await;
    }
}

impl Engine {
    /// Spawns work that nobody waits for; a shutdown ends it, and its failure is only logged.
    fn in_background(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let busy = self.background.begin();
        let ending = self.ending.clone();
        self.tasks.spawn(async move {
            let _busy = busy;
            // Losing the work is what this module's work is for.
            tokio::select! {
                () = ending.cancelled() => {}
                result = work => if let Err(error) = result {
                    tracing::warn!(what, error = %error.0, "will be tried again when needed");
                }
            }
        });
    }

    /// Compares records with the world, soon.
    pub(crate) fn reconcile_soon(&self) {
        let engine = self.clone();
        self.in_background("reconciling", async move { engine.reconcile().await });
    }

    /// Does what follows a commit.
    pub(crate) fn after_commit(&self, commit: &CommitId, branch: &BranchId) {
        let waiting = locked(&self.background.commits).insert(branch.clone(), commit.clone());
        if waiting.is_none() {
            let (engine, branch) = (self.clone(), branch.clone());
            self.in_background("memory of a commit", async move {
                engine.make_mappable(&branch).await?;
                engine.flatten_if_deep(&branch).await
            });
        }
        self.replenish(commit);
    }

    /// Makes the newest commit of a branch mappable; those that came before it only when they are
    /// needed.
    async fn make_mappable(&self, branch: &BranchId) -> Result<()> {
        let locks = LockSet::new().with("memory in the background", Hold::Exclusive);
        // One at a time: this competes with guests for the disk.
        let wait = self.config.image_timeout;
        let _turn = self.locks.acquire(locks, "making memory mappable", wait).await;
        let Some(id) = locked(&self.background.commits).remove(branch) else { return Ok(()) };
        let Some(commit): Option<Commit> = self.store.get(id.as_str()).await? else {
            return Ok(());
        };
        let locks = LockSet::new().cluster(&commit.cluster, Hold::Shared).commit(&id);
        let _held = self.locks.acquire(locks, "making memory mappable", wait).await?;
        // Read again under the lock: a deleted commit's memory would belong to nobody.
        let commit: Option<Commit> = self.store.get(id.as_str()).await?;
        if let Some(commit) = commit.filter(|commit| !commit.deleted) {
            self.materialise(&commit, &Reporter::silent()).await?;
            self.host.trim_memory(self.config.memory_cache).await?;
        }
        Ok(())
    }

    async fn flatten_if_deep(&self, id: &BranchId) -> Result<()> {
        let Some(branch): Option<Branch> = self.store.get(id.as_str()).await? else {
            return Ok(());
        };
        let mut disks = Vec::new();
        for node in &branch.nodes {
            disks.extend(node.layers.disks().map(|(disk, top)| (&node.name, disk, top)));
        }
        for (node, disk, top) in disks {
            // The firmware's variables are too small for the length of their chain to matter.
            if disk == DiskRole::Firmware || self.layer(top).await?.depth < MAX_CHAIN_LAYERS {
                continue;
            }
            let wait = self.config.lock_wait;
            let locks = Flatten::locks_for(&branch);
            let guard = self.locks.acquire(locks, "shortening a disk chain", wait).await?;
            let Some(branch): Option<Branch> = self.store.get(id.as_str()).await? else {
                return Ok(());
            };
            let now = branch.nodes.iter().find(|now| now.name == *node);
            let now = now.and_then(|now| now.layers.get(disk));
            let (Some(now), BranchState::Running) = (now, branch.state) else { return Ok(()) };
            let top = self.layer(now).await?;
            let keep = self.bottom(&top).await?;
            let node = node.clone();
            let kind = Box::new(Flatten { branch, node, disk, top, keep });
            let plan = Plan { kind, guard, timeout: self.config.image_timeout };
            outcome(self.submit(Request::internal(flatten::VERB, ACTOR), plan).await?).await?;
        }
        Ok(())
    }

    /// Returns what is at the bottom of a chain: its image, or the first layer of a disk without one.
    async fn bottom(&self, top: &Layer) -> Result<Below> {
        let mut below = top.below.clone();
        let mut seen: BTreeSet<LayerId> = BTreeSet::new();
        while let Below::Layer(id) = &below {
            if !seen.insert(id.clone()) {
                return Err(crate::failure::Failure::internal(format!("{id} lies on itself")));
            }
            match self.layer(id).await?.below {
                Below::Nothing => break,
                next => below = next,
            }
        }
        Ok(below)
    }

    /// Makes parked copies of a warm commit until there are as many as it wants, or as the budget
    /// allows.
    pub(crate) fn replenish(&self, commit: &CommitId) {
        self.replenish_after(commit, Duration::ZERO);
    }

    /// The same, once whoever took a copy had some time alone.
    pub(crate) fn replenish_later(&self, commit: &CommitId) {
        self.replenish_after(commit, self.config.replenish_after);
    }

    fn replenish_after(&self, commit: &CommitId, delay: Duration) {
        if !locked(&self.background.replenishing).insert(commit.clone()) {
            return;
        }
        let (engine, id) = (self.clone(), commit.clone());
        self.in_background("parked copies", async move {
            tokio::time::sleep(delay).await;
            let result = engine.park_missing(&id).await;
            locked(&engine.background.replenishing).remove(&id);
            result
        });
    }

    async fn park_missing(&self, id: &CommitId) -> Result<()> {
        loop {
            let commit: Option<Commit> = self.store.get(id.as_str()).await?;
            let Some(commit) = commit.filter(|commit| commit.warm > 0 && !commit.deleted) else {
                return Ok(());
            };
            let locks = Park::locks_for(&commit);
            let wait = self.config.lock_wait;
            let guard = self.locks.acquire(locks, "parking a copy", wait).await?;
            // Read again under the lock: it may be on its way out.
            let commit: Option<Commit> = self.store.get(id.as_str()).await?;
            let Some(commit) = commit.filter(|commit| !commit.deleted) else { return Ok(()) };
            let Some(cluster): Option<Cluster> = self.store.get(commit.cluster.as_str()).await?
            else {
                return Ok(());
            };
            if must_stay(&cluster).is_err() {
                return Ok(());
            }
            let all = self.parked().await?;
            let own = all.iter().filter(|branch| branch.head.as_ref() == Some(id)).count();
            let machines = commit.nodes.len();
            let parked: usize = all.iter().map(|branch| branch.nodes.len()).sum();
            if own >= commit.warm as usize || parked + machines > self.config.max_parked {
                return Ok(());
            }
            self.check_memory(machines, "a parked copy").await?;
            self.materialise(&commit, &Reporter::silent()).await?;
            let kind = Box::new(Park::plan(self, cluster, commit).await?);
            let plan = Plan { kind, guard, timeout: self.config.restore_timeout };
            outcome(self.submit(Request::internal(park::VERB, ACTOR), plan).await?).await?;
        }
    }

    /// Returns all parked copies.
    pub(crate) async fn parked(&self) -> Result<Vec<Branch>> {
        let query = Query { statuses: vec!["parked"], ..Query::all() };
        let parked: Vec<Branch> = self.store.list(&query).await?;
        Ok(parked.into_iter().filter(|branch| branch.role == BranchRole::Parked).collect())
    }
}
