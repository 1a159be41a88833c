//! What a topology wants done in a node once, after its first start: files, a script, commands,
//! services. In this order, each only if the one before succeeded; nodes do it at the same time.

use std::fmt::Write as _;
use std::time::Duration;

use pando_api::exec::ExecRunResult;
use pando_model::guest::{Command, ExecSpec, PushSpec, Stdin};
use pando_model::{Branch, BranchId, Cluster, ErrorCode, NodeDef, limits};
use pando_topology::{Node, Restart, Service};
use tokio::sync::mpsc;

use crate::failure::{Failure, Result};
use crate::kernel;
use crate::keys;
use crate::operation::Cx;
use crate::output::Bound;
use crate::verbs::exec::ended_by;

/// Where services' scripts are kept in a node.
const SERVICES: &str = "/var/lib/pando/services";
/// Where systemd looks for units that are not a package's.
const UNITS: &str = "/etc/systemd/system";
/// How long a service that ended is left alone before it is started again.
const RESTART_SECONDS: u32 = 1;
/// The user who is there in every node, and whose keys are the identity's.
const ROOT: &str = "root";
/// Lets keys log in as a user, who is made if there is none: without a password, which is not the
/// same as a locked account. Its words are the user and the keys.
const LOGIN: &str = r#"set -e
user=$1
shift
id -u "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/sh --password '*' "$user"
home=$(getent passwd "$user" | cut -d: -f6)
group=$(id -gn "$user")
install -d -m 700 -o "$user" -g "$group" "$home/.ssh"
keys=$home/.ssh/authorized_keys
for key; do
  grep -qxF -- "$key" "$keys" 2>/dev/null || printf '%s\n' "$key" >>"$keys"
done
chmod 600 "$keys"
chown "$user:$group" "$keys""#;
/// Most characters of what a failed command wrote in the error.
const MAX_WORDS: usize = 400;
/// Most characters of a command line in the error.
const MAX_LINE: usize = 120;

/// One thing to do in a node.
enum Act<'a> {
    Write { path: String, contents: &'a str, mode: u32, owner: Option<String> },
    Made { path: String, contents: String, mode: u32 },
    Script(&'a str),
    Run(Command),
}

/// Returns a text as one word of a shell's command line.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Returns a service's script: what a unit's own syntax would need quoting for.
fn script_of(service: &Service, env: &std::collections::BTreeMap<String, String>) -> String {
    let mut script = "#!/bin/sh\n".to_owned();
    for (name, value) in env.iter().chain(&service.env) {
        // Writing to a string does not fail.
        let _ = writeln!(script, "export {name}={}", word(value));
    }
    if let Some(cwd) = &service.cwd {
        let _ = writeln!(script, "cd -- {} || exit 1", word(cwd));
    }
    match &service.command {
        Command::Shell(line) => script.push_str(line),
        Command::Argv(argv) => {
            let words: Vec<String> = argv.iter().map(|arg| word(arg)).collect();
            let _ = write!(script, "exec {}", words.join(" "));
        }
    }
    script.push('\n');
    script
}

fn unit_of(service: &Service) -> String {
    let restart = match service.restart {
        Restart::No => "no",
        Restart::OnFailure => "on-failure",
        Restart::Always => "always",
    };
    // However often it fails: what it waits for may be cut off for hours, on purpose.
    let mut unit =
        format!("[Unit]\nDescription={} (pando)\nStartLimitIntervalSec=0\n", service.name);
    for after in &service.after {
        // Writing to a string does not fail.
        let _ = writeln!(unit, "After={after}.service\nWants={after}.service");
    }
    let _ = write!(
        unit,
        "\n[Service]\nExecStart={SERVICES}/{}\nRestart={restart}\n\
         RestartSec={RESTART_SECONDS}\n",
        service.name
    );
    if let Some(user) = &service.user {
        let _ = writeln!(unit, "User={user}");
    }
    unit.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    unit
}

/// Returns what is to be done in a node, in order.
fn acts(node: &Node, is_script: bool) -> Vec<Act<'_>> {
    let mut acts: Vec<Act<'_>> = Vec::new();
    acts.extend(node.files.iter().map(|file| Act::Write {
        path: file.path.clone(),
        contents: &file.contents,
        mode: file.mode,
        owner: file.owner.clone(),
    }));
    acts.extend(node.user_data.as_deref().filter(|_| is_script).map(Act::Script));
    acts.extend(node.commands.iter().cloned().map(Act::Run));
    for service in &node.services {
        let name = &service.name;
        let (path, contents) = (format!("{SERVICES}/{name}"), script_of(service, &node.env));
        acts.push(Act::Made { path, contents, mode: 0o755 });
        let (path, contents) = (format!("{UNITS}/{name}.service"), unit_of(service));
        acts.push(Act::Made { path, contents, mode: 0o644 });
    }
    if !node.services.is_empty() {
        let names = node.services.iter().map(|service| format!("{}.service", service.name));
        let names: Vec<String> = names.collect();
        let line = format!("systemctl daemon-reload && systemctl enable --now {}", names.join(" "));
        acts.push(Act::Run(Command::Shell(line)));
    }
    acts
}

