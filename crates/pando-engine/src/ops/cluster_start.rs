//! `cluster_start`: all nodes of a branch run and answer, or none was started. That SSH is late undoes
//! nothing: it is said of the nodes concerned.
//!
//! A branch that was never started is *fresh*: its nodes continue from their images' ready states,
//! get identities, and are set up as the topology says. All of that is undone whole: the disks are
//! made anew, and the next start begins again.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use pando_api::cluster::{ClusterStartResult, NodeStatus};
use pando_driver::HostError;
use pando_driver::host::{Clock, StopMode};
use pando_driver::store::Transaction;
use pando_model::commit::Layer;
use pando_model::guest::Identity;
use pando_model::{Branch, BranchState, Cluster, ClusterId, Commit, Name, NodeDef, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::incarnation::Incarnation;
use crate::keys;
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Kind, memo};
use crate::set_up::{self, SetUp};
use crate::topologies;
use crate::verbs::clusters::{seen_running, ssh_missing, status};

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    /// The first start.
    First,
    /// A boot of the disks.
    Boot,
    /// A paused branch goes on.
    Resume,
    /// The branch runs, or goes on if it is paused; these nodes of it did not.
    Nodes(Vec<Name>),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ClusterStart {
    /// As it was.
    pub cluster_before: Cluster,
    /// With its nodes' new host keys, after a first start.
    pub cluster: Cluster,
    pub before: Branch,
    pub after: Branch,
    pub how: How,
    /// A fresh branch's disks.
    pub layers: Vec<Layer>,
    /// A fresh branch's ready states; a node without one boots.
    pub ready: BTreeMap<Name, Commit>,
    pub wait_for_ssh: bool,
    pub ssh_timeout_ms: u64,
    pub set_up_timeout_ms: u64,
    pub set_up: u32,
    pub branches: u32,
    /// Running branches besides this one.
    pub others: u32,
    pub started_us: i64,
    pub ready_ms: u64,
    /// What the nodes did at the end.
    #[serde(default)]
    pub nodes: Vec<NodeStatus>,
    /// Nodes without SSH at the end of the wait for it, and why.
    #[serde(default)]
    pub ssh_missing: BTreeMap<Name, String>,
    /// Secret, and made anew whenever the steps run again.
    #[serde(skip)]
    pub identities: BTreeMap<Name, Identity>,
}

impl ClusterStart {
    pub fn locks_for(cluster: &Cluster, branch: &Branch) -> LockSet {
        LockSet::new().cluster(&cluster.id, Hold::Shared).branch(&branch.id)
    }

    fn started(&self) -> Vec<Name> {
        match &self.how {
            How::First | How::Boot => {
                self.cluster.nodes.iter().map(|node| node.name.clone()).collect()
            }
            How::Resume => Vec::new(),
            How::Nodes(names) => names.clone(),
        }
    }

    async fn start(&mut self, cx: &Cx) -> Result<()> {
        let host = &cx.engine.host;
        let host_id = &self.after.host_id;
        let timeout = cx.engine.config.first_boot_timeout;
        match &self.how {
            How::First | How::Boot => {
                let incarnation = Incarnation {
                    identities: self.identities.clone(),
                    ready: self.ready.clone(),
                    timeout,
                    ..Incarnation::new(&cx.engine, &self.cluster, &self.after)
                };
                incarnation.start(cx).await?;
            }
            How::Resume => host.resume(host_id, Clock::Step).await?,
            How::Nodes(names) => {
                self.resume_if_paused(cx).await?;
                try_join_all(names.iter().map(|name| host.boot_node(host_id, name, timeout)))
                    .await?;
            }
        }
        cx.engine.open_ports(&self.cluster, &self.after).await?;
        self.ready_ms = super::elapsed_ms(self.started_us);
        Ok(())
    }

    /// Lets a paused branch go on. One whose nodes have all ended is not paused, whatever is recorded.
    async fn resume_if_paused(&self, cx: &Cx) -> Result<()> {
        let host = &cx.engine.host;
        let seen = host.observe(&self.before.host_id).await?;
        if seen.is_some_and(|seen| seen.state == BranchState::Paused) {
            host.resume(&self.before.host_id, Clock::Step).await?;
        }
        Ok(())
    }

    /// Waits for SSH if that was asked for, then looks at what the nodes do.
    async fn look(&mut self, cx: &Cx) -> Result<()> {
        let (cluster, branch) = (&self.cluster, &self.after);
        if self.wait_for_ssh {
            cx.reporter.report("waiting for SSH", 0, 0);
            let timeout = Duration::from_millis(self.ssh_timeout_ms);
            let missing = ssh_missing(&cx.engine, cluster, branch, timeout).await;
            let why = |(name, Failure(error)): (Name, Failure)| (name, error.message);
            self.ssh_missing = missing.into_iter().map(why).collect();
        }
        let seen = cx.engine.host.observe(&branch.host_id).await?;
        let seen = seen.ok_or_else(|| HostError::NotRunning { branch: branch.host_id.clone() })?;
        let ssh = |def: &NodeDef| self.wait_for_ssh && !self.ssh_missing.contains_key(&def.name);
        self.nodes = seen_running(cluster, &seen, ssh);
        // What this started has answered; the others are asked.
        let started = self.started();
        for node in &mut self.nodes {
            if node.answers && !started.contains(&node.name) {
                let asked = cx.engine.glance(&branch.host_id, &node.name).await;
                node.answers = asked.is_ok();
                node.reason = node.reason.take().or(asked.err());
            }
        }
        Ok(())
    }

