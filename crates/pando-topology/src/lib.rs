//! Topologies: the YAML text that a cluster is defined from. Text in, a [`Topology`] with everything
//! decided out, or every error with its place and its fix. Pure: no files, no clock, no randomness.
//!
//! ```text
//!   text ──▶ values with places ──▶ what is written ──▶ what it means (Topology)
//! ```
//!
//! The text is hostile: every stage has limits, and none of them panics.

mod error;
mod limits;
mod topology;

pub use error::{Note, Place, TopologyError, TopologyErrors};
pub use limits::Limits;
pub use topology::{
    ExtraDisk, File, Forward, ImageRef, Interface, Network, Network6, Node, Restart, Service, Ssh,
    Topology,
};
