//! The `net_*` verbs.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::join_all;
use jiff::Timestamp;
use pando_api::limits::{MAX_FAULTS, MAX_PROBE_ROWS, MAX_SEED};
use pando_api::network::{
    CaptureAction, LinkInfo, NetCaptureParams, NetCaptureResult, NetFaultListParams,
    NetFaultListResult, NetHealAllParams, NetHealParams, NetImpairParams, NetPartitionParams,
    NetProbeParams, NetProbeResult, ProbeRow,
};
use pando_api::{ApiError, Caller};
use pando_driver::host::HostError;
use pando_model::fault::{Effect, Fault};
use pando_model::network::{
    CaptureLimits, End, Link, LinkCounts, NetworkObservation, ProbeResult, ProbeTarget,
};
use pando_model::{Address, Branch, BranchState, ErrorCode, FaultId, Name};
use rand::Rng;

use super::{Planned, now_us};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::faults::free_ordinal;
use crate::kernel;
use crate::network::{self, working};
use crate::operation::Plan;
use crate::ops::faults::{Change, Faults, Seen};
use crate::ops::milliseconds;
use crate::resolve::Place;
use crate::topologies;

/// What telling a switch and asking its guests may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What both kinds of faults have besides their effect.
struct Common {
    network: Option<Name>,
    seed: Option<u64>,
    label: Option<String>,
    expires_s: Option<u64>,
}

impl Common {
    fn fault(self, effect: Effect, links: Vec<Link>) -> Fault {
        let now = Timestamp::now();
        let ends = |seconds: u64| now.checked_add(Duration::from_secs(seconds)).ok();
        Fault {
            id: FaultId::random(),
            label: self.label,
            effect,
            links,
            segment: self.network,
            seed: self.seed.unwrap_or_else(|| rand::rng().random_range(0..=MAX_SEED)),
            ordinal: 0,
            created_at: now,
            expires_at: self.expires_s.and_then(ends),
        }
    }
}

impl Engine {
    /// Returns the branch that is named, which has a network.
    async fn networked(&self, caller: &Caller, address: Option<&Address>) -> Result<Place> {
        if let Some(node) = address.and_then(|address| address.node.as_ref()) {
            let message = format!("`{node}` is a node; the network is the branch's");
            return Err(ApiError::parameter("cluster_name", message)
                .hint("leave out what is behind the `/`")
                .into());
        }
        let place = self.place(&caller.principal, address).await?;
        network::must_have_network(&place)?;
        Ok(place)
    }

    /// Plans a change of a branch's faults; `change` gets the branch as it is under its lock, with
    /// the faults that still work.
    async fn plan_faults(
        &self,
        caller: &Caller,
        cluster_name: Address,
        verb: &str,
        change: impl FnOnce(&Place, &mut Vec<Fault>) -> Result<Change>,
    ) -> Result<Planned> {
        let started_us = now_us();
        let place = self.networked(caller, Some(&cluster_name)).await?;
        let guard = self.hold(Faults::locks_for(&place.cluster, &place.branch), verb).await?;
        let place = self.again(place).await?;
        let mut faults = working(&place.branch.faults, Timestamp::now());
        let change = change(&place, &mut faults)?;
        if let Change::Make(_) = change {
            self.check_kernel(&place.cluster, &faults).await?;
        }
        let Place { cluster, branch: before } = place;
        let after = Branch { faults, ..before.clone() };
        let seen = Seen::default();
        let kind = Faults { cluster, before, after, change, started_us, seen };
        Ok(Plan { kind: Box::new(kind), guard, timeout: TIMEOUT }.into())
    }

