//! Files: streamed into and out of the guest.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use pando_model::capture::Captured;
use pando_model::guest::{FileFacts, PushSpec};
use pando_wire::guest::{HostMessage, Reply, Request};
use pando_wire::limits::MAX_CHUNK_BYTES;

use crate::error::LinkError;
use crate::limits::{STALLED, SYNCED};
use crate::link::{GuestLink, OpenStream};

impl GuestLink {
    /// Writes a file in the guest from `contents`, which must give exactly `spec.size` bytes. It
    /// gets its name only when it is whole; a failure in between leaves nothing.
    ///
    /// # Errors
    /// [`LinkError::Refused`], [`LinkError::Local`] when `contents` fails or ends too early or too
    /// late, [`LinkError::Deadline`], [`LinkError::Closed`], [`LinkError::EpochEnded`],
    /// [`LinkError::Protocol`].
    pub fn push(
        &self,
        spec: &PushSpec,
        contents: &mut dyn Read,
        deadline: Instant,
    ) -> Result<FileFacts, LinkError> {
        let open = self.shared.open(&Request::Push(spec.clone()), "write the file", deadline)?;
        let mut buffer = vec![0; MAX_CHUNK_BYTES];
        let mut left = spec.size;
        while left > 0 {
            let count = read_some(contents, &mut buffer, left)?;
            let chunk = buffer.get(..count).unwrap_or_default();
            match open.send_data(chunk, "transfer", within(STALLED, deadline)) {
                // The guest gave up early; its answer says why.
                Err(LinkError::Ended { .. }) => break,
                sent => sent?,
            }
            left = left.saturating_sub(count as u64);
        }
        open.send(&HostMessage::Eof { stream: open.stream.id }, deadline)?;
        match open.answer(within(SYNCED, deadline))? {
            Reply::File(facts) => Ok(facts),
            _ => Err(open.wrong_reply()),
        }
    }

    /// Reads a regular file of the guest into `contents`. On an error, a part may have been
    /// written there.
    ///
    /// # Errors
    /// As [`GuestLink::push`].
    pub fn pull(
        &self,
        path: &str,
        contents: &mut dyn Write,
        deadline: Instant,
    ) -> Result<FileFacts, LinkError> {
        let request = Request::Pull { path: path.to_owned() };
        let (reply, received, open) =
            self.receive(&request, "read the file", contents, STALLED, deadline)?;
        match reply {
            Reply::File(facts) if facts.size == received => Ok(facts),
            _ => Err(open.wrong_reply()),
        }
    }

    /// Asks for the guest's state ([`Request::Capture`] or [`Request::Digest`]) and writes its
    /// records into `records`, within the guest protocol's credit. On an error, a part may have
    /// been written there.
    ///
    /// # Errors
    /// As [`GuestLink::push`].
    pub fn capture(
        &self,
        request: &Request,
        records: &mut dyn Write,
        deadline: Instant,
    ) -> Result<Captured, LinkError> {
        // It may look for long before it finds something to tell.
        let patience = deadline.saturating_duration_since(Instant::now());
        let (reply, _, open) =
            self.receive(request, "tell its state", records, patience, deadline)?;
        match reply {
            Reply::Captured(end) => Ok(end),
            _ => Err(open.wrong_reply()),
        }
    }

    /// Moves a stream's data into `contents`, and returns its reply and how much that was. Gives up when
    /// nothing comes for as long as `patience`.
    fn receive(
        &self,
        request: &Request,
        what: &'static str,
        contents: &mut dyn Write,
        patience: Duration,
        deadline: Instant,
    ) -> Result<(Reply, u64, OpenStream), LinkError> {
        let open = self.shared.open(request, what, deadline)?;
        let mut received = 0;
        loop {
            let event = open.stream.wait(within(patience, deadline), |inbox| match inbox.take() {
                Some((_, bytes)) => Some(Ok(bytes)),
                None => inbox.end.clone().map(Err),
            });
            match event {
                None => return Err(open.late()),
                Some(Ok(bytes)) => {
                    received += bytes.len() as u64;
                    let written = contents.write_all(&bytes);
                    written.map_err(|source| LinkError::Local { what, source })?;
                    open.grant();
                }
                Some(Err(end)) => return Ok((open.end_error(end)?, received, open)),
            }
        }
    }
}

/// Returns the end of a wait that begins now.
fn within(patience: Duration, deadline: Instant) -> Instant {
    Instant::now().checked_add(patience).map_or(deadline, |end| end.min(deadline))
}

/// Reads up to a buffer of the `left` bytes that must still come.
fn read_some(contents: &mut dyn Read, buffer: &mut [u8], left: u64) -> Result<usize, LinkError> {
    let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    let buffer = buffer.get_mut(..wanted).unwrap_or_default();
    loop {
        match contents.read(buffer) {
            Ok(0) => {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(LinkError::Local { what: "read the whole file", source });
            }
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(LinkError::Local { what: "read the file", source }),
        }
    }
}

impl OpenStream {
    /// Waits for the guest's answer.
    pub(crate) fn answer(&self, deadline: Instant) -> Result<Reply, LinkError> {
        match self.stream.wait(deadline, |inbox| inbox.end.clone()) {
            Some(end) => self.end_error(end),
            None => Err(self.late()),
        }
    }
}
