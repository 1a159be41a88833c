//! `vm_create`, `vm_control`, `vm_delete`.

use std::time::Duration;

use jiff::Timestamp;
use pando_api::machine::{Action, VmControlParams, VmCreateParams, VmDeleteParams};
use pando_api::{ApiError, Caller};
use pando_driver::store::Query;
use pando_model::branch::BranchRole;
use pando_model::{
    BootMethod, Branch, BranchId, BranchState, ByteCount, Cluster, ClusterId, ClusterState,
    ErrorCode, Image, Name, NodeDef, NodeShape, OperationId, limits,
};

use super::{Planned, now_us};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::incarnation::{Disks, random_hex};
use crate::locks::Guard;
use crate::operation::{Kind, Plan};
use crate::ops::control::Control;
use crate::ops::vm_create::VmCreate;
use crate::ops::vm_delete::VmDelete;
use crate::resolve::Place;

/// What a first machine of a shape may take longer than a warm start: a whole first boot.
const FIRST_BOOT_FACTOR: u32 = 3;

/// What `user_data` turned out to be.
enum UserData {
    Script(String),
    CloudConfig(String),
}

fn user_data(text: String, image: &Image) -> Result<UserData> {
    if text.starts_with("#!") {
        return Ok(UserData::Script(text));
    }
    if !text.starts_with("#cloud-config") {
        let message = "`user_data` is neither a script (`#!…`) nor cloud-config (`#cloud-config`)";
        return Err(ApiError::parameter("user_data", message).into());
    }
    if matches!(image.boot, BootMethod::Direct { .. }) {
        let message = format!("the image {} has no cloud-init to read cloud-config", image.name);
        return Err(ApiError::parameter("user_data", message)
            .hint("give a script (`#!/bin/sh …`), or import a cloud image")
            .into());
    }
    Ok(UserData::CloudConfig(text))
}

impl Engine {
    pub(super) async fn plan_vm_create(
        &self,
        caller: &Caller,
        params: VmCreateParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let image = self.image_named(&params.image).await?;
        let disk = params.disk_gib.map_or(image.disk_size, ByteCount::from_gib);
        if disk < image.disk_size {
            let message = format!(
                "the disk is {disk}, but the image {} needs {}",
                image.name, image.disk_size
            );
            return Err(ApiError::parameter("disk_gib", message).into());
        }
        let shape = NodeShape {
            vcpus: params.vcpus,
            memory: ByteCount::from_mib(params.memory_mib),
            disk,
            nics: params.nics,
            extra_disks: Vec::new(),
        };
        shape
            .validate()
            .map_err(|error| Failure::new(ErrorCode::InvalidParameter, error.to_string()))?;
        let user_data = params.user_data.map(|text| user_data(text, &image)).transpose()?;
        let (script, cloud_config) = match user_data {
            Some(UserData::Script(script)) => (Some(script), None),
            Some(UserData::CloudConfig(data)) => (None, Some(data)),
            None => (None, None),
        };
        let now = Timestamp::now();
        let cluster = Cluster {
            id: ClusterId::random(),
            name: params.name.clone(),
            state: ClusterState::Creating,
            nodes: vec![NodeDef {
                name: params.name,
                shape,
                image: image.id.clone(),
                env: params.env,
                user_data: script.clone().or_else(|| cloud_config.clone()),
                host_key: None,
                role: String::new(),
                interfaces: Vec::new(),
            }],
            uplink: params.uplink,
            networks: Vec::new(),
            topology: None,
            faults: Vec::new(),
            snapshots: std::collections::BTreeMap::new(),
            labels: params.labels,
            created_at: now,
            created_by: caller.principal.clone(),
        };
        let id = BranchId::random();
        let branch = Branch {
            host_id: id.clone(),
            id,
            cluster: cluster.id.clone(),
            name: "main".parse().map_err(|_| Failure::internal("`main` is no name"))?,
            role: BranchRole::Live,
            state: BranchState::Stopped,
            generation: 1,
            keeper_token: random_hex(),
            parent: None,
            base: None,
            delta_base: None,
            head: None,
            nodes: Vec::new(),
            advanced_ms: 0,
            unchanged: false,
            fresh: false,
            faults: Vec::new(),
            stopped_because: None,
            powered_off: false,
            created_at: now,
            created_by: caller.principal.clone(),
        };
        let mut kind = VmCreate {
            cluster,
            branch,
            cold: params.cold,
            script,
            cloud_config,
            timeout_ms: params.timeout_s * 1000,
            exec_limit: limits::DEFAULT_OUTPUT_BYTES,
            started_us,
            ready: None,
            disks: Disks::default(),
            ready_ms: 0,
            answered_ms: 0,
            first_of_its_kind: false,
            script_result: None,
            identity: None,
        };
        let guard = self.hold(kind.locks(), "vm_create").await?;
        let holder: Option<Cluster> = self.store.named("", kind.cluster.name.as_str()).await?;
        if let Some(holder) = holder {
            return Err(self.name_taken(&holder));
        }
        // Under the image's lock: it may have been removed meanwhile.
        self.image(&image.id).await?;
        self.check_disk("a new machine").await?;
        self.check_memory(1, "a new machine").await?;
        kind.choose(self).await?;
        let timeout = Duration::from_millis(kind.timeout_ms) * 2
            + self.config.first_boot_timeout * FIRST_BOOT_FACTOR;
        let early = kind.result(&OperationId::random());
        Ok(Planned { plan: Plan { kind: Box::new(kind), guard, timeout }, early })
    }