/// Returns how many things are to be done in a node.
pub(crate) fn count(node: &Node) -> usize {
    let script = usize::from(node.user_data.as_ref().is_some_and(|data| data.starts_with("#!")));
    node.files.len() + script + node.commands.len() + node.services.len()
}

/// Runs a script in a node, as root.
pub(crate) async fn run_script(
    cx: &Cx,
    (host_id, def): (&BranchId, &NodeDef),
    script: &str,
    timeout: Duration,
    bound: Bound,
) -> Result<ExecRunResult> {
    // The kernel reads the interpreter from the script's first line; a file is needed for that,
    // so the guest's shell makes one and removes it again. It is not run again after a crash, so that
    // what it did must be on the disk.
    let line = "f=$(mktemp) && cat >\"$f\" && chmod 700 \"$f\" && \"$f\"; s=$?; rm -f \"$f\"; sync; exit $s";
    let command = Command::Shell(line.to_owned());
    let stdin = Some(script.as_bytes().to_vec());
    run(cx, (host_id, def), command, stdin, timeout, bound).await
}

async fn run(
    cx: &Cx,
    (host_id, def): (&BranchId, &NodeDef),
    command: Command,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
    bound: Bound,
) -> Result<ExecRunResult> {
    let spec = ExecSpec {
        command,
        env: def.env.clone(),
        cwd: None,
        user: None,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        terminal: None,
        stdin: if stdin.is_some() { Stdin::Open } else { Stdin::Empty },
    };
    cx.engine.run_command(host_id, &def.name, &spec, stdin, bound, &cx.cancel).await
}

/// A node that is being set up.
pub(crate) struct SetUp<'a> {
    pub cx: &'a Cx,
    pub cluster: &'a Cluster,
    pub branch: &'a Branch,
    pub def: &'a NodeDef,
    pub timeout: Duration,
    /// Who logs in.
    pub user: &'a str,
}

