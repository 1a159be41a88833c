//! The audit chain (every call and its decision, hash-chained, durable) and the journal (what is
//! done in guests, with relaxed sync, so that an exec costs what the guest costs).

use jiff::Timestamp;
use pando_model::{BranchId, JournalId};
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
    /// Its id.
    pub id: JournalId,
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

/// How an act ended, recorded after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEnd {
    /// The act.
    pub ends: JournalId,
    /// When.
    pub at: Timestamp,
    /// The exit status of a command that exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it is over otherwise: a signal, a timeout, an error, a caller that went away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}

/// An act and, once it is known, its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRecord {
    /// The act.
    pub entry: JournalEntry,
    /// Its end; absent while it runs, or when the daemon did not see it.
    pub end: Option<JournalEnd>,
}

/// Which acts are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalQuery {
    /// On one of these branches.
    pub branches: Vec<BranchId>,
    /// Begun at this time or later.
    pub since: Option<Timestamp>,
}

impl JournalQuery {
    /// Returns whether an act is one of them.
    pub fn fits(&self, entry: &JournalEntry) -> bool {
        let branch = entry.target.split('/').next().unwrap_or_default();
        self.branches.iter().any(|wanted| wanted.as_str() == branch)
            && self.since.is_none_or(|since| entry.at >= since)
    }
}

/// A log that survives the death of the process, not a power cut. It keeps what was done last, as
/// much as its implementation has room for.
pub trait Journal: Send + Sync {
    /// Adds an act.
    ///
    /// # Errors
    /// What the operating system said.
    fn append(&self, entry: &JournalEntry) -> Result<(), std::io::Error>;

    /// Adds an act's end.
    ///
    /// # Errors
    /// What the operating system said.
    fn end(&self, end: &JournalEnd) -> Result<(), std::io::Error>;

    /// Returns acts in the order of their beginning. May read a long file: not for an async task.
    ///
    /// # Errors
    /// What the operating system said.
    fn read(&self, query: &JournalQuery) -> Result<Vec<JournalRecord>, std::io::Error>;
}
