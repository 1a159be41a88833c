//! The port and the epoch: what comes in, in which epoch, and to whom it is given.

use std::io;
use std::time::Instant;

use pando_wire::frame::Frame;
use pando_wire::guest::{GuestMessage, Hello, HostMessage, Welcome};
use pando_wire::limits::{GUEST_PROTOCOL, MAX_INHERITED};
use rustix::event::PollFlags;

use super::Server;
use crate::channel::Read;
use crate::command::Command;
use crate::config::Hangup;
use crate::spawn::is_hung_up;
use crate::sys::{self, Async};
use crate::{clock, facts};

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Go,
    End,
}

impl Server {
    pub(super) fn read_port(&mut self, flags: PollFlags) -> io::Result<Turn> {
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            // It can be written again; the next flush does.
            return Ok(Turn::Go);
        }
        let mut input = Vec::new();
        let read = self.channel.read(&mut input)?;
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut rest = input.as_slice();
        while let Some(frame) = decoder.next(&mut rest) {
            self.receive(&frame);
        }
        self.decoder = decoder;
        match (read, self.config.hangup) {
            (Read::Turn, _) => Ok(Turn::Go),
            (Read::End, Hangup::Return) => Ok(Turn::End),
            (Read::End, Hangup::Wait) => {
                sys::set_async(self.channel.port(), Async::On)?;
                // It may have come back before the kernel was told to say so.
                self.away = is_hung_up(&self.channel.port())?;
                if !self.away {
                    sys::set_async(self.channel.port(), Async::Off)?;
                }
                Ok(Turn::Go)
            }
        }
    }

    pub(super) fn receive(&mut self, frame: &Frame<'_>) {
        let message = HostMessage::decode(frame.message);
        if let Ok(HostMessage::Hello(hello)) = &message {
            return self.hello(frame, hello);
        }
        if self.epoch != Some(frame.epoch) || self.expected.is_none() {
            return;
        }
        let Ok(message) = message else { return self.broken() };
        if self.expected != Some(frame.sequence) {
            return self.broken();
        }
        self.expected = Some(frame.sequence.wrapping_add(1));
        self.on_message(&message);
    }

    pub(super) fn hello(&mut self, frame: &Frame<'_>, hello: &Hello) {
        self.expected = Some(frame.sequence.wrapping_add(1));
        if self.epoch != Some(frame.epoch) {
            self.drop_streams();
            self.epoch = Some(frame.epoch);
            self.channel.begin(frame.epoch);
            let reseeded = self.random.reseed(&hello.entropy);
            self.generation.begin(Instant::now(), reseeded);
        }
        let inherited = self.commands.values().filter_map(Command::inherited);
        let welcome = Welcome {
            protocol: GUEST_PROTOCOL,
            guest_version: env!("CARGO_PKG_VERSION").into(),
            boot_id: facts::boot_id(),
            inherited: inherited.take(MAX_INHERITED).collect(),
        };
        self.channel.post(&GuestMessage::Welcome(welcome));
    }

    /// Ends all streams; commands go on.
    pub(super) fn drop_streams(&mut self) {
        self.streams.clear();
        self.commands.values_mut().for_each(Command::disinherit);
    }

    pub(super) fn broken(&mut self) {
        self.expected = None;
        self.drop_streams();
        self.channel.post(&GuestMessage::Broken);
    }

    pub(super) fn on_message(&mut self, message: &HostMessage<'_>) {
        match *message {
            HostMessage::Hello(_) => {}
            HostMessage::Clock { unix_ns } => clock::set(&self.config, unix_ns),
            HostMessage::Open { stream, last, part } => self.open(stream, last, part),
            HostMessage::Data { stream, bytes } => self.data(stream, bytes),
            HostMessage::Eof { stream } => self.eof(stream),
            HostMessage::Credit { stream, bytes } => self.credit(stream, bytes),
            HostMessage::Signal { stream, signal } => {
                if let Some(command) = self.command_of(stream) {
                    command.signal(signal);
                }
            }
            HostMessage::Resize { stream, size } => {
                if let Some(command) = self.command_of(stream) {
                    command.resize(size);
                }
            }
            HostMessage::Close { stream } => {
                if let Some(command) = self.command_of(stream) {
                    command.condemn();
                }
                self.streams.remove(&stream);
            }
        }
    }
}