impl SetUp<'_> {
    /// Does all that the topology wants of the node.
    pub async fn run(&self, node: &Node) -> Result<()> {
        self.let_in().await?;
        let is_script = node.user_data.as_ref().is_some_and(|data| data.starts_with("#!"));
        let mut acts = acts(node, is_script);
        if let Some(line) = kernel::names(self.cluster) {
            acts.insert(0, Act::Run(Command::Shell(line)));
        }
        let total = acts.len() as u64;
        for (done, act) in acts.into_iter().enumerate() {
            let doing = format!("setting up {}", self.def.name);
            self.cx.reporter.report(doing, done as u64, total);
            match act {
                Act::Write { path, contents, mode, owner } => {
                    self.write(path, contents, mode, owner).await?;
                }
                Act::Made { path, contents, mode } => {
                    self.write(path, &contents, mode, None).await?;
                }
                Act::Script(script) => {
                    let noted = self.note("exec", "user data")?;
                    let bound = Bound::new(limits::DEFAULT_OUTPUT_BYTES);
                    let place = (&self.branch.host_id, self.def);
                    let ran = run_script(self.cx, place, script, self.timeout, bound).await;
                    self.judge("user data", ran, noted)?;
                }
                Act::Run(command) => self.command(command).await?,
            }
        }
        if total > 0 || self.user != ROOT {
            // Its record says from now on that this is done, and a node may crash at once.
            let sync = Command::Argv(vec!["sync".to_owned()]);
            self.command_as("writing all that to the disk".to_owned(), sync).await?;
        }
        Ok(())
    }

    fn note(&self, act: &str, detail: &str) -> Result<crate::verbs::journal::Noted> {
        let place = (&self.branch.id, &self.def.name);
        self.cx.engine.journal_as((self.cx.id.as_str(), &self.cx.actor), act, place, detail)
    }

    /// Before anything else: files may be that user's.
    async fn let_in(&self) -> Result<()> {
        if self.user == ROOT {
            return Ok(());
        }
        let keys = keys::login_keys(&self.cx.engine.config.layout, self.cluster)?;
        let argv = ["sh", "-c", LOGIN, "login", self.user].map(str::to_owned);
        let command = Command::Argv(argv.into_iter().chain(keys).collect());
        self.command_as(format!("letting {} log in", self.user), command).await
    }

    async fn command(&self, command: Command) -> Result<()> {
        let line = match &command {
            Command::Shell(line) => line.clone(),
            Command::Argv(argv) => argv.join(" "),
        };
        self.command_as(line, command).await
    }

    /// Runs a command that is told of as `line`.
    async fn command_as(&self, line: String, command: Command) -> Result<()> {
        let noted = self.note("exec", &line)?;
        let place = (&self.branch.host_id, self.def);
        let bound = Bound::new(limits::DEFAULT_OUTPUT_BYTES);
        let ran = run(self.cx, place, command, None, self.timeout, bound).await;
        self.judge(&line, ran, noted)
    }

    /// Notes how a command ended, and refuses all but success.
    fn judge(
        &self,
        line: &str,
        ran: Result<ExecRunResult>,
        noted: crate::verbs::journal::Noted,
    ) -> Result<()> {
        let ran = match ran {
            Ok(ran) => ran,
            Err(failure) => {
                let result: Result<()> = Err(failure);
                noted.ended(&result);
                return result;
            }
        };
        noted.exited(ran.exit_code, ended_by(&ran));
        if ran.exit_code == Some(0) {
            return Ok(());
        }
        let how = match (ran.exit_code, ended_by(&ran)) {
            (Some(code), _) => format!("exited with {code}"),
            (None, why) => why.unwrap_or_else(|| "did not end".to_owned()),
        };
        let words =
            if ran.stderr.trim().is_empty() { ran.stdout.trim() } else { ran.stderr.trim() };
        let skipped = words.chars().count().saturating_sub(MAX_WORDS);
        let words: String = words.chars().skip(skipped).collect();
        let line: String = line.chars().take(MAX_LINE).collect();
        let name = &self.def.name;
        let message = format!("`{line}` {how} on {name}: {words}");
        Err(Failure::new(ErrorCode::GuestFailed, message).subject(name.as_str()).hint(format!(
            "nothing of {} was kept: correct the topology, destroy the cluster \
             (`pando cluster destroy {} --remove-overlays`) and define it again",
            self.cluster.name, self.cluster.name
        )))
    }

    async fn write(
        &self,
        path: String,
        contents: &str,
        mode: u32,
        owner: Option<String>,
    ) -> Result<()> {
        let noted = self.note("push", &path)?;
        let size = contents.len() as u64;
        let spec = PushSpec { path, mode, owner, make_parents: true, size };
        let (sender, chunks) = mpsc::channel(1);
        let bytes = contents.as_bytes().to_vec();
        let push = self.cx.engine.host.push(&self.branch.host_id, &self.def.name, &spec, chunks);
        // A guest that refuses takes nothing.
        let send = async move { drop(sender.send(bytes).await) };
        let written = tokio::join!(push, send).0.map(|_| ()).map_err(Failure::from);
        noted.ended(&written);
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(command: Command) -> Service {
        Service {
            name: "web".parse().unwrap(),
            command,
            env: [("WHAT".to_owned(), "it's; rm -rf /".to_owned())].into(),
            cwd: Some("/srv/a b".to_owned()),
            user: Some("www".to_owned()),
            restart: Restart::OnFailure,
            after: vec!["db".parse().unwrap()],
        }
    }

    #[test]
    fn what_a_service_is_told_is_no_shells_word() {
        let argv = Command::Argv(vec!["serve".into(), "$(id)".into(), "it's".into()]);
        let script = script_of(&service(argv), &std::collections::BTreeMap::new());
        assert_eq!(
            script,
            "#!/bin/sh\nexport WHAT='it'\\''s; rm -rf /'\ncd -- '/srv/a b' || exit 1\n\
             exec 'serve' '$(id)' 'it'\\''s'\n"
        );
        let shell = Command::Shell("a | b".into());
        assert!(script_of(&service(shell), &[].into()).ends_with("exit 1\na | b\n"));
    }

    #[test]
    fn a_unit_starts_its_script_after_what_it_needs() {
        let unit = unit_of(&service(Command::Shell("true".into())));
        for line in [
            "After=db.service",
            "ExecStart=/var/lib/pando/services/web",
            "User=www",
            "Restart=on-failure",
        ] {
            assert!(unit.lines().any(|of| of == line), "{line}: {unit}");
        }
    }
}
