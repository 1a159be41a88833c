//! The catalogue: every verb, declared once. Adding a verb means a line here, its parameters and
//! result in its toolset's module, and the engine's arm for the new [`Call`] variant.

use std::sync::LazyLock;

use pando_model::{ErrorCode, suggest};
use serde_json::Value;

use crate::error::ApiError;
use crate::verb::{Alias, Cli, Effect, Hint, Runs, Toolset, Verb};
use crate::{
    branch, cluster, commit, exec, image, machine, network, node, operation, parse, schema,
    snapshot, state, system, topology, usage,
};

macro_rules! verbs {
    ($(
        $(#[doc = $summary:literal])*
        $variant:ident = $name:literal ($params:ty) -> $result:ty,
        $toolset:ident, $effect:ident, $runs:ident,
        $cli:expr, [$($alias:expr),* $(,)?];
    )*) => {
        /// A verb with its parameters, checked.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Call {
            $($(#[doc = $summary])* $variant($params),)*
        }

        impl Call {
            /// Returns the verb's name.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// Returns the parameters as a JSON object that parses back to this call.
            ///
            /// # Errors
            /// `internal` if a parameter cannot be written as JSON, which no type here can cause.
            pub fn params(&self) -> Result<Value, ApiError> {
                match self { $(Self::$variant(params) => serde_json::to_value(params),)* }
                    .map_err(|source| ApiError::new(ErrorCode::Internal, source.to_string()))
            }

            fn decode(verb: &'static Verb, params: Value) -> Result<Self, ApiError> {
                match verb.name {
                    $($name => parse::decode(verb, &params).map(Self::$variant),)*
                    other => Err(unknown(other)),
                }
            }
        }

        static CATALOGUE: LazyLock<Vec<Verb>> = LazyLock::new(|| vec![$(Verb {
            name: $name,
            aliases: const { &[$($alias),*] },
            toolset: Toolset::$toolset,
            effect: Effect::$effect,
            runs: Runs::$runs,
            summary: concat!($($summary),*).trim_ascii(),
            cli: $cli,
            params: schema::params::<$params>(),
            result: schema::result::<$result>(),
        },)*]);
    };
}

const fn alias(name: &'static str) -> Alias {
    Alias { name, renames: &[], presets: &[] }
}

const fn renamed(name: &'static str, renames: &'static [(&'static str, &'static str)]) -> Alias {
    Alias { name, renames, presets: &[] }
}

const fn cli(path: &'static [&'static str], positionals: &'static [&'static str]) -> Cli {
    Cli { path, positionals, shorts: &[], hints: &[], by_hand: false }
}

impl Cli {
    const fn shorts(mut self, shorts: &'static [(char, &'static str)]) -> Self {
        self.shorts = shorts;
        self
    }

    const fn hints(mut self, hints: &'static [(&'static str, Hint)]) -> Self {
        self.hints = hints;
        self
    }

    const fn by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }
}

