//! Where records are kept. A store is a set of tables of JSON records with a few indexed columns,
//! changed only by atomic, durable [`Transaction`]s; what a record means is `pando-model`'s, how
//! rows reach a disk is the implementation's (`pando-store`, or [`crate::sim`] in memory).
//!
//! A transaction is one fsync: the engine puts "this step is done, the next one started, these
//! objects changed, this call was audited" into one, so that no crash can separate them.

mod audit;
mod record;

use async_trait::async_trait;

pub use audit::{
    AuditEntry, AuditRow, Decision, Journal, JournalEnd, JournalEntry, JournalQuery, JournalRecord,
};
pub use record::{Event, Record, Row};

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// `pando_model::Cluster`, unique by name.
    Clusters,
    /// `pando_model::Branch`, live ones unique by name in their cluster.
    Branches,
    /// `pando_model::Commit`.
    Commits,
    /// `pando_model::commit::Tag`, unique by name in its cluster.
    Tags,
    /// `pando_model::commit::Layer`.
    Layers,
    /// `pando_model::Image`, unique by name.
    Images,
    /// `pando_model::ReadyState`, one for each image and shape.
    ReadyStates,
    /// `pando_model::Operation`, unique by actor and idempotency key.
    Operations,
    /// `pando_model::branch::Checkout`, one for each principal and cluster.
    Checkouts,
    /// [`Event`].
    Events,
}

impl Table {
    /// Every table.
    pub const ALL: &'static [Self] = &[
        Self::Clusters,
        Self::Branches,
        Self::Commits,
        Self::Tags,
        Self::Layers,
        Self::Images,
        Self::ReadyStates,
        Self::Operations,
        Self::Checkouts,
        Self::Events,
    ];

    /// Returns the table's name in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::Branches => "branches",
            Self::Commits => "commits",
            Self::Tags => "tags",
            Self::Layers => "layers",
            Self::Images => "images",
            Self::ReadyStates => "ready_states",
            Self::Operations => "operations",
            Self::Checkouts => "checkouts",
            Self::Events => "events",
        }
    }
}

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another record has this name.
    #[error("`{name}` exists already in {table}", table = table.as_str())]
    NameTaken {
        /// Where.
        table: Table,
        /// The name.
        name: String,
    },
    /// A guard of the transaction did not hold; nothing was written.
    #[error("{key} in {table} is not as expected", table = table.as_str())]
    Guard {
        /// Where.
        table: Table,
        /// The record.
        key: String,
    },
    /// The database was written by a newer pando.
    #[error("the database has schema {found}, this pando knows up to {known}")]
    SchemaTooNew {
        /// The version found.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// A record cannot be read back.
    #[error("{key} in {table} is damaged: {detail}", table = table.as_str())]
    Corrupt {
        /// Where.
        table: Table,
        /// The record.
        key: String,
        /// What does not parse.
        detail: String,
    },
    /// The disk is full.
    #[error("no space left for the database")]
    DiskFull,
    /// The database or the operating system refused.
    #[error("cannot {what}: {detail}")]
    Io {
        /// What was being done, as a verb phrase.
        what: &'static str,
        /// Its words.
        detail: String,
    },
}

/// What must hold for a transaction to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The record exists.
    Present(Table, String),
    /// The record does not exist.
    Absent(Table, String),
    /// The record exists and its indexed status is this one.
    Status(Table, String, &'static str),
}

/// Changes that happen together, durably, or not at all. Guards are checked first, then deletes
/// are made, then puts, so that one record may take the name of another in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold.
    pub guards: Vec<Guard>,
    /// Records that go; a missing one is no error.
    pub deletes: Vec<(Table, String)>,
    /// Records that are made or replaced.
    pub puts: Vec<(Table, Row)>,
    /// Calls that are added to the audit chain.
    pub audit: Vec<AuditEntry>,
}

