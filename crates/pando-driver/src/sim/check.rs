//! What exists in a world against what its records say: leaks, and things that are missing.

use std::collections::BTreeSet;

use pando_model::branch::BranchRole;
use pando_model::commit::Layer;
use pando_model::{
    Branch, BranchState, Cluster, Commit, Image, Operation, OperationStatus, ReadyState,
};

use super::SimWorld;
use crate::store::{Query, Record, StoreError};

impl SimWorld {
    /// Returns a line for every thing that exists and that no record names, and for every thing
    /// that a record names and that does not exist. Empty is right once no operation runs.
    ///
    /// # Errors
    /// A record that cannot be read back.
    pub async fn discrepancies(&self) -> Result<Vec<String>, StoreError> {
        let connection = self.connect();
        let store = connection.store();
        let everything = Query::all();
        let clusters: Vec<Cluster> = store.list(&everything).await?;
        let branches: Vec<Branch> = store.list(&everything).await?;
        let commits: Vec<Commit> = store.list(&everything).await?;
        let layers: Vec<Layer> = store.list(&everything).await?;
        let images: Vec<Image> = store.list(&everything).await?;
        let ready: Vec<ReadyState> = store.list(&everything).await?;
        let open =
            Query { statuses: vec!["queued", "running", "undoing", "stuck"], ..Query::all() };
        let operations: Vec<Operation> = store.list(&open).await?;
        let state = self.state();
        let mut lines = Vec::new();

        let hosts: BTreeSet<_> = branches.iter().map(|branch| branch.host_id.clone()).collect();
        compare(&mut lines, "branch files", &state.branch_dirs, |id| hosts.contains(id));
        for id in state.keepers.keys().filter(|id| !hosts.contains(*id)) {
            lines.push(format!("leaked: keeper {id}"));
        }
        for branch in &branches {
            let observed = state.keepers.get(&branch.host_id);
            let is = observed.map_or(BranchState::Stopped, |keeper| keeper.state);
            if is != branch.state {
                lines.push(format!("{} is {is:?}, recorded {:?}", branch.id, branch.state));
            }
            if let Some(keeper) = observed
                && keeper.spec.generation != branch.generation
            {
                lines.push(format!("{} has another generation", branch.id));
            }
            for node in &branch.nodes {
                let runs_on = observed.and_then(|keeper| keeper.nodes.get(&node.name));
                if runs_on.is_some_and(|running| running.layers != node.layers) {
                    lines.push(format!("{} runs on another layer than recorded", branch.id));
                }
            }
            let known = clusters.iter().any(|cluster| cluster.id == branch.cluster);
            if branch.role != BranchRole::Template && !known {
                lines.push(format!("{} has no cluster", branch.id));
            }
        }

        let recorded: BTreeSet<_> = layers.iter().map(|layer| layer.id.clone()).collect();
        let there: BTreeSet<_> = state.layers.keys().cloned().collect();
        compare(&mut lines, "layer", &there, |id| recorded.contains(id));
        compare_missing(&mut lines, "layer", &recorded, |id| there.contains(id));
        for layer in &layers {
            if state.layers.get(&layer.id).is_some_and(|file| file.layer.below != layer.below) {
                lines.push(format!("{} lies on something else than recorded", layer.id));
            }
        }
        let mut used = BTreeSet::new();
        let tops = branches.iter().flat_map(|branch| &branch.nodes);
        let frozen = commits.iter().filter(|commit| !commit.deleted).flat_map(|c| &c.nodes);
        let of_branches = tops.flat_map(|node| node.layers.iter());
        let of_commits = frozen.flat_map(|node| node.layers.iter());
        for top in of_branches.chain(of_commits) {
            used.extend(state.chain(top));
        }
        compare(&mut lines, "unreferenced layer", &recorded, |id| used.contains(id));
        compare_missing(&mut lines, "referenced layer", &used, |id| recorded.contains(id));

        let recorded: BTreeSet<_> = commits.iter().map(|commit| commit.id.clone()).collect();
        let there: BTreeSet<_> = state.commits.keys().cloned().collect();
        compare(&mut lines, "commit", &there, |id| recorded.contains(id));
        let with_memory = commits.iter().filter(|c| c.nodes.iter().any(|n| n.memory.is_some()));
        let with_memory: BTreeSet<_> = with_memory.map(|commit| commit.id.clone()).collect();
        compare_missing(&mut lines, "commit", &with_memory, |id| there.contains(id));
        for commit in &commits {
            let known = clusters.iter().any(|cluster| cluster.id == commit.cluster);
            if !known && !ready.iter().any(|ready| ready.commit == commit.id) {
                lines.push(format!("{} has no cluster and is no ready state", commit.id));
            }
        }
        for (commit, _) in state.spools.keys().map(|(branch, commit)| (commit, branch)) {
            lines.push(format!("leaked: spool of {commit}"));
        }

        let recorded: BTreeSet<_> = images.iter().map(|image| image.id.clone()).collect();
        let there: BTreeSet<_> = state.images.keys().cloned().collect();
        compare(&mut lines, "image", &there, |id| recorded.contains(id));
        compare_missing(&mut lines, "image", &recorded, |id| there.contains(id));
        for operation in operations.iter().filter(|operation| !operation.status.is_final()) {
            lines.push(format!("unfinished: {} {}", operation.verb, operation.key()));
        }
        for operation in operations.iter().filter(|op| op.status == OperationStatus::Stuck) {
            let why = operation.error.as_ref().map(ToString::to_string).unwrap_or_default();
            lines.push(format!("stuck: {} {}: {why}", operation.verb, operation.key()));
        }
        Ok(lines)
    }
}

fn compare<T: std::fmt::Display>(
    lines: &mut Vec<String>,
    what: &str,
    there: &BTreeSet<T>,
    known: impl Fn(&T) -> bool,
) {
    lines.extend(there.iter().filter(|id| !known(id)).map(|id| format!("leaked: {what} {id}")));
}

fn compare_missing<T: std::fmt::Display>(
    lines: &mut Vec<String>,
    what: &str,
    recorded: &BTreeSet<T>,
    there: impl Fn(&T) -> bool,
) {
    lines.extend(recorded.iter().filter(|id| !there(id)).map(|id| format!("missing: {what} {id}")));
}
