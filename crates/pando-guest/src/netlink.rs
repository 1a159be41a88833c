//! The kernel's network interfaces, over a routing netlink socket (rtnetlink(7)): just enough to
//! bring a link up, give it a MAC address, an address and a default route, take them away, and list addresses.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_ADDRESS: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Bytes of a message header.
const HEADER: usize = 16;
/// Bytes of an address message before its attributes.
const ADDRESS_HEADER: usize = 8;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// MAC address, lower case.
    pub mac: String,
    /// Whether it is up.
    pub up: bool,
}

/// Returns all interfaces, in the order of their numbers.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/class/net")? {
        let directory = entry?.path();
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
        let flags = read("flags");
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(0);
        let Some(name) = directory.file_name().and_then(|name| name.to_str()) else { continue };
        let Ok(index) = read("ifindex").trim().parse() else { continue };
        let mac = read("address").trim().to_ascii_lowercase();
        found.push(Interface { name: name.to_owned(), index, mac, up: flags & IFF_UP != 0 });
    }
    found.sort_by_key(|interface| interface.index);
    Ok(found)
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixed {
    /// The address.
    pub address: IpAddr,
    /// The prefix's length, in bits.
    pub bits: u8,
}

impl FromStr for Prefixed {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{text}` is not an address with a prefix length"),
            )
        };
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = bits.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

/// A socket to the kernel's routing tables.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        // Routing is netlink's protocol 0, which is what `None` means.
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket })
    }

    /// Brings an interface up or takes it down.
    pub fn set_up(&self, index: u32, up: Up) -> io::Result<()> {
        let mut body = vec![0; 4];
        body.extend_from_slice(&index.to_ne_bytes());
        let flags = if up == Up::Yes { IFF_UP } else { 0 };
        body.extend_from_slice(&flags.to_ne_bytes());
        body.extend_from_slice(&IFF_UP.to_ne_bytes());
        self.change(RTM_NEWLINK, 0, &body)
    }

    /// Gives an interface, which is down, a MAC address.
    pub fn set_mac(&self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        let mut body = vec![0; 4];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&[0; 8]);
        attribute(&mut body, IFLA_ADDRESS, &mac);
        self.change(RTM_NEWLINK, 0, &body)
    }

    /// Gives an interface an address; it may have it already.
    pub fn add_address(&self, index: u32, address: Prefixed) -> io::Result<()> {
        let body = address_body(index, address);
        self.change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    /// Takes all addresses from an interface.
    pub fn flush_addresses(&self, index: u32) -> io::Result<()> {
        for (of, address) in self.addresses()? {
            if of == index {
                self.change(RTM_DELADDR, 0, &address_body(index, address))?;
            }
        }
        Ok(())
    }

    /// Makes `gateway` the default route; it may be already.
    pub fn set_default_route(&self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let mut body = vec![family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST];
        body.extend_from_slice(&0u32.to_ne_bytes());
        attribute(&mut body, RTA_GATEWAY, &octets(gateway));
        attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        self.change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    /// Returns every address with the number of its interface.
    pub fn addresses(&self) -> io::Result<Vec<(u32, Prefixed)>> {
        self.send(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_HEADER])?;
        let mut found = Vec::new();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let (count, _) = recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            for (kind, body) in Messages(buffer.get(..count).unwrap_or_default()) {
                match kind {
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => status(body)?,
                    RTM_NEWADDR => found.extend(parse_address(body)),
                    _ => {}
                }
            }
        }
    }

    /// Sends a change and waits for the kernel's verdict.
    fn change(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, flags | NLM_F_ACK, body)?;
        let mut buffer = vec![0; 8 * 1024];
        loop {
            let (count, _) = recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            for (kind, body) in Messages(buffer.get(..count).unwrap_or_default()) {
                if kind == NLMSG_ERROR {
                    return status(body);
                }
            }
        }
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        let length = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }
}

/// Whether an interface is to be up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Up {
    /// Up.
    Yes,
    /// Down.
    No,
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address_body(index: u32, address: Prefixed) -> Vec<u8> {
    // Nobody else has it, and it is to be usable at once.
    let flags = if address.address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut body = vec![family(address.address), address.bits, flags, 0];
    body.extend_from_slice(&index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &octets(address.address));
    attribute(&mut body, IFA_ADDRESS, &octets(address.address));
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    #[expect(clippy::cast_possible_truncation, reason = "values are at most 16 bytes")]
    body.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The messages of a datagram: kind and body.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*self.0.get(4..)?.first_chunk()?);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

/// Returns the error that an NLMSG_ERROR carries; none is an acknowledgement.
fn status(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn parse_address(body: &[u8]) -> Option<(u32, Prefixed)> {
    let bits = *body.get(1)?;
    let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let mut rest = body.get(ADDRESS_HEADER..)?;
    let mut found = None;
    while let Some(length) =
        rest.first_chunk::<2>().map(|bytes| usize::from(u16::from_ne_bytes(*bytes)))
    {
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        let address = match value.len() {
            4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            _ => None,
        };
        // The local address is the interface's own; the other is a point-to-point peer's, or the
        // only one there is.
        match (kind, address) {
            (IFA_LOCAL, Some(address)) => found = Some(address),
            (IFA_ADDRESS, Some(address)) => found = found.or(Some(address)),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found.map(|address| (index, Prefixed { address, bits }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_with_their_prefix() {
        let parsed: Prefixed = "10.0.2.15/24".parse().unwrap();
        assert_eq!((parsed.address.to_string().as_str(), parsed.bits), ("10.0.2.15", 24));
        assert!("fd00::1/64".parse::<Prefixed>().is_ok());
        for wrong in ["10.0.2.15", "10.0.2.15/33", "x/8", "fd00::/129", "", "/"] {
            assert!(wrong.parse::<Prefixed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn this_machines_loopback_is_listed() {
        let loopback = interfaces().unwrap().into_iter().find(|one| one.name == "lo").unwrap();
        let addresses = Netlink::open().unwrap().addresses().unwrap();
        let expected = Prefixed { address: [127, 0, 0, 1].into(), bits: 8 };
        assert!(addresses.contains(&(loopback.index, expected)), "{addresses:?}");
    }

    #[test]
    fn an_address_body_is_read_as_it_was_written() {
        for text in ["10.0.2.15/24", "fd00::1/64"] {
            let address = text.parse().unwrap();
            assert_eq!(parse_address(&address_body(7, address)), Some((7, address)));
        }
        for cut in 0..20 {
            let body = address_body(7, "10.0.2.15/24".parse().unwrap());
            let _ = parse_address(&body[..cut]);
        }
    }
}
