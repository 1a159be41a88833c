//! Limits of the switch: value, unit, reason.

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
