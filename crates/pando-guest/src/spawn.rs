//! From a request to a running process: program, environment, user, pipes or terminal.
//!
//! The usual command (root, no terminal, the default directory) is started with `posix_spawn`,
//! which does not copy this process's page tables. That holds only while nothing has to be done
//! in the child, so the program is looked up here and the guest program itself stays in root's
//! home.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use pando_model::guest::{Command, ExecSpec, TerminalSize};
use pando_model::limits::{MAX_ARGS, MAX_ARGV_BYTES};
use pando_wire::guest::{Refusal, RefusalKind};
use rustix::fs::{Access, OFlags, access, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::sys::{ChildSetup, ChildUser, set_up_child};
use crate::tree::MARK;
use crate::users::{User, read_table};

/// Where programs are looked for unless the environment says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that was started, and our ends of its pipes; all of them are non-blocking.
#[derive(Debug)]
pub struct Spawned {
    /// Process id; also the id of its process group.
    pub pid: i32,
    /// Its standard input. A terminal's is `stdout`.
    pub stdin: Option<OwnedFd>,
    /// Its standard output, or its terminal.
    pub stdout: OwnedFd,
    /// Its standard error; none with a terminal.
    pub stderr: Option<OwnedFd>,
}

/// Starts what `spec` says, with the tables under `root`. `mark` makes its descendants findable.
pub fn spawn(spec: &ExecSpec, root: &Path, mark: &str) -> Result<Spawned, Refusal> {
    check(spec)?;
    let user = find_user(root, spec.user.as_deref())?;
    let env = environment(spec, root, &user, mark);
    let cwd = spec.cwd.clone().unwrap_or_else(|| user.home.clone());
    let mut process = program(&spec.command, &env, Path::new(&cwd))?;
    process.env_clear().envs(&env);
    set_directory(&mut process, &cwd, spec.cwd.is_some())?;
    let mut setup = ChildSetup { terminal: spec.terminal.is_some(), user: None };
    let is_us = rustix::process::getuid().as_raw() == user.uid && user.groups.len() <= 1;
    if !is_us {
        let (uid, gid) = user.ids();
        let groups = user.groups.iter().map(|&gid| rustix::process::Gid::from_raw(gid)).collect();
        setup.user = Some(ChildUser { uid, gid, groups });
    }
    let needs_setup = setup.terminal || setup.user.is_some();
    if !setup.terminal {
        process.process_group(0);
    }
    if needs_setup {
        set_up_child(&mut process, setup);
    }
    match spec.terminal {
        Some(size) => spawn_on_terminal(process, size),
        None => spawn_on_pipes(process),
    }
}

/// Returns the command as one line, for lists.
pub fn command_line(command: &Command) -> String {
    match command {
        Command::Argv(argv) => argv.join(" "),
        Command::Shell(line) => line.clone(),
    }
}

fn check(spec: &ExecSpec) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(RefusalKind::Invalid, message));
    if spec.timeout_ms == 0 {
        return invalid("the time limit is zero");
    }
    let (count, bytes) = match &spec.command {
        Command::Argv(argv) => (argv.len(), argv.iter().map(|arg| arg.len() + 1).sum()),
        Command::Shell(line) => (1, line.len()),
    };
    if count == 0 || bytes == 0 {
        return invalid("there is no program to run");
    }
    if count > MAX_ARGS || bytes > MAX_ARGV_BYTES {
        let message = format!("{count} arguments of {bytes} bytes are too many");
        return Err(Refusal::new(RefusalKind::Limit, message));
    }
    if spec.env.keys().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return invalid("a variable has no valid name");
    }
    Ok(())
}

fn find_user(root: &Path, wanted: Option<&str>) -> Result<User, Refusal> {
    let wanted = wanted.unwrap_or("root");
    let found = User::find(root, wanted);
    let found = found.map_err(|error| Refusal::from_io("the table of users", &error))?;
    found.ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("no user `{wanted}`")))
}

/// Default, then `/etc/environment`, then the user, then the request; the later ones win.
fn environment(spec: &ExecSpec, root: &Path, user: &User, mark: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
    set("PATH", PATH);
    set("LANG", "C.UTF-8");
    if spec.terminal.is_some() {
        set("TERM", "xterm-256color");
    }
    // An unreadable file is no reason to refuse a command, which may be there to repair it.
    let table = read_table(&root.join("etc/environment")).unwrap_or_default();
    for (name, value) in table.lines().filter_map(assignment) {
        set(name, value);
    }
    set("HOME", &user.home);
    set("USER", &user.name);
    set("LOGNAME", &user.name);
    set("SHELL", &user.shell);
    for (name, value) in &spec.env {
        set(name, value);
    }
    set(MARK, mark);
    env
}

/// Parses a line of `/etc/environment`: `NAME=value`, the value perhaps in quotes.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    let is_name = !name.is_empty() && !name.starts_with('#') && !name.contains(['\0', ' ']);
    (is_name && !value.contains('\0'))
        .then(|| (name, quoted('"').or_else(|| quoted('\'')).unwrap_or(value)))
}

