//! The tables of a simulated world, and the rules that hold between them.

use std::collections::{BTreeMap, BTreeSet};

use pando_model::commit::{Below, CommitMemory, Layer};
use pando_model::fault::Fault;
use pando_model::host::{BranchSpec, CutReport, HostError, MemoryChain, NodeEnd};
use pando_model::network::Link;
use pando_model::{
    BranchId, BranchState, ByteCount, CommitId, FaultId, Image, ImageId, KernelNetwork, LayerId,
    Name, NodeLayers,
};

use crate::store::{AuditRow, JournalRecord, Row, Table};

/// Contents of a memory or a disk.
pub(crate) type Contents = BTreeMap<String, String>;

/// A disk layer's file. A value of `None` hides the one below.
#[derive(Clone)]
pub(crate) struct LayerFile {
    pub layer: Layer,
    pub data: BTreeMap<String, Option<String>>,
}

/// A node of a running branch.
#[derive(Clone)]
pub(crate) struct Node {
    pub memory: Contents,
    pub base: Option<CommitId>,
    /// The commit that the next one's memory is a change of, and that memory.
    pub delta_base: Option<CommitId>,
    pub base_memory: Contents,
    pub layers: NodeLayers,
    /// Its machine was killed and not booted again.
    pub crashed: bool,
    /// It ended by its guest switching it off.
    pub powered_off: bool,
}

/// A keeper and its machines.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub spec: BranchSpec,
    pub state: BranchState,
    pub nodes: BTreeMap<Name, Node>,
    /// The faults that its switch was told of last.
    pub faults: Vec<Fault>,
    /// Frames that met each fault on each link, and how many of those it dropped.
    pub met: BTreeMap<(FaultId, Link), (u64, u64)>,
    /// Whether its switch copies frames.
    pub copies_frames: bool,
    /// Ports of the host that it was asked to listen on.
    pub ports: BTreeSet<u16>,
}

/// One node's files in a commit.
#[derive(Clone)]
pub(crate) struct SavedNode {
    pub memory: Option<CommitMemory>,
    /// Values that changed since the base; `None` for those that went.
    pub delta: BTreeMap<String, Option<String>>,
    pub layers: NodeLayers,
}

/// A commit's files.
#[derive(Clone)]
pub(crate) struct CommitFiles {
    pub report: CutReport,
    pub nodes: BTreeMap<Name, SavedNode>,
    pub qemu_version: String,
    pub damaged: bool,
}

#[derive(Clone)]
pub(crate) struct State {
    pub images: BTreeMap<ImageId, Image>,
    pub layers: BTreeMap<LayerId, LayerFile>,
    pub keepers: BTreeMap<BranchId, Keeper>,
    pub branch_dirs: BTreeSet<BranchId>,
    /// Branches that have a pcap file.
    pub frames: BTreeSet<BranchId>,
    pub ends: BTreeMap<BranchId, BTreeMap<Name, NodeEnd>>,
    pub spools: BTreeMap<(BranchId, CommitId), CommitFiles>,
    pub commits: BTreeMap<CommitId, CommitFiles>,
    pub flat: BTreeMap<(CommitId, Name), Contents>,
    pub tables: BTreeMap<Table, BTreeMap<String, Row>>,
    pub audit: Vec<AuditRow>,
    pub journal: Vec<JournalRecord>,
    /// When values of layers were written, in nanoseconds since 1970.
    pub written: BTreeMap<(LayerId, String), i64>,
    pub memory_free: ByteCount,
    pub disk_free: ByteCount,
    pub qemu_version: String,
    /// Ports of the host that other programs listen on.
    pub ports: BTreeSet<u16>,
    pub kernel_network: KernelNetwork,
}

impl Default for State {
    fn default() -> Self {
        Self {
            images: BTreeMap::new(),
            layers: BTreeMap::new(),
            keepers: BTreeMap::new(),
            branch_dirs: BTreeSet::new(),
            frames: BTreeSet::new(),
            ends: BTreeMap::new(),
            spools: BTreeMap::new(),
            commits: BTreeMap::new(),
            flat: BTreeMap::new(),
            tables: BTreeMap::new(),
            audit: Vec::new(),
            journal: Vec::new(),
            written: BTreeMap::new(),
            memory_free: ByteCount::from_gib(64),
            disk_free: ByteCount::from_gib(64),
            qemu_version: "10.0.2".to_owned(),
            ports: BTreeSet::new(),
            kernel_network: KernelNetwork::default(),
        }
    }
}

pub(crate) fn missing(what: impl std::fmt::Display) -> HostError {
    HostError::Missing { what: what.to_string() }
}

pub(crate) fn refused(what: &str, detail: impl Into<String>) -> HostError {
    HostError::Io { what: what.to_owned(), detail: detail.into() }
}

