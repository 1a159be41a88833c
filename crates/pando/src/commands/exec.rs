//! `pando exec` and `pando sh`: a command in a guest with this process's streams, its exit status
//! as ours.

use std::io::{IsTerminal, Write};

use clap::{Arg, ArgAction, ArgMatches, Command as Cli};
use pando_api::{ApiError, AttachIo, AttachRequest, Control, Verb};
use pando_model::guest::{Command, ExecInput, ExecOutcome, ExecOutput, ExecStatus, OutputStream};
use pando_model::{Address, ErrorCode};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;

use crate::app::{App, Ending};
use crate::cli::generated::{pairs, seconds, size};
use crate::commands::terminal::{self, Escape, Raw};
use crate::commands::{text, texts, typed};
use crate::limits::{CHUNKS, SIGNAL_PASSES};
use crate::output::{Format, Ui, failure};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
/// Exit status of a command that could not be started, as in a shell.
const NOT_STARTED: u8 = 127;

/// Returns what `exec`, `sh` and `fanout` have in common.
pub fn options() -> Vec<Arg> {
    vec![
        Arg::new("env")
            .long("env")
            .short('e')
            .value_name("KEY=VALUE")
            .action(ArgAction::Append)
            .help("Add to the guest's environment"),
        Arg::new("cwd")
            .long("cwd")
            .short('w')
            .value_name("DIR")
            .help("Working directory; the user's home if left out"),
        Arg::new("user")
            .long("user")
            .short('u')
            .value_name("USER")
            .help("User name or number; root if left out"),
        Arg::new("timeout")
            .long("timeout")
            .value_name("TIME")
            .help("Kill its whole process tree after this time"),
    ]
}

/// Returns where the command to run is given.
pub fn words() -> Arg {
    Arg::new("words")
        .value_name("COMMAND")
        .last(true)
        .num_args(0..)
        .help("The program and its arguments, after `--`")
}

/// Returns how much output a result may hold.
pub fn max_output() -> Arg {
    Arg::new("max_output")
        .long("max-output")
        .value_name("SIZE")
        .help("Most bytes of each of stdout and stderr in a result; head and tail are kept [default: 64KiB]")
}

/// Returns where a line for the guest's shell is given.
pub fn line() -> Arg {
    Arg::new("line")
        .long("command")
        .short('c')
        .value_name("LINE")
        .conflicts_with("words")
        .help("A line for the guest's /bin/sh, in place of a program and arguments")
}

fn address() -> Arg {
    Arg::new("address")
        .value_name("ADDRESS")
        .required(true)
        .help("CLUSTER[@BRANCH][/NODE] or an id")
}

/// Returns `pando exec`.
pub fn command() -> Cli {
    Cli::new("exec")
        .about("Run a command in a machine: its streams are yours, its exit status too")
        .override_usage("pando exec [OPTIONS] ADDRESS -- COMMAND [ARG]…")
        .arg(address())
        .args(options())
        .arg(line())
        .arg(
            Arg::new("tty")
                .long("tty")
                .short('t')
                .action(ArgAction::SetTrue)
                .help("Give it a terminal (`~.` at the beginning of a line leaves it)"),
        )
        .arg(
            Arg::new("no_stdin")
                .long("no-stdin")
                .short('n')
                .action(ArgAction::SetTrue)
                .help("Give it no standard input"),
        )
        .arg(
            Arg::new("detach")
                .long("detach")
                .short('d')
                .action(ArgAction::SetTrue)
                .help("Let it run, and return its operation"),
        )
        .arg(max_output())
        .arg(words())
}

/// Returns `pando sh`.
pub fn shell_command() -> Cli {
    Cli::new("sh")
        .about("Open a shell in a machine (`~.` at the beginning of a line leaves it)")
        .visible_alias("shell")
        .arg(address())
        .args(options())
}

/// Returns the parameters that options make, under the verbs' names.
///
/// # Errors
/// `invalid_parameter`.
pub fn common(matches: &ArgMatches) -> Result<Map<String, Value>, ApiError> {
    let mut params = Map::new();
    if let Some(env) = pairs("env", texts(matches, "env").iter())? {
        params.insert("env".to_owned(), env);
    }
    for name in ["cwd", "user"] {
        if let Some(text) = matches.get_one::<String>(name) {
            params.insert(name.to_owned(), Value::from(text.as_str()));
        }
    }
    if let Some(time) = matches.get_one::<String>("timeout") {
        params.insert("timeout_s".to_owned(), Value::from(seconds("timeout", time)?));
    }
    Ok(params)
}

