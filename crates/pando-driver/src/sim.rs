//! A simulated world for tests: hosts, images and a store in memory, with the bookkeeping rules of
//! the real ones. A node's memory and disk are small key→value maps; files are entries in tables.
//! What the rules forbid (removing a layer that is in use, restoring memory over another disk) is
//! an error here, as it would be damage there.
//!
//! The world survives its users. A [`Connection`] is one daemon's life: when the fault plan says
//! "crash", everything that the connection was doing stops for ever, mid-call, and a test goes on
//! with a new one. [`SimWorld::faults`] decides which call fails, before or after its effect.

mod check;
mod faults;
mod guest;
mod host;
mod images;
mod machines;
mod network;
mod state;
mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use faults::{Fault, Faults};
use pando_model::{BranchId, Name};
use state::State;

/// A world: what exists, whoever is looking.
#[derive(Clone)]
pub struct SimWorld {
    state: Arc<Mutex<State>>,
    faults: Arc<Faults>,
}

/// One daemon's handles on a world: all of them end in the same crash.
#[derive(Clone)]
pub struct Connection {
    world: SimWorld,
    life: u64,
}

impl Default for SimWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl SimWorld {
    /// Returns an empty world without faults.
    pub fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State::default())), faults: Arc::new(Faults::new()) }
    }

    /// Returns a copy of the world as it is, without its users and faults.
    pub fn fork(&self) -> Self {
        let state = self.state().clone();
        Self { state: Arc::new(Mutex::new(state)), faults: Arc::new(Faults::new()) }
    }

    /// Returns everything that exists and is recorded as text, for comparison.
    pub fn fingerprint(&self) -> String {
        let state = self.state();
        let keepers: Vec<_> =
            state.keepers.iter().map(|(id, k)| (id, k.state, &k.spec, &k.faults)).collect();
        let layers: Vec<_> = state.layers.values().map(|file| &file.layer).collect();
        let commits: Vec<_> = state.commits.keys().collect();
        let (dirs, flat): (_, Vec<_>) = (&state.branch_dirs, state.flat.keys().collect());
        let tables = &state.tables;
        format!("{keepers:#?}\n{layers:#?}\n{commits:#?}\n{dirs:#?}\n{flat:#?}\n{tables:#?}")
    }

    /// Leaves files that no record names, as a crash of some older pando might have.
    pub fn litter(&self, image: &pando_model::ImageId) {
        let layer = pando_model::commit::Layer {
            id: pando_model::LayerId::random(),
            below: pando_model::commit::Below::Image(image.clone()),
            size: pando_model::ByteCount::from_gib(1),
            depth: 1,
        };
        let mut state = self.state();
        state.branch_dirs.insert(BranchId::random());
        let file = state::LayerFile { layer: layer.clone(), data: Default::default() };
        state.layers.insert(layer.id, file);
    }

    /// Gives a running branch a switch that knows this network.
    pub fn plug(&self, branch: &BranchId, network: pando_model::network::NetworkSpec) {
        if let Some(keeper) = self.state().keepers.get_mut(branch) {
            keeper.spec.network = Some(network);
        }
    }

    /// Returns the ports of the host that keepers were asked to listen on.
    pub fn ports(&self) -> Vec<u16> {
        self.state().keepers.values().flat_map(|keeper| keeper.ports.clone()).collect()
    }

    /// Lets another program listen on a port of the host.
    pub fn take_port(&self, port: u16) {
        self.state().ports.insert(port);
    }

    /// Returns handles that live until the next crash.
    pub fn connect(&self) -> Connection {
        Connection { world: self.clone(), life: self.faults.life() }
    }

    /// Returns what decides which call fails.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Ends a keeper and its machines, as a kill -9 would. Returns whether there was one.
    pub fn kill_keeper(&self, host_id: &BranchId) -> bool {
        self.state().keepers.remove(host_id).is_some()
    }

    /// Ends a machine as a guest that switches itself off does; with the last one, the keeper ends.
    pub fn power_off(&self, host_id: &BranchId, node: &Name) {
        let mut state = self.state();
        let Some(keeper) = state.keepers.get_mut(host_id) else { return };
        if let Some(node) = keeper.nodes.get_mut(node) {
            (node.crashed, node.powered_off) = (true, true);
        }
        let down = keeper.nodes.iter().filter(|(_, node)| node.crashed);
        let ends: BTreeMap<_, _> =
            down.map(|(name, node)| (name.clone(), machines::end(node))).collect();
        if ends.len() == keeper.nodes.len() {
            state.keepers.remove(host_id);
            state.ends.insert(host_id.clone(), ends);
        }
    }

    /// Ends every keeper, as a reboot of the host would, and with it the present connections.
    pub fn reboot(&self) {
        self.faults.crash();
        self.state().keepers.clear();
    }

    /// Returns the value of `key` in the memory of a node that a keeper runs.
    pub fn memory_value(&self, host_id: &BranchId, node: &Name, key: &str) -> Option<String> {
        let state = self.state();
        let node = state.keepers.get(host_id)?.nodes.get(node)?;
        node.memory.get(key).filter(|_| !node.crashed).cloned()
    }

    /// Whether a keeper runs a node's machine.
    pub fn runs(&self, host_id: &BranchId, node: &Name) -> bool {
        let state = self.state();
        let node = state.keepers.get(host_id).and_then(|keeper| keeper.nodes.get(node));
        node.is_some_and(|node| !node.crashed)
    }

    /// Returns the value of `key` on a disk.
    pub fn disk_value(&self, layer: &pando_model::LayerId, key: &str) -> Option<String> {
        self.state().disk(layer).remove(key)
    }

    /// Returns the value of `key` in the memory that a commit restores to a node.
    pub fn commit_value(
        &self,
        commit: &pando_model::CommitId,
        name: &Name,
        key: &str,
    ) -> Option<String> {
        let state = self.state();
        let mut next = Some(commit.clone());
        while let Some(id) = next {
            let node = state.commits.get(&id)?.nodes.get(name)?;
            if let Some(value) = node.delta.get(key) {
                return value.clone().filter(|_| node.memory.is_some());
            }
            next = node.memory.as_ref()?.base.clone();
        }
        None
    }

    /// Lets no driver call of this name (`host.cut`) begin until another name is given.
    pub fn hang(&self, name: &str) {
        self.faults.hang(name);
    }

    /// Limits what [`crate::BranchHost::capacity`] says is free.
    pub fn set_free(&self, memory: pando_model::ByteCount, disk: pando_model::ByteCount) {
        let mut state = self.state();
        state.memory_free = memory;
        state.disk_free = disk;
    }

    /// Changes what the host's kernel can do for networks; at first it can do everything.
    pub fn set_kernel_network(&self, can: pando_model::KernelNetwork) {
        self.state().kernel_network = can;
    }

    /// Changes what the host records and restores, as an upgrade of QEMU would.
    pub fn set_qemu_version(&self, version: &str) {
        self.state().qemu_version = version.to_owned();
    }

    /// Makes a commit's memory delta fail its checksum.
    pub fn damage_commit(&self, commit: &pando_model::CommitId) {
        if let Some(files) = self.state().commits.get_mut(commit) {
            files.damaged = true;
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held is a failed test already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