fn program(
    command: &Command,
    env: &BTreeMap<String, String>,
    cwd: &Path,
) -> Result<Process, Refusal> {
    match command {
        Command::Shell(line) => {
            let mut process = Process::new("/bin/sh");
            process.arg("-c").arg(line);
            Ok(process)
        }
        Command::Argv(argv) => {
            let (name, arguments) = argv
                .split_first()
                .map_or(("", argv.as_slice()), |(name, rest)| (name.as_str(), rest));
            let path = env.get("PATH").map_or(PATH, String::as_str);
            let found = look_up(name, path, cwd);
            let found = found.ok_or_else(|| {
                Refusal::new(RefusalKind::NotFound, format!("no program `{name}`"))
            })?;
            let mut process = Process::new(found);
            process.arg0(name).args(arguments);
            Ok(process)
        }
    }
}

/// Finds a program as a shell would. A name with a slash is taken as it is, so that what is wrong
/// with it comes from the kernel.
fn look_up(name: &str, path: &str, cwd: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(cwd.join(name));
    }
    let candidates = path.split(':').map(|directory| cwd.join(directory).join(name));
    candidates.into_iter().find(|file| access(file, Access::EXEC_OK).is_ok() && file.is_file())
}

/// Sets the working directory, unless it is ours already. A home that does not exist is no reason
/// to refuse a command; a directory that was asked for is.
fn set_directory(process: &mut Process, cwd: &str, asked: bool) -> Result<(), Refusal> {
    if std::env::current_dir().is_ok_and(|ours| ours == Path::new(cwd)) {
        return Ok(());
    }
    match std::fs::metadata(OsStr::from_bytes(cwd.as_bytes())) {
        Ok(facts) if facts.is_dir() => drop(process.current_dir(cwd)),
        Ok(_) if asked => {
            let message = format!("the working directory `{cwd}` is not a directory");
            return Err(Refusal::new(RefusalKind::WrongFileType, message));
        }
        Err(error) if asked => {
            return Err(Refusal::from_io(format_args!("the working directory `{cwd}`"), &error));
        }
        _ => drop(process.current_dir("/")),
    }
    Ok(())
}

fn spawn_on_pipes(mut process: Process) -> Result<Spawned, Refusal> {
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(&mut process)?;
    let pid = child.id().cast_signed();
    let stdin = child.stdin.take().map(OwnedFd::from);
    let stdout = child.stdout.take().map(OwnedFd::from);
    let stderr = child.stderr.take().map(OwnedFd::from);
    let Some(stdout) = stdout else {
        return Err(Refusal::new(RefusalKind::Io, "the command has no output pipe"));
    };
    for fd in [Some(&stdout), stderr.as_ref(), stdin.as_ref()].into_iter().flatten() {
        set_nonblocking(fd).map_err(|error| Refusal::from_io("the command's pipes", &error))?;
    }
    Ok(Spawned { pid, stdin, stdout, stderr })
}

fn spawn_on_terminal(mut process: Process, size: TerminalSize) -> Result<Spawned, Refusal> {
    let (master, slave) =
        open_terminal(size).map_err(|error| Refusal::from_io("a new terminal", &error))?;
    let duplicate =
        |fd: &OwnedFd| fd.try_clone().map_err(|error| Refusal::from_io("a new terminal", &error));
    process.stdin(duplicate(&slave)?).stdout(duplicate(&slave)?).stderr(slave);
    let pid = start(&mut process)?.id().cast_signed();
    Ok(Spawned { pid, stdin: None, stdout: master, stderr: None })
}

fn open_terminal(size: TerminalSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(
        name.as_c_str(),
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    resize(&master, size)?;
    set_nonblocking(&master)?;
    Ok((master, slave))
}

/// Sets the size of a terminal.
pub fn resize(terminal: &impl AsFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

fn start(process: &mut Process) -> Result<std::process::Child, Refusal> {
    process.spawn().map_err(|error| {
        Refusal::from_io(format_args!("`{}`", process.get_program().to_string_lossy()), &error)
    })
}

/// Makes reads and writes of `fd` return instead of waiting.
pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    Ok(fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_etc_environment_are_assignments() {
        let cases = [
            ("A=1", Some(("A", "1"))),
            ("  export B=\"two words\" ", Some(("B", "two words"))),
            ("C='x'", Some(("C", "x"))),
            ("D=", Some(("D", ""))),
            ("E=\"half", Some(("E", "\"half"))),
            ("# F=1", None),
            ("=1", None),
            ("nothing", None),
        ];
        for (line, expected) in cases {
            assert_eq!(assignment(line), expected, "{line}");
        }
    }

    #[test]
    fn programs_are_looked_up_in_path_order_and_must_be_executable_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("one/tool"), "").unwrap();
        std::fs::create_dir(dir.path().join("one/folder")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", dir.path().join("two/tool")).unwrap();
        let found = look_up("tool", "one:two", dir.path()).unwrap();
        // As root, access(2) grants execution only if some execute bit is set.
        assert_eq!(found, dir.path().join("two/tool"));
        assert_eq!(look_up("folder", "one:two", dir.path()), None);
        assert_eq!(look_up("./x", "", Path::new("/w")), Some(PathBuf::from("/w/./x")));
    }
}
