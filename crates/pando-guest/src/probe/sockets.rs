//! A probe's sockets: those that its targets need. None of them ever blocks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use pando_model::network::{ProbeMethod, ProbeTarget};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom,
    sendto, sockopt,
};

use super::messages::{self, Heard, Mark};
use crate::limits::{MAX_PROBE_BURST, PROBE_RECEIVE_BYTES};
use crate::netlink::{Interface, Netlink, Prefixed, interfaces};
use crate::sys;

const ETHERTYPE_ARP: u16 = 0x0806;
/// Hop limit of neighbour discovery (RFC 4861 section 4.3).
const NEIGHBOUR_HOPS: u32 = 255;

/// The sockets, and where neighbours are.
pub struct Sockets {
    icmp: Option<OwnedFd>,
    icmp6: Option<OwnedFd>,
    arp: Option<OwnedFd>,
    interfaces: Vec<Interface>,
    addresses: Vec<(u32, Prefixed)>,
}

impl Sockets {
    pub fn open(targets: &[ProbeTarget]) -> io::Result<Self> {
        let any = |method: ProbeMethod, v4: bool| {
            targets.iter().any(|one| one.method == method && one.address.is_ipv4() == v4)
        };
        let (echo, arp) = (ProbeMethod::Icmp, ProbeMethod::Arp);
        let raw = |family, protocol| socket(family, SocketType::RAW, Some(protocol));
        let icmp = any(echo, true).then(|| raw(AddressFamily::INET, ipproto::ICMP)).transpose()?;
        let icmp6 = (any(echo, false) || any(arp, false))
            .then(|| raw(AddressFamily::INET6, ipproto::ICMPV6))
            .transpose()?;
        if let Some(socket) = &icmp6 {
            sockopt::set_ipv6_multicast_hops(socket, NEIGHBOUR_HOPS)?;
        }
        let arp4 = any(arp, true).then(|| {
            let kind = NonZeroU32::new(u32::from(ETHERTYPE_ARP.to_be())).map(Protocol::from_raw);
            socket(AddressFamily::PACKET, SocketType::DGRAM, kind)
        });
        let needs_neighbours = any(arp, true) || any(arp, false);
        let (interfaces, addresses) = if needs_neighbours {
            (interfaces()?, Netlink::open()?.addresses()?)
        } else {
            (Vec::new(), Vec::new())
        };
        Ok(Self { icmp, icmp6, arp: arp4.transpose()?, interfaces, addresses })
    }

    /// Asks a target.
    pub fn send(&mut self, target: &ProbeTarget, mark: &Mark, sequence: u16) -> io::Result<()> {
        let none = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let flags = SendFlags::empty();
        match (target.method, target.address) {
            (ProbeMethod::Icmp, IpAddr::V4(to)) => {
                let socket = self.icmp.as_ref().ok_or_else(none)?;
                sendto(socket, &messages::echo(mark, sequence), flags, &SocketAddrV4::new(to, 0))?;
            }
            (ProbeMethod::Icmp, IpAddr::V6(to)) => {
                let socket = self.icmp6.as_ref().ok_or_else(none)?;
                let to = SocketAddrV6::new(to, 0, 0, 0);
                sendto(socket, &messages::echo6(mark, sequence), flags, &to)?;
            }
            (ProbeMethod::Arp, IpAddr::V4(to)) => {
                let socket = self.arp.as_ref().ok_or_else(none)?;
                let (index, mac, source) = self.beside(target.address).ok_or_else(none)?;
                let IpAddr::V4(source) = source else { return Err(none()) };
                let request = messages::arp(mac, source, to);
                sys::send_to_all(socket.as_fd(), index, ETHERTYPE_ARP, &request)?;
            }
            (ProbeMethod::Arp, IpAddr::V6(to)) => {
                let socket = self.icmp6.as_ref().ok_or_else(none)?;
                let (index, mac, _) = self.beside(target.address).ok_or_else(none)?;
                let group = SocketAddrV6::new(messages::solicited_node(to), 0, 0, index);
                sendto(socket, &messages::solicitation(to, mac), flags, &group)?;
            }
        }
        Ok(())
    }

