//! One node of the branch: its machine, the link to its guest, and what its next delta is against.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, ScopedJoinHandle};
use std::time::{Duration, Instant};

use pando_delta::{LiveMemory, PageDigests};
use pando_link::{GuestClock, GuestLink, Welcome};
use pando_machine::{EndReason, Hypervisor, Machine, MachinePlan};
use pando_model::host::{BranchSpec, Clock, HostError, NodeSpec, NodeStart};
use pando_model::{BranchId, CommitId, Layout, NodeLayers};

use crate::limits;
use crate::plan::{self, Begin};
use crate::trouble;

/// What the next memory delta of a node applies to.
#[derive(Default)]
pub struct MemoryBase {
    /// The commit whose memory it is; `None` is zero memory.
    pub commit: Option<CommitId>,
    /// What the machine's written pages held there.
    pub digests: PageDigests,
    /// Whether pages that are not in `digests` are zero there.
    pub on_zero: bool,
}

/// One node.
pub struct Node {
    pub spec: NodeSpec,
    pub plan: MachinePlan,
    pub machine: Option<Box<dyn Machine>>,
    pub link: Option<Arc<GuestLink>>,
    pub layers: NodeLayers,
    pub memory: MemoryBase,
    /// Counts this node's machines; an end that is reported late is recognised by it.
    pub boot: u64,
    pub started_at: Instant,
    /// The guest's memory in the machine, once a commit asked for it: it stays where it is.
    pub live: Option<LiveMemory>,
}

impl Node {
    pub fn new(layout: &Layout, branch: &BranchSpec, spec: NodeSpec) -> Self {
        Self {
            plan: plan::machine_plan(layout, branch, &spec, Begin::AsSpecified),
            machine: None,
            link: None,
            layers: spec.layers.clone(),
            memory: MemoryBase::default(),
            boot: 0,
            started_at: Instant::now(),
            live: None,
            spec,
        }
    }

    /// Starts the machine's process, plugged into these ports of the branch's switch. Main thread
    /// only.
    pub fn spawn(
        &mut self,
        layout: &Layout,
        branch: &BranchSpec,
        hypervisor: &dyn Hypervisor,
        begin: Begin,
        ports: Vec<OwnedFd>,
    ) -> Result<(), HostError> {
        let spec = NodeSpec { layers: self.layers.clone(), ..self.spec.clone() };
        self.plan = plan::machine_plan(layout, branch, &spec, begin);
        self.memory = match &spec.start {
            NodeStart::Restore { commit, .. } if self.plan.restore => MemoryBase {
                commit: Some(commit.clone()),
                digests: PageDigests::default(),
                on_zero: false,
            },
            _ => {
                let ram = self.plan.shape.memory.bytes();
                pando_delta::flat::zero(&self.plan.memory_image, ram)
                    .map_err(|e| trouble::delta(&e))?;
                MemoryBase { on_zero: true, ..MemoryBase::default() }
            }
        };
        self.boot += 1;
        self.live = None;
        self.started_at = Instant::now();
        let name = &self.spec.name;
        let mut machine =
            hypervisor.spawn(&self.plan, ports).map_err(|e| trouble::machine(name, &e))?;
        let port = machine.take_guest_port().ok_or_else(|| HostError::Machine {
            node: name.to_string(),
            detail: "it has no guest channel".into(),
        })?;
        let link = GuestLink::new(port, name.as_str())
            .map_err(|e| trouble::io("open the guest channel", &e))?;
        self.link = Some(Arc::new(link));
        self.machine = Some(machine);
        Ok(())
    }

    /// Brings a spawned machine to where its guest could run, stopped.
    pub fn prepare(&mut self, layout: &Layout) -> Result<(), HostError> {
        let Self { spec, plan, machine: Some(machine), .. } = self else {
            return Err(self.has_no_machine());
        };
        let deadline = Instant::now() + limits::MACHINE_READY;
        let failed = |e| trouble::machine(&spec.name, &e);
        machine.wait_ready(deadline).map_err(failed)?;
        if let (true, NodeStart::Restore { commit, saved_as }) = (plan.restore, &spec.start) {
            let state = Layout::state_file(&layout.commit(commit), saved_as);
            machine.load_devices(&state, deadline).map_err(failed)?;
        }
        Ok(())
    }

    /// Lets the guest run.
    pub fn resume(&mut self) -> Result<(), HostError> {
        self.with_machine(|machine, deadline| machine.resume(deadline))
    }

    /// Stops the guest.
    pub fn pause(&mut self) -> Result<(), HostError> {
        self.with_machine(|machine, deadline| machine.pause(deadline))
    }

    /// Lets the guest run, without waiting for long: for a machine that may be stuck. It takes its
    /// commands in order, and does this one last, whenever it comes to.
    pub fn resume_if_it_answers(&mut self) -> Result<(), HostError> {
        let deadline = Instant::now() + limits::STUCK_COMMAND;
        let Self { machine: Some(machine), spec, .. } = self else {
            return Err(self.has_no_machine());
        };
        machine.resume(deadline).map_err(|e| trouble::machine(&spec.name, &e))
    }

