//! The terminal of whoever types: raw while a guest's program owns it, and given back on any way
//! out of this process.

use std::io::{IsTerminal, Read, Stdin};

use pando_model::guest::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use crate::limits::{CHUNK_BYTES, CHUNKS};

/// A terminal in raw mode; dropping it gives it back.
pub struct Raw {
    stdin: Stdin,
    before: Termios,
}

impl Raw {
    /// Makes the terminal raw; `None` if stdin is no terminal.
    pub fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { stdin, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.stdin, OptionalActions::Drain, &self.before);
    }
}

/// Returns the terminal's size; a usual one if stdin is none.
pub fn size() -> TerminalSize {
    let size = tcgetwinsize(std::io::stdin()).ok();
    size.filter(|size| size.ws_col > 0 && size.ws_row > 0).map_or(
        TerminalSize { columns: 80, rows: 24 },
        |size| TerminalSize { columns: size.ws_col, rows: size.ws_row },
    )
}

/// Returns what is typed or piped into this process. A thread reads it, which nothing can
/// interrupt: it ends with the process.
pub fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = stdin.read(&mut chunk) {
            let piece = chunk.get(..count).unwrap_or_default().to_vec();
            if sender.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Finds the way out of a session whose guest does not answer: `~.` at the beginning of a line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Inside a line.
    #[default]
    Line,
    /// At the beginning of one.
    Begin,
    /// After a tilde there.
    Tilde,
}

impl Escape {
    /// Returns what of `typed` goes to the guest, or `None` when the way out was typed. A tilde is
    /// held back until the next key says that it was meant.
    pub fn filter(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            *self = match (*self, byte) {
                (Self::Begin, b'~') => {
                    *self = Self::Tilde;
                    continue;
                }
                (Self::Tilde, b'.') => return None,
                (Self::Tilde, b'~') => Self::Line,
                (Self::Tilde, _) => {
                    passed.push(b'~');
                    Self::after(*byte)
                }
                _ => Self::after(*byte),
            };
            passed.push(*byte);
        }
        Some(passed)
    }

    const fn after(byte: u8) -> Self {
        if matches!(byte, b'\r' | b'\n') { Self::Begin } else { Self::Line }
    }
}

#[cfg(test)]
mod tests {
    use super::Escape;

    #[test]
    fn the_way_out_is_found_at_the_beginning_of_a_line_only() {
        let run = |pieces: &[&[u8]]| {
            let mut escape = Escape::Begin;
            pieces.iter().try_fold(Vec::new(), |mut all, piece| {
                all.extend(escape.filter(piece)?);
                Some(all)
            })
        };
        assert_eq!(run(&[b"ls\r~."]), None);
        assert_eq!(run(&[b"~", b"."]), None);
        assert_eq!(run(&[b"a~.\r"]), Some(b"a~.\r".to_vec()));
        assert_eq!(run(&[b"~/x\r"]), Some(b"~/x\r".to_vec()));
        assert_eq!(run(&[b"~~."]), Some(b"~.".to_vec()));
    }
}
