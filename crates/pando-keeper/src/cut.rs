//! The cut: all nodes of the branch saved at one instant, while they stand still as briefly as can
//! be. Order and reasons: the prototype's protocol, measured over hundreds of cuts.
//!
//! ```text
//!   guests run      prepare   overlays, written pages read ahead; without memory the guests sync
//!                   intent    spool/spec.json: from here on the next layers are the tops
//!                   hold      the switch forwards nothing, machines and guests take in what it sent
//!   ──────────────  pause     all nodes
//!   guests stand    guard     no device may have work under way, no frame have half arrived; else go
//!   still                     on and try again
//!                   devices   device state to a file, disks to their next layers; beside them the
//!                             switch: tables, frames on their way, faults
//!                   memory    what was written since copied into the buffers, after the devices
//!   ──────────────  resume    all nodes, then release: what was queued, then what came in meanwhile
//!   guests run      save      hash, compare, write and sync deltas, states and frozen layers
//!                   report    spool/report.json: the cut is durable
//! ```
//!
//! As nothing is forwarded between hold and release, the nodes need not stand still at the same
//! moment: no node has seen what another sends after its own part of the cut.
//!
//! A node without a machine has nothing but its disks, and only a cut of disks takes it.
//!
//! Whatever fails before `devices` leaves the branch as it was: an error. Whatever fails after has
//! moved the disks: a report that says `failed`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use pando_delta::{Capture, DeltaHeader, DeltaSummary, DeltaWriter, LiveMemory};
use pando_machine::{Hypervisor, SavedSwitch};
use pando_model::commit::{CommitKind, CommitMemory};
use pando_model::host::{AfterCut, CutNodeReport, CutReport, CutSpec, HostError};
use pando_model::machine::MachineProfile;
use pando_model::network::CommitNetwork;
use pando_model::{BranchId, ByteCount, Layout, Name, NodeLayers};

use crate::limits;
use crate::network::Network;
use crate::node::{MemoryBase, Node, each, each_and, each_with, try_each_live};
use crate::spool::{self, CutIntent};
use crate::standstill::stand_still;
use crate::trouble;

/// What a cut works with.
pub struct CutContext<'a> {
    pub layout: &'a Layout,
    pub branch: &'a BranchId,
    pub profile: MachineProfile,
    /// Whether the guests run, and so shall run again.
    pub running: bool,
}

/// What is known of one node between the pause and the report.
struct Saved {
    tops: NodeLayers,
    capture: Option<Captured>,
}

type SavedNode = Result<Saved, HostError>;
type SavedNetwork = Result<Option<(Timestamp, SavedSwitch)>, HostError>;

/// A node's memory at the pause.
enum Captured {
    InBuffer(Capture),
    /// More than a buffer may hold: written while the guest stood still.
    Written(DeltaSummary),
}

