//! Memory: flat images made from chains of deltas, a cache with a budget; and whether the host has
//! room for another machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use pando_delta::{DeltaReader, flat};
use pando_driver::host::{BranchSpec, Capacity, HostError, MemoryChain, NodeStart};
use pando_driver::progress::Reporter;
use pando_model::network::CommitNetwork;
use pando_model::{BranchId, ByteCount, CommitId, Layout};

use crate::branches::layer_bytes;
use crate::{LocalHost, files, keepers, trouble};

impl LocalHost {
    /// Makes the flat memory of a chain's newest commit.
    pub(crate) async fn make_flat(
        &self,
        chain: &MemoryChain,
        reporter: &Reporter,
    ) -> Result<(), HostError> {
        let Some(newest) = chain.links.first() else {
            return Err(HostError::Missing { what: "a memory chain without links".into() });
        };
        let target = self.layout().flat_memory(&newest.commit, &newest.node);
        let gate = {
            let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            making.retain(|_, gate| Arc::strong_count(gate) > 1);
            making.entry(target.clone()).or_default().clone()
        };
        let turn = gate.lock_owned().await;
        if is_flat(&target, chain.size) {
            let touch = move || {
                let now = SystemTime::now();
                let _ =
                    fs::File::options().write(true).open(&target).and_then(|f| f.set_modified(now));
                Ok(())
            };
            return trouble::blocking("touch flat memory", touch).await;
        }
        reporter.report("making memory ready", 0, 0);
        let (layout, chain) = (self.layout().clone(), chain.clone());
        let make = move || {
            // Held as long as the work goes on, also when nobody waits for it any more: there is one
            // writer of a file.
            let _turn = turn;
            build(&layout, &chain, &target)
        };
        trouble::blocking("make flat memory", make).await
    }

    pub(crate) async fn verify_chain(
        &self,
        chain: &MemoryChain,
        device_digest: &str,
    ) -> Result<(), HostError> {
        let (layout, chain, expected) =
            (self.layout().clone(), chain.clone(), device_digest.to_owned());
        trouble::blocking("verify a commit", move || {
            for (number, link) in chain.links.iter().enumerate() {
                let directory = layout.commit(&link.commit);
                DeltaReader::open(&Layout::pages_file(&directory, &link.node), Some(&link.digest))
                    .and_then(|delta| delta.verify())
                    .map_err(|e| trouble::delta(&e))?;
                if number == 0 {
                    verify_state(&Layout::state_file(&directory, &link.node), &expected)?;
                }
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn verify_network_state(
        &self,
        commit: &CommitId,
        network: &CommitNetwork,
    ) -> Result<(), HostError> {
        let path = Layout::network_file(&self.layout().commit(commit));
        let expected = network.digest.clone();
        trouble::blocking("verify a commit", move || verify_state(&path, &expected)).await
    }

    pub(crate) async fn trim(&self, budget: ByteCount) -> Result<ByteCount, HostError> {
        let layout = self.layout().clone();
        trouble::blocking("trim the memory cache", move || trim(&layout, budget)).await
    }
}

/// Removes flat memory that another boot of this host wrote: it was never synced, so after a power
/// cut a file may be there without its contents. Nothing that maps it has outlived that boot.
pub(crate) fn forget_other_boots(layout: &Layout) -> Result<(), HostError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let boot = fs::read(path).map_err(|e| trouble::path("read", path, &e))?;
    if fs::read(layout.memory_boot()).is_ok_and(|written| written == boot) {
        return Ok(());
    }
    files::remove_tree(&layout.memory())?;
    files::write_whole(&layout.memory_boot(), &boot)
}

/// Removes what a process that has ended was writing: `NAME.PID.new`.
pub(crate) fn forget_unfinished(layout: &Layout) -> Result<(), HostError> {
    for directory in [layout.memory(), layout.layers()] {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let writer = name.to_str().and_then(|name| {
                name.strip_suffix(".new")?.rsplit_once('.')?.1.parse::<u32>().ok()
            });
            let lives = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
            if writer.is_some_and(|pid| pid == std::process::id() || !lives(pid)) {
                files::remove_file(&entry.path())?;
            }
        }
    }
    Ok(())
}

fn is_flat(path: &Path, size: ByteCount) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() == size.bytes())
}

/// Builds on the newest flat image that is there, or on nothing.
fn build(layout: &Layout, chain: &MemoryChain, target: &Path) -> Result<(), HostError> {
    files::make_directory(&layout.memory())?;
    let mut deltas = Vec::new();
    let mut below: Option<PathBuf> = None;
    for link in &chain.links {
        let flat = layout.flat_memory(&link.commit, &link.node);
        if is_flat(&flat, chain.size) {
            below = Some(flat);
            break;
        }
        let path = Layout::pages_file(&layout.commit(&link.commit), &link.node);
        let delta = DeltaReader::open(&path, Some(&link.digest)).map_err(|e| trouble::delta(&e))?;
        deltas.push(delta);
    }
    flat::flatten(target, chain.size.bytes(), &deltas, below.as_deref())
        .map_err(|e| trouble::delta(&e))
}

