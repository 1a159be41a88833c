//! First process.
/// Boots.
pub fn run() {}
