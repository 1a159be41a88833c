//! The switch's state out of and into a file.

use std::time::Duration;

use pando_model::network::NetworkSpec;

use super::{Core, Target};
use crate::delay::{self, Delayed};
use crate::fdb::Learned;
use crate::frame::Header;
use crate::limits::{HELD_BYTES, MAX_DELAY, RESTORED_DELAY_BYTES};
use crate::links::{EndNumber, LinkNumber};
use crate::state::{
    NotAState, Saved, SavedDelayed, SavedLink, SavedProgress, SavedQueued, SavedStation,
};

/// Why a state cannot be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StateError(pub &'static str);

impl From<NotAState> for StateError {
    fn from(error: NotAState) -> Self {
        Self(error.0)
    }
}

impl Core {
    /// Returns the bytes of the state file, and how many frames it has. `unread` are the links of
    /// frames that were written to machines which have not read them: the commit has neither the
    /// machine's half nor the frames, and counts them as dropped.
    pub fn save(&self, now: Duration, unread: &[LinkNumber]) -> (Vec<u8>, u64) {
        let progress = self.progress();
        let ranks = self.link_ranks();
        let rank = |link: LinkNumber| ranks[link.0 as usize];
        let mut saved = Saved {
            clock: now,
            spoofed: self.spoofed,
            nodes: self.links.nodes().iter().map(pando_model::Name::as_str).collect(),
            segments: self.spec.segments.iter().map(|segment| segment.name.as_str()).collect(),
            ports: self.saved_ports(),
            stations: self.saved_stations(now),
            links: self.saved_links(&ranks),
            progress: progress
                .iter()
                .map(|((fault, link), progress)| SavedProgress {
                    fault: fault.as_str(),
                    link: rank(*link),
                    progress: *progress,
                })
                .collect(),
            queued: self.saved_queues(rank),
            delayed: self.saved_delays(rank),
            held: self.held.frames().map(|(port, frame)| (number(port), frame)).collect(),
        };
        saved.progress.sort_unstable_by_key(|progress| (progress.link, progress.fault));
        for link in unread {
            if let Some(saved) = saved.links.get_mut(rank(*link) as usize) {
                saved.counts.take_back();
            }
        }
        (saved.encode(), saved.frames())
    }

    /// Returns the switch of `spec` as it was saved, held, and its clock. What the file says of
    /// faults that are not in `spec` is ignored; faults that it does not know begin.
    pub fn restore(spec: NetworkSpec, bytes: &[u8]) -> Result<(Self, Duration), StateError> {
        let saved = Saved::parse(bytes)?;
        let mut core = Self::new(spec).map_err(|_| StateError("its network cannot be switched"))?;
        let numbers = Numbers::of(&mut core, &saved)?;
        core.spoofed = saved.spoofed;
        for station in &saved.stations {
            core.restore_station(&saved, &numbers, station)?;
        }
        for (link, place) in saved.links.iter().zip(&numbers.links) {
            let counts = core.links.counts(*place);
            *counts = link.counts.clone();
            counts.held = 0;
        }
        core.restore_progress(&saved, &numbers)?;
        for queued in &saved.queued {
            core.restore_queued(&numbers, queued)?;
        }
        for delayed in &saved.delayed {
            core.restore_delayed(saved.clock, &numbers, delayed)?;
        }
        let mut held = 0;
        for (port, frame) in &saved.held {
            held += frame.len();
            if held > 2 * HELD_BYTES {
                return Err(StateError("it holds too much"));
            }
            core.held.push(get(&numbers.ports, *port)?, frame);
        }
        if !core.links.iter().all(|state| state.counts.balance()) {
            return Err(StateError("its counts do not add up"));
        }
        Ok((core, saved.clock))
    }

    fn saved_ports(&self) -> Vec<(u32, u8)> {
        let ports = self.ports.iter().zip(&self.spec.ports);
        ports.map(|(state, port)| (u32::from(state.node.0), port.nic)).collect()
    }

    fn saved_stations(&self, now: Duration) -> Vec<SavedStation> {
        let mut stations = Vec::new();
        for (segment, state) in self.segments.iter().enumerate() {
            let heard = state.table.heard(now).into_iter();
            stations.extend(heard.map(|(address, port, heard)| SavedStation {
                segment: number(segment),
                address,
                port: number(port),
                heard,
            }));
        }
        stations
    }

    /// Returns each link's place in the file, where they are by sender and receiver: equal states are
    /// equal files, in whatever order links came to be.
    fn link_ranks(&self) -> Vec<u32> {
        let mut order: Vec<_> = self.links.numbered().collect();
        order.sort_unstable_by_key(|(_, state)| (state.from, state.to));
        let mut ranks = vec![0; order.len()];
        for (rank, (link, _)) in order.into_iter().enumerate() {
            ranks[link.0 as usize] = number(rank);
        }
        ranks
    }

    fn saved_links(&self, ranks: &[u32]) -> Vec<SavedLink> {
        let link = |state: &crate::links::LinkState| {
            let mut counts = state.counts.clone();
            counts.held = 0;
            SavedLink { from: u32::from(state.from.0), to: u32::from(state.to.0), counts }
        };
        let mut links: Vec<_> = ranks.iter().zip(self.links.iter().map(link)).collect();
        links.sort_unstable_by_key(|(rank, _)| **rank);
        links.into_iter().map(|(_, link)| link).collect()
    }

