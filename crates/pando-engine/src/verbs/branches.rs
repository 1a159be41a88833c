//! `branch_create`, `branch_list`, `branch_checkout`, `branch_rollback`, `branch_delete`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use pando_api::branch::{
    BranchCheckoutParams, BranchCreateParams, BranchDeleteParams, BranchListParams,
    BranchListResult, BranchRollbackParams, BranchRow,
};
use pando_api::{ApiError, Caller};
use pando_driver::host::Observation;
use pando_driver::store::Query;
use pando_model::branch::Checkout;
use pando_model::commit::Tag;
use pando_model::{Branch, BranchState, Cluster, ClusterId, Commit, CommitKind, ErrorCode, Name};

use super::{Planned, now_us};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::faults::faults_at;
use crate::incarnation::{Disks, random_hex};
use crate::kernel;
use crate::locks::{Guard, Hold, LockSet};
use crate::operation::Plan;
use crate::ops::branch_create::{BranchCreate, Item, Origin, new_branch};
use crate::ops::branch_delete::BranchDelete;
use crate::ops::checkout::BranchCheckout;
use crate::ops::cut::Cut;
use crate::ops::rollback::Rollback;
use crate::paging::page;
use crate::resolve::{Source, must_stay};

impl Engine {
    pub(super) async fn plan_branch_create(
        &self,
        caller: &Caller,
        params: BranchCreateParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let source = self.source(&caller.principal, params.from.as_ref()).await?;
        let (cluster, locks) = match &source {
            Source::Branch(place) => {
                (place.cluster.clone(), LockSet::new().branch(&place.branch.id))
            }
            Source::Commit(cluster, commit) => (cluster.clone(), LockSet::new().commit(&commit.id)),
        };
        kernel::must_decide_by_seed(&cluster, params.seed)?;
        let locks = locks.cluster(&cluster.id, Hold::Shared);
        let mut guard = self.hold(locks, "branch_create").await?;
        let (cut, commit) = match source {
            Source::Branch(place) => {
                let place = self.again(place).await?;
                let kind = match place.branch.state {
                    BranchState::Stopped => CommitKind::Disk,
                    _ => CommitKind::Full,
                };
                let mut cut = Cut::plan(self, place.cluster, place.branch, kind).await?;
                cut.message = "branch point".to_owned();
                (Some(cut), None)
            }
            Source::Commit(cluster, commit) => {
                // Again, under the lock.
                must_stay(&self.cluster(cluster.id.as_str()).await?)?;
                (None, Some(self.commit_by_id(&commit.id).await?))
            }
        };
        let names = self.new_names(&cluster.id, &params).await?;
        let count = names.len();
        self.check_disk("a new branch").await?;
        self.check_kernel(&cluster, &[]).await?;
        self.check_memory(count * cluster.nodes.len(), "a new branch").await?;
        if let Some(commit) = &commit {
            self.must_fit(commit).await?;
        }
        let mut items = Vec::with_capacity(count);
        for name in names {
            let item = match (&cut, &commit) {
                (Some(cut), _) => self.item_from_cut(cut, name, &caller.principal).await?,
                (None, Some(commit)) => {
                    let warm = !params.exact && !params.frozen_clock;
                    let parked = if warm { self.claim(commit, &mut guard).await? } else { None };
                    self.item_from_commit(&cluster, commit, name, parked, &caller.principal).await?
                }
                (None, None) => return Err(Failure::internal("nothing to branch from")),
            };
            items.push(item);
        }
        let kind = BranchCreate {
            cluster,
            cut,
            commit,
            items,
            frozen_clock: params.frozen_clock,
            paused: params.paused,
            seed: params.seed,
            started_us,
        };
        let timeout = self.config.cut_timeout
            + self.config.restore_timeout * u32::try_from(count + 1).unwrap_or(u32::MAX);
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    /// Returns the names that are asked for, or free ones: `try-1`, `try-2`, …
    async fn new_names(
        &self,
        cluster: &ClusterId,
        params: &BranchCreateParams,
    ) -> Result<Vec<Name>> {
        let taken: BTreeSet<Name> =
            self.branches_of(cluster).await?.into_iter().map(|branch| branch.name).collect();
        let asked: Vec<Name> = params.name.iter().chain(&params.names).cloned().collect();
        if let Some(name) = asked.iter().find(|name| taken.contains(name)) {
            let message = format!("there is a branch `{name}` already");
            return Err(ApiError::new(ErrorCode::AlreadyExists, message)
                .subject(name.as_str())
                .hint("choose another name, or delete that branch")
                .into());
        }
        let tags: Vec<Tag> = self.store.list(&Query::scope(cluster.as_str())).await?;
        let tags: BTreeSet<Name> = tags.into_iter().map(|tag| tag.name).collect();
        if let Some(name) = asked.iter().find(|name| tags.contains(name)) {
            return Err(two_meanings("tag", name, "a tag is removed with `pando tag delete`"));
        }
        if !asked.is_empty() {
            return Ok(asked);
        }
        let count = params.count.unwrap_or(1) as usize;
        let free = (1u32..)
            .filter_map(|n| format!("try-{n}").parse::<Name>().ok())
            .filter(|name| !taken.contains(name) && !tags.contains(name));
        Ok(free.take(count).collect())
    }

    /// Refuses a name for a tag that `CLUSTER@NAME` would then mean beside a branch.
    pub(super) async fn must_be_no_branch(&self, cluster: &ClusterId, name: &Name) -> Result<()> {
        let branches = self.branches_of(cluster).await?;
        if branches.iter().any(|branch| branch.name == *name) {
            return Err(two_meanings("branch", name, "choose another name"));
        }
        Ok(())
    }

    /// Refuses a commit that this host cannot restore.
    async fn must_fit(&self, commit: &Commit) -> Result<()> {
        let here = self.host.profile().await?;
        for profile in commit.nodes.iter().filter_map(|node| node.profile.as_ref()) {
            if let Some(difference) = profile.difference(&here) {
                let message = format!("{} needs {difference}", commit.id);
                return Err(ApiError::new(ErrorCode::Incompatible, message)
                    .subject(commit.id.as_str())
                    .hint("its disk can still be used: commit it with `kind: disk` where it runs")
                    .into());
            }
        }
        Ok(())
    }

    /// Takes a parked copy of a commit, and its lock, if one is free.
    async fn claim(&self, commit: &Commit, guard: &mut Guard) -> Result<Option<Branch>> {
        if commit.warm == 0 {
            return Ok(None);
        }
        let here = self.parked().await?;
        for parked in here.into_iter().filter(|parked| parked.base.as_ref() == Some(&commit.id)) {
            let locks = LockSet::new().branch(&parked.id);
            if !guard.extend(locks, "branch_create") {
                continue;
            }
            // One that has just died is replaced soon, and no reason to fail.
            let seen = self.host.observe(&parked.host_id).await;
            if matches!(seen, Ok(Some(seen)) if seen.state == BranchState::Paused) {
                return Ok(Some(parked));
            }
            self.reconcile_soon();
        }
        Ok(None)
    }

    async fn item_from_cut(&self, cut: &Cut, name: Name, actor: &str) -> Result<Item> {
        let disks = self.disks_on_branch(&cut.branch).await?;
        let origin = Origin {
            cluster: &cut.cluster,
            parent: &cut.branch.id,
            commit: &cut.commit,
            kind: cut.kind,
            faults: &cut.branch.faults,
        };
        Ok(Item::new(new_branch(&origin, name, &disks, actor), disks, None))
    }

    async fn item_from_commit(
        &self,
        cluster: &Cluster,
        commit: &Commit,
        name: Name,
        parked: Option<Branch>,
        actor: &str,
    ) -> Result<Item> {
        let origin = Origin {
            cluster,
            parent: &commit.branch,
            commit: &commit.id,
            kind: commit.kind,
            faults: &faults_at(cluster, commit, Timestamp::now()),
        };
        if let Some(parked) = parked {
            let fresh = new_branch(&origin, name, &Disks::default(), actor);
            let branch = Branch {
                id: parked.id.clone(),
                host_id: parked.host_id.clone(),
                nodes: parked.nodes.clone(),
                generation: parked.generation,
                keeper_token: parked.keeper_token.clone(),
                advanced_ms: parked.advanced_ms,
                state: BranchState::Paused,
                ..fresh
            };
            return Ok(Item::new(branch, Disks::default(), Some(parked)));
        }
        let disks = self.disks_on_commit(commit, None).await?;
        Ok(Item::new(new_branch(&origin, name, &disks, actor), disks, None))
    }

    pub(super) async fn plan_branch_checkout(
        &self,
        caller: &Caller,
        params: BranchCheckoutParams,
    ) -> Result<Planned> {
        let place = self.place(&caller.principal, Some(&params.branch)).await?;
        let previous = self.current(&caller.principal, &place.cluster).await?;
        let locks = BranchCheckout::locks_for(&place.cluster, &place.branch, &previous);
        let guard = self.hold(locks, "branch_checkout").await?;
        let place = self.again(place).await?;
        let previous: Option<Branch> = self.store.get(previous.id.as_str()).await?;
        let previous = previous.unwrap_or_else(|| place.branch.clone());
        let scope = Query::scope(place.cluster.id.as_str());
        let checkouts: Vec<Checkout> = self.store.list(&scope).await?;
        let elsewhere = checkouts.iter().any(|checkout| {
            checkout.branch == previous.id && checkout.principal != caller.principal
        });
        let pause = !params.keep
            && !elsewhere
            && previous.id != place.branch.id
            && previous.state == BranchState::Running;
        if place.branch.state == BranchState::Stopped {
            self.check_memory(place.cluster.nodes.len(), "a start").await?;
        }
        if place.branch.fresh {
            let message = format!("{} was never started", place.address());
            return Err(Failure::new(ErrorCode::WrongState, message)
                .hint(format!("start it first: `pando cluster start {}`", place.address())));
        }
        let kind =
            BranchCheckout::plan(place.cluster, &caller.principal, place.branch, previous, pause);
        let timeout = self.config.first_boot_timeout + self.config.undo_timeout;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    pub(super) async fn plan_branch_rollback(
        &self,
        caller: &Caller,
        params: BranchRollbackParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let (kind, guard) = self.rollback(caller, params, "branch_rollback", started_us).await?;
        let timeout = self.config.cut_timeout + self.config.restore_timeout * 2;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    /// Returns a rollback, with its locks.
    pub(super) async fn rollback(
        &self,
        caller: &Caller,
        params: BranchRollbackParams,
        verb: &str,
        started_us: i64,
    ) -> Result<(Rollback, Guard)> {
        let place = self.place(&caller.principal, params.branch.as_ref()).await?;
        let (owner, target) = self.commit_named(&params.target, Some(&place.cluster)).await?;
        if owner.id != place.cluster.id {
            let message = format!(
                "{} is a commit of {}, not of {}",
                target.id, owner.name, place.cluster.name
            );
            return Err(ApiError::parameter("target", message).into());
        }
        let locks = LockSet::new()
            .cluster(&place.cluster.id, Hold::Shared)
            .branch(&place.branch.id)
            .commit(&target.id);
        let mut guard = self.hold(locks, verb).await?;
        let place = self.again(place).await?;
        let target = self.commit_by_id(&target.id).await?;
        self.check_memory(place.cluster.nodes.len(), "a rollback").await?;
        self.check_disk("a rollback").await?;
        self.must_fit(&target).await?;
        let before = place.branch.clone();
        let (save, save_note) = match params.save {
            false => (None, None),
            true => {
                let message = format!("before the rollback to {}", params.target);
                let (cut, note) = self.save_before(&place.cluster, &before, message).await?;
                (Some(cut), note)
            }
        };
        let parked = if params.exact { None } else { self.claim(&target, &mut guard).await? };
        let parked = parked.filter(|parked| parked.generation > before.generation);
        let disks = match &parked {
            Some(_) => Disks::default(),
            None => self.disks_on_commit(&target, None).await?,
        };
        let (host_id, nodes, keeper_token, generation) = match &parked {
            Some(parked) => (
                parked.host_id.clone(),
                parked.nodes.clone(),
                parked.keeper_token.clone(),
                parked.generation,
            ),
            None => (
                pando_model::BranchId::random(),
                disks.nodes.clone(),
                random_hex(),
                before.generation + 1,
            ),
        };
        let after = Branch {
            host_id,
            nodes,
            keeper_token,
            generation,
            base: (target.kind == CommitKind::Full).then(|| target.id.clone()),
            delta_base: None,
            head: Some(target.id.clone()),
            unchanged: false,
            fresh: false,
            faults: faults_at(&place.cluster, &target, Timestamp::now()),
            stopped_because: None,
            powered_off: false,
            ..before.clone()
        };
        let kind = Rollback {
            cluster: place.cluster,
            target,
            before,
            after,
            save,
            save_note,
            disks,
            parked,
            started_us,
            ready_ms: 0,
            inherited: Vec::new(),
            swapped: false,
            unmade: false,
            as_snapshot: None,
        };
        Ok((kind, guard))
    }

    /// Returns the cut that saves what can be saved of a branch, and what else there was.
    async fn save_before(
        &self,
        cluster: &Cluster,
        branch: &Branch,
        message: String,
    ) -> Result<(Cut, Option<String>)> {
        let (kind, live, note) = match branch.state {
            BranchState::Stopped => (CommitKind::Disk, false, None),
            _ => match self.host.observe(&branch.host_id).await? {
                None => (CommitKind::Disk, false, Some("its keeper was lost".to_owned())),
                Some(seen) => match nodes_down(&seen) {
                    None => (CommitKind::Full, true, None),
                    down => (CommitKind::Disk, true, down),
                },
            },
        };
        let mut cut = Cut::plan(self, cluster.clone(), branch.clone(), kind).await?;
        (cut.live, cut.hold, cut.message) = (live, true, message);
        Ok((cut, note.map(|why| format!("only the disks were saved: {why}"))))
    }

    pub(super) async fn plan_branch_delete(
        &self,
        caller: &Caller,
        params: BranchDeleteParams,
    ) -> Result<Planned> {
        let place = self.place(&caller.principal, Some(&params.branch)).await?;
        let guard = self.hold(BranchDelete::locks_for(&place.branch), "branch_delete").await?;
        let place = self.again(place).await?;
        let address = place.address();
        let scope = Query::scope(place.cluster.id.as_str());
        let checkouts: Vec<Checkout> = self.store.list(&scope).await?;
        let checkouts: Vec<Checkout> =
            checkouts.into_iter().filter(|checkout| checkout.branch == place.branch.id).collect();
        if !params.force {
            let why = match place.branch.state {
                BranchState::Running => Some("it runs"),
                BranchState::Paused => Some("it is paused and holds memory"),
                BranchState::Stopped if !checkouts.is_empty() => Some("it is checked out"),
                BranchState::Stopped if place.branch.unchanged => None,
                BranchState::Stopped => Some("its disk may hold changes that no commit has"),
            };
            if let Some(why) = why {
                let message = format!("{address} is not deleted: {why}");
                return Err(ApiError::new(ErrorCode::InUse, message)
                    .subject(address.clone())
                    .hint(format!("`pando rm {address} --force` deletes it all the same"))
                    .into());
            }
        }
        let commits: Vec<Commit> = self.store.list(&scope).await?;
        let kept = commits.iter().filter(|c| c.branch == place.branch.id && !c.deleted).count();
        let kind = BranchDelete {
            cluster: place.cluster,
            branch: place.branch,
            checkouts,
            kept_commits: u32::try_from(kept).unwrap_or(u32::MAX),
        };
        let timeout = Duration::from_secs(60) + self.config.undo_timeout;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    pub(super) async fn branch_list(
        &self,
        caller: &Caller,
        params: BranchListParams,
    ) -> Result<BranchListResult> {
        let clusters: Vec<Cluster> = match &params.cluster {
            Some(name) => vec![self.cluster(name).await?],
            None => self.store.list(&Query::all()).await?,
        };
        let mut rows = Vec::new();
        for cluster in &clusters {
            let mut branches = self.branches_of(&cluster.id).await?;
            branches.retain(|branch| params.state.is_none_or(|state| branch.state == state));
            // A cluster with several branches may have no current one; then none is marked.
            let current = self.current(&caller.principal, cluster).await.ok();
            let current = current.map(|branch| branch.id);
            rows.extend(branches.into_iter().map(|branch| row(cluster, branch, current.as_ref())));
        }
        let order: BTreeMap<ClusterId, Name> =
            clusters.into_iter().map(|cluster| (cluster.id, cluster.name)).collect();
        rows.sort_by_key(|row| (order.get(&row.cluster_id).cloned(), row.created_at));
        let cursor = params.cursor.as_deref();
        let (branches, page) = page(rows, params.limit, cursor, |row| row.id.to_string())?;
        Ok(BranchListResult { branches, page })
    }
}

fn row(cluster: &Cluster, branch: Branch, current: Option<&pando_model::BranchId>) -> BranchRow {
    BranchRow {
        address: format!("{}@{}", cluster.name, branch.name),
        current: current == Some(&branch.id),
        id: branch.id,
        alias: branch.name,
        cluster_id: branch.cluster,
        parent_id: branch.parent,
        commit_id: branch.head,
        state: branch.state,
        reason: branch.stopped_because,
        created_at: branch.created_at,
        created_by: branch.created_by,
    }
}

/// Returns that nodes do not run, if any.
fn nodes_down(seen: &Observation) -> Option<String> {
    let down = seen.nodes.iter().filter(|node| node.state == BranchState::Stopped);
    let down: Vec<String> = down.map(|node| format!("`{}`", node.name)).collect();
    (!down.is_empty()).then(|| format!("{} did not run", down.join(", ")))
}

fn two_meanings(what: &str, name: &Name, hint: &str) -> Failure {
    let message = format!("there is a {what} `{name}`, and `@{name}` would mean two things");
    ApiError::new(ErrorCode::AlreadyExists, message).subject(name.as_str()).hint(hint).into()
}
