//! From arguments to an exit status.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ArgMatches;
use clap::error::ErrorKind;
use pando_api::verb::{Effect, Runs};
use pando_api::{ApiError, Call, Caller, Control, OperationView, Verb, catalogue};
use pando_http::{Client, Launch};
use pando_model::operation::{OperationStatus, Progress};
use pando_model::{ErrorCode, Layout, OperationId, RequestId};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::generated::{self, NO_WAIT};
use crate::daemon::launch::Launcher;
use crate::limits::PROGRESS_FRAME;
use crate::output::failure;
use crate::output::progress::Meter;
use crate::output::results;
use crate::output::{Colour, Format, Talk, Ui};
use crate::{cli, commands, daemon, home, mcp};

/// What a command works with.
pub struct App {
    /// How to speak.
    pub ui: Ui,
    /// Where files are.
    pub layout: Layout,
    /// The daemon.
    pub client: Client,
    /// Who calls.
    caller: Caller,
    /// Calls so far that came with the key of the command line.
    keyed: AtomicUsize,
}

/// What a command ends with: an exit status, or an error that is shown.
pub type Ending = Result<u8, ApiError>;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    if std::env::args_os().len() == 1
        && let Some(words) = commands::first::words()
    {
        Ui::new(Format::Human, Talk::All, Colour::Auto).line(words);
        return ExitCode::SUCCESS;
    }
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    let matches = match cli::root().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage(&error, wants_json),
    };
    let ui = ui(&matches);
    let ending = match matches.subcommand() {
        Some((name, matches)) => dispatch(ui, name, matches),
        None => Ok(2),
    };
    match ending {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            failure::show(&ui, &error);
            ExitCode::from(error.code.exit_status())
        }
    }
}

/// Shows what clap says: help as it is, a mistake as an error like any other.
fn usage(error: &clap::Error, wants_json: bool) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let lacks_command = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !wants_json || is_help && !lacks_command {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let message = if lacks_command { "there is no command to run" } else { first };
    let ui = Ui::new(Format::Json, Talk::Quiet, Colour::Never);
    let error = ApiError::new(ErrorCode::InvalidParameter, message).hint("pando --help");
    failure::show(&ui, &error);
    ExitCode::from(2)
}

/// Returns the innermost command's arguments: global flags are found there wherever they were
/// given.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    let mut level = matches;
    while let Some((_, below)) = level.subcommand() {
        level = below;
    }
    level
}

fn ui(matches: &ArgMatches) -> Ui {
    let level = innermost(matches);
    let flag = |name: &str| level.get_flag(name);
    let colour = level.get_one::<String>("color").map(String::as_str);
    let colour = match colour {
        Some("always") => Colour::Always,
        Some("never") => Colour::Never,
        _ => Colour::Auto,
    };
    let format = if flag("json") { Format::Json } else { Format::Human };
    let talk = if flag("quiet") || flag("json") { Talk::Quiet } else { Talk::All };
    Ui::new(format, talk, colour)
}

fn dispatch(ui: Ui, name: &str, matches: &ArgMatches) -> Ending {
    let globals = innermost(matches);
    if globals.get_flag("read_only") && commands::changes_something(name, matches) {
        let message = format!("pando {name} is refused: this session is read-only");
        return Err(ApiError::new(ErrorCode::Forbidden, message).subject(name));
    }
    let layout = home::layout(globals.get_one::<PathBuf>("home").map(PathBuf::as_path))?;
    if let Some(ending) = commands::without_daemon(ui, &layout, name, matches) {
        return ending;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ApiError::new(ErrorCode::Internal, format!("no runtime: {source}")))?;
    let ending = runtime.block_on(async {
        let app = App::new(ui, layout, matches)?;
        if name == "mcp" {
            // Its client is answered at once; a daemon is started by the first call that needs one.
            return mcp::run(&app, matches).await;
        }
        app.warn_of_another_version().await?;
        app.run(name, matches).await
    });
    // A thread that still reads the terminal must not keep the process.
    runtime.shutdown_background();
    ending
}

/// Returns the id of this process's session, where this process can see who leads it: in a pid
/// namespace of its own, as containers have, the kernel gives a leader outside the number 0.
fn terminal_session() -> Option<i32> {
    let session = nix::unistd::getsid(None).ok()?.as_raw();
    (session > 0).then_some(session)
}

