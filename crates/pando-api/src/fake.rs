//! A scripted [`Control`] for tests of front ends: answers what it was told, remembers what it was
//! asked, and has a tiny guest that knows a handful of commands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use pando_model::guest::{
    Command, ExecInput, ExecOutcome, ExecOutput, ExecStatus, FileFacts, FileKind, OutputStream,
};
use pando_model::operation::{OperationStatus, Progress};
use pando_model::{ErrorCode, OperationId};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::caller::Caller;
use crate::catalogue::Call;
use crate::control::{AttachIo, AttachRequest, Control, PullRequest, PushRequest};
use crate::error::ApiError;
use crate::operation::OperationView;

/// What a verb answers.
pub type Answer = Arc<dyn Fn(&Caller, &Call) -> Result<Value, ApiError> + Send + Sync>;

/// Size of the pieces in which the fake guest writes.
const CHUNK_BYTES: usize = 8 * 1024;

#[derive(Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    calls: Vec<(Caller, Call)>,
    operations: BTreeMap<String, watch::Sender<OperationView>>,
    files: BTreeMap<String, (u32, Vec<u8>)>,
    attached: u32,
    killed: u32,
}

/// See the module.
#[derive(Default)]
pub struct FakeControl {
    state: Mutex<State>,
}

impl FakeControl {
    /// Returns a control that answers every verb with `not_found`.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `verb` answer `result`.
    pub fn answer(&self, verb: &str, result: Value) -> &Self {
        self.on(verb, Arc::new(move |_, _| Ok(result.clone())))
    }

    /// Makes `verb` fail with `error`.
    pub fn fail(&self, verb: &str, error: ApiError) -> &Self {
        self.on(verb, Arc::new(move |_, _| Err(error.clone())))
    }

    /// Makes `verb` answer what `answer` returns.
    pub fn on(&self, verb: &str, answer: Answer) -> &Self {
        self.state().answers.insert(verb.to_owned(), answer);
        self
    }

    /// Returns every call so far.
    pub fn calls(&self) -> Vec<(Caller, Call)> {
        self.state().calls.clone()
    }

    /// Puts a file into the fake guest.
    pub fn put_file(&self, path: &str, mode: u32, contents: &[u8]) {
        self.state().files.insert(path.to_owned(), (mode, contents.to_vec()));
    }

    /// Returns a file of the fake guest.
    pub fn file(&self, path: &str) -> Option<(u32, Vec<u8>)> {
        self.state().files.get(path).cloned()
    }

    /// Returns how many commands were attached.
    pub fn attached(&self) -> u32 {
        self.state().attached
    }

    /// Returns how many attached commands lost their caller.
    pub fn killed(&self) -> u32 {
        self.state().killed
    }

    /// Makes an operation that runs until [`Self::finish`].
    pub fn begin(&self, verb: &str) -> OperationId {
        let id = OperationId::random();
        let now = Timestamp::UNIX_EPOCH;
        let view = OperationView {
            operation_id: id.clone(),
            verb: verb.to_owned(),
            status: OperationStatus::Running,
            progress: Progress { message: "begun".to_owned(), done: 0, total: 2 },
            steps: Vec::new(),
            result: None,
            error: None,
            cancel_requested: false,
            actor: "test".to_owned(),
            cluster_id: None,
            created_at: now,
            updated_at: now,
            deadline_at: now,
        };
        self.state().operations.insert(id.to_string(), watch::Sender::new(view));
        id
    }

    /// Says how far an operation is.
    pub fn progress(&self, id: &OperationId, message: &str, done: u64) {
        if let Some(sender) = self.state().operations.get(id.as_str()) {
            sender.send_modify(|view| {
                view.progress = Progress { message: message.to_owned(), done, total: 2 };
            });
        }
    }

    /// Ends an operation.
    pub fn finish(&self, id: &OperationId, outcome: Result<Value, ApiError>) {
        if let Some(sender) = self.state().operations.get(id.as_str()) {
            sender.send_modify(|view| match outcome {
                Ok(result) => {
                    view.status = OperationStatus::Succeeded;
                    view.result = Some(result);
                }
                Err(mut error) => {
                    error.operation = Some(id.clone());
                    view.status = OperationStatus::Failed;
                    view.error = Some(error);
                }
            });
        }
    }

    /// Makes `operation_get` show the operations that there are.
    pub fn show_operations(self: &Arc<Self>) {
        // A weak one: what answers belongs to what it asks.
        let own = Arc::downgrade(self);
        let answer = move |_: &Caller, call: &Call| {
            let Call::OperationGet(params) = call else {
                return Err(ApiError::new(ErrorCode::Internal, "not asked about an operation"));
            };
            let id = params.id.to_string();
            let shown = own.upgrade().and_then(|own| {
                own.state().operations.get(&id).map(|sender| json!(*sender.borrow()))
            });
            shown.ok_or_else(|| {
                ApiError::new(ErrorCode::NotFound, format!("there is no operation {id}"))
                    .subject(&id)
            })
        };
        self.on("operation_get", Arc::new(answer));
    }

    fn reply(&self, caller: &Caller, call: &Call) -> Result<Value, ApiError> {
        let answer = {
            let mut state = self.state();
            state.calls.push((caller.clone(), call.clone()));
            state.answers.get(call.name()).cloned()
        };
        match answer {
            Some(answer) => answer(caller, call),
            None => {
                Err(ApiError::new(ErrorCode::NotFound, format!("{} is not scripted", call.name())))
            }
        }
    }
}

#[async_trait]
impl Control for FakeControl {
    async fn call(&self, caller: &Caller, call: Call) -> Result<Value, ApiError> {
        self.reply(caller, &call)
    }

