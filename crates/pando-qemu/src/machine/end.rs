//! Why a machine ended: what its events said before, and its exit status.

use std::process::ExitStatus;

use pando_machine::EndReason;

use crate::qmp::Event;

/// Collects what events say about the end.
#[derive(Debug, Default)]
pub struct EndTracker {
    /// `reason` of the SHUTDOWN event.
    shutdown: Option<String>,
    panicked: bool,
    killed: bool,
}

impl EndTracker {
    /// Takes in an event.
    pub fn note(&mut self, event: &Event) {
        match event.name.as_str() {
            "SHUTDOWN" => self.shutdown = event.text("reason").map(str::to_owned),
            "GUEST_PANICKED" => self.panicked = true,
            _ => {}
        }
    }

    /// We are about to kill it.
    pub const fn killed(&mut self) {
        self.killed = true;
    }

    /// Returns the reason of an end with `status`.
    pub fn reason(&self, status: ExitStatus, log_tail: &str) -> EndReason {
        if self.panicked {
            return EndReason::GuestPanic;
        }
        match self.shutdown.as_deref() {
            Some("guest-shutdown") => EndReason::GuestShutdown,
            Some("guest-reset" | "subsystem-reset") => EndReason::GuestReset,
            Some("guest-panic") => EndReason::GuestPanic,
            Some("host-qmp-quit") => EndReason::Killed,
            _ if self.killed => EndReason::Killed,
            _ => EndReason::Crashed { detail: describe(status, log_tail) },
        }
    }
}

/// Returns an exit status and the end of a log in words.
pub fn describe(status: ExitStatus, log_tail: &str) -> String {
    if log_tail.is_empty() { status.to_string() } else { format!("{status}: {log_tail}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_reason_is_what_qemu_said_last() {
        let crash = EndReason::Crashed { detail: "signal: 11 (SIGSEGV): oops".to_owned() };
        let cases = [
            (vec![("SHUTDOWN", "guest-shutdown")], EndReason::GuestShutdown),
            (vec![("SHUTDOWN", "guest-reset")], EndReason::GuestReset),
            (vec![("GUEST_PANICKED", ""), ("SHUTDOWN", "guest-panic")], EndReason::GuestPanic),
            (vec![("STOP", "")], crash.clone()),
            // Somebody else's SIGTERM.
            (vec![("SHUTDOWN", "host-signal")], crash),
        ];
        for (events, reason) in cases {
            let mut tracker = EndTracker::default();
            for (name, why) in &events {
                tracker.note(&Event { name: (*name).to_owned(), data: json!({ "reason": why }) });
            }
            assert_eq!(tracker.reason(ExitStatus::from_raw(11), "oops"), reason, "{events:?}");
        }
    }
}
