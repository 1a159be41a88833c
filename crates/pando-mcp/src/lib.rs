//! The verb catalogue as an MCP server. Tools, their schemas and their annotations are made from
//! [`pando_api::catalogue`]; nothing here knows how a verb is carried out, only the
//! [`pando_api::Control`] that does it.
//!
//! Both eras of the protocol are spoken: 2026-07-28, where every request carries its own context,
//! and 2025-06-18 and 2025-11-25, which begin with `initialize`.
//!
//! ```text
//!  stdio, http ──▶ rmcp ──▶ handler ──▶ calls ──▶ Control
//!     (bytes)   (protocol) (its types)   │  confirm: what may lose something asks first
//!                                        │  follow: progress, bounded waits, cancellation
//!                                        └─ answer, budget: one envelope, at most 8 KB
//! ```
//!
//! `stdio` and `http` are two ways into the same [`handler::Handler`]. Only `handler`, `message`
//! and what is below those two name types of the protocol's library.

// What clients send may be hostile.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod answer;
mod budget;
mod calls;
mod complete;
mod confirm;
#[cfg(feature = "conformance")]
mod conformance;
mod find;
mod follow;
pub mod handler;
mod hints;
pub mod http;
pub mod limits;
mod lines;
mod message;
pub mod profile;
mod prompts;
mod requester;
mod resources;
pub mod stdio;
mod subscriptions;
mod tasks;
pub mod tools;
mod unwind;
mod watch;
mod words;

pub use profile::{Access, Names, Profile, Role};
pub use stdio::{ServeError, serve, serve_stdio};
