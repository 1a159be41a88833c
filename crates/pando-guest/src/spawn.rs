//! From a request to a running process: program, environment, user, pipes or terminal.
//!
//! Starting a program is what an exec mostly costs, so this makes few system calls: whatever can be
//! found out before is not tried in the child.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pando_model::guest::{Command, ExecSpec, Stdin, TerminalSize};
use pando_model::limits::{MAX_ARGS, MAX_ARGV_BYTES};
use pando_wire::guest::{Refusal, RefusalKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::config::{Authority, Children, Config};
use crate::group;
use crate::spare::{self, BLANK, Spare};
use crate::sys::{self, ChildUser, Launch, Leads};
use crate::tree::MARK;
use crate::users::{Tables, User};

/// Where programs are looked for unless the environment says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Numbers every command of this process, for its mark, and every pipe that outlives one.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Returns a number that nothing of this process has had.
pub fn next_number() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns what marks the command of this number and its descendants ([`MARK`]).
pub fn mark(number: u64) -> String {
    format!("{}-{number}", std::process::id())
}

/// A process that was started, and our ends of its pipes. Writing never waits; reading is for when
/// there is something.
#[derive(Debug)]
pub struct Spawned {
    /// Its command's number.
    pub number: u64,
    /// Process id; also the id of its process group.
    pub pid: i32,
    /// Its standard input, if it gets any. A terminal's is `stdout`.
    pub stdin: Option<OwnedFd>,
    /// Its standard output, or its terminal.
    pub stdout: OwnedFd,
    /// Its standard error; none with a terminal.
    pub stderr: Option<OwnedFd>,
    /// The ends that it writes to, which are also ours.
    pub held: Vec<OwnedFd>,
}

/// Starts commands: what all of them need, kept from one to the next.
#[derive(Debug)]
pub struct Starter {
    tables: Tables,
    /// This process's working directory.
    ours: PathBuf,
    /// The input of commands that have none.
    null: OwnedFd,
    /// Where this process says how it is protected from the out-of-memory killer, if it is.
    protection: Option<File>,
    /// A shell for the next command.
    spare: Option<Spare>,
    /// Whether there may be one.
    spares: bool,
}

/// What a program is started with.
struct Plan {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: PathBuf,
    user: Option<ChildUser>,
}

impl Starter {
    /// Returns one that looks users up where `config` says.
    pub fn new(config: &Config) -> io::Result<Self> {
        let protection = || OpenOptions::new().write(true).open(sys::OOM_SCORE_ADJ).ok();
        Ok(Self {
            tables: Tables::new(&config.root),
            ours: std::env::current_dir().unwrap_or_default(),
            null: File::open("/dev/null")?.into(),
            protection: match config.authority {
                Authority::Machine => protection(),
                Authority::Files => None,
            },
            spare: None,
            spares: config.children == Children::All,
        })
    }

    /// Starts what `spec` says.
    pub fn spawn(&mut self, spec: &ExecSpec) -> Result<Spawned, Refusal> {
        if let Some(spawned) = self.use_spare(spec)? {
            return Ok(spawned);
        }
        let number = next_number();
        let plan = self.plan(spec, number)?;
        self.start(&plan, spec, number, false)
    }

    /// Returns what `spec` amounts to for the command of this number.
    fn plan(&mut self, spec: &ExecSpec, number: u64) -> Result<Plan, Refusal> {
        check(spec)?;
        let user = find_user(&mut self.tables, spec.user.as_deref())?;
        let env = environment(spec, &mut self.tables, &user, &mark(number));
        let cwd = directory(spec, &user, &self.ours)?;
        let (program, argv) = program(&spec.command, &env, &cwd)?;
        let program = c_string(program.into_os_string().into_vec())?;
        let argv = argv.into_iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
        let env = env.into_iter().map(|(name, value)| c_string(format!("{name}={value}")));
        let env = env.collect::<Result<Vec<_>, _>>()?;
        let is_us = user.groups.len() <= 1 && rustix::process::getuid().as_raw() == user.uid;
        let user =
            (!is_us).then_some(ChildUser { uid: user.uid, gid: user.gid, groups: user.groups });
        Ok(Plan { program, argv, env, cwd, user })
    }

    fn start(
        &self,
        plan: &Plan,
        spec: &ExecSpec,
        number: u64,
        traced: bool,
    ) -> Result<Spawned, Refusal> {
        let Plan { program, argv, env, cwd, user } = plan;
        let moved = (*cwd != self.ours).then(|| path_string(cwd)).transpose()?;
        let start = |stdio, leads| {
            let (cwd, user) = (moved.as_deref(), user.clone());
            let launch = Launch { program, argv, env, cwd, stdio, leads, user, traced };
            let launched = self.unprotected(|| sys::launch(&launch));
            let object = program.to_string_lossy();
            launched.map_err(|error| Refusal::from_io(format_args!("`{object}`"), &error))
        };
        if let Some(size) = spec.terminal {
            let (master, slave) =
                open_terminal(size).map_err(|error| Refusal::from_io("a new terminal", &error))?;
            let pid = start([slave.as_fd(), slave.as_fd(), slave.as_fd()], Leads::Session)?;
            let held = Vec::new();
            return Ok(Spawned { number, pid, stdin: None, stdout: master, stderr: None, held });
        }
        let (stdout, stderr) = (pipe()?, pipe()?);
        let input = (spec.stdin == Stdin::Open).then(pipe).transpose()?;
        if let Some((_, ours)) = &input {
            // Outputs are only read when there is something; only writing could wait.
            fcntl_setfl(ours, OFlags::NONBLOCK)
                .map_err(|error| Refusal::from_io("the command's pipes", &error.into()))?;
        }
        let stdin = input.as_ref().map_or(self.null.as_fd(), |(theirs, _)| theirs.as_fd());
        let pid = start([stdin, stdout.1.as_fd(), stderr.1.as_fd()], Leads::Group)?;
        let stdin = input.map(|(_, ours)| ours);
        let held = vec![stdout.1, stderr.1];
        Ok(Spawned { number, pid, stdin, stdout: stdout.0, stderr: Some(stderr.0), held })
    }

    /// Starts a shell ahead of the next command, unless there is one.
    pub fn prepare(&mut self) {
        if let Some(spare) = self.spare.take_if(|spare| !spare.is_current()) {
            spare::end(spare.pid());
        }
        if !self.spares || self.spare.is_some() || !group::is_settled() {
            return;
        }
        let blank = ExecSpec {
            command: Command::Shell(" ".repeat(BLANK)),
            env: BTreeMap::new(),
            // It keeps no directory from being unmounted.
            cwd: Some("/".into()),
            user: None,
            timeout_ms: 1,
            terminal: None,
            stdin: Stdin::Empty,
        };
        let number = next_number();
        let started = self.plan(&blank, number).and_then(|plan| {
            let spawned = self.start(&plan, &blank, number, true)?;
            Ok(Spare::new(number, plan.env, spawned))
        });
        // Where it cannot be, commands start as they would without.
        self.spare = started.ok();
    }

    /// Returns whether a shell is on its way that is not ready for a command.
    pub fn is_preparing(&self) -> bool {
        self.spare.as_ref().is_some_and(|spare| !spare.is_held())
    }

    /// Looks how far the shell on its way has come.
    pub fn advance(&mut self, now: Instant) {
        let Some(pid) = self.spare.as_ref().map(Spare::pid) else { return };
        if let Ok(Some((_, status))) = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG) {
            self.changed(pid, status);
        }
        if self.spare.take_if(|spare| spare.is_late(now)).is_some() {
            spare::end(pid);
        }
    }

    /// Takes note of what became of a child. Returns whether it was the spare shell.
    pub fn changed(&mut self, pid: i32, status: WaitStatus) -> bool {
        let Some(spare) = self.spare.as_mut().filter(|spare| spare.pid() == pid) else {
            return false;
        };
        if status.exited() || status.signaled() {
            self.spare = None;
        } else if spare.advance(status).is_err() {
            self.spare = None;
            spare::end(pid);
        }
        true
    }

    /// Has the spare shell run `spec`, if there is one and nobody could tell.
    fn use_spare(&mut self, spec: &ExecSpec) -> Result<Option<Spawned>, Refusal> {
        let Some(spare) = self.spare.as_ref().filter(|spare| spare.is_held()) else {
            return Ok(None);
        };
        let is_short = matches!(&spec.command, Command::Shell(line) if line.len() < BLANK);
        if !is_short || spec.terminal.is_some() || spec.stdin != Stdin::Empty {
            return Ok(None);
        }
        let number = spare.number;
        let plan = self.plan(spec, number)?;
        let spare = self.spare.take_if(|spare| plan.user.is_none() && plan.env == spare.env);
        let Some(spare) = spare else { return Ok(None) };
        let (pid, cwd) = (spare.pid(), path_string(&plan.cwd)?);
        let command = plan.argv.last().filter(|_| spare.is_current());
        let spawned = command.and_then(|command| spare.run(command, &cwd).ok());
        if spawned.is_none() {
            spare::end(pid);
        }
        Ok(spawned)
    }

    /// Runs `make`, whose children are not protected from the out-of-memory killer, as this process
    /// is. To take it from a child afterwards costs a search of `/proc`, a tenth of a short command.
    fn unprotected<T>(&self, make: impl FnOnce() -> T) -> T {
        let set = |score: &str| {
            // Where it cannot be written, it never was.
            let file = self.protection.as_ref();
            let _ = file.map(|file| file.write_at(score.as_bytes(), 0));
        };
        set(sys::UNPROTECTED);
        let made = make();
        set(sys::PROTECTED);
        made
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Refusal> {
    pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| Refusal::from_io("the command's pipes", &error.into()))
}

fn path_string(path: &Path) -> Result<CString, Refusal> {
    c_string(path.as_os_str().as_bytes())
}

fn c_string(bytes: impl Into<Vec<u8>>) -> Result<CString, Refusal> {
    CString::new(bytes)
        .map_err(|_| Refusal::new(RefusalKind::Invalid, "there is a zero byte in the command"))
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

fn find_user(tables: &mut Tables, wanted: Option<&str>) -> Result<User, Refusal> {
    // Root in a machine.
    let ours = rustix::process::getuid().as_raw().to_string();
    let wanted = wanted.unwrap_or(&ours);
    let found = User::find(tables, wanted);
    let found = found.map_err(|error| Refusal::from_io("the table of users", &error))?;
    found.ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("no user `{wanted}`")))
}

