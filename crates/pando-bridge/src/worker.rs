//! The thread that lives in the branch's network namespace and makes everything in it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pando_machine::SwitchError;
use pando_model::fault::{Effect, Fault};
use pando_model::network::{DropReason, FaultCounts, Link, LinkCounts, NetworkObservation};
use pando_model::{FaultId, Name};

use crate::limits::RETRY;
use crate::rules::{self, Counters, Numbered, Rules};
use crate::saved::{Met, Sent, Totals};
use crate::shape::{self, Queued, Shape, Shapes};
use crate::sys::{self, NamespaceError};
use crate::tools::Tool;
use crate::wiring::{Carries, Pair, Wiring};

/// What the worker is asked to do.
pub type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// A bridge and what is known of it.
pub struct Worker {
    wiring: Wiring,
    /// The faults that work.
    faults: Vec<Numbered>,
    next_number: u32,
    rules: Rules,
    /// At the taps that are there.
    shapes: Shapes,
    /// Until when no fault is ended by itself, because it failed a moment ago.
    rests_until: Option<Instant>,
    /// What was counted by what is no more: the commit's, and queues that were replaced.
    base: Totals,
}

/// What the kernel has counted.
struct Counts {
    counters: Counters,
    queues: Vec<Queued>,
}

impl Worker {
    /// Enters a namespace of its own and makes everything there, carrying nothing. Returns the
    /// machines' ends too.
    pub fn open(
        wiring: Wiring,
        faults: Vec<Fault>,
        base: Totals,
    ) -> Result<(Self, Vec<OwnedFd>), SwitchError> {
        sys::enter_own_namespace().map_err(|error| match error {
            NamespaceError::Made(error) => system("have a network namespace of its own")(error),
            NamespaceError::Silenced(error) => system("silence IPv6 in its namespace")(error),
        })?;
        Tool::Ip.batch(&wiring.make_bridges()).map_err(system("make its bridges"))?;
        let all: Vec<usize> = (0..wiring.taps.len()).collect();
        let ends = plug(&wiring, &all)?;
        Tool::Nft.batch(&rules::make(&wiring)).map_err(system("make its rules"))?;
        let mut worker = Self {
            wiring,
            faults: Vec::new(),
            next_number: 0,
            rules: Rules::default(),
            shapes: Shapes::new(),
            rests_until: None,
            base,
        };
        worker.set_faults(faults)?;
        Ok((worker, ends))
    }