    pub(super) async fn plan_net_partition(
        &self,
        caller: &Caller,
        params: NetPartitionParams,
    ) -> Result<Planned> {
        self.plan_faults(caller, params.cluster_name.clone(), "net_partition", |place, faults| {
            let on = params.network.map(|name| network::network(place, &name)).transpose()?;
            let ends = |group: &[String]| -> Result<Vec<End>> {
                group.iter().map(|one| network::end_in(place, on.as_ref(), one)).collect()
            };
            let a = ends(&params.partition_a)?;
            let b = match params.partition_b.as_slice() {
                [] => network::other_nodes(place, on.as_ref(), &a, "partition_b")?,
                named => ends(named)?,
            };
            let links = network::partition_links(&a, &b, params.direction);
            let NetPartitionParams { label, expires_s, .. } = params;
            let common = Common { network: on, seed: None, label, expires_s };
            add(place, faults, common.fault(Effect::Partition, links))
        })
        .await
    }

    pub(super) async fn plan_net_impair(
        &self,
        caller: &Caller,
        params: NetImpairParams,
    ) -> Result<Planned> {
        self.plan_faults(caller, params.cluster_name.clone(), "net_impair", |place, faults| {
            kernel::must_decide_by_seed(&place.cluster, params.seed)?;
            let on =
                params.network.as_ref().map(|name| network::network(place, name)).transpose()?;
            let links = network::impaired_links(place, on.as_ref(), &params)?;
            let effect = Effect::Impair(network::impairment(&params));
            let NetImpairParams { seed, label, expires_s, .. } = params;
            let common = Common { network: on, seed, label, expires_s };
            add(place, faults, common.fault(effect, links))
        })
        .await
    }

    pub(super) async fn plan_net_heal(
        &self,
        caller: &Caller,
        params: NetHealParams,
    ) -> Result<Planned> {
        self.plan_faults(caller, params.cluster_name.clone(), "net_heal", |place, faults| {
            let id = handle(place, faults, &params.fault_handle)?;
            faults.retain(|fault| fault.id != id);
            Ok(Change::Heal(vec![id]))
        })
        .await
    }

    pub(super) async fn plan_net_heal_all(
        &self,
        caller: &Caller,
        params: NetHealAllParams,
    ) -> Result<Planned> {
        self.plan_faults(caller, params.cluster_name.clone(), "net_heal_all", |_, faults| {
            let healed = faults.extract_if(.., |fault| !topologies::is_link_default(fault));
            Ok(Change::Heal(healed.map(|fault| fault.id).collect()))
        })
        .await
    }

    /// Asks a branch's switch, if it has one now.
    async fn observed(&self, place: &Place) -> Result<Option<NetworkObservation>> {
        if place.branch.state == BranchState::Stopped {
            return Ok(None);
        }
        let observed = self.host.network(&place.branch.host_id).await.map_err(Failure::from);
        self.notice_loss(observed).map(Some)
    }

    pub(super) async fn net_fault_list(
        &self,
        caller: &Caller,
        params: NetFaultListParams,
    ) -> Result<NetFaultListResult> {
        let place = self.networked(caller, params.cluster_name.as_ref()).await?;
        let observed = self.observed(&place).await?;
        let counts = observed.as_ref().map(|observed| observed.fault_counts.as_slice());
        let faults = working(&place.branch.faults, Timestamp::now());
        let told = |fault| network::fault_of(&place.cluster, fault, counts);
        let faults = faults.iter().map(told).collect();
        let spoofed = observed.as_ref().map(|observed| observed.spoofed);
        let links = observed.filter(|_| params.links).map(|observed| observed.links);
        Ok(NetFaultListResult {
            branch_id: place.branch.id.clone(),
            address: place.address(),
            faults,
            spoofed,
            links: links.unwrap_or_default().into_iter().map(link_info).collect(),
        })
    }

    pub(super) async fn net_probe(
        &self,
        caller: &Caller,
        params: NetProbeParams,
    ) -> Result<NetProbeResult> {
        let place = self.networked(caller, params.cluster_name.as_ref()).await?;
        self.must_run(&place)?;
        let sources = nodes(&place, &params.sources)?;
        let targets = ends(&place, &params.targets)?;
        let (count, timeout) = (params.count, Duration::from_millis(params.timeout_ms));
        let mut rows = self.probed(&place, (&sources, &targets), count, timeout).await;
        // What is wrong first; beside that, the order of the nodes.
        rows.sort_by_key(|row| match row.reachable {
            Some(false) => 0,
            None => 1,
            Some(true) => 2,
        });
        let number = |reachable: Option<bool>| {
            let those = rows.iter().filter(|row| row.reachable == reachable).count();
            u32::try_from(those).unwrap_or(u32::MAX)
        };
        let (reachable, unreachable, unknown) =
            (number(Some(true)), number(Some(false)), number(None));
        let truncated = rows.len() > MAX_PROBE_ROWS;
        rows.truncate(MAX_PROBE_ROWS);
        Ok(NetProbeResult {
            branch_id: place.branch.id.clone(),
            address: place.address(),
            reachable,
            unreachable,
            unknown,
            rows,
            truncated,
        })
    }

