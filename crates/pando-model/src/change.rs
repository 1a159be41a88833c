//! Changes: what differs between two captures, in words that people and programs share.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::capture::Aspect;
use crate::id::JournalId;
use crate::name::Name;

/// What happened to something.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is there only afterwards.
    Added,
    /// It is there only before.
    Removed,
    /// Its contents, version or state is another.
    Changed,
    /// It has another path.
    Moved,
    /// Only its permission bits are others.
    Mode,
    /// Only its owner or group is another.
    Owner,
}

impl ChangeKind {
    /// Returns the sign that stands for it in lists.
    pub const fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed => '~',
            Self::Moved => '>',
            Self::Mode => 'm',
            Self::Owner => 'o',
        }
    }
}

/// How much a change matters, as a guess.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Look at it: something failed, opened, or gained rights.
    High,
    /// How the system behaves.
    Medium,
    /// Everything else.
    Low,
}

/// On which side something changed since both were the same.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// On the side that is compared from.
    From,
    /// On the side that is compared to.
    To,
    /// On both.
    Both,
    /// There is nothing that both descend from, or it is not known.
    Unknown,
}

/// A command that caused a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cause {
    /// The command, as the journal has it.
    pub id: JournalId,
    /// What was run or written.
    pub command: String,
    /// Whether it is the only one that was at work when the change was made.
    pub certain: bool,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Change {
    /// `ASPECT:SUBJECT`: the same for the same thing in every comparison.
    pub id: String,
    /// On which node, where clusters are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// Of what kind of thing.
    pub aspect: Aspect,
    /// What happened.
    pub change: ChangeKind,
    /// The path, package, unit, user, socket, command line or variable.
    pub subject: String,
    /// What it was; absent when it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is; absent when it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How much it matters.
    pub severity: Severity,
    /// Where it changed.
    pub side: Side,
    /// When, by the host's clock, as far as the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Because of what: recorded commands that were at work then. Empty when nothing recorded was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}
