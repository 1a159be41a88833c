//! What nothing needs any more. A commit that was deleted stays as a tombstone while another's
//! memory is a change of its memory; a layer stays while a disk lies on it.

use std::collections::{BTreeMap, BTreeSet};

use pando_driver::Store;
use pando_driver::store::{Query, Record, StoreError, Transaction};
use pando_model::commit::{Below, Layer};
use pando_model::{Branch, Commit, CommitId, LayerId};

use crate::engine::Engine;
use crate::failure::Result;
use crate::locks::{Hold, LockSet};

/// The records that refer to files, as they are at one moment.
pub(crate) struct Records {
    pub branches: Vec<Branch>,
    pub commits: Vec<Commit>,
    pub layers: BTreeMap<LayerId, Layer>,
}

impl Records {
    pub async fn load(store: &dyn Store) -> std::result::Result<Self, StoreError> {
        let all = Query::all();
        let layers: Vec<Layer> = store.list(&all).await?;
        Ok(Self {
            branches: store.list(&all).await?,
            commits: store.list(&all).await?,
            layers: layers.into_iter().map(|layer| (layer.id.clone(), layer)).collect(),
        })
    }

    /// Returns the commits whose files are needed: those that are kept, those that branches run
    /// on, and those that the memory of others is made of.
    pub fn needed_commits(&self) -> BTreeSet<CommitId> {
        let by_id: BTreeMap<&CommitId, &Commit> =
            self.commits.iter().map(|commit| (&commit.id, commit)).collect();
        let kept = self.commits.iter().filter(|commit| !commit.deleted).map(|commit| &commit.id);
        let bases = self.branches.iter().flat_map(Branch::bases);
        let mut next: Vec<&CommitId> = kept.chain(bases).collect();
        let mut needed = BTreeSet::new();
        while let Some(id) = next.pop() {
            if !needed.insert(id.clone()) {
                continue;
            }
            let nodes = by_id.get(id).into_iter().flat_map(|commit| &commit.nodes);
            next.extend(nodes.filter_map(|node| node.memory.as_ref()?.base.as_ref()));
        }
        needed
    }

    /// Returns the deleted commits that nothing needs, newest first: none is removed before those
    /// that are made of it.
    pub fn dead_commits(&self) -> Vec<&Commit> {
        let needed = self.needed_commits();
        let mut dead: Vec<&Commit> =
            self.commits.iter().filter(|commit| !needed.contains(&commit.id)).collect();
        dead.sort_by_key(|commit| std::cmp::Reverse((commit.created_at, commit.id.clone())));
        dead
    }

    /// Returns the layers that branches and kept commits lie on.
    pub fn used_layers(&self) -> BTreeSet<LayerId> {
        let of_branches = self.branches.iter().flat_map(|branch| &branch.nodes);
        let of_branches = of_branches.flat_map(|node| node.layers.iter());
        let kept = self.commits.iter().filter(|commit| !commit.deleted);
        let of_commits = kept.flat_map(|commit| &commit.nodes);
        let of_commits = of_commits.flat_map(|node| node.layers.iter());
        let mut next: Vec<&LayerId> = of_branches.chain(of_commits).collect();
        let mut used = BTreeSet::new();
        while let Some(id) = next.pop() {
            if used.insert(id.clone())
                && let Some(Below::Layer(below)) = self.layers.get(id).map(|layer| &layer.below)
            {
                next.push(below);
            }
        }
        used
    }

    /// Returns the unused layers among `tops` and those below them, upper ones first.
    pub fn dead_layers(&self, tops: &[LayerId]) -> Vec<LayerId> {
        let used = self.used_layers();
        let mut dead: Vec<LayerId> = Vec::new();
        let mut next: Vec<LayerId> = tops.to_vec();
        // The highest first: what lies on a layer goes before it.
        next.sort_by_key(|id| self.layers.get(id).map_or(0, |layer| layer.depth));
        while let Some(id) = next.pop() {
            let Some(layer) = self.layers.get(&id) else { continue };
            let below = Below::Layer(id.clone());
            let covered =
                self.layers.values().any(|above| above.below == below && !dead.contains(&above.id));
            if used.contains(&id) || covered || dead.contains(&id) {
                continue;
            }
            if let Below::Layer(below) = &layer.below {
                next.insert(0, below.clone());
            }
            dead.push(id);
        }
        dead
    }
}

/// Returns the layers of a branch's nodes.
pub(crate) fn branch_layers(branch: &Branch) -> Vec<LayerId> {
    branch.nodes.iter().flat_map(|node| node.layers.iter()).cloned().collect()
}

/// Returns the layers of a commit's nodes.
pub(crate) fn commit_layers(commit: &Commit) -> Vec<LayerId> {
    commit.nodes.iter().flat_map(|node| node.layers.iter()).cloned().collect()
}

/// What goes with a sweep, in the same transaction.
#[derive(Default)]
pub(crate) struct Gone {
    /// Branches that have no incarnation and no files any more.
    pub branches: Vec<Branch>,
    /// Commits that are deleted: at once where nothing is made of them, as tombstones otherwise.
    pub commits: Vec<CommitId>,
    /// Other records that go or change.
    pub records: Transaction,
    /// Layers that may be unused afterwards; those below them are looked at too.
    pub tops: Vec<LayerId>,
}

impl Engine {
    /// Removes what is gone, deleted commits that nothing needs, and unused layers, files first.
    /// One sweep at a time: two that remove the last two users of a layer would each leave it to
    /// the other. May be repeated. Returns what was removed.
    pub(crate) async fn sweep(&self, gone: Gone) -> Result<Swept> {
        let set = LockSet::new().with("layers", Hold::Exclusive);
        let _guard = self.locks.acquire(set, "removing layers", self.config.undo_timeout).await?;
        let mut records = Records::load(&*self.store).await?;
        let mut changes = gone.records;
        for branch in &gone.branches {
            records.branches.retain(|other| other.id != branch.id);
            changes.delete::<Branch>(branch.key());
        }
        for commit in &mut records.commits {
            if gone.commits.contains(&commit.id) && !commit.deleted {
                commit.deleted = true;
                changes.put(commit);
            }
        }
        let mut tops = gone.tops;
        let mut swept = Swept::default();
        let dead: Vec<Commit> = records.dead_commits().into_iter().cloned().collect();
        for commit in dead {
            self.host.discard_commit(&commit.id).await?;
            changes.puts.retain(|(_, row)| row.key != commit.key());
            changes.delete::<Commit>(commit.key());
            tops.extend(commit_layers(&commit));
            swept.commits.push(commit);
        }
        swept.layers = records.dead_layers(&tops);
        for layer in &swept.layers {
            self.host.discard_layer(layer).await?;
            changes.delete::<Layer>(layer.to_string());
        }
        if !changes.is_empty() {
            self.store.write(&changes).await?;
        }
        Ok(swept)
    }
}

/// What a sweep removed.
#[derive(Default)]
pub(crate) struct Swept {
    pub commits: Vec<Commit>,
    pub layers: Vec<LayerId>,
}
