//! `pando sh` on a real pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::mpsc;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::{DEADLINE, Fake, finish};

fn open() -> (OwnedFd, File) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let user = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&user, size).unwrap();
    (controller, user)
}

/// Reads the terminal on a thread until `wanted` has appeared.
fn wait_for(terminal: &File, wanted: &'static str) -> String {
    let mut reader = terminal.try_clone().unwrap();
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut chunk = [0; 256];
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            match reader.read(&mut chunk) {
                Ok(count @ 1..) => seen.extend_from_slice(&chunk[..count]),
                _ => break,
            }
        }
        let _ = sender.send(String::from_utf8_lossy(&seen).into_owned());
    });
    let seen = receiver.recv_timeout(DEADLINE).expect("output within the deadline");
    thread.join().unwrap();
    seen
}

#[test]
fn a_shell_owns_the_terminal_and_gives_it_back() {
    let fake = Fake::new();
    let (controller, user) = open();
    let mut controller = File::from(controller);
    let before = tcgetattr(&user).unwrap();
    assert!(before.local_modes.contains(LocalModes::ICANON));
    let mut command = fake.command(&["sh", "shop"]);
    command
        .stdin(Stdio::from(user.try_clone().unwrap()))
        .stdout(Stdio::from(user.try_clone().unwrap()))
        .stderr(Stdio::from(user.try_clone().unwrap()));
    let child = command.spawn().unwrap();

    // The fake shell says what terminal it was given, then repeats what is typed.
    let seen = wait_for(&controller, "33");
    assert!(seen.contains("99"), "{seen}");
    controller.write_all(b"typed").unwrap();
    let seen = wait_for(&controller, "typed");
    assert!(seen.contains("typed"), "{seen}");
    assert!(!tcgetattr(&user).unwrap().local_modes.contains(LocalModes::ICANON));

    controller.write_all(b"\r~.").unwrap();
    assert_eq!(finish(child).status.code(), Some(130));
    let after = tcgetattr(&user).unwrap();
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.input_modes, before.input_modes);
}
