//! What the world may ask of the engine. A verb is declared once, in [`catalogue`]; from it come
//! [`Call`], the JSON schemas, the HTTP routes, the CLI commands and, later, MCP tools. Front ends
//! know only this crate; the engine implements [`Control`].
//!
//! Parameters and results live in one module per toolset. A parameter's doc comment is its
//! `--help` text and its schema's description, so it is written for the person who types it.

// What clients send may be hostile.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod branch;
pub mod caller;
pub mod catalogue;
mod check;
pub mod cluster;
pub mod commit;
pub mod control;
pub mod error;
mod examples;
pub mod exec;
#[cfg(feature = "fake")]
pub mod fake;
pub mod fuzz;
pub mod image;
pub mod limits;
pub mod machine;
pub mod network;
pub mod node;
pub mod openapi;
pub mod operation;
pub mod page;
mod parse;
mod schema;
pub mod snapshot;
pub mod state;
pub mod system;
pub mod topology;
pub mod usage;
pub mod verb;

pub use caller::{Caller, Role};
pub use catalogue::{Call, catalogue};
pub use control::{AttachIo, AttachRequest, Control, PullRequest, PushRequest};
pub use error::{ApiError, Envelope};
pub use openapi::openapi;
pub use operation::OperationView;
pub use verb::{Effect, Toolset, Verb};
