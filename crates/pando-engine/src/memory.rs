//! Memory chains: from a commit's delta down to zero memory, through other commits' deltas.

use futures_util::{StreamExt, TryStreamExt, stream};
use pando_driver::Reporter;
use pando_driver::host::{MemoryChain, MemoryLink};
use pando_model::{Commit, CommitNode};

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::incarnation::saved_node;
use crate::locks::{Hold, LockSet};

/// Longest chain that is followed. A chain grows by one with every generation of branches, so
/// this is never reached by use; it ends a loop that only damage can make.
const MAX_LINKS: usize = 10_000;

impl Engine {
    /// Returns the memory chain of one node of a full commit, newest first.
    ///
    /// # Errors
    /// `corrupt` when a commit of the chain is not recorded.
    pub(crate) async fn memory_chain(
        &self,
        commit: &Commit,
        node: &CommitNode,
    ) -> Result<MemoryChain> {
        let broken = |id: &str| {
            Failure::new(
                pando_model::ErrorCode::Corrupt,
                format!("the memory of {} needs {id}, which is not recorded", commit.id),
            )
        };
        let mut links = Vec::new();
        let mut memory = node.memory.clone().ok_or_else(|| broken(commit.id.as_str()))?;
        let (mut id, mut name) = (commit.id.clone(), node.name.clone());
        while links.len() < MAX_LINKS {
            links.push(MemoryLink {
                commit: id.clone(),
                node: name.clone(),
                digest: memory.digest.clone(),
            });
            let Some(base) = memory.base.clone() else {
                return Ok(MemoryChain { links, size: node.shape.memory });
            };
            let found: Option<Commit> = self.store.get(base.as_str()).await?;
            let below = found.ok_or_else(|| broken(base.as_str()))?;
            let saved = saved_node(&below, &name)?;
            memory = saved.memory.clone().ok_or_else(|| broken(base.as_str()))?;
            (id, name) = (base, saved.name.clone());
        }
        Err(broken("a chain without end"))
    }

    /// Makes the flat memory of all nodes of a full commit, where it is missing.
    /// Who comes second waits for the first.
    pub(crate) async fn materialise(&self, commit: &Commit, reporter: &Reporter) -> Result<()> {
        let locks = LockSet::new().with(format!("memory of {}", commit.id), Hold::Exclusive);
        let patience = self.config.restore_timeout;
        let _turn = self.locks.acquire(locks, "making memory mappable", patience).await?;
        let mut work = Vec::with_capacity(commit.nodes.len());
        for node in commit.nodes.iter().filter(|node| node.memory.is_some()) {
            let chain = self.memory_chain(commit, node).await?;
            work.push(async move { self.host.materialise(&chain, reporter).await });
        }
        let mut made = stream::iter(work).buffer_unordered(self.config.workers);
        while made.try_next().await?.is_some() {}
        Ok(())
    }
}
