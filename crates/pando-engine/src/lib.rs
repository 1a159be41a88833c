//! The engine: makes the verbs of `pando-api` happen with nothing but the traits of
//! `pando-driver`. Every change of pando's own objects is an *operation*: recorded before the
//! first act, made of steps that can be repeated and undone, run in a task of its own.
//!
//! Reading order: [`Engine`] → `gate` (what every call passes) → `verbs` (one function per verb:
//! resolve, lock, plan) → `operation` (how a plan is run, undone and recovered) → `ops` (the
//! plans) → `recovery` (what happens after a crash).
//!
//! Invariants, each held by a test in `tests/`:
//! - whatever step fails or crashes, nothing leaks and records match the world (`faults.rs`);
//! - a failed operation changed nothing; otherwise it is `stuck` and says what repairs it;
//! - a client that goes away changes nothing (`clients.rs`).

mod background;
mod captures;
mod config;
mod engine;
mod failure;
mod faults;
mod forwards;
mod garbage;
mod gate;
mod incarnation;
mod kernel;
mod keys;
mod locks;
mod login;
mod memory;
mod network;
mod operation;
mod ops;
mod output;
mod paging;
mod recovery;
mod resolve;
mod set_up;
mod topologies;
mod topology_files;
mod verbs;

pub use config::Config;
pub use engine::{Drivers, Engine};
pub use gate::TurnedAway;
