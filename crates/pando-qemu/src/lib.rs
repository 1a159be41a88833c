//! The hypervisor driver: implements [`pando_machine::Hypervisor`] with QEMU.
//!
//! A keeper calls [`Qemu::spawn`](pando_machine::Hypervisor::spawn) and drives the
//! [`Machine`](pando_machine::Machine) it gets. Reading order: [`qmp`] is the protocol, `args` the
//! command line, `process` the child process, `uplink` a guest's way to the outside, `machine` the
//! contract on top of them; [`qcow2`]
//! makes and inspects disk overlays; [`probe`] finds out what really works on a host.
//!
//! RAM is always a private copy-on-write mapping of an immutable file, so device state
//! (`xen-save-devices-state`, a few hundred KiB) plus the changed pages is a whole machine. QEMU
//! never reboots a guest in place: it ends, and the keeper starts another process.

// What QEMU says and what disk files hold may be hostile.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod args;
pub mod fuzz;
mod hypervisor;
mod layers;
pub mod limits;
mod machine;
pub mod probe;
mod process;
pub mod qcow2;
pub mod qmp;
mod queues;
mod uplink;
pub mod version;
mod wait;

pub use args::{GUEST_PORT, MACHINE, PlanError};
pub use hypervisor::{Qemu, QemuConfig, QemuError};
pub use layers::Qcow2Layers;
pub use version::Version;
