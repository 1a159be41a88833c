//! Clusters whose networks the kernel carries: what this host must be able to do for them, and what
//! nobody does there that a user-space switch does.

use std::fmt::Write as _;

use pando_model::fault::Fault;
use pando_model::{Cluster, Commit, ErrorCode, Lack};

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::resolve::Place;

impl Engine {
    /// Refuses a cluster whose networks, or faults, need what this host's kernel cannot do.
    pub(crate) async fn check_kernel(&self, cluster: &Cluster, faults: &[Fault]) -> Result<()> {
        if !cluster.is_bridged() {
            return Ok(());
        }
        let can = self.host.kernel_network().await?;
        let lack = can.lacks.first().or_else(|| faults.iter().find_map(|one| can.lack_for(one)));
        lack.map_or(Ok(()), |Lack { what, remedy }| {
            let message = format!("{} asks for the kernel's network, but {what}", cluster.name);
            Err(Failure::new(ErrorCode::ToolMissing, message)
                .subject(cluster.name.as_str())
                .hint(format!("{remedy}; `pando doctor` checks it")))
        })
    }
}

/// Refuses to capture what the kernel carries.
pub(crate) fn must_be_captured(place: &Place) -> Result<()> {
    if !place.cluster.is_bridged() {
        return Ok(());
    }
    let message = format!("the kernel carries the frames of {}", place.address());
    Err(Failure::new(ErrorCode::WrongState, message)
        .subject(place.address())
        .hint("capture in a node (`tcpdump`), or define the cluster with `mode: switch`"))
}

/// Refuses a seed where faults decide by none.
pub(crate) fn must_decide_by_seed(cluster: &Cluster, seed: Option<u64>) -> Result<()> {
    if seed.is_none() || !cluster.is_bridged() {
        return Ok(());
    }
    let message = format!(
        "the kernel carries the frames of {} and decides by no seed which it loses",
        cluster.name
    );
    Err(Failure::new(ErrorCode::WrongState, message)
        .subject(cluster.name.as_str())
        .hint("leave `seed` out, or define the cluster with `mode: switch`"))
}

/// Returns what a commit lacks of its network.
pub(crate) fn not_in(cluster: &Cluster, commit: &Commit) -> Option<String> {
    let lacks = cluster.is_bridged() && commit.network.is_some();
    lacks.then(|| "frames under way are not in it: the kernel carries them".to_owned())
}

/// Returns the line that tells a new node the names of its cluster, which no DNS does there.
pub(crate) fn names(cluster: &Cluster) -> Option<String> {
    if !cluster.is_bridged() {
        return None;
    }
    let mut line = "cat >>/etc/hosts <<'END'\n".to_owned();
    for def in &cluster.nodes {
        let host = def.name.host_name();
        let is_other = host != def.name.as_str();
        let other = if is_other { format!(" {host}") } else { String::new() };
        for own in &def.interfaces {
            let addresses = own.address.map(|address| address.to_string());
            let addresses = addresses.into_iter().chain(own.address6.map(|one| one.to_string()));
            for address in addresses {
                // Writing to a string does not fail.
                let _ =
                    writeln!(line, "{address} {} {}.{}{other}", def.name, def.name, cluster.name);
            }
        }
    }
    line.push_str("END");
    Some(line)
}
