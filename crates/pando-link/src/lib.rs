//! The host's end of a guest channel: what a keeper holds for each running machine.
//!
//! A [`GuestLink`] owns the socket and one thread that reads it. Callers write themselves, under
//! a gate that never makes one wait longer than its own deadline, so that a guest which stops
//! reading hangs nobody. Requests are methods; commands and connections are handles, usable from
//! two threads, whose drop ends them in the guest.
//!
//! ```text
//!   caller ──▶ gate ──▶ socket ──▶ guest ──▶ socket ──▶ reader thread ──▶ stream ──▶ caller
//! ```
//!
//! Invariants:
//! 1. Everything the guest sends is hostile: memory per stream is bounded by its window, the
//!    number of streams by a limit, and nonsense ends the epoch with [`LinkError::Protocol`].
//! 2. No call returns later than its deadline, give or take scheduling.
//! 3. A stream of an older epoch never sees a byte of a newer one.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod error;
mod exec;
mod files;
mod gate;
mod limits;
mod link;
mod reader;
mod requests;
mod stream;
mod tcp;

pub use error::LinkError;
pub use exec::{ExecEvent, ExecHandle};
pub use link::{GuestClock, GuestLink};
pub use pando_wire::guest::{Booted, Listing, RefusalKind, Welcome};
pub use tcp::TcpHandle;
