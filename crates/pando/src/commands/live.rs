//! What `watch` and `top` have in common: a screen that is drawn again and again at a bounded rate,
//! keys, and the way out, on which the terminal is given back as it was.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches};
use pando_api::ApiError;
use pando_model::ErrorCode;
use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::cli::generated::seconds;
use crate::commands::terminal::{self, Raw};
use crate::limits::{LOOK_INTERVAL, MIN_LOOK_INTERVAL};
use crate::output::{Format, Ui};

/// How what is seen is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Once.
    Once,
    /// On a screen, drawn again.
    Screen,
    /// Line by line, for a file or a pipe.
    Lines,
    /// One JSON object a look.
    Json,
}

/// What ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is time to look again.
    Look,
    /// Something is to be drawn again: another size, or a key.
    Draw(Option<u8>),
    /// Whoever looks has had enough.
    Leave,
}

const CTRL_C: u8 = 3;
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Returns the arguments of a live view.
pub fn arguments() -> [Arg; 2] {
    [
        Arg::new("once").long("once").action(ArgAction::SetTrue).help("Look once, and end"),
        Arg::new("interval")
            .long("interval")
            .short('i')
            .value_name("TIME")
            .help("Time between two looks [default: 1s]"),
    ]
}

/// A view that somebody looks at.
pub struct Live {
    /// How it is shown.
    pub mode: Mode,
    /// Time between two looks.
    pub interval: Duration,
    screen: Option<Screen>,
    typed: Option<mpsc::Receiver<Vec<u8>>>,
    signals: Vec<Signal>,
    resized: Signal,
    next: Instant,
}

/// The terminal's other screen; dropping it brings the first one back.
struct Screen {
    _raw: Option<Raw>,
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(LEAVE.as_bytes()).and_then(|()| stdout.flush());
    }
}

impl Live {
    /// Begins a view in the form that fits the arguments and the terminal.
    ///
    /// # Errors
    /// `invalid_parameter` for an interval that is none; `internal` when signals cannot be awaited.
    pub fn begin(ui: &Ui, matches: &ArgMatches) -> Result<Self, ApiError> {
        let interval = match matches.get_one::<String>("interval") {
            Some(text) => Duration::from_secs(seconds("interval", text)?).max(MIN_LOOK_INTERVAL),
            None => LOOK_INTERVAL,
        };
        let smart = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let mode = match (matches.get_flag("once"), ui.format) {
            (true, _) => Mode::Once,
            (false, Format::Json) => Mode::Json,
            (false, Format::Human) if std::io::stdout().is_terminal() && smart => Mode::Screen,
            (false, Format::Human) => Mode::Lines,
        };
        let listen = |kind| {
            signal(kind).map_err(|source| ApiError::new(ErrorCode::Internal, source.to_string()))
        };
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals = kinds.into_iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let resized = listen(SignalKind::window_change())?;
        let (screen, typed) = match mode {
            Mode::Screen => {
                let raw = Raw::enter();
                let typed = raw.is_some().then(terminal::input);
                let mut stdout = std::io::stdout().lock();
                let _ = stdout.write_all(ENTER.as_bytes()).and_then(|()| stdout.flush());
                (Some(Screen { _raw: raw }), typed)
            }
            _ => (None, None),
        };
        Ok(Self { mode, interval, screen, typed, signals, resized, next: Instant::now() })
    }

    /// Returns columns and rows of the screen.
    pub fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(std::io::stdout()).ok();
        let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (usize::from(size.ws_col), usize::from(size.ws_row)))
    }

    /// Draws lines from the top of the screen; what does not fit is left out.
    pub fn draw(&self, lines: &[String]) {
        if self.screen.is_none() {
            return;
        }
        let (_, rows) = self.size();
        let mut text = String::from("\x1b[H");
        for line in lines.iter().take(rows.saturating_sub(1)) {
            text.push_str(line);
            text.push_str("\x1b[K\r\n");
        }
        text.push_str("\x1b[J");
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Waits for what comes next. Looks are an interval apart, however long one takes.
    pub async fn wait(&mut self) -> Next {
        let now = Instant::now();
        if self.next <= now {
            self.next = now + self.interval;
        }
        let [interrupt, terminate, hang_up] = self.signals.as_mut_slice() else {
            return Next::Leave;
        };
        // Cancel-safe: signals and keys that are not taken here are taken by the next wait.
        tokio::select! {
            () = sleep_until(self.next) => {
                self.next += self.interval;
                Next::Look
            }
            key = key(&mut self.typed) => match key {
                CTRL_C | b'q' | b'Q' => Next::Leave,
                key => Next::Draw(Some(key)),
            },
            _ = self.resized.recv() => Next::Draw(None),
            _ = interrupt.recv() => Next::Leave,
            _ = terminate.recv() => Next::Leave,
            _ = hang_up.recv() => Next::Leave,
        }
    }
}

/// Returns the first key of what is typed; never, when nobody can type. A terminal that has hung up
/// is one whose user has left: no signal tells that to a program of another session.
async fn key(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> u8 {
    match typed {
        Some(keys) => {
            let first = keys.recv().await.and_then(|bytes| bytes.first().copied());
            first.unwrap_or(CTRL_C)
        }
        None => std::future::pending().await,
    }
}
