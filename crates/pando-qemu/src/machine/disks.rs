//! The writable disks of a machine: their chains of layers, and the moves of a cut.
//!
//! QEMU's block nodes are named `ROLE-N`; `ROLE-0` is what the machine started with, and every
//! prepared overlay counts on. Nodes that we add stay open until we delete them, so a flatten ends
//! by deleting the layers that it made superfluous.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use pando_machine::{DiskRole, MachineError, MachinePlan};
use serde_json::{Value, json};

use super::QemuMachine;
use crate::args;
use crate::limits::END_GRACE;
use crate::qmp::{Command, Event};

/// A block node that we added, and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    node: String,
    path: PathBuf,
}

#[derive(Debug)]
struct Disk {
    role: DiskRole,
    /// Oldest first; the last is the writable top.
    layers: Vec<Layer>,
    prepared: Option<Layer>,
    next_number: u64,
}

impl Disk {
    fn new(role: DiskRole, path: &Path) -> Self {
        let first = Layer { node: node_name(role, 0), path: path.to_owned() };
        Self { role, layers: vec![first], prepared: None, next_number: 1 }
    }
}

/// A job that copies layers; there is at most one.
#[derive(Debug)]
struct Job {
    id: String,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Copying,
    /// All is copied; the chain is as before.
    Copied,
    /// It has ended, with QEMU's complaint if there was one.
    Ended(Option<String>),
}

/// All writable disks of a machine.
#[derive(Debug)]
pub struct Disks {
    disks: Vec<Disk>,
    durable: bool,
    /// What events said about the job under way.
    job: Option<Job>,
    /// The error that stopped the guest.
    trouble: Option<String>,
}

impl Disks {
    /// Returns the disks as the machine starts with them.
    pub fn new(plan: &MachinePlan) -> Self {
        let disks = plan.writable_disks().map(|(role, path)| Disk::new(role, path)).collect();
        Self { disks, durable: plan.durable_disk, job: None, trouble: None }
    }

    /// Takes in an event.
    pub fn note(&mut self, event: &Event) {
        if event.name == "BLOCK_IO_ERROR" && event.text("action") == Some("stop") {
            let reason = event.text("reason").unwrap_or("no reason given");
            let of =
                |node: &str| event.text("node-name").is_some_and(|name| name.starts_with(node));
            let disk = if of("root-") { "the root disk" } else { "a disk beside the root disk" };
            self.trouble = Some(format!("{disk} could not be written: {reason}"));
        }
        let Some(job) = &mut self.job else { return };
        let is_about_it = [event.text("device"), event.text("id")].contains(&Some(job.id.as_str()));
        if !is_about_it {
            return;
        }
        match event.name.as_str() {
            "BLOCK_JOB_PENDING" => job.stage = Stage::Copied,
            "BLOCK_JOB_COMPLETED" | "BLOCK_JOB_CANCELLED" => {
                job.stage = Stage::Ended(event.text("error").map(str::to_owned));
            }
            _ => {}
        }
    }

    /// Returns the error that stopped the guest.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The guest is to go on.
    pub fn forget_trouble(&mut self) {
        self.trouble = None;
    }

    /// The prepared overlays became the tops.
    pub fn switched(&mut self) {
        for disk in &mut self.disks {
            disk.layers.extend(disk.prepared.take());
        }
    }

    fn get(&mut self, role: DiskRole) -> Option<&mut Disk> {
        self.disks.iter_mut().find(|disk| disk.role == role)
    }
}

impl QemuMachine {
    fn disk(&mut self, role: DiskRole, command: &str) -> Result<&mut Disk, MachineError> {
        let missing = self.refused(command, format!("the machine has no {role:?} disk"));
        self.disks.get(role).ok_or(missing)
    }

    pub(super) fn add_overlay(
        &mut self,
        role: DiskRole,
        overlay: &Path,
        deadline: Instant,
    ) -> Result<(), MachineError> {
        const COMMAND: &str = "blockdev-add";
        let taken = self.refused(COMMAND, "an overlay is prepared already");
        let durable = self.disks.durable;
        let disk = self.disk(role, COMMAND)?;
        if disk.prepared.is_some() {
            return Err(taken);
        }
        let node = node_name(role, disk.next_number);
        let mut options = args::writable_disk(&node, overlay, durable)
            .map_err(|error| self.unusable(overlay, error))?;
        if let Some(options) = options.as_object_mut() {
            // The chain below is attached in the cut; opening it a second time would not see
            // what the guest writes until then.
            options.insert("backing".to_owned(), Value::Null);
        }
        // Taken whatever comes of it: a command that was too late may still be done.
        self.disk(role, COMMAND)?.next_number += 1;
        self.run("open its next overlay", Command::with(COMMAND, options), deadline)?;
        let disk = self.disk(role, COMMAND)?;
        disk.prepared = Some(Layer { node, path: overlay.to_owned() });
        Ok(())
    }

