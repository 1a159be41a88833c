//! The keeper's socket: one request after another on each connection. What needs the machines goes
//! to the owner; what only needs a guest is done here.
//!
//! ```text
//!   client ──▶ reader ──▶ requests, answered one by one
//!                │ input of the command that runs
//!                ▼
//!              handle ◀── pump ──▶ its output, and the answer
//! ```
//!
//! A connection has a thread that reads, and from its first command on one that pumps; both stay for
//! the next command, because starting a thread takes longer on a busy host than most commands run.

mod input;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pando_link::{ExecEvent, ExecHandle};
use pando_model::guest::{ExecSpec, OutputStream, PushSpec};
use pando_model::host::{HostError, NodeObservation, Observation};
use pando_model::network::ProbeTarget;
use pando_model::{Accelerator, BranchId, ByteCount, Name};
use pando_wire::guest::Request as GuestRequest;
use pando_wire::keeper::{
    Answer, Control, Frame, Hello, KeeperWireError, MAX_DATA, PROTOCOL, Reply, Request,
};

use self::input::{Input, Seen};
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
    pub accelerator: Accelerator,
}

/// What every connection shares.
struct Server {
    identity: Identity,
    published: Arc<Published>,
    owner: Sender<Message>,
    forwards: Forwards,
    connections: AtomicUsize,
}

/// A command that runs.
struct Job {
    handle: ExecHandle,
    node: Name,
    deadline: Instant,
}

/// The command that a connection's reader feeds, and its pump empties.
#[derive(Default)]
struct Running(Mutex<Option<Arc<Job>>>);