/// Makes a cut. A report that says `failed` means that only the disks moved on; on an error they may
/// have, and the guests go on either way if they ran before.
pub fn cut(
    nodes: &mut [Node],
    network: &mut Network,
    context: &CutContext<'_>,
    spec: &CutSpec,
) -> Result<CutReport, HostError> {
    let began = Instant::now();
    let deadline = began + spec.timeout;
    check_nodes(nodes, context, spec)?;
    let spool = context.layout.spool(context.branch, &spec.commit);
    fs::create_dir_all(&spool).map_err(|e| trouble::io("make the spool", &e))?;

    let prepared = prepare(nodes, context, spec, deadline).and_then(|buffers| {
        spool::write_intent(&spool, &intent(nodes, spec))?;
        Ok(buffers)
    });
    let buffers = match prepared {
        Ok(buffers) => buffers,
        Err(error) => return Err(abandon(nodes, &spool, error)),
    };

    let stood = match stand_still(nodes, network, context) {
        Ok(stood) => stood,
        Err(error) => return Err(abandon(nodes, &spool, error)),
    };
    let stopped = stood.since.elapsed();
    let (saved, frames) = save_all(nodes, network, spec, &spool, buffers);
    let all_saved = stood.since.elapsed();
    let goes_on = context.running && spec.then == AfterCut::Continue;
    let resumed = if goes_on { try_each_live(nodes, Node::resume) } else { Ok(()) };
    let pause = stood.since.elapsed();
    let released = if goes_on { network.release() } else { Ok(()) };
    discard_overlays(nodes);

    let mut report = CutReport {
        commit: spec.commit.clone(),
        pause_us: trouble::micros(pause),
        total_us: 0,
        nodes: Vec::new(),
        network: None,
        failed: None,
    };
    let (bases, durable) = make_durable(nodes, context, spec, &spool, saved, &mut report);
    let kept = save_network(&spool, frames, stood.stalled);
    let kept = kept.map(|kept| report.network = kept);
    let synced = sync_directories(context.layout, &spool);
    report.failed = durable.and(kept).and(synced).and(resumed).and(released).err();
    report.total_us = trouble::micros(began.elapsed());
    tracing::info!(
        commit = %spec.commit,
        stop_us = trouble::micros(stopped),
        save_us = trouble::micros(all_saved.saturating_sub(stopped)),
        pause_us = report.pause_us,
        total_us = report.total_us,
        failed = report.failed.as_ref().map(tracing::field::display),
        "cut"
    );
    if report.failed.is_some()
        // A full disk must have room for what says so.
        && let Err(error) = spool::free_space(&spool)
    {
        tracing::warn!(%error, "the files of a cut that failed stay");
    }
    if let Err(error) = spool::write_report(&spool, &report) {
        if context.running && !goes_on {
            // Nobody learns that they stand still.
            let went_on = try_each_live(nodes, Node::resume).and_then(|()| network.release());
            if let Err(error) = went_on {
                tracing::warn!(%error, "the guests stand still after a cut that failed");
            }
        }
        return Err(error);
    }
    if report.failed.is_none() {
        // Not before: what failed is nothing to build on.
        for (node, base) in nodes.iter_mut().zip(bases) {
            let Some(base) = base else { continue };
            node.memory = base;
            node.live.iter_mut().for_each(LiveMemory::saved);
        }
    }
    Ok(report)
}

fn check_nodes(nodes: &[Node], context: &CutContext<'_>, spec: &CutSpec) -> Result<(), HostError> {
    for node in nodes {
        let wanted = spec.nodes.iter().find(|cut| cut.name == node.spec.name);
        if !wanted.is_some_and(|cut| cut.next.fits(&node.layers)) {
            return Err(HostError::NoSuchNode {
                branch: context.branch.clone(),
                node: node.spec.name.to_string(),
            });
        }
        if node.machine.is_none() && spec.kind == CommitKind::Full {
            return Err(node.has_no_machine());
        }
    }
    Ok(())
}

fn next_layers<'a>(spec: &'a CutSpec, node: &'a Node) -> &'a NodeLayers {
    let wanted = spec.nodes.iter().find(|cut| cut.name == node.spec.name);
    wanted.map_or(&node.layers, |cut| &cut.next)
}

fn intent(nodes: &[Node], spec: &CutSpec) -> CutIntent {
    let tops = nodes.iter().map(|node| (node.spec.name.clone(), node.layers.clone()));
    CutIntent { spec: spec.clone(), tops: tops.collect() }
}

/// Gives up overlays that did not become tops.
fn discard_overlays(nodes: &mut [Node]) {
    let undone = try_each_live(nodes, |node| node.with_machine(|m, d| m.discard_overlays(d)));
    if let Err(error) = undone {
        tracing::warn!(%error, "an unused overlay stays open");
    }
}

/// Undoes what was prepared, and returns the error that was the reason.
fn abandon(nodes: &mut [Node], spool: &Path, error: HostError) -> HostError {
    discard_overlays(nodes);
    if let Err(error) = fs::remove_dir_all(spool) {
        tracing::warn!(%error, "an unused spool stays");
    }
    error
}

