//! Bringing a branch up: its switch, its machines, and its guests to where somebody may speak to them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pando_link::{ExecEvent, GuestLink, LinkError};
use pando_model::branch::BranchState;
use pando_model::guest::{Command, ExecSpec, Inherited, Stdin};
use pando_model::host::{AfterStart, Clock, HostError, StartReport};
use pando_model::{BranchId, Name};

use super::Owner;
use super::ends::describe;
use crate::node::{Node, each, try_each};
use crate::plan::Begin;
use crate::{console, limits, trouble};

/// What a guest answered to its machine's first greeting.
pub(super) struct Greeted {
    node: Name,
    /// Commands that were running at the cut and run on.
    pub inherited: Vec<Inherited>,
    /// How long after the machines' start.
    after: Duration,
}

impl Owner {
    /// Brings all nodes up, as the spec says.
    pub(super) fn start(&mut self) -> Result<StartReport, HostError> {
        let began = Instant::now();
        let Self { layout, spec, hypervisor, switches, nodes, network, .. } = self;
        let mut ports = network.open(layout, spec, switches.as_ref(), hypervisor.as_ref())?;
        for node in nodes.iter_mut() {
            let ports = ports.remove(&node.spec.name).unwrap_or_default();
            node.spawn(layout, spec, hypervisor.as_ref(), Begin::AsSpecified, ports)?;
        }
        try_each(nodes, |node| node.prepare(layout))?;
        network.wait_ready()?;
        if spec.after == AfterStart::Hold {
            self.held = true;
            self.publish_all(BranchState::Paused);
            self.watch_all();
            let held_us = trouble::micros(began.elapsed());
            return Ok(StartReport {
                answered_us: held_us,
                ready_us: held_us,
                inherited: BTreeMap::new(),
            });
        }
        let after = spec.after;
        let answers = self.come_up(after, began)?;
        let state = match after {
            AfterStart::Park => {
                self.network.hold()?;
                try_each(&mut self.nodes, Node::pause)?;
                BranchState::Paused
            }
            AfterStart::Run | AfterStart::Hold => BranchState::Running,
        };
        self.publish_all(state);
        self.watch_all();
        if state == BranchState::Running && self.spec.clock == Clock::Step {
            self.follow_clocks();
        }
        let ready_us = trouble::micros(began.elapsed());
        tracing::info!(branch = %self.branch, ready_us, "started");
        let answered = answers.iter().map(|answer| answer.after).max().unwrap_or_default();
        Ok(StartReport {
            answered_us: trouble::micros(answered),
            ready_us,
            inherited: answers.into_iter().map(|answer| (answer.node, answer.inherited)).collect(),
        })
    }

    /// Lets prepared machines run for the first time, greets their guests, and makes them who they
    /// shall be; the network works from then on. Returns what the guests answered.
    pub(super) fn come_up(
        &mut self,
        after: AfterStart,
        began: Instant,
    ) -> Result<Vec<Greeted>, HostError> {
        let Self { nodes, network, spec, branch, .. } = self;
        let lives = |node: &Node| node.machine.is_some();
        try_each(nodes, |node| if lives(node) { node.resume() } else { Ok(()) })?;
        let become_somebody = become_somebody(nodes);
        if !become_somebody {
            network.release()?;
        }
        let greeted = each(nodes, |node| {
            if !lives(node) {
                return Ok(None);
            }
            let welcome = node.greet(branch, spec.clock, spec.ready_timeout)?;
            let answered = began.elapsed();
            if !node.plan.restore {
                wait_booted(node, branch, spec.ready_timeout)?;
            }
            touch(node, branch, after)?;
            let node = node.spec.name.clone();
            Ok(Some(Greeted { node, inherited: welcome.inherited, after: answered }))
        });
        let greeted = greeted.into_iter().collect::<Result<Vec<_>, HostError>>()?;
        if become_somebody {
            network.release()?;
        }
        Ok(greeted.into_iter().flatten().collect())
    }

    /// Returns the better reason for a failed start: a machine that ended, and what it said last.
    pub(super) fn explain(&mut self, error: HostError) -> HostError {
        let deadline = Instant::now() + limits::LINGER;
        for node in &mut self.nodes {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = node.machine.as_mut().map(|machine| machine.wait_end(left));
            let Some(Ok(Some(reason))) = ended else { continue };
            let said = console::last_words(&node.plan.console, 3).unwrap_or_default();
            return HostError::Machine {
                node: node.spec.name.to_string(),
                detail: format!("{}; its console ends: {said}", describe(&reason).why),
            };
        }
        error
    }
}

/// Whether restored guests become nodes of their own. Until they have, they are the ready state of an
/// image, which must not speak to anybody. A guest that boots may need its network for that.
fn become_somebody(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| node.plan.restore)
        && nodes.iter().any(|node| node.spec.identity.is_some())
}

/// Waits until a guest that boots has booted: its guest program answers long before its services.
fn wait_booted(node: &Node, branch: &BranchId, timeout: Duration) -> Result<(), HostError> {
    let Some(link) = &node.link else { return Ok(()) };
    let booted = link.wait_booted(Instant::now() + timeout);
    let booted = booted.map_err(|e| trouble::link(branch, &node.spec.name, &e))?;
    if booted == pando_link::Booted::Degraded {
        tracing::warn!(node = %node.spec.name, "some services failed to start");
    }
    Ok(())
}

/// Does to a fresh guest what the spec wants: its identity, and a first command for parked copies.
fn touch(node: &Node, branch: &BranchId, after: AfterStart) -> Result<(), HostError> {
    let Some(link) = &node.link else { return Ok(()) };
    let failed = |e| trouble::link(branch, &node.spec.name, &e);
    let soon = Instant::now() + limits::GUEST_ANSWER;
    if let Some(identity) = &node.spec.identity {
        link.set_identity(identity, soon).map_err(failed)?;
    }
    if after == AfterStart::Park {
        warm_up(link, soon).map_err(failed)?;
    }
    Ok(())
}

/// Runs a command that does nothing, as most are run, and has the guest prepare for the next one: what
/// they all need is in memory then.
pub(super) fn warm_up(link: &GuestLink, deadline: Instant) -> Result<(), LinkError> {
    let spec = ExecSpec {
        command: Command::Shell("exec true".into()),
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        timeout_ms: trouble::millis(limits::GUEST_ANSWER),
        terminal: None,
        stdin: Stdin::Empty,
    };
    let handle = link.exec(&spec, deadline)?;
    while !matches!(handle.next_event(deadline)?, ExecEvent::Ended(_)) {}
    match link.settle(deadline) {
        Err(LinkError::Refused { .. }) => Ok(()),
        settled => settled,
    }
}
