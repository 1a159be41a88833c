//! `cluster_*`: several nodes and their networks as one.

mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use pando_api::cluster::{
    ClusterDefineParams, ClusterDestroyParams, ClusterHandleParams, ClusterHandleResult,
    ClusterListParams, ClusterListResult, ClusterRow, ClusterStartParams, ClusterStopParams,
    NodeHandle, StopMode,
};
use pando_api::machine::Action;
use pando_api::{ApiError, Caller};
use pando_driver::store::Query;
use pando_model::branch::{BranchNode, BranchRole};
use pando_model::cluster::TopologySource;
use pando_model::{
    Branch, BranchId, BranchState, Cluster, ClusterState, Commit, ErrorCode, Image, Name, NodeDef,
};
use pando_topology::Topology;

use super::{Planned, now_us};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::forwards;
use crate::incarnation::{Disks, random_hex};
use crate::keys;
use crate::operation::Plan;
use crate::ops::cluster_define::ClusterDefine;
use crate::ops::cluster_start::{ClusterStart, How, started};
use crate::ops::control::Control;
use crate::paging::page;
use crate::resolve::Place;
use crate::topologies;

use self::status::ip_of;
pub(crate) use self::status::{
    off, resting, running, seen_running, ssh_answers, ssh_answers_on, ssh_missing, status,
};

/// Where artifacts are put in nodes; the name is vmcluster's.
const ARTIFACTS: &str = "/opt/vmcluster/artifacts";

impl Engine {
    /// Returns the images of a topology's nodes.
    async fn images_of(&self, topology: &Topology) -> Result<BTreeMap<Name, Image>> {
        let mut images = BTreeMap::new();
        for node in &topology.nodes {
            let found = self.image_named(&node.image.name).await;
            let image = found.map_err(|failure| match &node.image.file {
                Some(file) => failure.hint(format!(
                    "`pando image import --kind disk {} {file}` makes it from that file",
                    node.image.name
                )),
                None => failure,
            })?;
            images.insert(node.name.clone(), image);
        }
        Ok(images)
    }

