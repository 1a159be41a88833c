//! Commits: immutable, restorable cuts of a branch. They form a DAG; a tag names one.
//!
//! Two chains run through commits and must not be confused with the DAG: each node's *memory* is
//! a delta against another commit's memory (or against nothing, after a cold boot), and each
//! node's *disk* is a frozen qcow2 layer on top of others. A commit's files are kept as long as
//! any chain runs through them, even after the commit itself was deleted.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::disk::NodeLayers;
use crate::id::{BranchId, ClusterId, CommitId, LayerId};
use crate::machine::{MachineProfile, NodeShape};
use crate::name::Name;
use crate::network::CommitNetwork;
use crate::units::ByteCount;

/// What a commit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommitKind {
    /// Memory, devices, disks and network of all nodes at one instant.
    Full,
    /// Disks only, as if the power had failed at that instant.
    Disk,
}

/// A node's memory in a full commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitMemory {
    /// The commit whose memory this delta applies to; `None` means all-zero RAM.
    pub base: Option<CommitId>,
    /// Pages in the delta, zero pages included.
    pub pages: u64,
    /// Bytes of the delta file.
    pub bytes: ByteCount,
    /// BLAKE3 of the delta file's index, which holds a digest of every page, in hex.
    pub digest: String,
    /// BLAKE3 of the device state file, in hex.
    pub device_digest: String,
}

/// One node's share of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitNode {
    /// The node's name.
    pub name: Name,
    /// Its hardware when it was saved.
    pub shape: NodeShape,
    /// Frozen tops of its disks' chains.
    #[serde(flatten)]
    pub layers: NodeLayers,
    /// Its memory; `None` in a disk commit.
    pub memory: Option<CommitMemory>,
    /// What restores it; `None` in a disk commit.
    pub profile: Option<MachineProfile>,
}

/// The record of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// Whose state it is.
    pub cluster: ClusterId,
    /// The branch that it was cut from.
    pub branch: BranchId,
    /// That branch's name at the time.
    pub branch_name: Name,
    /// The commit before it on the branch.
    pub parent: Option<CommitId>,
    /// What it holds.
    pub kind: CommitKind,
    /// Free text.
    pub message: String,
    /// Its nodes.
    pub nodes: Vec<CommitNode>,
    /// Its network; `None` in a disk commit, and where no switch was.
    #[serde(default)]
    pub network: Option<CommitNetwork>,
    /// How long the branch stood still, in microseconds.
    pub pause_us: u64,
    /// Bytes that this commit added to the store.
    pub size: ByteCount,
    /// Parked copies to keep ready for branches.
    pub warm: u32,
    /// Deleted by its owner, kept because another commit's chain runs through it.
    pub deleted: bool,
    /// When the cut was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
}

impl Commit {
    /// Returns when its branch was cut. Its record is as old as its last durable byte, and a fault's
    /// time goes on meanwhile.
    pub fn cut_at(&self) -> Timestamp {
        self.network.as_ref().and_then(|network| network.cut_at).unwrap_or(self.created_at)
    }
}

/// A name for a commit; unique in its cluster, movable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Whose tag it is.
    pub cluster: ClusterId,
    /// The name.
    pub name: Name,
    /// What it names.
    pub commit: CommitId,
}

/// One qcow2 file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its id and file name.
    pub id: LayerId,
    /// What it lies on.
    pub below: Below,
    /// Virtual size of the disk.
    pub size: ByteCount,
    /// Layers of its chain, itself included; the image is none.
    pub depth: u32,
}

/// What a disk layer lies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Below {
    /// The image's root disk.
    Image(crate::ImageId),
    /// The image's firmware variable store.
    ImageVars(crate::ImageId),
    /// Another layer, frozen.
    Layer(LayerId),
    /// Nothing: it is the first layer of a disk that was empty at first.
    Nothing,
}
