//! What the host and the guest program say to each other in words (the frames are
//! `pando-wire`'s): commands, files, facts, identity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::ByteCount;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A program and its arguments, found by the guest's `PATH`.
    Argv(Vec<String>),
    /// A line for the *guest's* `/bin/sh -c`.
    Shell(String),
}

/// Size of a terminal, in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TerminalSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// Where a command's standard input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// From whoever runs it, until its end is told.
    #[default]
    Open,
    /// There is none: it is at its end from the beginning, and nobody has to say so.
    Empty,
}

/// One command to run in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// What to run.
    pub command: Command,
    /// Added to the guest program's default environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; the user's home by default.
    pub cwd: Option<String>,
    /// User name or numeric id; root by default.
    pub user: Option<String>,
    /// Time after which the whole process tree is killed, in milliseconds.
    pub timeout_ms: u64,
    /// Run on a terminal of this size; stdout and stderr are then one stream.
    pub terminal: Option<TerminalSize>,
    /// Where its input comes from; a terminal's is always open.
    #[serde(default)]
    pub stdin: Stdin,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecStatus {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// It ran out of time and its process tree was killed.
    TimedOut,
}

impl ExecStatus {
    /// Returns the exit status a shell would give: the status, 128 + signal, or 124 for a timeout.
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
            Self::TimedOut => 124,
        }
    }
}

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutcome {
    /// How it ended.
    pub status: ExecStatus,
    /// How long it ran in the guest, in microseconds.
    pub duration_us: u64,
}

/// Which output a chunk belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What is sent to a running command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Standard input.
    Data(Vec<u8>),
    /// End of standard input.
    Eof,
    /// A signal by number.
    Signal(i32),
    /// A new terminal size.
    Resize(TerminalSize),
}

/// A piece of a command's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Which output.
    pub stream: OutputStream,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A file to be written in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushSpec {
    /// Absolute path in the guest.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as user name or number; root by default.
    pub owner: Option<String>,
    /// Make missing parent directories (mode 0755).
    pub make_parents: bool,
    /// Size of the contents, in bytes.
    pub size: u64,
}

/// What kind of file something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, where links are not followed.
    Symlink,
    /// A device, socket or pipe.
    Other,
}

/// A file or directory entry as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FileFacts {
    /// Absolute path, symbolic links resolved.
    pub path: String,
    /// What kind of file it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Owner's numeric id.
    pub uid: u32,
    /// Group's numeric id.
    pub gid: u32,
}

/// One network interface's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InterfaceFacts {
    /// Name in the guest.
    pub name: String,
    /// MAC address, `52:54:00:…`.
    pub mac: String,
    /// Whether the link is up.
    pub up: bool,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
}

/// A command that was running when the branch was cut, and runs on in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Inherited {
    /// The process id in the guest.
    pub pid: u32,
    /// What was run, as one line.
    pub command: String,
}

/// What a guest says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GuestFacts {
    /// Host name.
    pub hostname: String,
    /// Kernel release.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub os: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Time since boot, in milliseconds.
    pub uptime_ms: u64,
    /// Runnable processes, averaged over a minute, in hundredths.
    pub load_percent: u64,
    /// RAM as the kernel sees it.
    pub memory_total: ByteCount,
    /// RAM that could be used.
    pub memory_available: ByteCount,
    /// Size of the root file system.
    pub disk_total: ByteCount,
    /// Free space of the root file system.
    pub disk_free: ByteCount,
    /// Its network interfaces, loopback excepted.
    pub interfaces: Vec<InterfaceFacts>,
    /// Running services: systemd units, or what a minimal init supervises.
    pub services: Vec<String>,
    /// Units that failed.
    pub failed_services: Vec<String>,
    /// Version of the guest program.
    pub guest_version: String,
}

/// One interface's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceConfig {
    /// Which interface, by its MAC address.
    pub mac: String,
    /// The MAC address that it has until it gets that one: an image's ready state has its own.
    #[serde(default)]
    pub was: Option<String>,
    /// Address with prefix length, such as `10.0.2.15/24`.
    pub address: String,
    /// Further addresses, likewise.
    #[serde(default)]
    pub more: Vec<String>,
    /// Default route, if any.
    pub gateway: Option<String>,
    /// Name servers.
    pub dns: Vec<String>,
}

/// What makes a node itself; set once, on a new node from an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Host name.
    pub hostname: String,
    /// systemd's machine id: 32 hex digits.
    pub machine_id: String,
    /// SSH host key (ed25519) in OpenSSH's private key format.
    pub ssh_host_key: String,
    /// Its public half, as one line.
    pub ssh_host_key_public: String,
    /// Public keys that may log in as root, one line each.
    pub authorized_keys: Vec<String>,
    /// Its network.
    pub interfaces: Vec<InterfaceConfig>,
    /// Environment for all commands and services (`/etc/environment`).
    pub env: BTreeMap<String, String>,
}