impl Running {
    fn get(&self) -> Option<Arc<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, job: Option<Arc<Job>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }
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
        for client in listener.incoming().filter_map(accepted) {
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

/// Returns a client, or waits a moment: what cannot be accepted for want of descriptors waits, and
/// the next try fails as fast as this one did.
pub fn accepted<T>(client: io::Result<T>) -> Option<T> {
    if let Err(error) = &client {
        tracing::warn!(%error, "a client cannot be accepted");
        thread::sleep(limits::ACCEPT_PAUSE);
    }
    client.ok()
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

/// Reads the next frame, and meanwhile gives a command the input that waits for it.
fn next_frame(
    client: &UnixStream,
    running: &Running,
    input: &mut Input,
) -> Result<Option<Frame>, ConnectionError> {
    while let Some(job) = running.get().filter(|_| input.waits()) {
        match input::look(client)? {
            Seen::Gone => return Ok(None),
            Seen::Words if input.has_room() => break,
            Seen::Words | Seen::Nothing => input.give(&job),
        }
    }
    receive(client)
}

impl Server {
    fn serve(&self, client: &UnixStream) -> Result<(), ConnectionError> {
        client.set_write_timeout(Some(limits::CLIENT_STALLED))?;
        client.set_read_timeout(Some(limits::CLIENT_HELLO))?;
        let Some(hello) = receive(client)? else { return Ok(()) };
        let hello: Hello = hello.parse()?;
        let Identity { branch, token, generation, .. } = self.identity.clone();
        if hello.branch != branch || hello.token != token {
            return Err(ConnectionError::Stranger);
        }
        client.set_read_timeout(None)?;
        send(client, &Frame::message(&Hello { protocol: PROTOCOL, branch, token, generation })?)?;
        let running = Running::default();
        thread::scope(|scope| {
            let mut pump = None;
            let result = self.converse(client, &running, |job| {
                let jobs = match &pump {
                    Some(jobs) => jobs,
                    None => {
                        let (jobs, queue) = sync_channel(1);
                        let work = || self.pump_all(client, &running, queue);
                        thread::Builder::new().name("pump".into()).spawn_scoped(scope, work)?;
                        pump.insert(jobs)
                    }
                };
                // The pump ends after its sender only.
                let _ = jobs.send(job);
                Ok(())
            });
            // Nobody wants the rest of a command whose client is gone.
            if let Some(job) = running.get() {
                job.handle.abort();
            }
            result
        })
    }

    /// Reads until the client is gone: requests, and input of the command that runs.
    fn converse(
        &self,
        client: &UnixStream,
        running: &Running,
        mut start: impl FnMut(Arc<Job>) -> io::Result<()>,
    ) -> Result<(), ConnectionError> {
        let mut input = Input::default();
        while let Some(frame) = next_frame(client, running, &mut input)? {
            if let Some(job) = running.get() {
                input.take_in(frame, &job)?;
                continue;
            }
            input = Input::default();
            let request = match frame.parse::<Request>() {
                Ok(request) => request,
                // Input of a command that has ended meanwhile.
                Err(_) if input::is_input(&frame) => continue,
                Err(error) => return Err(error.into()),
            };
            self.published.change(|view| view.answers_due += 1);
            let (answer, keep_open) = match request {
                Request::Exec { node, spec } => match self.exec(&node, &spec) {
                    Ok(handle) => {
                        let patience = Duration::from_millis(spec.timeout_ms) + limits::EXEC_GRACE;
                        let deadline = Instant::now() + patience;
                        let job = Arc::new(Job { handle, node, deadline });
                        running.set(Some(Arc::clone(&job)));
                        match start(job) {
                            Ok(()) => continue,
                            Err(error) => {
                                running.set(None);
                                (Err(trouble::io("start a thread", &error)), true)
                            }
                        }
                    }
                    Err(error) => (Err(error), true),
                },
                // A refusal comes before the file's end, and nobody knows how much is on its way.
                Request::Push { node, spec } => (self.push(client, &node, &spec), false),
                other => (self.answer(client, other), true),
            };
            self.give(client, &answer)?;
            if !keep_open {
                break;
            }
        }
        Ok(())
    }

    /// Sends an answer that is due.
    fn give(&self, client: &UnixStream, answer: &Answer) -> Result<(), ConnectionError> {
        let sent = Frame::message(answer).map(|frame| send(client, &frame));
        self.published.change(|view| {
            view.answers_due -= 1;
            view.answers_given += 1;
        });
        Ok(sent??)
    }

    /// Moves the output of one command after another to the client.
    fn pump_all(&self, client: &UnixStream, running: &Running, jobs: Receiver<Arc<Job>>) {
        for job in jobs {
            let answer = self.pump(client, &job);
            // Dropped before the answer goes out: what comes after it is the next request.
            running.set(None);
            drop(job);
            if self.give(client, &answer).is_err() {
                // Wakes the reader, which ends the connection.
                let _ = client.shutdown(Shutdown::Both);
            }
        }
    }

    /// Does a request that takes no input, and returns its answer.
    fn answer(&self, client: &UnixStream, request: Request) -> Answer {
        match request {
            Request::Exec { .. } | Request::Push { .. } => {
                Err(HostError::Protocol { detail: "it streams".into() })
            }
            Request::Pull { node, path } => self.pull(client, &node, &path),
            Request::AwaitStart { timeout } => self.await_start(timeout),
            Request::Observe { memory } => {
                Ok(Reply::Observed { observation: self.observe(memory) })
            }
            Request::AwaitCut { commit, timeout } => self.await_cut(&commit, timeout),
            Request::Capture { node, aspects } => {
                self.capture(client, &node, &GuestRequest::Capture { aspects })
            }
            Request::Digest { node, paths } => {
                self.capture(client, &node, &GuestRequest::Digest { paths })
            }
            Request::Facts { node } => self.facts(&node),
            Request::Forward { node, port, host_port } => self
                .forwards
                .open(&self.published, &node, port, host_port)
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
            Request::Flatten { node, disk, keep, timeout } => {
                self.command(Command::Flatten { node, disk, keep, timeout })
            }
            Request::CrashNode { node } => self.command(Command::CrashNode { node }),
            Request::BootNode { node, timeout } => self.boot_node(&node, timeout),
            Request::Probe { node, targets, count, timeout } => {
                self.probe(&node, targets, count, timeout)
            }
            Request::SetFaults { faults } => self.command(Command::SetFaults { faults }),
            Request::Network => self.command(Command::Network),
            Request::BeginCapture { limits } => self.command(Command::BeginCapture { limits }),
            Request::EndCapture => self.command(Command::EndCapture),
        }
    }

    /// Hands a command to the owner and waits for it. The owner ends with the process, so there is
    /// no other way out of the wait, and none is needed.
    fn command(&self, command: Command) -> Answer {
        let (reply, answer) = sync_channel(1);
        let gone = || HostError::NotRunning { branch: self.identity.branch.clone() };
        self.owner.send(Message::Do(command, reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// Boots a node, unless it runs, and waits until its guest has booted: its program answers long
    /// before its services.
    fn boot_node(&self, node: &Name, timeout: Duration) -> Answer {
        let deadline = Instant::now() + timeout.min(limits::MAX_WAIT);
        self.command(Command::BootNode { node: node.clone() })?;
        let link = self.published.link(node, deadline)?;
        link.wait_booted(deadline).map(|_| Reply::Done).map_err(self.failed(node))
    }

    fn probe(
        &self,
        node: &Name,
        targets: Vec<ProbeTarget>,
        count: u32,
        timeout: Duration,
    ) -> Answer {
        let timeout = timeout.min(limits::MAX_WAIT);
        let deadline = Instant::now() + timeout + limits::PROBE_GRACE;
        let results = self.link(node)?.probe(targets, count, timeout, deadline);
        results.map(|results| Reply::Probed { results }).map_err(self.failed(node))
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

    fn observe(&self, memory: bool) -> Observation {
        let memory_of = |pid| memory.then(|| procfs::proportional_memory(pid));
        let keeper_pid = std::process::id();
        let (state, network_ended, mut nodes) = self.published.read(|view| {
            let nodes = view.nodes.iter().map(|node| NodeObservation {
                name: node.name.clone(),
                state: node.state,
                ended: node.ended.clone(),
                trouble: node.trouble.clone(),
                pid: node.pid,
                layers: node.layers.clone(),
                memory_used: None,
                cpu_ms: 0,
                disk_used: ByteCount(0),
                answers: node.greeted,
                up_ms: trouble::millis(node.started_at.elapsed()),
            });
            (view.state(), view.network_ended.clone(), nodes.collect::<Vec<_>>())
        });
        for node in &mut nodes {
            if let Some(pid) = node.pid {
                node.memory_used = memory_of(pid);
                node.cpu_ms = procfs::cpu_ms(pid);
            }
        }
        Observation {
            state,
            generation: self.identity.generation,
            accelerator: Some(self.identity.accelerator),
            keeper_pid,
            keeper_memory: memory_of(keeper_pid),
            keeper_cpu_ms: procfs::cpu_ms(keeper_pid),
            nodes,
            network_ended,
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

    /// Starts a command.
    fn exec(&self, node: &Name, spec: &ExecSpec) -> Result<ExecHandle, HostError> {
        let patience =
            (Duration::from_millis(spec.timeout_ms) + limits::EXEC_GRACE).min(limits::GUEST_ANSWER);
        let deadline = Instant::now() + patience;
        self.link(node)?.exec(spec, deadline).map_err(self.failed(node))
    }

    /// Moves a command's output to the client until it ends.
    fn pump(&self, client: &UnixStream, job: &Job) -> Answer {
        loop {
            match job.handle.next_event(job.deadline).map_err(self.failed(&job.node))? {
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
        let link = self.link(node)?;
        // A guest that hangs is told from one that has much to read.
        link.facts(Instant::now() + limits::GUEST_ANSWER).map_err(self.failed(node))?;
        let deadline = Instant::now() + limits::CAPTURE;
        // Many small writes for the guest, few for the client.
        let mut records = io::BufWriter::with_capacity(MAX_DATA, Outgoing { client });
        let end = link.capture(request, &mut records, deadline);
        let end = end.map_err(self.failed(node))?;
        records.flush().map_err(|e| trouble::io("send a capture to the client", &e))?;
        Ok(Reply::Captured { end })
    }
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