    /// Does what it is asked, and ends faults when their time has come, until nobody can ask.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(self.next_end()) {
                Ok(job) => job(&mut self),
                Err(RecvTimeoutError::Timeout) => self.end_faults(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Returns how long it is until a fault ends by itself.
    fn next_end(&self) -> Duration {
        /// Without one: as good as any.
        const LONG: Duration = Duration::from_secs(3600);
        let ends = self.faults.iter().filter_map(|one| one.fault.expires_at);
        let left = ends.min().map(|end| end.duration_since(Timestamp::now()));
        let left = left.map_or(LONG, |left| Duration::try_from(left).unwrap_or_default().min(LONG));
        let rest = self.rests_until.map(|until| until.saturating_duration_since(Instant::now()));
        left.max(rest.unwrap_or_default())
    }

    fn end_faults(&mut self) {
        let faults = self.faults.iter().map(|one| one.fault.clone()).collect();
        if let Err(error) = self.set_faults(faults) {
            // Until the next attempt it is reported as working, as it does.
            tracing::error!(%error, "a fault whose time has come still works");
            self.rests_until = Some(Instant::now() + RETRY);
        }
    }

    /// Lets the bridges carry frames, or not.
    pub fn set_bridges(&mut self, carries: Carries) -> Result<(), SwitchError> {
        let lines = self.wiring.set_bridges(carries);
        Tool::Ip.batch(&lines).map_err(system("set its bridges up or down"))
    }

    /// Makes these the faults that work, but for those that have ended.
    pub fn set_faults(&mut self, faults: Vec<Fault>) -> Result<(), SwitchError> {
        let now = Timestamp::now();
        let working = faults.into_iter().filter(|one| one.expires_at.is_none_or(|end| end > now));
        let mut next = self.next_number;
        let numbered: Vec<Numbered> = working
            .map(|fault| {
                let known = self.faults.iter().find(|one| one.fault.id == fault.id);
                let number = known.map_or(next, |one| one.number);
                next += u32::from(known.is_none());
                Numbered { number, fault }
            })
            .collect();
        let rules = Rules::of(&self.wiring, &numbered);
        let shapes = shape::shapes(&self.wiring, &numbered);
        // A queue is there before anything is marked for it.
        self.reshape(&shapes)?;
        let text = rules.replace(&self.rules);
        Tool::Nft.batch(&text).map_err(system("change its rules"))?;
        self.base.faults.retain(|(id, _), _| numbered.iter().any(|one| one.fault.id == *id));
        (self.rules, self.faults, self.next_number) = (rules, numbered, next);
        self.rests_until = None;
        Ok(())
    }

    fn reshape(&mut self, shapes: &Shapes) -> Result<(), SwitchError> {
        let taps = 0..self.wiring.taps.len();
        let changed: Vec<usize> =
            taps.filter(|tap| self.shapes.get(tap) != shapes.get(tap)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        // What the former queues dropped is told for the last time.
        for queue in self.queues()?.into_iter().filter(|queue| changed.contains(&queue.pair.to)) {
            self.keep(queue);
        }
        changed.into_iter().try_for_each(|tap| self.reshape_tap(tap, shapes.get(&tap)))
    }

    /// Puts a tree of queues on a tap, or none. A tap that has gone with its machine gets it when it
    /// is plugged in again.
    fn reshape_tap(&mut self, tap: usize, now: Option<&Shape>) -> Result<(), SwitchError> {
        let device = &self.wiring.taps[tap].device;
        let lines = shape::replace(device, self.shapes.get(&tap), now);
        match (Tool::Tc.batch(&lines), now) {
            (Ok(()), Some(now)) => {
                self.shapes.insert(tap, now.clone());
                Ok(())
            }
            (Ok(()), None) => {
                self.shapes.remove(&tap);
                Ok(())
            }
            (Err(error), _) => {
                // Half of a tree is none: the device is as it was at first.
                let _ = Tool::Tc.run(&["qdisc", "del", "dev", device, "root"], "");
                let is_gone = Tool::Ip.run(&["link", "show", "dev", device], "").is_err();
                self.shapes.remove(&tap);
                if is_gone { Ok(()) } else { Err(system("change its queues")(error)) }
            }
        }
    }

    /// Adds what a queue dropped to what is kept.
    fn keep(&mut self, queue: Queued) {
        let Some(link) = self.wiring.link(queue.pair) else { return };
        if queue.dropped == 0 {
            return;
        }
        let reason = self.reason(queue.pair);
        let sent = self.base.links.entry(link.clone()).or_default();
        *sent.dropped.entry(reason).or_default() += queue.dropped;
        if let Some(fault) = self.impairing(queue.pair) {
            self.base.faults.entry((fault, link)).or_default().dropped += queue.dropped;
        }
    }

    /// Returns why the queue of a pair drops frames.
    fn reason(&self, pair: Pair) -> DropReason {
        let shape = self.shapes.get(&pair.to).and_then(|shapes| shapes.get(&pair.from));
        match shape {
            Some(shape) if shape.loss.0 > 0 => DropReason::Loss,
            _ => DropReason::RateLimit,
        }
    }

    /// Returns the first fault that impairs a pair: whose its queue's drops are.
    fn impairing(&self, pair: Pair) -> Option<FaultId> {
        let impairs = |one: &&Numbered| {
            matches!(one.fault.effect, Effect::Impair(_)) && self.wiring.works_on(&one.fault, pair)
        };
        self.faults.iter().find(impairs).map(|one| one.fault.id.clone())
    }

    fn queues(&self) -> Result<Vec<Queued>, SwitchError> {
        let json = Tool::Tc.run(&shape::LIST, "").map_err(system("read its queues"))?;
        shape::queued(&json, &self.wiring).ok_or_else(|| system("read its queues")(nonsense()))
    }

    fn counts(&self) -> Result<Counts, SwitchError> {
        let json = Tool::Nft.run(&rules::LIST, "").map_err(system("read its counters"))?;
        let counters = rules::counters(&json);
        let counters = counters.ok_or_else(|| system("read its counters")(nonsense()))?;
        Ok(Counts { counters, queues: self.queues()? })
    }

    /// Returns everything counted, and what waits in queues.
    fn totals(&self) -> Result<(Totals, Vec<Queued>), SwitchError> {
        let Counts { counters, queues } = self.counts()?;
        let counted = |name: String| counters.get(&name).copied().unwrap_or_default();
        let mut totals = self.base.clone();
        for pair in &self.wiring.pairs {
            let Some(link) = self.wiring.link(*pair) else { continue };
            let (sent, dropped) = (
                counted(rules::pair_counter('s', *pair)),
                counted(rules::pair_counter('p', *pair)).frames,
            );
            let queue = queues.iter().find(|queue| queue.pair == *pair);
            let by_queue = queue.map_or(0, |queue| queue.dropped);
            let own = totals.links.entry(link.clone()).or_default();
            own.frames += sent.frames;
            own.bytes += sent.bytes;
            add(own, DropReason::Partition, dropped);
            add(own, self.reason(*pair), by_queue);
            let mut drops_of_queue = by_queue;
            for one in self.faults.iter().filter(|one| self.wiring.works_on(&one.fault, *pair)) {
                let key = (one.fault.id.clone(), link.clone());
                let met: &mut Met = totals.faults.entry(key).or_default();
                met.frames += counted(rules::fault_counter('f', one.number, *pair)).frames;
                met.dropped += counted(rules::fault_counter('d', one.number, *pair)).frames;
                if one.fault.effect != Effect::Partition {
                    met.dropped += std::mem::take(&mut drops_of_queue);
                }
            }
        }
        Ok((totals, queues))
    }

    /// Returns what it does and did.
    pub fn observe(&mut self) -> Result<NetworkObservation, SwitchError> {
        let (totals, queues) = self.totals()?;
        let held = |link: &Link| {
            let own = queues.iter().filter(|one| self.wiring.link(one.pair).as_ref() == Some(link));
            own.map(|queue| queue.waiting).sum::<u64>()
        };
        let links = totals.links.into_iter().filter(|(_, sent)| sent.frames > 0);
        let links = links.map(|(link, sent)| {
            let held = held(&link);
            let gone = sent.dropped.values().sum::<u64>() + held;
            let counts = LinkCounts {
                sent: sent.frames,
                sent_bytes: sent.bytes,
                delivered: sent.frames.saturating_sub(gone),
                held,
                dropped: sent.dropped,
                ..LinkCounts::default()
            };
            (link, counts)
        });
        let fault = |((fault, link), met): ((FaultId, Link), Met)| FaultCounts {
            fault,
            link,
            frames: met.frames,
            dropped: met.dropped,
        };
        Ok(NetworkObservation {
            links: links.collect(),
            fault_counts: totals.faults.into_iter().map(fault).collect(),
            faults: self.working(),
            ..NetworkObservation::default()
        })
    }

    /// Returns the faults that work.
    pub fn working(&self) -> Vec<Fault> {
        self.faults.iter().map(|one| one.fault.clone()).collect()
    }

    /// Returns what a commit keeps.
    pub fn save(&mut self) -> Result<Vec<u8>, SwitchError> {
        let (totals, _) = self.totals()?;
        totals.encode().map_err(|error| system("write its state")(error.into()))
    }

    /// Makes a node's taps anew, whose machine has ended.
    pub fn replug(&mut self, node: &Name) -> Result<Vec<OwnedFd>, SwitchError> {
        let taps = self.wiring.taps_of(node);
        if taps.is_empty() {
            return Err(SwitchError::Misused(format!("find a port of `{node}`")));
        }
        let ends = plug(&self.wiring, &taps)?;
        let shapes = shape::shapes(&self.wiring, &self.faults);
        // Their queues have gone with the taps.
        self.shapes.retain(|tap, _| !taps.contains(tap));
        self.reshape(&shapes)?;
        Ok(ends)
    }
}

fn add(sent: &mut Sent, reason: DropReason, frames: u64) {
    if frames > 0 {
        *sent.dropped.entry(reason).or_default() += frames;
    }
}

fn plug(wiring: &Wiring, taps: &[usize]) -> Result<Vec<OwnedFd>, SwitchError> {
    let devices = taps.iter().filter_map(|tap| wiring.taps.get(*tap));
    let opened = devices.map(|tap| sys::open_tap(&tap.device)).collect::<io::Result<Vec<_>>>();
    let ends = opened.map_err(system("open its taps"))?;
    Tool::Ip.batch(&wiring.plug(taps)).map_err(system("plug its taps"))?;
    Ok(ends)
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the tool says is not understood")
}

pub fn system(what: &'static str) -> impl Fn(io::Error) -> SwitchError {
    move |source| SwitchError::System { what, source }
}
