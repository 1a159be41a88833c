//! `pando doctor`: everything that pando needs of this machine, and how to fix what is missing.
//! Needs no daemon and changes nothing but its own notes.

mod checks;

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_model::Layout;
use serde::Serialize;
use serde_json::json;

use crate::app::Ending;
use crate::output::progress::Meter;
use crate::output::table::printable;
use crate::output::{Format, Look, Ui};
use crate::settings::{Ignored, Settings, Sources};
use crate::wire::machines::Probing;

/// The exit status when something that is needed is missing.
const EXIT_MISSING: u8 = 9;
/// Longest text of a finding, in characters.
const MAX_FOUND_CHARS: usize = 160;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As it should be.
    Fine,
    /// Works, but slower, or some things will not.
    Poor,
    /// Nothing works without it.
    Missing,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// The exact command that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn new(what: &'static str, verdict: Verdict, found: &str, fix: Option<&str>) -> Self {
        // What other programs say may be long; its beginning tells what it is.
        let found = printable(found).chars().take(MAX_FOUND_CHARS).collect();
        Self { what, verdict, found, fix: fix.map(str::to_owned) }
    }

    fn fine(what: &'static str, found: impl AsRef<str>) -> Self {
        Self::new(what, Verdict::Fine, found.as_ref(), None)
    }

    fn poor(what: &'static str, found: impl AsRef<str>, fix: impl AsRef<str>) -> Self {
        Self::new(what, Verdict::Poor, found.as_ref(), Some(fix.as_ref()))
    }

    fn missing(what: &'static str, found: impl AsRef<str>, fix: impl AsRef<str>) -> Self {
        Self::new(what, Verdict::Missing, found.as_ref(), Some(fix.as_ref()))
    }
}

/// Returns the command.
pub fn command() -> Command {
    Command::new("doctor").about("Check everything that pando needs, and say how to fix it").arg(
        Arg::new("fresh")
            .long("fresh")
            .action(ArgAction::SetTrue)
            .help("Try accelerators again, in place of what is remembered"),
    )
}

/// Checks everything.
pub fn run(ui: Ui, layout: &Layout, matches: &ArgMatches) -> Ending {
    let probing = if matches.get_flag("fresh") { Probing::Fresh } else { Probing::Remembered };
    let mut findings = Vec::new();
    let settings = match Sources::of_process(&layout.config())
        .and_then(|sources| Ok((Settings::resolve(&sources)?.0, sources.ignored())))
    {
        Ok((settings, ignored)) => {
            findings.push(Finding::fine("configuration", layout.config().display().to_string()));
            findings.extend(ignored.iter().map(unused));
            settings
        }
        Err(error) => {
            let fix = error.hint.clone().unwrap_or_default();
            findings.push(Finding::missing("configuration", error.message, fix));
            Settings::default()
        }
    };
    let mut meter = Meter::new(&ui);
    checks::all(layout, &settings, probing, &mut meter, &mut findings);
    meter.clear();
    let worst_is_missing = findings.iter().any(|one| one.verdict == Verdict::Missing);
    match ui.format {
        Format::Json => {
            ui.answer("", json!({ "ready": !worst_is_missing, "checks": findings }));
        }
        Format::Human => show(&ui, &findings),
    }
    Ok(if worst_is_missing { EXIT_MISSING } else { 0 })
}

fn unused(ignored: &Ignored) -> Finding {
    let Ignored { variable, file, why } = ignored;
    let fix = match file {
        Some(file) => format!("remove it from {file}"),
        None => format!("unset {variable}"),
    };
    Finding::poor("environment", format!("{} is not used: {why}", ignored.what()), fix)
}

fn show(ui: &Ui, findings: &[Finding]) {
    for finding in findings {
        let (mark, look) = match finding.verdict {
            Verdict::Fine => ("ok     ", Look::Green),
            Verdict::Poor => ("poor   ", Look::Yellow),
            Verdict::Missing => ("missing", Look::Red),
        };
        ui.line(format!("{}  {:<14} {}", ui.paint(look, mark), finding.what, finding.found));
        for line in finding.fix.iter().flat_map(|fix| fix.lines()) {
            ui.line(format!("         {:<14} {}", "", ui.paint(Look::Cyan, line)));
        }
    }
    let missing = findings.iter().filter(|one| one.verdict == Verdict::Missing).count();
    let poor = findings.iter().filter(|one| one.verdict == Verdict::Poor).count();
    ui.line("");
    match (missing, poor) {
        (0, 0) => ui.line("everything is as it should be"),
        (0, 1) => ui.line("pando works here; one thing could be better"),
        (0, poor) => ui.line(format!("pando works here; {poor} things could be better")),
        (1, _) => ui.line("one thing is missing; fix it as shown"),
        (missing, _) => ui.line(format!("{missing} things are missing; fix them as shown")),
    }
}
