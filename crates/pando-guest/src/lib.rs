//! The program inside every virtual machine. It answers the host over one byte channel: runs
//! commands, moves files, tells facts, gives a new node its identity, relays connections. In
//! images that pando boots directly it is the machine's first process as well ([`init`]).
//!
//! One thread does everything that is quick, in a poll loop ([`serve`]); what may wait for a disk
//! gets a short-lived thread. No async runtime, no child processes for its own work.
//!
//! ```text
//!            port ⇄ channel ⇄ server ─┬─ commands   (spawn, tree)
//!                                     ├─ forwards   (TCP to the guest's own ports)
//!                                     └─ jobs       (files, facts, identity, scrub, power)
//! ```
//!
//! Invariants:
//! 1. No byte from the host stops it: nonsense costs an epoch at most, a failing request only
//!    itself.
//! 2. Memory is bounded: credit per stream, a bound on streams, nothing produced that the host
//!    does not take.
//! 3. A new epoch ends every stream of the older one; commands that run are kept and listed.
//! 4. Idle means asleep: no timer, no retry loop, whether the host is there or not.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod boot;
mod capture;
mod channel;
mod clock;
mod command;
mod config;
mod facts;
mod files;
mod flow;
mod forward;
mod generation;
mod group;
mod identity;
pub mod init;
mod jobs;
mod limits;
mod netlink;
pub mod port;
mod power;
mod probe;
mod scrub;
mod server;
mod spare;
mod spawn;
mod sys;
mod system;
mod tree;
mod users;

pub use config::{Authority, Children, Config, Hangup};
pub use server::serve;

/// Makes this process a good guest program: the last one to be killed when memory is short, at home
/// where most commands want to start.
pub fn settle() {
    // All of this may be missing or forbidden, and none of it is needed.
    let _ = std::fs::write(sys::OOM_SCORE_ADJ, sys::PROTECTED);
    // Started through /proc/self/exe it would be called "exe".
    let _ = rustix::thread::set_name(c"pando-guest");
    sys::raise_file_limit();
    let home = if std::path::Path::new("/root").is_dir() { "/root" } else { "/" };
    let _ = std::env::set_current_dir(home);
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o022));
}