    pub(super) fn name_taken(&self, holder: &Cluster) -> Failure {
        let name = &holder.name;
        let error = ApiError::new(ErrorCode::AlreadyExists, format!("there is a `{name}` already"))
            .subject(name.as_str());
        match holder.state {
            ClusterState::Deleting => {
                error.hint(format!("it is being deleted: `pando vm rm {name} --remove-overlays`"))
            }
            _ => error.hint(format!(
                "choose another name, or `pando vm rm {name} --remove-overlays --force`"
            )),
        }
        .into()
    }

    /// Notes in the journal what is about to be done to each node of a branch.
    pub(super) fn note_control(&self, caller: &Caller, kind: &mut Control) -> Result<()> {
        for node in &kind.cluster.nodes {
            let place = (&kind.before.id, &node.name);
            let noted = self.journal_on(caller, "control", place, kind.action.as_str())?;
            kind.journal.push(noted.leave_open());
        }
        Ok(())
    }

    pub(super) async fn plan_vm_control(
        &self,
        caller: &Caller,
        params: VmControlParams,
    ) -> Result<Planned> {
        let started_us = now_us();
        let place = self.place(&caller.principal, Some(&params.address)).await?;
        refuse_one_of_several(&place, params.address.node.as_ref())?;
        let locks = Control::locks_for(&place.cluster, &place.branch);
        let guard = self.hold(locks, "vm_control").await?;
        let place = self.again(place).await?;
        if params.action == Action::Start && place.branch.state == BranchState::Stopped {
            self.check_ports(&place.cluster, &place.branch).await?;
        }
        let timeout_ms = params.timeout_s * 1000;
        let mut kind =
            Control::plan(place.cluster, place.branch, params.action, timeout_ms, started_us)?;
        if kind.before.state == BranchState::Stopped && kind.after.state == BranchState::Running {
            self.check_memory(kind.cluster.nodes.len(), "a start").await?;
        }
        self.note_control(caller, &mut kind)?;
        let timeout = Duration::from_millis(timeout_ms)
            + self.config.first_boot_timeout
            + self.config.undo_timeout;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }

    /// Returns the deletion of a cluster, which is locked, that removes nothing yet.
    pub(super) async fn deletion(&self, name: &str, verb: &str) -> Result<(VmDelete, Guard)> {
        let cluster = self.cluster(name).await?;
        let guard = self.hold(VmDelete::locks_for(&cluster.id), verb).await?;
        // Again, under the lock.
        let cluster = self.cluster(cluster.id.as_str()).await?;
        let scope = Query::scope(cluster.id.as_str());
        let kind = VmDelete {
            branches: self.store.list(&scope).await?,
            commits: self.store.list(&scope).await?,
            tags: self.store.list(&scope).await?,
            checkouts: self.store.list(&scope).await?,
            remove: false,
            force: false,
            as_cluster: false,
            cluster,
        };
        Ok((kind, guard))
    }

    pub(super) async fn plan_vm_delete(&self, params: VmDeleteParams) -> Result<Planned> {
        let (mut kind, guard) = self.deletion(&params.name, "vm_delete").await?;
        (kind.remove, kind.force) = (params.remove_overlays, params.force);
        if kind.remove && !kind.force && kind.cluster.state != ClusterState::Deleting {
            refuse_to_lose(&kind)?;
        }
        let timeout = self.config.image_timeout;
        Ok(Plan { kind: Box::new(kind), guard, timeout }.into())
    }
}

/// Refuses to control a single node of several: they live and die with their branch.
fn refuse_one_of_several(place: &Place, node: Option<&Name>) -> Result<()> {
    let Some(node) = node.filter(|_| place.branch.nodes.len() > 1) else { return Ok(()) };
    let address = place.address();
    let message = format!("{address} has several nodes, which are controlled together");
    Err(ApiError::parameter("address", message)
        .subject(node.as_str())
        .hint(format!(
            "`pando vm control {address} ACTION` for all; `pando node crash {address} {node}` for one"
        ))
        .into())
}

/// Refuses to remove what somebody named, or what runs.
fn refuse_to_lose(kind: &VmDelete) -> Result<()> {
    let name = &kind.cluster.name;
    let force = format!("`pando rm --disks --force {name}` removes it all the same");
    if let Some(tag) = kind.tags.first() {
        let count = kind.tags.len();
        let message = match count {
            1 => format!("{name} has a tagged commit, `{}`", tag.name),
            _ => format!("{name} has {count} tagged commits, `{}` for one", tag.name),
        };
        return Err(ApiError::new(ErrorCode::InUse, message)
            .subject(name.as_str())
            .hint(force)
            .into());
    }
    let runs = kind
        .branches
        .iter()
        .find(|branch| branch.role == BranchRole::Live && branch.state != BranchState::Stopped);
    match runs {
        Some(branch) => {
            let message = format!("{name}@{} runs", branch.name);
            Err(ApiError::new(ErrorCode::InUse, message).subject(name.as_str()).hint(force).into())
        }
        None => Ok(()),
    }
}
