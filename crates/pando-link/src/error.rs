//! Why a guest could not be asked or did not do what it was asked.

use std::time::Duration;

use pando_wire::guest::RefusalKind;

/// A request to a guest failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The guest did not answer in time; what was asked may still happen.
    #[error("the guest `{guest}` did not {what} within {waited:?}")]
    Deadline {
        /// The guest.
        guest: String,
        /// What was waited for, as a verb phrase.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The channel is gone: the machine ended, or the link was closed.
    #[error("the channel to the guest `{guest}` is closed")]
    Closed {
        /// The guest.
        guest: String,
    },
    /// The epoch that the request belonged to is over, or none was opened yet.
    #[error("the guest `{guest}` has begun another epoch")]
    EpochEnded {
        /// The guest.
        guest: String,
    },
    /// The guest refused, or tried and failed.
    #[error("the guest `{guest}` could not {what}: {message}")]
    Refused {
        /// The guest.
        guest: String,
        /// What was asked, as a verb phrase.
        what: &'static str,
        /// For programs.
        kind: RefusalKind,
        /// The guest's words.
        message: String,
    },
    /// The guest said something that is not its protocol. The epoch is over.
    #[error("the guest `{guest}` broke its protocol: {detail}")]
    Protocol {
        /// The guest.
        guest: String,
        /// What was wrong.
        detail: String,
    },
    /// The guest program is another release's, and speaks another version of the protocol.
    #[error("the guest program of `{guest}` speaks version {speaks} of its protocol, not {wanted}")]
    Version {
        /// The guest.
        guest: String,
        /// Its version.
        speaks: u32,
        /// Ours.
        wanted: u32,
    },
    /// The command or connection has already ended.
    #[error("the {what} in the guest `{guest}` has ended")]
    Ended {
        /// The guest.
        guest: String,
        /// "command" or "connection".
        what: &'static str,
    },
    /// The caller's own reader or writer failed.
    #[error("cannot {what} on the host")]
    Local {
        /// What failed, as a verb phrase.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
