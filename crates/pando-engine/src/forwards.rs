//! Ports of this host that lead to nodes, where a topology names them. One program listens on a port, so
//! the branch that the definition made has them while it runs; every other branch gets free ones.

use std::collections::BTreeSet;

use pando_driver::host::HostError;
use pando_driver::store::Query;
use pando_model::{Branch, BranchRole, BranchState, Cluster, ErrorCode};
use pando_topology::{Forward, Topology};

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::topologies;

/// Whether the fixed ports of its cluster are a branch's.
fn has_fixed_ports(branch: &Branch) -> bool {
    branch.parent.is_none() && branch.role == BranchRole::Live
}

/// Returns the forwards of a branch that have a fixed port.
fn fixed(cluster: &Cluster, branch: &Branch) -> Result<Vec<Forward>> {
    if !has_fixed_ports(branch) {
        return Ok(Vec::new());
    }
    let forwards = topologies::of(cluster)?.map(|topology| topology.forwards).unwrap_or_default();
    Ok(forwards.into_iter().filter(|forward| forward.host_port.is_some()).collect())
}

fn ports(forwards: &[Forward]) -> Vec<u16> {
    forwards.iter().filter_map(|forward| forward.host_port).collect()
}

/// Returns what a definition says of its fixed ports, if it has any.
pub(crate) fn note(topology: &Topology) -> Option<String> {
    let ports = ports(&topology.forwards);
    let listed: Vec<String> = ports.iter().map(ToString::to_string).collect();
    (!ports.is_empty()).then(|| {
        format!(
            "forwards: {} of this host: those of {}@main while it runs; other branches get free ports, \
             which `pando cluster handle` tells",
            listed.join(", "),
            topology.name
        )
    })
}

impl Engine {
    /// Refuses a start whose fixed ports are not free.
    pub(crate) async fn check_ports(&self, cluster: &Cluster, branch: &Branch) -> Result<()> {
        let ports = ports(&fixed(cluster, branch)?);
        if ports.is_empty() {
            return Ok(());
        }
        match self.host.check_ports(&ports).await {
            Err(HostError::PortTaken { port }) => Err(self.port_taken(cluster, port).await?),
            result => Ok(result?),
        }
    }

    /// Returns the error for a port that is taken, with who has it if it is one of ours.
    async fn port_taken(&self, cluster: &Cluster, port: u16) -> Result<Failure> {
        let failure = Failure::from(HostError::PortTaken { port }).subject(port.to_string());
        let running: Vec<Branch> = self.store.list(&Query::all()).await?;
        let running: BTreeSet<_> = running
            .into_iter()
            .filter(|branch| has_fixed_ports(branch) && branch.state != BranchState::Stopped)
            .map(|branch| branch.cluster)
            .collect();
        let clusters: Vec<Cluster> = self.store.list(&Query::all()).await?;
        for other in clusters.iter().filter(|other| other.id != cluster.id) {
            let forwards = topologies::of(other)?.map(|topology| topology.forwards);
            if running.contains(&other.id) && ports(&forwards.unwrap_or_default()).contains(&port) {
                let name = &other.name;
                return Ok(failure.hint(format!(
                    "`{name}` listens there: `pando cluster stop {name}`, or write another \
                     `host_port` in the topology"
                )));
            }
        }
        Ok(failure)
    }

    /// Opens the fixed ports of a running branch, unless they are open.
    ///
    /// # Errors
    /// `in_use` when one was taken since it was looked at.
    pub(crate) async fn open_ports(&self, cluster: &Cluster, branch: &Branch) -> Result<()> {
        for forward in fixed(cluster, branch)? {
            let Forward { host_port, node, guest_port } = forward;
            self.host.forward(&branch.host_id, &node, guest_port, host_port).await?;
        }
        Ok(())
    }

    /// Opens the fixed ports of a branch whose former incarnation had them. One that another program
    /// took in between is no reason to stay half-way: `cluster_handle` tries again.
    pub(crate) async fn reopen_ports(&self, cluster: &Cluster, branch: &Branch) -> Result<()> {
        match self.open_ports(cluster, branch).await {
            Err(failure) if failure.0.code == ErrorCode::InUse => {
                tracing::warn!(error = %failure.0, "a port of this host is lost");
                Ok(())
            }
            result => result,
        }
    }

    /// Opens a forward of a running branch and returns its port: its fixed one if that is the
    /// branch's and free.
    pub(crate) async fn open_forward(&self, branch: &Branch, forward: &Forward) -> Result<u16> {
        let wanted = forward.host_port.filter(|_| has_fixed_ports(branch));
        let open =
            |port| self.host.forward(&branch.host_id, &forward.node, forward.guest_port, port);
        match open(wanted).await {
            Err(HostError::PortTaken { .. }) => Ok(open(None).await?),
            result => Ok(result?),
        }
    }
}
