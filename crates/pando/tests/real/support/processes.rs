//! Processes, as the kernel shows them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A process that mentions a home on its command line.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Process {
    fn is(&self, word: &str) -> bool {
        self.arguments.get(1).is_some_and(|argument| argument == word)
    }

    /// Whether it is a daemon.
    pub fn is_daemon(&self) -> bool {
        self.is("serve")
    }

    /// Whether it is a keeper.
    pub fn is_keeper(&self) -> bool {
        self.is("keeper")
    }

    /// Whether it is a machine.
    pub fn is_machine(&self) -> bool {
        self.arguments.first().is_some_and(|program| program.contains("qemu-system"))
    }

    /// Returns its parent.
    pub fn parent(&self) -> u32 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // The program's name, in brackets, may contain anything.
        let rest = stat.rsplit(')').next().unwrap();
        rest.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Whether an argument contains this.
    pub fn mentions(&self, what: &str) -> bool {
        self.arguments.iter().any(|argument| argument.contains(what))
    }
}

/// Returns the processes that mention a home. One that has ended and waits to be reaped has no
/// command line.
pub fn processes_of(home: &Path) -> Vec<Process> {
    let needle = home.as_os_str().as_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.windows(needle.len()).any(|window| window == needle) {
            let arguments = line.split(|byte| *byte == 0);
            let arguments = arguments.map(|word| String::from_utf8_lossy(word).into_owned());
            found.push(Process { pid, arguments: arguments.collect() });
        }
    }
    found
}

/// Kills a process of a test; one that has ended is no failure.
pub fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, Signal::KILL);
}

/// Stops a process of a test, or lets it go on.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Returns the most memory that a process ever had, in bytes.
pub fn resident(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// Returns the memory of its own that a process has, without what it maps of files, in bytes.
pub fn resident_now(pid: u32) -> u64 {
    memory(pid, "RssAnon:")
}

fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// Returns what a process has open (of sockets and the like, only that they are), and the TCP ports
/// that it listens on, as the kernel writes them.
pub fn held_by(pid: u32) -> (Vec<String>, Vec<String>) {
    /// A listening socket's state in `/proc/net/tcp`.
    const LISTENS: &str = "0A";
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let names: Vec<_> = open.filter_map(|one| fs::read_link(one.ok()?.path()).ok()).collect();
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        for line in fs::read_to_string(format!("/proc/net/{table}")).unwrap().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let inode = fields.get(9).map(|inode| format!("socket:[{inode}]").into());
            if fields.get(3) == Some(&LISTENS) && inode.is_some_and(|inode| names.contains(&inode))
            {
                ports.push(fields[1].to_owned());
            }
        }
    }
    let named = names.iter().map(|name| {
        let name = name.display().to_string();
        name.split_once(":[").map_or(name.clone(), |(kind, _)| kind.to_owned())
    });
    let mut named: Vec<String> = named.collect();
    named.sort();
    (named, ports)
}
