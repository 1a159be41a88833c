//! Limits of the switch: value, unit, reason.

use std::time::Duration;

/// Most bytes of a packet that an ICMP error quotes: with its headers it has at most 576 bytes
/// (RFC 1812 section 4.3.2.3).
pub const MAX_ICMP_QUOTE_BYTES: usize = 576 - 20 - 8;
/// Most bytes of a packet that an ICMPv6 error quotes: with its headers it fits the least MTU of IPv6
/// (RFC 4443 section 2.4).
pub const MAX_ICMPV6_QUOTE_BYTES: usize = 1280 - 40 - 8;
/// Longest domain that DHCP tells, in bytes: the reply fits the 576 bytes that every client takes
/// (RFC 2131 section 2).
pub const MAX_DHCP_DOMAIN_BYTES: usize = 128;
/// Most addresses in an answer about a name: with the longest name and of IPv6, they fit the 512
/// bytes that every resolver takes (RFC 1035 section 4.2.1). A machine has at most 8 interfaces.
pub const MAX_DNS_ANSWERS: usize = 8;
/// Longest name in a question, in bytes as it is sent (RFC 1035 section 2.3.4).
pub const MAX_DNS_NAME_BYTES: usize = 255;

/// Shortest frame, in bytes: an Ethernet header. Virtual interfaces do not pad to 60.
pub const MIN_FRAME_BYTES: usize = 14;
/// Longest frame, in bytes: a header with a VLAN tag and 1,500 bytes. A longer one would not go
/// through a socket in one piece, and a cut could split it.
pub const MAX_FRAME_BYTES: usize = 18 + 1500;
/// Most bytes that a frame's length may tell: the longest that QEMU can be made to send. One that
/// tells more is not a frame's, and what follows it cannot be understood.
pub const MAX_TOLD_BYTES: usize = 18 + 65_535;
/// Most ports of a switch: far more machines than a host carries.
pub const MAX_PORTS: usize = 1024;
/// Most frames in a port's output queue: four seconds of what no test may lose (2,000 a second),
/// while a machine is late.
pub const QUEUE_FRAMES: usize = 8192;
/// Most bytes in a port's output queue: more than one burst of TCP at its widest window.
pub const QUEUE_BYTES: usize = 4 << 20;
/// Bytes of a queue that are written and not yet given up, before the rest is moved to the front.
pub const QUEUE_SLACK_BYTES: usize = 256 << 10;
/// Most bytes that one link's delays hold: a second of 128 Mbit/s.
pub const LINK_DELAY_BYTES: usize = 16 << 20;
/// What a frame in a delay takes beside its bytes: its entry and its allocation.
pub const DELAYED_OVERHEAD_BYTES: usize = 128;
/// Most bytes that one link's delays hold after a restore: of the smallest frames, what a version held
/// that did not count what they take besides.
pub const RESTORED_DELAY_BYTES: usize = 10 * LINK_DELAY_BYTES;
/// Most bytes that all delays hold.
pub const DELAY_BYTES: usize = 256 << 20;
/// Longest delay of a frame: beyond it, every protocol has given up.
pub const MAX_DELAY: Duration = Duration::from_secs(600);
/// How long a rate limit's queue may grow, in time to send it.
pub const RATE_QUEUE: Duration = Duration::from_millis(200);
/// How long it may grow in any case, in bytes: a burst of a slow link.
pub const RATE_QUEUE_BYTES: u64 = 32 * 1514;
/// Most bytes that come in while the switch is held. What is beyond stays in the sockets, and the
/// cut is given up: a machine that cannot send is not quiet.
pub const HELD_BYTES: usize = 64 << 20;
/// Most stations that a segment learns; the addresses of its ports are known besides.
pub const SEGMENT_STATIONS: usize = 8192;
/// Most stations that are learned behind one port, so that a machine that invents addresses leaves
/// room for the others.
pub const PORT_STATIONS: usize = 1024;
/// How long a station is known after it was last heard (IEEE 802.1D).
pub const STATION_AGE: Duration = Duration::from_secs(300);
/// How often a station's age is renewed at most, and a full table is looked through for those too
/// old: not for every frame.
pub const STATION_RENEWAL: Duration = Duration::from_secs(1);
/// Most faults at a time.
pub const MAX_FAULTS: usize = 4096;
/// Most links that faults name, all together: three groups of three hundred nodes apart.
pub const MAX_FAULT_LINKS: usize = 1 << 20;
/// Most copies that a link's faults make of one frame, of which each could double it.
pub const MAX_COPIES: u64 = 8;
/// Bytes read from a socket at once; some eighty long frames or fifteen hundred short ones.
pub const READ_BYTES: usize = 128 << 10;
/// Most sockets that are looked at in one go.
pub const EVENTS: usize = 64;
/// Longest state file, in bytes: everything above at its fullest.
pub const MAX_STATE_BYTES: u64 = 1 << 30;
/// Largest count, clock or number in a state: half of it is beyond any branch's life, and sums of
/// two do not overflow.
pub const MAX_COUNT: u64 = 1 << 62;
/// How long a command to the thread may take beyond the deadline that it has itself.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(5);
/// Commands under way: each has one asker, who waits.
pub const COMMANDS: usize = 4;
/// How long after it was looked at last a socket may have been read by its machine: a wait for that
/// has no event.
pub const DRAIN_INTERVAL: Duration = Duration::from_micros(50);
/// How often faults that expire are looked at, because the wall clock may be set.
pub const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes of a capture that are given to its file at once.
pub const CAPTURE_CHUNK_BYTES: usize = 64 << 10;
/// Longest time for which a frame is kept from a capture's file, for more to come: whoever reads it
/// meanwhile has just sent something.
pub const CAPTURE_AGE: Duration = Duration::from_millis(100);
/// Most bytes of a capture that wait for its file.
pub const CAPTURE_PENDING_BYTES: usize = 8 << 20;
/// How long the rest of a capture may take to be written.
pub const CAPTURE_END: Duration = Duration::from_secs(10);
/// Most bytes of each frame that a capture takes.
pub const CAPTURE_SNAP_BYTES: u32 = 65_535;
