//! What the host and the guest program say to each other.
//!
//! The host opens an **epoch** with a random number: once when a machine starts, and again after
//! every restore. A guest that sees a new epoch drops all streams of the older one; frames of any
//! other epoch are ignored by both. Inside an epoch the host opens **streams**, one per request:
//!
//! ```text
//!   host                                     guest
//!   Hello{epoch…}          ───────────────▶
//!                          ◀───────────────  Welcome{boot id, inherited…}
//!   Clock{now}             ───────────────▶
//!   Open{stream, Exec}     ───────────────▶
//!                          ◀───────────────  Started{stream}
//!   Data, Eof              ───────────────▶  (standard input)
//!                          ◀───────────────  Data (output) …
//!   Credit                 ───────────────▶
//!                          ◀───────────────  Done{stream, reply or refusal}
//! ```
//!
//! Each stream and direction starts with [`STREAM_WINDOW_BYTES`](crate::limits) of credit; `Data`
//! uses it up, `Credit` grants more. Nobody sends what was not granted, so that neither a flooding
//! guest nor a slow reader makes the other end's memory grow. A request or reply that is longer
//! than a message is sent in parts. `Done` is a stream's last word; `Close` from the host ends a
//! stream without one (a command is then killed, a half-written file removed).

use pando_model::capture::{Aspect, Captured};
use pando_model::guest::{
    ExecOutcome, ExecSpec, FileFacts, GuestFacts, Identity, Inherited, OutputStream, PushSpec,
    TerminalSize,
};
use pando_model::network::{ProbeResult, ProbeTarget};
use serde::{Deserialize, Serialize};

use crate::limits::{MAX_MESSAGE_BYTES, MAX_REFUSAL_BYTES, MAX_REPLY_BYTES, MAX_REQUEST_BYTES};

mod bytes;

/// A stream's number; chosen by the host, used once in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u32);

/// Opens an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The host's [`GUEST_PROTOCOL`](crate::limits::GUEST_PROTOCOL).
    pub protocol: u32,
    /// Mixed into the guest kernel's random number generator, because two branches of one commit
    /// would otherwise draw the same numbers.
    #[serde(with = "bytes")]
    pub entropy: Vec<u8>,
}

/// Answers [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The guest's [`GUEST_PROTOCOL`](crate::limits::GUEST_PROTOCOL).
    pub protocol: u32,
    /// Version of the guest program.
    pub guest_version: String,
    /// The guest kernel's boot id.
    pub boot_id: String,
    /// Commands of older epochs that still run.
    pub inherited: Vec<Inherited>,
}

/// From the host to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostMessage<'a> {
    /// Opens an epoch, or asks again for the [`Welcome`] of the present one.
    Hello(Hello),
    /// Sets the guest's wall clock, in nanoseconds since 1970. Not part of [`Hello`], which may
    /// wait in a queue for as long as a machine boots.
    Clock {
        /// The time.
        unix_ns: u64,
    },
    /// Opens a stream with a part of an encoded [`Request`].
    Open {
        /// The new stream.
        stream: StreamId,
        /// No more parts follow.
        last: bool,
        /// The part.
        #[serde(borrow, with = "bytes")]
        part: &'a [u8],
    },
    /// Standard input, a file's contents, or bytes for a connection.
    Data {
        /// The stream.
        stream: StreamId,
        /// The bytes; never empty.
        #[serde(borrow, with = "bytes")]
        bytes: &'a [u8],
    },
    /// No more [`HostMessage::Data`] follows in this stream.
    Eof {
        /// The stream.
        stream: StreamId,
    },
    /// Allows the guest to send this many bytes more.
    Credit {
        /// The stream.
        stream: StreamId,
        /// How many.
        bytes: u32,
    },
    /// Sends a signal to a command's process group.
    Signal {
        /// The stream.
        stream: StreamId,
        /// Linux's number of the signal.
        signal: i32,
    },
    /// Changes the size of a command's terminal.
    Resize {
        /// The stream.
        stream: StreamId,
        /// The new size.
        size: TerminalSize,
    },
    /// Ends a stream at once.
    Close {
        /// The stream.
        stream: StreamId,
    },
}