    /// Lets nodes ask each target; each asked address is a row.
    async fn probed(
        &self,
        place: &Place,
        (sources, targets): (&BTreeSet<Name>, &BTreeSet<End>),
        count: u32,
        timeout: Duration,
    ) -> Vec<ProbeRow> {
        let probes = sources.iter().map(async |from| {
            let others = targets.iter().filter(|to| **to != End::Node(from.clone()));
            let asked: Vec<ProbeTarget> =
                others.flat_map(|to| network::addresses(&place.cluster, from, to, None)).collect();
            if asked.is_empty() {
                return Vec::new();
            }
            let probed = self.host.probe(&place.branch.host_id, from, &asked, count, timeout).await;
            match probed {
                Ok(results) => results.into_iter().map(|one| row(from, one)).collect(),
                Err(error) => unknown(from, &asked, &error.to_string()),
            }
        });
        join_all(probes).await.into_iter().flatten().collect()
    }

    /// Lets all nodes of a branch ask one another and the gateway; each asked address is a row.
    pub(crate) async fn probed_by_all(
        &self,
        place: &Place,
        count: u32,
        timeout: Duration,
    ) -> Result<Vec<ProbeRow>> {
        let all = (nodes(place, &[])?, ends(place, &[])?);
        Ok(self.probed(place, (&all.0, &all.1), count, timeout).await)
    }

    pub(super) async fn net_capture(
        &self,
        caller: &Caller,
        params: NetCaptureParams,
    ) -> Result<NetCaptureResult> {
        let place = self.networked(caller, Some(&params.cluster_name)).await?;
        let host_id = &place.branch.host_id;
        let mut result = NetCaptureResult {
            branch_id: place.branch.id.clone(),
            address: place.address(),
            taken: None,
            content_base64: None,
            next_offset: None,
        };
        match params.action {
            CaptureAction::Start => {
                self.must_run(&place)?;
                kernel::must_be_captured(&place)?;
                let NetCaptureParams { max_frames, max_bytes, snap_bytes, .. } = params;
                let limits =
                    CaptureLimits { frames: max_frames, bytes: max_bytes, snap: snap_bytes };
                self.check_disk("a capture").await?;
                let begun = self.host.begin_capture(host_id, limits).await;
                begun.map_err(|error| already_captured(&place, error))?;
            }
            CaptureAction::Stop => {
                result.taken = self.host.end_capture(host_id).await?.map(Into::into);
            }
            CaptureAction::Read => {
                let read = self.host.read_capture(host_id, params.offset, params.limit).await;
                let (bytes, next) = read.map_err(|error| not_captured(&place, error))?;
                result.content_base64 = Some(BASE64.encode(bytes));
                result.next_offset = Some(next);
            }
        }
        Ok(result)
    }
}

fn already_captured(place: &Place, error: HostError) -> Failure {
    let address = place.address();
    let is_captured = matches!(error, HostError::WrongState { .. });
    let failure = Failure::from(error);
    match is_captured {
        true => failure.hint(format!("`pando net capture {address} stop` ends the one under way")),
        false => failure,
    }
}

fn not_captured(place: &Place, error: HostError) -> Failure {
    let address = place.address();
    match error {
        HostError::Missing { .. } => Failure::not_found("capture of", &address)
            .hint(format!("`pando net capture {address} start` begins one")),
        error => error.into(),
    }
}

