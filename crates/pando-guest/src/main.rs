//! The guest program. As the first process of an initramfs it boots the machine; otherwise it
//! serves the host on the port or socket that it is told.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use pando_guest::{Authority, Children, Config, Hangup};

const USAGE: &str = "usage: pando-guest --port NAME | --stdin [--root DIRECTORY]";

fn main() -> ExitCode {
    if std::process::id() == 1 {
        pando_guest::init::run();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments.as_slice() {
        ["--port", name] => serve_port(name),
        ["--stdin"] => serve_stdin(PathBuf::from("/")),
        ["--stdin", "--root", root] => serve_stdin(PathBuf::from(root)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pando-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves the machine's host on its virtio port.
fn serve_port(name: &str) -> std::io::Result<()> {
    pando_guest::settle();
    let port = pando_guest::port::open(name)?;
    pando_guest::serve(port, Config::machine())
}

/// Serves a socket that is standard input, and changes nothing but files under `root`.
fn serve_stdin(root: PathBuf) -> std::io::Result<()> {
    let port = std::io::stdin().as_fd().try_clone_to_owned()?;
    let (authority, hangup, children) = (Authority::Files, Hangup::Return, Children::All);
    pando_guest::serve(port, Config { root, authority, hangup, children })
}
