//! What every implementation of a trait must do, as one suite for each trait. Run by the
//! implementation's tests with a function that makes a fresh one.

mod store;

pub use store::store;