/// Default, then `/etc/environment`, then the user, then the request; the later ones win.
fn environment(
    spec: &ExecSpec,
    tables: &mut Tables,
    user: &User,
    mark: &str,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
    set("PATH", PATH);
    set("LANG", "C.UTF-8");
    if spec.terminal.is_some() {
        set("TERM", "xterm-256color");
    }
    // An unreadable file is no reason to refuse a command, which may be there to repair it.
    let table = tables.environment.read().unwrap_or_default();
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

/// Returns the file to execute, and its arguments.
fn program(
    command: &Command,
    env: &BTreeMap<String, String>,
    cwd: &Path,
) -> Result<(PathBuf, Vec<String>), Refusal> {
    match command {
        Command::Shell(line) => {
            Ok((PathBuf::from("/bin/sh"), vec!["/bin/sh".into(), "-c".into(), line.clone()]))
        }
        Command::Argv(argv) => {
            let name = argv.first().map_or("", String::as_str);
            let path = env.get("PATH").map_or(PATH, String::as_str);
            let found = look_up(name, path, cwd).ok_or_else(|| {
                Refusal::new(RefusalKind::NotFound, format!("no program `{name}`"))
            })?;
            Ok((found, argv.clone()))
        }
    }
}

/// Finds a program as a shell would. A name with a slash is taken as it is, so that what is wrong
/// with it comes from the kernel.
fn look_up(name: &str, path: &str, cwd: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(cwd.join(name));
    }
    let mut candidates = path.split(':').map(|directory| cwd.join(directory).join(name));
    candidates.find(|file| {
        let facts = std::fs::metadata(file);
        facts.is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    })
}

