//! Shortening a disk chain: everything between the image, or an extra disk's first layer, and the
//! writable top moves into the top, while the guest runs. Commits keep their own chains.

use async_trait::async_trait;
use pando_driver::store::Transaction;
use pando_model::commit::{Below, Layer};
use pando_model::{Branch, ClusterId, DiskRole, Name, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Result;
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Direction, Kind, memo};

/// The verb under which it is recorded.
pub(crate) const VERB: &str = "branch_flatten";

#[derive(Serialize, Deserialize)]
pub(crate) struct Flatten {
    pub branch: Branch,
    pub node: Name,
    pub disk: DiskRole,
    /// The writable top.
    pub top: Layer,
    /// What it lies on afterwards.
    pub keep: Below,
}

impl Flatten {
    pub fn locks_for(branch: &Branch) -> LockSet {
        LockSet::new().cluster(&branch.cluster, Hold::Shared).branch(&branch.id)
    }
}

#[async_trait]
impl Kind for Flatten {
    fn steps(&self) -> &'static [&'static str] {
        &["flatten"]
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.branch)
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.branch.cluster.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, _: &str, cx: &Cx) -> Result<Transaction> {
        let host_id = &self.branch.host_id;
        cx.engine.host.flatten(host_id, &self.node, self.disk, &self.keep, &cx.reporter).await?;
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    /// It may have happened, and repeating it is harmless. Without a keeper it cannot be repeated;
    /// then the record says less than the file, which only keeps more layers than are needed.
    async fn direction(&mut self, cx: &Cx) -> Result<Direction> {
        Ok(match cx.engine.host.observe(&self.branch.host_id).await? {
            Some(_) => Direction::Forward,
            None => Direction::Back,
        })
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        let mut records = Transaction::new();
        let depth = match self.keep {
            Below::Layer(_) => 2,
            Below::Image(_) | Below::ImageVars(_) | Below::Nothing => 1,
        };
        records.put(&Layer { below: self.keep.clone(), depth, ..self.top.clone() });
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        serde_json::json!({ "branch_id": self.branch.id, "layer_id": self.top.id })
    }
}
