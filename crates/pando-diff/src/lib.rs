//! What differs between two captures of a system, and because of which commands. Pure values in,
//! pure values out: no I/O, no clock. The engine gathers the captures and shows the result.
//!
//! Invariants:
//! 1. A capture does not differ from itself, and the other way round everything is the other way
//!    round.
//! 2. Nothing that differs disappears: it is a change, or it is counted with its reason.
//! 3. What could not be compared is said to be unknown, never equal.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod blame;
mod compare;
mod database;
mod files;
mod lines;
mod noise;
mod system;

pub use blame::{Act, SLACK_NS, blame};
pub use compare::{Comparison, Found, Material, Time, When, compare};
pub use files::candidates;
pub use lines::{Hunk, Line, hunks, unified};
