//! The QEMU machine protocol (QMP): JSON messages, one a line, over a socket.
//!
//! [`Codec`] cuts bytes into messages, [`Session`] is the conversation (greeting, negotiation,
//! replies matched to requests, events queued); both are pure. [`Client`] is the only part with a
//! socket and a clock. QEMU is trusted to run, not to be sane: a guest that takes QEMU over can
//! send anything here, so parsing is total and every buffer is bounded.

mod client;
mod codec;
mod session;

pub use client::{Client, QmpError};
pub use codec::{Codec, Event, Message, ProtocolError};
pub use session::{Command, CommandError, Phase, RequestId, Session};