/// Adds how much output the result may hold, if that was said.
///
/// # Errors
/// `invalid_parameter`.
pub fn bound(matches: &ArgMatches, params: &mut Map<String, Value>) -> Result<(), ApiError> {
    if let Some(text) = matches.get_one::<String>("max_output") {
        let bytes = size("max_output_bytes", 0, text)?;
        params.insert("max_output_bytes".to_owned(), Value::from(bytes));
    }
    Ok(())
}

/// Returns the command that was given, by either way.
///
/// # Errors
/// `invalid_parameter` when there is none.
pub fn wanted(matches: &ArgMatches, example: &str) -> Result<Command, ApiError> {
    let words = texts(matches, "words");
    match matches.get_one::<String>("line") {
        Some(line) => Ok(Command::Shell(line.clone())),
        None if !words.is_empty() => Ok(Command::Argv(words)),
        None => Err(ApiError::parameter("command", "there is no command to run").hint(example)),
    }
}

fn request(matches: &ArgMatches, command: Option<&Command>) -> Result<AttachRequest, ApiError> {
    let mut request = common(matches)?;
    let address = text(matches, "address");
    let parsed: Address =
        address.parse().map_err(|source| ApiError::parameter("address", format!("{source}")))?;
    request.insert("address".to_owned(), json!(parsed));
    request.insert("command".to_owned(), json!(command));
    typed(Value::Object(request))
}

/// Runs `pando exec`.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let example = format!("pando exec {} -- uname -a", text(matches, "address"));
    let command = wanted(matches, &example)?;
    let has_key = app.has_key();
    if matches.get_flag("tty") && app.ui.format == Format::Human && !matches.get_flag("detach") {
        if has_key {
            return Err(ApiError::parameter("key", "what has a terminal cannot be found again")
                .hint("leave --tty out"));
        }
        return interactive(app, request(matches, Some(&command))?).await;
    }
    // With a key its result is kept, and found again: streams are not.
    if has_key || app.ui.format == Format::Json || matches.get_flag("detach") {
        return collected(app, matches, &command).await;
    }
    let mut request = request(matches, Some(&command))?;
    request.no_stdin = matches.get_flag("no_stdin");
    piped(app, request).await
}

/// Runs `pando sh`.
pub async fn shell(app: &App, matches: &ArgMatches) -> Ending {
    if app.ui.format == Format::Json || !std::io::stdin().is_terminal() {
        let address = text(matches, "address");
        return Err(ApiError::new(ErrorCode::InvalidParameter, "a shell needs a terminal")
            .hint(format!("pando exec {address} -- sh < SCRIPT")));
    }
    interactive(app, request(matches, None)?).await
}

/// Runs a command through the verb: the result at its end, nothing before.
async fn collected(app: &App, matches: &ArgMatches, command: &Command) -> Ending {
    let mut params = common(matches)?;
    bound(matches, &mut params)?;
    params.insert("address".to_owned(), Value::from(text(matches, "address")));
    params.insert("detach".to_owned(), Value::from(matches.get_flag("detach")));
    match command {
        Command::Argv(words) => params.insert("argv".to_owned(), json!(words)),
        Command::Shell(line) => params.insert("command".to_owned(), json!(line)),
    };
    if !matches.get_flag("no_stdin") && !std::io::stdin().is_terminal() {
        let input = all_input().await?;
        if !input.is_empty() {
            params.insert("stdin".to_owned(), Value::from(input));
        }
    }
    let result = app.call("exec_run", Value::Object(params)).await?;
    let verb = Verb::find("exec_run").map_or("", |verb| verb.name);
    if matches.get_flag("detach") {
        if app.ui.format == Format::Json {
            app.show(verb, &result);
        } else if let Some(id) = result.get("operation_id").and_then(Value::as_str) {
            app.ui.line(id);
            app.ui.remark(format!("it runs; wait for it: pando operation wait {id}"));
        }
        return Ok(0);
    }
    if app.ui.format == Format::Json {
        app.show(verb, &result);
    } else {
        let text = |name: &str| result.get(name).and_then(Value::as_str).unwrap_or_default();
        // Whoever does not read has seen enough.
        let _ = std::io::stdout().write_all(text("stdout").as_bytes());
        let _ = std::io::stderr().write_all(text("stderr").as_bytes());
    }
    let signal = result.get("signal").and_then(Value::as_i64).map(|signal| 128 + signal);
    let code = result.get("exit_code").and_then(Value::as_i64).or(signal).unwrap_or(124);
    Ok(u8::try_from(code).unwrap_or(1))
}

