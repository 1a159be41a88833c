//! Single nodes of a cluster: parameters and results of the `node_*` verbs.

use std::collections::BTreeMap;

use pando_model::limits::DEFAULT_OUTPUT_BYTES;
use pando_model::{Address, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::{NodeStatus, ssh_timeout};
use crate::exec::ExecRunResult;
use crate::limits::DEFAULT_NODE_EXEC_TIMEOUT_S;
use crate::page::yes;

const fn timeout() -> u64 {
    DEFAULT_NODE_EXEC_TIMEOUT_S
}

const fn output_bytes() -> u64 {
    DEFAULT_OUTPUT_BYTES
}

/// Run a command on one node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeExecParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// The node.
    pub node_name: Name,
    /// A line for the guest's `/bin/sh -c`.
    pub command: String,
    /// When its whole process tree is killed, in seconds.
    #[serde(default = "timeout")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_EXEC_TIMEOUT_S))]
    pub timeout_s: u64,
    /// Most bytes of stdout and of stderr; head and tail are kept.
    #[serde(default = "output_bytes")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_OUTPUT_BYTES))]
    pub max_output_bytes: u64,
}

/// How it went on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeExecResult {
    /// The command's end; empty when it could not be run.
    #[serde(flatten)]
    pub outcome: ExecRunResult,
    /// How long it ran in the guest, in seconds.
    pub duration_s: f64,
}

/// Run a command on several nodes of a cluster at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeExecAllParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// A line for the guests' `/bin/sh -c`.
    pub command: String,
    /// Only these nodes; all if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = pando_model::limits::MAX_NODES))]
    pub nodes: Vec<Name>,
    /// Run it nowhere unless all of them run.
    #[serde(default = "yes")]
    pub require_all: bool,
    /// When each one's whole process tree is killed, in seconds.
    #[serde(default = "timeout")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_EXEC_TIMEOUT_S))]
    pub timeout_s: u64,
    /// Most bytes of each one's stdout and stderr; head and tail are kept.
    #[serde(default = "output_bytes")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_OUTPUT_BYTES))]
    pub max_output_bytes: u64,
}

/// How it went on all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeExecAllResult {
    /// By node.
    pub results: BTreeMap<Name, NodeExecResult>,
    /// Whether it exited with status 0 everywhere.
    pub all_succeeded: bool,
    /// Where it did not, and why.
    pub failed_nodes: BTreeMap<Name, String>,
    /// From the first start to the last end, in milliseconds.
    pub duration_ms: u64,
}

/// Crash a node, as a power failure would, and boot it again. The other nodes go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeCrashParams {
    /// `CLUSTER[@BRANCH]`.
    pub cluster_name: Address,
    /// The node.
    pub node: Name,
    /// Boot it again.
    #[serde(default = "yes")]
    pub restart_after: bool,
    /// Then wait until SSH answers too.
    #[serde(default = "yes")]
    pub wait_for_ssh: bool,
    /// How long to wait for it, in seconds.
    #[serde(default = "ssh_timeout")]
    #[schemars(range(min = 1, max = crate::limits::MAX_WAIT_S))]
    pub ssh_timeout_s: u64,
}

/// A node that was crashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeCrashResult {
    /// The node.
    #[serde(flatten)]
    pub status: NodeStatus,
    /// `CLUSTER@BRANCH/NODE`.
    pub address: String,
    /// Whether it was booted again.
    pub restarted: bool,
    /// From the request until it was so, in milliseconds.
    pub duration_ms: u64,
}
