//! `node_crash`: one node's power fails, and comes back. What a machine had in memory only is gone
//! with its first step, so there is only forward.

use std::time::Duration;

use async_trait::async_trait;
use pando_api::cluster::NodeStatus;
use pando_api::node::NodeCrashResult;
use pando_driver::store::Transaction;
use pando_model::{Branch, Cluster, ClusterId, JournalId, Name, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Direction, Kind, memo};
use crate::verbs::clusters::ssh_answers_on;
use crate::verbs::journal::Noted;

#[derive(Serialize, Deserialize)]
pub(crate) struct NodeCrash {
    pub cluster: Cluster,
    pub branch: Branch,
    pub node: Name,
    pub restart: bool,
    /// How long to wait for SSH, if at all.
    pub ssh_timeout_ms: Option<u64>,
    pub started_us: i64,
    pub journal: Option<JournalId>,
    /// Whether the machine's end was seen, and was this operation's doing.
    pub crashed: bool,
    pub status: Option<NodeStatus>,
}

impl NodeCrash {
    pub fn locks_for(cluster: &Cluster, branch: &Branch) -> LockSet {
        LockSet::new().cluster(&cluster.id, Hold::Shared).branch(&branch.id)
    }

    fn address(&self) -> String {
        format!("{}@{}/{}", self.cluster.name, self.branch.name, self.node)
    }

    fn note<T>(&mut self, cx: &Cx, result: &Result<T>) {
        if let Some(id) = self.journal.take() {
            let ago = Duration::from_millis(super::elapsed_ms(self.started_us));
            Noted::since(&cx.engine.journal, id, ago).ended(result);
        }
    }

    async fn look(&self, cx: &Cx) -> Result<NodeStatus> {
        let def = self.cluster.node(&self.node);
        let def = def.ok_or_else(|| Failure::not_found("node", self.node.as_str()))?;
        let seen = cx.engine.host.observe(&self.branch.host_id).await?;
        Ok(cx.engine.look_at(&self.cluster, &self.branch, def, seen.as_ref()).await)
    }
}

#[async_trait]
impl Kind for NodeCrash {
    fn steps(&self) -> &'static [&'static str] {
        if self.restart { &["crash", "boot", "ssh"] } else { &["crash"] }
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.cluster, &self.branch)
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        let host = &cx.engine.host;
        let host_id = &self.branch.host_id;
        match step {
            // Repeated after the node was booted again, it would be another crash.
            "crash" if !self.crashed => {
                host.crash_node(host_id, &self.node).await?;
                self.crashed = true;
                let mut records = Transaction::new();
                records.put(&self.branch);
                return Ok(records);
            }
            "boot" => {
                cx.reporter.report("booting the node again", 0, 0);
                host.boot_node(host_id, &self.node, cx.engine.config.first_boot_timeout).await?;
            }
            "ssh" => {
                if let Some(timeout_ms) = self.ssh_timeout_ms {
                    let timeout = Duration::from_millis(timeout_ms);
                    let (cluster, branch) = (&self.cluster, &self.branch);
                    // Whether it does is part of the result: the crash cannot be undone.
                    let _ = ssh_answers_on(&cx.engine, cluster, branch, &self.node, timeout).await;
                }
            }
            _ => {}
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    async fn direction(&mut self, cx: &Cx) -> Result<Direction> {
        match cx.engine.host.observe(&self.branch.host_id).await? {
            Some(_) => Ok(Direction::Forward),
            // The whole branch has ended meanwhile, and is recorded so.
            None => Ok(Direction::Back),
        }
    }

    async fn finish(&mut self, cx: &Cx) -> Result<Transaction> {
        self.note(cx, &Ok(()));
        self.status = Some(self.look(cx).await?);
        Ok(Transaction::new())
    }

    fn result(&self, _: &OperationId) -> Value {
        let Some(status) = &self.status else { return Value::Null };
        memo(&NodeCrashResult {
            status: status.clone(),
            address: self.address(),
            restarted: self.restart,
            duration_ms: super::elapsed_ms(self.started_us),
        })
    }

    fn remedy(&self, _: &OperationId) -> String {
        format!("pando cluster start {}@{}", self.cluster.name, self.branch.name)
    }
}
