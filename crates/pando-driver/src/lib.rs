//! What the engine needs of the world, as traits: [`BranchHost`] runs branches and keeps their
//! files, [`Images`] makes bootable bases. The engine knows nothing else; `pando-host` and
//! `pando-image` implement them on real parts, [`sim`] in memory.
//!
//! Every method may be called twice with the same arguments, also after a crash in the middle of
//! the first call, and then ends in the same state: the engine's steps rely on it.

pub mod host;
pub mod images;
pub mod progress;

pub use host::{BranchHost, HostError};
pub use images::{ImageError, Images};
pub use progress::Reporter;
