//! Progress on stderr: a line that is drawn again on a terminal, plain lines elsewhere, nothing
//! for what is over at once.

use std::io::Write;
use std::time::Instant;

use pando_model::operation::Progress;

use super::{Look, Talk, Ui, paint, units};
use crate::limits::PROGRESS_AFTER;

const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const BAR: usize = 24;

/// One piece of work.
pub struct Meter<'a> {
    ui: &'a Ui,
    began: Instant,
    frame: usize,
    drawn: bool,
    said: String,
}

impl<'a> Meter<'a> {
    /// Returns a meter of work that begins now.
    pub fn new(ui: &'a Ui) -> Self {
        Self { ui, began: Instant::now(), frame: 0, drawn: false, said: String::new() }
    }

    /// Draws how far the work is.
    pub fn draw(&mut self, progress: &Progress) {
        if self.ui.talk == Talk::Quiet || self.began.elapsed() < PROGRESS_AFTER {
            return;
        }
        if !self.ui.is_live() {
            if progress.message != self.said && !progress.message.is_empty() {
                self.said.clone_from(&progress.message);
                self.ui.remark(format!("… {}", progress.message));
            }
            return;
        }
        self.frame = (self.frame + 1) % FRAMES.len();
        let elapsed = self.began.elapsed().as_secs_f64() * 1000.0;
        let text = line(FRAMES[self.frame], progress, &units::millis(elapsed));
        let text = paint(self.ui.colours_stderr(), Look::Dim, &text);
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
        self.drawn = true;
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.drawn {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K");
            let _ = stderr.flush();
            self.drawn = false;
        }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(frame: &str, progress: &Progress, elapsed: &str) -> String {
    let message: String = progress.message.chars().take(60).collect();
    if progress.total == 0 {
        return format!("{frame} {message}  {elapsed}");
    }
    let done = progress.done.min(progress.total);
    let filled =
        usize::try_from(u128::from(done) * BAR as u128 / u128::from(progress.total)).unwrap_or(BAR);
    let bar = format!("{}{}", "━".repeat(filled), "─".repeat(BAR - filled));
    format!(
        "{frame} {message}  {bar} {}%  {elapsed}",
        u128::from(done) * 100 / u128::from(progress.total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_drawn_where_the_end_is_known() {
        let progress = |done, total| Progress { message: "copying".into(), done, total };
        assert_eq!(line("*", &progress(0, 0), "2 s"), "* copying  2 s");
        let half = line("*", &progress(5, 10), "2 s");
        assert!(half.contains("50%") && half.matches('━').count() == BAR / 2, "{half}");
        assert!(line("*", &progress(99, 10), "2 s").contains("100%"));
    }
}
