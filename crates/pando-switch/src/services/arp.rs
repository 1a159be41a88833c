//! ARP (RFC 826) for the gateway's own addresses.

use pando_model::network::{GATEWAY_MAC, MacAddress};

use super::packet::{self, Frame, take, take_u16};
use super::{Answer, Asker};

const ETHERNET: u16 = 1;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Answers who asks for the gateway. What nodes say to one another goes on its way.
pub fn answer(asker: &Asker<'_>, frame: &Frame<'_>) -> Answer {
    let Some(request) = Request::parse(frame.payload) else { return asker.not_understood(frame) };
    if request.operation != REQUEST || !asker.is_own(request.target.into()) {
        return asker.no_use(frame);
    }
    let mut reply = Vec::with_capacity(28);
    reply.extend(ETHERNET.to_be_bytes());
    reply.extend(packet::IPV4.to_be_bytes());
    reply.extend([6, 4]);
    reply.extend(REPLY.to_be_bytes());
    reply.extend(GATEWAY_MAC.0);
    reply.extend(request.target);
    reply.extend(request.sender.0);
    reply.extend(request.sender_address);
    Answer::Reply(packet::frame(frame.from, packet::ARP, &reply))
}

struct Request {
    operation: u16,
    sender: MacAddress,
    sender_address: [u8; 4],
    target: [u8; 4],
}

impl Request {
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let (hardware, protocol) = (take_u16(&mut bytes)?, take_u16(&mut bytes)?);
        let sizes: [u8; 2] = take(&mut bytes)?;
        let operation = take_u16(&mut bytes)?;
        let sender = MacAddress(take(&mut bytes)?);
        let sender_address = take(&mut bytes)?;
        let _target_hardware: [u8; 6] = take(&mut bytes)?;
        let target = take(&mut bytes)?;
        let known = hardware == ETHERNET && protocol == packet::IPV4 && sizes == [6, 4];
        known.then_some(Self { operation, sender, sender_address, target })
    }
}