fn verify_state(path: &Path, expected: &str) -> Result<(), HostError> {
    let what = || path.display().to_string();
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(HostError::Missing { what: what() });
        }
        result => result.map_err(|e| trouble::path("read", path, &e))?,
    };
    if blake3::hash(&bytes).to_hex().as_str() == expected {
        return Ok(());
    }
    Err(HostError::Corrupt { what: what(), detail: "it does not have the recorded digest".into() })
}

/// Removes the flat images that were used longest ago and that no keeper runs on.
fn trim(layout: &Layout, budget: ByteCount) -> Result<ByteCount, HostError> {
    let in_use = in_use(layout)?;
    let mut images = Vec::new();
    let directory = layout.memory();
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_zero = entry.file_name().to_string_lossy().starts_with("zero-");
        if is_zero || path.extension().is_none_or(|kind| kind != "ram") {
            continue;
        }
        let used = entry.metadata().and_then(|found| found.modified());
        images.push((used.unwrap_or(SystemTime::UNIX_EPOCH), layer_bytes(&path), path));
    }
    images.sort();
    images.retain(|(_, _, path)| !in_use.contains(path));
    let mut total: u64 = images.iter().map(|(_, bytes, _)| bytes.0).sum();
    let mut freed = ByteCount(0);
    for (_, bytes, path) in images {
        if total <= budget.0 {
            break;
        }
        files::remove_file(&path)?;
        total -= bytes.0;
        freed.0 += bytes.0;
    }
    Ok(freed)
}

fn in_use(layout: &Layout) -> Result<BTreeSet<PathBuf>, HostError> {
    let mut paths = BTreeSet::new();
    for branch in files::ids_in::<BranchId>(&layout.branches(), "")? {
        if !keepers::is_alive(layout, &branch)? {
            continue;
        }
        for node in keepers::read_spec(layout, &branch)?.into_iter().flat_map(|spec| spec.nodes) {
            if let NodeStart::Restore { commit, saved_as } = node.start {
                paths.insert(layout.flat_memory(&commit, &saved_as));
            }
        }
    }
    Ok(paths)
}

/// Returns what there is room for now.
pub(crate) fn capacity(layout: &Layout) -> Result<Capacity, HostError> {
    let meminfo =
        fs::read_to_string("/proc/meminfo").map_err(|e| trouble::io("read /proc/meminfo", &e))?;
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u64>().ok());
        ByteCount(kib.unwrap_or(0) * 1024)
    };
    let disk = rustix::fs::statvfs(layout.home())
        .map_err(|e| trouble::path("look at", layout.home(), &e.into()))?;
    Ok(Capacity {
        memory_total: field("MemTotal"),
        memory_available: field("MemAvailable"),
        disk_total: ByteCount(disk.f_blocks * disk.f_frsize),
        disk_free: ByteCount(disk.f_bavail * disk.f_frsize),
        processors: std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
    })
}

/// Refuses a start that the host has no memory for. Memory is shared copy-on-write, so a restored
/// node is counted with the least it can need; one that boots, with a quarter of its RAM.
pub(crate) fn check_room(host: &LocalHost, spec: &BranchSpec) -> Result<(), HostError> {
    const RESTORED: u64 = 64 << 20;
    let needs = spec.nodes.iter().map(|node| match node.start {
        NodeStart::Restore { .. } => RESTORED,
        NodeStart::Boot => (node.shape.memory.0 / 4).max(RESTORED),
    });
    let needed = ByteCount(needs.sum::<u64>() + host.config.memory_reserve.0);
    let available = capacity(host.layout())?.memory_available;
    if available < needed { Err(HostError::MemoryFull { needed, available }) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_were_writing_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path(), home.path());
        fs::create_dir_all(layout.memory()).unwrap();
        fs::create_dir_all(layout.layers()).unwrap();
        let names = ["a.ram", "a.ram.1.new", "b.ram.4194305.new", "c.new"];
        let own = format!("d.ram.{}.new", std::process::id());
        for name in names.into_iter().chain([own.as_str()]) {
            fs::write(layout.memory().join(name), "x").unwrap();
        }
        fs::write(layout.layers().join("ly_1.qcow2.4194305.new"), "x").unwrap();
        forget_unfinished(&layout).unwrap();
        let left = |directory: PathBuf| -> BTreeSet<String> {
            let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        assert_eq!(
            left(layout.memory()),
            ["a.ram", "a.ram.1.new", "c.new"].map(String::from).into()
        );
        assert!(left(layout.layers()).is_empty());
    }
}
