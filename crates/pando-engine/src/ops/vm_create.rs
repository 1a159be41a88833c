//! `vm_create`: a cluster of one node and its first branch, from an image's ready state or cold.

use std::time::Duration;

use async_trait::async_trait;
use pando_api::exec::ExecRunResult;
use pando_api::machine::VmCreateResult;
use pando_driver::host::{AfterStart, Clock};
use pando_driver::store::Transaction;
use pando_model::guest::Identity;
use pando_model::{
    Branch, BranchState, Cluster, ClusterId, ClusterState, Commit, CommitId, NodeDef, OperationId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::incarnation::{Disks, Incarnation};
use crate::keys;
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Kind, memo};
use crate::output::Bound;
use crate::set_up::run_script;

#[derive(Serialize, Deserialize)]
pub(crate) struct VmCreate {
    pub cluster: Cluster,
    pub branch: Branch,
    /// Whether to boot even where a ready state exists.
    pub cold: bool,
    /// Run once in the guest, as root.
    pub script: Option<String>,
    /// For images with cloud-init.
    pub cloud_config: Option<String>,
    pub timeout_ms: u64,
    pub exec_limit: u64,
    pub started_us: i64,
    /// The ready state's commit that it starts from.
    pub ready: Option<CommitId>,
    pub disks: Disks,
    pub ready_ms: u64,
    #[serde(default)]
    pub answered_ms: u64,
    #[serde(default)]
    pub first_of_its_kind: bool,
    pub script_result: Option<ExecRunResult>,
    /// Secret, and made anew whenever the steps run again.
    #[serde(skip)]
    pub identity: Option<Identity>,
}

impl VmCreate {
    fn node(&self) -> Result<&NodeDef> {
        self.cluster.nodes.first().ok_or_else(|| Failure::internal("a cluster without nodes"))
    }

    /// Chooses what to start from, as far as that needs no work.
    pub async fn choose(&mut self, engine: &Engine) -> Result<()> {
        let def = self.node()?.clone();
        let image = engine.image(&def.image).await?;
        if self.cold || self.cloud_config.is_some() {
            self.disks = Disks::on_image(&def, &image);
        } else if let Some(ready) = engine.find_ready(&image.id, &def.shape).await? {
            self.start_from(engine, ready).await?;
        }
        self.branch.nodes.clone_from(&self.disks.nodes);
        Ok(())
    }

    async fn start_from(&mut self, engine: &Engine, ready: Commit) -> Result<()> {
        let name = self.node()?.name.clone();
        self.disks = engine.disks_on_commit(&ready, Some(&name)).await?;
        self.branch.nodes.clone_from(&self.disks.nodes);
        self.ready = Some(ready.id);
        Ok(())
    }

    /// Waits for the image's ready state. Returns the record with which the ids of the disks are
    /// written before their files are made.
    async fn wait_for_ready(&mut self, cx: &Cx) -> Result<Transaction> {
        let mut records = Transaction::new();
        if self.disks.layers.is_empty() {
            let def = self.node()?.clone();
            let image = cx.engine.image(&def.image).await?;
            let ready = cx.engine.ensure_ready(&image, &def.shape, cx).await?;
            self.start_from(&cx.engine, ready).await?;
            self.first_of_its_kind = true;
            records.put(&self.branch);
        }
        Ok(records)
    }

    /// Makes what makes the node itself.
    fn make_identity(&mut self, cx: &Cx) -> Result<()> {
        let name = self.node()?.name.clone();
        self.identity =
            keys::identities(&cx.engine.config.layout, &mut self.cluster)?.remove(&name);
        Ok(())
    }

    async fn start(&mut self, cx: &Cx) -> Result<()> {
        let name = self.node()?.name.clone();
        let from: Option<Commit> = match &self.ready {
            Some(id) => cx.engine.store.get(id.as_str()).await?,
            None => None,
        };
        let identities = self.identity.clone().map(|identity| (name, identity));
        let incarnation = Incarnation {
            from: from.as_ref(),
            identities: identities.into_iter().collect(),
            after: AfterStart::Run,
            clock: Clock::Step,
            timeout: Duration::from_millis(self.timeout_ms),
            ..Incarnation::new(&cx.engine, &self.cluster, &self.branch)
        };
        self.answered_ms = incarnation.start(cx).await?.answered_us / 1000;
        self.ready_ms = super::elapsed_ms(self.started_us);
        Ok(())
    }

    async fn run_script(&mut self, cx: &Cx) -> Result<()> {
        let Some(script) = &self.script else { return Ok(()) };
        let place = (&self.branch.host_id, self.node()?);
        let timeout = Duration::from_millis(self.timeout_ms);
        let bound = Bound::new(self.exec_limit);
        let result = run_script(cx, place, script, timeout, bound).await?;
        self.script_result = Some(result);
        Ok(())
    }
}

#[async_trait]
impl Kind for VmCreate {
    fn steps(&self) -> &'static [&'static str] {
        &["ready state", "disks", "identity", "start", "user data"]
    }

    fn locks(&self) -> LockSet {
        let set = LockSet::new()
            .with(format!("cluster `{}`", self.cluster.name), Hold::Exclusive)
            .cluster(&self.cluster.id, Hold::Exclusive);
        self.cluster.nodes.iter().fold(set, |set, node| set.image(&node.image, Hold::Shared))
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    fn intent(&self) -> Transaction {
        let mut records = Transaction::new();
        records.put(&self.cluster).put(&self.branch);
        records
    }

    fn revert(&self) -> Transaction {
        let mut records = Transaction::new();
        records.delete::<Cluster>(self.cluster.id.as_str());
        records.delete::<Branch>(self.branch.id.as_str());
        records
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "ready state" => return self.wait_for_ready(cx).await,
            "disks" => self.disks.create(&cx.engine).await?,
            "identity" => self.make_identity(cx)?,
            "start" => self.start(cx).await?,
            _ => self.run_script(cx).await?,
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "disks" => self.disks.discard(&cx.engine).await?,
            "identity" => keys::remove_cluster_key(&cx.engine.config.layout, &self.cluster.id)?,
            "start" => cx.engine.remove_incarnation(&self.branch.host_id).await?,
            _ => {}
        }
        Ok(Transaction::new())
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        self.cluster.state = ClusterState::Ready;
        self.branch.state = BranchState::Running;
        self.branch.base.clone_from(&self.ready);
        let mut records = Transaction::new();
        records.put(&self.cluster).put(&self.branch);
        for layer in &self.disks.layers {
            records.put(layer);
        }
        Ok(records)
    }

    fn result(&self, id: &OperationId) -> Value {
        let node = self.cluster.nodes.first();
        let name = &self.cluster.name;
        let ssh = node.filter(|node| node.shape.nics > 0).map(|_| format!("pando ssh {name}"));
        let Some(node) = node else { return Value::Null };
        memo(&VmCreateResult {
            cluster_id: self.cluster.id.clone(),
            branch_id: self.branch.id.clone(),
            vm_id: crate::resolve::vm_id(&self.cluster, &self.branch, &node.name),
            name: name.clone(),
            node: node.name.clone(),
            address: format!("{name}@{}", self.branch.name),
            image_id: node.image.clone(),
            state: self.branch.state,
            warm: self.ready.is_some(),
            ready_ms: self.ready_ms,
            answered_ms: self.answered_ms,
            first_of_its_kind: self.first_of_its_kind,
            user_data: self.script_result.clone(),
            operation_id: Some(id.clone()),
            ssh_hint: ssh,
        })
    }
}
