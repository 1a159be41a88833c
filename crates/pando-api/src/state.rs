//! What was done in machines, what their state is, and what differs.

use jiff::Timestamp;
use pando_model::{Address, JournalId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::page::{Page, default_limit};

/// List what was done in a machine on a branch, newest first: commands, files written and read.
/// The newest some hundred thousand acts are kept.
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
    pub limit: u32,
    /// Continue after an earlier result: its `next_cursor`.
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
    /// What it was: `exec`, `push` or `pull`.
    pub act: String,
    /// The branch, by name.
    pub branch: String,
    /// The node.
    pub node: String,
    /// The command line, or the file's path.
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
