//! How the errors of machines, links and deltas become the one error that crosses the protocol.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::time::Duration;

use pando_delta::DeltaError;
use pando_link::LinkError;
use pando_machine::{MachineError, SwitchError};
use pando_model::host::HostError;
use pando_model::{BranchId, Name};

/// Returns an error and its sources as one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let _ = write!(text, ": {next}");
        source = next.source();
    }
    text
}

/// Returns whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns whole microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A machine's error, as the node's.
pub fn machine(node: &Name, error: &MachineError) -> HostError {
    match error {
        MachineError::File { path, source, .. } if is_full(source) => {
            HostError::DiskFull { what: path.display().to_string() }
        }
        MachineError::ToolMissing { tool, package } => {
            HostError::ToolMissing { tool: (*tool).to_owned(), package: (*package).to_owned() }
        }
        _ => HostError::Machine { node: node.to_string(), detail: chain(error) },
    }
}

/// A delta's error.
pub fn delta(error: &DeltaError) -> HostError {
    match error {
        DeltaError::Corrupt { path, detail } => {
            HostError::Corrupt { what: path.display().to_string(), detail: detail.clone() }
        }
        DeltaError::File { path, .. } if error.is_disk_full() => {
            HostError::DiskFull { what: path.display().to_string() }
        }
        _ => HostError::Io { what: "save memory".into(), detail: chain(error) },
    }
}

/// A switch's error, as the branch's.
pub fn switch(branch: &BranchId, error: &SwitchError) -> HostError {
    match error {
        SwitchError::File { path, source } if is_full(source) => {
            HostError::DiskFull { what: path.display().to_string() }
        }
        SwitchError::Damaged { path, detail } => {
            HostError::Corrupt { what: path.display().to_string(), detail: detail.clone() }
        }
        _ => HostError::Network { branch: branch.clone(), detail: chain(error) },
    }
}

/// A link's error, as the node's.
pub fn link(branch: &BranchId, node: &Name, error: &LinkError) -> HostError {
    let node = node.to_string();
    match error {
        LinkError::Deadline { what, waited, .. } => {
            HostError::GuestSilent { node, what: (*what).to_owned(), waited_ms: millis(*waited) }
        }
        LinkError::Version { speaks, wanted, .. } => {
            HostError::GuestVersion { node, speaks: *speaks, wanted: *wanted }
        }
        LinkError::EpochEnded { .. } => HostError::Restored { branch: branch.clone() },
        LinkError::Refused { what, message, .. } => {
            HostError::GuestRefused { node, what: (*what).to_owned(), detail: message.clone() }
        }
        LinkError::Local { what, source } => {
            HostError::Io { what: (*what).to_owned(), detail: source.to_string() }
        }
        LinkError::Closed { .. } | LinkError::Protocol { .. } | LinkError::Ended { .. } => {
            HostError::Machine { node, detail: chain(error) }
        }
    }
}

/// The operating system's refusal to do `what`.
pub fn io(what: impl Into<String>, error: &io::Error) -> HostError {
    let what = what.into();
    if is_full(error) {
        return HostError::DiskFull { what };
    }
    HostError::Io { what, detail: error.to_string() }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