/// From the guest to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestMessage<'a> {
    /// Answers [`HostMessage::Hello`].
    Welcome(Welcome),
    /// The command runs, or the connection is made.
    Started {
        /// The stream.
        stream: StreamId,
    },
    /// Output of a command, a file's contents, or bytes from a connection.
    Data {
        /// The stream.
        stream: StreamId,
        /// Which output; [`OutputStream::Stdout`] where there is only one.
        output: OutputStream,
        /// The bytes; never empty.
        #[serde(borrow, with = "bytes")]
        bytes: &'a [u8],
    },
    /// No more [`GuestMessage::Data`] follows in this stream of a connection.
    Eof {
        /// The stream.
        stream: StreamId,
    },
    /// Allows the host to send this many bytes more.
    Credit {
        /// The stream.
        stream: StreamId,
        /// How many.
        bytes: u32,
    },
    /// Ends a stream with a part of an encoded [`Answer`].
    Done {
        /// The stream.
        stream: StreamId,
        /// No more parts follow.
        last: bool,
        /// The part.
        #[serde(borrow, with = "bytes")]
        part: &'a [u8],
    },
    /// A frame of this epoch was lost on the way here: nothing more is done until a new one.
    Broken,
}

/// What a stream is opened for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Nothing; answered at once with [`Reply::Done`].
    Ping,
    /// Runs a command. [`Reply::Exec`].
    Exec(ExecSpec),
    /// Writes a file from the stream's data, which must be as long as the spec says.
    /// [`Reply::File`].
    Push(PushSpec),
    /// Reads a regular file into the stream's data. [`Reply::File`].
    Pull {
        /// Absolute path.
        path: String,
    },
    /// Describes a file. [`Reply::File`].
    Stat {
        /// Absolute path.
        path: String,
    },
    /// Lists a directory. [`Reply::Listing`].
    List {
        /// Absolute path.
        path: String,
    },
    /// [`Reply::Facts`].
    Facts,
    /// Makes the node itself. [`Reply::Done`].
    SetIdentity(Identity),
    /// Waits until the system's own boot is complete. [`Reply::Booted`].
    WaitBooted {
        /// When to give up, in milliseconds.
        timeout_ms: u64,
    },
    /// Removes what must not be in an image's ready state. [`Reply::Done`].
    Scrub,
    /// Writes all file systems' caches to their disks. [`Reply::Done`].
    Sync,
    /// Switches the machine off in an orderly way. [`Reply::Done`] when that has begun.
    PowerOff,
    /// Reboots the machine in an orderly way. [`Reply::Done`] when that has begun.
    Reboot,
    /// Connects to a TCP port and relays both directions. [`Reply::Done`] at its end.
    Connect {
        /// The guest's own address to connect to: an IP address.
        address: String,
        /// Port.
        port: u16,
    },
    /// Tells the guest's state, as records in the stream's data
    /// ([`capture`](crate::capture)). [`Reply::Captured`].
    Capture {
        /// Of what.
        aspects: Vec<Aspect>,
    },
    /// Digests the contents of regular files, as records in the stream's data.
    /// [`Reply::Captured`].
    Digest {
        /// Absolute paths; links are not followed.
        paths: Vec<String>,
    },
    /// Measures the way to other addresses. [`Reply::Probed`].
    Probe {
        /// Whom to ask, all at once.
        targets: Vec<ProbeTarget>,
        /// How often to ask each.
        count: u32,
        /// How long to wait for answers in all, in milliseconds.
        timeout_ms: u64,
    },
    /// Prepares for the next command, as a machine that is idle does by itself. [`Reply::Done`] when
    /// that is done. Guests of older versions refuse it.
    Settle,
}

/// What a request was answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// There is nothing to say.
    Done,
    /// A command ended.
    Exec(ExecOutcome),
    /// A file, after the request.
    File(FileFacts),
    /// A directory.
    Listing(Listing),
    /// The guest.
    Facts(Box<GuestFacts>),
    /// The boot's end.
    Booted(Booted),
    /// The end of a capture.
    Captured(Captured),
    /// What was measured, in the order of the targets.
    Probed(Vec<ProbeResult>),
}

/// The entries of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order of their names; symbolic links are not followed.
    pub entries: Vec<FileFacts>,
    /// There are more than were listed.
    pub truncated: bool,
}

/// How a system's boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Booted {
    /// Everything that should run does.
    Complete,
    /// The boot is over, but some services failed.
    Degraded,
    /// The guest has no service manager that could be asked.
    Unmanaged,
}

/// Why a request was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people: a lower-case fragment that names the object.
    pub message: String,
}

