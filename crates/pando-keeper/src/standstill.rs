//! Bringing all nodes to stand still for a cut, with nothing under way that the cut would lose.

use std::time::Instant;

use pando_machine::Stillness;
use pando_model::Name;
use pando_model::host::HostError;

use crate::cut::CutContext;
use crate::limits;
use crate::network::Network;
use crate::node::{Node, each, try_each_live};

/// The beginning of the time in which the guests stand still.
pub struct Stood {
    /// Since when all of them do.
    pub since: Instant,
    /// Ports whose machine or guest did not take in what was sent to it.
    pub stalled: Vec<(Name, u8)>,
}

/// Stops all nodes that run, at a moment when no device has work under way and all frames are whole. On an
/// error they go on.
pub fn stand_still(
    nodes: &mut [Node],
    network: &mut Network,
    context: &CutContext<'_>,
) -> Result<Stood, HostError> {
    let mut unclean = "";
    // Of all tries: each stop may lose frames.
    let mut stalled = Vec::new();
    for _ in 0..limits::GUARD_TRIES {
        match try_to_stand_still(nodes, network, &mut stalled) {
            Ok(Ok(since)) => {
                stalled.sort();
                stalled.dedup();
                return Ok(Stood { since, stalled });
            }
            Ok(Err(why)) => {
                tracing::info!(branch = %context.branch, why, "the cut is tried again");
                unclean = why;
                go_on(nodes, network, context, Node::resume)?;
            }
            Err(error) => {
                let stuck = go_on(nodes, network, context, Node::resume_if_it_answers);
                if let Err(error) = stuck {
                    tracing::warn!(branch = %context.branch, %error, "going on after a cut that failed");
                }
                return Err(error);
            }
        }
    }
    Err(HostError::CutUnclean {
        branch: context.branch.clone(),
        detail: format!("{unclean} at every try"),
    })
}

/// With the switch held: waits until every guest has taken in what its machine holds back for it.
/// One that does not must not block a cut.
fn wait_for_room(nodes: &mut [Node]) -> Result<(), HostError> {
    let deadline = Instant::now() + limits::ROOM;
    let (mut before, mut patience) = (Vec::new(), Instant::now() + limits::ROOM_STANDSTILL);
    loop {
        let crowded = each(nodes, |node| match node.machine {
            Some(_) => node
                .with_machine(|machine, _| machine.crowded(Instant::now() + limits::STAND_STILL)),
            None => Ok(Vec::new()),
        });
        let crowded = crowded.into_iter().collect::<Result<Vec<_>, HostError>>()?;
        let now = Instant::now();
        if crowded != before {
            patience = now + limits::ROOM_STANDSTILL;
        }
        if crowded.iter().all(Vec::is_empty) || now > patience.min(deadline) {
            return Ok(());
        }
        before = crowded;
        std::thread::sleep(limits::ROOM_ASKED);
    }
}

/// Holds the switch and stops all nodes; returns since when they stand still, or what is not clean
/// about it. Adds the ports that frames may have been lost at.
fn try_to_stand_still(
    nodes: &mut [Node],
    network: &mut Network,
    stalled: &mut Vec<(Name, u8)>,
) -> Result<Result<Instant, &'static str>, HostError> {
    stalled.extend(network.hold()?);
    if network.is_open() {
        wait_for_room(nodes)?;
    }
    let since = Instant::now();
    let still = each(nodes, |node| match node.machine {
        Some(_) => node
            .with_machine(|machine, _| machine.stand_still(Instant::now() + limits::STAND_STILL)),
        None => Ok(Stillness { quiet: true, crowded: Vec::new() }),
    });
    let still: Vec<Stillness> = still.into_iter().collect::<Result<_, _>>()?;
    if network.is_open() {
        for (node, still) in nodes.iter().zip(&still) {
            let nics = still.crowded.iter().filter_map(|crowded| u8::try_from(crowded.nic).ok());
            stalled.extend(nics.map(|nic| (node.spec.name.clone(), nic)));
        }
    }
    // A stopped machine whose socket was full goes on sending; one that is quiet has sent all, and
    // only then is everything here to be read.
    let settled = network.settle()?;
    if settled.frames > 0 {
        tracing::debug!(frames = settled.frames, "frames came in after the machines had stopped");
    }
    if !still.iter().all(|still| still.quiet) {
        return Ok(Err("a network device had frames under way"));
    }
    if !settled.partial.is_empty() {
        return Ok(Err("a frame had half arrived"));
    }
    Ok(Ok(since))
}

/// Lets the nodes and the switch go on, if they ran.
fn go_on(
    nodes: &mut [Node],
    network: &mut Network,
    context: &CutContext<'_>,
    resume: impl Fn(&mut Node) -> Result<(), HostError> + Sync,
) -> Result<(), HostError> {
    if !context.running {
        return Ok(());
    }
    let resumed = try_each_live(nodes, resume);
    network.release().and(resumed)
}