verbs! {
    /// Create a virtual machine and start it.
    VmCreate = "vm_create" (machine::VmCreateParams) -> machine::VmCreateResult,
    Machine, Write, AsOperation,
    cli(&["vm", "create"], &["name"])
        .shorts(&[('i', "image"), ('c', "vcpus"), ('m', "memory_mib"), ('e', "env"), ('l', "labels")])
        .hints(&[("user_data", Hint::Contents)]),
    [
        renamed("vm.create", &[
            ("memory_mb", "memory_mib"), ("disk_gb", "disk_gib"), ("metadata", "labels"),
        ]),
        renamed("new_root", &[
            ("vm_id", "name"), ("image_name", "image"), ("vcpu_count", "vcpus"),
            ("mem_size_mib", "memory_mib"),
        ]),
    ];
    /// List machines.
    VmList = "vm_list" (machine::VmListParams) -> machine::VmListResult,
    Machine, Read, Directly,
    cli(&["vm", "list"], &["name_prefix"]),
    [alias("vm.list")];
    /// Show what a machine is doing.
    VmStatus = "vm_status" (machine::VmStatusParams) -> machine::VmStatusResult,
    Machine, Read, Directly,
    cli(&["vm", "status"], &["address"]).shorts(&[('v', "verbose")]),
    [renamed("vm.status", &[("id", "address")]), alias("vers_status")];
    /// List what running machines take of this host.
    VmUsage = "vm_usage" (usage::VmUsageParams) -> usage::VmUsageResult,
    Machine, Read, Directly,
    cli(&["vm", "usage"], &["cluster"]),
    [];
    /// Start, stop, restart, pause, resume or kill a machine.
    VmControl = "vm_control" (machine::VmControlParams) -> machine::VmControlResult,
    Machine, Destructive, AsOperation,
    cli(&["vm", "control"], &["address", "action"]),
    [
        renamed("vm.control", &[("id", "address"), ("operation", "action")]),
        renamed("update_state", &[("id", "address"), ("vm_id", "address"), ("state", "action")]),
    ];
    /// Delete a machine with all its branches.
    VmDelete = "vm_delete" (machine::VmDeleteParams) -> machine::VmDeleteResult,
    Machine, Destructive, AsOperation,
    cli(&["vm", "rm"], &["name"]).shorts(&[('f', "force")]),
    [
        renamed("vm.delete", &[("id", "name")]),
        renamed("delete_vm", &[("id", "name"), ("vm_id", "name")]),
    ];

    /// Check a topology.
    TopologyValidate = "topology_validate" (topology::TopologyValidateParams)
        -> topology::TopologyValidateResult,
    Cluster, Read, Directly,
    cli(&["topology", "validate"], &["topology"]).hints(&[("topology", Hint::Topology)]),
    [];
    /// List the topologies that have a name.
    TopologyList = "topology_list" (topology::TopologyListParams) -> topology::TopologyListResult,
    Cluster, Read, Directly,
    cli(&["topology", "list"], &[]),
    [];
    /// Show what a topology means, complete.
    TopologyShow = "topology_show" (topology::TopologyShowParams) -> topology::TopologyShowResult,
    Cluster, Read, Directly,
    cli(&["topology", "show"], &["topology"]).hints(&[("topology", Hint::Topology)]),
    [];
    /// Define a cluster from a topology.
    ClusterDefine = "cluster_define" (cluster::ClusterDefineParams) -> cluster::ClusterDefineResult,
    Cluster, Write, AsOperation,
    cli(&["cluster", "define"], &["topology"]).hints(&[("topology", Hint::Topology)]),
    [];
    /// Start all nodes of a cluster.
    ClusterStart = "cluster_start" (cluster::ClusterStartParams) -> cluster::ClusterStartResult,
    Cluster, Write, AsOperation,
    cli(&["cluster", "start"], &["cluster_name"]),
    [];
    /// Stop all nodes of a cluster.
    ClusterStop = "cluster_stop" (cluster::ClusterStopParams) -> cluster::ClusterStatusResult,
    Cluster, Destructive, AsOperation,
    cli(&["cluster", "stop"], &["cluster_name"]),
    [];
    /// Stop a cluster for good, or remove all of it.
    ClusterDestroy = "cluster_destroy" (cluster::ClusterDestroyParams) -> cluster::ClusterDestroyResult,
    Cluster, Destructive, AsOperation,
    cli(&["cluster", "destroy"], &["cluster_name"]),
    [];
    /// Show what a cluster's nodes do.
    ClusterStatus = "cluster_status" (cluster::ClusterStatusParams) -> cluster::ClusterStatusResult,
    Cluster, Read, Directly,
    cli(&["cluster", "status"], &["cluster_name"]),
    [];
    /// Say how to log in to a cluster's nodes.
    ClusterHandle = "cluster_handle" (cluster::ClusterHandleParams) -> cluster::ClusterHandleResult,
    Cluster, Read, Directly,
    cli(&["cluster", "handle"], &["cluster_name"]),
    [];
    /// List clusters.
    ClusterList = "cluster_list" (cluster::ClusterListParams) -> cluster::ClusterListResult,
    Cluster, Read, Directly,
    cli(&["cluster", "list"], &["name_prefix"]),
    [];
    /// Run a command on one node of a cluster.
    NodeExec = "node_exec" (node::NodeExecParams) -> node::NodeExecResult,
    Cluster, Write, Either,
    cli(&["node", "exec"], &["cluster_name", "node_name", "command"]),
    [];
    /// Run a command on several nodes of a cluster at once.
    NodeExecAll = "node_exec_all" (node::NodeExecAllParams) -> node::NodeExecAllResult,
    Cluster, Write, Either,
    cli(&["node", "exec-all"], &["cluster_name", "command"]),
    [];
    /// Crash a node and boot it again.
    NodeCrash = "node_crash" (node::NodeCrashParams) -> node::NodeCrashResult,
    Cluster, Destructive, AsOperation,
    cli(&["node", "crash"], &["cluster_name", "node"]),
    [];
    /// Snapshot a cluster: all its nodes at one instant.
    SnapshotCreate = "snapshot_create" (snapshot::SnapshotCreateParams) -> snapshot::SnapshotInfo,
    Cluster, Write, AsOperation,
    cli(&["snapshot", "create"], &["cluster_name", "snapshot_name"]),
    [];
    /// List a cluster's snapshots.
    SnapshotList = "snapshot_list" (snapshot::SnapshotListParams) -> snapshot::SnapshotListResult,
    Cluster, Read, Directly,
    cli(&["snapshot", "list"], &["cluster_name"]),
    [];
    /// Return a cluster to a snapshot.
    SnapshotRevert = "snapshot_revert" (snapshot::SnapshotRevertParams) -> snapshot::SnapshotRevertResult,
    Cluster, Destructive, AsOperation,
    cli(&["snapshot", "revert"], &["cluster_name", "snapshot_name"]),
    [];
    /// Delete a snapshot.
    SnapshotDelete = "snapshot_delete" (snapshot::SnapshotDeleteParams) -> snapshot::SnapshotDeleteResult,
    Cluster, Destructive, AsOperation,
    cli(&["snapshot", "delete"], &["cluster_name", "snapshot_name"]),
    [];

    /// Branch a running machine or a commit into live copies.
    BranchCreate = "branch_create" (branch::BranchCreateParams) -> branch::BranchCreateResult,
    Branch, Write, AsOperation,
    cli(&["branch"], &["from", "names"]).shorts(&[('n', "count")]),
    [
        renamed("vers_branch_create", &[("alias", "name")]),
        renamed("branch_vm", &[("id", "from"), ("vm_id", "from"), ("alias", "name")]),
        renamed("from_commit_vm", &[("commit_id", "from"), ("alias", "name")]),
    ];
    /// List branches.
    BranchList = "branch_list" (branch::BranchListParams) -> branch::BranchListResult,
    Branch, Read, Directly,
    cli(&["branches"], &["cluster"]),
    [alias("vers_branch_list")];
    /// Make a branch the current one.
    BranchCheckout = "branch_checkout" (branch::BranchCheckoutParams) -> branch::BranchCheckoutResult,
    Branch, Write, AsOperation,
    cli(&["checkout"], &["branch"]),
    [alias("vers_branch_checkout")];
    /// Return a branch, in place, to a commit.
    BranchRollback = "branch_rollback" (branch::BranchRollbackParams) -> branch::BranchRollbackResult,
    Branch, Destructive, AsOperation,
    cli(&["rollback"], &["branch", "target"]).by_hand(),
    [alias("vers_rollback")];
    /// Delete a branch; its commits stay.
    BranchDelete = "branch_delete" (branch::BranchDeleteParams) -> branch::BranchDeleteResult,
    Branch, Destructive, AsOperation,
    cli(&["rm"], &["branch"]).by_hand(),
    [alias("vers_branch_delete")];

    /// Commit a branch: memory, devices and disk at one instant.
    CommitCreate = "commit_create" (commit::CommitCreateParams) -> commit::CommitCreateResult,
    Commit, Write, AsOperation,
    cli(&["commit"], &["branch"]).shorts(&[('m', "message"), ('t', "tag")]),
    [
        alias("vers_commit"),
        renamed("commit_vm", &[("id", "branch"), ("vm_id", "branch")]),
    ];
    /// List commits, newest first, with their parents.
    CommitList = "commit_list" (commit::CommitListParams) -> commit::CommitListResult,
    Commit, Read, Directly,
    cli(&["log"], &["cluster"]).by_hand(),
    [];
    /// Show one commit.
    CommitShow = "commit_show" (commit::CommitShowParams) -> commit::CommitShowResult,
    Commit, Read, Directly,
    cli(&["show"], &["commit"]),
    [];
    /// Check every byte of a commit against its checksums.
    CommitVerify = "commit_verify" (commit::CommitVerifyParams) -> commit::CommitVerifyResult,
    Commit, Read, Directly,
    cli(&["verify"], &["commit"]),
    [];
    /// Delete a commit.
    CommitDelete = "commit_delete" (commit::CommitDeleteParams) -> commit::CommitDeleteResult,
    Commit, Destructive, AsOperation,
    cli(&["rm"], &["commit"]).by_hand(),
    [];
    /// Name a commit.
    TagSet = "tag_set" (commit::TagSetParams) -> commit::TagSetResult,
    Commit, Write, AsOperation,
    cli(&["tag", "set"], &["commit", "tag"]),
    [];
    /// Remove a tag; the commit stays.
    TagDelete = "tag_delete" (commit::TagDeleteParams) -> commit::TagDeleteResult,
    Commit, Destructive, AsOperation,
    cli(&["tag", "rm"], &["tag"]),
    [];

    /// Run a command inside a machine and return its output.
    ExecRun = "exec_run" (exec::ExecRunParams) -> exec::ExecRunResult,
    Exec, Write, Either,
    cli(&["exec"], &["address", "argv"]).by_hand(),
    [renamed("vers_execute", &[("timeout", "timeout_s")])];
    /// Run one command in many branches at once.
    ExecFanout = "exec_fanout" (exec::ExecFanoutParams) -> exec::ExecFanoutResult,
    Exec, Write, Either,
    cli(&["fanout"], &["branches"]).by_hand(),
    [renamed("vers_parallel_execute", &[("timeout", "timeout_s")])];
    /// Write a file inside a machine.
    FilePush = "file_push" (exec::FilePushParams) -> exec::FilePushResult,
    Exec, Write, Directly,
    cli(&["cp"], &["address", "path"]).by_hand(),
    [];
    /// Read a file inside a machine.
    FilePull = "file_pull" (exec::FilePullParams) -> exec::FilePullResult,
    Exec, Read, Directly,
    cli(&["cp"], &["address", "path"]).by_hand(),
    [];
    /// Say how to log in to a machine over SSH.
    ConnectInfo = "connect_info" (exec::ConnectInfoParams) -> exec::ConnectInfoResult,
    Exec, Read, Directly,
    cli(&["connect-info"], &["address"]),
    [alias("vers_connect_info")];
    /// Read a machine's serial console.
    ConsoleRead = "console_read" (exec::ConsoleReadParams) -> exec::ConsoleReadResult,
    Exec, Read, Directly,
    cli(&["console"], &["address"]).by_hand(),
    [];

    /// Build an image from a Debian release's packages.
    ImageBuild = "image_build" (image::ImageBuildParams) -> image::ImageView,
    Image, Write, AsOperation,
    cli(&["image", "build"], &["name"]).shorts(&[('p', "packages")]),
    [];
    /// Import a disk, a cloud image or a root file system.
    ImageImport = "image_import" (image::ImageImportParams) -> image::ImageView,
    Image, Write, AsOperation,
    cli(&["image", "import"], &["name", "path"]).hints(&[
        ("path", Hint::HostPath), ("kernel", Hint::HostPath), ("modules", Hint::HostPath),
    ]),
    [];
    /// List images.
    ImageList = "image_list" (image::ImageListParams) -> image::ImageListResult,
    Image, Read, Directly,
    cli(&["image", "list"], &[]),
    [];
    /// Show one image with its ready states.
    ImageShow = "image_show" (image::ImageShowParams) -> image::ImageView,
    Image, Read, Directly,
    cli(&["image", "show"], &["image"]),
    [];
    /// Remove an image and its ready states.
    ImageRemove = "image_remove" (image::ImageRemoveParams) -> image::ImageRemoveResult,
    Image, Destructive, AsOperation,
    cli(&["image", "rm"], &["image"]).shorts(&[('f', "force")]),
    [];

    /// Capture a machine's state, to compare with it later.
    StateCapture = "state_capture" (state::StateCaptureParams) -> state::StateCaptureResult,
    State, Write, Directly,
    cli(&["capture"], &["address"]).shorts(&[('a', "aspects")]),
    [alias("vers_snapshot_state")];
    /// Say what differs between two branches or commits, and because of what.
    StateDiff = "state_diff" (state::StateDiffParams) -> state::StateDiffResult,
    State, Read, Directly,
    cli(&["diff"], &["from", "to"]).by_hand(),
    [renamed("vers_diff", &[("branch1", "from"), ("branch2", "to")])];
    /// List what was done in a machine, newest first.
    JournalList = "journal_list" (state::JournalListParams) -> state::JournalListResult,
    State, Read, Directly,
    cli(&["history"], &["address"]).shorts(&[('n', "limit")]),
    [];

    /// Cut a network in two.
    NetPartition = "net_partition" (network::NetPartitionParams) -> network::NetFaultResult,
    Fault, Write, AsOperation,
    cli(&["net", "partition"], &["cluster_name", "partition_a"]).shorts(&[('b', "partition_b")]),
    [];
    /// Delay, lose, repeat, damage or slow down frames.
    NetImpair = "net_impair" (network::NetImpairParams) -> network::NetFaultResult,
    Fault, Write, AsOperation,
    cli(&["net", "impair"], &["cluster_name", "source_node", "target_node"]),
    [];
    /// Heal one fault.
    NetHeal = "net_heal" (network::NetHealParams) -> network::NetHealResult,
    Fault, Write, AsOperation,
    cli(&["net", "heal"], &["cluster_name", "fault_handle"]),
    [];
    /// Heal all faults of a branch.
    NetHealAll = "net_heal_all" (network::NetHealAllParams) -> network::NetHealResult,
    Fault, Write, AsOperation,
    cli(&["net", "heal-all"], &["cluster_name"]),
    [];
    /// List a branch's faults and what they did.
    NetFaultList = "net_fault_list" (network::NetFaultListParams) -> network::NetFaultListResult,
    Fault, Read, Directly,
    cli(&["net", "faults"], &["cluster_name"]),
    [];
    /// Measure who reaches whom, from inside the guests.
    NetProbe = "net_probe" (network::NetProbeParams) -> network::NetProbeResult,
    Fault, Read, Directly,
    cli(&["net", "probe"], &["cluster_name"]),
    [];
    /// Copy a branch's frames to a pcap file.
    NetCapture = "net_capture" (network::NetCaptureParams) -> network::NetCaptureResult,
    Fault, Write, Directly,
    cli(&["net", "capture"], &["cluster_name"]).by_hand(),
    [];

    /// List operations, newest first.
    OperationList = "operation_list" (operation::OperationListParams) -> operation::OperationListResult,
    Operation, Read, Directly,
    cli(&["operation", "list"], &[]),
    [];
    /// Show one operation.
    OperationGet = "operation_get" (operation::OperationGetParams) -> operation::OperationView,
    Operation, Read, Directly,
    cli(&["operation", "show"], &["id"]),
    [];
    /// Wait until an operation has ended.
    OperationWait = "operation_wait" (operation::OperationWaitParams) -> operation::OperationView,
    Operation, Read, Directly,
    cli(&["operation", "wait"], &["id"]),
    [];
    /// Ask an operation to end and to undo what it did.
    OperationCancel = "operation_cancel" (operation::OperationCancelParams) -> operation::OperationView,
    Operation, Write, Directly,
    cli(&["operation", "cancel"], &["id"]),
    [];

    /// Remove what nothing refers to.
    Gc = "gc" (system::GcParams) -> system::GcResult,
    System, Write, AsOperation,
    cli(&["gc"], &[]),
    [];
    /// Show the daemon: version, home, what there is and what there is room for.
    SystemStatus = "system_status" (system::SystemStatusParams) -> system::SystemStatusResult,
    System, Read, Directly,
    cli(&["status"], &[]),
    [];
}

