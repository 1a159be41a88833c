//! Commands in guests: `exec_run`, `exec_fanout`, and attached ones.

use std::time::Duration;

use futures_util::StreamExt;
use pando_api::exec::{
    ExecFanoutParams, ExecFanoutResult, ExecRunParams, ExecRunResult, FanoutRow,
};
use pando_api::{AttachIo, AttachRequest, Call, Caller};
use pando_driver::host::ExecIo;
use pando_model::guest::{Command, ExecOutcome, ExecSpec, Stdin};
use pando_model::{Address, BranchState, limits};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Planned, json};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::locks::LockSet;
use crate::operation::Plan;
use crate::ops::exec::Exec;
use crate::output::Bound;
use crate::resolve::Target;

/// Branches that one fan-out runs in at the same time; more only wait for the processors.
const FANOUT_WIDTH: usize = 64;
/// Most bytes of output in one answer for several nodes: JSON may make six of each, and clients take 32 MiB.
const MAX_TOGETHER_BYTES: u64 = 2 << 20;
/// What an operation may take longer than its command's own timeout.
const MARGIN: Duration = Duration::from_secs(30);
/// A login shell, as the guest's user has it.
const LOGIN_SHELL: [&str; 2] = ["/bin/sh", "-l"];

impl Target {
    /// Returns the environment of commands in this node: its own, then the call's.
    fn env(
        &self,
        own: std::collections::BTreeMap<String, String>,
    ) -> std::collections::BTreeMap<String, String> {
        let def = self.place.cluster.nodes.iter().find(|def| def.name == self.node);
        let mut env = def.map(|def| def.env.clone()).unwrap_or_default();
        env.extend(own);
        env
    }
}

fn spec_of(target: &Target, params: &ExecRunParams) -> ExecSpec {
    ExecSpec {
        command: params.command(),
        env: target.env(params.env.clone()),
        cwd: params.cwd.clone(),
        user: params.user.clone(),
        timeout_ms: params.timeout_s * 1000,
        terminal: None,
        stdin: if params.stdin.is_some() { Stdin::Open } else { Stdin::Empty },
    }
}

/// Returns how much of each stream is kept of commands on so many nodes, whose results are one answer.
pub(super) fn shared_out(max_output_bytes: u64, nodes: usize) -> u64 {
    let streams = u64::try_from(nodes.max(1)).unwrap_or(u64::MAX).saturating_mul(2);
    max_output_bytes.min((MAX_TOGETHER_BYTES / streams).max(1))
}

/// Returns what else than itself ended a command.
pub(crate) fn ended_by(ran: &ExecRunResult) -> Option<String> {
    match (ran.timed_out, ran.signal) {
        (true, _) => Some("timed out".to_owned()),
        (false, signal) => signal.map(|signal| format!("signal {signal}")),
    }
}

impl Engine {
    /// Runs a call's commands, until they end or are taken back, and returns its result.
    pub(crate) async fn run_commands(
        &self,
        caller: &Caller,
        call: Call,
        cancel: &CancellationToken,
    ) -> Result<Value> {
        match call {
            Call::ExecRun(params) => {
                let target = self.target(&caller.principal, params.address.as_ref()).await?;
                json(&self.exec_in(caller, &target, &params, cancel).await?)
            }
            Call::ExecFanout(params) => json(&self.exec_fanout(caller, params, cancel).await?),
            Call::NodeExec(params) => json(&self.node_exec(caller, params, cancel).await?),
            Call::NodeExecAll(params) => json(&self.node_exec_all(caller, params, cancel).await?),
            call => Err(Failure::internal(format!("{} runs no command", call.name()))),
        }
    }

