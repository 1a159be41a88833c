//! The network of one running branch: a user-space Ethernet switch, its services and its faults.
//!
//! It implements `Switches` and `Switch` of `pando-machine`. What decides is pure and synchronous
//! (values and the time in, frames out); one thread carries frames between it and the machines.
//!
//! ```text
//!   keeper ─▶ shell ─ commands ─▶ thread ─ frames, the time ─▶ core ─▶ fdb, links
//!                                  │  ▲                         │       fault ─▶ dice
//!                          sockets of machines ◀── what to write ┘       delay, queue, held
//!                          and of uplinks                               services
//! ```
//!
//! Read `core` first, then `fault`, `thread` and `state`, which is the file that a cut saves.
//!
//! Invariants:
//! - The core knows no socket, clock, thread or file.
//! - The thread waits for no machine and for no disk.
//! - What a machine or a file says is bounded before it is believed (`limits`).

mod capture;
mod clock;
mod core;
mod counts;
mod delay;
mod dice;
mod fault;
mod fdb;
mod frame;
pub mod fuzz;
mod held;
mod limits;
mod links;
mod outq;
mod pcap;
mod queue;
pub mod services;
mod shell;
mod socket;
mod state;
mod thread;

pub use shell::UserSwitches;
