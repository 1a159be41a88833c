//! The addresses of a node's network while it has one to itself: those of QEMU's user network, for
//! every branch the same, whether its uplink is there or not.

use std::net::Ipv4Addr;

/// The node's first interface.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Bits of the network's prefix.
pub const PREFIX_BITS: u8 = 24;
/// The default route. With an uplink it forwards and does nothing else.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// With an uplink: passes questions on to the host's own name server.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