/// Everything that need not wait for the pause.
fn prepare(
    nodes: &mut [Node],
    context: &CutContext<'_>,
    spec: &CutSpec,
    deadline: Instant,
) -> Result<Vec<Capture>, HostError> {
    let prepare_node = |node: &mut Node| {
        if node.machine.is_none() {
            return Ok(Capture::default());
        }
        if spec.kind == CommitKind::Disk && context.running {
            sync(node, deadline);
        }
        let next = next_layers(spec, node).clone();
        node.with_machine(|machine, _| {
            for (disk, layer) in next.disks() {
                let deadline = deadline.min(Instant::now() + limits::OPEN_OVERLAY);
                machine.prepare_overlay(disk, &context.layout.layer(layer), deadline)?;
            }
            Ok(())
        })?;
        if spec.kind == CommitKind::Disk {
            return Ok(Capture::default());
        }
        node.find_memory()?;
        let (live, base) = node.memory()?;
        live.read_ahead(&base.digests).map_err(|e| trouble::delta(&e))
    };
    each(nodes, prepare_node).into_iter().collect()
}

/// Has a guest write its file systems' caches to its disks, which are all that is kept of it. One that
/// does not answer is cut as it is, as by a power failure.
fn sync(node: &Node, deadline: Instant) {
    let Some(link) = &node.link else { return };
    if let Err(error) = link.sync(deadline.min(Instant::now() + limits::SYNC)) {
        tracing::warn!(node = %node.spec.name, %error, "its disks are cut without a sync");
    }
}

/// While all stand still: devices and disks, then memory; beside them the switch.
fn save_all(
    nodes: &mut [Node],
    network: &mut Network,
    spec: &CutSpec,
    spool: &Path,
    buffers: Vec<Capture>,
) -> (Vec<SavedNode>, SavedNetwork) {
    let save = |node: &mut Node, buffer: Capture| {
        let state = (spec.kind == CommitKind::Full).then(|| state_file(spool, node));
        if node.machine.is_some() {
            node.with_machine(|machine, deadline| {
                machine.save_devices(state.as_deref(), deadline)
            })?;
        }
        let next = next_layers(spec, node).clone();
        let tops = std::mem::replace(&mut node.layers, next);
        let capture = match spec.kind {
            CommitKind::Disk => None,
            CommitKind::Full => Some(capture(node, spool, buffer)?),
        };
        Ok(Saved { tops, capture })
    };
    match spec.kind {
        CommitKind::Full if network.is_open() => {
            each_and(nodes, buffers, save, || network.save(&Layout::network_file(spool)))
        }
        CommitKind::Full | CommitKind::Disk => (each_with(nodes, buffers, save), Ok(None)),
    }
}

fn state_file(spool: &Path, node: &Node) -> PathBuf {
    Layout::state_file(spool, &node.spec.name)
}

fn capture(node: &mut Node, spool: &Path, mut buffer: Capture) -> Result<Captured, HostError> {
    let failed = |e| trouble::delta(&e);
    let path = Layout::pages_file(spool, &node.spec.name);
    let (live, base) = node.memory()?;
    let mut left = live.complete(&mut buffer, &base.digests).map_err(failed)?;
    if left.is_empty() {
        return Ok(Captured::InBuffer(buffer));
    }
    tracing::warn!(path = %path.display(), "memory is saved while paused");
    let mut writer = delta_writer(live, base, &path)?;
    loop {
        writer.append(buffer.pieces(), buffer.data()).map_err(failed)?;
        if left.is_empty() {
            break;
        }
        buffer.clear();
        left = live.read(&mut buffer, &left).map_err(failed)?;
    }
    writer.finish().map(Captured::Written).map_err(failed)
}

fn delta_writer<'a>(
    live: &LiveMemory,
    base: &'a MemoryBase,
    path: &Path,
) -> Result<DeltaWriter<'a>, HostError> {
    let header = DeltaHeader { ram: live.len() };
    DeltaWriter::create(path, header, &base.digests, base.on_zero).map_err(|e| trouble::delta(&e))
}

