//! What types cannot say: ranges, and parameters that exclude one another. Everything here is
//! refused before the call reaches the gate, so the engine meets only calls that make sense.

mod network;

use std::collections::BTreeSet;

use pando_model::limits as model;
use pando_model::{ByteCount, Name, NodeShape, Uplink};

use crate::branch::BranchCreateParams;
use crate::catalogue::Call;
use crate::error::ApiError;
use crate::exec::{ExecFanoutParams, ExecRunParams, FilePushParams};
use crate::image::{ImageBuildParams, ImageImportParams, ImportKind};
use crate::limits;
use crate::machine::VmCreateParams;

type Checked = Result<(), ApiError>;

pub(crate) fn check(call: &Call) -> Checked {
    match call {
        Call::VmCreate(params) => vm_create(params),
        Call::VmList(params) => page(params.limit),
        Call::VmUsage(params) => page(params.limit),
        Call::VmControl(params) => wait(params.timeout_s),
        Call::TopologyValidate(params) => topology(&params.topology),
        Call::TopologyList(params) => page(params.limit),
        Call::TopologyShow(params) => topology(&params.topology),
        Call::ClusterDefine(params) => {
            exactly_one(
                ("topology", params.topology.is_some()),
                ("topology_name", params.topology_name.is_some()),
            )?;
            topology(params.topology.as_ref().or(params.topology_name.as_ref()).map_or("", |t| t))
        }
        Call::ClusterStart(params) => ssh_wait(params.ssh_timeout_s),
        Call::ClusterStop(params) => wait(params.timeout_s),
        Call::ClusterList(params) => page(params.limit),
        Call::NodeExec(params) => {
            node_command(&params.command, params.timeout_s, params.max_output_bytes)
        }
        Call::NodeExecAll(params) => {
            at_most("nodes", params.nodes.len() as u64, model::MAX_NODES as u64, "nodes")?;
            node_command(&params.command, params.timeout_s, params.max_output_bytes)
        }
        Call::NodeCrash(params) => ssh_wait(params.ssh_timeout_s),
        Call::SnapshotList(params) => page(params.limit),
        Call::SnapshotRevert(params) => {
            not_empty("snapshot_name", &params.snapshot_name)?;
            ssh_wait(params.ssh_timeout_s)
        }
        Call::SnapshotDelete(params) => not_empty("snapshot_name", &params.snapshot_name),
        Call::BranchCreate(params) => branch_create(params),
        Call::BranchList(params) => page(params.limit),
        Call::BranchRollback(params) => not_empty("target", &params.target),
        Call::CommitCreate(params) => {
            at_most(
                "message",
                params.message.len() as u64,
                model::MAX_MESSAGE_BYTES as u64,
                "bytes",
            )?;
            at_most("warm", u64::from(params.warm), u64::from(limits::MAX_WARM), "copies")
        }
        Call::CommitList(params) => page(params.limit),
        Call::ExecRun(params) => exec_run(params),
        Call::ExecFanout(params) => exec_fanout(params),
        Call::FilePush(params) => file_push(params),
        Call::FilePull(params) => {
            guest_path(&params.path)?;
            range("max_bytes", params.max_bytes, 1, limits::MAX_INLINE_FILE_BYTES)
        }
        Call::ConsoleRead(params) => {
            range("tail_bytes", params.tail_bytes, 1, limits::MAX_CONSOLE_BYTES)
        }
        Call::ImageBuild(params) => image_build(params),
        Call::ImageImport(params) => image_import(params),
        Call::ImageList(params) => page(params.limit),
        Call::StateDiff(params) => {
            if let Some(path) = &params.hunks {
                guest_path(path)?;
            }
            range("max_bytes", params.max_bytes, 1024, limits::MAX_DIFF_BYTES)
        }
        Call::JournalList(params) => page(params.limit),
        Call::NetPartition(params) => network::partition(params),
        Call::NetImpair(params) => network::impair(params),
        Call::NetHeal(params) => not_empty("fault_handle", &params.fault_handle),
        Call::NetProbe(params) => network::probe(params),
        Call::NetCapture(params) => network::capture(params),
        Call::OperationList(params) => page(params.limit),
        Call::OperationWait(params) => {
            at_most("timeout_s", params.timeout_s, limits::MAX_WAIT_S, "seconds")
        }
        Call::VmStatus(_)
        | Call::VmDelete(_)
        | Call::ClusterDestroy(_)
        | Call::ClusterStatus(_)
        | Call::ClusterHandle(_)
        | Call::SnapshotCreate(_)
        | Call::BranchCheckout(_)
        | Call::BranchDelete(_)
        | Call::CommitShow(_)
        | Call::CommitVerify(_)
        | Call::CommitDelete(_)
        | Call::TagSet(_)
        | Call::TagDelete(_)
        | Call::ConnectInfo(_)
        | Call::StateCapture(_)
        | Call::ImageShow(_)
        | Call::ImageRemove(_)
        | Call::NetHealAll(_)
        | Call::NetFaultList(_)
        | Call::OperationGet(_)
        | Call::OperationCancel(_)
        | Call::Gc(_)
        | Call::SystemStatus(_) => Ok(()),
    }
}