    /// Runs one command of the hypervisor with the deadline of a paused guest.
    pub fn with_machine<T>(
        &mut self,
        run: impl FnOnce(&mut dyn Machine, Instant) -> Result<T, pando_machine::MachineError>,
    ) -> Result<T, HostError> {
        let deadline = Instant::now() + limits::PAUSED_COMMAND;
        match &mut self.machine {
            Some(machine) => {
                run(machine.as_mut(), deadline).map_err(|e| trouble::machine(&self.spec.name, &e))
            }
            None => Err(self.has_no_machine()),
        }
    }

    /// Finds the guest's memory in the machine; from the first time on, its writes are noted where the
    /// kernel can.
    pub fn find_memory(&mut self) -> Result<(), HostError> {
        if self.live.is_none() {
            let ram = self.with_machine(|machine, _| machine.ram())?;
            let live = LiveMemory::new(ram.pid, ram.address, ram.length);
            if !live.is_tracked() {
                tracing::info!(node = %self.spec.name, "the kernel does not note writes");
            }
            self.live = Some(live);
        }
        Ok(())
    }

    /// Returns the guest's memory, and what the latest commit holds of it.
    pub fn memory(&mut self) -> Result<(&mut LiveMemory, &MemoryBase), HostError> {
        match &mut self.live {
            Some(live) => Ok((live, &self.memory)),
            None => Err(HostError::Machine {
                node: self.spec.name.to_string(),
                detail: "where its memory is was not asked".into(),
            }),
        }
    }

    /// Opens a new epoch with the guest.
    pub fn greet(
        &self,
        branch: &BranchId,
        clock: Clock,
        timeout: Duration,
    ) -> Result<Welcome, HostError> {
        let link = self.link.as_ref().ok_or_else(|| self.has_no_machine())?;
        link.hello(guest_clock(clock), Instant::now() + timeout)
            .map_err(|e| trouble::link(branch, &self.spec.name, &e))
    }

    /// Whether requests can be made of the guest.
    pub fn is_greeted(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_greeted())
    }

    /// Kills the machine, if it runs.
    pub fn kill(&mut self) -> Option<EndReason> {
        self.link = None;
        self.machine.take().map(|mut machine| machine.kill())
    }

    pub fn has_no_machine(&self) -> HostError {
        HostError::NodeDown { node: self.spec.name.to_string() }
    }
}

/// Returns what a branch's clock is to a guest that is greeted.
pub fn guest_clock(clock: Clock) -> GuestClock {
    match clock {
        Clock::Step => GuestClock::Step,
        Clock::Frozen => GuestClock::Keep,
    }
}

/// Runs `work` on every node that has a machine and returns the first error, after all have ended.
pub fn try_each_live(
    nodes: &mut [Node],
    work: impl Fn(&mut Node) -> Result<(), HostError> + Sync,
) -> Result<(), HostError> {
    try_each(nodes, |node| if node.machine.is_some() { work(node) } else { Ok(()) })
}

/// Runs `work` on every node, at once where there are several, and returns the results in order.
pub fn each<R: Send>(nodes: &mut [Node], work: impl Fn(&mut Node) -> R + Sync) -> Vec<R> {
    let nothing = nodes.iter().map(|_| ()).collect();
    each_with(nodes, nothing, |node, ()| work(node))
}

/// Runs `work` on every node with its item, at once where there are several, and returns the results in
/// order.
pub fn each_with<T: Send, R: Send>(
    nodes: &mut [Node],
    items: Vec<T>,
    work: impl Fn(&mut Node, T) -> R + Sync,
) -> Vec<R> {
    match nodes {
        [node] => items.into_iter().map(|item| work(node, item)).collect(),
        _ => each_and(nodes, items, work, || ()).0,
    }
}

/// Runs `work` on every node with its item at once, and `beside` on this thread meanwhile.
pub fn each_and<T: Send, R: Send, B>(
    nodes: &mut [Node],
    items: Vec<T>,
    work: impl Fn(&mut Node, T) -> R + Sync,
    beside: impl FnOnce() -> B,
) -> (Vec<R>, B) {
    let tasks: Vec<_> = nodes.iter_mut().zip(items).map(|task| Mutex::new(Some(task))).collect();
    let perform = |task: &Mutex<Option<(&mut Node, T)>>| {
        let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
        task.map(|(node, item)| work(node, item))
    };
    std::thread::scope(|scope| {
        let perform = &perform;
        let start = |task| Builder::new().spawn_scoped(scope, move || perform(task)).ok();
        let workers: Vec<_> = tasks.iter().map(start).collect();
        let beside = beside();
        // What no thread could be had for is done here, now.
        let results = workers.into_iter().zip(&tasks).filter_map(|(worker, task)| match worker {
            Some(worker) => joined(worker),
            None => perform(task),
        });
        (results.collect(), beside)
    })
}

fn joined<R>(worker: ScopedJoinHandle<'_, R>) -> R {
    match worker.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs `work` on every node and returns the first error, after all have ended.
pub fn try_each(
    nodes: &mut [Node],
    work: impl Fn(&mut Node) -> Result<(), HostError> + Sync,
) -> Result<(), HostError> {
    each(nodes, work).into_iter().collect()
}
