//! What a topology's text may ask for: value, unit, reason.

use pando_model::limits::{MAX_NODES, MAX_USER_DATA_BYTES};

/// Bounds on a text and on what it describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest text, in bytes: 64 nodes with user data of a usual size.
    pub bytes: usize,
    /// Deepest nesting of values: the format itself needs 6.
    pub depth: usize,
    /// Most values, aliases expanded: every node with a hundred files and variables.
    pub values: usize,
    /// Most errors that are told: nobody mends more in one go.
    pub errors: usize,
    /// Most nodes.
    pub nodes: usize,
    /// Most networks: one for every pair of interfaces that a pair of nodes can have.
    pub networks: usize,
    /// Most interfaces of a node: what the machine has slots for.
    pub nics: usize,
    /// Most disks of a node beside its root disk: what the machine has slots for.
    pub extra_disks: usize,
    /// Most files of a node.
    pub files: usize,
    /// Most set-up commands of a node.
    pub commands: usize,
    /// Most services of a node.
    pub services: usize,
    /// Most forwards: each is a listening socket in every running branch.
    pub forwards: usize,
    /// Most entries of a map: environment, labels, snapshots.
    pub entries: usize,
    /// Longest file contents or user data, in bytes.
    pub contents_bytes: usize,
    /// Longest other text, in bytes.
    pub text_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 1 << 20,
            depth: 24,
            values: 50_000,
            errors: 32,
            nodes: MAX_NODES,
            networks: 16,
            nics: 8,
            extra_disks: pando_model::limits::MAX_EXTRA_DISKS,
            files: 256,
            commands: 256,
            services: 64,
            forwards: 64,
            entries: 256,
            contents_bytes: MAX_USER_DATA_BYTES,
            text_bytes: 4096,
        }
    }
}
