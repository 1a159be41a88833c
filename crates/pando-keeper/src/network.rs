//! The branch's switch, as the owner asks it.

use std::fs::File;

use pando_machine::{Switch, SwitchError};
use pando_model::fault::Fault;
use pando_model::host::HostError;
use pando_model::network::CaptureLimits;
use pando_model::{BranchId, Layout};
use pando_wire::keeper::{Answer, Reply};

use crate::trouble;

/// A branch's network: a switch, or none.
pub struct Network {
    branch: BranchId,
    switch: Option<Box<dyn Switch>>,
}

impl Network {
    /// Returns the network of a branch whose nodes have one each, to themselves.
    pub fn none(branch: BranchId) -> Self {
        Self { branch, switch: None }
    }

    fn ask<T>(
        &mut self,
        question: impl FnOnce(&mut dyn Switch) -> Result<T, SwitchError>,
    ) -> Result<T, HostError> {
        let Self { branch, switch } = self;
        let switch =
            switch.as_mut().ok_or_else(|| HostError::NoSwitch { branch: branch.clone() })?;
        question(switch.as_mut()).map_err(|e| trouble::switch(branch, &e))
    }

    pub fn set_faults(&mut self, faults: Vec<Fault>) -> Answer {
        self.ask(|switch| switch.set_faults(faults)).map(|()| Reply::Done)
    }

    pub fn observe(&mut self) -> Answer {
        let observation = Box::new(self.ask(|switch| switch.observe())?);
        Ok(Reply::Network { observation })
    }

    /// Begins a capture into the branch's own directory.
    pub fn begin_capture(&mut self, layout: &Layout, limits: CaptureLimits) -> Answer {
        let path = layout.frames_file(&self.branch);
        self.ask(|switch| {
            // The switch may still write to the former file.
            switch.end_capture()?;
            let file = File::create(&path).map_err(|source| SwitchError::File { path, source })?;
            switch.begin_capture(file, limits)
        })
        .map(|()| Reply::Done)
    }

    pub fn end_capture(&mut self) -> Answer {
        let capture = self.ask(|switch| switch.end_capture())?;
        Ok(Reply::CaptureEnded { capture })
    }
}
