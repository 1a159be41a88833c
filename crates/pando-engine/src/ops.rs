//! The operations: what each verb that changes something does, step by step, and how each step is
//! undone. Every kind is a value that is its own memo; `operation` runs it.

pub(crate) mod branch_create;
pub(crate) mod branch_delete;
pub(crate) mod checkout;
pub(crate) mod cluster_define;
pub(crate) mod cluster_start;
pub(crate) mod commit_create;
pub(crate) mod commit_delete;
pub(crate) mod control;
pub(crate) mod cut;
pub(crate) mod exec;
pub(crate) mod faults;
pub(crate) mod flatten;
pub(crate) mod gc;
pub(crate) mod image_add;
pub(crate) mod image_ready;
pub(crate) mod image_remove;
pub(crate) mod look;
pub(crate) mod node_crash;
pub(crate) mod park;
pub(crate) mod records;
pub(crate) mod rollback;
pub(crate) mod vm_create;
pub(crate) mod vm_delete;

use pando_api::branch::InheritedCommand;
use pando_model::Name;
use pando_model::guest::Inherited;
use pando_model::host::StartReport;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::operation::Kind;

fn read<K: Kind + DeserializeOwned + 'static>(memo: &Value) -> serde_json::Result<Box<dyn Kind>> {
    K::deserialize(memo).map(|kind| Box::new(kind) as Box<dyn Kind>)
}

/// Returns the kind that an operation's record describes; `None` for a verb that this pando does
/// not know.
pub(crate) fn revive(verb: &str, memo: &Value) -> serde_json::Result<Option<Box<dyn Kind>>> {
    let kind = match verb {
        "vm_create" => read::<vm_create::VmCreate>(memo),
        "cluster_define" => read::<cluster_define::ClusterDefine>(memo),
        "cluster_start" => read::<cluster_start::ClusterStart>(memo),
        "node_crash" => read::<node_crash::NodeCrash>(memo),
        "vm_control" | "cluster_stop" => read::<control::Control>(memo),
        "vm_delete" | "cluster_destroy" => read::<vm_delete::VmDelete>(memo),
        "branch_create" => read::<branch_create::BranchCreate>(memo),
        "branch_checkout" => read::<checkout::BranchCheckout>(memo),
        "branch_rollback" | "snapshot_revert" => read::<rollback::Rollback>(memo),
        "branch_delete" => read::<branch_delete::BranchDelete>(memo),
        "commit_create" | "snapshot_create" => read::<commit_create::CommitCreate>(memo),
        "commit_delete" | "snapshot_delete" => read::<commit_delete::CommitDelete>(memo),
        "image_build" | "image_import" => read::<image_add::ImageAdd>(memo),
        "image_remove" => read::<image_remove::ImageRemove>(memo),
        "exec_run" | "exec_fanout" | "node_exec" | "node_exec_all" => read::<exec::Exec>(memo),
        "net_partition" | "net_impair" | "net_heal" | "net_heal_all" => {
            read::<faults::Faults>(memo)
        }
        "gc" => read::<gc::Gc>(memo),
        image_ready::VERB => read::<image_ready::ImageReady>(memo),
        look::VERB => read::<look::Look>(memo),
        park::VERB => read::<park::Park>(memo),
        flatten::VERB => read::<flatten::Flatten>(memo),
        // `tag_set` and `tag_delete` are one transaction and never unfinished.
        _ => return Ok(None),
    };
    kind.map(Some)
}

/// Returns microseconds as milliseconds, for people.
#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years")]
pub(crate) fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Returns the commands that were running at the commit and run on, with their nodes.
fn inherited(report: StartReport) -> Vec<InheritedCommand> {
    let on = |(node, commands): (Name, Vec<Inherited>)| {
        commands.into_iter().map(move |Inherited { pid, command }| InheritedCommand {
            node: node.clone(),
            pid,
            command,
        })
    };
    report.inherited.into_iter().flat_map(on).collect()
}

/// Returns the time since `started_us` (microseconds since 1970), in milliseconds.
pub(crate) fn elapsed_ms(started_us: i64) -> u64 {
    let now = jiff::Timestamp::now().as_microsecond();
    u64::try_from(now - started_us).unwrap_or(0) / 1000
}
