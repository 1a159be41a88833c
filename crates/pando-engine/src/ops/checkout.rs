//! `branch_checkout`: another branch becomes a principal's current one.

use async_trait::async_trait;
use pando_api::branch::BranchCheckoutResult;
use pando_driver::host::{Clock, StopMode};
use pando_driver::store::Transaction;
use pando_model::branch::Checkout;
use pando_model::{Branch, BranchState, Cluster, ClusterId, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::booted;
use crate::failure::Result;
use crate::incarnation::Incarnation;
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Kind, memo};

#[derive(Serialize, Deserialize)]
pub(crate) struct BranchCheckout {
    pub cluster: Cluster,
    pub principal: String,
    /// The target as it was.
    pub before: Branch,
    pub after: Branch,
    /// What was current.
    pub previous: Branch,
    /// Whether it is paused: it runs, nobody else has it checked out, and it need not be kept.
    pub pause_previous: bool,
}

impl BranchCheckout {
    pub fn plan(
        cluster: Cluster,
        principal: &str,
        target: Branch,
        previous: Branch,
        pause_previous: bool,
    ) -> Self {
        let after = match target.state {
            BranchState::Stopped => booted(&target),
            _ => Branch { state: BranchState::Running, ..target.clone() },
        };
        let principal = principal.to_owned();
        Self { cluster, principal, before: target, after, previous, pause_previous }
    }

    pub fn locks_for(cluster: &Cluster, target: &Branch, previous: &Branch) -> LockSet {
        LockSet::new().cluster(&cluster.id, Hold::Shared).branch(&target.id).branch(&previous.id)
    }

    fn paused(&self) -> Branch {
        Branch { state: BranchState::Paused, ..self.previous.clone() }
    }
}

#[async_trait]
impl Kind for BranchCheckout {
    fn steps(&self) -> &'static [&'static str] {
        &["resume", "pause previous"]
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.cluster, &self.before, &self.previous)
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    fn revert(&self) -> Transaction {
        let mut records = Transaction::new();
        records.put(&self.previous).put(&self.before);
        records
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        let host = &cx.engine.host;
        match (step, self.before.state) {
            ("resume", BranchState::Paused) => {
                host.resume(&self.before.host_id, Clock::Step).await?;
            }
            ("resume", BranchState::Stopped) => {
                let mut incarnation = Incarnation::new(&cx.engine, &self.cluster, &self.after);
                incarnation.timeout = cx.engine.config.first_boot_timeout;
                incarnation.start(cx).await?;
                cx.engine.reopen_ports(&self.cluster, &self.after).await?;
            }
            ("resume", BranchState::Running) => {}
            _ if self.pause_previous => host.pause(&self.previous.host_id).await?,
            _ => {}
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        let host = &cx.engine.host;
        if step == "resume" {
            match self.before.state {
                BranchState::Paused if host.observe(&self.before.host_id).await?.is_some() => {
                    host.pause(&self.before.host_id).await?;
                }
                BranchState::Stopped => host.stop(&self.before.host_id, StopMode::Kill).await?,
                _ => {}
            }
        } else if self.pause_previous && host.observe(&self.previous.host_id).await?.is_some() {
            host.resume(&self.previous.host_id, Clock::Step).await?;
        }
        Ok(Transaction::new())
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        let mut records = Transaction::new();
        if self.pause_previous {
            records.put(&self.paused());
        }
        records.put(&self.after).put(&Checkout {
            principal: self.principal.clone(),
            cluster: self.cluster.id.clone(),
            branch: self.after.id.clone(),
        });
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        let address = |branch: &Branch| format!("{}@{}", self.cluster.name, branch.name);
        memo(&BranchCheckoutResult {
            success: true,
            previous_branch: address(&self.previous),
            previous_paused: self.pause_previous,
            current_branch: address(&self.after),
            branch_id: self.after.id.clone(),
            state: self.after.state,
        })
    }
}
