//! A frame's way through the switch: learn, look up, pass each link's faults, arrive.

use std::time::Duration;

use pando_model::cluster::Uplink;
use pando_model::network::{DropReason, GATEWAY_MAC};

use super::{Core, Target};
use crate::delay;
use crate::fault::{self, Copy};
use crate::fdb::Learned;
use crate::frame::Header;
use crate::limits::{LINK_DELAY_BYTES, MAX_FRAME_BYTES};
use crate::links::LinkNumber;
use crate::services::{self, Answer, SegmentView};

impl Core {
    /// Forwards a frame that came in through a port or an uplink.
    pub(super) fn forward(&mut self, now: Duration, from: usize, frame: &[u8]) {
        let Some(header) = Header::parse(frame) else { return self.malformed(from, frame.len()) };
        self.note(frame);
        let Some(port) = self.ports.get(from) else {
            return self.receive_outside(now, from, header, frame);
        };
        let segment = port.segment;
        let table = &mut self.segments[segment].table;
        if table.learn(now, header.from, from) == Learned::Spoofed {
            self.spoofed += 1;
        }
        if header.to == GATEWAY_MAC {
            self.send_to_gateway(now, from, frame);
        } else if header.to.is_group() {
            self.flood(now, from, frame);
            if self.ask(now, from, frame) != Answer::NotForMe {
                self.send_to_gateway(now, from, frame);
            }
        } else {
            match table.port_of(now, header.to) {
                Some(port) if port == from => {}
                Some(port) => self.send_to_port(now, from, port, frame),
                None => self.flood(now, from, frame),
            }
        }
    }

    /// A frame of the outside goes to the interface that has its address, or else to the node's first
    /// one that has an uplink.
    fn receive_outside(&mut self, now: Duration, from: usize, header: Header, frame: &[u8]) {
        let node = from - self.ports.len();
        let mut own =
            (0..self.ports.len()).filter(|port| usize::from(self.ports[*port].node.0) == node);
        let is_uplink =
            |port: &usize| self.spec.segments[self.ports[*port].segment].uplink != Uplink::None;
        let port = own
            .clone()
            .find(|port| self.ports[*port].mac == header.to)
            .or_else(|| own.find(is_uplink));
        let Some(port) = port else { return self.malformed(from, frame.len()) };
        let (gateway, node) = (self.links.gateway(), self.ports[port].node);
        let link = self.links.between(gateway, node);
        self.transmit(now, link, Target::Port(port), frame);
    }

    fn flood(&mut self, now: Duration, from: usize, frame: &[u8]) {
        let segment = self.ports[from].segment;
        for place in 0..self.segments[segment].ports.len() {
            let port = self.segments[segment].ports[place];
            if port != from {
                self.send_to_port(now, from, port, frame);
            }
        }
    }

    fn send_to_port(&mut self, now: Duration, from: usize, to: usize, frame: &[u8]) {
        let link = self.links.between(self.ports[from].node, self.ports[to].node);
        self.transmit(now, link, Target::Port(to), frame);
    }

    fn send_to_gateway(&mut self, now: Duration, from: usize, frame: &[u8]) {
        let link = self.links.between(self.ports[from].node, self.links.gateway());
        self.transmit(now, link, Target::Gateway(from), frame);
    }

    /// Returns the number of the segment that a frame is in on its way there.
    pub(super) fn segment_of(&self, target: Target) -> usize {
        let (Target::Port(port) | Target::Gateway(port)) = target;
        self.ports[port].segment
    }

    /// Sends a frame over a link: counts it, and lets the link's faults decide.
    fn transmit(&mut self, now: Duration, link: LinkNumber, target: Target, frame: &[u8]) {
        let segment = self.segment_of(target);
        let state = self.links.state(link);
        state.counts.send(frame.len());
        if state.faults.is_empty() {
            return self.deliver(now, link, target, frame);
        }
        let mut copies = std::mem::take(&mut self.copies);
        let faults = state.faults.iter_mut().filter(|fault| fault.works_in(segment));
        fault::judge(faults, now, frame.len(), &mut copies, &mut state.counts);
        for copy in copies.drain(..) {
            self.transmit_copy(now, link, target, frame, &copy);
        }
        self.copies = copies;
    }

    fn transmit_copy(
        &mut self,
        now: Duration,
        link: LinkNumber,
        target: Target,
        frame: &[u8],
        copy: &Copy,
    ) {
        let changed;
        let mut frame = frame;
        if !copy.flips.is_empty() {
            let mut bytes = frame.to_vec();
            let flipped = copy.flips.iter().filter(|bit| fault::flip(&mut bytes, **bit)).count();
            self.links.counts(link).corrupted += u64::from(flipped > 0);
            changed = bytes;
            frame = &changed;
        }
        let state = self.links.state(link);
        state.counts.reordered += u64::from(copy.overtakes);
        if copy.delay.is_zero() {
            return self.deliver(now, link, target, frame);
        }
        let fits = state.delayed_bytes + delay::cost(frame.len()) <= LINK_DELAY_BYTES
            && self.delays.has_room(frame.len());
        if !fits {
            return state.counts.drop(DropReason::QueueFull);
        }
        state.counts.delayed += 1;
        state.counts.held += 1;
        state.delayed_bytes += delay::cost(frame.len());
        self.delays.push(now + copy.delay, link, target, frame);
    }

    /// Brings a frame to where it goes; it is not counted as held before.
    pub(super) fn deliver(
        &mut self,
        now: Duration,
        link: LinkNumber,
        target: Target,
        frame: &[u8],
    ) {
        let asker = match target {
            Target::Port(port) => return self.queue(link, port, frame),
            Target::Gateway(asker) => asker,
        };
        match self.ask(now, asker, frame) {
            Answer::Reply(reply) => {
                self.links.counts(link).delivered += 1;
                self.reply(now, asker, &reply);
            }
            Answer::ToUplink => self.queue(link, self.uplink_of(self.ports[asker].node), frame),
            Answer::Drop(reason) => self.links.counts(link).drop(reason),
            Answer::NotForMe => self.links.counts(link).drop(DropReason::NoRoute),
        }
    }

    fn ask(&self, now: Duration, asker: usize, frame: &[u8]) -> Answer {
        let view = SegmentView {
            segment: &self.spec.segments[self.ports[asker].segment],
            domain: &self.spec.domain,
            ports: &self.spec.ports,
        };
        services::answer(&view, &self.spec.ports[asker], frame, now)
    }

    fn reply(&mut self, now: Duration, asker: usize, frame: &[u8]) {
        if frame.len() > MAX_FRAME_BYTES {
            return;
        }
        self.note(frame);
        let link = self.links.between(self.links.gateway(), self.ports[asker].node);
        self.transmit(now, link, Target::Port(asker), frame);
    }

    fn queue(&mut self, link: LinkNumber, number: usize, frame: &[u8]) {
        let output = &mut self.outputs[number];
        let counts = self.links.counts(link);
        if !output.is_open {
            return counts.drop(output.closed);
        }
        if output.queue.push(link, frame).is_err() {
            return counts.drop(DropReason::QueueFull);
        }
        counts.held += 1;
        self.list(number);
    }

    /// Puts an output in the list of those with something new.
    pub(super) fn list(&mut self, number: usize) {
        let output = &mut self.outputs[number];
        if !output.is_listed {
            output.is_listed = true;
            self.listed.push(number);
        }
    }

    fn note(&mut self, frame: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(frame);
        }
    }
}
