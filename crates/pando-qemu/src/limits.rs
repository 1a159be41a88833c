//! Limits of the hypervisor driver: value, unit, reason.

use std::time::Duration;

/// Longest QMP message, in bytes. The largest reply we ask for describes a disk chain, at about
/// 2 KiB a layer; a message past this is not QEMU.
pub const MAX_QMP_MESSAGE_BYTES: usize = 4 << 20;
/// Most QMP events kept while nobody takes them. A guest can cause events; the oldest go first.
pub const MAX_QMP_EVENTS: usize = 512;
/// Most QMP commands without a reply.
pub const MAX_QMP_PENDING: usize = 64;
/// Bytes asked of the socket at once.
pub const QMP_READ_BYTES: usize = 16 << 10;
/// Most network interfaces of a machine: the PCI slots set aside for them.
pub const MAX_NICS: usize = 8;
/// How much of the end of a machine's log is quoted in an error, in bytes.
pub const LOG_TAIL_BYTES: u64 = 2 << 10;
/// How long a process that closed its QMP socket may take to be gone, and a killed one to be
/// reaped. Unmapping gigabytes of RAM takes a while on a busy host.
pub const END_GRACE: Duration = Duration::from_secs(10);
/// Time that a helper such as `--version` may take.
pub const HELPER_DEADLINE: Duration = Duration::from_secs(20);
/// Longest output of a helper that is read, in bytes.
pub const MAX_HELPER_OUTPUT_BYTES: u64 = 64 << 10;
/// Longest backing file name in a qcow2 header, in bytes; the format's own limit.
pub const MAX_BACKING_NAME_BYTES: usize = 1023;
/// Most bytes of a qcow2 file that an inspection reads: the header, its extensions and the backing
/// file's name are inside the first cluster, and no cluster is larger.
pub const MAX_QCOW2_HEADER_BYTES: usize = 2 << 20;
/// Most bytes of a probe guest's console that are kept.
pub const MAX_CONSOLE_BYTES: usize = 1 << 20;
/// Longest frame between QEMU and an uplink, in bytes: an Ethernet header with a VLAN tag and the
/// longest IPv4 packet. A guest has no way to send more.
pub const MAX_FRAME_BYTES: usize = 18 + 65_535;
/// Bytes that a relay of an uplink reads at once; some forty frames.
pub const RELAY_BYTES: usize = 64 << 10;
/// Stack of a relay of an uplink, in bytes: its buffers are on the heap.
pub const RELAY_STACK_BYTES: usize = 64 << 10;
