//! Branches: parameters and results of the `branch_*` verbs.

use jiff::Timestamp;
use pando_model::branch::BranchState;
use pando_model::{Address, BranchId, ClusterId, CommitId, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::page::{Page, default_limit, yes};

/// Make live copies of a running branch, all its nodes at one instant, or of a commit. Every copy
/// keeps the same addresses and identity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchCreateParams {
    /// `CLUSTER[@BRANCH]`, `CLUSTER@TAG`, or the id of a branch or commit; the only cluster's
    /// current branch if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
    /// Name of the new branch; chosen for you if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Names of several new branches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = pando_model::limits::MAX_BRANCHES_PER_REQUEST))]
    pub names: Vec<Name>,
    /// How many, with names chosen for you.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_BRANCHES_PER_REQUEST))]
    pub count: Option<u32>,
    /// Exactly the commit's instant: no warm copy.
    #[serde(default)]
    pub exact: bool,
    /// Let the guest's clock go on from the commit's time.
    #[serde(default)]
    pub frozen_clock: bool,
    /// Leave the new branches standing still.
    #[serde(default)]
    pub paused: bool,
    /// New seeds for the faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = crate::limits::MAX_SEED))]
    pub seed: Option<u64>,
}

/// One branch that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BranchCreated {
    /// Its id; absent when it could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch_id: Option<BranchId>,
    /// An address that names this machine whatever is checked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_id: Option<String>,
    /// Its name.
    pub name: Name,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// What it is doing; `stopped` when it could not be made.
    pub state: BranchState,
    /// Whether it came from a warm copy.
    pub warm: bool,
    /// How long that copy had run after the commit, in milliseconds.
    pub advanced_ms: u64,
    /// From the request until it answered, in milliseconds.
    pub ready_ms: u64,
    /// Commands that were running at the commit and run on here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherited: Vec<InheritedCommand>,
    /// Why it could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// A command that was running at a commit, and runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InheritedCommand {
    /// On which node.
    pub node: Name,
    /// Its process id there.
    pub pid: u32,
    /// What was run, as one line.
    pub command: String,
}

/// Branches that were made. The call fails only if none of them could be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BranchCreateResult {
    /// One entry for each branch that was asked for, in order.
    pub branches: Vec<BranchCreated>,
    /// The commit that they start from.
    pub commit_id: CommitId,
    /// How many could be made.
    pub succeeded: u32,
    /// How many could not.
    pub failed: u32,
    /// How long the branch that they come from stood still, in milliseconds; 0 from a commit.
    pub pause_ms: u64,
    /// The branch, when exactly one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch_id: Option<BranchId>,
    /// Its machine, when exactly one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_id: Option<String>,
}

/// List branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchListParams {
    /// Only those of this cluster, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Only those in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BranchState>,
    /// Most branches to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One branch of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BranchRow {
    /// Its id.
    pub id: BranchId,
    /// Its name.
    pub alias: Name,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// Whose state it is.
    pub cluster_id: ClusterId,
    /// The branch that it was made from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<BranchId>,
    /// Its latest commit, or the one it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<CommitId>,
    /// What it is doing.
    pub state: BranchState,
    /// Why it stopped, if it did so by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the caller has it checked out.
    pub current: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
}

/// Some branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BranchListResult {
    /// By cluster, then in the order in which they were made.
    pub branches: Vec<BranchRow>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}

/// Make a branch the current one: it is resumed, and addresses without a branch mean it. The
/// previous one is paused unless somebody else has it checked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchCheckoutParams {
    /// `CLUSTER@BRANCH` or the branch's id.
    pub branch: Address,
    /// Leave the previous branch running.
    #[serde(default)]
    pub keep: bool,
}

/// A checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BranchCheckoutResult {
    /// Always true; failures are errors.
    pub success: bool,
    /// `CLUSTER@BRANCH` of what was current.
    pub previous_branch: String,
    /// Whether that was paused.
    pub previous_paused: bool,
    /// `CLUSTER@BRANCH` of what is current.
    pub current_branch: String,
    /// Its id.
    pub branch_id: BranchId,
    /// What it is doing.
    pub state: BranchState,
}

/// Return a branch, in place, to a commit. Its state before is committed first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchRollbackParams {
    /// `CLUSTER[@BRANCH]` or an id; the only cluster's current branch if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Address>,
    /// The commit: a tag of the cluster, `CLUSTER@TAG`, or an id.
    pub target: String,
    /// Commit the state before, so that nothing is lost.
    #[serde(default = "yes")]
    pub save: bool,
    /// Start at the commit's instant, not from a warm copy that ran on.
    #[serde(default)]
    pub exact: bool,
}

/// A rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BranchRollbackResult {
    /// Always true; failures are errors.
    pub success: bool,
    /// The commit that it is at.
    pub rolled_back_to: CommitId,
    /// The commit that holds the state before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_as: Option<CommitId>,
    /// What of that state it does not hold, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save_note: Option<String>,
    /// The branch.
    pub branch_id: BranchId,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// What it is doing.
    pub state: BranchState,
    /// Whether it came from a warm copy.
    pub warm: bool,
    /// How long that copy had run after the commit, in milliseconds.
    pub advanced_ms: u64,
    /// From the request until it answered, in milliseconds.
    pub ready_ms: u64,
    /// Commands that were running at the commit and run on here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherited: Vec<InheritedCommand>,
}

/// Delete a branch. Its commits stay. Refused while it runs, holds changes that no commit has, or
/// is checked out, unless forced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchDeleteParams {
    /// `CLUSTER@BRANCH` or the branch's id.
    pub branch: Address,
    /// Also when it runs or holds changes that no commit has.
    #[serde(default)]
    pub force: bool,
}

/// A branch that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BranchDeleteResult {
    /// The branch.
    pub branch_id: BranchId,
    /// `CLUSTER@BRANCH`.
    pub address: String,
    /// Commits that were cut from it and stay.
    pub kept_commits: u32,
}