    fn hint(&self) -> Option<String> {
        let first = self.ssh_missing.keys().next()?;
        let address = format!("{}@{}", self.cluster.name, self.after.name);
        Some(format!(
            "the nodes run, and commands need no SSH; `pando cluster status {address}` asks again, \
             `pando console {address}/{first}` shows what it does; a longer `ssh_timeout_s` waits longer"
        ))
    }

    async fn set_up(&mut self, cx: &Cx) -> Result<()> {
        let Some(source) = &self.cluster.topology else { return Ok(()) };
        let topology = topologies::read(source)?;
        let timeout = Duration::from_millis(self.set_up_timeout_ms);
        let (cluster, branch) = (&self.cluster, &self.after);
        let user = topology.ssh.user.as_str();
        let nodes = cluster.nodes.iter().filter_map(|def| Some((def, topology.node(&def.name)?)));
        let work = nodes.map(|(def, node)| async move {
            SetUp { cx, cluster, branch, def, timeout, user }.run(node).await?;
            Ok::<_, Failure>(set_up::count(node))
        });
        let done: usize = try_join_all(work).await?.into_iter().sum();
        self.set_up = u32::try_from(done).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Makes a fresh branch's disks empty again.
    async fn renew_disks(&self, cx: &Cx) -> Result<()> {
        for layer in self.layers.iter().rev() {
            cx.engine.host.discard_layer(&layer.id).await?;
        }
        for layer in &self.layers {
            cx.engine.host.create_layer(layer).await?;
        }
        Ok(())
    }

    async fn unstart(&self, cx: &Cx) -> Result<()> {
        let host = &cx.engine.host;
        let host_id = &self.before.host_id;
        match &self.how {
            How::First => {
                cx.engine.remove_incarnation(host_id).await?;
                self.renew_disks(cx).await?;
            }
            How::Boot => host.stop(host_id, StopMode::Kill).await?,
            How::Resume if host.observe(host_id).await?.is_some() => host.pause(host_id).await?,
            How::Nodes(names) if host.observe(host_id).await?.is_some() => {
                for name in names {
                    host.crash_node(host_id, name).await?;
                }
                if self.before.state == BranchState::Paused {
                    host.pause(host_id).await?;
                }
            }
            How::Resume | How::Nodes(_) => {}
        }
        Ok(())
    }
}

#[async_trait]
impl Kind for ClusterStart {
    fn steps(&self) -> &'static [&'static str] {
        match self.how {
            How::First => &["identities", "start", "set-up", "ssh"],
            How::Boot | How::Resume | How::Nodes(_) => &["start", "ssh"],
        }
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.cluster, &self.before)
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    fn revert(&self) -> Transaction {
        let mut records = Transaction::new();
        records.put(&self.cluster_before).put(&self.before);
        records
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "identities" => {
                self.identities = keys::identities(&cx.engine.config.layout, &mut self.cluster)?;
            }
            "start" => self.start(cx).await?,
            "set-up" => self.set_up(cx).await?,
            _ => self.look(cx).await?,
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "identities" => {
                keys::remove_cluster_key(&cx.engine.config.layout, &self.cluster.id)?;
            }
            "start" => self.unstart(cx).await?,
            _ => {}
        }
        Ok(Transaction::new())
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        let mut records = Transaction::new();
        records.put(&self.after);
        if self.how == How::First {
            records.put(&self.cluster);
        }
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        let counts = (self.branches, self.others + 1);
        memo(&ClusterStartResult {
            status: status(&self.cluster, &self.after, counts, self.nodes.clone()),
            started: self.started(),
            ssh_missing: self.ssh_missing.clone(),
            hint: self.hint(),
            warm: self.how == How::First && !self.ready.is_empty(),
            ready_ms: self.ready_ms,
            set_up: self.set_up,
        })
    }

    fn remedy(&self, _: &OperationId) -> String {
        let address = format!("{}@{}", self.cluster.name, self.before.name);
        format!("pando cluster stop {address} --mode destroy, then pando cluster start {address}")
    }
}

/// Returns a branch as it is once it was started.
pub(crate) fn started(before: &Branch, how: &How) -> Branch {
    match how {
        How::First => Branch {
            state: BranchState::Running,
            generation: before.generation + 1,
            fresh: false,
            stopped_because: None,
            powered_off: false,
            ..before.clone()
        },
        How::Boot => super::control::booted(before),
        How::Resume | How::Nodes(_) => Branch { state: BranchState::Running, ..before.clone() },
    }
}
