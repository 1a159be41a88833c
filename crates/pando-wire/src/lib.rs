//! pando's wire protocols as values and bytes. Sans-I/O: nothing here reads a clock, a socket or
//! a file, so that both ends, the tests and the fuzz targets share one total implementation.
//!
//! - [`capture`]: a guest's state as a stream of records.
//! - [`frame`]: delimited, checksummed frames that survive garbage between them.
//! - [`keeper`]: what the daemon and a branch's keeper say to each other.
//! - [`guest`]: what the host and the guest program say to each other in those frames.
//!
//! Every byte that comes in is hostile: decoding never panics, and never holds more than
//! [`limits`] allow.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod capture;
pub mod frame;
pub mod fuzz;
pub mod guest;
pub mod keeper;
pub mod limits;