    pub(super) async fn exec_in(
        &self,
        caller: &Caller,
        target: &Target,
        params: &ExecRunParams,
        cancel: &CancellationToken,
    ) -> Result<ExecRunResult> {
        self.must_run(&target.place)?;
        let spec = spec_of(target, params);
        let noted = self.journal_command(caller, target, &spec.command)?;
        let stdin = params.stdin.clone().map(String::into_bytes);
        let bound = Bound::new(params.max_output_bytes);
        let host_id = &target.place.branch.host_id;
        let result = self.run_command(host_id, &target.node, &spec, stdin, bound, cancel).await;
        match &result {
            Ok(ran) => noted.exited(ran.exit_code, ended_by(ran)),
            Err(_) => noted.ended(&result),
        }
        self.notice_loss_in(target, result)
    }

    /// Plans commands that become an operation.
    pub(super) async fn plan_exec(&self, caller: &Caller, call: Call) -> Result<Planned> {
        let (cluster, rounds, timeout_s) = match &call {
            Call::ExecRun(params) => {
                let target = self.target(&caller.principal, params.address.as_ref()).await?;
                self.must_run(&target.place)?;
                (Some(target.place.cluster.id), 1, params.timeout_s)
            }
            Call::NodeExec(params) => {
                let (cluster, node) = (&params.cluster_name, &params.node_name);
                let target = self.node_target(caller, cluster, node).await?;
                self.must_run(&target.place)?;
                (Some(target.place.cluster.id), 1, params.timeout_s)
            }
            Call::NodeExecAll(params) => {
                let (place, _) = self.nodes_to_run_on(caller, params).await?;
                (Some(place.cluster.id), 1, params.timeout_s)
            }
            Call::ExecFanout(params) => {
                let nodes = self.each_node(caller, self.fanout_branches(params).await?).await?;
                (None, nodes.len().div_ceil(FANOUT_WIDTH), params.timeout_s)
            }
            call => return Err(Failure::internal(format!("{} runs no command", call.name()))),
        };
        let early = match &call {
            Call::ExecRun(_) => json(&ExecRunResult::default())?,
            _ => Value::Null,
        };
        let guard = self.hold(LockSet::new(), call.name()).await?;
        let each = Duration::from_secs(timeout_s) + MARGIN;
        let timeout = each * u32::try_from(rounds).unwrap_or(u32::MAX);
        let kind = Exec {
            caller: caller.clone(),
            verb: call.name().to_owned(),
            params: call.params()?,
            cluster,
            reported: false,
            ended: None,
        };
        Ok(Planned { plan: Plan { kind: Box::new(kind), guard, timeout }, early })
    }