    pub(super) async fn plan_cluster_define(
        &self,
        caller: &Caller,
        params: ClusterDefineParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let named = params.topology.or(params.topology_name);
        let (source, topology) = self.topology(named.as_deref().unwrap_or_default()).await?;
        let mut notes: Vec<String> = topology.notes.iter().map(ToString::to_string).collect();
        notes.extend(forwards::note(&topology));
        let timeout = self.config.first_boot_timeout
            * (2 + u32::try_from(topology.nodes.len()).unwrap_or(u32::MAX));
        let there: Option<Cluster> = self.store.named("", topology.name.as_str()).await?;
        let new = match there {
            Some(_) => None,
            None => {
                let (login_key, note) = self.login_key(&topology).await?;
                notes.extend(note);
                let source = TopologySource {
                    text: String::from_utf8_lossy(&source.bytes).into_owned(),
                    digest: topology.digest(),
                    ssh: self.config.ssh.clone(),
                    login_key,
                };
                Some(self.new_cluster(caller, &topology, source).await?)
            }
        };
        let locks = match &new {
            None => ClusterDefine::locks_for(&topology.name),
            Some(cluster) => ClusterDefine::locks_to_make(cluster),
        };
        let guard = self.hold(locks, "cluster_define").await?;
        // Again, under the lock.
        let there: Option<Cluster> = self.store.named("", topology.name.as_str()).await?;
        let mut kind = match (there, new) {
            (Some(cluster), _) => self.same_again(caller, cluster, &topology).await?,
            (None, Some(cluster)) => self.first_time(caller, cluster).await?,
            (None, None) => {
                let message = format!("{} was removed while the call ran", topology.name);
                return Err(Failure::new(ErrorCode::WrongState, message).hint("call again"));
            }
        };
        (kind.notes, kind.started_us) = (notes, started_us);
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    /// Returns a cluster that is to be made, if there is room for it.
    async fn new_cluster(
        &self,
        caller: &Caller,
        topology: &Topology,
        source: TopologySource,
    ) -> Result<Cluster> {
        let images = self.images_of(topology).await?;
        let cluster = topologies::cluster_of(topology, source, &images, &caller.principal)?;
        self.check_kernel(&cluster, &cluster.faults).await?;
        let capacity = self.host.capacity().await?;
        let least = self.config.branch_memory.0 * cluster.nodes.len() as u64;
        if capacity.memory_total.0 < least {
            let message = format!(
                "{} nodes need at least {}, and this host has {} of memory",
                cluster.nodes.len(),
                pando_model::ByteCount(least),
                capacity.memory_total
            );
            return Err(
                Failure::new(ErrorCode::MemoryFull, message).hint("fewer nodes, or a larger host")
            );
        }
        self.check_disk("a new cluster").await?;
        self.check_memory(1, "a new cluster").await?;
        Ok(cluster)
    }

    async fn first_time(&self, caller: &Caller, cluster: Cluster) -> Result<ClusterDefine> {
        for def in &cluster.nodes {
            // Under its lock: it may have been removed meanwhile.
            self.image(&def.image).await?;
        }
        let is_cold =
            |def: &&NodeDef| def.user_data.as_ref().is_some_and(|data| !data.starts_with("#!"));
        let cold = cluster.nodes.iter().filter(is_cold).map(|def| def.name.clone()).collect();
        Ok(ClusterDefine {
            branch: fresh_branch(&cluster, &caller.principal)?,
            cluster,
            cold,
            disks: Disks::default(),
            drift: None,
            seen: None,
            notes: Vec::new(),
            branches: 1,
            running: 0,
            started_us: 0,
        })
    }

    /// Returns what defining a cluster that exists comes to: what differs, and no change.
    async fn same_again(
        &self,
        caller: &Caller,
        cluster: Cluster,
        topology: &Topology,
    ) -> Result<ClusterDefine> {
        crate::resolve::must_stay(&cluster)?;
        let Some(source) = &cluster.topology else {
            return Err(self.name_taken(&cluster));
        };
        let defined = topologies::read(source)?;
        let mut drift = topologies::drift(&defined, topology);
        drift.extend(self.key_drift(source, &defined, topology).await?);
        // What differs is the cluster's; its branches are only looked at, and any will do.
        let branch = match self.current(&caller.principal, &cluster).await {
            Ok(branch) => branch,
            Err(failure) => {
                let any = self.branches_of(&cluster.id).await?.into_iter().next();
                any.ok_or_else(|| {
                    failure.hint(format!(
                        "it has no branch: `pando branch COMMIT` makes one of a commit that `pando log {}` \
                         lists",
                        cluster.name
                    ))
                })?
            }
        };
        let (branches, running) = self.branch_counts(&cluster).await?;
        Ok(ClusterDefine {
            seen: Some(
                self.status_now(&Place { cluster: cluster.clone(), branch: branch.clone() })
                    .await?,
            ),
            cluster,
            branch,
            cold: Vec::new(),
            disks: Disks::default(),
            drift: Some(drift),
            notes: Vec::new(),
            branches,
            running,
            started_us: 0,
        })
    }

    /// Returns the branch that a verb on a whole cluster names.
    pub(super) async fn whole(
        &self,
        caller: &Caller,
        address: Option<&pando_model::Address>,
    ) -> Result<Place> {
        if let Some(node) = address.and_then(|address| address.node.as_ref()) {
            let message = format!("this works on whole clusters, not on the node `{node}`");
            return Err(ApiError::parameter("cluster_name", message)
                .hint("`node_exec` and `node_crash` work on one node")
                .into());
        }
        self.place(&caller.principal, address).await
    }

    pub(super) async fn plan_cluster_start(
        &self,
        caller: &Caller,
        params: ClusterStartParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let place = self.whole(caller, Some(&params.cluster_name)).await?;
        let locks = ClusterStart::locks_for(&place.cluster, &place.branch);
        let guard = self.hold(locks, "cluster_start").await?;
        let Place { cluster, branch } = self.again(place).await?;
        let branch = self.settled(branch).await?;
        let how = self.how_to_start(&branch).await?;
        let count = match &how {
            How::First | How::Boot => branch.nodes.len(),
            How::Resume => 0,
            How::Nodes(names) => names.len(),
        };
        if matches!(how, How::First | How::Boot) {
            self.check_ports(&cluster, &branch).await?;
        }
        if count > 0 {
            self.check_kernel(&cluster, &branch.faults).await?;
            self.check_memory(count, "a start").await?;
        }
        let (mut layers, mut ready) = (Vec::new(), BTreeMap::new());
        if how == How::First {
            for node in &branch.nodes {
                for layer in node.layers.iter() {
                    layers.push(self.layer(layer).await?);
                }
                if let Some(commit) = self.ready_of(node).await? {
                    ready.insert(node.name.clone(), commit);
                }
            }
        }
        let (branches, running) = self.branch_counts(&cluster).await?;
        let others = running - u32::from(branch.state == BranchState::Running);
        let set_up = self.config.image_timeout;
        let kind = ClusterStart {
            cluster_before: cluster.clone(),
            after: started(&branch, &how),
            before: branch,
            cluster,
            how,
            layers,
            ready,
            wait_for_ssh: params.wait_for_ssh,
            ssh_timeout_ms: params.ssh_timeout_s * 1000,
            set_up_timeout_ms: u64::try_from(set_up.as_millis()).unwrap_or(u64::MAX),
            set_up: 0,
            branches,
            others,
            started_us,
            ready_ms: 0,
            nodes: Vec::new(),
            ssh_missing: BTreeMap::new(),
            identities: BTreeMap::new(),
        };
        let timeout = self.config.first_boot_timeout
            + set_up
            + Duration::from_secs(params.ssh_timeout_s)
            + self.config.undo_timeout;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    async fn how_to_start(&self, branch: &Branch) -> Result<How> {
        Ok(match branch.state {
            BranchState::Stopped if branch.fresh => How::First,
            BranchState::Stopped => How::Boot,
            BranchState::Running | BranchState::Paused => {
                let seen = self.host.observe(&branch.host_id).await?;
                let ended = seen.into_iter().flat_map(|seen| seen.nodes);
                let ended = ended.filter(|node| node.state == BranchState::Stopped);
                let ended: Vec<Name> = ended.map(|node| node.name).collect();
                match branch.state {
                    BranchState::Paused if ended.is_empty() => How::Resume,
                    _ => How::Nodes(ended),
                }
            }
        })
    }

    /// Returns the ready state of a fresh node, if this host can still restore it; its disk can be
    /// booted otherwise.
    async fn ready_of(&self, node: &BranchNode) -> Result<Option<Commit>> {
        let Some(id) = &node.ready else { return Ok(None) };
        let Some(commit): Option<Commit> = self.store.get(id.as_str()).await? else {
            return Ok(None);
        };
        let here = self.host.profile().await?;
        let mut saved = commit.nodes.iter().filter_map(|node| node.profile.as_ref());
        let fits = saved.all(|profile| profile.difference(&here).is_none());
        Ok(fits.then_some(commit))
    }

    pub(super) async fn plan_cluster_stop(
        &self,
        caller: &Caller,
        params: ClusterStopParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let place = self.whole(caller, Some(&params.cluster_name)).await?;
        let locks = Control::locks_for(&place.cluster, &place.branch);
        let guard = self.hold(locks, "cluster_stop").await?;
        let place = self.again(place).await?;
        let action = match params.mode {
            StopMode::Shutdown => Action::Stop,
            StopMode::Destroy => Action::Kill,
        };
        let (branches, running) = self.branch_counts(&place.cluster).await?;
        let runs = u32::from(place.branch.state == BranchState::Running);
        let timeout_ms = params.timeout_s * 1000;
        let (cluster, branch) = (place.cluster, place.branch);
        let mut kind = Control::plan(cluster, branch, action, timeout_ms, started_us)?;
        kind.as_cluster = Some((branches, running - runs));
        self.note_control(caller, &mut kind)?;
        let timeout = Duration::from_millis(timeout_ms) + self.config.undo_timeout;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    pub(super) async fn plan_cluster_destroy(
        &self,
        params: ClusterDestroyParams,
    ) -> Result<Planned> {
        let mut kind = self.deletion(&params.cluster_name, "cluster_destroy").await?;
        kind.0.as_cluster = true;
        kind.0.remove = params.remove_overlays;
        let timeout = self.config.image_timeout;
        Ok(Plan { kind: Box::new(kind.0), guard: kind.1, timeout }.into())
    }

    pub(super) async fn cluster_handle(
        &self,
        caller: &Caller,
        params: ClusterHandleParams,
    ) -> Result<ClusterHandleResult> {
        let place = self.whole(caller, Some(&params.cluster_name)).await?;
        self.must_run(&place)?;
        let (cluster, branch) = (&place.cluster, &place.branch);
        let topology = topologies::of(cluster)?;
        let layout = &self.config.layout;
        let key = self.key_file(cluster).await?;
        let mut nodes = Vec::with_capacity(cluster.nodes.len());
        for def in &cluster.nodes {
            let ssh_port =
                self.host.forward(&branch.host_id, &def.name, status::SSH_PORT, None).await;
            let ssh_port = self.notice_loss(ssh_port.map_err(Failure::from))?;
            let mut forwards = BTreeMap::new();
            let wanted = topology.iter().flat_map(|topology| &topology.forwards);
            for forward in wanted.filter(|forward| forward.node == def.name) {
                forwards.insert(forward.guest_port, self.open_forward(branch, forward).await?);
            }
            let user = topology.as_ref().map_or("root", |topology| topology.ssh.user.as_str());
            nodes.push(NodeHandle {
                name: def.name.clone(),
                role: def.role.clone(),
                ip: ip_of(cluster, def),
                ssh_host: "127.0.0.1".to_owned(),
                ssh_port,
                ssh_user: user.to_owned(),
                ssh_key_path: key.clone(),
                forwards,
            });
        }
        Ok(ClusterHandleResult {
            cluster_name: cluster.name.clone(),
            address: place.address(),
            artifact_path: ARTIFACTS.to_owned(),
            kernel_version: self.kernel_of(cluster, branch).await,
            known_hosts_path: keys::known_hosts(layout, &cluster.id).display().to_string(),
            nodes,
        })
    }

    /// Returns the kernel of the first node that answers.
    async fn kernel_of(&self, cluster: &Cluster, branch: &Branch) -> Option<String> {
        for def in &cluster.nodes {
            if let Ok(facts) = self.host.facts(&branch.host_id, &def.name).await {
                return Some(facts.kernel);
            }
        }
        None
    }

    pub(super) async fn cluster_list(
        &self,
        params: ClusterListParams,
    ) -> Result<ClusterListResult> {
        let query = Query { name_prefix: params.name_prefix, ..Query::all() };
        let mut all: Vec<Cluster> = self.store.list(&query).await?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let cursor = params.cursor.as_deref();
        let (shown, page) = page(all, params.limit, cursor, |one| one.id.to_string())?;
        let mut clusters = Vec::with_capacity(shown.len());
        for cluster in shown {
            let (branches, running) = self.branch_counts(&cluster).await?;
            clusters.push(ClusterRow {
                nodes: cluster.nodes.iter().map(|def| def.name.clone()).collect(),
                networks: cluster.networks.iter().map(|own| own.name.clone()).collect(),
                topology_digest: cluster.topology.map(|source| source.digest),
                name: cluster.name,
                cluster_id: cluster.id,
                state: cluster.state,
                branches,
                running,
                created_at: cluster.created_at,
                created_by: cluster.created_by,
            });
        }
        Ok(ClusterListResult { clusters, page })
    }
}

fn fresh_branch(cluster: &Cluster, actor: &str) -> Result<Branch> {
    debug_assert_eq!(cluster.state, ClusterState::Creating);
    let id = BranchId::random();
    Ok(Branch {
        host_id: id.clone(),
        id,
        cluster: cluster.id.clone(),
        name: "main".parse().map_err(|_| Failure::internal("`main` is no name"))?,
        role: BranchRole::Live,
        state: BranchState::Stopped,
        generation: 0,
        keeper_token: random_hex(),
        parent: None,
        base: None,
        delta_base: None,
        head: None,
        nodes: Vec::new(),
        advanced_ms: 0,
        unchanged: false,
        fresh: true,
        faults: cluster.faults.clone(),
        stopped_because: None,
        powered_off: false,
        created_at: Timestamp::now(),
        created_by: actor.to_owned(),
    })
}
