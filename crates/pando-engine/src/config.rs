//! What can be tuned, with the defaults and their reasons.

use std::path::PathBuf;
use std::time::Duration;

use pando_model::cluster::SshDefaults;
use pando_model::{ByteCount, Layout};

/// The engine's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where keys are kept; everything else is the drivers'.
    pub layout: Layout,
    /// Where topologies that have a name are.
    pub topology_dir: PathBuf,
    /// How people log in where a topology does not say.
    pub ssh: SshDefaults,
    /// pando's version, for `system_status`.
    pub version: String,
    /// Where the engine is served on TCP, for `system_status`.
    pub url: Option<String>,
    /// Disk space that is never used: a full disk stops running guests.
    pub disk_reserve: ByteCount,
    /// Memory that is never used: the host's own processes need some.
    pub memory_reserve: ByteCount,
    /// What an idle branch takes of the host's memory, for the check before a start (measured:
    /// 38–48 MB proportional; guests that touch their memory take more).
    pub branch_memory: ByteCount,
    /// Most bytes of flat memory that nothing runs on.
    pub memory_cache: ByteCount,
    /// Most machines of parked copies in the whole home; each takes about `branch_memory`.
    pub max_parked: usize,
    /// How long the making of a new parked copy waits after one was taken, so that it does not
    /// compete with the first commands of whoever took it.
    pub replenish_after: Duration,
    /// Branches that are started at the same time by one call: the cores.
    pub workers: usize,
    /// How long a call waits for another operation on the same object before it says `busy`.
    pub lock_wait: Duration,
    /// How long a restored branch may take to answer.
    pub restore_timeout: Duration,
    /// How long a commit may take in all, saving included.
    pub cut_timeout: Duration,
    /// How long the first boot of an image may take until it is complete.
    pub first_boot_timeout: Duration,
    /// How long an image may take to build or import.
    pub image_timeout: Duration,
    /// How long the undoing of one step may take before the operation is stuck.
    pub undo_timeout: Duration,
    /// How often records are compared with the world, so that a keeper's death is noticed although
    /// nobody calls; never if absent.
    pub reconcile_every: Option<Duration>,
    /// How long ended operations, and with them their idempotency keys, are kept.
    pub keep_operations: Duration,
    /// Whether disk flushes of guests reach the host's disk.
    pub durable_disk: bool,
}

impl Config {
    /// Returns the defaults for a home.
    pub fn new(layout: Layout, version: impl Into<String>) -> Self {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            topology_dir: layout.topologies(),
            layout,
            ssh: SshDefaults::default(),
            version: version.into(),
            url: None,
            disk_reserve: ByteCount::from_gib(1),
            memory_reserve: ByteCount::from_mib(256),
            branch_memory: ByteCount::from_mib(64),
            memory_cache: ByteCount::from_gib(8),
            max_parked: 16,
            replenish_after: Duration::from_secs(1),
            workers,
            lock_wait: Duration::from_secs(30),
            restore_timeout: Duration::from_secs(60),
            cut_timeout: Duration::from_secs(120),
            first_boot_timeout: Duration::from_secs(300),
            image_timeout: Duration::from_secs(3600),
            undo_timeout: Duration::from_secs(60),
            reconcile_every: Some(Duration::from_secs(5)),
            keep_operations: Duration::from_secs(pando_api::limits::OPERATIONS_KEPT_S),
            durable_disk: false,
        }
    }
}
