//! Machines that end, and those that are started again.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use pando_link::LinkError;
use pando_machine::EndReason;
use pando_model::Name;
use pando_model::branch::BranchState;
use pando_model::host::{EndKind, HostError, NodeEnd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Message, Next, Owner};
use crate::node::guest_clock;
use crate::plan::Begin;
use crate::{limits, trouble};

impl Owner {
    pub(super) fn watch_all(&self) {
        for number in 0..self.nodes.len() {
            self.watch(number);
        }
    }

    /// Lets the owner hear when a node's machine ends.
    fn watch(&self, number: usize) {
        let node = &self.nodes[number];
        let pid = node
            .machine
            .as_ref()
            .and_then(|machine| i32::try_from(machine.pid()).ok())
            .and_then(Pid::from_raw);
        let (sender, boot) = (self.sender.clone(), node.boot);
        let Some(pid) = pid else { return };
        // The machine is our child and not yet reaped, so its pid is its own.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            let _ = sender.send(Message::Ended { node: number, boot });
            return;
        };
        let watch = move || {
            let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut fds, None) {}
            let _ = sender.send(Message::Ended { node: number, boot });
        };
        let started = thread::Builder::new().name("watch".into()).stack_size(64 << 10).spawn(watch);
        if let Err(error) = started {
            tracing::error!(%error, "a machine's end will not be noticed");
        }
    }

    /// A machine's process ended by itself: a guest that rebooted is booted again on its disks, any
    /// other stays down; with the last one, the keeper ends.
    pub(super) fn machine_ended(&mut self, number: usize, boot: u64) -> Next {
        let Some(node) = self.nodes.get_mut(number).filter(|node| node.boot == boot) else {
            return Next::GoOn;
        };
        let Some(mut machine) = node.machine.take() else { return Next::GoOn };
        let reason = match machine.wait_end(limits::PAUSED_COMMAND) {
            Ok(Some(reason)) => reason,
            Ok(None) => machine.kill(),
            Err(error) => EndReason::Crashed { detail: trouble::chain(&error) },
        };
        drop(machine);
        node.link = None;
        tracing::info!(branch = %self.branch, node = %node.spec.name, ?reason, "machine ended");
        if reason == EndReason::GuestReset {
            match self.boot_again(number) {
                Ok(()) => return Next::GoOn,
                Err(error) => self.publish_end(number, failed(&error)),
            }
        } else {
            self.publish_end(number, describe(&reason));
        }
        let gone = self.nodes.iter().all(|node| node.machine.is_none());
        if gone && !self.outlives_machines { Next::End } else { Next::GoOn }
    }

    pub(super) fn publish_end(&mut self, number: usize, end: NodeEnd) {
        self.nodes[number].kill();
        self.published.change(|view| {
            let node = &mut view.nodes[number];
            (node.state, node.ended) = (BranchState::Stopped, Some(end));
            (node.link, node.pid, node.greeted) = (None, None, false);
        });
        self.write_ends();
    }

    /// Writes how machines ended that are not running again.
    fn write_ends(&self) {
        let ended: Vec<(Name, NodeEnd)> = self.published.read(|view| {
            view.nodes
                .iter()
                .filter_map(|node| Some((node.name.clone(), node.ended.clone()?)))
                .collect()
        });
        let path = self.layout.branch_ends(&self.branch);
        match serde_json::to_vec(&ended) {
            Ok(json) => {
                if let Err(error) = std::fs::write(path, json) {
                    tracing::warn!(%error, "why the branch ended is lost");
                }
            }
            Err(error) => tracing::warn!(%error, "why the branch ended is lost"),
        }
    }

    pub(super) fn boot_again(&mut self, number: usize) -> Result<(), HostError> {
        let Self { layout, spec, hypervisor, nodes, network, .. } = self;
        let node = &mut nodes[number];
        let ports = network.replug(&node.spec.name)?;
        node.spawn(layout, spec, hypervisor.as_ref(), Begin::Boot, ports)?;
        node.prepare(layout)?;
        // A guest may have rebooted just before its branch was paused.
        let stands = self.published.read(|view| view.nodes[number].state == BranchState::Paused);
        let state = if stands { BranchState::Paused } else { BranchState::Running };
        if !stands {
            node.resume()?;
        }
        self.published.change(|view| {
            let (view, node) = (&mut view.nodes[number], &self.nodes[number]);
            (view.state, view.greeted, view.ended) = (state, false, None);
            view.pid = node.machine.as_ref().map(|machine| machine.pid());
            view.link = node.link.clone();
            view.started_at = node.started_at;
        });
        self.write_ends();
        self.watch(number);
        if !stands {
            self.greet_when_up(number);
        }
        Ok(())
    }

    /// Waits, beside the owner, for a guest that boots. Whoever waits for the same guest already
    /// hears that its epoch ended.
    pub(super) fn greet_when_up(&self, number: usize) {
        let node = &self.nodes[number];
        let Some(link) = node.link.clone() else { return };
        let (published, timeout) = (self.published.clone(), self.spec.ready_timeout);
        let clock = guest_clock(self.spec.clock);
        let greet = move || {
            let welcome = link.hello(clock, Instant::now() + timeout);
            match welcome {
                Ok(_) => published.change(|view| {
                    let view = &mut view.nodes[number];
                    view.greeted =
                        view.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, &link));
                }),
                Err(LinkError::EpochEnded { .. }) => {}
                Err(error) => tracing::warn!(%error, "the guest does not answer after its reboot"),
            }
        };
        let started = thread::Builder::new().name("greet".into()).spawn(greet);
        if let Err(error) = started {
            tracing::error!(%error, "a rebooted guest cannot be greeted");
        }
    }
}

/// Returns the end of a machine that could not be started again.
pub(super) fn failed(error: &HostError) -> NodeEnd {
    NodeEnd { kind: EndKind::Crashed, why: error.to_string() }
}

pub(super) fn describe(reason: &EndReason) -> NodeEnd {
    let kind = match reason {
        EndReason::GuestShutdown => EndKind::PoweredOff,
        _ => EndKind::Crashed,
    };
    let why = match reason {
        EndReason::GuestShutdown => "the guest shut down".into(),
        EndReason::GuestReset => "the guest rebooted".into(),
        EndReason::GuestPanic => "the guest's kernel panicked".into(),
        EndReason::Killed => "killed".into(),
        EndReason::Crashed { detail } => format!("the machine crashed: {detail}"),
    };
    NodeEnd { kind, why }
}
