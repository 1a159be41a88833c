//! The server over HTTP on a loopback port and a scripted engine, in every revision.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod input;
mod long;
mod profiles;
mod sessions;
mod support;
mod wire;
