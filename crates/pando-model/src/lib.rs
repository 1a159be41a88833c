//! pando's nouns: ids, names, addresses, units, limits, states and the records that the store
//! keeps. Everything here is a plain value: no I/O, no clock, no async. Every other crate speaks
//! in these words, one word for one meaning, and none of them is known here.

pub mod address;
pub mod branch;
pub mod bridge;
pub mod capture;
pub mod change;
pub mod cluster;
pub mod commit;
pub mod disk;
pub mod error;
pub mod fault;
pub mod guest;
pub mod host;
pub mod id;
pub mod image;
pub mod layout;
pub mod limits;
pub mod machine;
pub mod name;
pub mod network;
pub mod operation;
pub mod schema;
pub mod suggest;
pub mod units;

pub use address::Address;
pub use branch::{Branch, BranchRole, BranchState};
pub use bridge::{BridgeName, KernelNetwork, Lack};
pub use cluster::{Cluster, ClusterState, NodeDef, Uplink};
pub use commit::{Commit, CommitKind, CommitNode};
pub use disk::{DiskRole, ExtraDisk, NodeLayers};
pub use error::ErrorCode;
pub use id::{
    BranchId, CaptureId, ClusterId, CommitId, FaultId, ImageId, JournalId, LayerId, OperationId,
    RequestId,
};
pub use image::{BootMethod, Image, ReadyState};
pub use layout::Layout;
pub use machine::{Accelerator, MachineProfile, NodeShape};
pub use name::Name;
pub use operation::{Operation, OperationStatus, StepRecord, StepStatus};
pub use units::ByteCount;
