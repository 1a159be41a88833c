//! Runs external programs: argument vectors only, never a shell; a clean environment; bounded
//! output; a deadline; and no process left behind, however the run ends.
//!
//! Each program is the leader of its own process group and gets SIGKILL when the thread that
//! started it dies (`setpriv --pdeathsig`; the threads of a runtime live as long as the daemon).
//! When a run is cancelled or late, the whole group is killed: what it was writing is scratch. The
//! leader is reaped last, so that its number cannot belong to anybody else while the group is
//! signalled.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pando_driver::{ImageError, Reporter};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::limits;

/// Where programs are looked for: an unprivileged user's PATH often lacks the sbin directories.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that are handed down: how the user reaches the network.
const HANDED_DOWN: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SOURCE_DATE_EPOCH",
];

/// What `unshare` is told for an isolated program.
const ISOLATION: &[&str] = &[
    "--mount",
    "--propagation=private",
    "--pid",
    "--mount-proc",
    "--fork",
    "--kill-child=KILL",
    "--",
];

/// One run of an external program.
pub struct Tool {
    program: &'static str,
    package: &'static str,
    args: Vec<OsString>,
    envs: Vec<(&'static str, OsString)>,
    directory: Option<PathBuf>,
    stdin: Option<File>,
    stdout: Option<File>,
    memory_limit: Option<u64>,
    file_limit: Option<u64>,
    isolated: bool,
    grace: Duration,
}

impl Tool {
    /// Returns a run of `program`, which Debian's `package` installs.
    pub fn new(program: &'static str, package: &'static str) -> Self {
        Self {
            program,
            package,
            args: Vec::new(),
            envs: Vec::new(),
            directory: None,
            stdin: None,
            stdout: None,
            memory_limit: None,
            file_limit: None,
            isolated: false,
            grace: Duration::ZERO,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name, value.as_ref().to_owned()));
        self
    }

    /// Sets its working directory.
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Gives it a file as standard input; it has none otherwise.
    pub fn stdin(mut self, file: File) -> Self {
        self.stdin = Some(file);
        self
    }

    /// Writes its standard output to a file instead of returning it.
    pub fn stdout(mut self, file: File) -> Self {
        self.stdout = Some(file);
        self
    }

    /// Bounds its address space, in bytes, because it reads a file that nobody vouches for.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Ends it when it writes a file of more than this many bytes.
    pub fn file_limit(mut self, bytes: u64) -> Self {
        self.file_limit = Some(bytes);
        self
    }

    /// Gives it mount and process namespaces of its own: what it mounts is never seen outside, and
    /// all that it starts dies with it, whatever group it has joined. Needs privileges.
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// Asks it to stop, and lets it tidy up for this long, before it is killed.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Runs it to its end and returns its standard output.
    ///
    /// # Errors
    /// `ToolMissing`, `ToolFailed`, `DiskFull` if that is what it complained about, `Cancelled`.
    pub async fn run(self, deadline: Duration, reporter: &Reporter) -> Result<Vec<u8>, ImageError> {
        self.run_with(deadline, reporter, |_| {}).await
    }