    pub(super) fn remove_overlays(&mut self, deadline: Instant) -> Result<(), MachineError> {
        let nodes: Vec<(DiskRole, String)> = self
            .disks
            .disks
            .iter()
            .filter_map(|disk| Some((disk.role, disk.prepared.as_ref()?.node.clone())))
            .collect();
        for (role, node) in nodes {
            let command = Command::with("blockdev-del", json!({ "node-name": node }));
            self.run("close an overlay", command, deadline)?;
            self.disk(role, "blockdev-del")?.prepared = None;
        }
        Ok(())
    }

    /// Returns the command that makes all prepared overlays the tops, all or none.
    pub(super) fn switch_command(&self) -> Result<Command, MachineError> {
        let mut actions = Vec::new();
        for disk in &self.disks.disks {
            let (Some(top), Some(overlay)) = (disk.layers.last(), &disk.prepared) else {
                let detail = format!("no overlay is prepared for the {:?} disk", disk.role);
                return Err(self.refused("blockdev-snapshot", detail));
            };
            actions.push(json!({
                "type": "blockdev-snapshot",
                "data": { "node": top.node, "overlay": overlay.node },
            }));
        }
        Ok(Command::with("transaction", json!({ "actions": actions })))
    }

    pub(super) fn flatten_chain(
        &mut self,
        role: DiskRole,
        keep: &Path,
        deadline: Instant,
    ) -> Result<(), MachineError> {
        const COMMAND: &str = "block-stream";
        let base = self.find_node(keep, deadline)?;
        let disk = self.disk(role, COMMAND)?;
        let Some(top) = disk.layers.last().cloned() else { return Ok(()) };
        let id = format!("flatten-{}", top.node);
        let stream = json!({
            "job-id": id, "device": top.node, "base-node": base,
            "backing-file": relative(&top.path, keep), "auto-finalize": false,
        });
        self.disks.job = Some(Job { id: id.clone(), stage: Stage::Copying });
        self.run("start to flatten its disk", Command::with(COMMAND, stream), deadline)?;
        self.finish_job(&id, &top.node, deadline)?;
        self.check_backing(&top.node, keep, deadline)?;
        self.forget_layers(role, keep, deadline)
    }

    /// Sees a job through. One that fails or is late is cancelled, and its end waited for all the
    /// same, because until then it blocks the next cut.
    fn finish_job(&mut self, id: &str, top: &str, deadline: Instant) -> Result<(), MachineError> {
        let finished = self.complete_job(id, top, deadline);
        if let Err(MachineError::Deadline { .. } | MachineError::Refused { .. }) = finished {
            self.cancel_job(id)?;
        }
        finished
    }

    fn complete_job(&mut self, id: &str, top: &str, deadline: Instant) -> Result<(), MachineError> {
        let mut stage = self.next_stage(&Stage::Copying, deadline)?;
        if stage == Stage::Copied {
            // The end of the job names the new base in the file's header at once, while the map of
            // what was copied is still in QEMU's memory: killed in between, the disk would have
            // lost the layers that it skips.
            self.flush(top, deadline)?;
            let finalize = Command::with("job-finalize", json!({ "id": id }));
            self.run("end a copy of disk layers", finalize, deadline)?;
            stage = self.next_stage(&Stage::Copied, Instant::now() + END_GRACE)?;
        }
        match stage {
            Stage::Ended(None) => Ok(()),
            Stage::Ended(Some(error)) => Err(self.refused("block-stream", error)),
            Stage::Copying | Stage::Copied => Err(self.protocol("a job went backwards")),
        }
    }

