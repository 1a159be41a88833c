//! Topologies: the YAML text that a cluster is defined from. Text in, a [`Topology`] with everything
//! decided out, or every error with its place and its fix. Pure: no files, no clock, no randomness.
//!
//! ```text
//!   text ──yaml──▶ values with places ──record──▶ what is written (input) ──resolve──▶ Topology
//! ```
//!
//! The text is hostile: every stage has limits, and none of them panics.

mod canonical;
mod drift;
mod error;
mod flat;
pub mod fuzz;
mod input;
mod limits;
mod parse;
mod record;
mod report;
mod resolve;
mod scalar;
mod schema;
mod topology;
mod yaml;

pub use drift::{Drift, diff};
pub use error::{Note, Place, TopologyError, TopologyErrors};
pub use flat::{Setting, Single, settings};
pub use limits::Limits;
pub use parse::{parse, parse_bytes};
pub use resolve::{is_clean_path, is_user_name};
pub use schema::schema;
pub use topology::{
    ExtraDisk, File, Forward, ImageRef, Interface, Network, Network6, Node, Restart, Service, Ssh,
    Topology,
};