/// Returns the working directory. A home that does not exist is no reason to refuse a command; a
/// directory that was asked for is.
fn directory(spec: &ExecSpec, user: &User, ours: &Path) -> Result<PathBuf, Refusal> {
    let wanted = spec.cwd.as_deref().unwrap_or(&user.home);
    if Path::new(wanted) == ours {
        return Ok(PathBuf::from(wanted));
    }
    match std::fs::metadata(wanted) {
        Ok(facts) if facts.is_dir() => Ok(PathBuf::from(wanted)),
        _ if spec.cwd.is_none() => Ok(PathBuf::from("/")),
        Ok(_) => {
            let message = format!("the working directory `{wanted}` is not a directory");
            Err(Refusal::new(RefusalKind::WrongFileType, message))
        }
        Err(error) => {
            Err(Refusal::from_io(format_args!("the working directory `{wanted}`"), &error))
        }
    }
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

/// Returns whether nobody holds the other end of `fd`.
pub fn is_hung_up(fd: &impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default()))?;
    Ok(fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP)))
}

/// Makes reads and writes of `fd` return instead of waiting.
pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    Ok(fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::time::Duration;

    use rustix::process::{Signal, kill_process};

    use super::*;
    use crate::limits::SPARE_TIMEOUT;

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

    /// What a shell can find out about itself, but for its command's number.
    const SELF: &str = "tr '\\0' '|' </proc/$$/cmdline; tr '\\0' '\\n' </proc/$$/environ | \
        sed 's/^PANDO_COMMAND=[0-9]*-[0-9][0-9]*$/marked/'; pwd; cat /proc/$$/comm; \
        echo /proc/$$/fd/*; readlink /proc/$$/fd/0; cat /proc/$$/limits; cut -d' ' -f4 /proc/$$/stat; \
        grep -E 'TracerPid|Groups|Umask' /proc/$$/status; grep -E 'Sig(Blk|Ign)' /proc/self/status; \
        echo \"$0 $# 'ü' $*\"; exit 3";

    fn shell(line: &str) -> ExecSpec {
        ExecSpec {
            command: Command::Shell(line.into()),
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            timeout_ms: 60_000,
            terminal: None,
            stdin: Stdin::Empty,
        }
    }

    fn starter(with_spares: bool) -> Starter {
        let config = Config::embedded(Path::new("/"));
        Starter { spares: with_spares, ..Starter::new(&config).unwrap() }
    }

    /// Waits until the shell on its way is held. Returns its process; none where it may not be.
    fn prepared(starter: &mut Starter) -> Option<i32> {
        starter.prepare();
        let deadline = Instant::now() + Duration::from_secs(20);
        while starter.is_preparing() {
            assert!(Instant::now() < deadline, "it is still not ready");
            std::thread::sleep(Duration::from_millis(1));
            starter.advance(Instant::now());
        }
        let spare = starter.spare.as_ref().map(Spare::pid);
        assert_eq!(spare.is_some(), may_move_arguments());
        spare
    }

    /// Waits for the end of what was started. Returns its output and status.
    fn ended(spawned: Spawned) -> (String, Option<i32>) {
        drop(spawned.held);
        let mut output = String::new();
        File::from(spawned.stdout).read_to_string(&mut output).unwrap();
        let (_, status) =
            waitpid(Pid::from_raw(spawned.pid), WaitOptions::empty()).unwrap().unwrap();
        (output.replace(&spawned.pid.to_string(), "PID"), status.exit_status())
    }

    /// Whether the kernel lets a child of this process say where its arguments end: CAP_SYS_RESOURCE,
    /// which a machine's guest program has.
    fn may_move_arguments() -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
        u64::from_str_radix(set, 16).unwrap() & (1 << 24) != 0
    }

    #[test]
    fn a_shell_that_was_started_ahead_cannot_be_told_from_another() {
        let (mut with, mut without) = (starter(true), starter(false));
        let long = format!("{SELF} # {}", "x".repeat(BLANK - SELF.len() - 20));
        for line in
            [SELF, &long, "cd /; kill -9 $$", "exec sh -c 'echo $PPID; readlink /proc/self/fd/0'"]
        {
            for cwd in [None, Some("/usr/share".to_owned())] {
                let spec = ExecSpec { cwd, ..shell(line) };
                let ahead = prepared(&mut with);
                let spawned = with.spawn(&spec).unwrap();
                assert!(ahead.is_none_or(|ahead| ahead == spawned.pid), "{line}");
                let expected = ended(without.spawn(&spec).unwrap());
                assert_eq!(ended(spawned), expected, "{line}");
            }
        }
    }

    #[test]
    fn only_what_suits_it_is_run_by_a_shell_that_was_started_ahead() {
        let mut starter = starter(true);
        let Some(ahead) = prepared(&mut starter) else { return };
        let usual = shell("true");
        let others = [
            shell(&" ".repeat(BLANK)),
            ExecSpec { command: Command::Argv(vec!["true".into()]), ..usual.clone() },
            ExecSpec { env: [("A".to_owned(), "1".to_owned())].into(), ..usual.clone() },
            ExecSpec { stdin: Stdin::Open, ..usual.clone() },
            ExecSpec { terminal: Some(TerminalSize { rows: 9, columns: 9 }), ..usual.clone() },
        ];
        for spec in others {
            let spawned = starter.spawn(&spec).unwrap();
            assert_ne!(spawned.pid, ahead, "{spec:?}");
            waitpid(Pid::from_raw(spawned.pid), WaitOptions::empty()).unwrap();
        }
        for (spec, kind) in [
            (ExecSpec { cwd: Some("/no".into()), ..usual.clone() }, RefusalKind::NotFound),
            (ExecSpec { user: Some("no".into()), ..usual.clone() }, RefusalKind::NotFound),
            (shell("a\0b"), RefusalKind::Invalid),
        ] {
            assert_eq!(starter.spawn(&spec).unwrap_err().kind, kind);
        }
        assert_eq!(starter.spare.as_ref().map(Spare::pid), Some(ahead), "it still waits");
        spare::end(ahead);
    }

    #[test]
    fn a_shell_that_hangs_on_its_way_is_given_up() {
        let mut starter = starter(true);
        starter.prepare();
        let hangs = starter.spare.as_ref().unwrap().pid();
        // It has stopped after its execution, and nobody lets it go on.
        let late = Instant::now() + SPARE_TIMEOUT;
        assert!(!starter.spare.as_ref().unwrap().is_late(late - Duration::from_secs(5)));
        std::thread::sleep(Duration::from_millis(20));
        starter.advance(late);
        assert!(starter.spare.is_none());
        let (_, status) = waitpid(Pid::from_raw(hangs), WaitOptions::empty()).unwrap().unwrap();
        assert!(status.signaled(), "{status:?}");
    }

    #[test]
    fn commands_start_whatever_becomes_of_the_shell_that_was_started_ahead() {
        let mut starter = starter(true);
        for signal in [Signal::KILL, Signal::TERM] {
            let Some(ahead) = prepared(&mut starter) else { return };
            kill_process(Pid::from_raw(ahead).unwrap(), signal).unwrap();
            let spawned = starter.spawn(&shell("echo here")).unwrap();
            assert_ne!(spawned.pid, ahead, "{signal:?}");
            assert_eq!(ended(spawned), ("here\n".to_owned(), Some(0)), "{signal:?}");
            let (_, status) = waitpid(Pid::from_raw(ahead), WaitOptions::empty()).unwrap().unwrap();
            assert!(status.signaled(), "{status:?}");
            assert!(starter.spare.is_none());
        }
        // Its end is noticed, too, when nothing is asked of it.
        let Some(ahead) = prepared(&mut starter) else { return };
        spare::end(ahead);
        let (pid, status) = waitpid(Pid::from_raw(ahead), WaitOptions::empty()).unwrap().unwrap();
        assert!(starter.changed(pid.as_raw_nonzero().get(), status));
        assert!(starter.spare.is_none());
    }

    #[test]
    fn programs_are_looked_up_in_path_order_and_must_be_executable_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("one/tool"), "").unwrap();
        fs::create_dir(dir.path().join("one/folder")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", dir.path().join("two/tool")).unwrap();
        let found = look_up("tool", "one:two", dir.path()).unwrap();
        assert_eq!(found, dir.path().join("two/tool"));
        assert_eq!(look_up("folder", "one:two", dir.path()), None);
        assert_eq!(look_up("./x", "", Path::new("/w")), Some(PathBuf::from("/w/./x")));
    }
}