    /// Runs it like [`Tool::run`] and hands each line of its standard error to `on_line`.
    pub async fn run_with(
        self,
        deadline: Duration,
        reporter: &Reporter,
        on_line: impl FnMut(&str) + Send,
    ) -> Result<Vec<u8>, ImageError> {
        if reporter.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        let (program, grace) = (self.program, self.grace);
        let mut child = self.spawn()?;
        let group = Group::of(&child);
        let mut tail = Tail::default();
        // Dropping the reader on the other arms loses output only, and the run has failed by then.
        let ended = tokio::select! {
            biased;
            () = reporter.cancelled() => Err(ImageError::Cancelled),
            () = tokio::time::sleep(deadline) => Err(ImageError::ToolFailed {
                tool: program.to_owned(),
                detail: format!("it did not end within {} s", deadline.as_secs()),
            }),
            ended = follow(program, &mut child, &mut tail, on_line) => ended,
        };
        let (output, status) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                group.stop(&mut child, grace).await;
                return Err(error);
            }
        };
        group.disarm();
        if status.success() { Ok(output) } else { Err(tail.into_error(program, status)) }
    }

    fn spawn(self) -> Result<Child, ImageError> {
        let program = find(self.program, self.package)?;
        let mut command = Command::new(find("setpriv", "util-linux")?);
        command.args(["--pdeathsig", "KILL", "--"]);
        if self.memory_limit.is_some() || self.file_limit.is_some() {
            command.arg(find("prlimit", "util-linux")?).arg("--core=0");
        }
        if let Some(bytes) = self.memory_limit {
            command.arg(format!("--as={bytes}"));
        }
        if let Some(bytes) = self.file_limit {
            command.arg(format!("--fsize={bytes}"));
        }
        if self.isolated {
            command.arg(find("unshare", "util-linux")?).args(ISOLATION);
        }
        command.arg(program).args(self.args);
        command
            .env_clear()
            .env("PATH", SEARCH)
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", "/nonexistent");
        for name in HANDED_DOWN {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.envs);
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        command.stdin(self.stdin.map_or_else(Stdio::null, Stdio::from));
        command.stdout(self.stdout.map_or_else(Stdio::piped, Stdio::from));
        command.stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        command
            .spawn()
            .map_err(|source| ImageError::Io { what: format!("start {}", self.program), source })
    }
}

/// Returns where a program is.
///
/// # Errors
/// `ToolMissing` if it is nowhere.
pub fn find(program: &str, package: &str) -> Result<PathBuf, ImageError> {
    SEARCH
        .split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| ImageError::ToolMissing {
            tool: program.to_owned(),
            package: package.to_owned(),
        })
}

/// Reads both outputs to their ends, then the exit status.
async fn follow(
    program: &str,
    child: &mut Child,
    tail: &mut Tail,
    mut on_line: impl FnMut(&str) + Send,
) -> Result<(Vec<u8>, ExitStatus), ImageError> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (output, ()) = tokio::try_join!(collect(program, stdout), async {
        if let Some(stderr) = stderr {
            read_lines(stderr, |line| {
                on_line(line);
                tail.push(line);
            })
            .await?;
        }
        Ok(())
    })?;
    let status = child
        .wait()
        .await
        .map_err(|source| ImageError::Io { what: format!("wait for {program}"), source })?;
    Ok((output, status))
}

async fn collect(
    program: &str,
    stdout: Option<impl AsyncRead + Unpin>,
) -> Result<Vec<u8>, ImageError> {
    let mut output = Vec::new();
    let Some(stdout) = stdout else { return Ok(output) };
    let bound = limits::MAX_CAPTURE_BYTES as u64 + 1;
    stdout.take(bound).read_to_end(&mut output).await.map_err(reading)?;
    if output.len() > limits::MAX_CAPTURE_BYTES {
        return Err(ImageError::ToolFailed {
            tool: program.to_owned(),
            detail: format!("it wrote more than {} bytes", limits::MAX_CAPTURE_BYTES),
        });
    }
    Ok(output)
}

/// Hands on each line, cut to [`limits::MAX_LINE_BYTES`]; carriage returns end lines as well,
/// because progress displays use them.
async fn read_lines(
    mut from: impl AsyncRead + Unpin,
    mut line_seen: impl FnMut(&str),
) -> Result<(), ImageError> {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer).await.map_err(reading)?;
        for &byte in buffer.iter().take(count) {
            if byte != b'\n' && byte != b'\r' {
                if line.len() < limits::MAX_LINE_BYTES {
                    line.push(byte);
                }
            } else if !line.is_empty() {
                line_seen(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
        if count == 0 {
            if !line.is_empty() {
                line_seen(&String::from_utf8_lossy(&line));
            }
            return Ok(());
        }
    }
}

fn reading(source: std::io::Error) -> ImageError {
    ImageError::Io { what: "read a program's output".to_owned(), source }
}

/// The last lines that a program complained with.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    fn push(&mut self, line: &str) {
        if self.lines.len() == limits::MAX_ERROR_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    fn into_error(self, program: &str, status: ExitStatus) -> ImageError {
        let lines = Vec::from(self.lines).join("\n");
        if lines.contains("No space left on device") || lines.contains("Disk quota exceeded") {
            return ImageError::DiskFull(program.to_owned());
        }
        let detail = if lines.is_empty() { status.to_string() } else { lines };
        ImageError::ToolFailed { tool: program.to_owned(), detail }
    }
}

