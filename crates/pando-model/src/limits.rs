//! Limits that hold for the whole of pando: value, unit, reason.

use crate::units::ByteCount;

/// Most nodes in a cluster: more than two cores can boot in any reasonable time.
pub const MAX_NODES: usize = 64;
/// Most vCPUs of a node: what q35 offers without extra topology settings.
pub const MAX_VCPUS: u8 = 32;
/// Least RAM of a node: Debian's cloud kernel does not boot with less.
pub const MIN_MEMORY: ByteCount = ByteCount::from_mib(96);
/// Most RAM of a node.
pub const MAX_MEMORY: ByteCount = ByteCount::from_gib(256);
/// RAM is a multiple of this: one large page.
pub const MEMORY_STEP: ByteCount = ByteCount::from_mib(2);
/// Most disk of a node: qcow2 with our cluster size addresses far more.
pub const MAX_DISK: ByteCount = ByteCount::from_gib(4096);
/// Most disks of a node beside its root disk: as many PCI slots are kept for them.
pub const MAX_EXTRA_DISKS: usize = 8;
/// Longest name of an extra disk, in bytes: what a virtio disk has for its serial number.
pub const MAX_DISK_NAME: usize = 20;
/// Most branches made by one request.
pub const MAX_BRANCHES_PER_REQUEST: usize = 64;
/// Most branches that one fan-out runs in.
pub const MAX_FANOUT: usize = 256;
/// Longest disk chain before it is flattened: reads slow down by a quarter at 10 layers and open
/// time grows from 30 (measured).
pub const MAX_CHAIN_LAYERS: u32 = 24;
/// Longest message or tag description, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Longest argv of an exec, in bytes of all arguments together: the guest kernel's own ARG_MAX.
pub const MAX_ARGV_BYTES: usize = 128 * 1024;
/// Most arguments of an exec.
pub const MAX_ARGS: usize = 4096;
/// Most standard input given inside one request, in bytes; more is streamed.
pub const MAX_INLINE_STDIN_BYTES: usize = 1024 * 1024;
/// Default bound on each of stdout and stderr in an exec result, in bytes; head and tail are kept.
pub const DEFAULT_OUTPUT_BYTES: u64 = 64 * 1024;
/// Most output bytes that a request may ask for, each of stdout and stderr.
pub const MAX_OUTPUT_BYTES: u64 = 16 * 1024 * 1024;
/// Default time that a command may run, in seconds.
pub const DEFAULT_EXEC_TIMEOUT_S: u64 = 60;
/// Longest time that a command may run, in seconds: one day.
pub const MAX_EXEC_TIMEOUT_S: u64 = 86_400;
/// Most bytes of user data (cloud-init) of a node.
pub const MAX_USER_DATA_BYTES: usize = 256 * 1024;
/// Longest unix socket path, in bytes: `sun_path` is 108 with its terminating zero.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
