//! The owner: the keeper's main thread, and the only one that touches machines. It starts them,
//! then does one command after another, and hears of machines that end.

mod ends;
mod pause;
mod start;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::time::{Duration, Instant};

use pando_machine::{DiskRole, EndReason, Hypervisor, MachineError, Switches};
use pando_model::branch::BranchState;
use pando_model::fault::Fault;
use pando_model::host::{AfterCut, BranchSpec, Clock, CutSpec, HostError, StopMode};
use pando_model::network::CaptureLimits;
use pando_model::{BranchId, Layout, Name};
use pando_wire::keeper::{Answer, Reply};

use self::ends::{describe, failed};
use self::start::warm_up;
use crate::clock::Clocks;
use crate::cut::{self, CutContext};
use crate::network::Network;
use crate::node::{Node, each, try_each_live};
use crate::published::{BranchView, NodeView, Published};
use crate::{KeeperConfig, console, limits, server, trouble};

/// What the owner is asked to do.
pub enum Command {
    Pause,
    Resume { clock: Clock },
    Stop { mode: StopMode },
    Cut { spec: CutSpec },
    MakeAnonymous { node: Name, timeout: Duration },
    Flatten { node: Name, disk: DiskRole, keep: std::path::PathBuf, timeout: Duration },
    CrashNode { node: Name },
    BootNode { node: Name },
    SetFaults { faults: Vec<Fault> },
    Network,
    BeginCapture { limits: CaptureLimits },
    EndCapture,
}

/// What reaches the owner.
pub enum Message {
    /// A client's command.
    Do(Command, SyncSender<Answer>),
    /// A machine's process ended: the node's number and its `boot`.
    Ended { node: usize, boot: u64 },
}

/// What an owner is made of.
struct Parts {
    layout: Layout,
    branch: BranchId,
    hypervisor: Arc<dyn Hypervisor>,
    switches: Arc<dyn Switches>,
}

struct Owner {
    layout: Layout,
    branch: BranchId,
    spec: BranchSpec,
    hypervisor: Arc<dyn Hypervisor>,
    switches: Arc<dyn Switches>,
    published: Arc<Published>,
    nodes: Vec<Node>,
    network: Network,
    clocks: Clocks,
    /// Whether the start ended with the guests as they were restored: the first resume ends it.
    held: bool,
    /// Whether the branch goes on when its last machine has ended, because it was ended on purpose.
    outlives_machines: bool,
    sender: Sender<Message>,
}

/// Whether the keeper goes on.
enum Next {
    GoOn,
    End,
}

/// Starts the branch and serves it until it ends.
pub fn run(config: KeeperConfig, spec: BranchSpec) -> ExitCode {
    let (sender, receiver) = channel();
    let KeeperConfig { layout, branch, hypervisor, switches, listener } = config;
    let parts = Parts { layout, branch, hypervisor, switches };
    let mut owner = Owner::new(parts, spec, sender.clone());
    let published = owner.published.clone();
    let identity = server::Identity {
        branch: owner.branch.clone(),
        token: owner.spec.token.clone(),
        generation: owner.spec.generation,
        accelerator: owner.spec.accelerator,
    };
    server::start(listener, identity, published.clone(), sender);

    let started = owner.start().map_err(|error| owner.explain(error));
    let failed = started.is_err();
    if let Err(error) = &started {
        tracing::error!(branch = %owner.branch, %error, "start failed");
        owner.kill_all();
    }
    published.change(|view| view.start = Some(started));
    if failed {
        linger(&published, 1);
        return ExitCode::FAILURE;
    }
    owner.serve(&receiver);
    linger(&published, 0);
    ExitCode::SUCCESS
}

/// Waits a moment until all requests are answered, and at least so many were.
fn linger(published: &Published, at_least: u64) {
    let soon = Instant::now() + limits::LINGER;
    let done = published
        .wait(soon, |view| (view.answers_due == 0 && view.answers_given >= at_least).then_some(()));
    if done.is_none() {
        tracing::debug!("somebody is left without an answer");
    }
}

fn first_view(node: &Node) -> NodeView {
    NodeView {
        name: node.spec.name.clone(),
        state: BranchState::Paused,
        ended: None,
        trouble: None,
        pid: None,
        layers: node.layers.clone(),
        link: None,
        greeted: false,
        started_at: Instant::now(),
    }
}

impl Owner {
    fn new(parts: Parts, spec: BranchSpec, sender: Sender<Message>) -> Self {
        let Parts { layout, branch, hypervisor, switches } = parts;
        let nodes: Vec<Node> =
            spec.nodes.iter().map(|node| Node::new(&layout, &spec, node.clone())).collect();
        let views = nodes.iter().map(first_view).collect();
        Self {
            published: Arc::new(Published::new(branch.clone(), views)),
            network: Network::none(spec.branch.clone()),
            layout,
            branch,
            spec,
            hypervisor,
            switches,
            nodes,
            clocks: Clocks::default(),
            held: false,
            outlives_machines: false,
            sender,
        }
    }

