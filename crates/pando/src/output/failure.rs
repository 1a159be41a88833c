//! A failure at the terminal: what failed, why, and the exact next command.

use std::fmt::Write as _;
use std::io::Write as _;

use pando_api::{ApiError, Envelope};
use pando_model::ErrorCode;

use super::{Format, Look, Ui, paint};

/// Returns the lines of a failure.
pub fn lines(error: &ApiError, colour: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{} {}", paint(colour, Look::Red, "pando:"), error.message);
    let mut field = |name: &str, value: &str, look: Look| {
        for (index, line) in value.lines().enumerate() {
            let name = if index == 0 { name } else { "" };
            let _ = writeln!(text, "  {:<7}{}", name, paint(colour, look, line));
        }
    };
    if let Some(hint) = &error.hint {
        field("try:", hint, Look::Cyan);
    }
    if let Some(remedy) = &error.remedy {
        field("repair", remedy, Look::Cyan);
    }
    if let Some(operation) = &error.operation {
        field("see:", &format!("pando operation show {operation}"), Look::Plain);
    }
    if error.code == ErrorCode::Internal {
        field("log:", "pando logs", Look::Plain);
    }
    text
}

/// Shows a failure where it belongs: the envelope on stdout, or words on stderr.
pub fn show(ui: &Ui, error: &ApiError) {
    match ui.format {
        Format::Json => {
            let envelope = Envelope::from(Err(error.clone()));
            ui.line(serde_json::to_string(&envelope).unwrap_or_default());
        }
        Format::Human => {
            let _ = write!(std::io::stderr().lock(), "{}", lines(error, ui.colours_stderr()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let error = ApiError::new(ErrorCode::NotFound, "no cluster is named `shpo`")
            .hint("pando ps\npando vm create shpo");
        assert_eq!(
            lines(&error, false),
            "pando: no cluster is named `shpo`\n  try:   pando ps\n         pando vm create shpo\n"
        );
    }
}
