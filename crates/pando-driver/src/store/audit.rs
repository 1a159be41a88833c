//! The audit chain (every call and its decision, hash-chained, durable) and the journal (what is
//! done in guests, with relaxed sync, so that an exec costs what the guest costs).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the gate decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The call went on.
    Allowed,
    /// The gate refused it.
    Refused,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it arrived.
    pub at: Timestamp,
    /// The request.
    pub request: String,
    /// Who asked.
    pub principal: String,
    /// In which role.
    pub role: String,
    /// In which session, if in one.
    pub session: Option<String>,
    /// What was asked.
    pub verb: String,
    /// The parameters, secrets and contents left out.
    pub params: serde_json::Value,
    /// What the gate decided.
    pub decision: Decision,
    /// The code of the error, if it failed.
    pub error: Option<String>,
    /// The operation that it became, if any.
    pub operation: Option<String>,
    /// How long it took, in microseconds; 0 while it still runs as an operation.
    pub duration_us: u64,
}

/// An entry in its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place, from 1 without gaps.
    pub seq: u64,
    /// The hash of the row before, in hex; 64 zeros for the first.
    pub prev_hash: String,
    /// BLAKE3 over `prev_hash` and the entry's JSON, in hex.
    pub hash: String,
    /// The entry.
    pub entry: AuditEntry,
}

/// One act in a guest, recorded before it happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// When.
    pub at: Timestamp,
    /// The request.
    pub request: String,
    /// Who asked.
    pub principal: String,
    /// What: `exec`, `push`, `pull`.
    pub act: String,
    /// Where: `br_…/NODE`.
    pub target: String,
    /// The command line or path.
    pub detail: String,
}

/// A log that survives the death of the process, not a power cut.
pub trait Journal: Send + Sync {
    /// Adds an entry.
    ///
    /// # Errors
    /// What the operating system said.
    fn append(&self, entry: &JournalEntry) -> Result<(), std::io::Error>;
}
