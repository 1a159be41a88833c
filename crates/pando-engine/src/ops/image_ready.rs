//! An image's ready state: boot a template, take every trace of identity from it, commit it, end
//! it. An operation of its own, so that two machines of a new shape wait for one boot.

use async_trait::async_trait;
use jiff::Timestamp;
use pando_driver::host::{AfterCut, CutNode, CutReport, CutSpec};
use pando_driver::store::{Query, Transaction};
use pando_model::branch::BranchRole;
use pando_model::{
    Branch, BranchId, BranchState, Cluster, ClusterId, ClusterState, Commit, CommitId, CommitKind,
    CommitNode, ErrorCode, Image, ImageId, MachineProfile, Name, NodeDef, NodeShape, OperationId,
    ReadyState, Uplink,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cut::Cut;
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::incarnation::{Disks, Incarnation, random_hex};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Kind, Plan, Request, memo, outcome};

/// The verb under which it is recorded.
pub(crate) const VERB: &str = "image_ready";

#[derive(Serialize, Deserialize)]
pub(crate) struct ImageReady {
    image: ImageId,
    shape: NodeShape,
    /// Stands for the cluster that a template belongs to; never recorded.
    cluster: Cluster,
    branch: Branch,
    disks: Disks,
    /// Tops after the cut; they end with the template.
    next: Disks,
    commit: CommitId,
    report: Option<CutReport>,
}

/// Returns one comparable text for what a ready state was taken under.
fn profile_key(profile: &MachineProfile) -> String {
    let MachineProfile { qemu_version, machine, cpu, accelerator } = profile;
    format!("{qemu_version}/{machine}/{cpu}/{}", accelerator.as_str())
}

impl ImageReady {
    fn plan(image: &Image, shape: NodeShape, name: &Name, actor: &str) -> Result<Self> {
        let def = NodeDef {
            name: name.clone(),
            shape: shape.clone(),
            image: image.id.clone(),
            env: std::collections::BTreeMap::new(),
            user_data: None,
            host_key: None,
            role: String::new(),
            interfaces: Vec::new(),
        };
        let disks = Disks::on_image(&def, image);
        let id = BranchId::random();
        let cluster = Cluster {
            id: ClusterId::random(),
            name: name.clone(),
            state: ClusterState::Ready,
            nodes: vec![def],
            uplink: Uplink::None,
            networks: Vec::new(),
            topology: None,
            faults: Vec::new(),
            snapshots: std::collections::BTreeMap::new(),
            labels: std::collections::BTreeMap::new(),
            created_at: Timestamp::now(),
            created_by: actor.to_owned(),
        };
        let branch = Branch {
            host_id: id.clone(),
            id,
            cluster: cluster.id.clone(),
            name: name.clone(),
            role: BranchRole::Template,
            state: BranchState::Stopped,
            generation: 1,
            keeper_token: random_hex(),
            parent: None,
            base: None,
            delta_base: None,
            head: None,
            nodes: disks.nodes.clone(),
            advanced_ms: 0,
            unchanged: false,
            fresh: false,
            faults: Vec::new(),
            stopped_because: None,
            powered_off: false,
            created_at: Timestamp::now(),
            created_by: actor.to_owned(),
        };
        let next = disks.covered();
        Ok(Self {
            image: image.id.clone(),
            shape,
            cluster,
            branch,
            disks,
            next,
            commit: CommitId::random(),
            report: None,
        })
    }

    fn locks_for(image: &ImageId, shape: &NodeShape) -> LockSet {
        LockSet::new().with(format!("ready state of {image} {}", shape.key()), Hold::Exclusive)
    }

    async fn cut(&mut self, cx: &Cx) -> Result<()> {
        self.next.create(&cx.engine).await?;
        let nodes = self
            .next
            .nodes
            .iter()
            .map(|node| CutNode { name: node.name.clone(), next: node.layers.clone() });
        let spec = CutSpec {
            commit: self.commit.clone(),
            kind: CommitKind::Full,
            nodes: nodes.collect(),
            then: AfterCut::StayPaused,
            timeout: cx.engine.config.cut_timeout,
        };
        let host_id = &self.branch.host_id;
        let report = cx.engine.host.cut(host_id, &spec, &cx.reporter).await?;
        if let Some(why) = report.failed {
            return Err(why.into());
        }
        self.report = cx.engine.host.adopt_cut(host_id, &self.commit).await?;
        match self.report {
            Some(_) => Ok(()),
            None => Err(Failure::internal(format!("the files of {} are missing", self.commit))),
        }
    }

    fn record(&self, cx: &Cx) -> Commit {
        // The record of any cut, under the hidden cluster.
        let cut = Cut {
            commit: self.commit.clone(),
            kind: CommitKind::Full,
            cluster: self.cluster.clone(),
            branch: self.branch.clone(),
            live: true,
            hold: true,
            next: self.next.clone(),
            message: format!("ready state of {} for {}", self.image, self.shape.key()),
            warm: 0,
            report: self.report.clone(),
        };
        cut.record(cx)
    }
}

