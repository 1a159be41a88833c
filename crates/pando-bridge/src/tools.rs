//! Runs `ip`, `nft` and `tc` in the calling thread's namespace, each with a deadline. What they are
//! told and what they say goes through memory files, so that no pipe can fill up.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, MemfdFlags, access, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::limits::{MAX_COMPLAINT_CHARS, MAX_TOOL_OUTPUT_BYTES, TOOL_DEADLINE};

/// Where the tools are; a user's own `PATH` lacks the directories of the system's programs.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// A program of the kernel's networking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Devices.
    Ip,
    /// Packet filter.
    Nft,
    /// Traffic control.
    Tc,
}

impl Tool {
    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Nft => "nft",
            Self::Tc => "tc",
        }
    }

    /// Returns Debian's and Ubuntu's package that has it.
    pub const fn package(self) -> &'static str {
        match self {
            Self::Ip | Self::Tc => "iproute2",
            Self::Nft => "nftables",
        }
    }

    /// Returns where it is.
    pub fn find(self) -> Option<PathBuf> {
        let paths = DIRECTORIES.map(|directory| PathBuf::from(directory).join(self.name()));
        paths.into_iter().find(|path| access(path, Access::EXEC_OK).is_ok())
    }

    /// Runs it with these arguments and this input, and returns what it says.
    ///
    /// # Errors
    /// When it is not there, fails or takes too long; the error has its own words.
    pub fn run(self, arguments: &[&str], input: &str) -> io::Result<String> {
        let path = self.find().ok_or_else(|| {
            let text = format!("`{}` is missing (package {})", self.name(), self.package());
            io::Error::new(io::ErrorKind::NotFound, text)
        })?;
        let mut told = memory_file()?;
        told.write_all(input.as_bytes())?;
        told.rewind()?;
        let (said, complained) = (memory_file()?, memory_file()?);
        let mut child = Command::new(path)
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .stdin(told)
            .stdout(Stdio::from(said.try_clone()?))
            .stderr(Stdio::from(complained.try_clone()?))
            .spawn()?;
        let status = wait(&mut child, Instant::now() + TOOL_DEADLINE)?;
        if status.success() {
            return text_of(said);
        }
        let words = text_of(complained)?;
        let words: String = words.trim().chars().take(MAX_COMPLAINT_CHARS).collect();
        Err(io::Error::other(format!("`{} {}`: {words}", self.name(), arguments.join(" "))))
    }

    /// Runs lines of commands, all of them or up to the first that fails; none is success.
    pub fn batch(self, lines: &str) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let arguments: &[&str] = match self {
            Self::Nft => &["-f", "-"],
            Self::Ip | Self::Tc => &["-batch", "-"],
        };
        self.run(arguments, lines).map(drop)
    }
}

fn memory_file() -> io::Result<File> {
    Ok(memfd_create("pando-tool", MemfdFlags::CLOEXEC)?.into())
}

fn text_of(mut file: File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_TOOL_OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits for a child's end and reaps it; one that takes too long is killed.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<ExitStatus> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    let ended = pidfd.map_err(io::Error::from).and_then(|pidfd| {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    });
    if let Err(error) = ended {
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_says_is_returned_and_what_it_refuses_is_an_error() {
        let links = Tool::Ip.run(&["-j", "link", "show", "lo"], "").unwrap();
        assert!(links.contains("\"lo\""), "{links}");
        let refused = Tool::Ip.batch("link show no-such-device\n").unwrap_err();
        assert!(refused.to_string().contains("no-such-device"), "{refused}");
    }
}
