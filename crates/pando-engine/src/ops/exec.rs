//! A command as an operation: detached, or with an idempotency key. What it did in the guest
//! cannot be undone, and a daemon that ends in the middle does not know how it ended.

use async_trait::async_trait;
use pando_api::exec::ExecRunResult;
use pando_driver::store::Transaction;
use pando_model::guest::ExecSpec;
use pando_model::{BranchId, ClusterId, ErrorCode, JournalId, Name, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::locks::LockSet;
use crate::operation::{Cx, Direction, Kind, memo};
use crate::output::Bound;
use crate::verbs::exec::ended_by;
use crate::verbs::journal::Noted;

#[derive(Serialize, Deserialize)]
pub(crate) struct Exec {
    pub cluster: ClusterId,
    pub host_id: BranchId,
    pub node: Name,
    pub spec: ExecSpec,
    pub stdin: Option<String>,
    pub max_output_bytes: u64,
    /// Whether it was said that its end is unknown.
    pub reported: bool,
    pub ended: Option<ExecRunResult>,
    /// Its entry in the journal, whose end is still to be noted.
    #[serde(default)]
    pub journal: Option<JournalId>,
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
        Some(self.cluster.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, _: &str, cx: &Cx) -> Result<Transaction> {
        if cx.recovering {
            let message = "the daemon ended while the command ran; how it ended is unknown";
            return Err(Failure::new(ErrorCode::KeeperLost, message));
        }
        let stdin = self.stdin.clone().map(String::into_bytes);
        let bound = Bound::new(self.max_output_bytes);
        let ended = cx
            .engine
            .run_command(&self.host_id, &self.node, &self.spec, stdin, bound, &cx.cancel)
            .await;
        if let Some(id) = self.journal.take() {
            let noted = Noted::again(&cx.engine.journal, id);
            match &ended {
                Ok(ran) => noted.exited(ran.exit_code, ended_by(ran)),
                Err(_) => noted.ended(&ended),
            }
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
        let ended = self.ended.clone().unwrap_or_default();
        memo(&ExecRunResult { operation_id: Some(id.clone()), ..ended })
    }

    fn remedy(&self, id: &OperationId) -> String {
        format!("look at what it did in the guest, then `pando operation cancel {id}`")
    }
}