/// Returns the clock of the world, in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}

impl State {
    /// Writes a value to a layer.
    pub fn write(&mut self, layer: &LayerId, key: &str, value: String) -> Result<(), HostError> {
        let file = self.layers.get_mut(layer).ok_or_else(|| missing(layer))?;
        file.data.insert(key.to_owned(), Some(value));
        self.written.insert((layer.clone(), key.to_owned()), now_ns());
        Ok(())
    }

    /// Returns when what a layer's user sees of a value was written.
    pub fn written_at(&self, top: &LayerId, key: &str) -> i64 {
        let chain = self.chain(top);
        let at = |id: &LayerId| self.written.get(&(id.clone(), key.to_owned())).copied();
        chain.iter().find_map(at).unwrap_or_default()
    }

    pub fn keeper(&mut self, branch: &BranchId) -> Result<&mut Keeper, HostError> {
        self.keepers.get_mut(branch).ok_or_else(|| HostError::NotRunning { branch: branch.clone() })
    }

    pub fn node(&mut self, branch: &BranchId, node: &Name) -> Result<&mut Node, HostError> {
        self.keeper(branch)?
            .nodes
            .get_mut(node)
            .ok_or_else(|| HostError::NoSuchNode { branch: branch.clone(), node: node.to_string() })
    }

    /// Returns the keeper of a branch that has a switch.
    pub fn switch(&mut self, branch: &BranchId) -> Result<&mut Keeper, HostError> {
        let keeper = self.keeper(branch)?;
        match keeper.spec.network {
            Some(_) => Ok(keeper),
            None => Err(HostError::NoSwitch { branch: branch.clone() }),
        }
    }

    /// Returns the chain of layers from `top` down, `top` included.
    pub fn chain(&self, top: &LayerId) -> Vec<LayerId> {
        let mut chain = Vec::new();
        let mut next = Some(top.clone());
        while let Some(id) = next {
            next = match self.layers.get(&id).map(|file| &file.layer.below) {
                Some(Below::Layer(below)) => Some(below.clone()),
                _ => None,
            };
            chain.push(id);
        }
        chain
    }

    /// Returns what a layer's user sees.
    pub fn disk(&self, top: &LayerId) -> Contents {
        let mut contents = Contents::new();
        for id in self.chain(top).iter().rev() {
            for (key, value) in self.layers.get(id).iter().flat_map(|file| &file.data) {
                match value {
                    Some(value) => contents.insert(key.clone(), value.clone()),
                    None => contents.remove(key),
                };
            }
        }
        contents
    }

    /// Returns why a layer's file may not be removed, if it may not.
    pub fn layer_user(&self, layer: &LayerId) -> Option<String> {
        let runs = self.keepers.iter().find(|(_, keeper)| {
            let mut tops = keeper.nodes.values().flat_map(|node| node.layers.iter());
            tops.any(|top| self.chain(top).contains(layer))
        });
        if let Some((branch, _)) = runs {
            return Some(format!("{branch} runs on it"));
        }
        self.layer_above(layer).map(|above| format!("{above} lies on it"))
    }

    /// Checks that nobody listens on a port of the host.
    pub fn port_is_free(&self, port: u16) -> Result<(), HostError> {
        let taken = self.keepers.values().any(|keeper| keeper.ports.contains(&port));
        match taken || self.ports.contains(&port) {
            true => Err(HostError::PortTaken { port }),
            false => Ok(()),
        }
    }

    /// Returns a layer that lies directly on `layer`.
    pub fn layer_above(&self, layer: &LayerId) -> Option<LayerId> {
        let below = Below::Layer(layer.clone());
        let above = self.layers.values().find(|file| file.layer.below == below);
        above.map(|file| file.layer.id.clone())
    }

    /// Returns the flat memory of a chain, newest link first.
    pub fn flatten(&self, chain: &MemoryChain) -> Result<Contents, HostError> {
        let mut memory = Contents::new();
        for (position, link) in chain.links.iter().enumerate().rev() {
            let what = format!("the memory of {} in {}", link.node, link.commit);
            let files = self.commits.get(&link.commit).ok_or_else(|| missing(&what))?;
            let node = files.nodes.get(&link.node).ok_or_else(|| missing(&what))?;
            let saved = node.memory.as_ref().ok_or_else(|| missing(&what))?;
            let below = chain.links.get(position + 1).map(|link| &link.commit);
            if saved.base.as_ref() != below || saved.digest != link.digest || files.damaged {
                return Err(HostError::Corrupt { what, detail: "wrong digest or base".to_owned() });
            }
            for (key, value) in &node.delta {
                match value {
                    Some(value) => memory.insert(key.clone(), value.clone()),
                    None => memory.remove(key),
                };
            }
        }
        Ok(memory)
    }
}
