//! One function per verb. Verbs that change something are *planned* here: resolve the names, take
//! the locks, read again what the locks protect, check, choose all ids; then the plan is run by
//! `operation`. Verbs that only look answer here.

mod branches;
mod capture;
pub(crate) mod clusters;
mod commits;
pub(crate) mod diff;
pub(crate) mod exec;
mod files;
pub(crate) mod images;
pub(crate) mod journal;
mod machines;
mod network;
mod nodes;
mod operations;
pub(crate) mod snapshots;
mod status;
mod system;
mod topology;
pub(crate) mod usage;

use std::time::Duration;

use pando_api::{ApiError, Call, Caller};
use pando_model::ErrorCode;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::locks::{Guard, LockSet};
use crate::operation::Plan;

/// A plan, and what is returned at once by calls that do not wait for it.
pub(crate) struct Planned {
    pub plan: Plan,
    pub early: Value,
}

impl From<Plan> for Planned {
    fn from(plan: Plan) -> Self {
        Self { plan, early: Value::Null }
    }
}

/// Returns a result as JSON.
fn json<T: Serialize>(result: &T) -> Result<Value> {
    serde_json::to_value(result)
        .map_err(|error| Failure::internal(format!("the result is no JSON: {error}")))
}

/// Returns the present, in microseconds since 1970: when a request came.
fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

impl Engine {
    /// Plans a verb that is an operation.
    pub(crate) async fn plan(&self, caller: &Caller, call: Call) -> Result<Planned> {
        match call {
            Call::VmCreate(params) => self.plan_vm_create(caller, params).await,
            Call::VmControl(params) => self.plan_vm_control(caller, params).await,
            Call::VmDelete(params) => self.plan_vm_delete(params).await,
            Call::ClusterDefine(params) => self.plan_cluster_define(caller, params).await,
            Call::ClusterStart(params) => self.plan_cluster_start(caller, params).await,
            Call::ClusterStop(params) => self.plan_cluster_stop(caller, params).await,
            Call::ClusterDestroy(params) => self.plan_cluster_destroy(params).await,
            Call::NodeCrash(params) => self.plan_node_crash(caller, params).await,
            Call::SnapshotCreate(params) => self.plan_snapshot_create(caller, params).await,
            Call::SnapshotRevert(params) => self.plan_snapshot_revert(caller, params).await,
            Call::SnapshotDelete(params) => self.plan_snapshot_delete(params).await,
            Call::BranchCreate(params) => self.plan_branch_create(caller, params).await,
            Call::BranchCheckout(params) => self.plan_branch_checkout(caller, params).await,
            Call::BranchRollback(params) => self.plan_branch_rollback(caller, params).await,
            Call::BranchDelete(params) => self.plan_branch_delete(caller, params).await,
            Call::CommitCreate(params) => self.plan_commit_create(caller, params).await,
            Call::CommitDelete(params) => self.plan_commit_delete(params).await,
            Call::TagSet(params) => self.plan_tag_set(params).await,
            Call::TagDelete(params) => self.plan_tag_delete(params).await,
            call @ (Call::ExecRun(_)
            | Call::ExecFanout(_)
            | Call::NodeExec(_)
            | Call::NodeExecAll(_)) => self.plan_exec(caller, call).await,
            Call::ImageBuild(params) => self.plan_image_build(params).await,
            Call::ImageImport(params) => self.plan_image_import(params).await,
            Call::ImageRemove(params) => self.plan_image_remove(&params).await,
            Call::NetPartition(params) => self.plan_net_partition(caller, params).await,
            Call::NetImpair(params) => self.plan_net_impair(caller, params).await,
            Call::NetHeal(params) => self.plan_net_heal(caller, params).await,
            Call::NetHealAll(params) => self.plan_net_heal_all(caller, params).await,
            Call::Gc(params) => self.plan_gc(&params).await,
            call => Err(Failure::internal(format!("{} is no operation", call.name()))),
        }
    }