    async fn start(&self, caller: &Caller, call: Call) -> Result<OperationId, ApiError> {
        let outcome = self.reply(caller, &call);
        // A scripted `{"operation": …}` is left for the test to finish.
        if let Ok(Value::Object(object)) = &outcome
            && let Some(id) = object.get("operation").and_then(Value::as_str)
        {
            return id.parse().map_err(|_| ApiError::parameter("operation", "is no id"));
        }
        let id = self.begin(call.name());
        self.finish(&id, outcome);
        Ok(id)
    }

    async fn watch_operation(
        &self,
        _: &Caller,
        operation: &OperationId,
    ) -> Result<watch::Receiver<OperationView>, ApiError> {
        let state = self.state();
        let sender = state.operations.get(operation.as_str()).ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("there is no operation {operation}"))
        })?;
        Ok(sender.subscribe())
    }

    async fn attach(
        &self,
        _: &Caller,
        request: AttachRequest,
        io: AttachIo,
    ) -> Result<ExecOutcome, ApiError> {
        self.state().attached += 1;
        let words = match &request.command {
            Some(Command::Argv(words)) => words.clone(),
            Some(Command::Shell(line)) => line.split_whitespace().map(str::to_owned).collect(),
            None => vec!["shell".to_owned()],
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let outcome = run(&words, &request, io).await;
        if matches!(&outcome, Err(error) if error.code == ErrorCode::Cancelled) {
            self.state().killed += 1;
        }
        outcome
    }

    async fn push(
        &self,
        _: &Caller,
        request: PushRequest,
        mut chunks: mpsc::Receiver<Vec<u8>>,
    ) -> Result<FileFacts, ApiError> {
        let mut contents = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            contents.extend(chunk);
        }
        if contents.len() as u64 != request.size {
            return Err(ApiError::new(
                ErrorCode::GuestFailed,
                format!("{} of {} bytes arrived", contents.len(), request.size),
            ));
        }
        let facts = facts(&request.path, request.mode, request.size);
        self.state().files.insert(request.path, (request.mode, contents));
        Ok(facts)
    }

    async fn pull(
        &self,
        _: &Caller,
        request: PullRequest,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> Result<FileFacts, ApiError> {
        let (mode, contents) = self.file(&request.path).ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("there is no file {}", request.path))
        })?;
        for chunk in contents.chunks(CHUNK_BYTES) {
            let _ = chunks.send(chunk.to_vec()).await;
        }
        Ok(facts(&request.path, mode, contents.len() as u64))
    }
}

fn facts(path: &str, mode: u32, size: u64) -> FileFacts {
    FileFacts { path: path.to_owned(), kind: FileKind::File, mode, size, uid: 0, gid: 0 }
}

fn exited(code: i32) -> ExecOutcome {
    ExecOutcome { status: ExecStatus::Exited(code), duration_us: 1000 }
}

fn gone() -> ApiError {
    ApiError::new(ErrorCode::Cancelled, "the caller is gone")
}

/// The commands of the fake guest: `echo`, `cat`, `flood BYTES`, `exit CODE`, `hang`, `signal`,
/// `terminal`, `fail`, `shell`.
async fn run(
    words: &[&str],
    request: &AttachRequest,
    io: AttachIo,
) -> Result<ExecOutcome, ApiError> {
    let AttachIo { mut input, output } = io;
    let say = |stream, bytes: Vec<u8>| {
        let output = output.clone();
        async move { output.send(ExecOutput { stream, bytes }).await.map_err(|_| gone()) }
    };
    match words {
        ["echo", rest @ ..] => {
            say(OutputStream::Stdout, format!("{}\n", rest.join(" ")).into_bytes()).await?;
            say(OutputStream::Stderr, b"warned\n".to_vec()).await?;
            Ok(exited(0))
        }
        ["cat" | "shell"] => {
            if let Some(size) = request.terminal {
                let text = format!("{} columns, {} rows\r\n", size.columns, size.rows);
                say(OutputStream::Stdout, text.into_bytes()).await?;
            }
            while let Some(piece) = input.recv().await {
                match piece {
                    ExecInput::Data(bytes) => say(OutputStream::Stdout, bytes).await?,
                    ExecInput::Eof => break,
                    ExecInput::Signal(_) | ExecInput::Resize(_) => {}
                }
            }
            Ok(exited(0))
        }
        ["flood", bytes] => {
            let mut left = bytes.parse().unwrap_or(0usize);
            while left > 0 {
                let count = left.min(CHUNK_BYTES);
                say(OutputStream::Stdout, vec![b'x'; count]).await?;
                left -= count;
            }
            Ok(exited(0))
        }
        ["exit", code] => Ok(exited(code.parse().unwrap_or(1))),
        ["hang"] => {
            output.closed().await;
            Err(gone())
        }
        ["signal"] => loop {
            match input.recv().await {
                Some(ExecInput::Signal(signal)) => {
                    let status = ExecStatus::Signaled(signal);
                    return Ok(ExecOutcome { status, duration_us: 1000 });
                }
                Some(_) => {}
                None => return Ok(exited(1)),
            }
        },
        ["terminal"] => {
            let mut text = format!("{:?}", request.terminal);
            if let Some(ExecInput::Resize(size)) = input.recv().await {
                text.push_str(&json!([size.columns, size.rows]).to_string());
            }
            say(OutputStream::Stdout, text.into_bytes()).await?;
            Ok(exited(0))
        }
        ["panic"] => {
            #[expect(clippy::panic, reason = "front ends must survive it")]
            {
                panic!("scripted");
            }
        }
        _ => Err(ApiError::new(ErrorCode::GuestFailed, "no such command").hint("echo hello")),
    }
}
