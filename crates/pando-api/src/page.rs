//! What every list has in common.

use serde::{Deserialize, Serialize};

use crate::limits::DEFAULT_PAGE;

pub(crate) const fn default_limit() -> u32 {
    DEFAULT_PAGE
}

pub(crate) const fn yes() -> bool {
    true
}

/// How much of a list a result holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Page {
    /// Objects that fit the filters.
    pub total: u64,
    /// Objects in this result.
    pub returned: u64,
    /// Whether there are more.
    pub truncated: bool,
    /// Given as `cursor`, continues after this result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
