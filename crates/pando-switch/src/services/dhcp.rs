//! DHCPv4 (RFC 2131, options of RFC 2132). There are no pools: a port has its address, and whoever
//! asks on that port with that port's MAC address is told it. So the server remembers nothing, and a
//! lease has no end: a guest that slept in a commit for a year still has its address.

use std::net::Ipv4Addr;

use pando_model::network::{MacAddress, NAME_SERVER};

use super::packet::{self, Frame, PseudoHeader, UDP, take};
use super::{Answer, Asker};
use crate::limits::MAX_DHCP_DOMAIN_BYTES;

/// The server's port.
pub const SERVER_PORT: u16 = 67;
/// The client's port.
pub const CLIENT_PORT: u16 = 68;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BROADCAST_FLAG: u8 = 0x80;
const FOREVER: u32 = u32::MAX;

mod option {
    pub const PAD: u8 = 0;
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const NAME_SERVERS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const BROADCAST: u8 = 28;
    pub const REQUESTED: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const MESSAGE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const END: u8 = 255;
}

mod message {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
    pub const INFORM: u8 = 8;
}

/// Answers a client. `None` if it is no request, or not of this port's own interface.
pub fn answer(asker: &Asker<'_>, frame: &Frame<'_>, payload: &[u8]) -> Option<Answer> {
    let lease = asker.port.address?;
    let request = Request::parse(payload)?;
    if request.client != asker.port.mac || frame.from != asker.port.mac {
        return None;
    }
    let reply = match verdict(&request, lease, asker.segment.gateway) {
        Verdict::Say(kind) => kind,
        Verdict::Nothing => return Some(asker.no_use(frame)),
    };
    Some(Answer::Reply(write(asker, &request, lease, reply)))
}

enum Verdict {
    Say(u8),
    Nothing,
}

/// RFC 2131 section 4.3: what a request means follows from which of its addresses are set.
fn verdict(request: &Request, lease: Ipv4Addr, server: Ipv4Addr) -> Verdict {
    match request.message {
        message::DISCOVER => Verdict::Say(message::OFFER),
        message::INFORM => Verdict::Say(message::ACK),
        // It took the offer of another server.
        message::REQUEST if request.server.is_some_and(|chosen| chosen != server) => {
            Verdict::Nothing
        }
        message::REQUEST => {
            let wanted = request.requested.unwrap_or(request.address);
            Verdict::Say(if wanted == lease { message::ACK } else { message::NAK })
        }
        // A released or declined address is still the port's.
        _ => Verdict::Nothing,
    }
}

struct Request {
    id: [u8; 4],
    seconds: [u8; 2],
    flags: [u8; 2],
    /// The address that it has, if any.
    address: Ipv4Addr,
    client: MacAddress,
    message: u8,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

impl Request {
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        const BOOT_REQUEST_OVER_ETHERNET: [u8; 3] = [1, 1, 6];
        let [operation, hardware, size, _hops] = take(&mut bytes)?;
        let (id, seconds, flags) = (take(&mut bytes)?, take(&mut bytes)?, take(&mut bytes)?);
        let address = Ipv4Addr::from(take::<4>(&mut bytes)?);
        let [_your, _next, relay] = [take(&mut bytes)?, take(&mut bytes)?, take::<4>(&mut bytes)?];
        let client = MacAddress(take(&mut bytes)?);
        let _: [u8; 10] = take(&mut bytes)?;
        let (_server_name, _boot_file): ([u8; 64], [u8; 128]) =
            (take(&mut bytes)?, take(&mut bytes)?);
        let sound = [operation, hardware, size] == BOOT_REQUEST_OVER_ETHERNET
            && take(&mut bytes)? == COOKIE
            && relay == [0; 4];
        if !sound {
            return None;
        }
        let mut request =
            Self { id, seconds, flags, address, client, message: 0, requested: None, server: None };
        request.take_options(bytes)?;
        (request.message != 0).then_some(request)
    }

