//! What the thread does for a cut: hold, drain, settle, save, release.

use std::io;
use std::time::Instant;

use jiff::Timestamp;
use pando_machine::{PortNumber, Settled};

use super::{Overfull, SaveError, SavedState, Worker};
use crate::limits::DRAIN_INTERVAL;

/// Frames that are forwarded before what they came to is written.
const FRAMES_BETWEEN_WRITES: usize = 256;

impl Worker {
    pub(super) fn hold(&mut self) -> io::Result<()> {
        if self.core.is_held() {
            return Ok(());
        }
        self.clock.stop();
        self.core.hold();
        self.came_in = 0;
        self.refresh_interests()
    }

    /// Waits until every machine has read what was written to it, and what was begun is written.
    /// Meanwhile reading goes on. There is no event for a socket that was read to its end, so it is
    /// looked at again and again. Afterwards nothing is written, not even the rest of a frame.
    pub(super) fn drain(
        &mut self,
        deadline: Instant,
    ) -> io::Result<Result<Vec<PortNumber>, Overfull>> {
        if !self.core.is_held() {
            self.hold()?;
        }
        self.unread.clear();
        self.set_mute(false)?;
        loop {
            let undrained = self.undrained();
            let left = deadline.saturating_duration_since(Instant::now());
            if self.core.is_overfull() {
                return Ok(Err(Overfull));
            }
            if undrained.is_empty() || left.is_zero() {
                self.note_unread(&undrained);
                self.set_mute(true)?;
                return Ok(Ok(undrained.into_iter().map(PortNumber).collect()));
            }
            self.turn_for_drain(left)?;
        }
    }

    fn turn_for_drain(&mut self, left: std::time::Duration) -> io::Result<()> {
        // A command that comes meanwhile is one that has been given up: it stays for later.
        self.turn(Some(left.min(DRAIN_INTERVAL))).map(|_| ())
    }

    fn set_mute(&mut self, is_mute: bool) -> io::Result<()> {
        self.is_mute = is_mute;
        self.refresh_interests()
    }

    fn undrained(&mut self) -> Vec<usize> {
        let ports = self.core.ports().len();
        let core = &self.core;
        let sockets = self.sockets.iter_mut().take(ports).enumerate();
        sockets
            .filter_map(|(port, socket)| {
                let socket = socket.as_mut()?;
                (!core.output(port).is_empty() || !socket.is_drained()).then_some(port)
            })
            .collect()
    }

    fn note_unread(&mut self, undrained: &[usize]) {
        for port in undrained {
            if let Some(Some(socket)) = self.sockets.get_mut(*port) {
                self.unread.extend(socket.unread());
            }
        }
    }

    pub(super) fn settle(&mut self) -> io::Result<Result<Settled, Overfull>> {
        let ports = self.core.ports().len();
        for port in 0..ports {
            while !self.core.is_overfull() && self.read(port)? {}
        }
        if self.core.is_overfull() {
            return Ok(Err(Overfull));
        }
        let is_amid_frame = |port: &usize| {
            let socket = self.sockets.get(*port).and_then(Option::as_ref);
            socket.is_some_and(|socket| socket.partial_bytes() > 0)
        };
        let partial = (0..ports).filter(is_amid_frame).map(PortNumber).collect();
        Ok(Ok(Settled { frames: std::mem::take(&mut self.came_in), partial }))
    }

    pub(super) fn save(&self) -> Result<SavedState, SaveError> {
        if !self.core.is_held() {
            return Err(SaveError::NotHeld);
        }
        if self.core.is_overfull() {
            return Err(SaveError::Overfull);
        }
        let (bytes, frames) = self.core.save(self.clock.now(), &self.unread);
        Ok(SavedState { bytes, frames, faults: self.core.faults().to_vec() })
    }

    /// Goes on: first what was queued, then what came in while held, in order.
    pub(super) fn release(&mut self) -> io::Result<()> {
        if !self.core.is_held() {
            return Ok(());
        }
        self.unread.clear();
        self.is_mute = false;
        self.clock.start();
        self.core.release();
        // What ended while all stood still decides no more.
        self.core.expire(Timestamp::now());
        for output in 0..self.sockets.len() {
            self.flush(output)?;
        }
        let now = self.clock.now();
        let mut count = 0;
        while self.core.forward_held(now) {
            count += 1;
            if count % FRAMES_BETWEEN_WRITES == 0 {
                self.flush_listed()?;
            }
        }
        self.flush_listed()?;
        self.refresh_interests()
    }
}
