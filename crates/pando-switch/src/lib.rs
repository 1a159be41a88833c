//! The network of one running branch: a user-space Ethernet switch, its services and its faults.
//!
//! It implements `Switches` and `Switch` of `pando-machine`. What decides is pure and synchronous
//! (values and the time in, frames out); one thread carries frames between it and the machines.

pub mod fuzz;
mod limits;
pub mod services;

use std::os::unix::net::UnixStream;
use std::path::Path;

use pando_machine::{Switch, SwitchError, Switches};
use pando_model::network::NetworkSpec;

/// Opens user-space switches.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserSwitches;

impl Switches for UserSwitches {
    fn open(
        &self,
        _spec: &NetworkSpec,
        _state: Option<&Path>,
    ) -> Result<(Box<dyn Switch>, Vec<UnixStream>), SwitchError> {
        Err(SwitchError::Misused("forward frames".to_owned()))
    }
}
