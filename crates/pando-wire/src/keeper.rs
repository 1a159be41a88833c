//! What the daemon and a branch's keeper say to each other: length-prefixed frames over a unix
//! stream, JSON for messages so that a newer daemon can drive the previous release's keepers,
//! raw bytes for data.
//!
//! ```text
//!   frame     length u32 (big endian, of what follows) · kind u8 · payload
//!
//!   daemon                         keeper
//!     Hello{protocol, token} ───────▶
//!     ◀─────────────────────── Hello{protocol, token, …} or an error
//!     Request ──────────────────────▶        any number, one after another
//!     Data, Control ⇄ Data                   while a request streams
//!     ◀─────────────────────── Answer
//! ```

use std::path::PathBuf;
use std::time::Duration;

use pando_model::capture::{Aspect, Captured};
use pando_model::fault::Fault;
use pando_model::guest::{
    ExecOutcome, ExecSpec, FileFacts, GuestFacts, OutputStream, PushSpec, TerminalSize,
};
use pando_model::host::{Clock, CutReport, CutSpec, HostError, Observation, StartReport, StopMode};
use pando_model::network::{
    CaptureLimits, FrameCapture, NetworkObservation, ProbeResult, ProbeTarget,
};
use pando_model::{BranchId, CommitId, DiskRole, Name};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The protocol's version; a keeper answers with its own and both use the lower.
pub const PROTOCOL: u32 = 1;

/// Most bytes of a frame's payload: what is told of the links of 64 nodes with all faults that a branch
/// may have fits.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// Most bytes of data in one frame.
pub const MAX_DATA: usize = 64 << 10;

const HEADER: usize = 5;

/// The first frame in each direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's [`PROTOCOL`].
    pub protocol: u32,
    /// The branch.
    pub branch: BranchId,
    /// The secret of this incarnation: each side refuses another's.
    pub token: String,
    /// The incarnation; 0 from a client that does not care.
    pub generation: u64,
}

/// What is asked of a keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Waits until the start has ended, well or not.
    AwaitStart {
        /// How long to wait.
        timeout: Duration,
    },
    /// What is the branch doing?
    Observe {
        /// Whether the memory of its processes is measured, too: the kernel looks at each of their pages.
        memory: bool,
    },
    /// Stop the guests.
    Pause,
    /// Let the guests go on.
    Resume {
        /// What happens to their clocks.
        clock: Clock,
    },
    /// End the machines and the keeper.
    Stop {
        /// How.
        mode: StopMode,
    },
    /// Make a cut.
    Cut {
        /// Of what.
        spec: CutSpec,
    },
    /// Wait for the cut that is under way, if it is this one.
    AwaitCut {
        /// The cut's commit.
        commit: CommitId,
        /// How long to wait.
        timeout: Duration,
    },
    /// Wait until the boot is complete, then remove every trace of identity.
    MakeAnonymous {
        /// The node.
        node: Name,
        /// How long the boot may take.
        timeout: Duration,
    },
    /// Shorten a disk chain.
    Flatten {
        /// The node.
        node: Name,
        /// Which of its disks.
        disk: DiskRole,
        /// The file that the top shall lie on.
        keep: PathBuf,
        /// How long it may take.
        timeout: Duration,
    },
    /// Run a command; [`Control`] and data in, data out.
    Exec {
        /// The node.
        node: Name,
        /// The command.
        spec: ExecSpec,
    },
    /// Write a file; data in until [`Control::Eof`].
    Push {
        /// The node.
        node: Name,
        /// The file.
        spec: PushSpec,
    },
    /// Read a file; data out.
    Pull {
        /// The node.
        node: Name,
        /// Absolute path.
        path: String,
    },
    /// Ask a guest about itself.
    Facts {
        /// The node.
        node: Name,
    },
    /// Tell a guest's state; records out ([`crate::capture`]).
    Capture {
        /// The node.
        node: Name,
        /// Of what.
        aspects: Vec<Aspect>,
    },
    /// Digest files' contents; records out.
    Digest {
        /// The node.
        node: Name,
        /// Absolute paths.
        paths: Vec<String>,
    },
    /// Open a port on the host's loopback.
    Forward {
        /// The node.
        node: Name,
        /// Port on the guest's loopback.
        port: u16,
        /// Which port of the host; any free one if `None`.
        #[serde(default)]
        host_port: Option<u16>,
    },
    /// Make these the faults that work.
    SetFaults {
        /// All of them.
        faults: Vec<Fault>,
    },
    /// What does the switch do, and what did it?
    Network,
    /// Kill a node's machine, as a power failure would.
    CrashNode {
        /// The node.
        node: Name,
    },
    /// Boot a node whose machine has ended on its disk, and wait until its guest has booted.
    BootNode {
        /// The node.
        node: Name,
        /// How long that may take.
        timeout: Duration,
    },
    /// Let a guest measure the way to others.
    Probe {
        /// The node.
        node: Name,
        /// Whom it asks.
        targets: Vec<ProbeTarget>,
        /// How often it asks each.
        count: u32,
        /// How long it waits for the last answers.
        timeout: Duration,
    },
    /// Copy frames to the branch's capture file.
    BeginCapture {
        /// What it may take.
        limits: CaptureLimits,
    },
    /// End the capture of frames.
    EndCapture,
}