async fn all_input() -> Result<String, ApiError> {
    let mut input = terminal::input();
    let mut all = Vec::new();
    while let Some(piece) = input.recv().await {
        all.extend(piece);
        if all.len() > pando_model::limits::MAX_INLINE_STDIN_BYTES {
            return Err(ApiError::parameter(
                "stdin",
                "there is too much standard input for --json",
            ));
        }
    }
    String::from_utf8(all).map_err(|_| ApiError::parameter("stdin", "standard input is not UTF-8"))
}

fn signals(kind: SignalKind) -> Result<Signal, ApiError> {
    signal(kind).map_err(|source| ApiError::new(ErrorCode::Internal, source.to_string()))
}

/// Runs a command on pipes: input, output and signals are handed on.
async fn piped(app: &App, request: AttachRequest) -> Ending {
    let (sender, input) = mpsc::channel(CHUNKS);
    let (output, received) = mpsc::channel(CHUNKS);
    let interrupts = signals(SignalKind::interrupt())?;
    let terminations = signals(SignalKind::terminate())?;
    let input_from = (!request.no_stdin).then(terminal::input);
    let hand_on = hand_on(sender, input_from, interrupts, terminations);
    let caller = app.caller();
    let run = app.client.attach(&caller, request, AttachIo { input, output });
    let finished = async { tokio::join!(run, write_out(received)).0 };
    // Cancel-safe: leaving gives the command up, and with it its streams.
    let outcome = tokio::select! {
        outcome = finished => outcome,
        () = hand_on => return Ok(130),
    };
    ended(app, outcome)
}

/// Hands input and signals on to a command. Returns when it is to be given up: when a signal comes
/// again, or does not get past input that the command does not read.
async fn hand_on(
    sender: mpsc::Sender<ExecInput>,
    mut typed: Option<mpsc::Receiver<Vec<u8>>>,
    mut interrupts: Signal,
    mut terminations: Signal,
) {
    let mut last = None;
    if typed.is_none() {
        let _ = sender.send(ExecInput::Eof).await;
    }
    loop {
        // Cancel-safe: channels and signal streams lose nothing, and a piece is taken last.
        let signal = tokio::select! {
            (room, piece) = async { (sender.reserve().await, next(&mut typed).await) } => {
                let piece = piece.map_or(ExecInput::Eof, ExecInput::Data);
                if piece == ExecInput::Eof {
                    typed = None;
                }
                match room {
                    Ok(room) => room.send(piece),
                    Err(_) => std::future::pending().await,
                }
                continue;
            }
            _ = interrupts.recv() => SIGINT,
            _ = terminations.recv() => SIGTERM,
        };
        if last.replace(signal) == Some(signal) {
            return;
        }
        match sender.send_timeout(ExecInput::Signal(signal), SIGNAL_PASSES).await {
            Err(SendTimeoutError::Timeout(_)) => return,
            Err(SendTimeoutError::Closed(_)) => std::future::pending().await,
            Ok(()) => {}
        }
    }
}

/// Returns the exit status of a command as ours; what a guest cannot start has that of shells.
fn ended(app: &App, outcome: Result<ExecOutcome, ApiError>) -> Ending {
    match outcome {
        Ok(outcome) => Ok(exit_status(&app.ui, outcome.status)),
        Err(error) if error.code == ErrorCode::GuestFailed => {
            failure::show(&app.ui, &error);
            Ok(NOT_STARTED)
        }
        Err(error) => Err(error),
    }
}

/// Returns the exit status of a command as ours, and says what a number cannot.
fn exit_status(ui: &Ui, status: ExecStatus) -> u8 {
    if status == ExecStatus::TimedOut {
        ui.remark("pando: the command ran out of time; its whole process tree was killed");
    }
    u8::try_from(status.shell_code()).unwrap_or(1)
}