fn range(name: &str, value: u64, least: u64, most: u64) -> Checked {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ApiError::parameter(name, format!("`{name}` is {value}, but must be {least} to {most}")))
}

fn at_most(name: &str, value: u64, most: u64, unit: &str) -> Checked {
    if value <= most {
        return Ok(());
    }
    Err(ApiError::parameter(
        name,
        format!("`{name}` has {value} {unit}, at most {most} are allowed"),
    ))
}

fn not_empty(name: &str, value: &str) -> Checked {
    if value.is_empty() {
        return Err(ApiError::parameter(name, format!("`{name}` is empty")));
    }
    Ok(())
}

fn page(limit: u32) -> Checked {
    range("limit", u64::from(limit), 1, u64::from(limits::MAX_PAGE))
}

/// A name or a text; how long a text may be is the reader's to say, with the place where it ends.
fn topology(text: &str) -> Checked {
    not_empty("topology", text)
}

fn ssh_wait(timeout_s: u64) -> Checked {
    range("ssh_timeout_s", timeout_s, 1, limits::MAX_WAIT_S)
}

fn node_command(command: &str, timeout_s: u64, max_output_bytes: u64) -> Checked {
    not_empty("command", command)?;
    at_most("command", command.len() as u64, model::MAX_ARGV_BYTES as u64, "bytes")?;
    range("timeout_s", timeout_s, 1, model::MAX_EXEC_TIMEOUT_S)?;
    range("max_output_bytes", max_output_bytes, 1, model::MAX_OUTPUT_BYTES)
}

fn wait(timeout_s: u64) -> Checked {
    range("timeout_s", timeout_s, 1, limits::MAX_WAIT_S)
}

/// Refuses all but exactly one of two parameters.
fn exactly_one(first: (&str, bool), second: (&str, bool)) -> Checked {
    let (first, first_given) = first;
    let (second, second_given) = second;
    match (first_given, second_given) {
        (true, false) | (false, true) => Ok(()),
        (true, true) => Err(ApiError::parameter(
            first,
            format!("`{first}` and `{second}` exclude one another; give one of them"),
        )),
        (false, false) => {
            Err(ApiError::parameter(first, format!("one of `{first}` and `{second}` is needed")))
        }
    }
}

fn disk(disk_gib: Option<u64>) -> Checked {
    match disk_gib {
        Some(gib) => range("disk_gib", gib, 1, model::MAX_DISK.0 >> 30),
        None => Ok(()),
    }
}

fn vm_create(params: &VmCreateParams) -> Checked {
    wait(params.timeout_s)?;
    disk(params.disk_gib)?;
    range("memory_mib", params.memory_mib, model::MIN_MEMORY.mib(), model::MAX_MEMORY.mib())?;
    let shape = NodeShape {
        vcpus: params.vcpus,
        memory: ByteCount::from_mib(params.memory_mib),
        disk: ByteCount::from_gib(params.disk_gib.unwrap_or(0)),
        nics: params.nics,
        extra_disks: Vec::new(),
    };
    range("nics", u64::from(params.nics), 0, u64::from(limits::MAX_NICS))?;
    if params.uplink == Uplink::Nat && params.nics == 0 {
        return Err(ApiError::parameter("uplink", "without an interface there is no uplink"));
    }
    shape.validate().map_err(|source| {
        use pando_model::machine::ShapeError;
        let name = match source {
            ShapeError::Vcpus(_) => "vcpus",
            ShapeError::Memory(_) | ShapeError::MemoryStep(_) => "memory_mib",
            ShapeError::Disk(_) | ShapeError::ExtraDisks(_) | ShapeError::ExtraDisk { .. } => {
                "disk_gib"
            }
        };
        ApiError::parameter(name, source.to_string())
    })?;
    if let Some(data) = &params.user_data {
        at_most("user_data", data.len() as u64, model::MAX_USER_DATA_BYTES as u64, "bytes")?;
    }
    environment("env", params.env.keys())?;
    if let Some(key) = params.labels.keys().find(|key| key.is_empty() || key.contains('=')) {
        return Err(ApiError::parameter("labels", format!("`{key}` is not a label's key")));
    }
    Ok(())
}

fn branch_create(params: &BranchCreateParams) -> Checked {
    let given = [params.name.is_some(), !params.names.is_empty(), params.count.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(ApiError::parameter(
            "names",
            "`name`, `names` and `count` exclude one another",
        ));
    }
    let most = model::MAX_BRANCHES_PER_REQUEST as u64;
    if let Some(count) = params.count {
        range("count", u64::from(count), 1, most)?;
    }
    at_most("names", params.names.len() as u64, most, "names")?;
    if let Some(seed) = params.seed {
        range("seed", seed, 0, limits::MAX_SEED)?;
    }
    let mut seen = BTreeSet::new();
    match params.names.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(ApiError::parameter("names", format!("`{twice}` is named twice"))),
        None => Ok(()),
    }
}