/// The process group of a running program; killed when dropped armed.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { leader }
    }

    /// The leader is reaped: its number means nothing any more.
    fn disarm(mut self) {
        self.leader = None;
    }

    /// Ends every process of the group and reaps the leader.
    async fn stop(mut self, child: &mut Child, grace: Duration) {
        if let Some(leader) = self.leader.take() {
            if !grace.is_zero() {
                let _ = kill_process_group(leader, Signal::TERM);
            }
            let deadline = Instant::now() + grace;
            while !is_zombie(leader) && Instant::now() < deadline {
                tokio::time::sleep(limits::STOP_POLL).await;
            }
            let _ = kill_process_group(leader, Signal::KILL);
        }
        let _ = child.wait().await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Returns whether the leader has ended, without reaping it.
fn is_zombie(leader: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(leader), options), Ok(None))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pando_model::operation::Progress;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn cat() -> Tool {
        Tool::new("cat", "coreutils")
    }

    #[tokio::test]
    async fn arguments_are_never_interpreted() {
        let text = "$(id); `id` && \"x\" > y *";
        let output = Tool::new("printf", "coreutils")
            .args(["%s", text])
            .run(DEADLINE, &Reporter::silent())
            .await
            .unwrap();
        assert_eq!(output, text.as_bytes());
    }

    #[tokio::test]
    async fn a_missing_program_names_its_package() {
        let error = Tool::new("no-such-program", "its-package")
            .run(DEADLINE, &Reporter::silent())
            .await
            .unwrap_err();
        assert!(
            matches!(error, ImageError::ToolMissing { package, .. } if package == "its-package")
        );
    }

    #[tokio::test]
    async fn a_failure_carries_the_last_lines() {
        let error =
            cat().arg("/nonexistent/file").run(DEADLINE, &Reporter::silent()).await.unwrap_err();
        let ImageError::ToolFailed { detail, .. } = error else { panic!("{error}") };
        assert!(detail.contains("/nonexistent/file"), "{detail}");
    }

    #[tokio::test]
    async fn a_full_disk_is_called_one() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = cat()
            .stdin(File::open("/etc/passwd").unwrap())
            .stdout(full)
            .run(DEADLINE, &Reporter::silent())
            .await
            .unwrap_err();
        assert!(matches!(error, ImageError::DiskFull(_)), "{error}");
    }

    #[tokio::test]
    async fn endless_output_is_refused() {
        let error = cat().arg("/dev/zero").run(DEADLINE, &Reporter::silent()).await.unwrap_err();
        assert!(matches!(error, ImageError::ToolFailed { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_late_program_is_ended() {
        let error = Tool::new("sleep", "coreutils")
            .arg("600")
            .run(Duration::from_millis(50), &Reporter::silent())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    /// A shell stands for a program with children of its own that ignore SIGTERM.
    #[tokio::test]
    async fn cancelling_ends_the_children_too() {
        let token = tokio_util::sync::CancellationToken::new();
        let reporter = Reporter::new(Arc::new(|_: Progress| {}), token.clone());
        let mut pids = Vec::new();
        let script = "trap '' TERM; sleep 600 & echo $! >&2; trap - TERM; sleep 600 & echo $! >&2; \
                      echo go >&2; wait";
        let error = Tool::new("sh", "dash")
            .args(["-c", script])
            .run_with(DEADLINE, &reporter, |line| match line.parse::<i32>() {
                Ok(pid) => pids.push(pid),
                Err(_) => token.cancel(),
            })
            .await
            .unwrap_err();
        assert!(matches!(error, ImageError::Cancelled));
        assert_eq!(pids.len(), 2);
        for pid in pids {
            let deadline = Instant::now() + DEADLINE;
            while is_running(pid) {
                assert!(Instant::now() < deadline, "process {pid} is still there");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn is_running(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
    }
}
