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

use crate::id::{BranchId, ClusterId, CommitId, LayerId};
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
    /// The writable top of its root disk's chain.
    pub layer: LayerId,
    /// The writable top of its firmware variables' chain, for UEFI images.
    pub vars_layer: Option<LayerId>,
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
    /// Why it stopped by itself, if it did; cleared by the next start.
    #[serde(default)]
    pub stopped_because: Option<String>,
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