#[async_trait]
impl Kind for ImageReady {
    fn steps(&self) -> &'static [&'static str] {
        &["disks", "boot", "anonymise", "commit", "end template", "memory"]
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.image, &self.shape)
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        let engine = &cx.engine;
        match step {
            "disks" => self.disks.create(engine).await?,
            "boot" => {
                cx.reporter.report("first boot of the image", 0, 0);
                let mut incarnation = Incarnation::new(engine, &self.cluster, &self.branch);
                incarnation.timeout = engine.config.first_boot_timeout;
                incarnation.start(cx).await?;
            }
            "anonymise" => {
                cx.reporter.report("waiting until the boot is complete", 0, 0);
                let timeout = engine.config.first_boot_timeout;
                for node in &self.branch.nodes {
                    let host_id = &self.branch.host_id;
                    engine.host.make_anonymous(host_id, &node.name, timeout).await?;
                }
            }
            "commit" => {
                cx.reporter.report("keeping the ready state", 0, 0);
                self.cut(cx).await?;
            }
            "end template" => {
                engine.remove_incarnation(&self.branch.host_id).await?;
                self.next.discard(engine).await?;
            }
            _ => {
                let commit = self.record(cx);
                for node in &commit.nodes {
                    let chain = engine.memory_chain(&commit, node).await?;
                    engine.host.materialise(&chain, &cx.reporter).await?;
                }
            }
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        let engine = &cx.engine;
        match step {
            "disks" => self.disks.discard(engine).await?,
            "boot" => engine.remove_incarnation(&self.branch.host_id).await?,
            "commit" => {
                engine.remove_incarnation(&self.branch.host_id).await?;
                engine.host.discard_commit(&self.commit).await?;
                self.next.discard(engine).await?;
            }
            _ => {}
        }
        Ok(Transaction::new())
    }

    async fn finish(&mut self, cx: &Cx) -> Result<Transaction> {
        let commit = self.record(cx);
        let profile = commit.nodes.iter().find_map(|node: &CommitNode| node.profile.as_ref());
        let profile = profile.ok_or_else(|| Failure::internal("a ready state without profile"))?;
        let mut records = Transaction::new();
        records.put(&ReadyState {
            image: self.image.clone(),
            shape: self.shape.clone(),
            commit: commit.id.clone(),
            profile_key: profile_key(profile),
            created_at: Timestamp::now(),
        });
        records.put(&commit);
        for layer in &self.disks.layers {
            records.put(layer);
        }
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        serde_json::json!({ "commit_id": self.commit, "image_id": self.image })
    }
}

impl Engine {
    /// Returns the commit of an image's ready state for a shape that this host can restore.
    pub(crate) async fn find_ready(
        &self,
        image: &ImageId,
        shape: &NodeShape,
    ) -> Result<Option<Commit>> {
        let key = profile_key(&self.host.profile().await?);
        let states: Vec<ReadyState> = self.store.list(&Query::scope(image.as_str())).await?;
        let fits = |state: &&ReadyState| state.shape == *shape && state.profile_key == key;
        match states.iter().find(fits) {
            Some(state) => Ok(self.store.get(state.commit.as_str()).await?),
            None => Ok(None),
        }
    }

    /// Returns the ready state; makes it, or waits for who makes it.
    pub(crate) async fn ensure_ready(
        &self,
        image: &Image,
        shape: &NodeShape,
        cx: &Cx,
    ) -> Result<Commit> {
        let locks = ImageReady::locks_for(&image.id, shape);
        let timeout = self.config.first_boot_timeout * 2;
        let what = format!("{VERB} for {}", cx.id);
        // The lock is held by the operation that makes it, so waiting for it is waiting for that.
        // Losing the wait leaves the queue.
        let guard = tokio::select! {
            guard = self.locks.acquire(locks, &what, timeout) => guard?,
            () = cx.cancel.cancelled() => {
                return Err(Failure::new(ErrorCode::Cancelled, "cancelled while it waited"));
            }
        };
        if let Some(ready) = self.find_ready(&image.id, shape).await? {
            return Ok(ready);
        }
        let name: Name = "ready".parse().map_err(|_| Failure::internal("not a name"))?;
        let kind = ImageReady::plan(image, shape.clone(), &name, &cx.actor)?;
        let commit = kind.commit.clone();
        let plan = Plan { kind: Box::new(kind), guard, timeout };
        let mut updates = self.submit(Request::internal(VERB, &cx.actor), plan).await?;
        let operation = updates.borrow().operation_id.clone();
        loop {
            let view = updates.borrow_and_update().clone();
            if view.status.is_final() {
                break;
            }
            let progress = view.progress;
            cx.reporter.report(progress.message, progress.done, progress.total);
            // Both arms only wait, so losing one loses nothing.
            tokio::select! {
                // An error means that the final state was sent.
                _ = updates.changed() => {}
                () = cx.cancel.cancelled() => {
                    self.request_cancel(&operation);
                    break;
                }
            }
        }
        outcome(updates).await?;
        let made = self.store.get(commit.as_str()).await?;
        made.ok_or_else(|| Failure::not_found("commit", commit.as_str()))
    }
}
