//! The branch's network as the owner handles it: its switch and its nodes' ways to the outside, or
//! nothing of either, where each node has a network to itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use pando_machine::{
    Hypervisor, PortNumber, SavedSwitch, Settled, Switch, SwitchError, Switches, Uplink, UplinkPlan,
};
use pando_model::fault::Fault;
use pando_model::host::{BranchSpec, HostError};
use pando_model::network::{CaptureLimits, NetworkSpec};
use pando_model::{BranchId, Layout, Name, Uplink as Reach};
use pando_wire::keeper::{Answer, Reply};

use crate::{limits, trouble};

/// The machines' ends of a switch's ports, by node; those of a node by number of the interface.
pub type Ports = BTreeMap<Name, Vec<OwnedFd>>;

/// A branch's network.
pub struct Network {
    branch: BranchId,
    switch: Option<Box<dyn Switch>>,
    /// The nodes and interfaces of the switch's ports.
    ports: Vec<(Name, u8)>,
    /// Ended after the switch that they are attached to.
    uplinks: Vec<Box<dyn Uplink>>,
    /// While the switch is held: the ports whose machine had not read when it was.
    held: Option<Vec<(Name, u8)>>,
    /// Whether the switch shall forward, and was told so in vain.
    owes_release: bool,
}

impl Network {
    /// Returns no network yet.
    pub fn none(branch: BranchId) -> Self {
        Self {
            branch,
            switch: None,
            ports: Vec::new(),
            uplinks: Vec::new(),
            held: None,
            owes_release: false,
        }
    }

    /// Opens what the spec says, holding. Main thread only: uplinks are processes.
    pub fn open(
        &mut self,
        layout: &Layout,
        spec: &BranchSpec,
        switches: &dyn Switches,
        hypervisor: &dyn Hypervisor,
    ) -> Result<Ports, HostError> {
        let Some(network) = &spec.network else { return Ok(Ports::new()) };
        let state =
            network.restore.as_ref().map(|commit| Layout::network_file(&layout.commit(commit)));
        let failed = |e| trouble::switch(&spec.branch, &e);
        let (mut switch, ends) = switches.open(network, state.as_deref()).map_err(failed)?;
        for (node, plan) in uplinks(layout, spec, network) {
            let (uplink, outside) =
                hypervisor.spawn_uplink(&plan).map_err(|e| trouble::machine(node, &e))?;
            switch.attach_uplink(node, outside).map_err(failed)?;
            self.uplinks.push(uplink);
        }
        self.ports = network.ports.iter().map(|port| (port.node.clone(), port.nic)).collect();
        self.switch = Some(switch);
        let mut numbered: Vec<_> = self.ports.iter().cloned().zip(ends).collect();
        numbered.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut ports = Ports::new();
        for ((node, _), end) in numbered {
            ports.entry(node).or_default().push(end);
        }
        Ok(ports)
    }

    /// Waits until every way to the outside answers.
    pub fn wait_ready(&mut self) -> Result<(), HostError> {
        let deadline = Instant::now() + limits::UPLINK_READY;
        self.uplinks.iter_mut().try_for_each(|uplink| {
            uplink.wait_ready(deadline).map_err(|error| HostError::Network {
                branch: self.branch.clone(),
                detail: trouble::chain(&error),
            })
        })
    }

    /// Whether there is a switch.
    pub fn is_open(&self) -> bool {
        self.switch.is_some()
    }

    /// Asks the switch, if there is one.
    fn try_ask<T>(
        &mut self,
        question: impl FnOnce(&mut dyn Switch) -> Result<T, SwitchError>,
    ) -> Result<Option<T>, HostError> {
        let Self { branch, switch, .. } = self;
        let answer = switch.as_mut().map(|switch| question(switch.as_mut()));
        answer.transpose().map_err(|e| trouble::switch(branch, &e))
    }

    fn ask<T>(
        &mut self,
        question: impl FnOnce(&mut dyn Switch) -> Result<T, SwitchError>,
    ) -> Result<T, HostError> {
        let missing = HostError::NoSwitch { branch: self.branch.clone() };
        self.try_ask(question)?.ok_or(missing)
    }

    /// Stops forwarding, and waits until the machines have read what was sent to them: before they
    /// are stopped, because a stopped machine takes in frames that no commit has. Returns the ports
    /// whose machine does not read. Those of a switch that is held already are those of then: a machine
    /// that is stopped reads, and no commit has it.
    pub fn hold(&mut self) -> Result<Vec<(Name, u8)>, HostError> {
        self.owes_release = false;
        if let Some(stalled) = &self.held {
            return Ok(stalled.clone());
        }
        let stalled = self.try_ask(|switch| {
            switch.hold()?;
            switch.drain(Instant::now() + limits::DRAIN)
        })?;
        let named = |port: &PortNumber| self.ports.get(port.0).cloned();
        let stalled: Vec<_> = stalled.iter().flatten().filter_map(named).collect();
        self.held = Some(stalled.clone());
        Ok(stalled)
    }

