//! DNS (RFC 1035) for the nodes' names: `db` and `db.DOMAIN`, both ways; a node's host name too. Nothing is looked up
//! elsewhere: where there is a way to the outside, the client is told to ask its next server.
//!
//! What the EDNS record of a question offers (RFC 6891) is not needed, and the answer has none, which
//! tells the client so. Over TCP there are no names: every answer fits a datagram, and who tries is
//! refused the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pando_model::Name;
use pando_model::network::Port;

use super::Asker;
use super::packet::{take, take_u16};
use crate::limits::{MAX_DNS_ANSWERS, MAX_DNS_NAME_BYTES};

/// The server's port.
pub const PORT: u16 = 53;

/// How long an answer may be kept, in seconds. Addresses do not change while a node is there.
const TTL: u32 = 30;

const HEADER_BYTES: u16 = 12;
/// A name that is the question's, as a pointer to it.
const POINTER: u16 = 0xc000 | HEADER_BYTES;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;

/// How an answer is meant (RFC 1035 section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Fine = 0,
    FormatError = 1,
    NoSuchName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// What is asked.
struct Question {
    /// Its bytes up to the type and class, to be repeated.
    wire: Vec<u8>,
    /// Its labels with dots between, in lower case.
    name: String,
    kind: u16,
    class: u16,
}

/// Answers a message. `None` if it is not a question at all: an answer to it could be answered again.
pub fn answer(asker: &Asker<'_>, message: &[u8]) -> Option<Vec<u8>> {
    const RESPONSE: u8 = 0x80;
    const OPCODE: u8 = 0x78;
    const RECURSION_DESIRED: u8 = 0x01;
    let mut rest = message;
    let id: [u8; 2] = take(&mut rest)?;
    let [flags, _] = take(&mut rest)?;
    let counts = [take_u16(&mut rest)?, take_u16(&mut rest)?, take_u16(&mut rest)?];
    let _additional = take_u16(&mut rest)?;
    if flags & RESPONSE != 0 {
        return None;
    }
    let (question, found) = if flags & OPCODE != 0 {
        (None, Found::nothing(Code::NotImplemented))
    } else {
        match Question::parse(rest).filter(|_| counts == [1, 0, 0]) {
            Some(question) => {
                let found = look_up(asker, &question);
                (Some(question), found)
            }
            None => (None, Found::nothing(Code::FormatError)),
        }
    };
    let kept = flags & (OPCODE | RECURSION_DESIRED);
    Some(write(id, kept, question.as_ref(), &found))
}

impl Question {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut name = String::new();
        loop {
            let [length] = take(&mut rest)?;
            if length == 0 {
                break;
            }
            // A pointer, too, is longer than a label can be: in the only name there is nothing that
            // it could point to.
            if length > 63 {
                return None;
            }
            let (label, next) = rest.split_at_checked(usize::from(length))?;
            rest = next;
            if !name.is_empty() {
                name.push('.');
            }
            // No node's name has other characters, a dot inside a label included.
            name.extend(label.iter().map(|byte| match byte {
                b'.' => '\u{fffd}',
                byte if byte.is_ascii() => char::from(byte.to_ascii_lowercase()),
                _ => '\u{fffd}',
            }));
            if bytes.len() - rest.len() >= MAX_DNS_NAME_BYTES {
                return None;
            }
        }
        let wire = bytes.get(..bytes.len() - rest.len())?.to_vec();
        let (kind, class) = (take_u16(&mut rest)?, take_u16(&mut rest)?);
        Some(Self { wire, name, kind, class })
    }
}

/// What is known about a question.
struct Found {
    code: Code,
    records: Vec<(u16, Vec<u8>)>,
}

impl Found {
    fn nothing(code: Code) -> Self {
        Self { code, records: Vec::new() }
    }
}

