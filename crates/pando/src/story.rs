//! `pando demo`: the main job, told step by step on real machines: of a cluster, or of one machine.
//! Every line that it prints is the result of a call that anybody can make.

mod cluster;
mod machine;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use pando_api::exec::ExecRunResult;
use pando_api::{ApiError, Control};
use serde_json::{Map, Value, json};

use crate::session::Session;

/// Which story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// Three nodes of etcd, and networks that break on purpose.
    Cluster,
    /// One machine.
    Machine,
}

/// What the demo is told.
#[derive(Debug, Clone)]
pub struct StoryOptions {
    /// Which story.
    pub story: Story,
    /// The machine's name.
    pub name: String,
    /// Leave the machine and its branches there at the end.
    pub keep: bool,
    /// The image to start from.
    pub image: String,
}

/// Tells the story on a terminal or into a pipe.
struct Narrator<W> {
    out: W,
    colour: bool,
    began: Instant,
    figures: Vec<(&'static str, Duration)>,
    /// What was seen on the way, for `--json`.
    seen: Map<String, Value>,
}

impl<W: Write> Narrator<W> {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn chapter(&mut self, title: &str, command: &str) -> Result<(), StoryError> {
        let title = self.paint("1", title);
        let command = self.paint("2", &format!("$ {command}"));
        writeln!(self.out, "\n{title}\n  {command}")?;
        Ok(self.out.flush()?)
    }

    fn say(&mut self, text: &str) -> Result<(), StoryError> {
        writeln!(self.out, "  {text}")?;
        Ok(self.out.flush()?)
    }

    fn saw(&mut self, what: &str, value: Value) {
        self.seen.insert(what.to_owned(), value);
    }

    fn took(&mut self, what: &'static str, time: Duration, text: &str) -> Result<(), StoryError> {
        self.figures.push((what, time));
        let time = self.paint("32", &milliseconds(time));
        self.say(&format!("{text}  {time}"))
    }
}

fn milliseconds(time: Duration) -> String {
    if time < Duration::from_millis(10) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else if time < Duration::from_secs(10) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// Why the demo stopped.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] ApiError),
    /// The story could not be told.
    #[error("cannot write the story")]
    Write(#[from] io::Error),
    /// A machine did not hold what it must.
    #[error("{0}")]
    Untrue(String),
}

/// Runs the demo and returns its result for `--json`; with `keep` unset, nothing stays.
///
/// # Errors
/// The first call that fails; the machine is removed then as well.
pub async fn tell(
    control: &dyn Control,
    options: &StoryOptions,
    out: impl Write,
    colour: bool,
) -> Result<Value, StoryError> {
    let session = Session::new(control);
    let mut narrator =
        Narrator { out, colour, began: Instant::now(), figures: Vec::new(), seen: Map::new() };
    let result = match options.story {
        Story::Cluster => cluster::chapters(&session, options, &mut narrator).await,
        Story::Machine => machine::chapters(&session, options, &mut narrator).await,
    };
    if !options.keep {
        let (verb, params) = match options.story {
            Story::Cluster => {
                ("cluster_destroy", json!({"cluster_name": options.name, "remove_overlays": true}))
            }
            Story::Machine => {
                ("vm_delete", json!({"name": options.name, "force": true, "remove_overlays": true}))
            }
        };
        let removed: Result<Value, ApiError> = session.ask(verb, params).await;
        if result.is_ok() {
            removed?;
            narrator.say("")?;
            narrator.say("Everything is removed again (`pando demo --keep` leaves it to you).")?;
        }
    }
    result?;
    narrator.summary()
}

impl<W: Write> Narrator<W> {
    fn summary(&mut self) -> Result<Value, StoryError> {
        let total = self.began.elapsed();
        writeln!(self.out)?;
        let figures = std::mem::take(&mut self.figures);
        for (what, time) in &figures {
            writeln!(self.out, "  {what:<46}{:>10}", milliseconds(*time))?;
        }
        writeln!(self.out, "  {:<46}{:>10}", "the whole demo", milliseconds(total))?;
        let figures: Map<String, Value> = figures
            .into_iter()
            .map(|(what, time)| (what.to_owned(), json!(time.as_secs_f64() * 1000.0)))
            .collect();
        let seen = std::mem::take(&mut self.seen);
        Ok(json!({
            "figures_ms": figures, "total_ms": total.as_secs_f64() * 1000.0, "seen": seen,
        }))
    }
}

fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), StoryError> {
    if holds { Ok(()) } else { Err(StoryError::Untrue(otherwise())) }
}

async fn run_shell(
    session: &Session<'_>,
    address: &str,
    command: &str,
) -> Result<ExecRunResult, ApiError> {
    session.ask("exec_run", json!({"address": address, "command": command})).await
}

/// Runs a command that must succeed; returns what it printed and how long the call took.
async fn shell(
    session: &Session<'_>,
    address: &str,
    command: &str,
) -> Result<(String, Duration), StoryError> {
    let began = Instant::now();
    let result = run_shell(session, address, command).await?;
    let time = began.elapsed();
    must(result.exit_code == Some(0), || {
        format!("`{command}` failed in {address}: {}", result.stderr.trim())
    })?;
    Ok((result.stdout, time))
}