    fn cancel_job(&mut self, id: &str) -> Result<(), MachineError> {
        if matches!(&self.disks.job, Some(Job { stage: Stage::Ended(_), .. }) | None) {
            return Ok(());
        }
        let deadline = Instant::now() + END_GRACE;
        let cancel = Command::with("block-job-cancel", json!({ "device": id, "force": true }));
        match self.run("stop a copy of disk layers", cancel, deadline) {
            // Refused: it ended in this moment.
            Ok(_) | Err(MachineError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut stage = self.next_stage(&Stage::Copying, deadline)?;
        while !matches!(stage, Stage::Ended(_)) {
            stage = self.next_stage(&stage, deadline)?;
        }
        Ok(())
    }

    /// Waits until the job has left `stage`, and returns the one that it is in.
    fn next_stage(&mut self, stage: &Stage, deadline: Instant) -> Result<Stage, MachineError> {
        let started = Instant::now();
        loop {
            match &self.disks.job {
                Some(job) if job.stage == *stage => {}
                Some(job) => return Ok(job.stage.clone()),
                None => return Ok(Stage::Ended(None)),
            }
            self.next_event("flatten its disk", started, deadline)?;
        }
    }

    /// Writes what QEMU holds of a disk to its file. QMP has no command for it.
    fn flush(&mut self, node: &str, deadline: Instant) -> Result<(), MachineError> {
        const COMMAND: &str = "human-monitor-command";
        let line = json!({ "command-line": format!("qemu-io {node} flush") });
        match self.run("flush its disk", Command::with(COMMAND, line), deadline)?.as_str() {
            Some("") => Ok(()),
            complaint => Err(self.refused(COMMAND, complaint.unwrap_or("no text").trim())),
        }
    }

    fn block_nodes(&mut self, deadline: Instant) -> Result<Vec<Value>, MachineError> {
        let query = Command::with("query-named-block-nodes", json!({ "flat": true }));
        match self.run("list its disk layers", query, deadline)? {
            Value::Array(nodes) => Ok(nodes),
            _ => Err(self.protocol("the list of disk layers is not a list")),
        }
    }

    /// Returns the name of the format node on `file`.
    fn find_node(&mut self, file: &Path, deadline: Instant) -> Result<String, MachineError> {
        let text = |node: &Value, member: &str| {
            node.get(member).and_then(Value::as_str).map(str::to_owned)
        };
        for node in self.block_nodes(deadline)? {
            let is_format = text(&node, "drv").is_some_and(|driver| driver != "file");
            let path = text(&node, "file");
            if is_format
                && path.is_some_and(|path| is_same_file(Path::new(&path), file))
                && let Some(name) = text(&node, "node-name")
            {
                return Ok(name);
            }
        }
        let detail = format!("{} is not in the chain", file.display());
        Err(self.refused("block-stream", detail))
    }

    /// Checks that the backing file of `node` is `keep`.
    fn check_backing(
        &mut self,
        node: &str,
        keep: &Path,
        deadline: Instant,
    ) -> Result<(), MachineError> {
        let nodes = self.block_nodes(deadline)?;
        let top = nodes.iter().find(|other| other.get("node-name") == Some(&json!(node)));
        let backing = top
            .and_then(|top| top.get("image")?.get("full-backing-filename")?.as_str())
            .map(Path::new);
        match backing {
            Some(backing) if is_same_file(backing, keep) => Ok(()),
            other => {
                let is = other.map_or("nothing".to_owned(), |path| path.display().to_string());
                Err(self.protocol(format!("after a flatten, {is} is below the top layer")))
            }
        }
    }

    /// Closes the layers between `keep` and the top, which are out of the chain.
    fn forget_layers(
        &mut self,
        role: DiskRole,
        keep: &Path,
        deadline: Instant,
    ) -> Result<(), MachineError> {
        const COMMAND: &str = "blockdev-del";
        let disk = self.disk(role, COMMAND)?;
        let first = disk
            .layers
            .iter()
            .position(|layer| is_same_file(&layer.path, keep))
            .map_or(0, |kept| kept + 1);
        let last = disk.layers.len().saturating_sub(1);
        // From above: a layer holds the one below it.
        for index in (first..last).rev() {
            let Some(layer) = self.disk(role, COMMAND)?.layers.get(index).cloned() else { break };
            let command = Command::with(COMMAND, json!({ "node-name": layer.node }));
            self.run("close a layer", command, deadline)?;
            self.disk(role, COMMAND)?.layers.remove(index);
        }
        Ok(())
    }
}

fn node_name(role: DiskRole, number: u64) -> String {
    let disk = match role {
        DiskRole::Root => "root".to_owned(),
        DiskRole::Firmware => "firmware".to_owned(),
        DiskRole::Extra(disk) => args::extra_id(disk),
    };
    format!("{disk}-{number}")
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Returns `to` as it is seen from the directory of `from`, so that a home can be moved; `to`
/// itself where one of them is not absolute.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let (Some(directory), true) = (from.parent(), from.is_absolute() && to.is_absolute()) else {
        return to.to_owned();
    };
    let shared = directory.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = directory.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backing_names_are_relative() {
        let cases = [
            ("/h/layers/b", "/h/layers/a", "a"),
            ("/h/layers/b", "/h/images/i/disk", "../images/i/disk"),
            ("b", "/h/a", "/h/a"),
        ];
        for (from, to, expected) in cases {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(expected));
        }
    }
}
