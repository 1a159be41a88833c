//! `vm_list` and `vm_status`: intent from the records, fact from the host.

use std::time::Duration;

use pando_api::Caller;
use pando_api::machine::{
    Health, Network, Resources, VmListParams, VmListResult, VmRow, VmStatusParams, VmStatusResult,
};
use pando_driver::host::{NodeEnd, NodeObservation, Observation};
use pando_driver::store::Query;
use pando_model::guest::GuestFacts;
use pando_model::{Branch, BranchId, BranchState, Cluster, Image, Name, NodeDef};
use tokio::time::timeout;

use super::images::gib;
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::incarnation::macs;
use crate::paging::page;
use crate::recovery::why_stopped;
use crate::resolve::vm_id;

/// How long a status waits for a guest: longer than most take on a busy host, far less than one that
/// hangs.
const GUEST_GLANCE: Duration = Duration::from_secs(5);

fn has_label(cluster: &Cluster, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => cluster.labels.get(key).is_some_and(|own| own == value),
        None => cluster.labels.contains_key(label),
    }
}

fn health(branch: &Branch, seen: Option<&Observation>, facts: Option<&GuestFacts>) -> Health {
    match (seen.map(|seen| seen.state), facts) {
        (None, _) if branch.state == BranchState::Running => Health::Unreachable,
        (None | Some(BranchState::Stopped), _) => Health::Stopped,
        (Some(BranchState::Paused), _) => Health::Paused,
        (Some(BranchState::Running), None) => Health::Unreachable,
        (Some(BranchState::Running), Some(facts)) if facts.failed_services.is_empty() => {
            Health::Healthy
        }
        (Some(BranchState::Running), Some(_)) => Health::Degraded,
    }
}

fn resources(
    def: &NodeDef,
    seen: Option<&Observation>,
    node: Option<&NodeObservation>,
) -> Resources {
    Resources {
        vcpus: def.shape.vcpus,
        memory_mib: def.shape.memory.mib(),
        disk_gib: gib(def.shape.disk),
        host_memory_bytes: node.and_then(|node| node.memory_used).map(|bytes| bytes.0),
        keeper_memory_bytes: seen.and_then(|seen| seen.keeper_memory).map(|bytes| bytes.0),
        keeper_cpu_ms: seen.map(|seen| seen.keeper_cpu_ms),
        host_disk_bytes: node.map(|node| node.disk_used.0),
        cpu_ms: node.map(|node| node.cpu_ms),
    }
}

fn reason(branch: &Branch, seen: Option<&Observation>, ends: &[NodeEnd]) -> Option<String> {
    if let Some(why) = &branch.stopped_because {
        return Some(why.clone());
    }
    let ended = seen.and_then(|seen| {
        let why = |node: &NodeObservation| node.ended.as_ref().map(|end| end.why.clone());
        seen.nodes.iter().find_map(|node| why(node).or_else(|| node.trouble.clone()))
    });
    match (ended, seen) {
        (Some(why), _) => Some(why),
        (None, None) if branch.state != BranchState::Stopped => Some(why_stopped(branch, ends)),
        _ => None,
    }
}

impl Engine {
    async fn image_label(&self, def: &NodeDef) -> Result<String> {
        let image: Option<Image> = self.store.get(def.image.as_str()).await?;
        Ok(image.map_or_else(|| def.image.to_string(), |image| image.name.to_string()))
    }

    pub(super) async fn vm_list(
        &self,
        caller: &Caller,
        params: VmListParams,
    ) -> Result<VmListResult> {
        let query = Query { name_prefix: params.name_prefix, ..Query::all() };
        let clusters: Vec<Cluster> = self.store.list(&query).await?;
        let image = match &params.image {
            Some(image) => Some(self.image_named(image).await?.id),
            None => None,
        };
        let mut rows = Vec::new();
        for cluster in clusters {
            if !params.label.as_ref().is_none_or(|label| has_label(&cluster, label)) {
                continue;
            }
            let branches = self.branches_of(&cluster.id).await?;
            let current = self.current(&caller.principal, &cluster).await.ok();
            let Some(branch) = current.or_else(|| branches.first().cloned()) else { continue };
            if params.state.is_some_and(|state| branch.state != state) {
                continue;
            }
            let running = branches.iter().filter(|b| b.state == BranchState::Running).count();
            let fits = |def: &&NodeDef| image.as_ref().is_none_or(|image| def.image == *image);
            for def in cluster.nodes.iter().filter(fits) {
                rows.push(VmRow {
                    vm_id: vm_id(&cluster, &branch, &def.name),
                    cluster_id: cluster.id.clone(),
                    name: cluster.name.clone(),
                    node: def.name.clone(),
                    branch: branch.name.clone(),
                    branch_id: branch.id.clone(),
                    state: branch.state,
                    branches: u32::try_from(branches.len()).unwrap_or(u32::MAX),
                    running: u32::try_from(running).unwrap_or(u32::MAX),
                    image: self.image_label(def).await?,
                    vcpus: def.shape.vcpus,
                    memory_mib: def.shape.memory.mib(),
                    disk_gib: gib(def.shape.disk),
                    labels: cluster.labels.clone(),
                    created_at: cluster.created_at,
                    created_by: cluster.created_by.clone(),
                });
            }
        }
        rows.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
        let cursor = params.cursor.as_deref();
        let key = |row: &VmRow| format!("{}/{}", row.cluster_id, row.node);
        let (vms, page) = page(rows, params.limit, cursor, key)?;
        Ok(VmListResult { vms, page })
    }

