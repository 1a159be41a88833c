//! Streams: how a request becomes an activity, and what flows in it.

use std::collections::hash_map::Entry;
use std::sync::mpsc::channel;
use std::time::Duration;

use pando_model::guest::OutputStream;
use pando_wire::guest::{Answer, GuestMessage, Refusal, RefusalKind, Reply, Request, StreamId};
use pando_wire::limits::{MAX_REQUEST_BYTES, MAX_STREAMS};
use rustix::event::PollFlags;

use super::{Activity, Server};
use crate::capture;
use crate::files::{self, Feed};
use crate::flow::Flow;
use crate::forward::{Event as Relayed, Forward};
use crate::jobs::{Event, Voice, What};
use crate::power::{self, Power};
use crate::{boot, system};

impl Server {
    pub(super) fn open(&mut self, stream: StreamId, last: bool, part: &[u8]) {
        let full = self.streams.len() >= MAX_STREAMS;
        let request = match self.streams.entry(stream) {
            Entry::Vacant(_) if full => {
                let message = format!("{MAX_STREAMS} requests are under way");
                let refusal = Refusal::new(RefusalKind::Limit, message);
                return self.channel.post_answer(stream, &Err(refusal));
            }
            entry => match entry.or_insert_with(|| Activity::Opening(Vec::new())) {
                Activity::Opening(request) => request,
                _ => return self.broken(),
            },
        };
        if request.len() + part.len() > MAX_REQUEST_BYTES {
            return self.broken();
        }
        request.extend_from_slice(part);
        if last {
            let request = std::mem::take(request);
            self.streams.remove(&stream);
            match Request::decode(&request) {
                Ok(request) => self.start(stream, request),
                Err(error) => {
                    let refusal = Refusal::new(RefusalKind::Invalid, error.to_string());
                    self.channel.post_answer(stream, &Err(refusal));
                }
            }
        }
    }

    pub(super) fn start(&mut self, stream: StreamId, request: Request) {
        let begun = match request {
            Request::Ping => return self.channel.post_answer(stream, &Ok(Reply::Done)),
            Request::Exec(spec) => self.start_command(stream, &spec),
            Request::Connect { address, port } => {
                Forward::connect(&address, port).map(|forward| Activity::Forward(Box::new(forward)))
            }
            Request::Push(spec) => {
                let (feed, fed) = channel();
                let root = self.config.root.clone();
                let job = move |voice: &_| files::push(&spec, &root, &fed, voice);
                self.start_job(stream, job).map(|_| Activity::Push { feed, flow: Flow::default() })
            }
            Request::Pull { path } => {
                let (grants, granted) = channel();
                let job = move |voice: &_| files::pull(&path, &granted, voice);
                self.start_job(stream, job).map(|_| Activity::Pull { grants })
            }
            // Asked after every restore, for the time: not worth a thread.
            Request::Capture { aspects } if aspects.is_empty() => {
                return self.channel.post_answer(stream, &capture::end());
            }
            Request::Capture { aspects } => {
                let (grants, granted) = channel();
                let config = self.config.clone();
                let job = move |voice: &_| capture::tell(&config, &aspects, granted, voice);
                self.start_job(stream, job).map(|_| Activity::Pull { grants })
            }
            Request::Digest { paths } => {
                let (grants, granted) = channel();
                let config = self.config.clone();
                let job = move |voice: &_| capture::digest(&config, &paths, granted, voice);
                self.start_job(stream, job).map(|_| Activity::Pull { grants })
            }
            Request::Stat { path } => self.start_job(stream, move |_| files::stat(&path)),
            Request::List { path } => self.start_job(stream, move |_| files::list(&path)),
            Request::WaitBooted { timeout_ms } => {
                let config = self.config.clone();
                self.start_job_silent(stream, move |voice| {
                    boot::wait_managed(&config, Duration::from_millis(timeout_ms), voice);
                })
            }
            Request::Settle => Ok(self.settle()),
            Request::PowerOff => self.start_power(stream, Power::Off),
            Request::Reboot => self.start_power(stream, Power::Reboot),
            other => self.start_system(stream, other),
        };
        match begun {
            Ok(activity) => drop(self.streams.insert(stream, activity)),
            Err(refusal) => self.channel.post_answer(stream, &Err(refusal)),
        }
    }

    /// Starts a request that concerns the system as a whole.
    pub(super) fn start_system(
        &mut self,
        stream: StreamId,
        request: Request,
    ) -> Result<Activity, Refusal> {
        let config = self.config.clone();
        self.start_job(stream, move |_| system::answer(&config, request))
    }

    pub(super) fn start_power(
        &mut self,
        stream: StreamId,
        power: Power,
    ) -> Result<Activity, Refusal> {
        let config = self.config.clone();
        self.start_job_silent(stream, move |voice| power::begin(&config, power, voice))
    }

    pub(super) fn start_job(
        &self,
        stream: StreamId,
        job: impl FnOnce(&Voice) -> Answer + Send + 'static,
    ) -> Result<Activity, Refusal> {
        let epoch = self.epoch.unwrap_or_default();
        self.jobs.start(epoch, stream, job).map(|()| Activity::Job)
    }

