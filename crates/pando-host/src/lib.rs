//! The branch host of this machine: implements [`pando_driver::BranchHost`] by starting keepers,
//! speaking to them over their sockets, and keeping the files of branches, commits and layers.
//!
//! It holds no state of its own that matters: every call reads what is true from the file system
//! and from the keepers, so a daemon that was killed and started again continues where it was.
//! Whether a keeper lives is told by its lock, which the kernel gives back when it ends; who it is,
//! by a secret in its handshake. It knows the keeper's protocol and its spool, nothing of machines.

mod branches;
mod captures;
mod client;
mod disks;
mod files;
mod greeting;
mod guests;
mod host;
mod idle;
mod keepers;
mod limits;
mod memory;
mod trouble;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pando_machine::DiskFormat;
use pando_model::host::HostError;
use pando_model::machine::MachineProfile;
use pando_model::{ByteCount, KernelNetwork, Layout};

use crate::idle::IdleConnections;

/// Finds out what machines can be started here, which changes with the first image and when QEMU is
/// upgraded. May take seconds, once; what it found then it remembers itself.
pub type ProfileSource = Arc<dyn Fn() -> Result<MachineProfile, HostError> + Send + Sync>;

/// Tries what the kernel can do for networks here; takes some tens of milliseconds.
pub type KernelProbe = Arc<dyn Fn() -> KernelNetwork + Send + Sync>;

/// Makes a seed disk's bytes from its files.
pub type SeedWriter = Arc<
    dyn Fn(&std::collections::BTreeMap<String, String>) -> Result<Vec<u8>, HostError> + Send + Sync,
>;

/// What a host is made of.
#[derive(Clone)]
pub struct HostConfig {
    /// Where files are.
    pub layout: Layout,
    /// The program that is started as `PROGRAM keeper …`: pando itself.
    pub keeper_program: PathBuf,
    /// What machines can be started here.
    pub profile: ProfileSource,
    /// What the kernel can do for networks.
    pub kernel_network: KernelProbe,
    /// Makes disk layers.
    pub disks: Arc<dyn DiskFormat>,
    /// Makes seed disks.
    pub seeds: SeedWriter,
    /// Memory that must stay free on the host after a start.
    pub memory_reserve: ByteCount,
}

/// The branch host of this machine.
pub struct LocalHost {
    config: HostConfig,
    /// Flat memory images that are being made, so that each is made once.
    making: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
    idle: IdleConnections,
}

impl LocalHost {
    /// Returns a host; nothing is touched until it is asked.
    pub fn new(config: HostConfig) -> Self {
        Self { config, making: Mutex::default(), idle: IdleConnections::default() }
    }

    /// Removes what a power cut may have damaged, which is rebuilt when it is needed. Call it before
    /// anything else.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub fn after_boot(&self) -> Result<(), HostError> {
        memory::forget_other_boots(self.layout())?;
        memory::forget_unfinished(self.layout())
    }

    fn layout(&self) -> &Layout {
        &self.config.layout
    }
}
