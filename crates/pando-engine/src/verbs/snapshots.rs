//! `snapshot_*`: tagged commits under the names of cluster tools.

use std::collections::BTreeMap;
use std::time::Duration;

use pando_api::branch::BranchRollbackParams;
use pando_api::snapshot::{
    SnapshotCreateParams, SnapshotDeleteParams, SnapshotInfo, SnapshotListParams,
    SnapshotListResult, SnapshotNode, SnapshotRevertParams,
};
use pando_api::{ApiError, Caller};
use pando_driver::store::Query;
use pando_model::branch::BranchRole;
use pando_model::commit::Tag;
use pando_model::{
    Branch, BranchState, ByteCount, Cluster, Commit, CommitId, CommitKind, ErrorCode, LayerId,
    Layout, Name,
};

use super::{Planned, now_us};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::kernel;
use crate::network::stalled;
use crate::operation::Plan;
use crate::ops::commit_create::CommitCreate;
use crate::ops::cut::Cut;
use crate::ops::rollback::Revert;
use crate::paging::page;

/// Returns what a tagged commit is as a snapshot.
pub(crate) fn info(
    layout: &Layout,
    cluster: &Cluster,
    commit: &Commit,
    tag: &Name,
    sizes: &BTreeMap<LayerId, ByteCount>,
) -> SnapshotInfo {
    let node = |node: &pando_model::CommitNode| SnapshotNode {
        node_name: node.name.clone(),
        disk_path: layout.layer(&node.layers.root).display().to_string(),
        size_bytes: node.layers.iter().filter_map(|layer| Some(sizes.get(layer)?.0)).sum(),
    };
    SnapshotInfo {
        snapshot_name: tag.clone(),
        cluster_name: cluster.name.clone(),
        commit_id: commit.id.clone(),
        kind: commit.kind,
        branch: commit.branch_name.clone(),
        created_at: commit.created_at,
        per_node: commit.nodes.iter().map(node).collect(),
        stalled: stalled(commit),
        note: kernel::not_in(cluster, commit),
    }
}

impl Engine {
    /// Returns the tag that a snapshot's name, or the topology's name for it, is.
    async fn snapshot_tag(&self, cluster: &Cluster, name: &str) -> Result<Tag> {
        let scope = cluster.id.as_str();
        let found: Option<Tag> = self.store.named(scope, name).await?;
        if let Some(tag) = found {
            return Ok(tag);
        }
        if let Some(other) = cluster.snapshots.get(name)
            && let Some(tag) = self.store.named(scope, other).await?
        {
            return Ok(tag);
        }
        Err(Failure::not_found("snapshot", name)
            .hint(format!("`pando snapshot list {}` lists them", cluster.name)))
    }

