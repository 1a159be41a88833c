//! Captures: evidence of a node's state at one time, by aspect. They are compared, never restored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::guest::FileKind;

/// A side of a system's state.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Installed packages.
    Packages,
    /// Files under `/etc`.
    Config,
    /// All other files.
    Files,
    /// Units of the service manager.
    Services,
    /// Users and groups.
    Users,
    /// Listening sockets.
    Ports,
    /// Running processes.
    Processes,
    /// Environment of the first process, and of all logins.
    Env,
    /// Messages of the kernel.
    Kernel,
    /// Links, addresses, routes, resolver, host name and the kernel's network settings.
    Network,
    /// Tables of databases: their schema and rows.
    Database,
}

impl Aspect {
    /// Every aspect, in the order in which they are shown.
    pub const ALL: &'static [Self] = &[
        Self::Packages,
        Self::Config,
        Self::Files,
        Self::Services,
        Self::Users,
        Self::Ports,
        Self::Network,
        Self::Database,
        Self::Processes,
        Self::Env,
        Self::Kernel,
    ];

    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Config => "config",
            Self::Files => "files",
            Self::Services => "services",
            Self::Users => "users",
            Self::Ports => "ports",
            Self::Processes => "processes",
            Self::Env => "env",
            Self::Kernel => "kernel",
            Self::Network => "network",
            Self::Database => "database",
        }
    }
}

/// How much of an aspect a capture holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coverage {
    /// All of it.
    Complete,
    /// A part, and why not more.
    Partial(String),
    /// The system has no such thing, or it could not be read, and why.
    Absent(String),
}

/// A file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// What it is.
    pub kind: FileKind,
    /// Its number in its file system.
    pub inode: u64,
    /// When it or what is known of it changed last, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// When its contents changed last, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner's numeric id.
    pub uid: u32,
    /// Group's numeric id.
    pub gid: u32,
    /// What a symbolic link says.
    pub target: Option<String>,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Name, with `:ARCHITECTURE` where several may be installed.
    pub name: String,
    /// Version.
    pub version: String,
    /// Whether it is installed well, in the package manager's words.
    pub status: String,
}

/// A process; kernel threads are left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's number.
    pub parent: u32,
    /// Whose it is.
    pub uid: u32,
    /// When it started, in milliseconds after the boot.
    pub started_ms: u64,
    /// Its name.
    pub name: String,
    /// Its command line.
    pub command: String,
    /// The service that it belongs to, if to one.
    pub service: String,
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The local address.
    pub address: String,
    /// The port.
    pub port: u16,
    /// Name of the process that listens; empty when it is unknown.
    pub process: String,
    /// That process; 0 when it is unknown.
    pub pid: u32,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Name.
    pub name: String,
    /// Numeric id.
    pub uid: u32,
    /// Numeric id of the first group.
    pub gid: u32,
    /// Home.
    pub home: String,
    /// Shell.
    pub shell: String,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Numeric id.
    pub gid: u32,
    /// Its members, separated by commas.
    pub members: String,
}

/// A unit of the service manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `ssh.service`.
    pub name: String,
    /// `active`, `inactive`, `failed`, …
    pub active: String,
    /// `running`, `exited`, `dead`, …
    pub sub: String,
}

/// A message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLine {
    /// Its number, from the boot on.
    pub sequence: u64,
    /// Its level: 0 (emergency) to 7 (debug).
    pub level: u8,
    /// When, in microseconds after the boot.
    pub at_us: u64,
    /// What.
    pub text: String,
}

/// A database: one file, or one of a server's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Database {
    /// The file or directory that holds it: what is in there is told by the tables.
    pub place: String,
    /// What of it could not be told, and why.
    pub unknown: Option<String>,
    /// By name.
    pub tables: BTreeMap<String, Table>,
}

/// A table or view of a database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// `table`, `view`, …
    pub kind: String,
    /// Columns, indexes and constraints with their definitions, by kind and name: `column email`.
    pub parts: BTreeMap<String, String>,
    /// How many rows it has, if they were counted.
    pub rows: Option<u64>,
    /// A digest of all rows, in hex, if there were not too many.
    pub digest: Option<String>,
}

/// One piece of a capture, as a guest tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CaptureRecord {
    /// The entries that follow are in this directory.
    Directory(String),
    /// An entry of the directory that was named last.
    Entry(String, FileState),
    /// A package.
    Package(Package),
    /// A process.
    Process(Process),
    /// A listening socket.
    Port(Port),
    /// A user.
    User(User),
    /// A group.
    Group(Group),
    /// A unit.
    Service(Service),
    /// A variable: where it is from (`init`, `login`), its name and its value.
    Variable(String, String, String),
    /// A message of the kernel.
    Kernel(KernelLine),
    /// How much of an aspect was told.
    Coverage(Aspect, Coverage),
    /// A regular file's path and the digest of its contents, as in [`Capture::digests`]; empty when it
    /// could not be read.
    Digest(String, String),
    /// Something of the network, and what it is: `route default`, `via 10.0.0.1 on eth0`.
    Network(String, String),
    /// A database: its name and place, and what of it is not told.
    Database(String, String, Option<String>),
    /// A table: its database, its name and itself.
    Table(String, String, Table),
}

/// A node's state at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capture {
    /// The guest's clock when it was done, in nanoseconds since 1970.
    pub guest_ns: i64,
    /// How much the guest's clock was ahead of the host's then, in nanoseconds.
    pub ahead_ns: i64,
    /// How long the guest had run, in milliseconds.
    pub up_ms: u64,
    /// The kernel's boot id.
    pub boot_id: String,
    /// By absolute path.
    pub files: BTreeMap<String, FileState>,
    /// By name.
    pub packages: BTreeMap<String, Package>,
    /// In the order of their numbers.
    pub processes: BTreeSet<Process>,
    /// Listening sockets.
    pub ports: BTreeSet<Port>,
    /// By name.
    pub users: BTreeMap<String, User>,
    /// By name.
    pub groups: BTreeMap<String, Group>,
    /// By name.
    pub services: BTreeMap<String, Service>,
    /// By `SCOPE:NAME`.
    pub env: BTreeMap<String, String>,
    /// In the order of their numbers.
    pub kernel: Vec<KernelLine>,
    /// Links, addresses, routes and settings, by kind and name.
    #[serde(default)]
    pub network: BTreeMap<String, String>,
    /// By name: a file's path, or `postgresql:PORT/DATABASE`.
    #[serde(default)]
    pub databases: BTreeMap<String, Database>,
    /// What was asked for, and how much of it is here.
    pub coverage: BTreeMap<Aspect, Coverage>,
    /// Digests of files' contents, in hex, where they were needed; by absolute path. Equal ones are of equal
    /// contents: SHA-256, in which whole blocks of zeros are told apart.
    pub digests: BTreeMap<String, String>,
}

/// The end of a capture, as a guest tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Captured {
    /// The guest's clock, in nanoseconds since 1970.
    pub guest_ns: i64,
    /// How long the guest has run, in milliseconds.
    pub up_ms: u64,
    /// The kernel's boot id.
    pub boot_id: String,
}