fn look_up(asker: &Asker<'_>, question: &Question) -> Found {
    if !matches!(question.class, CLASS_IN | CLASS_ANY) {
        return Found::nothing(Code::Refused);
    }
    if let Some(address) = reversed(&question.name) {
        return match node_of(asker, address) {
            Some(port) if question.kind == TYPE_PTR => {
                let record = (TYPE_PTR, wire_name(&full_name(asker, port)));
                Found { code: Code::Fine, records: vec![record] }
            }
            Some(_) => Found::nothing(Code::Fine),
            None => unknown(asker, is_inside(asker, address)),
        };
    }
    let is_in_domain = in_domain(asker, &question.name);
    let name = is_in_domain.unwrap_or(&question.name);
    let is_asked = |node: &Name| node.as_str() == name || node.host_name() == name;
    let ports = || asker.ports.iter().filter(|port| is_asked(&port.node));
    if ports().next().is_none() {
        return unknown(asker, is_in_domain.is_some() || question.name == asker.domain);
    }
    let is_near = |port: &&Port| port.segment == asker.segment.name;
    let ordered = ports().filter(is_near).chain(ports().filter(|port| !is_near(port)));
    let records = ordered.filter_map(|port| match question.kind {
        TYPE_A => port.address.map(|address| (TYPE_A, address.octets().to_vec())),
        TYPE_AAAA => port.address6.map(|address| (TYPE_AAAA, address.octets().to_vec())),
        _ => None,
    });
    Found { code: Code::Fine, records: records.take(MAX_DNS_ANSWERS).collect() }
}

/// What is said of a name that no node has: there is none, unless somebody outside may know more.
fn unknown(asker: &Asker<'_>, ours: bool) -> Found {
    let may_be_outside = asker.has_uplink() && !ours;
    Found::nothing(if may_be_outside { Code::Refused } else { Code::NoSuchName })
}

/// Returns what stands before the domain.
fn in_domain<'a>(asker: &Asker<'_>, name: &'a str) -> Option<&'a str> {
    let domain = asker.domain;
    if domain.is_empty() {
        return None;
    }
    name.strip_suffix(domain)?.strip_suffix('.')
}

fn full_name(asker: &Asker<'_>, port: &Port) -> String {
    match asker.domain {
        "" => port.node.to_string(),
        domain => format!("{}.{domain}", port.node),
    }
}

fn node_of<'a>(asker: &Asker<'a>, address: IpAddr) -> Option<&'a Port> {
    asker.ports.iter().find(|port| match address {
        IpAddr::V4(address) => port.address == Some(address),
        IpAddr::V6(address) => port.address6 == Some(address),
    })
}

fn is_inside(asker: &Asker<'_>, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => asker.is_inside(address),
        IpAddr::V6(address) => asker.segment.gateway6.is_some_and(|(gateway, bits)| {
            let shift = 128u32.saturating_sub(u32::from(bits));
            (gateway.to_bits() ^ address.to_bits()).checked_shr(shift).unwrap_or(0) == 0
        }),
    }
}

/// Returns the address that a name under `in-addr.arpa` or `ip6.arpa` (RFC 3596) stands for.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(name) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut labels = name.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let name = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0u128;
    let mut labels = name.split('.');
    for place in 0..32 {
        let label = labels.next().filter(|label| label.len() == 1)?;
        bits |= u128::from(u8::from_str_radix(label, 16).ok()?) << (4 * place);
    }
    labels.next().is_none().then(|| Ipv6Addr::from_bits(bits).into())
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        if let Ok(length @ 1..=63) = u8::try_from(label.len()) {
            wire.push(length);
            wire.extend(label.bytes());
        }
    }
    wire.push(0);
    wire
}

fn write(id: [u8; 2], kept: u8, question: Option<&Question>, found: &Found) -> Vec<u8> {
    const RESPONSE: u8 = 0x80;
    const AUTHORITATIVE: u8 = 0x04;
    // Some clients take an answer without it for a failure of the server.
    const RECURSION_AVAILABLE: u8 = 0x80;
    let authoritative = match found.code {
        Code::Fine | Code::NoSuchName => AUTHORITATIVE,
        _ => 0,
    };
    let mut message = id.to_vec();
    message.extend([RESPONSE | authoritative | kept, RECURSION_AVAILABLE | found.code as u8]);
    let answers = u16::try_from(found.records.len()).unwrap_or_default();
    for count in [u16::from(question.is_some()), answers, 0, 0] {
        message.extend(count.to_be_bytes());
    }
    if let Some(question) = question {
        message.extend(&question.wire);
        message.extend(question.kind.to_be_bytes());
        message.extend(question.class.to_be_bytes());
    }
    for (kind, data) in &found.records {
        message.extend(POINTER.to_be_bytes());
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message.extend(TTL.to_be_bytes());
        message.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
        message.extend(data);
    }
    message
}