/// Returns the next piece of input; never, when there is none any more.
async fn next(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

/// Writes output as it comes. A reader of ours that went away ends the command, as a pipe would.
async fn write_out(mut output: mpsc::Receiver<ExecOutput>) {
    while let Some(chunk) = output.recv().await {
        let written = match chunk.stream {
            OutputStream::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&chunk.bytes).and_then(|()| stdout.flush())
            }
            OutputStream::Stderr => std::io::stderr().lock().write_all(&chunk.bytes),
        };
        if written.is_err() {
            return;
        }
    }
}

/// Runs a command on a terminal of its own, which follows ours.
async fn interactive(app: &App, mut request: AttachRequest) -> Ending {
    request.terminal = Some(terminal::size());
    if let Ok(term) = std::env::var("TERM") {
        request.env.entry("TERM".to_owned()).or_insert(term);
    }
    let (sender, input) = mpsc::channel(CHUNKS);
    let (output, received) = mpsc::channel(CHUNKS);
    let mut resizes = signals(SignalKind::window_change())?;
    let mut terminations = signals(SignalKind::terminate())?;
    let mut hang_ups = signals(SignalKind::hangup())?;
    let raw = Raw::enter();
    let hand_on = async {
        let mut typed = Some(terminal::input());
        let mut escape = Escape::Begin;
        loop {
            // Cancel-safe, as above.
            let piece = tokio::select! {
                piece = next(&mut typed) => match piece {
                    Some(bytes) if raw.is_some() => match escape.filter(&bytes) {
                        Some(passed) => ExecInput::Data(passed),
                        None => return,
                    },
                    Some(bytes) => ExecInput::Data(bytes),
                    None => { typed = None; ExecInput::Eof }
                },
                _ = resizes.recv() => ExecInput::Resize(terminal::size()),
                _ = terminations.recv() => return,
                _ = hang_ups.recv() => return,
            };
            if sender.send(piece).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let caller = app.caller();
    let run = app.client.attach(&caller, request, AttachIo { input, output });
    let finished = async { tokio::join!(run, write_out(received)).0 };
    // Cancel-safe: leaving gives the command up, and with it its streams.
    let outcome = tokio::select! {
        outcome = finished => Some(outcome),
        () = hand_on => None,
    };
    drop(raw);
    match outcome {
        Some(outcome) => ended(app, outcome),
        None => {
            left(&app.ui);
            Ok(130)
        }
    }
}

fn left(ui: &Ui) {
    ui.remark("\nleft; what ran on that terminal was ended");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn an_interrupt_gives_up_a_command_that_does_not_read_its_input() {
        let (sender, mut input) = mpsc::channel(1);
        let (typing, typed) = mpsc::channel(4);
        for _ in 0..4 {
            typing.send(vec![7]).await.unwrap();
        }
        let [interrupts, terminations] =
            [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signals(kind).unwrap());
        let handing_on = tokio::spawn(hand_on(sender, Some(typed), interrupts, terminations));
        assert_eq!(input.recv().await, Some(ExecInput::Data(vec![7])));
        kill_process(getpid(), rustix::process::Signal::INT).unwrap();
        tokio::time::timeout(Duration::from_secs(20), handing_on).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_signal_goes_on_behind_what_was_read() {
        let (sender, mut input) = mpsc::channel(4);
        let (typing, typed) = mpsc::channel(4);
        typing.send(vec![7]).await.unwrap();
        let [interrupts, terminations] =
            [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signals(kind).unwrap());
        let handing_on = tokio::spawn(hand_on(sender, Some(typed), interrupts, terminations));
        assert_eq!(input.recv().await, Some(ExecInput::Data(vec![7])));
        for signal in [SIGTERM, SIGINT] {
            let named = rustix::process::Signal::from_named_raw(signal).unwrap();
            kill_process(getpid(), named).unwrap();
            assert_eq!(input.recv().await, Some(ExecInput::Signal(signal)));
        }
        drop(typing);
        assert_eq!(input.recv().await, Some(ExecInput::Eof));
        // The same again: enough is enough.
        kill_process(getpid(), rustix::process::Signal::INT).unwrap();
        tokio::time::timeout(Duration::from_secs(20), handing_on).await.unwrap().unwrap();
    }
}
