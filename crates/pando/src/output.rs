//! What people see: colours on terminals only, tables that fit, one way to show a failure. With
//! `--json` nothing but the envelope is written to stdout.

pub mod failure;
pub mod graph;
pub mod progress;
pub mod results;
pub mod table;
pub mod units;

use std::io::{IsTerminal, Write};

use jiff::Timestamp;
use pando_api::Envelope;
use pando_model::branch::BranchState;
use serde_json::Value;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

/// What is said besides results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// Results, progress and remarks.
    All,
    /// Results only, as short as they can be.
    Quiet,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Human,
    /// The envelope.
    Json,
}

/// How to speak to whoever is there.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    /// How results are written.
    pub format: Format,
    /// What is said besides results.
    pub talk: Talk,
    /// Columns of the terminal; `None` when stdout is none.
    pub width: Option<usize>,
    /// The time that ages are counted to.
    pub now: Timestamp,
    colour_out: bool,
    colour_err: bool,
    live: bool,
}

/// The look of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As it is.
    Plain,
    /// Important.
    Bold,
    /// Less important.
    Dim,
    /// Fine.
    Green,
    /// Waiting.
    Yellow,
    /// Wrong.
    Red,
    /// A name to type.
    Cyan,
}

impl Look {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Dim => Some("2"),
            Self::Green => Some("32"),
            Self::Yellow => Some("33"),
            Self::Red => Some("31"),
            Self::Cyan => Some("36"),
        }
    }

    /// Returns the look of a branch's state.
    pub const fn of_state(state: BranchState) -> Self {
        match state {
            BranchState::Running => Self::Green,
            BranchState::Paused => Self::Yellow,
            BranchState::Stopped => Self::Dim,
        }
    }
}

/// Returns the text with terminal codes around it.
pub fn paint(colour: bool, look: Look, text: &str) -> String {
    match look.code() {
        Some(code) if colour => format!("\x1b[{code}m{text}\x1b[0m"),
        _ => text.to_owned(),
    }
}

impl Ui {
    /// Returns the way to speak to whoever holds this process's stdout and stderr.
    pub fn new(format: Format, talk: Talk, colour: Colour) -> Self {
        let stdout = std::io::stdout();
        let auto = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let coloured = |terminal: bool| match colour {
            Colour::Auto => terminal && auto,
            Colour::Always => true,
            Colour::Never => false,
        };
        let width = stdout.is_terminal().then(|| {
            let size = rustix::termios::tcgetwinsize(&stdout).ok();
            size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
        });
        let err_terminal = std::io::stderr().is_terminal();
        Self {
            format,
            talk,
            width,
            now: Timestamp::now(),
            colour_out: coloured(stdout.is_terminal()),
            colour_err: coloured(err_terminal),
            live: err_terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        }
    }

    /// Returns the text as it looks on stdout.
    pub fn paint(&self, look: Look, text: &str) -> String {
        paint(self.colour_out, look, text)
    }

    /// Writes a line to stdout. A reader that went away (`| head`) is no error.
    pub fn line(&self, text: impl AsRef<str>) {
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{}", text.as_ref());
    }

    /// Writes a line to stderr, unless told to be quiet.
    pub fn remark(&self, text: impl AsRef<str>) {
        if self.talk == Talk::All {
            let text = paint(self.colour_err, Look::Dim, text.as_ref());
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// Writes a result: its words, or its envelope.
    pub fn answer(&self, human: &str, result: Value) {
        match self.format {
            Format::Human => self.line(human),
            Format::Json => {
                let envelope = Envelope::from(Ok(result));
                self.line(serde_json::to_string(&envelope).unwrap_or_default());
            }
        }
    }

    /// Returns whether stderr is a terminal on which a line can be drawn again and again.
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// Returns whether stdout is coloured.
    pub const fn colours_stdout(&self) -> bool {
        self.colour_out
    }

    /// Returns whether stderr is coloured.
    pub const fn colours_stderr(&self) -> bool {
        self.colour_err
    }
}
