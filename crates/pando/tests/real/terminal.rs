//! `pando sh` and `pando exec -t` on a real pseudo-terminal, with a real shell at the other end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::{DEADLINE, Home, finish, until};

/// A terminal with somebody at it.
struct Terminal {
    /// The end at which programs run.
    user: File,
    keyboard: File,
    output: mpsc::Receiver<Vec<u8>>,
    /// All that has been shown.
    seen: String,
}

impl Terminal {
    fn new() -> Self {
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

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.user, size).unwrap();
    }

    fn start(&self, mut command: Command) -> Child {
        let end = || self.user.try_clone().unwrap();
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    fn write(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until something was shown, and forgets everything up to it.
    fn wait_for(&mut self, wanted: &str) {
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

#[test]
fn a_shell_in_a_guest_is_a_shell_on_this_terminal() {
    let home = Home::with_shop();
    let mut terminal = Terminal::new();
    let before = tcgetattr(&terminal.user).unwrap();
    let shell = terminal.start(home.command(&["sh", "shop"]));

    // What is typed is shown by the guest's terminal, and run by its shell. (The words are typed in
    // pieces so that what the command prints is told from its echo.)
    terminal.write("echo sum-$((20+22)); tty\r");
    terminal.wait_for("echo sum-$((20+22))");
    terminal.wait_for("sum-42");
    terminal.wait_for("/dev/pts/");
    assert!(!tcgetattr(&terminal.user).unwrap().local_modes.contains(LocalModes::ICANON));

    // The size is that of this terminal, also after it has changed.
    terminal.write("stty size; echo is-$((1+1))\r");
    terminal.wait_for("33 99");
    terminal.wait_for("is-2");
    terminal.resize(44, 120);
    let pid = Pid::from_raw(i32::try_from(shell.id()).unwrap()).unwrap();
    kill_process(pid, Signal::WINCH).unwrap();
    until("the guest knows the new size", || {
        (home.sh("shop", "stty -F /dev/pts/0 size") == "44 120").then_some(())
    });

    // An interrupt goes to the guest's program, and not to ours.
    terminal.write("sleep 1000; echo rc-$?\r");
    until("it runs", || {
        (!home.sh("shop", "pgrep -f 'sleep 100[0]' || :").is_empty()).then_some(())
    });
    terminal.write("\u{3}");
    terminal.write("echo still-$((1+2))\r");
    terminal.wait_for("still-3");

    terminal.write("exit 5\r");
    assert_eq!(finish(shell).status.code(), Some(5));
    let after = tcgetattr(&terminal.user).unwrap();
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!((after.input_modes, after.output_modes), (before.input_modes, before.output_modes));
    home.assert_nothing_left();
}

#[test]
fn a_terminal_that_goes_away_takes_its_command_with_it() {
    let home = Home::with_shop();
    let mut terminal = Terminal::new();
    let before = tcgetattr(&terminal.user).unwrap();
    let command = home.command(&["exec", "-t", "shop", "--", "sh", "-c", "echo up; sleep 4711"]);
    let running = terminal.start(command);
    terminal.wait_for("up");
    let pid = Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    assert!(!finish(running).status.success());
    assert_eq!(tcgetattr(&terminal.user).unwrap().local_modes, before.local_modes);
    until("the command ends", || {
        (home.sh("shop", "pgrep -f 'sleep 471[1]' || echo none") == "none").then_some(())
    });
    home.assert_nothing_left();
}

/// In a container, whoever leads the terminal's session is outside, and has no number inside.
#[test]
fn a_terminal_whose_session_is_led_from_outside_is_a_terminal() {
    let home = Home::with_shop();
    let mut terminal = Terminal::new();
    let exec = home.command(&["exec", "-t", "shop", "--", "sh", "-c", "echo in-$((1+1))"]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-current-user", "--pid", "--fork", "--kill-child"]);
    command.arg(exec.get_program()).args(exec.get_args());
    for (name, value) in exec.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let running = terminal.start(command);
    terminal.wait_for("in-2");
    assert!(finish(running).status.success());
    home.assert_nothing_left();
}