fn add(place: &Place, faults: &mut Vec<Fault>, mut fault: Fault) -> Result<Change> {
    if faults.len() >= MAX_FAULTS {
        let message = format!("{} has {MAX_FAULTS} faults, and no room for more", place.address());
        return Err(Failure::new(ErrorCode::LimitExceeded, message)
            .subject(place.address())
            .hint(format!("`pando net heal-all {}` heals them", place.address())));
    }
    fault.ordinal = free_ordinal(faults, fault.seed);
    let change = Change::Make(fault.id.clone());
    faults.push(fault);
    Ok(change)
}

/// Returns the fault that a handle or a label names.
fn handle(place: &Place, faults: &[Fault], text: &str) -> Result<FaultId> {
    let by_label = || faults.iter().filter(|fault| fault.label.as_deref() == Some(text));
    if let Some(fault) = faults.iter().find(|fault| fault.id.as_str() == text) {
        return Ok(fault.id.clone());
    }
    let mut labelled = by_label();
    match (labelled.next(), labelled.next()) {
        (Some(one), None) => Ok(one.id.clone()),
        (Some(_), Some(_)) => {
            let handles: Vec<&str> = by_label().map(|fault| fault.id.as_str()).collect();
            let message = format!("several faults have the label `{text}`");
            Err(Failure::new(ErrorCode::Ambiguous, message)
                .hint(format!("one of {}", handles.join(", "))))
        }
        (None, _) => {
            let hint = match faults {
                [] => format!("{} has no faults", place.address()),
                _ => format!("`pando net faults {}` lists them", place.address()),
            };
            Err(Failure::not_found("fault", text).hint(hint))
        }
    }
}

/// Returns the named nodes, or all.
fn nodes(place: &Place, names: &[String]) -> Result<BTreeSet<Name>> {
    let every = || place.branch.nodes.iter().map(|node| node.name.clone()).collect();
    if names.is_empty() {
        return Ok(every());
    }
    let mut found = BTreeSet::new();
    for name in names {
        match network::end(place, name)? {
            End::Node(name) => found.insert(name),
            End::Gateway => {
                let message = "the gateway answers, and asks nobody";
                return Err(ApiError::parameter("sources", message).into());
            }
        };
    }
    Ok(found)
}

/// Returns the named ends, or all.
fn ends(place: &Place, names: &[String]) -> Result<BTreeSet<End>> {
    if !names.is_empty() {
        return names.iter().map(|name| network::end(place, name)).collect();
    }
    Ok(network::every_end(place))
}

fn row(from: &Name, result: ProbeResult) -> ProbeRow {
    let ms = |us: Option<u64>| us.map(milliseconds);
    ProbeRow {
        from: from.to_string(),
        to: result.target.name,
        address: result.target.address.to_string(),
        reachable: Some(result.received > 0),
        sent: result.sent,
        received: result.received,
        rtt_ms: ms(result.rtt.map(|rtt| rtt.avg_us)),
        min_ms: ms(result.rtt.map(|rtt| rtt.min_us)),
        max_ms: ms(result.rtt.map(|rtt| rtt.max_us)),
        error: None,
    }
}

fn unknown(from: &Name, asked: &[ProbeTarget], error: &str) -> Vec<ProbeRow> {
    let row = |target: &ProbeTarget| ProbeRow {
        from: from.to_string(),
        to: target.name.clone(),
        address: target.address.to_string(),
        reachable: None,
        sent: 0,
        received: 0,
        rtt_ms: None,
        min_ms: None,
        max_ms: None,
        error: Some(error.to_owned()),
    };
    asked.iter().map(row).collect()
}

fn link_info((link, counts): (Link, LinkCounts)) -> LinkInfo {
    let LinkCounts {
        sent,
        sent_bytes,
        delivered,
        held,
        dropped,
        duplicated,
        corrupted,
        reordered,
        delayed,
    } = counts;
    LinkInfo {
        from: link.from.to_string(),
        to: link.to.to_string(),
        sent,
        bytes: sent_bytes,
        delivered,
        held,
        dropped,
        duplicated,
        corrupted,
        reordered,
        delayed,
    }
}
