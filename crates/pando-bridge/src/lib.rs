//! The network of one running branch in the kernel, on request: a bridge for each segment, a tap for
//! each port, nftables for partitions and counts, traffic control for rates and impairments. It
//! implements `Switches` and `Switch` of `pando-machine`, as `pando-switch` does.
//!
//! ```text
//!   keeper ─▶ shell ─ commands ─▶ worker ─▶ wiring   which taps, which bridges, which pairs
//!                                   │       rules    text for `nft`, what it counted
//!                                   │       shape    lines for `tc`, what it dropped
//!                                   ├─▶ sys          namespace, taps
//!                                   └─▶ tools        runs `ip`, `nft`, `tc`
//! ```
//!
//! The worker is a thread in a network namespace of its own, and everything is made in there. So no
//! name or address of one branch meets another's or the host's, the host's firewall has no say, and
//! the kernel removes all of it when the keeper and its machines are gone, however they went.
//!
//! Invariants:
//! - `wiring`, `rules` and `shape` know no process, file or clock.
//! - Nothing is changed outside of the worker's namespace.
//! - What is told to a program is a list of arguments or a text made of checked names and numbers.

mod limits;
mod probe;
mod rules;
mod saved;
mod shape;
mod shell;
mod sys;
mod tools;
mod wiring;
mod worker;

pub use probe::probe;
pub use shell::KernelSwitches;