impl Transaction {
    /// Returns an empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a record.
    pub fn put<R: Record>(&mut self, record: &R) -> &mut Self {
        self.puts.push((R::TABLE, record.row()));
        self
    }

    /// Removes a record.
    pub fn delete<R: Record>(&mut self, key: impl Into<String>) -> &mut Self {
        self.deletes.push((R::TABLE, key.into()));
        self
    }

    /// Adds a condition.
    pub fn guard(&mut self, guard: Guard) -> &mut Self {
        self.guards.push(guard);
        self
    }

    /// Adds everything of `other`.
    pub fn merge(&mut self, other: Self) -> &mut Self {
        self.guards.extend(other.guards);
        self.deletes.extend(other.deletes);
        self.puts.extend(other.puts);
        self.audit.extend(other.audit);
        self
    }

    /// Returns whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.guards.is_empty()
            && self.deletes.is_empty()
            && self.puts.is_empty()
            && self.audit.is_empty()
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Order {
    /// By time of creation, then by key.
    #[default]
    OldestFirst,
    /// The reverse.
    NewestFirst,
}

/// Where a list goes on: after the record with this time and key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Time of creation, in microseconds since 1970.
    pub created_us: i64,
    /// The record's key.
    pub key: String,
}

/// Which records a list has. Every field that is set narrows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Query {
    /// The cluster or other scope.
    pub scope: Option<String>,
    /// The exact name.
    pub name: Option<String>,
    /// The beginning of the name.
    pub name_prefix: Option<String>,
    /// One of these statuses.
    pub statuses: Vec<&'static str>,
    /// The order.
    pub order: Order,
    /// Where to go on.
    pub after: Option<Cursor>,
    /// At most so many; all by default.
    pub limit: Option<u32>,
}

impl Query {
    /// Returns a query for everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Returns a query for everything in one scope.
    pub fn scope(scope: impl Into<String>) -> Self {
        Self { scope: Some(scope.into()), ..Self::default() }
    }

    /// Returns a query for the record of this name in a scope ("" where names are global).
    pub fn named(scope: impl Into<String>, name: impl Into<String>) -> Self {
        Self { scope: Some(scope.into()), name: Some(name.into()), ..Self::default() }
    }
}

/// Keeps records. All methods are safe to call from many tasks.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes a transaction; when it returns, the changes survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::Guard`] and [`StoreError::NameTaken`] when nothing was written because of
    /// what others wrote.
    ///
    /// # Cancel safety
    /// A dropped call may or may not write, but never half.
    async fn write(&self, transaction: &Transaction) -> Result<(), StoreError>;

    /// Returns the body of one record.
    async fn row(&self, table: Table, key: &str) -> Result<Option<String>, StoreError>;

    /// Returns the bodies of the records that a query names.
    async fn rows(&self, table: Table, query: &Query) -> Result<Vec<String>, StoreError>;

    /// Returns how many records a query names, whatever its limit and cursor.
    async fn count(&self, table: Table, query: &Query) -> Result<u64, StoreError>;

    /// Returns audit rows after `seq`, oldest first.
    async fn audit(&self, after_seq: u64, limit: u32) -> Result<Vec<AuditRow>, StoreError>;
}

impl dyn Store + '_ {
    /// Returns one record.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it cannot be read back.
    pub async fn get<R: Record>(&self, key: &str) -> Result<Option<R>, StoreError> {
        self.row(R::TABLE, key).await?.map(|body| record::parse(key, &body)).transpose()
    }

    /// Returns the records that a query names.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when one cannot be read back.
    pub async fn list<R: Record>(&self, query: &Query) -> Result<Vec<R>, StoreError> {
        self.rows(R::TABLE, query).await?.iter().map(|body| record::parse("a row", body)).collect()
    }

    /// Returns the record of a name, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it cannot be read back.
    pub async fn named<R: Record>(&self, scope: &str, name: &str) -> Result<Option<R>, StoreError> {
        Ok(self.list(&Query::named(scope, name)).await?.pop())
    }
}
