//! How errors of the drivers become answers: *what happened* is theirs, the code and what to do
//! about it is added here, once.

use pando_api::ApiError;
use pando_driver::{HostError, ImageError, StoreError};
use pando_model::ErrorCode;

/// An error on its way to the caller.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub ApiError);

/// What the engine's functions return.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ApiError::new(code, message))
    }

    pub fn not_found(what: &str, name: &str) -> Self {
        Self(
            ApiError::new(ErrorCode::NotFound, format!("there is no {what} `{name}`"))
                .subject(name),
        )
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self(self.0.hint(hint))
    }

    pub fn subject(self, subject: impl Into<String>) -> Self {
        Self(self.0.subject(subject))
    }

    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// Returns whether the caller asked for the end.
    pub fn is_cancelled(&self) -> bool {
        self.0.code == ErrorCode::Cancelled
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let (code, hint) = match &error {
            HostError::ToolMissing { package, .. } => {
                let hint = format!("apt-get install {package}");
                return Self::new(ErrorCode::ToolMissing, error.to_string()).hint(hint);
            }
            HostError::NotRunning { .. } => {
                (ErrorCode::WrongState, Some("start it: `pando vm control ADDRESS start`"))
            }
            HostError::KeeperLost { .. } => {
                (ErrorCode::KeeperLost, Some("start it again, or branch from its last commit"))
            }
            HostError::NodeDown { .. } => {
                (ErrorCode::WrongState, Some("start it: `pando cluster start CLUSTER`"))
            }
            HostError::NoSuchNode { .. } => (ErrorCode::NotFound, None),
            HostError::Machine { .. } => {
                (ErrorCode::MachineFailed, Some("`pando console ADDRESS` shows its last words"))
            }
            HostError::GuestSilent { .. } => (
                ErrorCode::GuestUnreachable,
                Some(
                    "`pando console ADDRESS` shows what it does, `pando vm control ADDRESS \
                     restart` boots it anew",
                ),
            ),
            HostError::GuestVersion { speaks, wanted, .. } if speaks < wanted => (
                ErrorCode::Incompatible,
                Some(
                    "its image is of an older pando: `pando image rm NAME`, `pando image build NAME`",
                ),
            ),
            HostError::GuestVersion { .. } => {
                (ErrorCode::Incompatible, Some("its image is of a newer pando: use that one"))
            }
            HostError::GuestRefused { .. } => (ErrorCode::GuestFailed, None),
            HostError::WrongState { .. } => (
                ErrorCode::WrongState,
                Some("call again if somebody else is at it, or `pando vm control ADDRESS resume`"),
            ),
            HostError::PortTaken { .. } => (
                ErrorCode::InUse,
                Some("end what listens there, or write another `host_port` in the topology"),
            ),
            HostError::NoSwitch { .. } => (
                ErrorCode::WrongState,
                Some("a cluster made from a topology has one: `pando cluster define FILE`"),
            ),
            HostError::Network { .. } => {
                (ErrorCode::MachineFailed, Some("start the branch again, or roll it back"))
            }
            HostError::Restored { .. } => {
                (ErrorCode::WrongState, Some("call again: it is another incarnation now"))
            }
            HostError::CutUnclean { .. } => {
                (ErrorCode::CutUnclean, Some("the branch goes on unchanged; call again"))
            }
            HostError::Incompatible { .. } => {
                (ErrorCode::Incompatible, Some("its disk can still be started cold"))
            }
            HostError::Corrupt { .. } => (ErrorCode::Corrupt, None),
            HostError::Missing { .. } => (ErrorCode::NotFound, None),
            HostError::DiskFull { .. } => {
                (ErrorCode::DiskFull, Some("`pando gc` removes what nothing needs"))
            }
            HostError::MemoryFull { .. } => {
                (ErrorCode::MemoryFull, Some("stop or delete branches that you do not need"))
            }
            HostError::Deadline { .. } => (ErrorCode::DeadlineExceeded, None),
            HostError::Cancelled => (ErrorCode::Cancelled, None),
            HostError::Io { .. } | HostError::Protocol { .. } => (ErrorCode::Internal, None),
        };
        let failure = Self::new(code, error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        use std::error::Error;
        let message = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let (code, hint) = match &error {
            ImageError::ToolMissing { package, .. } => {
                (ErrorCode::ToolMissing, Some(format!("apt-get install {package}")))
            }
            ImageError::ToolFailed { .. } => {
                (ErrorCode::Internal, Some("`pando doctor` checks the tools".to_owned()))
            }
            ImageError::Refused { .. } | ImageError::Checksum { .. } => {
                (ErrorCode::ImageRefused, None)
            }
            ImageError::Invalid(_) => (ErrorCode::InvalidParameter, None),
            ImageError::NoMirror { .. } => {
                (ErrorCode::InvalidParameter, Some("give one with `mirror`".to_owned()))
            }
            ImageError::Corrupt { .. } => {
                (ErrorCode::Corrupt, Some("build or import it again".to_owned()))
            }
            ImageError::Missing(_) => (ErrorCode::NotFound, None),
            ImageError::DiskFull(_) => {
                (ErrorCode::DiskFull, Some("`pando gc` removes what nothing needs".to_owned()))
            }
            ImageError::Cancelled => (ErrorCode::Cancelled, None),
            ImageError::Io { .. } => (ErrorCode::Internal, None),
        };
        let failure = Self::new(code, message);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NameTaken { .. } => ErrorCode::AlreadyExists,
            StoreError::Guard { .. } => ErrorCode::Busy,
            StoreError::Corrupt { .. } => ErrorCode::Corrupt,
            StoreError::DiskFull => ErrorCode::DiskFull,
            StoreError::SchemaTooNew { .. } | StoreError::Io { .. } => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}
