//! What was done in machines, what their state is, and what differs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pando_model::capture::Aspect;
use pando_model::change::Change;
use pando_model::{Address, CaptureId, JournalId, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::DEFAULT_DIFF_BYTES;
use crate::page::{Page, default_limit};

mod cluster;

pub use self::cluster::{ClusterDiff, FaultDiff, LinkDiff, NodeDiff, NodeState, Reach, ReachDiff};

/// List what was done in a machine on a branch, newest first: commands, files written and read,
/// starts and stops. The newest some hundred thousand acts are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JournalListParams {
    /// `CLUSTER[@BRANCH][/NODE]` or an id; the only machine's checked-out branch if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Only what was begun at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Most acts to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One act in a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandRow {
    /// Its id.
    pub id: JournalId,
    /// When it was begun.
    pub at: Timestamp,
    /// Who did it.
    pub by: String,
    /// What it was: `exec`, `push`, `pull` or `control`.
    pub act: String,
    /// The branch, by name.
    pub branch: String,
    /// The node.
    pub node: String,
    /// The command line, the file's path, or what `vm_control` was asked for.
    pub command: String,
    /// Its exit status, once it has exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What else ended it: a signal, a timeout, an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How long it took, in milliseconds; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
}

/// Some acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JournalListResult {
    /// Newest first.
    pub commands: Vec<CommandRow>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}

const fn diff_bytes() -> u64 {
    DEFAULT_DIFF_BYTES
}

/// Capture a running machine's state: evidence to compare with later, which cannot be restored
/// (commit the branch for that). The newest 64 captures are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateCaptureParams {
    /// `CLUSTER[@BRANCH][/NODE]` or an id; the only machine's checked-out branch if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// What to capture; everything if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aspects: Vec<Aspect>,
}

/// A capture that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateCaptureResult {
    /// The capture; `state_diff` takes it as `from` or `to`.
    pub capture_id: CaptureId,
    /// When.
    pub captured_at: Timestamp,
    /// Of what: `CLUSTER@BRANCH/NODE`.
    pub address: String,
    /// How many things of each kind it holds.
    pub counts: BTreeMap<String, u64>,
    /// What of it is not there, or not whole, and why.
    pub unknown: BTreeMap<String, String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// Say what differs between two branches, commits or captures of a machine or cluster, on which
/// side it changed since their common ancestor, and because of which commands. With `from` alone:
/// since that branch's latest commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateDiffParams {
    /// `CLUSTER[@BRANCH|@TAG][/NODE]`, or a branch's, commit's or capture's id; all nodes if none
    /// is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
    /// What to compare it with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Address>,
    /// Only these aspects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aspects: Vec<Aspect>,
    /// Only what changed since this command began: its id, as `journal_list` gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<JournalId>,
    /// Also show this file's differing lines: an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hunks: Option<String>,
    /// Most bytes of differences; the rest follows with `cursor`.
    #[serde(default = "diff_bytes")]
    #[schemars(range(min = 1024, max = crate::limits::MAX_DIFF_BYTES))]
    pub max_bytes: u64,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// How much of an aspect differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AspectCount {
    /// The aspect.
    pub aspect: Aspect,
    /// Only afterwards.
    pub added: u64,
    /// Only before.
    pub removed: u64,
    /// On both sides, and not the same.
    pub changed: u64,
}

/// A command and what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandChanges {
    /// The command, as the journal has it.
    pub id: JournalId,
    /// `exec`, `push` or `control`.
    pub act: String,
    /// What was run or written.
    pub command: String,
    /// On which of the compared sides: its branch, by id.
    pub branch: String,
    /// The node that it was done on.
    pub node: Name,
    /// How many of the differences are because of it.
    pub changes: u64,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StateDiffResult {
    /// What is compared.
    pub from: String,
    /// With what.
    pub to: String,
    /// What both descend from: a commit. Absent where there is none, or it cannot be looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Whether nothing differs, and nothing is unknown.
    pub equal: bool,
    /// How much differs, by aspect.
    pub counts: Vec<AspectCount>,
    /// The most important of it, in words.
    pub highlights: Vec<String>,
    /// Recorded commands that differences are because of, in their order.
    pub commands: Vec<CommandChanges>,
    /// Differences that no recorded command explains.
    pub unexplained: u64,
    /// What differs, most important first.
    pub differences: Vec<Change>,
    /// What was left out because it changes by itself, and how much of it.
    pub suppressed: BTreeMap<String, u64>,
    /// What could not be compared, or not wholly, and why.
    pub unknown: BTreeMap<String, String>,
    /// Each node, where clusters are compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeDiff>,
    /// What differs between nodes, where clusters are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterDiff>,
    /// The differing lines of the file that was asked for, in the unified format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hunks: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}
