//! What the engine needs of the world, as traits: [`BranchHost`] runs branches and keeps their
//! files, [`Images`] makes bootable bases, [`Store`] keeps records. The engine knows nothing else;
//! `pando-host`, `pando-image` and `pando-store` implement them on real parts, `sim` in memory
//! (feature `sim`, with one `conformance` suite for each trait that has several implementations).
//!
//! Every method may be called twice with the same arguments, also after a crash in the middle of
//! the first call, and then ends in the same state: the engine's steps rely on it.

#[cfg(feature = "sim")]
pub mod conformance;
pub mod host;
pub mod images;
pub mod progress;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;

pub use host::{BranchHost, HostError};
pub use images::{ImageError, Images};
pub use progress::Reporter;
pub use store::{Store, StoreError};