    fn publish_all(&self, state: BranchState) {
        self.published.change(|view| {
            for (view, node) in view.nodes.iter_mut().zip(&self.nodes) {
                view.state = state;
                view.pid = node.machine.as_ref().map(|machine| machine.pid());
                view.link = node.link.clone();
                view.greeted = node.is_greeted();
                view.started_at = node.started_at;
                view.layers = node.layers.clone();
            }
        });
    }

    fn serve(&mut self, messages: &Receiver<Message>) {
        let mut next_look = Instant::now() + limits::LOOK_AFTER;
        loop {
            let patience = next_look.saturating_duration_since(Instant::now());
            let next = match messages.recv_timeout(patience) {
                Ok(Message::Do(command, reply)) => self.obey(command, &reply),
                Ok(Message::Ended { node, boot }) => self.machine_ended(node, boot),
                Err(RecvTimeoutError::Timeout) => Next::GoOn,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Next::End = next {
                break;
            }
            // Each turn, for clients that never stop asking.
            if Instant::now() >= next_look {
                self.look_after();
                next_look = Instant::now() + limits::LOOK_AFTER;
            }
        }
        self.kill_all();
    }

    fn obey(&mut self, command: Command, reply: &SyncSender<Answer>) -> Next {
        let answer = match command {
            Command::Pause => self.pause(),
            Command::Resume { clock } => self.resume(clock),
            Command::Cut { spec } => self.cut(&spec),
            Command::MakeAnonymous { node, timeout } => self.make_anonymous(&node, timeout),
            Command::Flatten { node, disk, keep, timeout } => {
                self.flatten(&node, disk, &keep, timeout)
            }
            Command::CrashNode { node } => self.crash_node(&node),
            Command::BootNode { node } => self.boot_node(&node),
            Command::SetFaults { faults } => self.network.set_faults(faults),
            Command::Network => self.network.observe(),
            Command::BeginCapture { limits } => self.network.begin_capture(&self.layout, limits),
            Command::EndCapture => self.network.end_capture(),
            Command::Stop { mode } => {
                self.stop(mode);
                let _ = reply.send(Ok(Reply::Done));
                return Next::End;
            }
        };
        // A client that is gone has its result in the spool, or asks again.
        let _ = reply.send(answer);
        Next::GoOn
    }

    /// Notices guests that were stopped by trouble of the host, such as a full disk, and a switch that
    /// has ended or does not carry what it should.
    fn look_after(&mut self) {
        let ended = self.network.look_after();
        if ended != self.published.read(|view| view.network_ended.clone()) {
            tracing::error!(branch = %self.branch, ended, "the switch");
            self.published.change(|view| view.network_ended = ended);
        }
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let Some(machine) = &mut node.machine else { continue };
            if let Err(error) = console::bound(&node.plan.console) {
                tracing::warn!(node = %node.spec.name, %error, "the console keeps growing");
            }
            let trouble = match machine.trouble() {
                Ok(trouble) => trouble,
                Err(error) => Some(trouble::chain(&error)),
            };
            if let Some(trouble) = trouble {
                self.published.change(|view| {
                    let view = &mut view.nodes[number];
                    if view.state == BranchState::Running {
                        tracing::warn!(node = %view.name, trouble, "the guest stands still");
                        (view.state, view.trouble) = (BranchState::Paused, Some(trouble));
                    }
                });
            }
        }
    }

    fn state(&self) -> BranchState {
        self.published.read(BranchView::state)
    }

    fn set_state(&self, state: BranchState) {
        self.published.change(|view| {
            for node in &mut view.nodes {
                if node.state != BranchState::Stopped {
                    node.state = state;
                    node.trouble = None;
                }
            }
        });
    }

    fn live_nodes(
        &mut self,
        work: impl Fn(&mut Node) -> Result<(), HostError> + Sync,
    ) -> Result<(), HostError> {
        try_each_live(&mut self.nodes, work)
    }

    fn cut(&mut self, spec: &CutSpec) -> Answer {
        let running = self.state() == BranchState::Running;
        let Some(profile) = cut::profile(self.hypervisor.as_ref(), &self.nodes) else {
            return Err(HostError::NotRunning { branch: self.branch.clone() });
        };
        let context = CutContext { layout: &self.layout, branch: &self.branch, profile, running };
        let result = cut::cut(&mut self.nodes, &mut self.network, &context, spec);
        if result.is_ok() && running {
            self.catch_up(spec);
        }
        let stays = result.is_ok() && spec.then == AfterCut::StayPaused;
        self.published.change(|view| {
            view.cuts_due.retain(|due| *due != spec.commit);
            view.last_cut = result.as_ref().ok().cloned();
            for (view, node) in view.nodes.iter_mut().zip(&self.nodes) {
                view.layers = node.layers.clone();
                if stays && view.state == BranchState::Running {
                    view.state = BranchState::Paused;
                }
            }
        });
        result.map(|report| Reply::Cut { report })
    }

