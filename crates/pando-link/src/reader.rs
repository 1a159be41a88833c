//! The reader thread: takes frames off the socket and puts them where they belong. It never
//! writes and never waits for a caller, so that nothing a caller does can stop it.

use std::os::unix::net::UnixStream;

use pando_wire::frame::{Decoder, Frame};
use pando_wire::guest::{GuestMessage, StreamId};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::limits::READ_BYTES;
use crate::link::{Shared, State};
use crate::stream::Inbox;

/// Reads `socket` until its end.
pub fn run(socket: &UnixStream, shared: &Shared) {
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((0, _)) => break,
            Ok((count, _)) => {
                let mut input = buffer.get(..count).unwrap_or_default();
                while let Some(frame) = decoder.next(&mut input) {
                    receive(shared, &frame);
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    shared.close();
}

fn receive(shared: &Shared, frame: &Frame<'_>) {
    let mut state = shared.state();
    if state.epoch != Some(frame.epoch) {
        return;
    }
    let message = match GuestMessage::decode(frame.message) {
        Ok(message) => message,
        Err(error) => return shared.break_epoch(&mut state, &error.to_string()),
    };
    if let GuestMessage::Welcome(welcome) = message {
        state.expected = frame.sequence.wrapping_add(1);
        state.welcome = Some(welcome);
        return shared.wake();
    }
    if state.welcome.is_none() || frame.sequence != state.expected {
        return shared.break_epoch(&mut state, "frames are missing");
    }
    state.expected = state.expected.wrapping_add(1);
    match message {
        GuestMessage::Welcome(_) => {}
        GuestMessage::Started { stream } => state.change(stream, |inbox| inbox.started = true),
        GuestMessage::Data { stream, output, bytes } => {
            state.change(stream, |inbox| inbox.receive(output, bytes));
        }
        GuestMessage::Eof { stream } => state.change(stream, |inbox| inbox.eof = true),
        GuestMessage::Credit { stream, bytes } => {
            state.change(stream, |inbox| inbox.credit = inbox.credit.saturating_add(bytes));
        }
        GuestMessage::Done { stream, last, part } => {
            state.change(stream, |inbox| inbox.receive_answer(last, part));
        }
        GuestMessage::Broken => shared.break_epoch(&mut state, "it lost a frame"),
    }
}

impl State {
    /// Changes a stream; one that was dropped meanwhile is nobody's any more.
    fn change(&self, stream: StreamId, change: impl FnOnce(&mut Inbox)) {
        if let Some(stream) = self.streams.get(&stream) {
            stream.change(change);
        }
    }
}
