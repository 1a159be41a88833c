//! What a cluster's nodes do: as recorded, as seen by the host, and as their SSH servers answer.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use pando_api::Caller;
use pando_api::cluster::{ClusterStatusParams, ClusterStatusResult, DomainState, NodeStatus};
use pando_driver::HostError;
use pando_driver::host::{EndKind, NodeEnd, Observation, Patience};
use pando_model::{Branch, BranchState, Cluster, ErrorCode, Name, NodeDef, network};

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::network::working;
use crate::resolve::Place;
use crate::topologies;

/// Where a node's SSH server listens.
pub(super) const SSH_PORT: u16 = 22;
/// What an SSH server says first (RFC 4253, section 4.2).
const SSH_GREETING: &[u8] = b"SSH-";
/// How long a status waits for an SSH server.
const SSH_GLANCE: Duration = Duration::from_secs(2);

/// Branches of a cluster, and how many of them run.
pub(crate) type Counts = (u32, u32);

pub(super) fn ip_of(cluster: &Cluster, def: &NodeDef) -> String {
    let first = def.interfaces.first();
    let own = first.and_then(|own| {
        own.address.map(|ip| ip.to_string()).or_else(|| own.address6.map(|ip| ip.to_string()))
    });
    match own {
        Some(ip) => ip,
        None if cluster.networks.is_empty() && def.shape.nics > 0 => network::ADDRESS.to_string(),
        None => String::new(),
    }
}

fn node_status(cluster: &Cluster, def: &NodeDef, domain_state: DomainState) -> NodeStatus {
    NodeStatus {
        name: def.name.clone(),
        role: def.role.clone(),
        ip: ip_of(cluster, def),
        domain_state,
        answers: domain_state == DomainState::Running,
        ssh_reachable: false,
        failed_services: Vec::new(),
        reason: None,
    }
}

/// Returns the status of a node that does not run.
pub(crate) fn off(cluster: &Cluster, def: &NodeDef) -> NodeStatus {
    node_status(cluster, def, DomainState::ShutOff)
}

fn ended(end: &NodeEnd) -> DomainState {
    match end.kind {
        EndKind::PoweredOff => DomainState::ShutOff,
        EndKind::Crashed => DomainState::Crashed,
    }
}

/// Returns the status of a branch whose nodes do this.
pub(crate) fn status(
    cluster: &Cluster,
    branch: &Branch,
    (branches, running_branches): Counts,
    nodes: Vec<NodeStatus>,
) -> ClusterStatusResult {
    ClusterStatusResult {
        cluster_name: cluster.name.clone(),
        cluster_id: cluster.id.clone(),
        address: format!("{}@{}", cluster.name, branch.name),
        branch_id: branch.id.clone(),
        state: branch.state,
        generation: branch.generation,
        commit_id: branch.head.clone(),
        fresh: branch.fresh,
        network_active: branch.state == BranchState::Running && !cluster.networks.is_empty(),
        active_faults: u32::try_from(working(&branch.faults, Timestamp::now()).len())
            .unwrap_or(u32::MAX),
        nodes,
        branches,
        running_branches,
    }
}

/// Returns the status of a branch that does not run.
pub(crate) fn resting(cluster: &Cluster, branch: &Branch, counts: Counts) -> ClusterStatusResult {
    let nodes = cluster.nodes.iter().map(|def| off(cluster, def)).collect();
    status(cluster, branch, counts, nodes)
}

/// Returns the status of a branch all of whose nodes answer; over SSH too if that was seen.
pub(crate) fn running(
    cluster: &Cluster,
    branch: &Branch,
    counts: Counts,
    ssh: bool,
) -> ClusterStatusResult {
    let node = |def: &NodeDef| NodeStatus {
        ssh_reachable: ssh && has_network(def),
        ..node_status(cluster, def, DomainState::Running)
    };
    status(cluster, branch, counts, cluster.nodes.iter().map(node).collect())
}

