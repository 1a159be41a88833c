//! The closed list of error codes. *What happened* is said by each crate's own error type; a code
//! is the stable name that clients match on. Adding one means adding it here, to the reference and
//! to a test that raises it.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $http:literal, $exit:literal, $recoverable:literal;)*) => {
        /// A stable, documented error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the reference.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// Returns the code as clients see it.
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $code,)* }
            }

            /// Returns the HTTP status that carries this code.
            pub const fn http_status(self) -> u16 {
                match self { $(ErrorCode::$variant => $http,)* }
            }

            /// Returns the exit status of the CLI for this code.
            pub const fn exit_status(self) -> u8 {
                match self { $(ErrorCode::$variant => $exit,)* }
            }

            /// Returns whether the same call may succeed later, or after the remedy.
            pub const fn recoverable(self) -> bool {
                match self { $(ErrorCode::$variant => $recoverable,)* }
            }
        }
    };
}

codes! {
    /// A parameter is missing, unknown, of the wrong type or out of range.
    InvalidParameter = "invalid_parameter", 400, 2, true;
    /// No verb has this name.
    UnknownVerb = "unknown_verb", 404, 2, false;
    /// What the address, id or tag names does not exist.
    NotFound = "not_found", 404, 3, true;
    /// The address fits several things and must be narrowed.
    Ambiguous = "ambiguous", 409, 2, true;
    /// Something with this name exists already.
    AlreadyExists = "already_exists", 409, 4, true;
    /// The object is not in a state in which this can be done.
    WrongState = "wrong_state", 409, 4, true;
    /// Another operation holds the object.
    Busy = "busy", 409, 4, true;
    /// The object is still needed by others.
    InUse = "in_use", 409, 4, true;
    /// The same idempotency key was used with other parameters.
    KeyReused = "key_reused", 409, 4, false;
    /// The request does not show who makes it: its token is missing or wrong.
    Unauthenticated = "unauthenticated", 401, 5, true;
    /// The caller may not do this.
    Forbidden = "forbidden", 403, 5, false;
    /// A wait passed its deadline; what was asked for may still happen.
    DeadlineExceeded = "deadline_exceeded", 504, 6, true;
    /// The operation was cancelled and undone.
    Cancelled = "cancelled", 409, 6, true;
    /// The guest program did not answer in time.
    GuestUnreachable = "guest_unreachable", 504, 6, true;
    /// The guest program refused or could not do what it was asked.
    GuestFailed = "guest_failed", 502, 1, true;
    /// A QEMU process ended or did not start.
    MachineFailed = "machine_failed", 502, 1, true;
    /// The keeper of a branch ended or does not answer.
    KeeperLost = "keeper_lost", 502, 1, true;
    /// A commit could not be taken cleanly; the branch goes on unchanged.
    CutUnclean = "cut_unclean", 503, 1, true;
    /// The disk has no room for this.
    DiskFull = "disk_full", 507, 7, true;
    /// The memory limit or the host's memory does not allow this.
    MemoryFull = "memory_full", 507, 7, true;
    /// A quota or a fixed limit does not allow this.
    LimitExceeded = "limit_exceeded", 429, 7, true;
    /// Stored data does not match its checksum.
    Corrupt = "corrupt", 500, 8, false;
    /// A commit needs another QEMU, CPU or accelerator than this host has.
    Incompatible = "incompatible", 409, 8, true;
    /// An image is not one that pando can safely use.
    ImageRefused = "image_refused", 422, 2, false;
    /// A topology's text is wrong; the message tells every error with its place and its fix.
    TopologyInvalid = "topology_invalid", 422, 2, true;
    /// A program, privilege or part of the kernel that this needs is missing or too old.
    ToolMissing = "tool_missing", 424, 9, true;
    /// An operation could neither be finished nor undone; its remedy repairs it.
    Stuck = "stuck", 500, 1, true;
    /// The daemon cannot be reached or started.
    DaemonUnreachable = "daemon_unreachable", 503, 9, true;
    /// The configuration file or environment has an error.
    ConfigInvalid = "config_invalid", 400, 9, true;
    /// This part exists in a later release only.
    Unsupported = "unsupported", 501, 2, false;
    /// A defect of pando itself.
    Internal = "internal", 500, 70, false;
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_serialise_as_they_print_and_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!(seen.insert(code.as_str()));
        }
    }
}