/// Returns every verb, in the order of the reference.
pub fn catalogue() -> &'static [Verb] {
    &CATALOGUE
}

impl Call {
    /// Returns the call that a verb's name or alias and its JSON parameters make.
    ///
    /// # Errors
    /// `unknown_verb`, and `invalid_parameter` with the parameter's name as subject. Unknown
    /// parameters are refused with the nearest name as hint.
    pub fn parse(name: &str, params: Value) -> Result<Self, ApiError> {
        let (verb, alias) = Verb::resolve(name).ok_or_else(|| unknown(name))?;
        let params = parse::prepare(verb, alias, params)?;
        let call = Self::decode(verb, params)?;
        crate::check::check(&call)?;
        Ok(call)
    }

    /// Returns the verb.
    pub fn verb(&self) -> &'static Verb {
        let name = self.name();
        let found = catalogue().iter().find(|verb| verb.name == name);
        #[expect(clippy::expect_used, reason = "one macro makes both the variants and the list")]
        found.expect("every call has a verb")
    }
}

fn unknown(name: &str) -> ApiError {
    let shown: String = name.chars().take(64).collect();
    let error = ApiError::new(ErrorCode::UnknownVerb, format!("there is no verb `{shown}`"));
    let names = catalogue().iter().map(|verb| verb.name);
    match suggest::nearest(name, names) {
        Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
        None => error.hint("`GET /v1/catalogue` lists all verbs, `pando --help` all commands"),
    }
}
