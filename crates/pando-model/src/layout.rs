//! Where files are. The one place that knows the directory structure of a home; pure path
//! arithmetic, so that the daemon and the keepers agree without talking.
//!
//! ```text
//! HOME/config.toml  pando.db  daemon.lock  daemon.log  http.token  memory.boot
//!      images/IMAGE/      image.json disk.qcow2 kernel initrd vars.qcow2
//!      layers/LAYER.qcow2
//!      commits/COMMIT/    commit.json  NODE.pages  NODE.state
//!      captures/          ID.NODE.json (cache)
//!      memory/            COMMIT.NODE.ram (cache)   zero-512M.ram
//!      branches/BRANCH/   spec.json keeper.lock keeper.log NODE.console spool/COMMIT/
//!      keys/CLUSTER  keys/CLUSTER.pub
//!      topologies/NAME.yaml (the user's)
//!      tmp/
//! RUNTIME/daemon.sock  RUNTIME/b/BRANCH-SUFFIX.sock
//! ```

use std::path::{Path, PathBuf};

use crate::id::{BranchId, ClusterId, CommitId, ImageId, LayerId};
use crate::name::Name;
use crate::units::ByteCount;

/// The paths of one home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    home: PathBuf,
    runtime: PathBuf,
}

impl Layout {
    /// Returns the layout of `home`, with its sockets in `runtime` (a directory of this home only).
    pub fn new(home: impl Into<PathBuf>, runtime: impl Into<PathBuf>) -> Self {
        Self { home: home.into(), runtime: runtime.into() }
    }

    /// The home itself.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory of sockets.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.home.join("config.toml")
    }

    /// Topologies that have a name, unless settings say another directory.
    pub fn topologies(&self) -> PathBuf {
        self.home.join("topologies")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.home.join("pando.db")
    }

    /// Held by the daemon of this home.
    pub fn daemon_lock(&self) -> PathBuf {
        self.home.join("daemon.lock")
    }

    /// The daemon's log.
    pub fn daemon_log(&self) -> PathBuf {
        self.home.join("daemon.log")
    }

    /// The token that opens the daemon's port; only its user may read it.
    pub fn http_token(&self) -> PathBuf {
        self.home.join("http.token")
    }

    /// The daemon's socket.
    pub fn daemon_socket(&self) -> PathBuf {
        self.runtime.join("daemon.sock")
    }

    /// Directory of scratch files; emptied when the daemon starts.
    pub fn tmp(&self) -> PathBuf {
        self.home.join("tmp")
    }

    /// Directory of all images.
    pub fn images(&self) -> PathBuf {
        self.home.join("images")
    }

    /// Directory of one image.
    pub fn image(&self, image: &ImageId) -> PathBuf {
        self.images().join(image.as_str())
    }

    /// Directory of all disk layers.
    pub fn layers(&self) -> PathBuf {
        self.home.join("layers")
    }

    /// File of one disk layer.
    pub fn layer(&self, layer: &LayerId) -> PathBuf {
        self.layers().join(format!("{layer}.qcow2"))
    }

    /// Directory of all commits.
    pub fn commits(&self) -> PathBuf {
        self.home.join("commits")
    }

    /// Directory of one commit.
    pub fn commit(&self, commit: &CommitId) -> PathBuf {
        self.commits().join(commit.as_str())
    }

    /// Directory of kept captures: a cache and evidence, never needed.
    pub fn captures(&self) -> PathBuf {
        self.home.join("captures")
    }

    /// A kept capture of one node, of the commit or capture with this id.
    pub fn capture(&self, id: &str, node: &Name) -> PathBuf {
        self.captures().join(format!("{id}.{node}.json"))
    }

    /// Directory of flat memory images: a cache, rebuilt from deltas.
    pub fn memory(&self) -> PathBuf {
        self.home.join("memory")
    }

    /// The boot of this host in which the flat memory images were written.
    pub fn memory_boot(&self) -> PathBuf {
        self.home.join("memory.boot")
    }

    /// Flat memory of one node of one commit.
    pub fn flat_memory(&self, commit: &CommitId, node: &Name) -> PathBuf {
        self.memory().join(format!("{commit}.{node}.ram"))
    }

    /// Sparse all-zero memory, what a cold boot maps.
    pub fn zero_memory(&self, size: ByteCount) -> PathBuf {
        self.memory().join(format!("zero-{}M.ram", size.mib()))
    }

    /// Directory of all branches.
    pub fn branches(&self) -> PathBuf {
        self.home.join("branches")
    }

    /// Directory of one branch.
    pub fn branch(&self, branch: &BranchId) -> PathBuf {
        self.branches().join(branch.as_str())
    }

    /// What the keeper of a branch was asked to run.
    pub fn branch_spec(&self, branch: &BranchId) -> PathBuf {
        self.branch(branch).join("spec.json")
    }

    /// How machines of a branch ended, for when its keeper has ended too.
    pub fn branch_ends(&self, branch: &BranchId) -> PathBuf {
        self.branch(branch).join("ended.json")
    }

    /// Locked by the keeper of a branch for as long as it lives.
    pub fn keeper_lock(&self, branch: &BranchId) -> PathBuf {
        self.branch(branch).join("keeper.lock")
    }

    /// The keeper's log.
    pub fn keeper_log(&self, branch: &BranchId) -> PathBuf {
        self.branch(branch).join("keeper.log")
    }

    /// The serial console of a node on a branch.
    pub fn console(&self, branch: &BranchId, node: &Name) -> PathBuf {
        self.branch(branch).join(format!("{node}.console"))
    }

    /// Where a keeper leaves the files of a cut until the daemon adopts or discards them.
    pub fn spool(&self, branch: &BranchId, commit: &CommitId) -> PathBuf {
        self.branch(branch).join("spool").join(commit.as_str())
    }

    /// The directory of the keepers' sockets.
    pub fn keeper_sockets(&self) -> PathBuf {
        self.runtime.join("b")
    }

    /// The socket of a branch's keeper.
    pub fn keeper_socket(&self, branch: &BranchId) -> PathBuf {
        self.keeper_sockets().join(format!("{}.sock", branch.suffix()))
    }

    /// Private SSH key of a cluster; the public one has `.pub` after it.
    pub fn ssh_key(&self, cluster: &ClusterId) -> PathBuf {
        self.home.join("keys").join(cluster.as_str())
    }

    /// File of a node's memory delta inside a commit or spool directory.
    pub fn pages_file(directory: &Path, node: &Name) -> PathBuf {
        directory.join(format!("{node}.pages"))
    }

    /// File of a node's device state inside a commit or spool directory.
    pub fn state_file(directory: &Path, node: &Name) -> PathBuf {
        directory.join(format!("{node}.state"))
    }

    /// File of the network's state inside a commit or spool directory.
    pub fn network_file(directory: &Path) -> PathBuf {
        directory.join("network.state")
    }

    /// What a branch's switch last copied of its frames (pcap).
    pub fn frames_file(&self, branch: &BranchId) -> PathBuf {
        self.branch(branch).join("frames.pcap")
    }

    /// File of an image's part ("disk.qcow2", "kernel", "initrd", "vars.qcow2").
    pub fn image_part(&self, image: &ImageId, part: &str) -> PathBuf {
        self.image(image).join(part)
    }
}
