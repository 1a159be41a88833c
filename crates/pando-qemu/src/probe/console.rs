//! A machine's serial console as a named pipe, so that what it prints can be waited for.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::limits::MAX_CONSOLE_BYTES;
use crate::wait;

/// The reading end of a console.
#[derive(Debug)]
pub struct ConsolePipe {
    pipe: File,
    bytes: Vec<u8>,
    text: String,
}

impl ConsolePipe {
    /// Makes the pipe at `path`, which a machine plan then names as its console.
    ///
    /// # Errors
    /// When the pipe cannot be made or opened.
    pub fn create(path: &Path) -> io::Result<Self> {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // Open for writing too: the pipe has then no end, and opening does not wait for a writer.
        let pipe = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)?;
        Ok(Self { pipe, bytes: Vec::new(), text: String::new() })
    }

    /// Returns what was read so far; of a console that prints without end, the first part.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes in what has been printed, without waiting.
    ///
    /// # Errors
    /// When reading fails.
    pub fn read(&mut self) -> io::Result<()> {
        loop {
            let mut chunk = [0; 4096];
            match self.pipe.read(&mut chunk) {
                Ok(count) => {
                    let room = MAX_CONSOLE_BYTES.saturating_sub(self.bytes.len());
                    self.bytes.extend(chunk.iter().take(count.min(room)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.text = String::from_utf8_lossy(&self.bytes).into_owned();
        Ok(())
    }

    /// Waits until the text so far satisfies `is_there`; `false` when the deadline passes first.
    ///
    /// # Errors
    /// When reading fails.
    pub fn wait(&mut self, deadline: Instant, is_there: impl Fn(&str) -> bool) -> io::Result<bool> {
        loop {
            self.read()?;
            if is_there(&self.text) {
                return Ok(true);
            }
            let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
            if !wait::poll(&mut fds, deadline)? {
                return Ok(false);
            }
        }
    }
}
