//! `commit_*` and `tag_*`.

use std::collections::{BTreeMap, BTreeSet};

use pando_api::commit::{
    CommitCreateParams, CommitDeleteParams, CommitListParams, CommitListResult, CommitNodeView,
    CommitRow, CommitShowResult, CommitVerifyResult, TagDeleteParams, TagDeleteResult,
    TagSetParams, TagSetResult,
};
use pando_api::{ApiError, Caller};
use pando_driver::store::{Query, Record, Transaction};
use pando_model::branch::BranchRole;
use pando_model::commit::Tag;
use pando_model::{Branch, Cluster, ClusterId, Commit, CommitId, ErrorCode, Name};
use tokio::time::Instant;

use super::{Planned, json, now_us};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::locks::{Guard, Hold, LockSet};
use crate::network::network_view;
use crate::operation::Plan;
use crate::ops::commit_create::CommitCreate;
use crate::ops::commit_delete::CommitDelete;
use crate::ops::cut::Cut;
use crate::ops::milliseconds;
use crate::ops::records::RecordsOnly;
use crate::paging::page;

/// Most commands that are shown with a commit: the newest.
const MAX_COMMANDS: usize = 20;

impl Engine {
    pub(super) async fn plan_commit_create(
        &self,
        caller: &Caller,
        params: CommitCreateParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let place = self.place(&caller.principal, params.branch.as_ref()).await?;
        let (cluster, branch) = (&place.cluster.id, &place.branch.id);
        let locks = CommitCreate::locks_for(cluster, branch, params.tag.as_ref());
        let guard = self.hold(locks, "commit_create").await?;
        let place = self.again(place).await?;
        if let Some(tag) = &params.tag {
            let cluster = &place.cluster.id;
            let taken: Option<Tag> = self.store.named(cluster.as_str(), tag.as_str()).await?;
            if taken.is_none() {
                self.must_be_no_branch(cluster, tag).await?;
            }
        }
        let mut cut = Cut::plan(self, place.cluster, place.branch, params.kind).await?;
        cut.message = params.message;
        cut.warm = params.warm;
        let kind = CommitCreate {
            cut,
            tag: params.tag,
            started_us,
            made: None,
            as_snapshot: false,
            snapshot: None,
        };
        let timeout = self.config.cut_timeout + self.config.undo_timeout;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    pub(super) async fn plan_commit_delete(&self, params: CommitDeleteParams) -> Result<Planned> {
        let (cluster, commit) = self.commit_named(&params.commit, None).await?;
        let (kind, guard) =
            self.commit_deletion(cluster, &commit, params.force, "commit_delete").await?;
        let timeout = self.config.undo_timeout * 2;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    /// Returns the deletion of a commit, with its locks.
    pub(super) async fn commit_deletion(
        &self,
        cluster: Cluster,
        commit: &Commit,
        force: bool,
        verb: &str,
    ) -> Result<(CommitDelete, Guard)> {
        let guard = self.hold(CommitDelete::locks_for(&cluster.id), verb).await?;
        let commit = self.commit_by_id(&commit.id).await?;
        let scope = Query::scope(cluster.id.as_str());
        let tags: Vec<Tag> = self.store.list(&scope).await?;
        let tags: Vec<Tag> = tags.into_iter().filter(|tag| tag.commit == commit.id).collect();
        let branches: Vec<Branch> = self.store.list(&scope).await?;
        let of_commit = |branch: &&Branch| {
            [&branch.base, &branch.head].into_iter().any(|of| of.as_ref() == Some(&commit.id))
        };
        let using: Vec<&Branch> = branches.iter().filter(of_commit).collect();
        if !force {
            refuse_if_needed(&cluster, &commit, &tags, &using)?;
        }
        let of_role =
            |role: BranchRole| using.iter().filter(move |b| b.role == role).map(|b| (*b).clone());
        let commits: Vec<Commit> = self.store.list(&scope).await?;
        let kind = CommitDelete {
            parked: of_role(BranchRole::Parked).collect(),
            heads: of_role(BranchRole::Live)
                .filter(|branch| branch.head.as_ref() == Some(&commit.id))
                .collect(),
            children: commits
                .into_iter()
                .filter(|child| child.parent.as_ref() == Some(&commit.id))
                .collect(),
            cluster,
            commit,
            tags,
            freed_bytes: 0,
            kept_for_others: false,
            as_snapshot: None,
        };
        Ok((kind, guard))
    }

    pub(super) async fn plan_tag_set(&self, params: TagSetParams) -> Result<Planned> {
        let (cluster, commit) = self.commit_named(&params.commit, None).await?;
        let locks = LockSet::new()
            .cluster(&cluster.id, Hold::Shared)
            .commit(&commit.id)
            .tag(&cluster.id, &params.tag);
        let guard = self.hold(locks, "tag_set").await?;
        let commit = self.commit_by_id(&commit.id).await?;
        let previous: Option<Tag> =
            self.store.named(cluster.id.as_str(), params.tag.as_str()).await?;
        if previous.is_none() {
            self.must_be_no_branch(&cluster.id, &params.tag).await?;
        }
        let tag = Tag { cluster: cluster.id.clone(), name: params.tag, commit: commit.id.clone() };
        let (mut change, mut back) = (Transaction::new(), Transaction::new());
        change.put(&tag);
        match &previous {
            Some(previous) => back.put(previous),
            None => back.delete::<Tag>(tag.key()),
        };
        let result = json(&TagSetResult {
            tag: tag.name,
            commit_id: commit.id,
            previous: previous.map(|previous| previous.commit),
        })?;
        let kind = Box::new(RecordsOnly { cluster: cluster.id, change, back, result });
        Ok(Plan { kind, guard, timeout: self.config.undo_timeout }.into())
    }

    pub(super) async fn plan_tag_delete(&self, params: TagDeleteParams) -> Result<Planned> {
        let cluster = match &params.cluster {
            Some(name) => self.cluster(name).await?,
            None => self.only_cluster().await?,
        };
        let locks = LockSet::new().cluster(&cluster.id, Hold::Shared).tag(&cluster.id, &params.tag);
        let guard = self.hold(locks, "tag_delete").await?;
        let tag: Option<Tag> = self.store.named(cluster.id.as_str(), params.tag.as_str()).await?;
        let tag = tag.ok_or_else(|| Failure::not_found("tag", params.tag.as_str()))?;
        let (mut change, mut back) = (Transaction::new(), Transaction::new());
        change.delete::<Tag>(tag.key());
        back.put(&tag);
        let result = json(&TagDeleteResult { tag: tag.name, commit_id: tag.commit })?;
        let kind = Box::new(RecordsOnly { cluster: cluster.id, change, back, result });
        Ok(Plan { kind, guard, timeout: self.config.undo_timeout }.into())
    }

    pub(super) async fn commit_list(&self, params: CommitListParams) -> Result<CommitListResult> {
        let cluster = match &params.cluster {
            Some(name) => self.cluster(name).await?,
            None => self.only_cluster().await?,
        };
        let scope = Query::scope(cluster.id.as_str());
        let mut commits: Vec<Commit> = self.store.list(&scope).await?;
        commits.retain(|commit| !commit.deleted);
        let names = self.commit_names(&cluster.id).await?;
        if let Some(text) = &params.branch {
            let branches = self.branches_of(&cluster.id).await?;
            // As lists of branches show it, too.
            let name = match text.split_once('@') {
                Some((of, name)) if of == cluster.name.as_str() => name,
                _ => text.as_str(),
            };
            let wanted =
                branches.into_iter().find(|b| b.name.as_str() == name || b.id.as_str() == name);
            let branch = wanted.ok_or_else(|| Failure::not_found("branch", text))?;
            let ancestors = ancestors(&commits, branch.head.as_ref());
            commits.retain(|commit| ancestors.contains(&commit.id));
        }
        // A child is always made after its parent, so this order is also one of the graph.
        commits.sort_by_key(|commit| std::cmp::Reverse((commit.created_at, commit.id.clone())));
        let cursor = params.cursor.as_deref();
        let (commits, page) = page(commits, params.limit, cursor, |commit| commit.id.to_string())?;
        let commits = commits.into_iter().map(|commit| names.row(&cluster, commit)).collect();
        Ok(CommitListResult { commits, page })
    }

    pub(super) async fn commit_show(&self, text: &str) -> Result<CommitShowResult> {
        let (cluster, commit) = self.commit_named(text, None).await?;
        let names = self.commit_names(&cluster.id).await?;
        let here = self.host.profile().await;
        let saved = commit.nodes.iter().filter_map(|node| node.profile.as_ref());
        let reason = match &here {
            Ok(here) => saved.filter_map(|profile| profile.difference(here)).next(),
            Err(error) => Some(error.to_string()),
        };
        let parked = self.parked().await?;
        let ready = parked.iter().filter(|branch| branch.base.as_ref() == Some(&commit.id));
        let nodes = commit.nodes.iter().map(|node| CommitNodeView {
            name: node.name.clone(),
            vcpus: node.shape.vcpus,
            memory_mib: node.shape.memory.mib(),
            memory_pages: node.memory.as_ref().map_or(0, |memory| memory.pages),
            memory_bytes: node.memory.as_ref().map_or(0, |memory| memory.bytes.0),
            memory_base: node.memory.as_ref().and_then(|memory| memory.base.clone()),
            profile: node.profile.clone(),
        });
        let (commands, commands_total) = self.commands_of(&commit, MAX_COMMANDS).await?;
        Ok(CommitShowResult {
            commands,
            commands_total,
            nodes: nodes.collect(),
            network: network_view(&cluster, &commit),
            pause_ms: milliseconds(commit.pause_us),
            warm: commit.warm,
            warm_ready: u32::try_from(ready.count()).unwrap_or(u32::MAX),
            restorable: reason.is_none(),
            restorable_reason: reason.map(|difference| format!("it needs {difference}")),
            commit: names.row(&cluster, commit),
        })
    }

    pub(super) async fn commit_verify(&self, text: &str) -> Result<CommitVerifyResult> {
        let began = Instant::now();
        let (cluster, commit) = self.commit_named(text, None).await?;
        let locks = LockSet::new().cluster(&cluster.id, Hold::Shared).commit(&commit.id);
        let _held = self.hold(locks, "commit_verify").await?;
        let (mut checked, mut bytes) = (BTreeSet::new(), 0);
        if let Some(network) = &commit.network {
            self.host.verify_network(&commit.id, network).await?;
            bytes += network.bytes;
        }
        for node in &commit.nodes {
            let Some(memory) = &node.memory else { continue };
            let chain = self.memory_chain(&commit, node).await?;
            self.host.verify(&chain, &memory.device_digest).await?;
            for link in &chain.links {
                if checked.insert(link.commit.clone()) {
                    let linked: Option<Commit> = self.store.get(link.commit.as_str()).await?;
                    let nodes = linked.into_iter().flat_map(|commit| commit.nodes);
                    bytes += nodes.filter_map(|n| n.memory).map(|m| m.bytes.0).sum::<u64>();
                }
            }
        }
        Ok(CommitVerifyResult {
            commit_id: commit.id,
            intact: true,
            commits_checked: u32::try_from(checked.len()).unwrap_or(u32::MAX).max(1),
            bytes_checked: bytes,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    async fn commit_names(&self, cluster: &ClusterId) -> Result<CommitNames> {
        let mut names = CommitNames::default();
        let tags: Vec<Tag> = self.store.list(&Query::scope(cluster.as_str())).await?;
        for tag in tags {
            names.tags.entry(tag.commit).or_default().push(tag.name);
        }
        for branch in self.branches_of(cluster).await? {
            if let Some(head) = branch.head {
                names.heads.entry(head).or_default().push(branch.name);
            }
        }
        Ok(names)
    }
}

/// What names commits: tags, and branches whose latest they are.
#[derive(Default)]
struct CommitNames {
    tags: BTreeMap<CommitId, Vec<Name>>,
    heads: BTreeMap<CommitId, Vec<Name>>,
}

impl CommitNames {
    fn row(&self, _: &Cluster, commit: Commit) -> CommitRow {
        let vm_id = match commit.nodes.as_slice() {
            [only] => format!("{}/{}", commit.branch, only.name),
            _ => commit.branch.to_string(),
        };
        CommitRow {
            parents: commit.parent.into_iter().collect(),
            tags: self.tags.get(&commit.id).cloned().unwrap_or_default(),
            heads: self.heads.get(&commit.id).cloned().unwrap_or_default(),
            branch: commit.branch_name,
            vm_id,
            branch_id: commit.branch,
            cluster_id: commit.cluster,
            message: commit.message,
            kind: commit.kind,
            size_bytes: commit.size.0,
            created_at: commit.created_at,
            created_by: commit.created_by,
            id: commit.id,
        }
    }
}

fn ancestors(commits: &[Commit], head: Option<&CommitId>) -> BTreeSet<CommitId> {
    let by_id: BTreeMap<&CommitId, &Commit> =
        commits.iter().map(|commit| (&commit.id, commit)).collect();
    let mut found = BTreeSet::new();
    let mut next = head;
    while let Some(commit) = next.and_then(|id| by_id.get(id)) {
        if !found.insert(commit.id.clone()) {
            break;
        }
        next = commit.parent.as_ref();
    }
    found
}

fn refuse_if_needed(
    cluster: &Cluster,
    commit: &Commit,
    tags: &[Tag],
    using: &[&Branch],
) -> Result<()> {
    let why = match (tags.first(), using.iter().find(|b| b.role == BranchRole::Live)) {
        (Some(tag), _) => format!("the tag `{}` names it", tag.name),
        (None, Some(branch)) => format!("{}@{} is made of it", cluster.name, branch.name),
        (None, None) => return Ok(()),
    };
    let message = format!("{} is not deleted: {why}", commit.id);
    Err(ApiError::new(ErrorCode::InUse, message)
        .subject(commit.id.as_str())
        .hint(format!("`pando rm {} --force` deletes it all the same", commit.id))
        .into())
}
