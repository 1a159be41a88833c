//! The keeper's socket: one thread a connection, one request after another on it. What needs the
//! machines goes to the owner; what only needs a guest is done here.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use pando_link::{ExecEvent, ExecHandle};
use pando_model::guest::{ExecSpec, OutputStream, PushSpec};
use pando_model::host::{HostError, NodeObservation, Observation};
use pando_model::{BranchId, ByteCount, Name};
use pando_wire::guest::Request as GuestRequest;
use pando_wire::keeper::{
    Answer, Control, Frame, Hello, KeeperWireError, MAX_DATA, PROTOCOL, Reply, Request,
};

use crate::forward::Forwards;
use crate::owner::{Command, Message};
use crate::published::Published;
use crate::{limits, procfs, trouble};

/// What the keeper proves itself with.
#[derive(Clone)]
pub struct Identity {
    pub branch: BranchId,
    pub token: String,
    pub generation: u64,
}

/// What every connection shares.
struct Server {
    identity: Identity,
    published: Arc<Published>,
    owner: Sender<Message>,
    forwards: Forwards,
    connections: AtomicUsize,
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the client broke the protocol")]
    Wire(#[from] KeeperWireError),
    #[error("the client is of another branch or incarnation")]
    Stranger,
}

/// Serves the socket from a thread of its own, for as long as the process lives.
pub fn start(
    listener: UnixListener,
    identity: Identity,
    published: Arc<Published>,
    owner: Sender<Message>,
) {
    let server = Arc::new(Server {
        identity,
        published,
        owner,
        forwards: Forwards::default(),
        connections: AtomicUsize::new(0),
    });
    let accept = move || {
        for client in listener.incoming().flatten() {
            if server.connections.fetch_add(1, Ordering::Relaxed) >= limits::MAX_CONNECTIONS {
                server.connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let mine = server.clone();
            let serve = move || {
                if let Err(error) = mine.serve(&client) {
                    tracing::debug!(%error, "connection");
                }
                mine.connections.fetch_sub(1, Ordering::Relaxed);
            };
            if thread::Builder::new().name("client".into()).spawn(serve).is_err() {
                server.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("accept".into()).spawn(accept) {
        tracing::error!(%error, "nobody can reach this keeper");
    }
}

fn send(mut stream: &UnixStream, frame: &Frame) -> io::Result<()> {
    stream.write_all(&frame.encode())
}

/// Reads a frame; `None` when the client is done.
fn receive(mut stream: &UnixStream) -> Result<Option<Frame>, ConnectionError> {
    let mut prefix = [0; 4];
    match stream.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut body = vec![0; Frame::body_length(prefix)?];
    stream.read_exact(&mut body)?;
    Ok(Some(Frame::from_body(body)?))
}

impl Server {
    fn serve(&self, client: &UnixStream) -> Result<(), ConnectionError> {
        client.set_write_timeout(Some(limits::CLIENT_STALLED))?;
        client.set_read_timeout(Some(limits::CLIENT_HELLO))?;
        let Some(hello) = receive(client)? else { return Ok(()) };
        let hello: Hello = hello.parse()?;
        let Identity { branch, token, generation } = self.identity.clone();
        if hello.branch != branch || hello.token != token {
            return Err(ConnectionError::Stranger);
        }
        client.set_read_timeout(None)?;
        send(client, &Frame::message(&Hello { protocol: PROTOCOL, branch, token, generation })?)?;
        while let Some(frame) = receive(client)? {
            let request = frame.parse()?;
            self.published.change(|view| view.answers_due += 1);
            let (answer, keep_open) = self.answer(client, request);
            let sent = Frame::message(&answer).map(|frame| send(client, &frame));
            self.published.change(|view| {
                view.answers_due -= 1;
                view.answers_given += 1;
            });
            sent??;
            if !keep_open {
                break;
            }
        }
        Ok(())
    }

    /// Does a request and returns its answer, and whether another may follow on this connection.
    fn answer(&self, client: &UnixStream, request: Request) -> (Answer, bool) {
        let answer = match request {
            Request::Exec { node, spec } => return (self.exec(client, &node, &spec), false),
            Request::Push { node, spec } => return (self.push(client, &node, &spec), false),
            Request::Pull { node, path } => self.pull(client, &node, &path),
            Request::AwaitStart { timeout } => self.await_start(timeout),
            Request::Observe => Ok(Reply::Observed { observation: self.observe() }),
            Request::AwaitCut { commit, timeout } => self.await_cut(&commit, timeout),
            Request::Capture { node, aspects } => {
                self.capture(client, &node, &GuestRequest::Capture { aspects })
            }
            Request::Digest { node, paths } => {
                self.capture(client, &node, &GuestRequest::Digest { paths })
            }
            Request::Facts { node } => self.facts(&node),
            Request::Forward { node, port } => self
                .forwards
                .open(&self.published, &node, port)
                .map(|port| Reply::Forwarded { port }),
            Request::Pause => self.command(Command::Pause),
            Request::Resume { clock } => self.command(Command::Resume { clock }),
            Request::Stop { mode } => self.command(Command::Stop { mode }),
            Request::Cut { spec } => {
                self.published.change(|view| view.cuts_due.push(spec.commit.clone()));
                self.command(Command::Cut { spec })
            }
            Request::MakeAnonymous { node, timeout } => {
                self.command(Command::MakeAnonymous { node, timeout })
            }
            Request::Flatten { node, keep, timeout } => {
                self.command(Command::Flatten { node, keep, timeout })
            }
        };
        (answer, true)
    }

    /// Hands a command to the owner and waits for it. The owner ends with the process, so there is
    /// no other way out of the wait, and none is needed.
    fn command(&self, command: Command) -> Answer {
        let (reply, answer) = sync_channel(1);
        let gone = || HostError::NotRunning { branch: self.identity.branch.clone() };
        self.owner.send(Message::Do(command, reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    fn await_start(&self, timeout: Duration) -> Answer {
        let deadline = Instant::now() + timeout.min(limits::MAX_WAIT);
        match self.published.wait(deadline, |view| view.start.clone()) {
            Some(result) => result.map(|report| Reply::Started { report }),
            None => Err(HostError::Deadline {
                what: "the start".into(),
                waited_ms: trouble::millis(timeout),
            }),
        }
    }

    fn await_cut(&self, commit: &pando_model::CommitId, timeout: Duration) -> Answer {
        let deadline = Instant::now() + timeout.min(limits::MAX_WAIT);
        let found = self.published.wait(deadline, |view| {
            if view.cuts_due.contains(commit) {
                return None;
            }
            let last = view.last_cut.clone().filter(|report| report.commit == *commit);
            Some(last.map_or(Reply::NoCut, |report| Reply::Cut { report }))
        });
        found.ok_or_else(|| HostError::Deadline {
            what: format!("the cut of {commit}"),
            waited_ms: trouble::millis(timeout),
        })
    }

    fn observe(&self) -> Observation {
        let keeper_pid = std::process::id();
        let (state, mut nodes) = self.published.read(|view| {
            let nodes = view.nodes.iter().map(|node| NodeObservation {
                name: node.name.clone(),
                state: node.state,
                ended: node.ended.clone(),
                trouble: node.trouble.clone(),
                pid: node.pid,
                layer: node.layer.clone(),
                vars_layer: node.vars_layer.clone(),
                memory_used: ByteCount(0),
                cpu_ms: 0,
                disk_used: ByteCount(0),
                answers: node.greeted,
                up_ms: trouble::millis(node.started_at.elapsed()),
            });
            (view.state(), nodes.collect::<Vec<_>>())
        });
        for node in &mut nodes {
            if let Some(pid) = node.pid {
                node.memory_used = procfs::proportional_memory(pid);
                node.cpu_ms = procfs::cpu_ms(pid);
            }
        }
        Observation {
            state,
            generation: self.identity.generation,
            keeper_pid,
            keeper_memory: procfs::proportional_memory(keeper_pid),
            keeper_cpu_ms: procfs::cpu_ms(keeper_pid),
            nodes,
        }
    }

    fn link(&self, node: &Name) -> Result<Arc<pando_link::GuestLink>, HostError> {
        self.published.link(node, Instant::now() + limits::GUEST_ANSWER)
    }

    fn failed(&self, node: &Name) -> impl Fn(pando_link::LinkError) -> HostError {
        let (branch, node) = (self.identity.branch.clone(), node.clone());
        move |error| trouble::link(&branch, &node, &error)
    }

    fn facts(&self, node: &Name) -> Answer {
        let facts = self.link(node)?.facts(Instant::now() + limits::GUEST_ANSWER);
        facts.map(|facts| Reply::Facts { facts: Box::new(facts) }).map_err(self.failed(node))
    }

    fn exec(&self, client: &UnixStream, node: &Name, spec: &ExecSpec) -> Answer {
        let link = self.link(node)?;
        let handle =
            link.exec(spec, Instant::now() + limits::GUEST_ANSWER).map_err(self.failed(node))?;
        let deadline = Instant::now() + Duration::from_millis(spec.timeout_ms) + limits::EXEC_GRACE;
        thread::scope(|scope| {
            scope.spawn(|| {
                if !feed(client, &handle, deadline) {
                    // The client is gone: nobody wants the rest.
                    let _ = handle.signal(9, Instant::now() + limits::GUEST_ANSWER);
                }
            });
            let outcome = self.pump(client, &handle, node, deadline);
            // Ends the feeder's read; the answer still goes out on the other half.
            let _ = client.shutdown(std::net::Shutdown::Read);
            outcome
        })
    }

    /// Moves a command's output to the client until it ends.
    fn pump(
        &self,
        client: &UnixStream,
        handle: &ExecHandle,
        node: &Name,
        deadline: Instant,
    ) -> Answer {
        loop {
            match handle.next_event(deadline).map_err(self.failed(node))? {
                ExecEvent::Output { stream, bytes } => {
                    for chunk in bytes.chunks(MAX_DATA) {
                        send(client, &Frame::Data(stream, chunk.to_vec()))
                            .map_err(|e| trouble::io("send output to the client", &e))?;
                    }
                }
                ExecEvent::Ended(outcome) => return Ok(Reply::Ended { outcome }),
            }
        }
    }

    fn push(&self, client: &UnixStream, node: &Name, spec: &PushSpec) -> Answer {
        let deadline = Instant::now() + limits::MAX_WAIT;
        let mut incoming = Incoming { client, rest: Vec::new(), ended: false };
        let facts =
            self.link(node)?.push(spec, &mut incoming, deadline).map_err(self.failed(node))?;
        Ok(Reply::File { facts })
    }

    fn pull(&self, client: &UnixStream, node: &Name, path: &str) -> Answer {
        let deadline = Instant::now() + limits::MAX_WAIT;
        let facts = self
            .link(node)?
            .pull(path, &mut Outgoing { client }, deadline)
            .map_err(self.failed(node))?;
        Ok(Reply::File { facts })
    }

    fn capture(&self, client: &UnixStream, node: &Name, request: &GuestRequest) -> Answer {
        let deadline = Instant::now() + limits::CAPTURE;
        // Many small writes for the guest, few for the client.
        let mut records = io::BufWriter::with_capacity(MAX_DATA, Outgoing { client });
        let end = self.link(node)?.capture(request, &mut records, deadline);
        let end = end.map_err(self.failed(node))?;
        records.flush().map_err(|e| trouble::io("send a capture to the client", &e))?;
        Ok(Reply::Captured { end })
    }
}

/// Moves a client's input to a command. Returns whether the client ended it properly or the
/// command is over; `false` means that the client is gone.
fn feed(client: &UnixStream, handle: &ExecHandle, deadline: Instant) -> bool {
    loop {
        let frame = match receive(client) {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(_) => return false,
        };
        let result = match &frame {
            Frame::Data(_, bytes) => handle.write_stdin(bytes, deadline),
            Frame::Message(_) => match frame.parse() {
                Ok(Control::Eof) => handle.close_stdin(deadline),
                Ok(Control::Signal { signal }) => handle.signal(signal, deadline),
                Ok(Control::Resize { size }) => handle.resize(size, deadline),
                Err(_) => return false,
            },
        };
        if result.is_err() {
            // The command no longer reads; what it still says is the pump's.
            drain(client);
            return true;
        }
    }
}

/// Reads and forgets what a client still sends, so that it is never blocked by us.
fn drain(client: &UnixStream) {
    while let Ok(Some(_)) = receive(client) {}
}

/// A client's file, as it arrives.
struct Incoming<'a> {
    client: &'a UnixStream,
    rest: Vec<u8>,
    ended: bool,
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match receive(self.client).map_err(io::Error::other)? {
                Some(Frame::Data(_, bytes)) => self.rest = bytes,
                Some(frame) => match frame.parse::<Control>().map_err(io::Error::other)? {
                    Control::Eof => self.ended = true,
                    Control::Signal { .. } | Control::Resize { .. } => {}
                },
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Ok(count)
    }
}

/// A guest's file, on its way to the client.
struct Outgoing<'a> {
    client: &'a UnixStream,
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(MAX_DATA);
        send(self.client, &Frame::Data(OutputStream::Stdout, bytes[..count].to_vec()))?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
