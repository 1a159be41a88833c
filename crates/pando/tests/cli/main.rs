//! The command line as people and scripts meet it: the real binary, with a scripted engine behind
//! a real socket, and with a daemon of its own where that is the point.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod daemon;
mod doctor;
mod help;
mod http;
mod live;
mod pty;
mod reference;
mod results;
mod shells;
mod streams;
mod support;
mod terminal;
