//! Finds out what really works on this host.

mod payload;

pub use self::payload::{AtTick, boot_sector};
