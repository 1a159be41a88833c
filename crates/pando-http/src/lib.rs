//! The verb catalogue over HTTP/1.1 on a unix socket and on loopback TCP, both ends: [`server`]
//! turns requests into calls of a [`pando_api::Control`], [`client`] is a `Control` that turns
//! calls into requests.
//!
//! ```text
//! POST /v1/{verb}                  JSON parameters → envelope; `Prefer: respond-async` → 202
//! GET  /v1/{verb}?name=value       the same, for verbs that only read
//! GET  /v1/catalogue               every verb with its schemas
//! GET  /v1/operations/{id}/events  one JSON object a line until the operation has ended
//! POST /v1/attach                  upgrade: a command's streams, as frames
//! PUT  /v1/files?address=…&path=…  a file into a guest      GET the same: out of it, as frames
//! GET  /healthz  /version
//! ```
//!
//! Request headers: `Idempotency-Key`, `X-Request-Id`, `X-Pando-Session`, `X-Pando-Read-Only`.
//! Whoever may open the socket is known by its user id; nobody else gets past the accept. Over TCP
//! every request passes the [`door`] first.

// What clients send may be hostile.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod body;
pub mod client;
pub mod door;
pub mod frames;
pub mod fuzz;
pub mod limits;
mod pipe;
mod request;
mod routes;
pub mod server;
mod stream;
mod streams;
pub mod token;
mod unwind;

pub use client::{Client, Launch};
pub use door::{Lock, OnRefused, Refused};
pub use server::{About, Loopback, Server};
pub use token::TokenFile;
