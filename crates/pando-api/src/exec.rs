//! Commands, files and consoles inside machines.

use std::collections::BTreeMap;

use pando_model::guest::Command;
use pando_model::limits::{DEFAULT_EXEC_TIMEOUT_S, DEFAULT_OUTPUT_BYTES};
use pando_model::{Address, OperationId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::limits::DEFAULT_CONSOLE_BYTES;

const fn exec_timeout() -> u64 {
    DEFAULT_EXEC_TIMEOUT_S
}

const fn output_bytes() -> u64 {
    DEFAULT_OUTPUT_BYTES
}

const fn console_bytes() -> u64 {
    DEFAULT_CONSOLE_BYTES
}

fn file_mode() -> String {
    "644".to_owned()
}

/// Returns the command that two mutually exclusive parameters name. Both absent or both present
/// was refused when the call was parsed.
pub(crate) fn command_of(command: Option<&String>, argv: &[String]) -> Command {
    match command {
        Some(line) => Command::Shell(line.clone()),
        None => Command::Argv(argv.to_vec()),
    }
}

/// Run a command inside a machine or a cluster's node and return its output. Give `command` or
/// `argv`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRunParams {
    /// `CLUSTER[@BRANCH][/NODE]` or an id; the only machine if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// A line for the guest's `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = pando_model::limits::MAX_ARGS))]
    pub argv: Vec<String>,
    /// Standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Added to the guest's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; the user's home if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User name or number; root if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When its whole process tree is killed, in seconds.
    #[serde(default = "exec_timeout")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_EXEC_TIMEOUT_S))]
    pub timeout_s: u64,
    /// Most bytes of stdout and of stderr; head and tail are kept.
    #[serde(default = "output_bytes")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_OUTPUT_BYTES))]
    pub max_output_bytes: u64,
    /// Return an operation at once.
    #[serde(default)]
    pub detach: bool,
}

impl ExecRunParams {
    /// Returns what is to be run.
    pub fn command(&self) -> Command {
        command_of(self.command.as_ref(), &self.argv)
    }
}

/// A command that ended. Bytes that are not UTF-8 are replaced in the text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ExecRunResult {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Its exit status; absent when a signal or the timeout ended it, or it still runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether it ran out of time and was killed.
    pub timed_out: bool,
    /// How long it ran in the guest, in milliseconds.
    pub duration_ms: f64,
    /// Bytes that it wrote to standard output.
    pub stdout_bytes: u64,
    /// Bytes that it wrote to standard error.
    pub stderr_bytes: u64,
    /// Whether the middle of standard output was left out.
    pub stdout_truncated: bool,
    /// Whether the middle of standard error was left out.
    pub stderr_truncated: bool,
    /// The operation, when it was detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Run one command in many branches at once: those in `branches`, or all running ones of `cluster`.
/// It succeeds if the command could be run anywhere; look at each result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecFanoutParams {
    /// Addresses or ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = pando_model::limits::MAX_FANOUT))]
    pub branches: Vec<Address>,
    /// A cluster, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// A line for the guest's `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = pando_model::limits::MAX_ARGS))]
    pub argv: Vec<String>,
    /// Standard input of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Added to the guest's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; the user's home if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User name or number; root if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When each one's whole process tree is killed, in seconds.
    #[serde(default = "exec_timeout")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_EXEC_TIMEOUT_S))]
    pub timeout_s: u64,
    /// Most bytes of each one's stdout and stderr; head and tail are kept.
    #[serde(default = "output_bytes")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_OUTPUT_BYTES))]
    pub max_output_bytes: u64,
}

impl ExecFanoutParams {
    /// Returns what is to be run.
    pub fn command(&self) -> Command {
        command_of(self.command.as_ref(), &self.argv)
    }
}

/// How it went in one branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FanoutRow {
    /// The address, as it was given or `CLUSTER@BRANCH`.
    pub branch: String,
    /// The command's end; empty when it could not be run.
    #[serde(flatten)]
    pub outcome: ExecRunResult,
    /// Why it could not be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// How it went everywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecFanoutResult {
    /// One entry for each branch, in the order given.
    pub results: Vec<FanoutRow>,
    /// In how many it exited with status 0.
    pub succeeded: u32,
    /// In how many it did not, or could not be run.
    pub failed: u32,
    /// From the first start to the last end, in milliseconds.
    pub duration_ms: u64,
}

/// Write a file inside a machine. It appears whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePushParams {
    /// `CLUSTER[@BRANCH][/NODE]` or an id.
    pub address: Address,
    /// Absolute path in the guest.
    pub path: String,
    /// The contents, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The contents, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Permission bits, in octal.
    #[serde(default = "file_mode")]
    pub mode: String,
    /// Owner, as user name or number; root if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Make missing parent directories.
    #[serde(default)]
    pub make_parents: bool,
}

impl FilePushParams {
    /// Returns the permission bits. What is no octal number was refused when the call was parsed.
    pub fn mode_bits(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(0o644)
    }
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilePushResult {
    /// Absolute path, symbolic links resolved.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Permission bits, in octal.
    pub mode: String,
}

/// Read a file inside a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePullParams {
    /// `CLUSTER[@BRANCH][/NODE]` or an id.
    pub address: Address,
    /// Absolute path in the guest.
    pub path: String,
    /// Most bytes to return, from the start.
    #[serde(default = "output_bytes")]
    #[schemars(range(min = 1, max = crate::limits::MAX_INLINE_FILE_BYTES))]
    pub max_bytes: u64,
}

/// A file that was read: `content` when it is UTF-8, `content_base64` otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilePullResult {
    /// Absolute path, symbolic links resolved.
    pub path: String,
    /// Size of the whole file, in bytes.
    pub size_bytes: u64,
    /// Permission bits, in octal.
    pub mode: String,
    /// The contents, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The contents, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Whether the file is longer than what was returned.
    pub truncated: bool,
}

/// Say how to log in to a machine over SSH: a forwarded port on this host and a key made for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectInfoParams {
    /// `CLUSTER[@BRANCH][/NODE]` or an id; the only machine if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectInfoResult {
    /// Always this host's loopback.
    pub host: String,
    /// The forwarded port; it ends with the branch's incarnation.
    pub port: u16,
    /// The user to log in as.
    pub user: String,
    /// The private key's file: the topology's while its file has that key, else the cluster's.
    pub key_path: String,
    /// How long ssh may take to connect, in seconds.
    pub connect_timeout_s: u32,
    /// The machine's host key as a line for `known_hosts`.
    pub known_hosts_line: String,
    /// The whole command.
    pub command: String,
}

/// Read a machine's serial console: its boot messages, and its kernel's last words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsoleReadParams {
    /// `CLUSTER[@BRANCH][/NODE]` or an id; the only machine if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Bytes to return: the last ones, or those from `offset`.
    #[serde(default = "console_bytes")]
    #[schemars(range(min = 1, max = crate::limits::MAX_CONSOLE_BYTES))]
    pub tail_bytes: u64,
    /// Start here instead: an earlier result's `next_offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// A piece of a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleReadResult {
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Where it ends; given as `offset`, continues after it.
    pub next_offset: u64,
}
