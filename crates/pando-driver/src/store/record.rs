//! How each record of the model becomes a row: its key, the name that must be unique, the columns
//! that lists filter by.

use jiff::Timestamp;
use pando_model::branch::{BranchRole, Checkout};
use pando_model::commit::{Layer, Tag};
use pando_model::{
    Branch, BranchId, BranchState, Cluster, ClusterId, ClusterState, Commit, Image, Operation,
    OperationStatus, ReadyState,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{StoreError, Table};

/// One row. `(scope, name)` is unique in its table wherever there is a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Unique in the table.
    pub key: String,
    /// What the name is unique in, and lists are filtered by; "" for the whole home.
    pub scope: String,
    /// The unique name, if the record has one.
    pub name: Option<String>,
    /// For filters.
    pub status: &'static str,
    /// For the order of lists, in microseconds since 1970.
    pub created_us: i64,
    /// The record as JSON.
    pub body: String,
}

/// A model's record that a store keeps.
pub trait Record: Serialize + DeserializeOwned + Send + Sync {
    /// Where it is kept.
    const TABLE: Table;

    /// Returns the unique key.
    fn key(&self) -> String;

    /// Returns what the name is unique in.
    fn scope(&self) -> String {
        String::new()
    }

    /// Returns the unique name.
    fn name(&self) -> Option<String> {
        None
    }

    /// Returns the text that lists filter by.
    fn status(&self) -> &'static str {
        ""
    }

    /// Returns the time that lists are ordered by.
    fn created_at(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// Returns the row.
    fn row(&self) -> Row {
        Row {
            key: self.key(),
            scope: self.scope(),
            name: self.name(),
            status: self.status(),
            created_us: self.created_at().as_microsecond(),
            // The records are plain data with string keys: nothing in them can fail to serialise.
            // If one ever did, the empty body is refused when it is read back.
            body: serde_json::to_string(self).unwrap_or_default(),
        }
    }
}

pub(super) fn parse<R: Record>(key: &str, body: &str) -> Result<R, StoreError> {
    serde_json::from_str(body).map_err(|error| StoreError::Corrupt {
        table: R::TABLE,
        key: key.to_owned(),
        detail: error.to_string(),
    })
}

/// Something that happened to an object without anybody asking for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Unique; grows with time.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Whose, if a cluster's.
    pub cluster: Option<ClusterId>,
    /// On which branch, if on one.
    pub branch: Option<BranchId>,
    /// What, as one stable word: `keeper_lost`.
    pub kind: String,
    /// What, in words.
    pub message: String,
}

impl Record for Event {
    const TABLE: Table = Table::Events;

    fn key(&self) -> String {
        self.id.clone()
    }

    fn scope(&self) -> String {
        self.cluster.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    fn created_at(&self) -> Timestamp {
        self.at
    }
}

impl Record for Cluster {
    const TABLE: Table = Table::Clusters;

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> Option<String> {
        Some(self.name.to_string())
    }

    fn status(&self) -> &'static str {
        match self.state {
            ClusterState::Creating => "creating",
            ClusterState::Ready => "ready",
            ClusterState::Deleting => "deleting",
        }
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }
}

impl Record for Branch {
    const TABLE: Table = Table::Branches;

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn scope(&self) -> String {
        self.cluster.to_string()
    }

    fn name(&self) -> Option<String> {
        (self.role == BranchRole::Live).then(|| self.name.to_string())
    }

    fn status(&self) -> &'static str {
        match (self.role, self.state) {
            (BranchRole::Parked, _) => "parked",
            (BranchRole::Template, _) => "template",
            (BranchRole::Live, BranchState::Running) => "running",
            (BranchRole::Live, BranchState::Paused) => "paused",
            (BranchRole::Live, BranchState::Stopped) => "stopped",
        }
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }
}

impl Record for Commit {
    const TABLE: Table = Table::Commits;

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn scope(&self) -> String {
        self.cluster.to_string()
    }

    fn status(&self) -> &'static str {
        if self.deleted { "deleted" } else { "kept" }
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }
}

impl Record for Tag {
    const TABLE: Table = Table::Tags;

    fn key(&self) -> String {
        format!("{}/{}", self.cluster, self.name)
    }

    fn scope(&self) -> String {
        self.cluster.to_string()
    }

    fn name(&self) -> Option<String> {
        Some(self.name.to_string())
    }
}

impl Record for Layer {
    const TABLE: Table = Table::Layers;

    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Record for Image {
    const TABLE: Table = Table::Images;

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> Option<String> {
        Some(self.name.to_string())
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }
}

impl Record for ReadyState {
    const TABLE: Table = Table::ReadyStates;

    fn key(&self) -> String {
        format!("{}/{}/{}", self.image, self.shape.key(), self.profile_key)
    }

    fn scope(&self) -> String {
        self.image.to_string()
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }
}

impl Record for Operation {
    const TABLE: Table = Table::Operations;

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn scope(&self) -> String {
        self.actor.clone()
    }

    fn name(&self) -> Option<String> {
        self.idempotency_key.clone()
    }

    fn status(&self) -> &'static str {
        match self.status {
            OperationStatus::Queued => "queued",
            OperationStatus::Running => "running",
            OperationStatus::Undoing => "undoing",
            OperationStatus::Succeeded => "succeeded",
            OperationStatus::Failed => "failed",
            OperationStatus::Cancelled => "cancelled",
            OperationStatus::Stuck => "stuck",
        }
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }
}

impl Record for Checkout {
    const TABLE: Table = Table::Checkouts;

    fn key(&self) -> String {
        format!("{}/{}", self.cluster, self.principal)
    }

    fn scope(&self) -> String {
        self.cluster.to_string()
    }
}