    /// Returns the interface beside which an address is: its number, MAC and own address there.
    fn beside(&self, address: IpAddr) -> Option<(u32, [u8; 6], IpAddr)> {
        let (index, own) = self.addresses.iter().find(|(_, own)| is_beside(own, address))?;
        let interface = self.interfaces.iter().find(|interface| interface.index == *index)?;
        let mut mac = [0; 6];
        let mut parts = interface.mac.split(':');
        for byte in &mut mac {
            *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
        }
        Some((*index, mac, own.address))
    }

    /// Waits until `until` for something to be heard; returns all that was.
    pub fn wait(&self, until: Instant) -> io::Result<Vec<(Heard, Instant)>> {
        let sockets = [&self.icmp, &self.icmp6, &self.arp];
        let mut fds: Vec<PollFd<'_>> = sockets
            .into_iter()
            .flatten()
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(50);
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let at = Instant::now();
        let mut heard = Vec::new();
        let mut take = |one: Option<Heard>| heard.extend(one.map(|one| (one, at)));
        if let Some(socket) = &self.icmp {
            drain(socket, |bytes, _| take(messages::heard4(bytes)))?;
        }
        if let Some(socket) = &self.icmp6 {
            drain(socket, |bytes, from| take(messages::heard6(bytes, from)))?;
        }
        if let Some(socket) = &self.arp {
            drain(socket, |bytes, _| take(messages::heard_arp(bytes)))?;
        }
        Ok(heard)
    }
}

fn socket(
    family: AddressFamily,
    kind: SocketType,
    protocol: Option<Protocol>,
) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(family, kind, flags, protocol)?)
}

fn is_beside(own: &Prefixed, address: IpAddr) -> bool {
    let differ = match (own.address, address) {
        (IpAddr::V4(own), IpAddr::V4(address)) => {
            u128::from(bits4(own) ^ bits4(address)) << (128 - 32)
        }
        (IpAddr::V6(own), IpAddr::V6(address)) => own.to_bits() ^ address.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= u32::from(own.bits)
}

fn bits4(address: Ipv4Addr) -> u32 {
    address.to_bits()
}

/// Reads what is there, as far as a burst goes: others may flood the socket.
fn drain(socket: &OwnedFd, mut take: impl FnMut(&[u8], Ipv6Addr)) -> io::Result<()> {
    let mut buffer = [0; PROBE_RECEIVE_BYTES];
    for _ in 0..MAX_PROBE_BURST {
        match recvfrom(socket, &mut buffer, RecvFlags::TRUNC) {
            Ok((_, length, from)) => {
                let from = from
                    .and_then(|from| SocketAddrV6::try_from(from).ok())
                    .map_or(Ipv6Addr::UNSPECIFIED, |from| *from.ip());
                take(buffer.get(..length.min(PROBE_RECEIVE_BYTES)).unwrap_or_default(), from);
            }
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            // An error that the kernel was told of for an earlier question: that one has no answer.
            Err(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::CONNREFUSED | Errno::NETDOWN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_beside_the_one_whose_prefix_it_has() {
        for (own, address, beside) in [
            ("10.0.2.15/24", "10.0.2.1", true),
            ("10.0.2.15/24", "10.0.3.1", false),
            ("10.0.2.15/32", "10.0.2.15", true),
            ("10.0.2.15/32", "10.0.2.14", false),
            ("10.0.2.15/0", "192.0.2.1", true),
            ("10.0.2.15/24", "fd00::1", false),
            ("fd00::15/64", "fd00::1", true),
            ("fd00::15/64", "fd00:0:0:1::1", false),
        ] {
            let own: Prefixed = own.parse().unwrap();
            assert_eq!(is_beside(&own, address.parse().unwrap()), beside, "{address}");
        }
    }
}