impl Refusal {
    /// Returns a refusal; an overlong message is cut.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_REFUSAL_BYTES));
        Self { kind, message }
    }

    /// Returns the refusal that an I/O error about `object` amounts to.
    pub fn from_io(object: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self::new(RefusalKind::of(error.kind()), format!("{object}: {error}"))
    }
}

/// Kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// A file, program, user or interface does not exist.
    NotFound,
    /// The guest's permissions do not allow it.
    Denied,
    /// It exists already.
    Exists,
    /// It is not the kind of file that is needed.
    WrongFileType,
    /// The guest's disk has no room.
    NoSpace,
    /// The request itself makes no sense.
    Invalid,
    /// Nothing listens there.
    ConnectionRefused,
    /// The guest's own wait ended.
    TimedOut,
    /// Too many or too large.
    Limit,
    /// This guest cannot do that.
    Unsupported,
    /// Any other failure.
    Io,
}

impl RefusalKind {
    /// Returns the kind for a kind of I/O error.
    pub fn of(kind: std::io::ErrorKind) -> Self {
        use std::io::ErrorKind as E;
        match kind {
            E::NotFound => Self::NotFound,
            E::PermissionDenied | E::ReadOnlyFilesystem => Self::Denied,
            E::AlreadyExists => Self::Exists,
            E::IsADirectory | E::NotADirectory => Self::WrongFileType,
            E::StorageFull | E::QuotaExceeded | E::FileTooLarge => Self::NoSpace,
            E::InvalidInput | E::InvalidFilename | E::ArgumentListTooLong => Self::Invalid,
            E::ConnectionRefused => Self::ConnectionRefused,
            E::TimedOut => Self::TimedOut,
            E::Unsupported => Self::Unsupported,
            _ => Self::Io,
        }
    }
}

/// The end of a stream, as [`GuestMessage::Done`] carries it.
pub type Answer = Result<Reply, Refusal>;

/// Bytes are not a message, or a value is too long to be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// These bytes are no message of this protocol.
    #[error("{bytes} bytes are not a {what}")]
    Malformed {
        /// What they should be.
        what: &'static str,
        /// How many there are.
        bytes: usize,
    },
    /// The value is longer than its limit.
    #[error("a {what} of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its encoded length.
        bytes: usize,
        /// The most it may be.
        limit: usize,
    },
}

fn encode<T: Serialize>(
    what: &'static str,
    value: &T,
    limit: usize,
) -> Result<Vec<u8>, MessageError> {
    let bytes = postcard::to_extend(value, Vec::new())
        .map_err(|_| MessageError::Malformed { what, bytes: 0 })?;
    if bytes.len() > limit {
        return Err(MessageError::TooLong { what, bytes: bytes.len(), limit });
    }
    Ok(bytes)
}

fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, MessageError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(MessageError::Malformed { what, bytes: bytes.len() }),
    }
}

impl<'a> HostMessage<'a> {
    /// Returns the message as a frame carries it.
    ///
    /// # Errors
    /// [`MessageError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode("message to the guest", self, MAX_MESSAGE_BYTES)
    }

    /// Returns the message that these bytes are.
    ///
    /// # Errors
    /// [`MessageError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MessageError> {
        decode("message to the guest", bytes)
    }
}

impl<'a> GuestMessage<'a> {
    /// Returns the message as a frame carries it.
    ///
    /// # Errors
    /// [`MessageError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode("message from the guest", self, MAX_MESSAGE_BYTES)
    }

    /// Returns the message that these bytes are.
    ///
    /// # Errors
    /// [`MessageError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MessageError> {
        decode("message from the guest", bytes)
    }
}

impl Request {
    /// Returns the request, to be cut into the parts of [`HostMessage::Open`].
    ///
    /// # Errors
    /// [`MessageError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode("request", self, MAX_REQUEST_BYTES)
    }

    /// Returns the request that these bytes are.
    ///
    /// # Errors
    /// [`MessageError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        decode("request", bytes)
    }
}

/// Returns an answer, to be cut into the parts of [`GuestMessage::Done`].
///
/// # Errors
/// [`MessageError::TooLong`].
pub fn encode_answer(answer: &Answer) -> Result<Vec<u8>, MessageError> {
    encode("answer", answer, MAX_REPLY_BYTES)
}

/// Returns the answer that these bytes are.
///
/// # Errors
/// [`MessageError::Malformed`].
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, MessageError> {
    decode("answer", bytes)
}

#[cfg(test)]
mod tests;