    fn take_options(&mut self, mut bytes: &[u8]) -> Option<()> {
        while let Some([code]) = take(&mut bytes) {
            match code {
                option::PAD => continue,
                option::END => return Some(()),
                _ => {}
            }
            let [length] = take(&mut bytes)?;
            let (value, rest) = bytes.split_at_checked(usize::from(length))?;
            bytes = rest;
            match (code, value) {
                (option::MESSAGE, [kind]) => self.message = *kind,
                (option::REQUESTED, [a, b, c, d]) => {
                    self.requested = Some(Ipv4Addr::new(*a, *b, *c, *d));
                }
                (option::SERVER, [a, b, c, d]) => {
                    self.server = Some(Ipv4Addr::new(*a, *b, *c, *d));
                }
                _ => {}
            }
        }
        Some(())
    }
}

fn write(asker: &Asker<'_>, request: &Request, lease: Ipv4Addr, kind: u8) -> Vec<u8> {
    let gives = kind != message::NAK && request.message != message::INFORM;
    let yours = if gives { lease } else { Ipv4Addr::UNSPECIFIED };
    let has = if kind == message::ACK { request.address } else { Ipv4Addr::UNSPECIFIED };
    let mut bytes = vec![2, 1, 6, 0];
    bytes.extend(request.id);
    bytes.extend(if kind == message::OFFER { [0; 2] } else { request.seconds });
    bytes.extend(request.flags);
    for address in [has, yours, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED] {
        bytes.extend(address.octets());
    }
    bytes.extend(request.client.0);
    bytes.resize(bytes.len() + 10 + 64 + 128, 0);
    bytes.extend(COOKIE);
    write_options(asker, request, kind, &mut bytes);

    let (to, destination) = addressee(request, kind, lease);
    let source = asker.segment.gateway;
    let pseudo = PseudoHeader::v4(source, destination, UDP, 8 + bytes.len());
    let datagram = packet::udp(SERVER_PORT, CLIENT_PORT, &bytes, &pseudo);
    packet::frame(to, packet::IPV4, &packet::ipv4(source, destination, UDP, &datagram))
}

/// RFC 2131 section 4.1: who has no address yet is reached by its MAC address, or, if it says so, by
/// broadcast; a refusal goes to all.
fn addressee(request: &Request, kind: u8, lease: Ipv4Addr) -> (MacAddress, Ipv4Addr) {
    let all = (MacAddress::BROADCAST, Ipv4Addr::BROADCAST);
    if kind == message::NAK {
        all
    } else if !request.address.is_unspecified() {
        (request.client, request.address)
    } else if request.flags[0] & BROADCAST_FLAG != 0 {
        all
    } else {
        (request.client, lease)
    }
}

fn write_options(asker: &Asker<'_>, request: &Request, kind: u8, bytes: &mut Vec<u8>) {
    let segment = asker.segment;
    let mut put = |code: u8, value: &[u8]| {
        if let Ok(length) = u8::try_from(value.len()) {
            bytes.extend([code, length]);
            bytes.extend(value);
        }
    };
    put(option::MESSAGE, &[kind]);
    put(option::SERVER, &segment.gateway.octets());
    if kind != message::NAK {
        if request.message != message::INFORM {
            put(option::LEASE_TIME, &FOREVER.to_be_bytes());
        }
        let mask = asker.mask();
        put(option::MASK, &mask.to_be_bytes());
        let broadcast = Ipv4Addr::from_bits(segment.subnet.to_bits() | !mask);
        put(option::BROADCAST, &broadcast.octets());
        // A node with two interfaces would else have two ways out, one of which leads nowhere.
        if asker.has_uplink() {
            put(option::ROUTER, &segment.gateway.octets());
            let servers = [segment.gateway.octets(), NAME_SERVER.octets()];
            put(option::NAME_SERVERS, servers.as_flattened());
        } else {
            put(option::NAME_SERVERS, &segment.gateway.octets());
        }
        put(option::HOST_NAME, asker.port.node.as_str().as_bytes());
        let domain = asker.domain.as_bytes();
        if (1..=MAX_DHCP_DOMAIN_BYTES).contains(&domain.len()) {
            put(option::DOMAIN, domain);
        }
    }
    bytes.push(option::END);
}