    pub(super) async fn vm_status(
        &self,
        caller: &Caller,
        params: VmStatusParams,
    ) -> Result<VmStatusResult> {
        let target = self.target(&caller.principal, params.address.as_ref()).await?;
        let (cluster, branch) = (&target.place.cluster, &target.place.branch);
        let def = cluster.nodes.iter().find(|def| def.name == target.node);
        let def = def.ok_or_else(|| Failure::not_found("node", target.node.as_str()))?;
        let seen = self.host.measure(&branch.host_id).await?;
        let state = seen.as_ref().map_or(BranchState::Stopped, |seen| seen.state);
        if state != branch.state {
            self.reconcile_soon();
        }
        let ends: Vec<NodeEnd> = match &seen {
            Some(_) => Vec::new(),
            None => self.host.ends(&branch.host_id).await?.into_values().collect(),
        };
        let node = seen.as_ref().and_then(|seen| seen.nodes.iter().find(|n| n.name == def.name));
        let (facts, silent) = match state {
            // A guest that does not answer is a finding here, not an error.
            BranchState::Running => match self.glance(&branch.host_id, &target.node).await {
                Ok(facts) => (Some(facts), None),
                Err(why) => (None, Some(why)),
            },
            BranchState::Paused | BranchState::Stopped => (None, None),
        };
        let accelerator = node.and(seen.as_ref()).and_then(|seen| seen.accelerator);
        let facts_of = |list: fn(&GuestFacts) -> &Vec<String>| {
            facts.as_ref().map(|facts| list(facts).clone()).unwrap_or_default()
        };
        Ok(VmStatusResult {
            vm_id: vm_id(cluster, branch, &target.node),
            cluster_id: cluster.id.clone(),
            branch_id: branch.id.clone(),
            name: cluster.name.clone(),
            branch: branch.name.clone(),
            node: target.node.clone(),
            address: format!("{}@{}/{}", cluster.name, branch.name, target.node),
            state,
            intended: branch.state,
            reason: reason(branch, seen.as_ref(), &ends).or(silent),
            health: health(branch, seen.as_ref(), facts.as_ref()),
            uptime_ms: node.map_or(0, |node| node.up_ms),
            services: facts_of(|facts| &facts.services),
            failed_services: facts_of(|facts| &facts.failed_services),
            resources: resources(def, seen.as_ref(), node),
            network: Network {
                macs: macs(cluster, &target.node),
                interfaces: facts.as_ref().map(|f| f.interfaces.clone()).unwrap_or_default(),
                uplink: cluster.uplink,
            },
            branches: u32::try_from(self.branches_of(&cluster.id).await?.len()).unwrap_or(0),
            image: self.image_label(def).await?,
            commit_id: branch.head.clone(),
            accelerator,
            generation: branch.generation,
            labels: cluster.labels.clone(),
            guest: facts.filter(|_| params.verbose),
            created_at: cluster.created_at,
            created_by: cluster.created_by.clone(),
        })
    }

    /// Asks a guest what it is, as long as a status has time for one that hangs.
    pub(crate) async fn glance(
        &self,
        branch: &BranchId,
        node: &Name,
    ) -> std::result::Result<GuestFacts, String> {
        match timeout(GUEST_GLANCE, self.host.facts(branch, node)).await {
            Ok(facts) => facts.map_err(|error| error.to_string()),
            Err(_) => Err(format!("its guest has not answered for {} s", GUEST_GLANCE.as_secs())),
        }
    }
}
