//! Tests on real QEMU, under its translator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in a helper"
)]

mod assets;
mod disks;
mod probing;
mod smoke;
mod spike;
mod support;
