//! The door to the engine: every front end holds a `dyn Control`, in the daemon the engine itself,
//! elsewhere a client of the daemon's socket.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pando_model::guest::{Command, ExecInput, ExecOutcome, ExecOutput, FileFacts, TerminalSize};
use pando_model::{Address, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::caller::Caller;
use crate::catalogue::Call;
use crate::error::ApiError;
use crate::operation::OperationView;

/// A command that the caller stays attached to: its input and output are streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Which node.
    pub address: Address,
    /// What to run; `None` is the user's login shell.
    #[serde(default)]
    pub command: Option<Command>,
    /// Added to the guest's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory.
    #[serde(default)]
    pub cwd: Option<String>,
    /// User name or number; root by default.
    #[serde(default)]
    pub user: Option<String>,
    /// Time after which its whole process tree is killed, in seconds.
    #[serde(default)]
    pub timeout_s: Option<u64>,
    /// Run on a terminal of this size.
    #[serde(default)]
    pub terminal: Option<TerminalSize>,
    /// Its standard input is empty: none will be sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_stdin: bool,
}

/// The two ends of an attached command that the engine holds. The caller's dropping of `input`'s
/// sender means no more input; its dropping of `output`'s receiver kills the command.
pub struct AttachIo {
    /// What the caller sends.
    pub input: mpsc::Receiver<ExecInput>,
    /// What the caller receives; bounded, so a slow caller slows the command down.
    pub output: mpsc::Sender<ExecOutput>,
}

/// A file that is streamed into a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// Which node.
    pub address: Address,
    /// Absolute path in the guest.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as user name or number; root by default.
    #[serde(default)]
    pub owner: Option<String>,
    /// Make missing parent directories.
    #[serde(default)]
    pub make_parents: bool,
    /// Size of the contents, in bytes; nothing appears unless all of them arrived.
    pub size: u64,
}

/// A file that is streamed out of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// Which node.
    pub address: Address,
    /// Absolute path in the guest.
    pub path: String,
}

/// The engine, as seen from outside. Dropping a returned future never stops an operation: a
/// caller that goes away finds it again by its id or idempotency key.
#[async_trait]
pub trait Control: Send + Sync {
    /// Does what the verb says and returns its result object. Verbs that are operations are
    /// waited for.
    ///
    /// # Errors
    /// Any [`pando_model::ErrorCode`].
    async fn call(&self, caller: &Caller, call: Call) -> Result<Value, ApiError>;

    /// Begins a verb that is an operation and returns its id once it is recorded; its result or
    /// error is then the operation's.
    ///
    /// # Errors
    /// What the gate refuses; `invalid_parameter` for a verb that is not an operation.
    async fn start(&self, caller: &Caller, call: Call) -> Result<OperationId, ApiError>;

    /// Returns the operation's present state and every later one, up to its final one, after
    /// which the sender is dropped.
    ///
    /// # Errors
    /// `not_found`.
    async fn watch_operation(
        &self,
        caller: &Caller,
        operation: &OperationId,
    ) -> Result<watch::Receiver<OperationView>, ApiError>;

    /// Runs a command with its streams attached and returns how it ended.
    ///
    /// # Errors
    /// As `exec_run`.
    async fn attach(
        &self,
        caller: &Caller,
        request: AttachRequest,
        io: AttachIo,
    ) -> Result<ExecOutcome, ApiError>;

    /// Writes a file in a guest from chunks; nothing appears unless all bytes arrived.
    ///
    /// # Errors
    /// As `file_push`.
    async fn push(
        &self,
        caller: &Caller,
        request: PushRequest,
        chunks: mpsc::Receiver<Vec<u8>>,
    ) -> Result<FileFacts, ApiError>;

    /// Reads a file from a guest into chunks.
    ///
    /// # Errors
    /// As `file_pull`.
    async fn pull(
        &self,
        caller: &Caller,
        request: PullRequest,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> Result<FileFacts, ApiError>;
}
