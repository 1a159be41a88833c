//! The network of one running branch: a user-space Ethernet switch, its services and its faults.
//!
//! It implements `Switches` and `Switch` of `pando-machine`. What decides is pure and synchronous
//! (values and the time in, frames out); one thread carries frames between it and the machines.

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
