//! `pando_driver::Store` on SQLite, and `pando_driver::store::Journal` on a plain file. Records
//! and their meaning are the model's; this crate knows rows, transactions and fsync.
//!
//! All writes go through one task (`writer`), which puts what waits at the same time into one
//! database transaction: twenty branches made at once cost a few fsyncs and not forty. Reads use a
//! small pool and see the last written state; what was read before is remembered (`cache`).

mod cache;
mod journal;
mod schema;
mod sqlite;
mod writer;

pub use journal::FileJournal;
pub use sqlite::SqliteStore;
