//! What a simulated guest understands.
//!
//! `true`, `false`, `echo WORD…`, `set-mem K V`, `get-mem K`, `del-mem K`, `set-disk K V`,
//! `get-disk K`, `sh -c … login USER KEY…` (kept on the disk as `login.USER`), `set-extra DISK K V`,
//! `get-extra DISK K`, `flood N` (bytes), `sleep-forever`, `cat` (stdin to stdout), `systemctl …`.
//! What makes a file of its input and runs it, or starts with `#!`, "runs" with status 0; anything
//! else is not found, with status 127.

use pando_model::capture::{Aspect, Capture, Coverage, FileState, Package, Process};
use pando_model::guest::{
    Command, ExecInput, ExecOutcome, ExecOutput, ExecSpec, ExecStatus, FileKind, OutputStream,
};
use pando_model::{BranchId, LayerId, Name};

use super::state::{State, missing, now_ns};
use crate::host::{ExecIo, HostError};

/// What a command does, decided while the world is locked.
pub(crate) enum Act {
    /// It printed this and ended.
    Ended(Vec<u8>, i32),
    /// It prints so many bytes and ends.
    Flood(usize),
    /// It copies its input.
    Cat,
    /// It never ends.
    Forever,
}

/// Returns the top of the extra disk of this name.
fn extra_disk(
    state: &mut State,
    branch: &BranchId,
    node: &Name,
    disk: &str,
) -> Result<LayerId, HostError> {
    let spec = &state.keeper(branch)?.spec;
    let own = spec.nodes.iter().find(|own| own.name == *node);
    let mut disks = own.iter().flat_map(|own| &own.shape.extra_disks);
    let number = disks.position(|own| own.name.as_str() == disk);
    let layer =
        number.and_then(|number| state.node(branch, node).ok()?.layers.extra.get(number).cloned());
    layer.ok_or_else(|| missing(format!("the disk {disk} of {node}")))
}