    /// With the machines stopped: takes in what they sent before.
    pub fn settle(&mut self) -> Result<Settled, HostError> {
        Ok(self.try_ask(|switch| switch.settle())?.unwrap_or_default())
    }

    /// With the machines stopped: writes what the switch holds and does, and returns when.
    pub fn save(&mut self, to: &Path) -> Result<Option<(Timestamp, SavedSwitch)>, HostError> {
        self.try_ask(|switch| Ok((Timestamp::now(), switch.save(to)?)))
    }

    /// Goes on. If the switch does not take it, [`Network::look_after`] tells it again.
    pub fn release(&mut self) -> Result<(), HostError> {
        let released = self.try_ask(|switch| switch.release()).map(drop);
        self.owes_release = released.is_err();
        if released.is_ok() {
            self.held = None;
        }
        released
    }

    /// Releases what should have been released, and returns why the switch does not work, if it
    /// does not.
    pub fn look_after(&mut self) -> Option<String> {
        let works = if self.owes_release {
            self.release()
        } else {
            self.try_ask(|switch| switch.check()).map(drop)
        };
        works.err().map(|error| error.to_string())
    }

    /// Returns a node's new ends of its ports.
    pub fn replug(&mut self, node: &Name) -> Result<Vec<OwnedFd>, HostError> {
        if !self.ports.iter().any(|(plugged, _)| plugged == node) {
            return Ok(Vec::new());
        }
        Ok(self.try_ask(|switch| switch.replug(node))?.unwrap_or_default())
    }

    /// Ends the switch and the ways to the outside.
    pub fn close(&mut self) {
        self.switch = None;
        self.held = None;
        self.owes_release = false;
        self.uplinks.clear();
    }

    pub fn set_faults(&mut self, faults: Vec<Fault>) -> Answer {
        self.ask(|switch| switch.set_faults(faults)).map(|()| Reply::Done)
    }

    pub fn observe(&mut self) -> Answer {
        let observation = Box::new(self.ask(|switch| switch.observe())?);
        Ok(Reply::Network { observation })
    }

    /// Begins a capture into the branch's own directory, unless one is under way.
    pub fn begin_capture(&mut self, layout: &Layout, limits: CaptureLimits) -> Answer {
        let path = layout.frames_file(&self.branch);
        // The switch may still write to the former file.
        let next = path.with_extension("next");
        let failed = |source| SwitchError::File { path: next.clone(), source };
        let begun = self.ask(|switch| {
            let file = File::create(&next).map_err(failed)?;
            match switch.begin_capture(file, limits) {
                Ok(()) => fs::rename(&next, &path).map(|()| true).map_err(failed),
                Err(SwitchError::Misused(_)) => {
                    fs::remove_file(&next).map(|()| false).map_err(failed)
                }
                Err(error) => Err(error),
            }
        })?;
        if !begun {
            return Err(HostError::WrongState {
                branch: self.branch.clone(),
                is: "being captured".into(),
                wanted: "free for a capture".into(),
            });
        }
        Ok(Reply::Done)
    }

    pub fn end_capture(&mut self) -> Answer {
        let capture = self.ask(|switch| switch.end_capture())?;
        Ok(Reply::CaptureEnded { capture })
    }
}

/// Returns the nodes with a way to the outside, each with its plan: the node's first interface that
/// has an address in a network with an uplink.
fn uplinks<'a>(
    layout: &Layout,
    spec: &BranchSpec,
    network: &'a NetworkSpec,
) -> Vec<(&'a Name, UplinkPlan)> {
    let inside: Vec<_> =
        network.segments.iter().map(|segment| (segment.subnet, segment.prefix_bits)).collect();
    let mut plans: BTreeMap<&Name, (u8, UplinkPlan)> = BTreeMap::new();
    for port in &network.ports {
        let segment = network.segments.iter().find(|segment| segment.name == port.segment);
        let (Some(segment), Some(address)) = (segment, port.address) else { continue };
        let later = plans.get(&port.node).is_some_and(|(nic, _)| *nic < port.nic);
        if segment.uplink != Reach::Nat || later {
            continue;
        }
        let plan = UplinkPlan {
            name: format!("{}/{}", spec.title, port.node),
            address,
            prefix_bits: segment.prefix_bits,
            gateway: segment.gateway,
            inside: inside.clone(),
            log: layout.branch(&spec.branch).join(format!("{}.uplink.log", port.node)),
        };
        plans.insert(&port.node, (port.nic, plan));
    }
    plans.into_iter().map(|(node, (_, plan))| (node, plan)).collect()
}
