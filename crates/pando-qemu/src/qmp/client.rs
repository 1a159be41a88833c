//! The conversation over a socket, with deadlines: a synchronous shell around [`Session`].

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use serde_json::Value;

use super::codec::{Event, ProtocolError};
use super::session::{Command, CommandError, Phase, RequestId, Session};
use crate::limits::QMP_READ_BYTES;
use crate::wait;

/// Why a QMP exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU closed the connection: it has ended or is about to.
    #[error("the connection was closed")]
    Closed,
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// QEMU broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// QEMU refused a command.
    #[error("`{command}` was refused")]
    Refused {
        /// The command's name.
        command: &'static str,
        /// QEMU's words.
        #[source]
        source: CommandError,
    },
    /// The deadline passed.
    #[error("no answer in time")]
    Deadline,
}

/// What a step of I/O brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Some,
    None,
}

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    session: Session,
    unsent: Vec<u8>,
    closed: bool,
}

impl Client {
    /// Returns a client on a connected socket; QEMU may not have started yet.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, session: Session::new(), unsent: Vec::new(), closed: false })
    }

    /// Waits until QEMU takes commands; returns at once when it does already.
    ///
    /// # Errors
    /// [`QmpError`], but no refusal.
    pub fn negotiate(&mut self, deadline: Instant) -> Result<(), QmpError> {
        while self.session.phase() != Phase::Ready {
            self.step(deadline)?;
        }
        Ok(())
    }

    /// Returns QEMU's version, once greeted.
    pub fn version(&self) -> Option<&str> {
        self.session.version()
    }

    /// Runs one command and returns what it returned.
    ///
    /// # Errors
    /// [`QmpError`]. After a deadline the command may still run.
    pub fn execute(&mut self, command: &Command, deadline: Instant) -> Result<Value, QmpError> {
        let mut values = self.execute_all(std::slice::from_ref(command), deadline)?;
        Ok(values.pop().unwrap_or(Value::Null))
    }

    /// Sends several commands in one write and returns what each returned. QEMU runs them one
    /// after the other, also those after one that it refuses.
    ///
    /// # Errors
    /// [`QmpError`]; the first refusal, once all have been answered.
    pub fn execute_all(
        &mut self,
        commands: &[Command],
        deadline: Instant,
    ) -> Result<Vec<Value>, QmpError> {
        let mut ids = Vec::with_capacity(commands.len());
        for command in commands {
            ids.push(self.session.request(command)?);
        }
        let mut replies = Vec::with_capacity(commands.len());
        for (position, id) in ids.iter().enumerate() {
            match self.reply(*id, deadline) {
                Ok(reply) => replies.push(reply),
                Err(error) => {
                    ids.iter().skip(position).for_each(|id| self.session.abandon(*id));
                    return Err(error);
                }
            }
        }
        commands
            .iter()
            .zip(replies)
            .map(|(command, reply)| {
                reply.map_err(|source| QmpError::Refused { command: command.name, source })
            })
            .collect()
    }

    fn reply(
        &mut self,
        id: RequestId,
        deadline: Instant,
    ) -> Result<Result<Value, CommandError>, QmpError> {
        loop {
            if let Some(reply) = self.session.take_reply(id) {
                return Ok(reply);
            }
            self.step(deadline)?;
        }
    }

    /// Takes the oldest event, without waiting.
    pub fn next_event(&mut self) -> Option<Event> {
        self.session.next_event()
    }

    /// Waits for an event that nobody took.
    ///
    /// # Errors
    /// [`QmpError`], but no refusal.
    pub fn wait_event(&mut self, deadline: Instant) -> Result<Event, QmpError> {
        loop {
            if let Some(event) = self.session.next_event() {
                return Ok(event);
            }
            self.step(deadline)?;
        }
    }

    /// Takes in what QEMU has sent, without waiting. The end of the connection is not an error
    /// here: what came before it stays readable.
    ///
    /// # Errors
    /// [`QmpError::Io`], [`QmpError::Protocol`].
    pub fn drain(&mut self) -> Result<(), QmpError> {
        loop {
            match self.receive() {
                Ok(Progress::Some) => {}
                Ok(Progress::None) | Err(QmpError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the socket, for a caller that waits on several things.
    pub const fn socket(&self) -> &UnixStream {
        &self.stream
    }

    /// Returns whether nothing more can come.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Sends and receives what can be; waits where neither can be.
    fn step(&mut self, deadline: Instant) -> Result<(), QmpError> {
        let sent = self.send()?;
        let received = self.receive()?;
        if sent == Progress::Some || received == Progress::Some {
            return Ok(());
        }
        let mut interest = PollFlags::IN;
        if !self.unsent.is_empty() {
            interest |= PollFlags::OUT;
        }
        let mut fds = [PollFd::new(&self.stream, interest)];
        match wait::poll(&mut fds, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(QmpError::Deadline),
            Err(error) => Err(QmpError::Io(error)),
        }
    }

    fn send(&mut self) -> Result<Progress, QmpError> {
        self.unsent.extend_from_slice(&self.session.take_output());
        if self.unsent.is_empty() {
            return Ok(Progress::None);
        }
        match self.stream.write(&self.unsent) {
            Ok(0) => Err(self.end()),
            Ok(count) => {
                self.unsent.drain(..count);
                Ok(Progress::Some)
            }
            Err(error) if is_not_now(&error) => Ok(Progress::None),
            // What QEMU said before it went is still to be read.
            Err(error) if is_end(&error) => {
                self.unsent.clear();
                Ok(Progress::None)
            }
            Err(error) => Err(QmpError::Io(error)),
        }
    }

    fn receive(&mut self) -> Result<Progress, QmpError> {
        if self.closed {
            return Err(QmpError::Closed);
        }
        let mut buffer = [0; QMP_READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(self.end()),
            Ok(count) => {
                self.session.push(buffer.get(..count).unwrap_or_default())?;
                Ok(Progress::Some)
            }
            Err(error) if is_not_now(&error) => Ok(Progress::None),
            Err(error) if is_end(&error) => Err(self.end()),
            Err(error) => {
                // It would fail again at once, and a wait for it would spin.
                self.closed = true;
                Err(QmpError::Io(error))
            }
        }
    }

    const fn end(&mut self) -> QmpError {
        self.closed = true;
        QmpError::Closed
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A unix socket whose peer went with unread bytes reports a reset, not an end.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Runs a QEMU that answers the negotiation and then each line of the client with the next of
    /// `answers`, where `ID` stands for the id asked with.
    fn peer(answers: &'static [&'static str]) -> (Client, thread::JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let handle = thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let greeting =
                r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}}}"#;
            writer.write_all(format!("{greeting}\n").as_bytes()).unwrap();
            let mut lines = BufReader::new(theirs).lines();
            for answer in [r#"{"return": {}, "id": ID}"#].iter().chain(answers) {
                let request: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
                let text = answer.replace("ID", &request["id"].to_string());
                writer.write_all(format!("{text}\n").as_bytes()).unwrap();
            }
        });
        (Client::new(ours).unwrap(), handle)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn commands_are_pipelined_and_the_first_refusal_is_returned() {
        let (mut client, peer) = peer(&[
            r#"{"event": "STOP"}"#,
            r#"{"error": {"class": "GenericError", "desc": "no"}, "id": 2}"#,
            "{\"return\": 1, \"id\": 1}\n{\"return\": 3, \"id\": ID}",
        ]);
        client.negotiate(soon()).unwrap();
        let commands = ["a", "b", "c"].map(Command::new);
        match client.execute_all(&commands, soon()) {
            Err(QmpError::Refused { command: "b", source }) => assert_eq!(source.description, "no"),
            other => panic!("{other:?}"),
        }
        assert_eq!(client.wait_event(soon()).unwrap().name, "STOP");
        peer.join().unwrap();
        assert!(matches!(client.execute(&Command::new("d"), soon()), Err(QmpError::Closed)));
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut client = Client::new(ours).unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(matches!(client.negotiate(deadline), Err(QmpError::Deadline)));
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn events_before_the_end_are_kept() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs
            .write_all(b"{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n")
            .unwrap();
        drop(theirs);
        let mut client = Client::new(ours).unwrap();
        client.drain().unwrap();
        assert!(client.is_closed());
        assert_eq!(client.next_event().unwrap().text("reason"), Some("guest-reset"));
    }
}