/// Returns what nodes were seen to do at the end of a start, in which all that run answered; `ssh` says on
/// which of them SSH did.
pub(crate) fn seen_running(
    cluster: &Cluster,
    seen: &Observation,
    ssh: impl Fn(&NodeDef) -> bool,
) -> Vec<NodeStatus> {
    let node = |def: &NodeDef| {
        let mut status = seen_node(cluster, def, seen);
        let runs = status.domain_state == DomainState::Running;
        status.ssh_reachable = runs && has_network(def) && ssh(def);
        status
    };
    cluster.nodes.iter().map(node).collect()
}

/// Returns what a node's machine was seen to do; nothing is asked of its guest.
fn seen_node(cluster: &Cluster, def: &NodeDef, seen: &Observation) -> NodeStatus {
    let Some(node) = seen.nodes.iter().find(|node| node.name == def.name) else {
        return node_status(cluster, def, DomainState::Unknown);
    };
    let state = match (node.state, &node.ended) {
        (BranchState::Running, _) => DomainState::Running,
        (BranchState::Paused, _) => DomainState::Paused,
        (BranchState::Stopped, end) => end.as_ref().map_or(DomainState::Crashed, ended),
    };
    let why = node.ended.as_ref().map(|end| end.why.clone());
    NodeStatus { reason: why.or_else(|| node.trouble.clone()), ..node_status(cluster, def, state) }
}

/// Returns whether a node has an interface for an SSH client to come in by. The way is the guest
/// channel's, but without a network there is no server either.
fn has_network(def: &NodeDef) -> bool {
    def.shape.nics > 0
}

/// Waits until an SSH server answers on every node of a branch.
pub(crate) async fn ssh_answers(
    engine: &Engine,
    cluster: &Cluster,
    branch: &Branch,
    timeout: Duration,
) -> Result<()> {
    let missing = ssh_missing(engine, cluster, branch, timeout).await;
    let mut failed = missing.into_iter().map(|(_, failure)| failure);
    let Some(Failure(mut first)) = failed.next() else { return Ok(()) };
    for Failure(other) in failed {
        first.message = format!("{}; {}", first.message, other.message);
    }
    Err(Failure(first))
}

/// Waits until an SSH server answers on every node of a branch, and returns the nodes on which none
/// does.
pub(crate) async fn ssh_missing(
    engine: &Engine,
    cluster: &Cluster,
    branch: &Branch,
    timeout: Duration,
) -> Vec<(Name, Failure)> {
    let nodes = cluster.nodes.iter().filter(|def| has_network(def));
    let asks = nodes.map(|def| async move {
        let answered = ssh_answers_on(engine, cluster, branch, &def.name, timeout).await;
        answered.err().map(|failure| (def.name.clone(), failure))
    });
    join_all(asks).await.into_iter().flatten().collect()
}

