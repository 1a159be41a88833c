//! What agents get: calls through `pando mcp` processes of their own, one and many at once, whole
//! `pando exec` processes, and the daemon's memory.

use std::process::Stdio;
use std::time::{Duration, Instant};

use pando_api::ApiError;
use pando_api::system::SystemStatusResult;
use pando_model::ErrorCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use super::{Bench, Figure, Figures, NAME, ms};

/// Agents that work at once.
const AGENTS: usize = 32;
/// No answer takes longer.
const DEADLINE: Duration = Duration::from_secs(60);
/// What agents look at, in turn.
const READS: &[&str] = &["vm_list", "branch_list", "commit_list", "operation_list"];

/// An agent: a server of its own, and a client that speaks the revision of 2026-07-28.
struct Agent {
    server: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    last_id: u64,
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> ApiError {
    move |source| ApiError::new(ErrorCode::Internal, format!("cannot {what}: {source}"))
}

impl Agent {
    fn start(mut command: Command) -> Result<Self, ApiError> {
        let mut server = command
            .arg("mcp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("start an agent's server"))?;
        let (Some(input), Some(output)) = (server.stdin.take(), server.stdout.take()) else {
            return Err(ApiError::new(ErrorCode::Internal, "an agent's server has no streams"));
        };
        Ok(Self { server, input, output: BufReader::new(output).lines(), last_id: 0 })
    }

    /// Calls a tool that must succeed; returns how long it took.
    async fn call(&mut self, tool: &str, arguments: &Value) -> Result<Duration, ApiError> {
        self.last_id += 1;
        let request = json!({
            "jsonrpc": "2.0", "id": self.last_id, "method": "tools/call",
            "params": {
                "name": tool, "arguments": arguments,
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "pando-bench", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        });
        let line = format!("{request}\n");
        let began = Instant::now();
        self.input
            .write_all(line.as_bytes())
            .await
            .map_err(failed("speak to an agent's server"))?;
        let answer = tokio::time::timeout(DEADLINE, self.output.next_line()).await;
        let answer = answer.map_err(|_| {
            ApiError::new(ErrorCode::DeadlineExceeded, format!("no answer to {tool}"))
        })?;
        let took = began.elapsed();
        let line = answer.map_err(failed("hear an agent's server"))?.unwrap_or_default();
        let answer: Value = serde_json::from_str(&line).unwrap_or_default();
        if answer.pointer("/result/structuredContent/success") == Some(&Value::Bool(true)) {
            return Ok(took);
        }
        let shown: String = line.chars().take(300).collect();
        Err(ApiError::new(ErrorCode::Internal, format!("{tool} failed for an agent: {shown}")))
    }

    /// Looks at things in turn; returns how long each call took.
    async fn look(&mut self, times: usize) -> Result<Vec<Duration>, ApiError> {
        let mut took = Vec::with_capacity(times);
        for tool in READS.iter().cycle().take(times) {
            took.push(self.call(tool, &json!({})).await?);
        }
        Ok(took)
    }

    async fn end(mut self) -> Result<(), ApiError> {
        drop(self.input);
        self.server.wait().await.map(drop).map_err(failed("end an agent's server"))
    }
}

/// Returns the time per call where so many took so long in all.
fn each(elapsed: Duration, calls: &[Duration]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few thousand calls")]
    let count = calls.len() as f64;
    ms(elapsed) / count
}

/// Returns how much memory a process has resident, in MB.
fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}

fn all_ms(times: &[Duration]) -> Vec<f64> {
    times.iter().copied().map(ms).collect()
}

impl Bench<'_> {
    /// Returns this program, in this home.
    fn program(&self) -> Result<Command, ApiError> {
        let mut command =
            Command::new(std::env::current_exe().map_err(failed("find this program"))?);
        command.env("PANDO_HOME", &self.options.scratch).stderr(Stdio::null());
        Ok(command)
    }

    pub(super) async fn agents(&self) -> Figures {
        self.vm(NAME, 512).await?;
        let runs = self.options.runs * 20;

        let mut one = Agent::start(self.program()?)?;
        let run = json!({"address": NAME, "argv": ["true"]});
        for _ in 0..20 {
            one.call("exec_run", &run).await?;
        }
        let mut execs = Vec::new();
        for _ in 0..runs {
            execs.push(one.call("exec_run", &run).await?);
        }
        one.look(READS.len() * 5).await?;
        let alone = one.look(runs).await?;

        let mut agents = Vec::new();
        for _ in 0..AGENTS {
            let mut agent = Agent::start(self.program()?)?;
            agent.look(READS.len()).await?;
            agents.push(agent);
        }
        let mut looking = JoinSet::new();
        let times = self.options.runs * READS.len();
        let began = Instant::now();
        for mut agent in agents {
            looking.spawn(async move { agent.look(times).await.map(|took| (agent, took)) });
        }
        let looked: Result<Vec<_>, ApiError> = looking.join_all().await.into_iter().collect();
        let elapsed = began.elapsed();
        let mut together = Vec::new();
        for (agent, took) in looked? {
            together.extend(took);
            agent.end().await?;
        }
        one.end().await?;

        let mut processes = Vec::new();
        for _ in 0..self.options.runs * 2 {
            let began = Instant::now();
            let mut command = self.program()?;
            let status = command.args(["exec", NAME, "--", "true"]).status().await;
            if !status.map_err(failed("run pando exec"))?.success() {
                return Err(ApiError::new(ErrorCode::Internal, "pando exec failed"));
            }
            processes.push(ms(began.elapsed()));
        }

        let status: SystemStatusResult = self.session.ask("system_status", json!({})).await?;
        let idle = resident_mb(status.pid);
        let crowd = Figure::new("a read by one of 32 agents", "ms", None, all_ms(&together));
        let tail = Figure {
            name: "a read by one of 32 agents, 99th percentile".into(),
            promised: Some(20.0),
            median: crowd.p99,
            ..crowd
        };
        Ok(vec![
            Figure::new("exec of `true` through MCP", "ms", Some(6.0), all_ms(&execs)),
            Figure::new("exec of `true`, a whole `pando` process", "ms", Some(20.0), processes),
            Figure::new("a read through MCP", "ms", Some(0.5), all_ms(&alone)),
            tail,
            Figure::new(
                "time per read of 32 agents, against one agent",
                "x",
                Some(1.0),
                vec![each(elapsed, &together) / each(alone.iter().sum(), &alone)],
            ),
            Figure::new(
                "memory of the daemon, when all of that is done (RSS)",
                "MB",
                Some(35.0),
                vec![idle],
            ),
        ])
    }
}
