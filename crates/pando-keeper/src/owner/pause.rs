//! A branch that stands and goes on: pause, resume, and the guests' clocks after either.

use std::time::Instant;

use pando_model::BranchId;
use pando_model::branch::BranchState;
use pando_model::host::{AfterCut, AfterStart, Clock, CutSpec, HostError};
use pando_wire::keeper::{Answer, Reply};

use super::Owner;
use crate::node::Node;
use crate::published::BranchView;
use crate::{limits, trouble};

impl Owner {
    pub(super) fn pause(&mut self) -> Answer {
        let running = self.state() == BranchState::Running;
        let paused = self.network.hold().and_then(|_| self.live_nodes(Node::pause));
        if let (Err(error), true) = (&paused, running) {
            tracing::warn!(%error, "not paused: the guests go on");
            let resumed = self.live_nodes(Node::resume_if_it_answers);
            self.network.release().and(resumed)?;
        }
        paused?;
        self.set_state(BranchState::Paused);
        Ok(Reply::Done)
    }

    /// Lets the guests go on. On an error those of a branch that was paused stand still again.
    pub(super) fn resume(&mut self, clock: Clock) -> Answer {
        let stands =
            |view: &BranchView| view.nodes.iter().any(|node| node.state == BranchState::Paused);
        if !self.published.read(stands) {
            return Ok(Reply::Done);
        }
        let all_stand = self.state() == BranchState::Paused;
        let went_on = if self.held {
            self.end_held_start()
        } else {
            self.live_nodes(Node::resume).and_then(|()| self.network.release())
        };
        if let Err(error) = went_on {
            if all_stand {
                let stand = self.network.hold().and_then(|_| self.live_nodes(Node::pause));
                if let Err(error) = stand {
                    tracing::warn!(%error, "stopping again after a resume that failed");
                }
            }
            return Err(error);
        }
        self.set_state(BranchState::Running);
        self.greet_strangers();
        match self.clock(clock) {
            Clock::Step => self.set_clocks(),
            Clock::Frozen => self.clocks.leave(),
        }
        Ok(Reply::Done)
    }

    /// Does what a start left undone that held its guests.
    fn end_held_start(&mut self) -> Result<(), HostError> {
        let answers = self.come_up(AfterStart::Run, Instant::now())?;
        self.held = false;
        self.published.change(|view| {
            for (view, node) in view.nodes.iter_mut().zip(&self.nodes) {
                view.greeted = node.is_greeted();
            }
        });
        let inherited: usize = answers.iter().map(|answer| answer.inherited.len()).sum();
        tracing::info!(branch = %self.branch, inherited, "goes on from where it was restored");
        Ok(())
    }

    /// Greets, beside the owner, guests that have no epoch: of a machine that was booting when the
    /// branch was paused, or one that broke the protocol.
    fn greet_strangers(&mut self) {
        for number in 0..self.nodes.len() {
            let node = &self.nodes[number];
            if node.machine.is_some() && !node.is_greeted() {
                self.published.change(|view| view.nodes[number].greeted = false);
                self.greet_when_up(number);
            }
        }
    }

    /// Returns what is to become of the guests' clocks: those of a branch whose clock is frozen stay.
    pub(super) fn clock(&self, asked: Clock) -> Clock {
        if self.spec.clock == Clock::Frozen { Clock::Frozen } else { asked }
    }

    /// Sets the clocks of guests that went on after a cut: without it they would be behind by the
    /// pauses of all cuts, and what they say of the time of a change would be wrong by as much.
    pub(super) fn catch_up(&mut self, spec: &CutSpec) {
        if spec.then == AfterCut::Continue && self.clock(Clock::Step) == Clock::Step {
            self.set_clocks();
        }
    }

    /// Sets the clocks of all guests that were greeted. A guest whose clock is wrong is worth a
    /// warning, and no reason to undo anything.
    fn set_clocks(&mut self) {
        let branch = self.branch.clone();
        if let Err(error) = self.live_nodes(|node| set_clock(node, &branch)) {
            tracing::warn!(%error, "a guest's clock is behind by the time that it stood still");
        }
        self.follow_clocks();
    }

    pub(super) fn follow_clocks(&self) {
        self.clocks.follow(self.nodes.iter().filter_map(|node| node.link.clone()).collect());
    }
}

fn set_clock(node: &Node, branch: &BranchId) -> Result<(), HostError> {
    let Some(link) = node.link.as_ref().filter(|link| link.is_greeted()) else { return Ok(()) };
    link.set_clock(Instant::now() + limits::GUEST_ANSWER)
        .map_err(|e| trouble::link(branch, &node.spec.name, &e))
}