/// Waits until an SSH server answers on a node.
pub(crate) async fn ssh_answers_on(
    engine: &Engine,
    cluster: &Cluster,
    branch: &Branch,
    node: &Name,
    timeout: Duration,
) -> Result<()> {
    let address = format!("{}@{}/{node}", cluster.name, branch.name);
    let each = Duration::from_secs(u64::from(topologies::ssh(cluster)?.connect_timeout_s));
    let patience = Patience { each, total: timeout };
    let greeted = engine.host.greeting(&branch.host_id, node, SSH_PORT, patience).await;
    let failed = |why: String| {
        Failure::new(
            ErrorCode::DeadlineExceeded,
            format!("no SSH server answers on {address}: {why}"),
        )
        .subject(address.clone())
        .hint(
            "give a longer `ssh_timeout_s`; or `wait_for_ssh: false`: commands need no SSH, \
                 and `pando console` shows what the node does",
        )
    };
    match greeted {
        Ok(bytes) if bytes.starts_with(SSH_GREETING) => Ok(()),
        Ok(bytes) => {
            let words: String = String::from_utf8_lossy(&bytes).chars().take(40).collect();
            Err(failed(format!("port {SSH_PORT} says `{}`", words.trim_end())))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

impl Engine {
    pub(super) async fn branch_counts(&self, cluster: &Cluster) -> Result<Counts> {
        let branches = self.branches_of(&cluster.id).await?;
        let running = branches.iter().filter(|branch| branch.state == BranchState::Running);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok((count(branches.len()), count(running.count())))
    }

    pub(in crate::verbs) async fn cluster_status(
        &self,
        caller: &Caller,
        params: ClusterStatusParams,
    ) -> Result<ClusterStatusResult> {
        let place = self.whole(caller, params.cluster_name.as_ref()).await?;
        self.status_now(&place).await
    }

    /// Returns what a branch and its nodes do now.
    pub(super) async fn status_now(&self, place: &Place) -> Result<ClusterStatusResult> {
        let (cluster, branch) = (&place.cluster, &place.branch);
        let seen = match self.host.observe(&branch.host_id).await {
            Err(error @ HostError::KeeperLost { .. }) => {
                let node = |def: &NodeDef| NodeStatus {
                    reason: Some(error.to_string()),
                    ..node_status(cluster, def, DomainState::Unknown)
                };
                let nodes = cluster.nodes.iter().map(node).collect();
                return Ok(status(cluster, branch, self.branch_counts(cluster).await?, nodes));
            }
            seen => seen?,
        };
        let state = seen.as_ref().map_or(BranchState::Stopped, |seen| seen.state);
        if state != branch.state {
            self.reconcile_soon();
        }
        let asks =
            cluster.nodes.iter().map(|def| self.look_at(cluster, branch, def, seen.as_ref()));
        let nodes = join_all(asks).await;
        let mut result = status(cluster, branch, self.branch_counts(cluster).await?, nodes);
        result.state = state;
        result.network_active = state == BranchState::Running && !cluster.networks.is_empty();
        if result.network_active
            && let Ok(observed) = self.host.network(&branch.host_id).await
        {
            result.active_faults = u32::try_from(observed.faults.len()).unwrap_or(u32::MAX);
        }
        Ok(result)
    }

    /// Returns the state of a node of a branch without a keeper, and why it is that.
    async fn down(&self, branch: &Branch, node: &Name) -> (DomainState, Option<String>) {
        let because = branch.stopped_because.clone();
        if branch.state == BranchState::Stopped && because.is_none() {
            return (DomainState::ShutOff, None);
        }
        match self.host.ends(&branch.host_id).await.ok().and_then(|mut ends| ends.remove(node)) {
            Some(end) => (ended(&end), Some(end.why)),
            None if branch.powered_off => (DomainState::ShutOff, because),
            None => {
                (DomainState::Crashed, because.or_else(|| Some("its keeper was lost".to_owned())))
            }
        }
    }

    /// Looks at one node: its machine, its guest program, its SSH server.
    pub(crate) async fn look_at(
        &self,
        cluster: &Cluster,
        branch: &Branch,
        def: &NodeDef,
        seen: Option<&Observation>,
    ) -> NodeStatus {
        let is_there = |seen: &&Observation| seen.nodes.iter().any(|node| node.name == def.name);
        let Some(seen) = seen.filter(is_there) else {
            let (state, reason) = self.down(branch, &def.name).await;
            return NodeStatus { reason, ..node_status(cluster, def, state) };
        };
        let mut status = seen_node(cluster, def, seen);
        let state = status.domain_state;
        if state == DomainState::Running {
            let host_id = &branch.host_id;
            let ssh = async {
                has_network(def)
                    && ssh_answers_on(self, cluster, branch, &def.name, SSH_GLANCE).await.is_ok()
            };
            let (facts, ssh) = tokio::join!(self.glance(host_id, &def.name), ssh);
            (status.answers, status.ssh_reachable) = (facts.is_ok(), ssh);
            match facts {
                Ok(facts) => status.failed_services = facts.failed_services,
                Err(why) => status.reason = status.reason.or(Some(why)),
            }
        }
        status
    }
}
