//! What a guest program may do to the world around it.

use std::path::{Path, PathBuf};

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the files are that the guest program itself reads and writes: tables of users,
    /// identity, environment. `/` in a machine.
    pub root: PathBuf,
    /// Whether the kernel's state may be changed.
    pub authority: Authority,
    /// What to do when the host's end goes away.
    pub hangup: Hangup,
    /// Whose children to wait for.
    pub children: Children,
}

/// Whether the kernel's state (clock, random numbers, host name, network, power) may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// This is the machine's own guest program.
    Machine,
    /// Only files under the root are written.
    Files,
}

/// What to do when the host's end goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// Wait for it to come back: a virtio port.
    Wait,
    /// Return: a socket.
    Return,
}

/// Whose children to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// All: this process exists for serving, and adopts what its commands leave behind.
    All,
    /// Only commands that it started itself: it is a guest in somebody else's process.
    Own,
}

impl Config {
    /// Returns how a machine's guest program serves.
    pub fn machine() -> Self {
        Self {
            root: PathBuf::from("/"),
            authority: Authority::Machine,
            hangup: Hangup::Wait,
            children: Children::All,
        }
    }

    /// Returns how a guest program serves inside a test: over a socket, on a thread, with its own
    /// files under `root`. Commands run on this machine as they would anywhere.
    pub fn embedded(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            authority: Authority::Files,
            hangup: Hangup::Return,
            children: Children::Own,
        }
    }
}
