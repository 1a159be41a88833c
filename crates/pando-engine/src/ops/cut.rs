//! Cutting a branch: what a commit, a rollback that saves first, and a branch of a live branch
//! have in common.
//!
//! The disks' next layers exist before the cut, as empty overlays on the present ones. So
//! whatever a crash leaves, there is a right answer: a keeper that lives says which layer it writes
//! to; without one the next layer is right if it exists (if the cut never happened it is empty).

use pando_driver::HostError;
use pando_driver::host::{AfterCut, Clock, CutNode, CutReport, CutSpec};
use pando_driver::store::Transaction;
use pando_model::commit::{CommitKind, Layer};
use pando_model::{
    Branch, BranchState, ByteCount, Cluster, Commit, CommitId, CommitNode, ErrorCode, LayerId,
};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::incarnation::Disks;
use crate::operation::Cx;

/// A cut that is to be made, and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// The commit that it becomes.
    pub commit: CommitId,
    pub kind: CommitKind,
    pub cluster: Cluster,
    /// The branch as it was before.
    pub branch: Branch,
    /// Whether it has an incarnation; the disks of one that has none are just frozen.
    pub live: bool,
    /// Whether it stands still afterwards.
    pub hold: bool,
    /// The next disks.
    pub next: Disks,
    pub message: String,
    pub warm: u32,
    pub report: Option<CutReport>,
}

impl Cut {
    /// Plans a cut of a branch whose lock is held.
    pub async fn plan(
        engine: &Engine,
        cluster: Cluster,
        branch: Branch,
        kind: CommitKind,
    ) -> Result<Self> {
        if branch.fresh {
            let message = format!("{}@{} was never started", cluster.name, branch.name);
            return Err(Failure::new(ErrorCode::WrongState, message)
                .hint(format!("start it first: `pando cluster start {}`", cluster.name)));
        }
        let live = branch.state != BranchState::Stopped;
        if !live && kind == CommitKind::Full {
            let message = format!("{}@{} is stopped: it has no memory", cluster.name, branch.name);
            return Err(Failure::new(ErrorCode::WrongState, message)
                .hint("commit its disk (`kind: disk`), or start it first"));
        }
        engine.check_disk(&format!("a commit of {}@{}", cluster.name, branch.name)).await?;
        let next = engine.disks_on_branch(&branch).await?;
        Ok(Self {
            commit: CommitId::random(),
            kind,
            cluster,
            branch,
            live,
            hold: false,
            next,
            message: String::new(),
            warm: 0,
            report: None,
        })
    }

    /// Makes the next disks and the cut, and its files the commit's own.
    pub async fn make(&mut self, cx: &Cx) -> Result<()> {
        self.next.create(&cx.engine).await?;
        if !self.live {
            // A keeper syncs what it cuts; these disks have none.
            return Ok(cx.engine.host.sync_layers(&self.frozen()).await?);
        }
        if cx.recovering && self.adopted(cx).await? {
            return Ok(());
        }
        let nodes = self
            .next
            .nodes
            .iter()
            .map(|node| CutNode { name: node.name.clone(), next: node.layers.clone() });
        let spec = CutSpec {
            commit: self.commit.clone(),
            kind: self.kind,
            nodes: nodes.collect(),
            then: if self.hold { AfterCut::StayPaused } else { AfterCut::Continue },
            timeout: cx.engine.config.cut_timeout,
        };
        let report = cx.engine.host.cut(&self.branch.host_id, &spec, &cx.reporter).await;
        let report = report.map_err(|error| self.refused(error))?;
        if let Some(why) = report.failed {
            return Err(self.refused(why));
        }
        if self.adopted(cx).await? {
            return Ok(());
        }
        Err(Failure::internal(format!("the files of {} are missing", self.commit)))
    }