    pub(super) fn start_job_silent(
        &self,
        stream: StreamId,
        job: impl FnOnce(&Voice) + Send + 'static,
    ) -> Result<Activity, Refusal> {
        let epoch = self.epoch.unwrap_or_default();
        self.jobs.start_silent(epoch, stream, job).map(|()| Activity::Job)
    }

    pub(super) fn data(&mut self, stream: StreamId, bytes: &[u8]) {
        let (granted, used) = match self.streams.get_mut(&stream) {
            Some(Activity::Command(number)) => match self.commands.get_mut(number) {
                Some(command) => (command.flow.receive(bytes.len()), command.feed(bytes)),
                None => return,
            },
            Some(Activity::Forward(forward)) => {
                forward.feed(bytes);
                (forward.flow.receive(bytes.len()), 0)
            }
            Some(Activity::Push { feed, flow }) => {
                // The job may have failed; its answer is on the way.
                let _ = feed.send(Feed::Data(bytes.to_vec()));
                (flow.receive(bytes.len()), 0)
            }
            // It takes no data, or has ended meanwhile.
            _ => return,
        };
        if !granted {
            return self.broken();
        }
        self.consumed(stream, used);
        self.relay_out(stream);
    }

    pub(super) fn eof(&mut self, stream: StreamId) {
        match self.streams.get_mut(&stream) {
            Some(Activity::Command(number)) => {
                if let Some(command) = self.commands.get_mut(number) {
                    command.end_input();
                }
            }
            Some(Activity::Forward(forward)) => {
                forward.end_input();
                self.relay_out(stream);
            }
            Some(Activity::Push { feed, .. }) => {
                // As above.
                let _ = feed.send(Feed::Eof);
            }
            _ => {}
        }
    }

    pub(super) fn credit(&mut self, stream: StreamId, bytes: u32) {
        match self.streams.get_mut(&stream) {
            Some(Activity::Command(number)) => {
                if let Some(command) = self.commands.get_mut(number) {
                    command.flow.granted(bytes);
                }
            }
            Some(Activity::Forward(forward)) => forward.flow.granted(bytes),
            Some(Activity::Pull { grants }) => {
                // It may have ended; its answer is on the way.
                let _ = grants.send(bytes);
            }
            _ => {}
        }
    }

    /// Grants the host anew what a stream has used up.
    pub(super) fn consumed(&mut self, stream: StreamId, bytes: usize) {
        let grant = match self.streams.get_mut(&stream) {
            Some(Activity::Command(number)) => {
                self.commands.get_mut(number).and_then(|command| command.flow.consume(bytes))
            }
            Some(Activity::Forward(forward)) => forward.flow.consume(bytes),
            Some(Activity::Push { flow, .. }) => flow.consume(bytes),
            _ => None,
        };
        if let Some(bytes) = grant {
            self.channel.post(&GuestMessage::Credit { stream, bytes });
        }
    }

    pub(super) fn consumed_by(&mut self, number: u64, bytes: usize) {
        if let Some(stream) = self.commands.get(&number).and_then(|command| command.stream) {
            self.consumed(stream, bytes);
        }
    }

    pub(super) fn finish(&mut self, stream: StreamId, answer: &Answer) {
        if self.streams.remove(&stream).is_some() {
            self.channel.post_answer(stream, answer);
        }
    }

    pub(super) fn relay(&mut self, stream: StreamId, flags: PollFlags) {
        let Some(Activity::Forward(forward)) = self.streams.get_mut(&stream) else { return };
        let is_new = forward.is_connecting();
        if is_new || flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match forward.read() {
                Relayed::Nothing => {}
                Relayed::Connected => self.channel.post(&GuestMessage::Started { stream }),
                Relayed::Bytes(bytes) => {
                    let output = OutputStream::Stdout;
                    self.channel.post(&GuestMessage::Data { stream, output, bytes: &bytes });
                }
                Relayed::Eof => self.channel.post(&GuestMessage::Eof { stream }),
                Relayed::Broken(refusal) => return self.finish(stream, &Err(refusal)),
            }
        }
        self.relay_out(stream);
    }

    /// Writes what the host sent to a connection, and notices the connection's end.
    pub(super) fn relay_out(&mut self, stream: StreamId) {
        let Some(Activity::Forward(forward)) = self.streams.get_mut(&stream) else { return };
        let written = forward.write();
        let is_over = forward.is_over();
        match written {
            Ok(used) => self.consumed(stream, used),
            Err(refusal) => return self.finish(stream, &Err(refusal)),
        }
        if is_over {
            self.finish(stream, &Ok(Reply::Done));
        }
    }

    pub(super) fn on_job(&mut self, event: Event) {
        let Event { epoch, stream, what } = event;
        if let What::Halt(power) = what {
            self.halting = Some(power);
            return;
        }
        if self.epoch != Some(epoch) || !self.streams.contains_key(&stream) {
            return;
        }
        match what {
            What::Started => self.channel.post(&GuestMessage::Started { stream }),
            What::Data(bytes) => {
                let output = OutputStream::Stdout;
                self.channel.post(&GuestMessage::Data { stream, output, bytes: &bytes });
            }
            What::Consumed(bytes) => self.consumed(stream, bytes),
            What::Managed { left_ms } => self.ask_about_boot(stream, left_ms),
            What::Done(answer) => self.finish(stream, &answer),
            What::Halt(_) => {}
        }
    }
}