fn environment<'a>(parameter: &str, names: impl Iterator<Item = &'a String>) -> Checked {
    for name in names {
        if name.is_empty() || name.contains(['=', '\0']) {
            let shown: String = name.chars().take(64).collect();
            return Err(ApiError::parameter(
                parameter,
                format!("`{shown}` is not a variable's name"),
            ));
        }
    }
    Ok(())
}

fn command(command: Option<&String>, argv: &[String], stdin: Option<&String>) -> Checked {
    exactly_one(("command", command.is_some()), ("argv", !argv.is_empty()))?;
    at_most("argv", argv.len() as u64, model::MAX_ARGS as u64, "arguments")?;
    let bytes = argv.iter().map(|arg| arg.len() as u64 + 1).sum::<u64>()
        + command.map_or(0, |line| line.len() as u64);
    let name = if command.is_some() { "command" } else { "argv" };
    at_most(name, bytes, model::MAX_ARGV_BYTES as u64, "bytes")?;
    if argv.iter().chain(command).any(|text| text.contains('\0')) {
        return Err(ApiError::parameter(name, format!("`{name}` contains a zero byte")));
    }
    at_most(
        "stdin",
        stdin.map_or(0, |text| text.len() as u64),
        model::MAX_INLINE_STDIN_BYTES as u64,
        "bytes",
    )
}

fn exec_run(params: &ExecRunParams) -> Checked {
    command(params.command.as_ref(), &params.argv, params.stdin.as_ref())?;
    environment("env", params.env.keys())?;
    range("timeout_s", params.timeout_s, 1, model::MAX_EXEC_TIMEOUT_S)?;
    range("max_output_bytes", params.max_output_bytes, 1, model::MAX_OUTPUT_BYTES)
}

fn exec_fanout(params: &ExecFanoutParams) -> Checked {
    exactly_one(("branches", !params.branches.is_empty()), ("cluster", params.cluster.is_some()))?;
    at_most("branches", params.branches.len() as u64, model::MAX_FANOUT as u64, "branches")?;
    command(params.command.as_ref(), &params.argv, params.stdin.as_ref())?;
    environment("env", params.env.keys())?;
    range("timeout_s", params.timeout_s, 1, model::MAX_EXEC_TIMEOUT_S)?;
    range("max_output_bytes", params.max_output_bytes, 1, model::MAX_OUTPUT_BYTES)
}

fn guest_path(path: &str) -> Checked {
    if !path.starts_with('/') || path.contains('\0') {
        let shown: String = path.chars().take(120).collect();
        return Err(ApiError::parameter("path", format!("`{shown}` is not an absolute path")));
    }
    Ok(())
}

fn file_push(params: &FilePushParams) -> Checked {
    guest_path(&params.path)?;
    exactly_one(
        ("content", params.content.is_some()),
        ("content_base64", params.content_base64.is_some()),
    )?;
    let bytes = params.content.as_ref().or(params.content_base64.as_ref()).map_or(0, String::len);
    let most = match params.content {
        Some(_) => limits::MAX_INLINE_FILE_BYTES,
        None => limits::MAX_INLINE_FILE_BYTES.div_ceil(3) * 4,
    };
    at_most("content", bytes as u64, most, "bytes")?;
    match u32::from_str_radix(&params.mode, 8) {
        Ok(bits) if bits <= 0o7777 => Ok(()),
        _ => {
            let shown: String = params.mode.chars().take(16).collect();
            Err(ApiError::parameter("mode", format!("`{shown}` is no octal mode (such as 644)")))
        }
    }
}

fn image_build(params: &ImageBuildParams) -> Checked {
    disk(Some(params.disk_gib))?;
    params
        .name
        .parse::<Name>()
        .map(drop)
        .map_err(|source| ApiError::parameter("name", source.to_string()))
}

fn image_import(params: &ImageImportParams) -> Checked {
    disk(params.disk_gib)?;
    let paths = [("path", Some(&params.path)), ("kernel", params.kernel.as_ref())];
    for (name, path) in paths.into_iter().chain([("modules", params.modules.as_ref())]) {
        if path.is_some_and(|path| !path.starts_with('/')) {
            return Err(ApiError::parameter(name, format!("`{name}` is not an absolute path")));
        }
    }
    match params.kind {
        ImportKind::Rootfs if params.kernel.is_none() => {
            Err(ApiError::parameter("kernel", "a root file system needs a `kernel`"))
        }
        ImportKind::Disk if params.kernel.is_some() => {
            Err(ApiError::parameter("kernel", "a disk brings its own kernel"))
        }
        ImportKind::Disk | ImportKind::Rootfs => Ok(()),
    }
}
