//! Commands as an operation: detached, for longer than a client waits, or with an idempotency key. What
//! they did in guests cannot be undone, and a daemon that ends in the middle does not know how they ended.

use async_trait::async_trait;
use pando_api::{Call, Caller};
use pando_driver::store::Transaction;
use pando_model::{ClusterId, ErrorCode, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::locks::LockSet;
use crate::operation::{Cx, Direction, Kind, memo};

#[derive(Serialize, Deserialize)]
pub(crate) struct Exec {
    pub caller: Caller,
    /// The call.
    pub verb: String,
    pub params: Value,
    /// Where they run; `None` if that is not one cluster.
    pub cluster: Option<ClusterId>,
    /// Whether it was said that their end is unknown.
    pub reported: bool,
    pub ended: Option<Value>,
}

#[async_trait]
impl Kind for Exec {
    fn steps(&self) -> &'static [&'static str] {
        &["run"]
    }

    /// None: any number of commands may run in a branch, and a commit may be made meanwhile.
    fn locks(&self) -> LockSet {
        LockSet::new()
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.cluster.clone()
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, _: &str, cx: &Cx) -> Result<Transaction> {
        if cx.recovering {
            let message = "the daemon ended while the command ran; how it ended is unknown";
            return Err(Failure::new(ErrorCode::KeeperLost, message));
        }
        let call = Call::parse(&self.verb, self.params.clone())?;
        let ended = cx.engine.run_commands(&self.caller, call, &cx.cancel).await;
        // Of several commands, each says whether it was killed; together they have no result.
        if cx.cancel.is_cancelled() {
            return Err(Failure::new(
                ErrorCode::Cancelled,
                "it was cancelled; what had not ended by then was killed",
            ));
        }
        self.ended = Some(ended?);
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    async fn direction(&mut self, cx: &Cx) -> Result<Direction> {
        // After a crash nothing is known about it: pressing on ends as stuck and says so. Whoever
        // cancels it then has seen that.
        let news = cx.recovering && !self.reported;
        self.reported |= cx.recovering;
        Ok(if news { Direction::Forward } else { Direction::Back })
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    fn result(&self, id: &OperationId) -> Value {
        let mut result = self.ended.clone().unwrap_or_else(|| json!({}));
        if let Value::Object(fields) = &mut result {
            fields.insert("operation_id".to_owned(), json!(id));
        }
        result
    }

    fn after_daemon_end(&self) -> &'static str {
        "how it ended is unknown: look at what it did in the guest before it is called again"
    }

    fn remedy(&self, id: &OperationId) -> String {
        format!("look at what it did in the guest, then `pando operation cancel {id}`")
    }
}