    async fn exec_fanout(
        &self,
        caller: &Caller,
        params: ExecFanoutParams,
        cancel: &CancellationToken,
    ) -> Result<ExecFanoutResult> {
        let began = Instant::now();
        let branches = self.each_node(caller, self.fanout_branches(&params).await?).await?;
        let max_output_bytes = shared_out(params.max_output_bytes, branches.len());
        let one = ExecRunParams {
            address: None,
            command: params.command,
            argv: params.argv,
            stdin: params.stdin,
            env: params.env,
            cwd: params.cwd,
            user: params.user,
            timeout_s: params.timeout_s,
            max_output_bytes,
            detach: false,
        };
        let one = &one;
        let runs = branches.into_iter().map(|address| async move {
            let result = match self.target(&caller.principal, Some(&address)).await {
                Ok(target) => self.exec_in(caller, &target, one, cancel).await,
                Err(failure) => Err(failure),
            };
            let (outcome, error) = match result {
                Ok(outcome) => (outcome, None),
                Err(failure) => (ExecRunResult::default(), Some(failure.0)),
            };
            FanoutRow { branch: address.to_string(), outcome, error }
        });
        let results: Vec<FanoutRow> =
            futures_util::stream::iter(runs).buffered(FANOUT_WIDTH).collect().await;
        let succeeded = results
            .iter()
            .filter(|row| row.error.is_none() && row.outcome.exit_code == Some(0))
            .count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        match results.iter().find_map(|row| row.error.clone()) {
            Some(error) if results.iter().all(|row| row.error.is_some()) => Err(error.into()),
            _ => Ok(ExecFanoutResult {
                succeeded: count(succeeded),
                failed: count(results.len() - succeeded),
                results,
                duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// Returns the addresses with each that names a branch of several nodes replaced by theirs.
    async fn each_node(&self, caller: &Caller, branches: Vec<Address>) -> Result<Vec<Address>> {
        let mut all = Vec::with_capacity(branches.len());
        for address in branches {
            let place = match &address.node {
                None => self.place(&caller.principal, Some(&address)).await.ok(),
                Some(_) => None,
            };
            // What names nothing is told where it would have been run.
            let nodes = place.map(|place| place.branch.nodes).unwrap_or_default();
            match nodes.as_slice() {
                [] | [_] => all.push(address),
                several => all.extend(
                    several
                        .iter()
                        .map(|node| Address { node: Some(node.name.clone()), ..address.clone() }),
                ),
            }
        }
        if all.len() > limits::MAX_FANOUT {
            let message = format!("{} nodes, at most {} at once", all.len(), limits::MAX_FANOUT);
            return Err(Failure::new(pando_model::ErrorCode::LimitExceeded, message));
        }
        Ok(all)
    }

    async fn fanout_branches(&self, params: &ExecFanoutParams) -> Result<Vec<Address>> {
        let Some(name) = &params.cluster else { return Ok(params.branches.clone()) };
        let cluster = self.cluster(name).await?;
        let running: Vec<Address> = self
            .branches_of(&cluster.id)
            .await?
            .into_iter()
            .filter(|branch| branch.state == BranchState::Running)
            .map(|branch| Address {
                cluster: cluster.name.to_string(),
                branch: Some(branch.name),
                node: None,
            })
            .collect();
        if running.len() > limits::MAX_FANOUT {
            let message =
                format!("{} branches run, at most {} at once", running.len(), limits::MAX_FANOUT);
            return Err(Failure::new(pando_model::ErrorCode::LimitExceeded, message));
        }
        if running.is_empty() {
            let message = format!("no branch of {} runs", cluster.name);
            return Err(Failure::new(pando_model::ErrorCode::WrongState, message)
                .hint(format!("`pando branches {}` shows them", cluster.name)));
        }
        Ok(running)
    }

    /// Runs a command with its streams attached.
    pub(crate) async fn attach_command(
        &self,
        caller: &Caller,
        request: AttachRequest,
        io: AttachIo,
    ) -> Result<ExecOutcome> {
        let target = self.target(&caller.principal, Some(&request.address)).await?;
        self.must_run(&target.place)?;
        let shell = || Command::Argv(LOGIN_SHELL.map(str::to_owned).to_vec());
        let timeout_s = request.timeout_s.unwrap_or(limits::MAX_EXEC_TIMEOUT_S);
        let spec = ExecSpec {
            command: request.command.unwrap_or_else(shell),
            env: target.env(request.env),
            cwd: request.cwd,
            user: request.user,
            timeout_ms: timeout_s.min(limits::MAX_EXEC_TIMEOUT_S) * 1000,
            terminal: request.terminal,
            stdin: if request.no_stdin { Stdin::Empty } else { Stdin::Open },
        };
        let noted = self.journal_command(caller, &target, &spec.command)?;
        let io = ExecIo { input: io.input, output: io.output };
        let host_id = &target.place.branch.host_id;
        let result = self.host.exec(host_id, &target.node, &spec, io).await.map_err(Failure::from);
        noted.attached(&result);
        self.notice_loss_in(&target, result)
    }

    /// Looks at a node's branch again if its keeper seems to be gone, and says of which node an error is.
    pub(super) fn notice_loss_in<T>(&self, target: &Target, result: Result<T>) -> Result<T> {
        self.notice_loss(result).map_err(|failure| failure.at(target))
    }

    /// Looks at a branch again whose keeper seems to be gone.
    pub(super) fn notice_loss<T>(&self, result: Result<T>) -> Result<T> {
        use pando_model::ErrorCode::{KeeperLost, MachineFailed, WrongState};
        if let Err(failure) = &result
            && matches!(failure.code(), KeeperLost | MachineFailed | WrongState)
        {
            self.reconcile_soon();
        }
        result
    }
}
