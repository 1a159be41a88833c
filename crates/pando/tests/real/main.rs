//! The real binary on real machines: journeys as people and agents take them, and what happens when
//! something is killed, full, silent or in a hurry meanwhile.
//!
//! Every test has a home of its own, a copy of one *golden* home (image, its ready state, a
//! database) that is made once for each build of the binary, and ends with
//! [`support::Home::assert_nothing_left`].

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod bridges;
mod clients;
mod clusters;
mod cycles;
mod diff;
mod faults;
mod full;
mod guests;
mod hung;
mod journey;
mod keys;
mod kills;
mod kills_of_clusters;
mod power;
mod probe;
#[path = "../cli/pty.rs"]
mod pty;
mod support;
mod terminal;
mod wire;