    fn number_of(&self, name: &Name) -> Result<usize, HostError> {
        let missing =
            || HostError::NoSuchNode { branch: self.branch.clone(), node: name.to_string() };
        self.nodes.iter().position(|node| node.spec.name == *name).ok_or_else(missing)
    }

    fn find(&mut self, name: &Name) -> Result<&mut Node, HostError> {
        let number = self.number_of(name)?;
        Ok(&mut self.nodes[number])
    }

    fn crash_node(&mut self, name: &Name) -> Answer {
        let number = self.number_of(name)?;
        if self.nodes[number].machine.is_some() {
            self.outlives_machines = true;
            self.publish_end(number, describe(&EndReason::Killed));
            tracing::info!(branch = %self.branch, node = %name, "crashed on request");
        }
        Ok(Reply::Done)
    }

    /// Boots a node without a machine on its disk; its guest is greeted beside the owner.
    fn boot_node(&mut self, name: &Name) -> Answer {
        let number = self.number_of(name)?;
        if self.nodes[number].machine.is_some() {
            return Ok(Reply::Done);
        }
        if self.state() == BranchState::Paused {
            return Err(HostError::WrongState {
                branch: self.branch.clone(),
                is: "paused".into(),
                wanted: "running".into(),
            });
        }
        if self.state() == BranchState::Stopped {
            // It may have been paused when its last machine ended.
            self.held = false;
            self.network.release()?;
        }
        if let Err(error) = self.boot_again(number) {
            self.publish_end(number, failed(&error));
            return Err(error);
        }
        Ok(Reply::Done)
    }

    fn make_anonymous(&mut self, name: &Name, timeout: Duration) -> Answer {
        let branch = self.branch.clone();
        let node = self.find(name)?;
        let Some(link) = node.link.clone() else {
            return Err(HostError::NotRunning { branch });
        };
        let failed = |e| trouble::link(&branch, name, &e);
        link.wait_booted(Instant::now() + timeout).map_err(failed)?;
        link.scrub(Instant::now() + limits::GUEST_ANSWER * 3).map_err(failed)?;
        // The guest dropped what it had read from its disk. The first command of every node that is
        // made of it would read some of that again.
        if let Err(error) = warm_up(&link, Instant::now() + limits::GUEST_ANSWER) {
            tracing::info!(node = %name, %error, "no command to warm it up");
        }
        Ok(Reply::Done)
    }

    fn flatten(
        &mut self,
        name: &Name,
        disk: DiskRole,
        keep: &std::path::Path,
        timeout: Duration,
    ) -> Answer {
        let node = self.find(name)?;
        let began = Instant::now();
        let slice = began + timeout.min(limits::FLATTEN_SLICE);
        let done = node.with_machine(|machine, _| match machine.flatten(disk, keep, slice) {
            Err(MachineError::Deadline { .. }) => Ok(false),
            result => result.map(|()| true),
        })?;
        if done {
            return Ok(Reply::Done);
        }
        Err(HostError::Deadline {
            what: format!("shortening the disk chain of `{name}`"),
            waited_ms: trouble::millis(began.elapsed()),
        })
    }

    /// Ends all machines, gently if asked.
    fn stop(&mut self, mode: StopMode) {
        if let (StopMode::Shutdown { timeout }, BranchState::Running) = (mode, self.state()) {
            let deadline = Instant::now() + timeout;
            each(&mut self.nodes, |node| shut_down(node, deadline));
        }
        self.kill_all();
    }

    fn kill_all(&mut self) {
        each(&mut self.nodes, Node::kill);
        self.network.close();
        self.published.change(|view| {
            for node in &mut view.nodes {
                node.state = BranchState::Stopped;
                node.link = None;
                node.pid = None;
            }
        });
    }
}

/// Asks the guest to switch itself off and waits for its machine's end until the deadline.
fn shut_down(node: &mut Node, deadline: Instant) {
    let asked = node.link.as_ref().is_some_and(|link| link.power_off(deadline).is_ok());
    let Some(machine) = &mut node.machine else { return };
    if !asked && let Err(error) = machine.power_button(deadline) {
        tracing::warn!(%error, "the guest cannot be asked to shut down");
        return;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    match machine.wait_end(left) {
        Ok(Some(_)) => {}
        Ok(None) => tracing::warn!(node = %node.spec.name, "did not shut down in time: killed"),
        Err(error) => tracing::warn!(%error, "shutting down"),
    }
}
