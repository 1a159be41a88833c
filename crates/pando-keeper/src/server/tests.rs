//! A connection to the keeper's socket, with the real guest program behind it.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;

use pando_model::NodeLayers;
use pando_model::branch::BranchState;
use pando_model::guest::{Command as Line, ExecOutcome, ExecStatus, Stdin};
use pando_wire::limits::STREAM_WINDOW_BYTES;

use super::*;
use crate::fake::real_guest;
use crate::published::NodeView;

const SOON: Duration = Duration::from_secs(20);

/// A client, and the thread that serves it.
struct Client {
    socket: UnixStream,
    served: thread::JoinHandle<()>,
}

impl Client {
    fn new() -> Self {
        let branch = BranchId::random();
        let node = NodeView {
            name: "db".parse().unwrap(),
            state: BranchState::Running,
            ended: None,
            trouble: None,
            pid: None,
            layers: NodeLayers::of_root(pando_model::LayerId::random()),
            link: Some(real_guest()),
            greeted: true,
            started_at: Instant::now(),
        };
        let (owner, _) = channel();
        let token = "0123456789abcdef0123456789abcdef".to_owned();
        let server = Server {
            identity: Identity {
                branch: branch.clone(),
                token: token.clone(),
                generation: 1,
                accelerator: Accelerator::Tcg,
            },
            published: Arc::new(Published::new(branch.clone(), vec![node])),
            owner,
            forwards: Forwards::default(),
            connections: AtomicUsize::new(1),
        };
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let served = thread::spawn(move || drop(server.serve(&theirs)));
        let client = Self { socket, served };
        client.say(&Hello { protocol: PROTOCOL, branch, token, generation: 0 });
        assert!(receive(&client.socket).unwrap().is_some());
        client
    }

    fn say<T: serde::Serialize>(&self, message: &T) {
        send(&self.socket, &Frame::message(message).unwrap()).unwrap();
    }

    fn exec(&self, line: &str) {
        let spec = ExecSpec {
            command: Line::Shell(line.into()),
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            timeout_ms: 60_000,
            terminal: None,
            stdin: Stdin::Open,
        };
        self.say(&Request::Exec { node: "db".parse().unwrap(), spec });
    }

    /// Sends so many bytes of input; returns whether all were taken.
    fn input(&self, bytes: usize) -> bool {
        (0..bytes / MAX_DATA).all(|_| {
            send(&self.socket, &Frame::Data(OutputStream::Stdout, vec![b'x'; MAX_DATA])).is_ok()
        })
    }

    /// Returns the command's output and end.
    fn outcome(&self) -> (String, ExecOutcome) {
        let mut output = Vec::new();
        loop {
            match receive(&self.socket).unwrap().unwrap() {
                Frame::Data(_, bytes) => output.extend(bytes),
                frame => match frame.parse::<Answer>().unwrap().unwrap() {
                    Reply::Ended { outcome } => {
                        return (String::from_utf8(output).unwrap(), outcome);
                    }
                    other => panic!("{other:?}"),
                },
            }
        }
    }

    /// Returns what the command says first.
    fn first_words(&self) -> String {
        match receive(&self.socket).unwrap() {
            Some(Frame::Data(_, bytes)) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_signal_passes_input_that_a_command_does_not_read() {
    let client = Client::new();
    client.exec("exec sleep 60");
    // More than the command's pipe and the guest take.
    assert!(client.input(STREAM_WINDOW_BYTES as usize + MAX_DATA));
    let began = Instant::now();
    client.say(&Control::Signal { signal: 2 });
    assert_eq!(client.outcome().1.status, ExecStatus::Signaled(2));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    // What was left of the input is nothing to the next command.
    client.exec("cat");
    client.input(MAX_DATA);
    client.say(&Control::Eof);
    let (output, outcome) = client.outcome();
    assert_eq!((output.len(), outcome.status), (MAX_DATA, ExecStatus::Exited(0)));
}

#[test]
fn a_client_that_hangs_up_ends_a_command_that_does_not_read_its_input() {
    let client = Client::new();
    client.exec("echo $$; exec sleep 60");
    let pid = client.first_words();
    assert!(!client.input(64 * MAX_DATA), "somebody takes input without end");
    drop(client.socket);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !client.served.is_finished() {
        assert!(Instant::now() < deadline, "the hang-up was not seen");
        thread::sleep(Duration::from_millis(5));
    }
    let process = format!("/proc/{}/stat", pid.trim());
    let is_alive = || std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z "));
    while is_alive() {
        assert!(Instant::now() < deadline, "the command runs on");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn input_arrives_whole_however_slowly_it_is_read() {
    let client = Client::new();
    client.exec("sleep 0.5; wc -c");
    let bytes = 12 * MAX_DATA;
    client.socket.set_write_timeout(Some(SOON)).unwrap();
    assert!(client.input(bytes));
    client.say(&Control::Eof);
    let (output, _) = client.outcome();
    assert_eq!(output.trim(), bytes.to_string());
}

#[test]
fn what_cannot_be_accepted_is_not_tried_again_at_once() {
    let began = Instant::now();
    let failed: io::Result<()> = Err(io::Error::from_raw_os_error(24));
    assert_eq!(accepted(failed), None);
    assert!(began.elapsed() >= limits::ACCEPT_PAUSE);
    assert_eq!(accepted(Ok(1)), Some(1));
}
