//! The server over in-memory streams and a scripted engine, in both eras of the protocol.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod changes;
mod confirm;
mod eras;
mod input;
mod long;
mod names;
mod reading;
mod results;
mod support;
mod tasks;
mod tools;
