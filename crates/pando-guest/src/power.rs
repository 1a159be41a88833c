//! Switching off and rebooting, in the way that the first process understands.
//!
//! | first process | off | reboot |
//! |---|---|---|
//! | systemd | SIGRTMIN+4 | SIGRTMIN+5 |
//! | busybox init | SIGUSR2 | SIGTERM |
//! | this program, or an unknown one | sync and reboot(2) | the same |

use std::fs;
use std::io;
use std::path::Path;

use pando_wire::guest::{Refusal, RefusalKind, Reply};
use rustix::process::{Pid, Signal, kill_process};
use rustix::system::{RebootCommand, reboot};

use crate::config::{Authority, Config};
use crate::jobs::{Voice, What};
use crate::sys;

/// What to do to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Switch it off.
    Off,
    /// Start it anew.
    Reboot,
}

/// Begins to switch off or reboot, and says so.
pub fn begin(config: &Config, power: Power, voice: &Voice) {
    if config.authority != Authority::Machine {
        let message = "this guest program does not own its machine";
        return voice.say(What::Done(Err(Refusal::new(RefusalKind::Unsupported, message))));
    }
    let asked = ask(power).map_err(|error| Refusal::from_io("the first process", &error));
    let is_ours = asked == Ok(Asked::Nobody);
    voice.say(What::Done(asked.map(|_| Reply::Done)));
    if is_ours {
        rustix::fs::sync();
        voice.say(What::Halt(power));
    }
}

/// Who will do it.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// The first process.
    Init,
    /// Nobody but us.
    Nobody,
}

fn ask(power: Power) -> io::Result<Asked> {
    match first_process() {
        First::Systemd => sys::signal_init_realtime(if power == Power::Off { 4 } else { 5 })?,
        First::Busybox => {
            let signal = if power == Power::Off { Signal::USR2 } else { Signal::TERM };
            kill_process(Pid::INIT, signal)?;
        }
        First::Unknown => return Ok(Asked::Nobody),
    }
    Ok(Asked::Init)
}

/// Writes what is unwritten, and switches off or reboots without asking anybody.
pub fn now(power: Power) -> io::Result<()> {
    rustix::fs::sync();
    let command = match power {
        Power::Off => RebootCommand::PowerOff,
        Power::Reboot => RebootCommand::Restart,
    };
    Ok(reboot(command)?)
}

enum First {
    Systemd,
    Busybox,
    Unknown,
}

fn first_process() -> First {
    if Path::new("/run/systemd/system").is_dir() {
        return First::Systemd;
    }
    let program = fs::read_link("/proc/1/exe").unwrap_or_default();
    match program.file_name().and_then(|name| name.to_str()) {
        Some("busybox") => First::Busybox,
        _ => First::Unknown,
    }
}