impl App {
    fn new(ui: Ui, layout: Layout, matches: &ArgMatches) -> Result<Self, ApiError> {
        let globals = innermost(matches);
        let mut caller = Caller::local(rustix::process::geteuid().as_raw());
        caller.read_only = globals.get_flag("read_only");
        caller.idempotency_key = globals.get_one::<String>("key").cloned();
        caller.session = std::io::stdin()
            .is_terminal()
            .then(terminal_session)
            .flatten()
            .map(|session| format!("terminal:{session}"));
        let url = globals.get_one::<String>("url").map(String::as_str);
        let client = daemon::elsewhere(url)?.unwrap_or_else(|| {
            let launcher: Arc<dyn Launch> = Arc::new(Launcher::new(layout.clone(), ui));
            Client::new(layout.daemon_socket(), Some(launcher))
        });
        Ok(Self { ui, layout, client, caller, keyed: AtomicUsize::new(0) })
    }

    /// Returns who makes the next call: each is a request of its own, and has a key of its own if
    /// the command line gave one for several.
    pub fn caller(&self) -> Caller {
        let key = self.caller.idempotency_key.clone().map(|key| {
            match self.keyed.fetch_add(1, Ordering::Relaxed) {
                0 => key,
                number => format!("{key}/{number}"),
            }
        });
        Caller { request_id: RequestId::random(), idempotency_key: key, ..self.caller.clone() }
    }

    /// Whether the command line gave a key.
    pub fn has_key(&self) -> bool {
        self.caller.idempotency_key.is_some()
    }

    async fn warn_of_another_version(&self) -> Result<(), ApiError> {
        let about = self.client.about().await?;
        if about.version != daemon::VERSION {
            self.ui.remark(format!(
                "the daemon is pando {}, this is {}; `pando daemon restart` changes it, and \
                 running branches go on",
                about.version,
                daemon::VERSION
            ));
        }
        Ok(())
    }

    async fn run(&self, name: &str, matches: &ArgMatches) -> Ending {
        if let Some(ending) = commands::with_daemon(self, name, matches).await {
            return ending;
        }
        let (mut path, mut level) = (vec![name], matches);
        while let Some((word, below)) = level.subcommand() {
            path.push(word);
            level = below;
        }
        let verb = catalogue().iter().find(|verb| !verb.cli.by_hand && verb.cli.path == path);
        let verb = verb.ok_or_else(|| {
            ApiError::new(ErrorCode::UnknownVerb, format!("no verb answers {}", path.join(" ")))
        })?;
        let params = generated::params(verb, level)?;
        let wait = !level.try_get_one::<bool>(NO_WAIT).ok().flatten().copied().unwrap_or(false);
        self.verb(verb, params, if wait { Wait::Finished } else { Wait::Begun }).await
    }

    /// Calls a verb and shows its result.
    pub async fn verb(&self, verb: &'static Verb, params: Value, wait: Wait) -> Ending {
        let call = Call::parse(verb.name, params)?;
        if verb.runs == Runs::AsOperation && wait == Wait::Begun {
            let id = self.client.start(&self.caller(), call).await?;
            self.ui.answer(id.as_str(), json!({ "operation_id": id }));
            self.ui.remark(format!("it has begun; wait for it: pando operation wait {id}"));
            return Ok(0);
        }
        let result = self.finished(call).await?;
        self.show(verb.name, &result);
        Ok(status(verb.name, &result))
    }

    /// Shows a verb's result in the form that was asked for.
    pub fn show(&self, verb: &str, result: &Value) {
        match self.ui.format {
            Format::Json => self.ui.answer("", result.clone()),
            Format::Human => results::show(&self.ui, verb, result),
        }
    }

    /// Calls a verb by name, parameters checked, and returns its result.
    pub async fn call(&self, verb: &str, params: Value) -> Result<Value, ApiError> {
        self.finished(Call::parse(verb, params)?).await
    }

    /// Calls a verb that only reads, without showing progress.
    pub async fn look(&self, verb: &str, params: Value) -> Result<Value, ApiError> {
        let request_id = RequestId::random();
        let caller = Caller { request_id, idempotency_key: None, ..self.caller.clone() };
        self.client.call(&caller, Call::parse(verb, params)?).await
    }

