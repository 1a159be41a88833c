//! Verbs that change records only: one transaction, no steps.

use async_trait::async_trait;
use pando_driver::store::Transaction;
use pando_model::{ClusterId, OperationId};
use serde_json::Value;

use crate::failure::Result;
use crate::locks::LockSet;
use crate::operation::{Cx, Kind};

/// A change of records with its result.
pub(crate) struct RecordsOnly {
    pub cluster: ClusterId,
    pub change: Transaction,
    /// What returns the records to before.
    pub back: Transaction,
    pub result: Value,
}

#[async_trait]
impl Kind for RecordsOnly {
    fn steps(&self) -> &'static [&'static str] {
        &[]
    }

    /// Never recovered: it is on disk whole or not at all.
    fn locks(&self) -> LockSet {
        LockSet::new()
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.clone())
    }

    fn memo(&self) -> Value {
        Value::Null
    }

    fn revert(&self) -> Transaction {
        self.back.clone()
    }

    async fn run(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        Ok(self.change.clone())
    }

    fn result(&self, _: &OperationId) -> Value {
        self.result.clone()
    }
}
