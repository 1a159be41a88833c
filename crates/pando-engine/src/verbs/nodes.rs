//! `node_*`: one node of a cluster, or several at once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use pando_api::exec::{ExecRunParams, ExecRunResult};
use pando_api::node::{
    NodeCrashParams, NodeExecAllParams, NodeExecAllResult, NodeExecParams, NodeExecResult,
};
use pando_api::{ApiError, Caller};
use pando_model::{Address, BranchState, ErrorCode, Name};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::exec::{ended_by, shared_out};
use super::{Planned, now_us};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::operation::Plan;
use crate::ops::node_crash::NodeCrash;
use crate::resolve::{Place, Target};

/// Most characters of what a failed command wrote that stand for its failure.
const MAX_WORDS: usize = 200;

fn command(line: String, timeout_s: u64, max_output_bytes: u64) -> ExecRunParams {
    ExecRunParams {
        address: None,
        command: Some(line),
        argv: Vec::new(),
        stdin: None,
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        timeout_s,
        max_output_bytes,
        detach: false,
    }
}

fn outcome(ran: ExecRunResult) -> NodeExecResult {
    NodeExecResult { duration_s: ran.duration_ms / 1000.0, outcome: ran }
}

/// Returns why a command counts as failed.
fn why_failed(ran: &ExecRunResult) -> Option<String> {
    let words: String = ran.stderr.trim().chars().take(MAX_WORDS).collect();
    match (ran.exit_code, ended_by(ran)) {
        (Some(0), _) => None,
        (Some(code), _) if words.is_empty() => Some(format!("it exited with {code}")),
        (Some(code), _) => Some(format!("it exited with {code}: {words}")),
        (None, why) => Some(why.unwrap_or_else(|| "it did not end".to_owned())),
    }
}

impl Engine {
    /// Returns a node of a branch.
    pub(super) async fn node_target(
        &self,
        caller: &Caller,
        cluster: &Address,
        node: &Name,
    ) -> Result<Target> {
        if let Some(named) = cluster.node.as_ref().filter(|named| *named != node) {
            let message = format!("`{cluster}` names the node `{named}`, and the call `{node}`");
            return Err(ApiError::parameter("cluster_name", message).into());
        }
        let address = Address { node: Some(node.clone()), ..cluster.clone() };
        self.target(&caller.principal, Some(&address)).await
    }

    pub(super) async fn node_exec(
        &self,
        caller: &Caller,
        params: NodeExecParams,
        cancel: &CancellationToken,
    ) -> Result<NodeExecResult> {
        let target = self.node_target(caller, &params.cluster_name, &params.node_name).await?;
        let one = command(params.command, params.timeout_s, params.max_output_bytes);
        self.exec_in(caller, &target, &one, cancel).await.map(outcome)
    }

    /// Returns the branch and the nodes of it that a command is to run on.
    pub(super) async fn nodes_to_run_on(
        &self,
        caller: &Caller,
        params: &NodeExecAllParams,
    ) -> Result<(Place, Vec<Name>)> {
        let place = self.whole(caller, Some(&params.cluster_name)).await?;
        self.must_run(&place)?;
        let nodes = self.wanted_nodes(&place, &params.nodes)?;
        if params.require_all {
            self.all_run(&place, &nodes).await?;
        }
        Ok((place, nodes))
    }

    pub(super) async fn node_exec_all(
        &self,
        caller: &Caller,
        params: NodeExecAllParams,
        cancel: &CancellationToken,
    ) -> Result<NodeExecAllResult> {
        let began = Instant::now();
        let (place, nodes) = self.nodes_to_run_on(caller, &params).await?;
        let max_output_bytes = shared_out(params.max_output_bytes, nodes.len());
        let one = command(params.command, params.timeout_s, max_output_bytes);
        let (one, place) = (&one, &place);
        let runs = nodes.into_iter().map(|node| async move {
            let target = Target { place: place.clone(), node: node.clone() };
            (node, self.exec_in(caller, &target, one, cancel).await)
        });
        let width = pando_model::limits::MAX_NODES;
        let ran: Vec<_> = futures_util::stream::iter(runs).buffer_unordered(width).collect().await;
        let (mut results, mut failed_nodes) = (BTreeMap::new(), BTreeMap::new());
        for (node, result) in ran {
            let (ran, why) = match result {
                Ok(ran) => {
                    let why = why_failed(&ran);
                    (ran, why)
                }
                Err(failure) => (ExecRunResult::default(), Some(failure.0.message)),
            };
            failed_nodes.extend(why.map(|why| (node.clone(), why)));
            results.insert(node, outcome(ran));
        }
        Ok(NodeExecAllResult {
            all_succeeded: failed_nodes.is_empty(),
            results,
            failed_nodes,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Returns the nodes of a branch that are named, or all.
    fn wanted_nodes(&self, place: &Place, named: &[Name]) -> Result<Vec<Name>> {
        let there: Vec<Name> = place.branch.nodes.iter().map(|node| node.name.clone()).collect();
        if let Some(unknown) = named.iter().find(|name| !there.contains(name)) {
            let names: Vec<&str> = there.iter().map(Name::as_str).collect();
            return Err(Failure::not_found("node", unknown.as_str()).hint(format!(
                "{} has {}",
                place.address(),
                names.join(", ")
            )));
        }
        Ok(there.into_iter().filter(|name| named.is_empty() || named.contains(name)).collect())
    }

    /// Refuses nodes whose machines do not run, before anything is run anywhere.
    async fn all_run(&self, place: &Place, nodes: &[Name]) -> Result<()> {
        let seen = self.host.observe(&place.branch.host_id).await?;
        let down = seen.into_iter().flat_map(|seen| seen.nodes);
        let mut down =
            down.filter(|node| node.state != BranchState::Running && nodes.contains(&node.name));
        let Some(node) = down.next() else { return Ok(()) };
        let address = format!("{}/{}", place.address(), node.name);
        let why = node.ended.map(|end| format!(": {}", end.why)).unwrap_or_default();
        Err(Failure::new(ErrorCode::WrongState, format!("{address} does not run{why}"))
            .subject(address)
            .hint(format!(
                "`pando cluster start {}` boots it; `require_all: false` runs it on the others",
                place.address()
            )))
    }

    pub(super) async fn plan_node_crash(
        &self,
        caller: &Caller,
        params: NodeCrashParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let target = self.node_target(caller, &params.cluster_name, &params.node).await?;
        let locks = NodeCrash::locks_for(&target.place.cluster, &target.place.branch);
        let guard = self.hold(locks, "node_crash").await?;
        let place = self.again(target.place).await?;
        self.must_run(&place)?;
        let target = Target { place, node: target.node };
        let noted = self.journal(caller, "control", &target, "crash")?;
        let Place { cluster, branch } = target.place;
        let ssh = params.restart_after && params.wait_for_ssh;
        let kind = NodeCrash {
            cluster,
            branch,
            node: target.node,
            restart: params.restart_after,
            ssh_timeout_ms: ssh.then_some(params.ssh_timeout_s * 1000),
            started_us,
            journal: Some(noted.leave_open()),
            crashed: false,
            status: None,
        };
        let timeout = self.config.first_boot_timeout
            + Duration::from_secs(params.ssh_timeout_s)
            + self.config.undo_timeout;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }
}