    /// Calls a verb, showing progress, and returns its result.
    pub async fn finished(&self, call: Call) -> Result<Value, ApiError> {
        if call.verb().runs == Runs::AsOperation {
            return self.watched(call).await;
        }
        let message = call.verb().summary.trim_end_matches('.').to_owned();
        let progress = Progress { message, done: 0, total: 0 };
        let mut meter = Meter::new(&self.ui);
        let mut frames = tokio::time::interval(PROGRESS_FRAME);
        // Only what changes something has use for a key.
        let caller = match call.verb().effect {
            Effect::Read => Caller { idempotency_key: None, ..self.caller.clone() },
            _ => self.caller(),
        };
        let call = self.client.call(&caller, call);
        tokio::pin!(call);
        loop {
            // Cancel-safe: the call is pinned.
            tokio::select! {
                outcome = call.as_mut() => return outcome,
                _ = frames.tick(), if self.ui.is_live() => meter.draw(&progress),
            }
        }
    }

    async fn watched(&self, call: Call) -> Result<Value, ApiError> {
        let name = call.name();
        // From here on an interrupt leaves the operation alone and says where it is.
        let mut interrupts = signal(SignalKind::interrupt())
            .map_err(|source| ApiError::new(ErrorCode::Internal, source.to_string()))?;
        let id = self.client.start(&self.caller(), call).await?;
        let mut states = self.client.watch_operation(&self.caller, &id).await?;
        let mut meter = Meter::new(&self.ui);
        let mut frames = tokio::time::interval(PROGRESS_FRAME);
        loop {
            let view = states.borrow_and_update().clone();
            if view.status.is_final() {
                meter.clear();
                return outcome(name, view);
            }
            meter.draw(&view.progress);
            // Cancel-safe: all three can be asked again.
            tokio::select! {
                changed = states.changed() => {
                    if changed.is_err() {
                        return Err(unseen(&id));
                    }
                }
                _ = frames.tick() => {}
                _ = interrupts.recv() => {
                    meter.clear();
                    return Err(interrupted(&id));
                }
            }
        }
    }
}

/// Whether an operation is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it has ended.
    Finished,
    /// Until it is recorded.
    Begun,
}

/// Returns the exit status that a result stands for: that of a command on a node; else 1 if some of
/// several things could not be done, or what was to be checked is wrong.
fn status(verb: &str, result: &Value) -> u8 {
    let is = |name: &str, value: bool| result.get(name) == Some(&Value::Bool(value));
    if verb == "node_exec" {
        let code = result.get("exit_code").and_then(Value::as_i64);
        let signal = result.get("signal").and_then(Value::as_i64);
        let timed_out = is("timed_out", true).then_some(124);
        let code = timed_out.or(code).or(signal.map(|signal| 128 + signal)).unwrap_or(0);
        return u8::try_from(code).unwrap_or(u8::MAX);
    }
    if verb == "operation_wait" {
        let status = result.get("status").and_then(Value::as_str).unwrap_or_default();
        return u8::from(matches!(status, "failed" | "cancelled" | "stuck"));
    }
    let failed = result.get("failed").and_then(Value::as_u64).unwrap_or(0);
    let without_ssh = result.get("ssh_missing").is_some();
    u8::from(failed > 0 || without_ssh || is("valid", false) || is("all_succeeded", false))
}

fn outcome(name: &str, view: OperationView) -> Result<Value, ApiError> {
    match (view.status, view.result, view.error) {
        (OperationStatus::Succeeded, result, _) => Ok(result.unwrap_or(Value::Null)),
        (_, _, Some(error)) => Err(error),
        (status, _, None) => Err(ApiError::new(
            ErrorCode::Internal,
            format!("{name} ended as {status:?} without saying why").to_lowercase(),
        )
        .operation(view.operation_id)),
    }
}

fn unseen(id: &OperationId) -> ApiError {
    ApiError::new(
        ErrorCode::DaemonUnreachable,
        format!("the daemon went away; the operation {id} is finished or undone when it is back"),
    )
    .hint(format!("pando operation wait {id}"))
}

fn interrupted(id: &OperationId) -> ApiError {
    ApiError::new(ErrorCode::Cancelled, format!("no longer waiting; the operation {id} goes on"))
        .hint(format!("pando operation wait {id}\npando operation cancel {id}"))
}