    fn saved_queues(&self, rank: impl Fn(LinkNumber) -> u32) -> Vec<SavedQueued<'_>> {
        let mut queued = Vec::new();
        for (place, output) in self.outputs.iter().enumerate() {
            let frames = output.queue.frames();
            queued.extend(frames.map(|(link, frame)| SavedQueued {
                output: number(place),
                link: rank(link),
                frame,
            }));
        }
        queued
    }

    fn saved_delays(&self, rank: impl Fn(LinkNumber) -> u32) -> Vec<SavedDelayed<'_>> {
        let delayed = self.delays.frames().into_iter();
        delayed.map(|delayed| saved_delay(delayed, rank(delayed.link))).collect()
    }

    fn restore_station(
        &mut self,
        saved: &Saved<'_>,
        numbers: &Numbers,
        station: &SavedStation,
    ) -> Result<(), StateError> {
        let segment = get(&numbers.segments, station.segment)?;
        let port = get(&numbers.ports, station.port)?;
        let is_odd = self.ports[port].segment != segment
            || station.heard > saved.clock
            || station.address.is_group();
        let table = &mut self.segments[segment].table;
        if is_odd || table.restore(station.address, port, station.heard) != Learned::Known {
            return Err(StateError("a station is where it cannot be"));
        }
        Ok(())
    }

    fn restore_progress(&mut self, saved: &Saved<'_>, numbers: &Numbers) -> Result<(), StateError> {
        for entry in &saved.progress {
            let link = get(&numbers.links, entry.link)?;
            if entry.progress.free_at > saved.clock + 2 * MAX_DELAY {
                return Err(StateError("a rate's queue is too long"));
            }
            let faults = &self.faults;
            let on_link = &mut self.links.state(link).faults;
            let found = on_link.iter_mut().find(|it| faults[it.number].id.as_str() == entry.fault);
            if let Some(on_link) = found {
                on_link.progress = entry.progress;
            }
        }
        Ok(())
    }

    fn restore_queued(
        &mut self,
        numbers: &Numbers,
        queued: &SavedQueued<'_>,
    ) -> Result<(), StateError> {
        let output = get(&numbers.outputs, queued.output)?;
        let link = get(&numbers.links, queued.link)?;
        let state = &mut self.outputs[output];
        let is_frame = Header::parse(queued.frame).is_some();
        if !is_frame || state.queue.push(link, queued.frame).is_err() {
            return Err(StateError("a queue has what it cannot have"));
        }
        self.links.counts(link).held += 1;
        self.list(output);
        Ok(())
    }

    fn restore_delayed(
        &mut self,
        clock: Duration,
        numbers: &Numbers,
        delayed: &SavedDelayed<'_>,
    ) -> Result<(), StateError> {
        let link = get(&numbers.links, delayed.link)?;
        let port = get(&numbers.ports, delayed.port)?;
        let state = self.links.state(link);
        let bytes = state.delayed_bytes + delay::cost(delayed.frame.len());
        if Header::parse(delayed.frame).is_none()
            || delayed.due > clock + MAX_DELAY
            || bytes > RESTORED_DELAY_BYTES
            || !self.delays.has_room(delayed.frame.len())
        {
            return Err(StateError("a frame waits that cannot wait"));
        }
        state.delayed_bytes = bytes;
        state.counts.held += 1;
        let target = if delayed.to_gateway { Target::Gateway(port) } else { Target::Port(port) };
        let (due, number, frame) = (delayed.due, delayed.number, delayed.frame.into());
        self.delays.put_back(Delayed { due, number, link, target, frame });
        Ok(())
    }
}

fn saved_delay(delayed: &Delayed, link: u32) -> SavedDelayed<'_> {
    let (to_gateway, port) = match delayed.target {
        Target::Port(port) => (false, port),
        Target::Gateway(port) => (true, port),
    };
    SavedDelayed {
        due: delayed.due,
        number: delayed.number,
        link,
        to_gateway,
        port: number(port),
        frame: &delayed.frame,
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

fn get<T: Copy>(table: &[T], number: u32) -> Result<T, StateError> {
    let found = usize::try_from(number).ok().and_then(|place| table.get(place));
    found.copied().ok_or(StateError("it names what it does not have"))
}

/// What the numbers in a file are here.
struct Numbers {
    segments: Vec<usize>,
    ports: Vec<usize>,
    outputs: Vec<usize>,
    links: Vec<LinkNumber>,
}

impl Numbers {
    fn of(core: &mut Core, saved: &Saved<'_>) -> Result<Self, StateError> {
        const OTHER: StateError = StateError("it is of another network");
        let node = |name: &&str| {
            let place = core.links.nodes().iter().position(|node| node.as_str() == *name);
            place.and_then(|place| u16::try_from(place).ok()).map(EndNumber).ok_or(OTHER)
        };
        let mut ends = saved.nodes.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let segment = |name: &&str| {
            let mut segments = core.spec.segments.iter();
            segments.position(|segment| segment.name.as_str() == *name).ok_or(OTHER)
        };
        let segments = saved.segments.iter().map(segment).collect::<Result<_, _>>()?;
        let port = |(node, nic): &(u32, u8)| {
            let node = get(&ends, *node)?;
            let is_it =
                |port: &usize| core.ports[*port].node == node && core.spec.ports[*port].nic == *nic;
            (0..core.ports.len()).find(is_it).ok_or(OTHER)
        };
        let ports = saved.ports.iter().map(port).collect::<Result<Vec<_>, _>>()?;
        let uplinks = ends.iter().map(|node| core.uplink_of(*node));
        let outputs = ports.iter().copied().chain(uplinks).collect();
        ends.push(core.links.gateway());
        let mut links = Vec::with_capacity(saved.links.len());
        for link in &saved.links {
            links.push(core.links.between(get(&ends, link.from)?, get(&ends, link.to)?));
        }
        let mut once = links.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != links.len() {
            return Err(StateError("a link is there twice"));
        }
        Ok(Self { segments, ports, outputs, links })
    }
}
