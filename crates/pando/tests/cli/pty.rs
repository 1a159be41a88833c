//! A real pseudo-terminal with somebody at it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::DEADLINE;

/// A terminal with somebody at it.
pub struct Terminal {
    /// The end at which programs run.
    pub user: File,
    keyboard: File,
    output: mpsc::Receiver<Vec<u8>>,
    /// All that has been shown.
    seen: String,
}

impl Terminal {
    /// Opens one of 33 rows and 99 columns.
    pub fn new() -> Self {
        let keyboard: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let user = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let keyboard = File::from(keyboard);
        let mut screen = keyboard.try_clone().unwrap();
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 1024];
            while let Ok(count @ 1..) = screen.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Self { user, keyboard, output, seen: String::new() };
        terminal.resize(33, 99);
        terminal
    }

    /// Changes its size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.user, size).unwrap();
    }

    /// Starts a program on it.
    pub fn start(&self, mut command: Command) -> Child {
        let end = || self.user.try_clone().unwrap();
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    /// Types.
    pub fn write(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until something was shown, and forgets everything up to it.
    pub fn wait_for(&mut self, wanted: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.seen.find(wanted) {
                self.seen.drain(..at + wanted.len());
                return;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            let Ok(more) = self.output.recv_timeout(rest) else {
                panic!("{wanted:?} was not shown: {:?}", self.seen);
            };
            self.seen.push_str(&String::from_utf8_lossy(&more));
        }
    }
}