/// With the guests running again: writes and syncs everything, and fills in the report.
fn make_durable(
    nodes: &mut [Node],
    context: &CutContext<'_>,
    spec: &CutSpec,
    spool: &Path,
    saved: Vec<SavedNode>,
    report: &mut CutReport,
) -> (Vec<Option<MemoryBase>>, Result<(), HostError>) {
    let save = |node: &mut Node, saved: SavedNode| {
        let saved = saved?;
        let mut entry = CutNodeReport {
            name: node.spec.name.clone(),
            layers: saved.tops.clone(),
            memory: None,
            profile: None,
            disk_bytes: ByteCount(0),
        };
        let base = save_node(node, context, spec, spool, saved, &mut entry);
        Ok((entry, base))
    };
    let mut first_error = Ok(());
    let mut bases = Vec::with_capacity(nodes.len());
    for saved in each_with(nodes, saved, save) {
        let base = saved.and_then(|(entry, base)| {
            report.nodes.push(entry);
            base
        });
        match base {
            Ok(base) => bases.push(base),
            Err(error) => first_error = first_error.and(Err(error)),
        }
    }
    (bases, first_error)
}

/// What is synced must also be found after a power cut.
fn sync_directories(layout: &Layout, spool: &Path) -> Result<(), HostError> {
    for directory in [layout.layers().as_path(), spool] {
        let what = || format!("sync {}", directory.display());
        spool::sync_directory(directory).map_err(|e| trouble::io(what(), &e))?;
    }
    Ok(())
}

/// Makes the switch's state durable, if there is one.
fn save_network(
    spool: &Path,
    saved: SavedNetwork,
    stalled: Vec<(Name, u8)>,
) -> Result<Option<CommitNetwork>, HostError> {
    let Some((at, SavedSwitch { frames, faults })) = saved? else { return Ok(None) };
    let path = Layout::network_file(spool);
    let digest = sync_and_digest(&path)?;
    let what = || format!("read {}", path.display());
    let bytes = fs::metadata(&path).map_err(|e| trouble::io(what(), &e))?.len();
    Ok(Some(CommitNetwork { cut_at: Some(at), faults, frames, stalled, bytes, digest }))
}

/// Makes a node's part durable, and returns what its next delta will apply to; `None` if that is what
/// it was.
fn save_node(
    node: &mut Node,
    context: &CutContext<'_>,
    spec: &CutSpec,
    spool: &Path,
    saved: Saved,
    entry: &mut CutNodeReport,
) -> Result<Option<MemoryBase>, HostError> {
    let mut base = None;
    if let Some(captured) = saved.capture {
        let summary = match captured {
            Captured::Written(summary) => summary,
            Captured::InBuffer(buffer) => {
                let path = Layout::pages_file(spool, &node.spec.name);
                let (live, base) = node.memory()?;
                let mut writer = delta_writer(live, base, &path)?;
                writer.append(buffer.pieces(), buffer.data()).map_err(|e| trouble::delta(&e))?;
                writer.finish().map_err(|e| trouble::delta(&e))?
            }
        };
        let state = state_file(spool, node);
        let device_digest = sync_and_digest(&state)?;
        entry.memory = Some(CommitMemory {
            base: node.memory.commit.clone(),
            pages: summary.pages,
            bytes: ByteCount(summary.bytes),
            digest: summary.digest,
            device_digest,
        });
        entry.profile = Some(context.profile.clone());
        base = Some(MemoryBase {
            commit: Some(spec.commit.clone()),
            digests: summary.digests,
            on_zero: node.memory.on_zero,
        });
    }
    for layer in saved.tops.iter() {
        entry.disk_bytes.0 += sync_layer(&context.layout.layer(layer))?.0;
    }
    Ok(base)
}

fn sync_and_digest(path: &Path) -> Result<String, HostError> {
    let what = || format!("sync {}", path.display());
    let bytes = fs::read(path).map_err(|e| trouble::io(what(), &e))?;
    File::open(path).and_then(|file| file.sync_data()).map_err(|e| trouble::io(what(), &e))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// Makes a frozen layer durable and returns the bytes that it takes.
fn sync_layer(path: &Path) -> Result<ByteCount, HostError> {
    use std::os::unix::fs::MetadataExt;
    let sync = || {
        let file = File::open(path)?;
        file.sync_data()?;
        Ok(ByteCount(file.metadata()?.blocks() * 512))
    };
    sync().map_err(|e: std::io::Error| trouble::io(format!("sync {}", path.display()), &e))
}

/// Returns what machines of this branch record in a commit.
pub fn profile(hypervisor: &dyn Hypervisor, nodes: &[Node]) -> Option<MachineProfile> {
    nodes.first().map(|node| hypervisor.profile(node.plan.accelerator))
}
