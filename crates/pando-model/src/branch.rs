//! Branches: named live lines of a cluster's state.
//!
//! ```text
//!            start/resume            pause
//!   stopped ─────────────▶ running ◀──────▶ paused
//!      ▲                      │               │
//!      └──── stop, crash ─────┴───────────────┘
//! ```

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::disk::NodeLayers;
use crate::fault::Fault;
use crate::id::{BranchId, ClusterId, CommitId};
use crate::name::Name;

/// What a branch is doing, as intended (in the store) or as observed (from its keeper).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BranchState {
    /// Its nodes run.
    Running,
    /// Its nodes hold all their state and do not run.
    Paused,
    /// It has disks and no processes.
    Stopped,
}

/// Why a branch exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchRole {
    /// A user's.
    Live,
    /// Restored from a warm commit, touched once and stopped; waits to become somebody's branch.
    Parked,
    /// Boots an image for its ready state; ends with it.
    Template,
}

/// One node's share of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchNode {
    /// The node's name.
    pub name: Name,
    /// The writable tops of its disks' chains.
    #[serde(flatten)]
    pub layers: NodeLayers,
    /// The ready state of its image that it was restored from, or, in a fresh branch, will be.
    #[serde(default)]
    pub ready: Option<CommitId>,
}

/// The record of a branch: intent. What is true now is read from its keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its id.
    pub id: BranchId,
    /// The id under which its host runs it: its own, until a rollback swaps in another
    /// incarnation, which lives beside the old one until it answers.
    pub host_id: BranchId,
    /// Whose state it is.
    pub cluster: ClusterId,
    /// Unique in the cluster among live branches.
    pub name: Name,
    /// Why it exists.
    pub role: BranchRole,
    /// What it should be doing.
    pub state: BranchState,
    /// Grows with every incarnation; a keeper of an older generation is stale.
    pub generation: u64,
    /// Secret that its keeper proves itself with, 32 hex characters.
    pub keeper_token: String,
    /// The branch that it was made from, if any.
    pub parent: Option<BranchId>,
    /// The commit that its present incarnation was restored from, if it was.
    pub base: Option<CommitId>,
    /// The commit that its next one's memory is a change of: the latest that was cut from its
    /// present incarnation, whether it is kept or not; `None` before the first.
    #[serde(default)]
    pub delta_base: Option<CommitId>,
    /// Its latest commit, or the one it was made from.
    pub head: Option<CommitId>,
    /// Its nodes' disks.
    pub nodes: Vec<BranchNode>,
    /// How long a parked copy ran after its commit before it was stopped, in milliseconds; 0 for
    /// branches that were not parked.
    #[serde(default)]
    pub advanced_ms: u64,
    /// Whether it was stopped when its head was cut and has not run since, so that no change is
    /// on its disks alone.
    #[serde(default)]
    pub unchanged: bool,
    /// Whether it has never been started: its nodes are still to come from their images.
    #[serde(default)]
    pub fresh: bool,
    /// What its network does wrong, as intended.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Why it stopped by itself, if it did; cleared by the next start.
    #[serde(default)]
    pub stopped_because: Option<String>,
    /// Whether that was its guests switching themselves off.
    #[serde(default)]
    pub powered_off: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
}

/// Which branch of a cluster a principal works on when an address names none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// Who.
    pub principal: String,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// The current branch.
    pub branch: BranchId,
}

impl Branch {
    /// Returns the commits that its memory is made of, and its next commit's will be.
    pub fn bases(&self) -> impl Iterator<Item = &CommitId> {
        let ready = self.nodes.iter().filter_map(|node| node.ready.as_ref());
        self.base.iter().chain(&self.delta_base).chain(ready)
    }

    /// Returns the branch without an incarnation.
    #[must_use]
    pub fn stopped(&self) -> Self {
        let mut branch =
            Self { state: BranchState::Stopped, base: None, delta_base: None, ..self.clone() };
        branch.forget_ready();
        branch
    }

    /// Forgets the ready states of a branch that has left them behind.
    pub fn forget_ready(&mut self) {
        if !self.fresh {
            self.nodes.iter_mut().for_each(|node| node.ready = None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_before_there_were_networks_load() {
        let text = r#"{"id":"br_0123456789ab","host_id":"br_0123456789ab",
            "cluster":"cl_0123456789ab","name":"main","role":"live","state":"running",
            "generation":1,"keeper_token":"","parent":null,"base":"cm_0123456789ab","head":null,
            "nodes":[{"name":"shop","layer":"ly_0123456789ab","vars_layer":null}],
            "created_at":"2026-01-01T00:00:00Z","created_by":"me"}"#;
        let branch: Branch = serde_json::from_str(text).unwrap();
        assert!(!branch.fresh && branch.faults.is_empty());
        assert_eq!(branch.bases().count(), 1);
        assert_eq!(branch.stopped().bases().count(), 0);
    }
}