    pub(super) async fn plan_snapshot_create(
        &self,
        caller: &Caller,
        params: SnapshotCreateParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let place = self.whole(caller, Some(&params.cluster_name)).await?;
        let name = params.snapshot_name;
        let (cluster, branch) = (&place.cluster.id, &place.branch.id);
        let locks = CommitCreate::locks_for(cluster, branch, Some(&name));
        let guard = self.hold(locks, "snapshot_create").await?;
        let place = self.again(place).await?;
        let taken: Option<Tag> = self.store.named(place.cluster.id.as_str(), name.as_str()).await?;
        if taken.is_some() {
            let message = format!("{} has a snapshot `{name}` already", place.cluster.name);
            return Err(ApiError::new(ErrorCode::AlreadyExists, message)
                .subject(name.as_str())
                .hint("choose another name, or delete that one")
                .into());
        }
        self.must_be_no_branch(&place.cluster.id, &name).await?;
        let kind = if params.include_memory { CommitKind::Full } else { CommitKind::Disk };
        let mut cut = Cut::plan(self, place.cluster, place.branch, kind).await?;
        cut.message = format!("snapshot {name}");
        let kind = CommitCreate {
            cut,
            tag: Some(name),
            started_us,
            made: None,
            as_snapshot: true,
            snapshot: None,
        };
        let timeout = self.config.cut_timeout + self.config.undo_timeout;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    pub(super) async fn snapshot_list(
        &self,
        params: SnapshotListParams,
    ) -> Result<SnapshotListResult> {
        let cluster = match &params.cluster_name {
            Some(name) => self.cluster(name).await?,
            None => self.only_cluster().await?,
        };
        let tags: Vec<Tag> = self.store.list(&Query::scope(cluster.id.as_str())).await?;
        let sizes = self.host.list_layers().await?;
        let mut snapshots = Vec::with_capacity(tags.len());
        for tag in tags {
            let commit: Option<Commit> = self.store.get(tag.commit.as_str()).await?;
            let Some(commit) = commit.filter(|commit| !commit.deleted) else { continue };
            snapshots.push(info(&self.config.layout, &cluster, &commit, &tag.name, &sizes));
        }
        snapshots.sort_by_key(|one| (std::cmp::Reverse(one.created_at), one.snapshot_name.clone()));
        let cursor = params.cursor.as_deref();
        let (snapshots, page) =
            page(snapshots, params.limit, cursor, |one| one.snapshot_name.to_string())?;
        Ok(SnapshotListResult { snapshots, page })
    }

    pub(super) async fn plan_snapshot_revert(
        &self,
        caller: &Caller,
        params: SnapshotRevertParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let place = self.whole(caller, Some(&params.cluster_name)).await?;
        let target = match params.snapshot_name.parse::<CommitId>() {
            Ok(id) => id,
            Err(_) => self.snapshot_tag(&place.cluster, &params.snapshot_name).await?.commit,
        };
        let rollback = BranchRollbackParams {
            branch: Some(params.cluster_name),
            target: target.to_string(),
            save: params.save,
            // A copy that runs already is no stopped disk.
            exact: !params.restart_after,
        };
        let (mut kind, guard) =
            self.rollback(caller, rollback, "snapshot_revert", started_us).await?;
        let branches = self.branches_of(&kind.cluster.id).await?;
        let others = branches
            .iter()
            .filter(|branch| branch.state == BranchState::Running && branch.id != kind.before.id);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let then = match params.restart_after {
            true => BranchState::Running,
            false => BranchState::Stopped,
        };
        let ssh = params.restart_after && params.wait_for_ssh;
        kind.as_snapshot = Some(Revert {
            then,
            ssh_timeout_ms: ssh.then_some(params.ssh_timeout_s * 1000),
            counts: (count(branches.len()), count(others.count())),
        });
        let timeout = self.config.cut_timeout
            + self.config.first_boot_timeout
            + Duration::from_secs(params.ssh_timeout_s);
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    pub(super) async fn plan_snapshot_delete(
        &self,
        params: SnapshotDeleteParams,
    ) -> Result<Planned> {
        let cluster = self.cluster(&params.cluster_name).await?;
        let tag = self.snapshot_tag(&cluster, &params.snapshot_name).await?;
        let commit = self.commit_by_id(&tag.commit).await?;
        let (mut kind, guard) =
            self.commit_deletion(cluster, &commit, true, "snapshot_delete").await?;
        let branches = self.branches_of(&kind.cluster.id).await?;
        refuse_if_stood_on(&kind.cluster, &commit, &tag, &kind.tags, &branches)?;
        kind.as_snapshot = Some(tag.name);
        let timeout = self.config.undo_timeout * 2;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }
}

/// Refuses to delete what a branch's disks or memory lie on directly, or what has another name.
fn refuse_if_stood_on(
    cluster: &Cluster,
    commit: &Commit,
    tag: &Tag,
    tags: &[Tag],
    branches: &[Branch],
) -> Result<()> {
    let refuse = |message: String, hint: String| {
        let message = format!("the snapshot `{}` is not deleted: {message}", tag.name);
        Err(ApiError::new(ErrorCode::InUse, message).subject(tag.name.as_str()).hint(hint).into())
    };
    let stands = |branch: &&Branch| {
        branch.role == BranchRole::Live
            && [&branch.base, &branch.head].into_iter().any(|of| of.as_ref() == Some(&commit.id))
    };
    if let Some(branch) = branches.iter().find(stands) {
        let address = format!("{}@{}", cluster.name, branch.name);
        return refuse(
            format!("{address} stands on it"),
            format!(
                "revert {address} to another snapshot, or commit it (`pando commit {address}`)"
            ),
        );
    }
    match tags.iter().find(|other| other.name != tag.name) {
        Some(other) => refuse(
            format!("its commit is also named `{}`", other.name),
            format!("`pando tag rm {}` removes this name only", tag.name),
        ),
        None => Ok(()),
    }
}