pub(crate) fn act(
    state: &mut State,
    branch: &BranchId,
    node: &Name,
    spec: &ExecSpec,
) -> Result<Act, HostError> {
    let words: Vec<String> = match &spec.command {
        Command::Argv(argv) => argv.clone(),
        Command::Shell(line) => line.split_whitespace().map(str::to_owned).collect(),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let layer = state.node(branch, node)?.layers.root.clone();
    let found = |value: Option<String>| match value {
        Some(value) => Act::Ended(format!("{value}\n").into_bytes(), 0),
        None => Act::Ended(Vec::new(), 1),
    };
    Ok(match words.as_slice() {
        ["true"] => Act::Ended(Vec::new(), 0),
        ["false"] => Act::Ended(Vec::new(), 1),
        ["echo", rest @ ..] => Act::Ended(format!("{}\n", rest.join(" ")).into_bytes(), 0),
        ["set-mem", key, value] => {
            let memory = &mut state.node(branch, node)?.memory;
            memory.insert((*key).to_owned(), (*value).to_owned());
            Act::Ended(Vec::new(), 0)
        }
        ["del-mem", key] => {
            state.node(branch, node)?.memory.remove(*key);
            Act::Ended(Vec::new(), 0)
        }
        ["get-mem", key] => found(state.node(branch, node)?.memory.get(*key).cloned()),
        ["set-disk", key, value] => {
            state.write(&layer, key, (*value).to_owned())?;
            Act::Ended(Vec::new(), 0)
        }
        ["set-extra", disk, key, value] => {
            let layer = extra_disk(state, branch, node, disk)?;
            state.write(&layer, key, (*value).to_owned())?;
            Act::Ended(Vec::new(), 0)
        }
        ["get-extra", disk, key] => {
            let layer = extra_disk(state, branch, node, disk)?;
            found(state.disk(&layer).get(*key).cloned())
        }
        ["get-disk", key] => found(state.disk(&layer).get(*key).cloned()),
        ["flood", count] => Act::Flood(count.parse().unwrap_or(0)),
        ["cat"] => Act::Cat,
        ["sleep-forever"] => Act::Forever,
        [first, ..] if first.starts_with("#!") || first.starts_with("f=$(mktemp") => {
            Act::Ended(Vec::new(), 0)
        }
        ["sh", "-c", _, "login", user, keys @ ..] => {
            state.write(&layer, &format!("login.{user}"), keys.join("\n"))?;
            Act::Ended(Vec::new(), 0)
        }
        ["systemctl", ..] => Act::Ended(Vec::new(), 0),
        // What a node is told of its cluster's names.
        ["cat", ">>/etc/hosts", ..] => Act::Ended(Vec::new(), 0),
        ["sync"] => Act::Ended(Vec::new(), 0),
        _ => Act::Ended(Vec::new(), 127),
    })
}

/// A value whose name is a path is a file, what is in memory a process of that name. A value
/// `package.NAME` is a package of that version.
pub(crate) fn capture(
    state: &mut State,
    branch: &BranchId,
    node: &Name,
    aspects: &[Aspect],
) -> Result<Capture, HostError> {
    let own = state.node(branch, node)?;
    let (layer, memory) = (own.layers.root.clone(), own.memory.clone());
    let mut capture = Capture { guest_ns: now_ns(), boot_id: "boot".into(), ..Capture::default() };
    for aspect in aspects {
        capture.coverage.insert(*aspect, Coverage::Complete);
    }
    for (key, value) in state.disk(&layer) {
        if let Some(name) = key.strip_prefix("package.") {
            let status = "installed".to_owned();
            let package = Package { name: name.to_owned(), version: value, status };
            capture.packages.insert(name.to_owned(), package);
            continue;
        }
        if !key.starts_with('/') {
            continue;
        }
        let at = state.written_at(&layer, &key);
        let file = FileState {
            kind: FileKind::File,
            inode: key.bytes().fold(7, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte)),
            ctime_ns: at,
            mtime_ns: at,
            size: value.len() as u64,
            mode: 0o644,
            uid: 0,
            gid: 0,
            target: None,
        };
        capture.files.insert(key, file);
    }
    for (pid, key) in memory.into_keys().enumerate() {
        let pid = u32::try_from(pid).unwrap_or(u32::MAX);
        let (name, command, service) = (key.clone(), key, String::new());
        let process = Process { pid, parent: 1, uid: 0, started_ms: 0, name, command, service };
        capture.processes.insert(process);
    }
    Ok(capture)
}

pub(crate) async fn perform(act: Act, spec: &ExecSpec, mut io: ExecIo) -> ExecOutcome {
    let outcome = |status| ExecOutcome { status, duration_us: 1_000 };
    let print = |bytes: Vec<u8>| ExecOutput { stream: OutputStream::Stdout, bytes };
    match act {
        Act::Ended(bytes, status) => {
            if !bytes.is_empty() {
                // Nobody has to listen.
                let _ = io.output.send(print(bytes)).await;
            }
            outcome(ExecStatus::Exited(status))
        }
        Act::Flood(mut left) => {
            while left > 0 {
                let chunk = left.min(4096);
                if io.output.send(print(vec![b'x'; chunk])).await.is_err() {
                    return outcome(ExecStatus::Signaled(9));
                }
                left -= chunk;
            }
            outcome(ExecStatus::Exited(0))
        }
        Act::Cat => {
            while let Some(input) = io.input.recv().await {
                match input {
                    ExecInput::Data(bytes) => {
                        let _ = io.output.send(print(bytes)).await;
                    }
                    ExecInput::Eof => break,
                    ExecInput::Signal(signal) => return outcome(ExecStatus::Signaled(signal)),
                    ExecInput::Resize(_) => {}
                }
            }
            outcome(ExecStatus::Exited(0))
        }
        Act::Forever => {
            let timeout = std::time::Duration::from_millis(spec.timeout_ms);
            // Both arms only wait, so losing one loses nothing.
            tokio::select! {
                () = tokio::time::sleep(timeout) => outcome(ExecStatus::TimedOut),
                () = io.output.closed() => outcome(ExecStatus::Signaled(9)),
            }
        }
    }
}