/// What a client says while its request streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum Control {
    /// No more data.
    Eof,
    /// Send a signal to the command.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// The terminal's size changed.
    Resize {
        /// The new size.
        size: TerminalSize,
    },
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// The branch is up.
    Started {
        /// How it went.
        report: StartReport,
    },
    /// What the branch does.
    Observed {
        /// The observation.
        observation: Observation,
    },
    /// A cut was made.
    Cut {
        /// How it went.
        report: CutReport,
    },
    /// No such cut is under way.
    NoCut,
    /// A command ended.
    Ended {
        /// How.
        outcome: ExecOutcome,
    },
    /// A file was written or read.
    File {
        /// What it is.
        facts: FileFacts,
    },
    /// What a guest says of itself.
    Facts {
        /// The facts.
        facts: Box<GuestFacts>,
    },
    /// A guest's state was told.
    Captured {
        /// The guest's clock then.
        end: Captured,
    },
    /// A port is open.
    Forwarded {
        /// On the host's loopback.
        port: u16,
    },
    /// What the switch does.
    Network {
        /// The observation.
        observation: Box<NetworkObservation>,
    },
    /// What a guest measured.
    Probed {
        /// In the order of the targets.
        results: Vec<ProbeResult>,
    },
    /// A capture of frames has ended.
    CaptureEnded {
        /// What it took; `None` if there was none.
        capture: Option<FrameCapture>,
    },
}

/// The last frame of a request.
pub type Answer = Result<Reply, HostError>;

/// A frame as it goes over the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A JSON message: [`Hello`], [`Request`], [`Control`] or [`Answer`], as the state says.
    Message(Vec<u8>),
    /// Bytes of a stream. Input is always [`OutputStream::Stdout`].
    Data(OutputStream, Vec<u8>),
}

/// Why bytes are not frames, or a frame is not the message that is due.
#[derive(Debug, thiserror::Error)]
pub enum KeeperWireError {
    /// A frame says that it is longer than [`MAX_PAYLOAD`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// A frame has an unknown kind.
    #[error("a frame has the unknown kind {0}")]
    UnknownKind(u8),
    /// A message is not the one that is due.
    #[error("a message is not understood")]
    Message(#[source] serde_json::Error),
    /// Data came where a message is due.
    #[error("data came where a message is due")]
    UnexpectedData,
}

impl Frame {
    /// Returns the frame of a message.
    ///
    /// # Errors
    /// [`KeeperWireError::Message`] when the value has no JSON form; ours all have one.
    pub fn message<T: Serialize>(message: &T) -> Result<Self, KeeperWireError> {
        serde_json::to_vec(message).map(Self::Message).map_err(KeeperWireError::Message)
    }

    /// Returns the message that a frame holds.
    ///
    /// # Errors
    /// [`KeeperWireError::UnexpectedData`], [`KeeperWireError::Message`].
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, KeeperWireError> {
        match self {
            Self::Message(json) => serde_json::from_slice(json).map_err(KeeperWireError::Message),
            Self::Data(..) => Err(KeeperWireError::UnexpectedData),
        }
    }

    /// Returns the bytes of the frame.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::Message(json) => (0u8, json),
            Self::Data(OutputStream::Stdout, bytes) => (1, bytes),
            Self::Data(OutputStream::Stderr, bytes) => (2, bytes),
        };
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        let length = u32::try_from(payload.len() + 1).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Returns the length of what follows a frame's first four bytes.
    ///
    /// # Errors
    /// [`KeeperWireError::TooLong`].
    pub fn body_length(prefix: [u8; 4]) -> Result<usize, KeeperWireError> {
        let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        if length > MAX_PAYLOAD + 1 { Err(KeeperWireError::TooLong(length)) } else { Ok(length) }
    }

    /// Returns the frame whose body (what follows the length) is `body`. Total: any bytes.
    ///
    /// # Errors
    /// [`KeeperWireError::UnknownKind`].
    pub fn from_body(mut body: Vec<u8>) -> Result<Self, KeeperWireError> {
        if body.is_empty() {
            return Err(KeeperWireError::UnknownKind(u8::MAX));
        }
        match body.remove(0) {
            0 => Ok(Self::Message(body)),
            1 => Ok(Self::Data(OutputStream::Stdout, body)),
            2 => Ok(Self::Data(OutputStream::Stderr, body)),
            kind => Err(KeeperWireError::UnknownKind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Frame, KeeperWireError> {
        let prefix = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let length = Frame::body_length(prefix)?;
        Frame::from_body(bytes[4..4 + length].to_vec())
    }

    #[test]
    fn messages_cross_unchanged() {
        let answer: Answer = Err(HostError::Deadline { what: "x".into(), waited_ms: 5 });
        let frame = decode(&Frame::message(&answer).unwrap().encode()).unwrap();
        assert_eq!(frame.parse::<Answer>().unwrap(), answer);
    }

    #[test]
    fn a_giant_frame_is_refused_before_it_is_read() {
        assert!(matches!(Frame::body_length([0xff; 4]), Err(KeeperWireError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_body_decodes_or_fails(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(frame) = Frame::from_body(body.clone()) {
                let _ = frame.parse::<Request>();
                prop_assert_eq!(frame.encode()[4..].to_vec(), body);
            }
        }
    }
}
