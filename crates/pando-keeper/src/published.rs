//! What the owner publishes and the connection threads read: the branch's state, the guests' links,
//! how the start and the cuts went. One mutex, held for moments; a condition for those who wait.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pando_link::GuestLink;
use pando_model::branch::BranchState;
use pando_model::host::{CutReport, HostError, NodeEnd, StartReport};
use pando_model::{BranchId, CommitId, Name, NodeLayers};

/// One node, as others see it.
pub struct NodeView {
    pub name: Name,
    pub state: BranchState,
    pub ended: Option<NodeEnd>,
    /// What stopped the guest without being asked to.
    pub trouble: Option<String>,
    pub pid: Option<u32>,
    pub layers: NodeLayers,
    pub link: Option<Arc<GuestLink>>,
    /// Whether the guest has answered this machine's hello.
    pub greeted: bool,
    pub started_at: Instant,
}

/// The branch, as others see it.
pub struct BranchView {
    pub start: Option<Result<StartReport, HostError>>,
    pub nodes: Vec<NodeView>,
    /// Cuts that were asked for and have not ended.
    pub cuts_due: Vec<CommitId>,
    pub last_cut: Option<CutReport>,
    /// Why the switch no longer works.
    pub network_ended: Option<String>,
    /// Requests that were received and not yet answered.
    pub answers_due: usize,
    /// Requests that were answered.
    pub answers_given: u64,
}

impl BranchView {
    /// Returns the state of the branch: running while any node runs.
    pub fn state(&self) -> BranchState {
        let any = |state| self.nodes.iter().any(|node| node.state == state);
        if any(BranchState::Running) {
            BranchState::Running
        } else if any(BranchState::Paused) {
            BranchState::Paused
        } else {
            BranchState::Stopped
        }
    }
}

/// The shared view.
pub struct Published {
    branch: BranchId,
    view: Mutex<BranchView>,
    changed: Condvar,
}

impl Published {
    pub fn new(branch: BranchId, nodes: Vec<NodeView>) -> Self {
        let view = BranchView {
            start: None,
            nodes,
            cuts_due: Vec::new(),
            last_cut: None,
            network_ended: None,
            answers_due: 0,
            answers_given: 0,
        };
        Self { branch, view: Mutex::new(view), changed: Condvar::new() }
    }

    /// The branch that this is about.
    pub fn branch(&self) -> &BranchId {
        &self.branch
    }

    fn lock(&self) -> MutexGuard<'_, BranchView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns something of the view.
    pub fn read<T>(&self, read: impl FnOnce(&BranchView) -> T) -> T {
        read(&self.lock())
    }

    /// Changes the view and wakes those who wait.
    pub fn change<T>(&self, change: impl FnOnce(&mut BranchView) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `ready` finds something in the view, or until the deadline.
    pub fn wait<T>(
        &self,
        deadline: Instant,
        mut ready: impl FnMut(&mut BranchView) -> Option<T>,
    ) -> Option<T> {
        let mut view = self.lock();
        loop {
            if let Some(found) = ready(&mut view) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            view = self.changed.wait_timeout(view, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a node's guest answers and returns its link.
    pub fn link(&self, node: &Name, deadline: Instant) -> Result<Arc<GuestLink>, HostError> {
        let started = Instant::now();
        let silent = || HostError::GuestSilent {
            node: node.to_string(),
            what: "answer".into(),
            waited_ms: crate::trouble::millis(started.elapsed()),
        };
        let found = self.wait(deadline, |view| {
            let Some(found) = view.nodes.iter().find(|view| view.name == *node) else {
                return Some(Err(HostError::NoSuchNode {
                    branch: self.branch.clone(),
                    node: node.to_string(),
                }));
            };
            match (&found.link, found.state) {
                (_, BranchState::Stopped) => Some(Err(HostError::Machine {
                    node: node.to_string(),
                    detail: match &found.ended {
                        Some(end) => end.why.clone(),
                        None => "it has not started".into(),
                    },
                })),
                (_, BranchState::Paused) => Some(Err(HostError::WrongState {
                    branch: self.branch.clone(),
                    is: "paused".into(),
                    wanted: "running".into(),
                })),
                (Some(link), BranchState::Running) if found.greeted => Some(Ok(link.clone())),
                _ => None,
            }
        });
        found.unwrap_or_else(|| Err(silent()))
    }
}