    /// Returns why there is no cut, with what to do about it.
    fn refused(&self, error: HostError) -> Failure {
        let address = format!("{}@{}", self.cluster.name, self.branch.name);
        let hint = match &error {
            HostError::NodeDown { .. } => Some(format!(
                "start it: `pando cluster start {address}`; or commit the disks only (`kind: disk`)"
            )),
            HostError::Machine { node, .. } => Some(format!(
                "`pando console {address}/{node}` shows its last words; if it hangs, `pando node \
                 crash {address} {node}` boots its disk"
            )),
            _ => None,
        };
        let failure = Failure::from(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// Returns whether the cut was made and its files are the commit's own.
    pub async fn adopted(&mut self, cx: &Cx) -> Result<bool> {
        if !self.live {
            return Ok(false);
        }
        let adopted = cx.engine.host.adopt_cut(&self.branch.host_id, &self.commit).await?;
        self.report = adopted.filter(|report| report.failed.is_none());
        Ok(self.report.is_some())
    }

    /// Returns the commit's record.
    pub fn record(&self, cx: &Cx) -> Commit {
        let reported = self.report.iter().flat_map(|report| &report.nodes);
        let nodes: Vec<CommitNode> = self
            .branch
            .nodes
            .iter()
            .map(|node| {
                let cut = reported.clone().find(|cut| cut.name == node.name);
                let def = self.cluster.nodes.iter().find(|def| def.name == node.name);
                CommitNode {
                    name: node.name.clone(),
                    shape: def
                        .or(self.cluster.nodes.first())
                        .map_or_else(no_shape, |def| def.shape.clone()),
                    layers: cut.map_or(&node.layers, |cut| &cut.layers).clone(),
                    memory: cut.and_then(|cut| cut.memory.clone()),
                    profile: cut.and_then(|cut| cut.profile.clone()),
                }
            })
            .collect();
        let sizes = reported
            .map(|cut| cut.disk_bytes.0 + cut.memory.as_ref().map_or(0, |memory| memory.bytes.0));
        Commit {
            id: self.commit.clone(),
            cluster: self.cluster.id.clone(),
            branch: self.branch.id.clone(),
            branch_name: self.branch.name.clone(),
            parent: self.branch.head.clone(),
            kind: self.kind,
            message: self.message.clone(),
            nodes,
            network: self.report.as_ref().and_then(|report| report.network.clone()),
            pause_us: self.report.as_ref().map_or(0, |report| report.pause_us),
            size: ByteCount(sizes.sum()),
            warm: self.warm,
            deleted: false,
            created_at: jiff::Timestamp::now(),
            created_by: cx.actor.clone(),
        }
    }

    /// Returns the branch as it is after the cut.
    pub fn branch_after(&self) -> Branch {
        let delta_base = match self.kind {
            CommitKind::Full => Some(self.commit.clone()),
            CommitKind::Disk => self.branch.delta_base.clone(),
        };
        Branch {
            nodes: self.next.nodes.clone(),
            delta_base,
            head: Some(self.commit.clone()),
            unchanged: !self.live,
            ..self.branch.clone()
        }
    }

    /// Returns everything that changes with the commit.
    pub fn records(&self, cx: &Cx) -> (Transaction, Commit) {
        let commit = self.record(cx);
        let mut records = Transaction::new();
        records.put(&commit).put(&self.branch_after());
        for layer in &self.next.layers {
            records.put(layer);
        }
        (records, commit)
    }

    /// Undoes the cut, whether or not it was made: no commit, and the branch goes on, on
    /// whichever disks it is by then. Of a cut that was made, a deleted commit is left as long as the
    /// memory of the branch's next one is a change of it. Returns the records of all that.
    pub async fn undo(&mut self, cx: &Cx) -> Result<Transaction> {
        let host = &cx.engine.host;
        let mut records = Transaction::new();
        if !self.live {
            records.delete::<Commit>(self.commit.as_str());
            self.next.discard(&cx.engine).await?;
            for layer in &self.next.layers {
                records.delete::<Layer>(layer.id.as_str());
            }
            return Ok(records);
        }
        // Waits for a cut that is under way, so that what is seen below is final.
        let made = host.adopt_cut(&self.branch.host_id, &self.commit).await?;
        let observed = host.observe(&self.branch.host_id).await?;
        let there = host.list_layers().await?;
        let mut branch = self.branch.clone();
        let is_base = self.kind == CommitKind::Full
            && observed.is_some()
            && made.as_ref().is_some_and(|report| report.failed.is_none());
        if is_base {
            self.report = made;
            branch.delta_base = Some(self.commit.clone());
            records.put(&Commit { deleted: true, warm: 0, ..self.record(cx) });
        } else {
            host.discard_commit(&self.commit).await?;
            records.delete::<Commit>(self.commit.as_str());
        }
        let mut moved = Vec::new();
        for (node, next) in branch.nodes.iter_mut().zip(&self.next.nodes) {
            let runs = observed
                .as_ref()
                .and_then(|seen| seen.nodes.iter().find(|seen| seen.name == node.name));
            for (disk, next) in next.layers.disks() {
                let is_top = match runs {
                    Some(runs) => runs.layers.get(disk) == Some(next),
                    None => there.contains_key(next),
                };
                if is_top {
                    moved.push(next.clone());
                    node.layers.set(disk, next.clone());
                }
            }
        }
        for layer in &self.next.layers {
            match moved.contains(&layer.id) {
                true => records.put(layer),
                false => {
                    host.discard_layer(&layer.id).await?;
                    records.delete::<Layer>(layer.id.as_str())
                }
            };
        }
        if !moved.is_empty() {
            // The next commit rests on them, and its cut syncs only what is on top by then.
            host.sync_layers(&self.frozen()).await?;
            records.put(&branch);
        }
        if self.hold && self.branch.state == BranchState::Running && observed.is_some() {
            host.resume(&self.branch.host_id, Clock::Step).await?;
        }
        Ok(records)
    }

    /// Returns the layers that were on top before the cut.
    fn frozen(&self) -> Vec<LayerId> {
        let tops = self.branch.nodes.iter().flat_map(|node| node.layers.iter());
        tops.cloned().collect()
    }

    /// Returns the layers that are on top after the cut.
    pub fn next_layers(&self) -> &[Layer] {
        &self.next.layers
    }
}

fn no_shape() -> pando_model::NodeShape {
    pando_model::NodeShape {
        vcpus: 0,
        memory: ByteCount(0),
        disk: ByteCount(0),
        nics: 0,
        extra_disks: Vec::new(),
    }
}
