//! `pando sh` and `pando exec -t` on a real pseudo-terminal, with a real shell at the other end.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};

use crate::pty::Terminal;
use crate::support::{Home, finish, until};

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
