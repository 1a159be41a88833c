//! Requests that are one question and one answer.

use std::time::{Duration, Instant};

use pando_model::guest::{FileFacts, GuestFacts, Identity};
use pando_model::network::{ProbeResult, ProbeTarget};
use pando_wire::guest::{Booted, Listing, Reply, Request};

use crate::error::LinkError;
use crate::link::GuestLink;

/// All requests here fail with [`LinkError::Refused`], [`LinkError::Deadline`],
/// [`LinkError::Closed`], [`LinkError::EpochEnded`] or [`LinkError::Protocol`].
impl GuestLink {
    /// Asks whether the guest program answers.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn ping(&self, deadline: Instant) -> Result<(), LinkError> {
        self.done(&Request::Ping, "answer", deadline)
    }

    /// Describes a file; symbolic links are followed.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn stat(&self, path: &str, deadline: Instant) -> Result<FileFacts, LinkError> {
        let request = Request::Stat { path: path.to_owned() };
        self.call(&request, "describe the file", deadline, |reply| match reply {
            Reply::File(facts) => Some(facts),
            _ => None,
        })
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn list(&self, path: &str, deadline: Instant) -> Result<Listing, LinkError> {
        let request = Request::List { path: path.to_owned() };
        self.call(&request, "list the directory", deadline, |reply| match reply {
            Reply::Listing(listing) => Some(listing),
            _ => None,
        })
    }

    /// Asks the guest about itself.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn facts(&self, deadline: Instant) -> Result<GuestFacts, LinkError> {
        self.call(&Request::Facts, "tell its facts", deadline, |reply| match reply {
            Reply::Facts(facts) => Some(*facts),
            _ => None,
        })
    }

    /// Makes the node itself: names, keys, addresses. Doing it again changes nothing.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn set_identity(&self, identity: &Identity, deadline: Instant) -> Result<(), LinkError> {
        self.done(&Request::SetIdentity(identity.clone()), "take its identity", deadline)
    }

    /// Waits until the guest's own boot is complete.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn wait_booted(&self, deadline: Instant) -> Result<Booted, LinkError> {
        let left = deadline.saturating_duration_since(Instant::now());
        // The guest answers first, so that the error is its own and says more.
        let left = left.saturating_sub(Duration::from_millis(100));
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let request = Request::WaitBooted { timeout_ms };
        self.call(&request, "complete its boot", deadline, |reply| match reply {
            Reply::Booted(booted) => Some(booted),
            _ => None,
        })
    }

    /// Removes what must not be in a ready state: identity, addresses, caches.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn scrub(&self, deadline: Instant) -> Result<(), LinkError> {
        self.done(&Request::Scrub, "remove its identity", deadline)
    }

    /// Has the guest prepare for its next command, as it does by itself when it is idle, and waits
    /// until it has. A guest of an older version has nothing to prepare, and refuses.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn settle(&self, deadline: Instant) -> Result<(), LinkError> {
        self.done(&Request::Settle, "prepare for its next command", deadline)
    }

    /// Writes the guest's caches to its disks.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn sync(&self, deadline: Instant) -> Result<(), LinkError> {
        self.done(&Request::Sync, "sync its file systems", deadline)
    }

    /// Begins an orderly switch-off.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn power_off(&self, deadline: Instant) -> Result<(), LinkError> {
        self.done(&Request::PowerOff, "switch itself off", deadline)
    }

    /// Begins an orderly reboot.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn reboot(&self, deadline: Instant) -> Result<(), LinkError> {
        self.done(&Request::Reboot, "reboot", deadline)
    }

    /// Lets the guest measure the way to others: asks each target `count` times and waits for the
    /// answers for at most `timeout`, which must end before the deadline.
    ///
    /// # Errors
    /// Those of all requests.
    pub fn probe(
        &self,
        targets: Vec<ProbeTarget>,
        count: u32,
        timeout: Duration,
        deadline: Instant,
    ) -> Result<Vec<ProbeResult>, LinkError> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Probe { targets, count, timeout_ms };
        self.call(&request, "measure its network", deadline, |reply| match reply {
            Reply::Probed(results) => Some(results),
            _ => None,
        })
    }

    fn done(
        &self,
        request: &Request,
        what: &'static str,
        deadline: Instant,
    ) -> Result<(), LinkError> {
        self.call(request, what, deadline, |reply| matches!(reply, Reply::Done).then_some(()))
    }

    fn call<T>(
        &self,
        request: &Request,
        what: &'static str,
        deadline: Instant,
        pick: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T, LinkError> {
        let open = self.shared.open(request, what, deadline)?;
        let reply = open.answer(deadline)?;
        pick(reply).ok_or_else(|| open.wrong_reply())
    }
}
