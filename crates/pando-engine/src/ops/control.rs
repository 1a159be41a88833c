//! `vm_control`: what a branch is doing.

use std::time::Duration;

use async_trait::async_trait;
use pando_api::machine::{Action, VmControlResult};
use pando_driver::host::{Clock, StopMode};
use pando_driver::store::Transaction;
use pando_model::{Branch, BranchState, Cluster, ClusterId, ErrorCode, JournalId, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::incarnation::Incarnation;
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Direction, Kind, memo};
use crate::verbs::clusters::resting;
use crate::verbs::journal::Noted;

#[derive(Serialize, Deserialize)]
pub(crate) struct Control {
    pub cluster: Cluster,
    /// The branch as it was.
    pub before: Branch,
    pub after: Branch,
    pub action: Action,
    pub timeout_ms: u64,
    pub started_us: i64,
    /// Its entries in the journal, whose end is still to be noted: one for each node.
    #[serde(default, deserialize_with = "one_or_several")]
    pub journal: Vec<JournalId>,
    /// Asked for as `cluster_stop`: branches of the cluster, and others that run.
    #[serde(default)]
    pub as_cluster: Option<(u32, u32)>,
}

/// Reads what earlier releases wrote as one id or nothing.
fn one_or_several<'de, D>(from: D) -> std::result::Result<Vec<JournalId>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Several(Vec<JournalId>),
        One(Option<JournalId>),
    }
    Ok(match Written::deserialize(from)? {
        Written::Several(ids) => ids,
        Written::One(id) => id.into_iter().collect(),
    })
}

/// Returns the branch as it is after a boot from its disks.
pub(crate) fn booted(before: &Branch) -> Branch {
    Branch {
        state: BranchState::Running,
        generation: before.generation + 1,
        unchanged: false,
        stopped_because: None,
        powered_off: false,
        ..before.stopped()
    }
}

impl Control {
    pub fn locks_for(cluster: &Cluster, branch: &Branch) -> LockSet {
        LockSet::new().cluster(&cluster.id, Hold::Shared).branch(&branch.id)
    }

    /// Plans an action on a branch whose lock is held.
    pub fn plan(
        cluster: Cluster,
        before: Branch,
        action: Action,
        timeout_ms: u64,
        started_us: i64,
    ) -> Result<Self> {
        use BranchState::{Paused, Running, Stopped};
        let address = format!("{}@{}", cluster.name, before.name);
        let wrong = |hint: &str| {
            let is = match before.state {
                Running => "running",
                Paused => "paused",
                Stopped => "stopped",
            };
            Err(Failure::new(ErrorCode::WrongState, format!("{address} is {is}"))
                .subject(address.clone())
                .hint(hint.replace("ADDRESS", &address)))
        };
        if before.fresh && !matches!(action, Action::Stop | Action::Kill) {
            return wrong("start it first: `pando cluster start ADDRESS`");
        }
        let stopped = before.stopped();
        let after = match (action, before.state) {
            (Action::Start, Stopped) | (Action::Restart, _) => booted(&before),
            (Action::Start, Running) => return wrong("`restart` stops and starts it"),
            (Action::Start, Paused) => return wrong("`pando vm control ADDRESS resume`"),
            (Action::Stop | Action::Kill, _) => stopped,
            (Action::Pause, Running) => Branch { state: Paused, ..before.clone() },
            (Action::Resume, Paused) => Branch { state: Running, ..before.clone() },
            (Action::Pause, Paused) | (Action::Resume, Running) => before.clone(),
            (Action::Pause | Action::Resume, Stopped) => {
                return wrong("start it first: `pando vm control ADDRESS start`");
            }
        };
        Ok(Self {
            cluster,
            before,
            after,
            action,
            timeout_ms,
            started_us,
            journal: Vec::new(),
            as_cluster: None,
        })
    }

    fn stop_mode(&self) -> StopMode {
        match (self.action, self.before.state) {
            // A guest that stands still cannot shut itself down.
            (Action::Kill, _) | (_, BranchState::Paused) => StopMode::Kill,
            _ => StopMode::Shutdown { timeout: Duration::from_millis(self.timeout_ms) },
        }
    }

    /// Notes in the journal how it ended.
    fn note<T>(&mut self, cx: &Cx, result: &Result<T>) {
        for id in std::mem::take(&mut self.journal) {
            let ago = Duration::from_millis(super::elapsed_ms(self.started_us));
            Noted::since(&cx.engine.journal, id, ago).ended(result);
        }
    }

    async fn act(&self, step: &str, cx: &Cx) -> Result<()> {
        let host = &cx.engine.host;
        let host_id = &self.before.host_id;
        match step {
            "stop" => {
                cx.reporter.report("waiting for the guest to shut down", 0, 0);
                // After a restart was interrupted, the new incarnation may run already.
                host.stop(host_id, self.stop_mode()).await?;
            }
            "start" => {
                let mut incarnation = Incarnation::new(&cx.engine, &self.cluster, &self.after);
                incarnation.timeout = cx.engine.config.first_boot_timeout;
                incarnation.start(cx).await?;
                cx.engine.reopen_ports(&self.cluster, &self.after).await?;
            }
            "pause" => host.pause(host_id).await?,
            _ => host.resume(host_id, Clock::Step).await?,
        }
        Ok(())
    }

    fn ends_it(&self) -> bool {
        matches!(self.action, Action::Stop | Action::Kill | Action::Restart)
    }
}

#[async_trait]
impl Kind for Control {
    fn steps(&self) -> &'static [&'static str] {
        match self.action {
            Action::Start => &["start"],
            Action::Stop | Action::Kill => &["stop"],
            Action::Restart => &["stop", "start"],
            Action::Pause => &["pause"],
            Action::Resume => &["resume"],
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
        records.put(&self.before);
        records
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        let result = self.act(step, cx).await;
        if result.is_err() {
            self.note(cx, &result);
        }
        result.map(|()| Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        let undone = Failure::new(ErrorCode::Cancelled, "it was broken off and undone");
        self.note(cx, &Err::<(), _>(undone));
        let host = &cx.engine.host;
        let host_id = &self.before.host_id;
        let lives = host.observe(host_id).await?.is_some();
        match step {
            "start" => host.stop(host_id, StopMode::Kill).await?,
            "pause" if lives && self.before.state == BranchState::Running => {
                host.resume(host_id, Clock::Step).await?;
            }
            "resume" if lives && self.before.state == BranchState::Paused => {
                host.pause(host_id).await?;
            }
            _ => {}
        }
        Ok(Transaction::new())
    }

    /// A guest that was asked to shut down cannot be asked not to.
    async fn direction(&mut self, _: &Cx) -> Result<Direction> {
        Ok(if self.ends_it() { Direction::Forward } else { Direction::Back })
    }

    async fn finish(&mut self, cx: &Cx) -> Result<Transaction> {
        self.note(cx, &Ok(()));
        let mut records = Transaction::new();
        records.put(&self.after);
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        if let Some(counts) = self.as_cluster {
            return memo(&resting(&self.cluster, &self.after, counts));
        }
        memo(&VmControlResult {
            vm_id: crate::resolve::machine_id(&self.cluster, &self.after),
            branch_id: self.after.id.clone(),
            address: format!("{}@{}", self.cluster.name, self.after.name),
            previous_state: self.before.state,
            state: self.after.state,
            duration_ms: super::elapsed_ms(self.started_us),
        })
    }

    fn remedy(&self, _: &OperationId) -> String {
        let address = format!("{}@{}", self.cluster.name, self.before.name);
        format!("pando vm control {address} kill, then pando vm control {address} start")
    }
}