    /// Answers a verb that is no operation.
    pub(crate) async fn answer(&self, caller: &Caller, call: Call) -> Result<Value> {
        match call {
            Call::VmList(params) => json(&self.vm_list(caller, params).await?),
            Call::VmUsage(params) => json(&self.vm_usage(params).await?),
            Call::VmStatus(params) => json(&self.vm_status(caller, params).await?),
            Call::ClusterStatus(params) => json(&self.cluster_status(caller, params).await?),
            Call::ClusterHandle(params) => json(&self.cluster_handle(caller, params).await?),
            Call::ClusterList(params) => json(&self.cluster_list(params).await?),
            Call::SnapshotList(params) => json(&self.snapshot_list(params).await?),
            Call::BranchList(params) => json(&self.branch_list(caller, params).await?),
            Call::CommitList(params) => json(&self.commit_list(params).await?),
            Call::CommitShow(params) => json(&self.commit_show(&params.commit).await?),
            Call::CommitVerify(params) => json(&self.commit_verify(&params.commit).await?),
            call @ (Call::ExecRun(_)
            | Call::ExecFanout(_)
            | Call::NodeExec(_)
            | Call::NodeExecAll(_)) => {
                self.run_commands(caller, call, &CancellationToken::new()).await
            }
            Call::FilePush(params) => json(&self.file_push(caller, params).await?),
            Call::FilePull(params) => json(&self.file_pull(caller, params).await?),
            Call::ConnectInfo(params) => json(&self.connect_info(caller, params).await?),
            Call::ConsoleRead(params) => json(&self.console_read(caller, params).await?),
            Call::TopologyValidate(params) => {
                json(&self.topology_validate(&params.topology).await?)
            }
            Call::TopologyList(params) => json(&self.topology_list(params).await?),
            Call::TopologyShow(params) => json(&self.topology_show(&params.topology).await?),
            Call::ImageList(params) => json(&self.image_list(params).await?),
            Call::ImageShow(params) => json(&self.image_show(&params.image).await?),
            Call::OperationList(params) => json(&self.operation_list(params).await?),
            Call::OperationGet(params) => json(&self.operation_get(&params.id).await?),
            Call::OperationWait(params) => {
                let patience = Duration::from_secs(params.timeout_s);
                json(&self.operation_wait(&params.id, patience).await?)
            }
            Call::OperationCancel(params) => json(&self.operation_cancel(&params.id).await?),
            Call::StateCapture(params) => json(&self.state_capture(caller, params).await?),
            Call::StateDiff(params) => json(&self.state_diff(caller, params).await?),
            Call::JournalList(params) => json(&self.journal_list(caller, params).await?),
            Call::NetFaultList(params) => json(&self.net_fault_list(caller, params).await?),
            Call::NetProbe(params) => json(&self.net_probe(caller, params).await?),
            Call::NetCapture(params) => json(&self.net_capture(caller, params).await?),
            Call::SystemStatus(_) => json(&self.system_status().await?),
            call => Err(Failure::internal(format!("{} is an operation", call.name()))),
        }
    }

    /// Takes locks for a verb.
    async fn hold(&self, locks: LockSet, verb: &str) -> Result<Guard> {
        self.locks.acquire(locks, verb, self.config.lock_wait).await
    }

    /// Refuses what would fill the disk.
    pub(crate) async fn check_disk(&self, what: &str) -> Result<()> {
        let capacity = self.host.capacity().await?;
        let reserve = self.config.disk_reserve;
        if capacity.disk_free >= reserve {
            return Ok(());
        }
        let message = format!(
            "{what} is refused: {} of disk is free, {reserve} is kept in reserve",
            capacity.disk_free
        );
        Err(ApiError::new(ErrorCode::DiskFull, message)
            .hint("`pando gc` removes what nothing needs; delete commits and branches")
            .into())
    }

    /// Refuses what would exhaust the host's memory.
    pub(crate) async fn check_memory(&self, machines: usize, what: &str) -> Result<()> {
        let capacity = self.host.capacity().await?;
        let each = self.config.branch_memory;
        let needed = self.config.memory_reserve.0 + each.0 * machines as u64;
        if capacity.memory_available.0 >= needed {
            return Ok(());
        }
        let message = format!(
            "{what} is refused: {} of memory is available, {machines} more would need about {}",
            capacity.memory_available,
            pando_model::ByteCount(needed)
        );
        Err(ApiError::new(ErrorCode::MemoryFull, message)
            .hint("pause does not free memory: stop or delete branches that you do not need")
            .into())
    }
}
