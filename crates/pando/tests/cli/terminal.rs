//! `pando sh` on a real pseudo-terminal.

use rustix::termios::{LocalModes, tcgetattr};

use crate::pty::Terminal;
use crate::support::{Fake, finish};

#[test]
fn a_shell_owns_the_terminal_and_gives_it_back() {
    let fake = Fake::new();
    let mut terminal = Terminal::new();
    let before = tcgetattr(&terminal.user).unwrap();
    assert!(before.local_modes.contains(LocalModes::ICANON));
    let child = terminal.start(fake.command(&["sh", "shop"]));

    // The fake shell says what terminal it was given, then repeats what is typed.
    terminal.wait_for("99 columns, 33");
    terminal.write("typed");
    terminal.wait_for("typed");
    assert!(!tcgetattr(&terminal.user).unwrap().local_modes.contains(LocalModes::ICANON));

    terminal.write("\r~.");
    assert_eq!(finish(child).status.code(), Some(130));
    let after = tcgetattr(&terminal.user).unwrap();
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.input_modes, before.input_modes);
}
