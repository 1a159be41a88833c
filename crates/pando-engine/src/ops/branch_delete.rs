//! `branch_delete`, and the end of a parked copy: stop it, then remove its files and record.

use async_trait::async_trait;
use pando_api::branch::BranchDeleteResult;
use pando_driver::store::{Record, Transaction};
use pando_model::branch::Checkout;
use pando_model::{Branch, Cluster, ClusterId, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Result;
use crate::garbage::{Gone, branch_layers};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Direction, Kind, memo};

#[derive(Serialize, Deserialize)]
pub(crate) struct BranchDelete {
    pub cluster: Cluster,
    pub branch: Branch,
    /// Who has it checked out.
    pub checkouts: Vec<Checkout>,
    pub kept_commits: u32,
}

impl BranchDelete {
    pub fn locks_for(branch: &Branch) -> LockSet {
        LockSet::new().cluster(&branch.cluster, Hold::Shared).branch(&branch.id)
    }
}

#[async_trait]
impl Kind for BranchDelete {
    fn steps(&self) -> &'static [&'static str] {
        &["stop", "remove"]
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.branch)
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        if step == "stop" {
            cx.engine.remove_incarnation(&self.branch.host_id).await?;
            return Ok(Transaction::new());
        }
        let mut records = Transaction::new();
        for checkout in &self.checkouts {
            records.delete::<Checkout>(checkout.key());
        }
        let tops = branch_layers(&self.branch);
        let branches = vec![self.branch.clone()];
        cx.engine.sweep(Gone { branches, records, tops, ..Gone::default() }).await?;
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    /// Memory that was let go does not come back.
    async fn direction(&mut self, _: &Cx) -> Result<Direction> {
        Ok(Direction::Forward)
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    fn result(&self, _: &OperationId) -> Value {
        memo(&BranchDeleteResult {
            branch_id: self.branch.id.clone(),
            address: format!("{}@{}", self.cluster.name, self.branch.name),
            kept_commits: self.kept_commits,
        })
    }
}
