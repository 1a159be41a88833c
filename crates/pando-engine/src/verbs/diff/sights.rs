//! Looks at nodes of both sides of a comparison: a live branch is captured, a commit is looked into
//! once for all of them and its captures kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use pando_diff::Act;
use pando_model::capture::{Aspect, Capture};
use pando_model::{BranchId, Commit, Name};

use super::subject::{Pair, Subject};
use crate::captures::{MAX_CAPTURES_AT_ONCE, Sight, lists};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::ops::look::Wanted;
use crate::resolve::{Place, Target};

/// A node on a side of the comparison, captured.
pub(super) struct SideOf {
    pub sight: Sight,
    pub branch: BranchId,
    pub node: Name,
    /// What was done on it since the common ancestor.
    pub acts: Vec<Act>,
}

/// What was seen of nodes, or why nothing was.
pub(super) type Sights = BTreeMap<Name, Result<Sight>>;

/// What both sides and their ancestor look like. Of the latter nothing where it cannot be known.
pub(super) struct Seen {
    pub from: Sights,
    pub to: Sights,
    pub ancestor: BTreeMap<Name, Sight>,
}

/// A node's capture and what its comparison needs beside it.
struct Need {
    node: Name,
    sight: Sight,
    lists: Vec<String>,
    digests: Vec<String>,
}

/// Captures that nodes will be compared with.
type Against = BTreeMap<Name, Arc<Capture>>;

/// Returns captures of one side by the names that the nodes have on the other.
fn against<'a>(sights: &Sights, names: impl Iterator<Item = (&'a Name, &'a Name)>) -> Against {
    let capture = |(here, there): (&Name, &Name)| {
        let sight = sights.get(here)?.as_ref().ok()?;
        Some((there.clone(), Arc::clone(&sight.capture)))
    };
    names.filter_map(capture).collect()
}

impl Engine {
    /// Captures nodes of a side. Of a live one, digests come later; of a commit that is looked
    /// into, what the comparison with `against` needs is taken along.
    async fn sights_of(
        &self,
        subject: &Subject,
        nodes: Vec<Name>,
        mut against: Against,
    ) -> Result<Sights> {
        match subject {
            Subject::Live(place) => {
                let captures = nodes.into_iter().map(async |node| {
                    let target = Target { place: place.clone(), node };
                    let capture = self.capture_live(&target, Aspect::ALL).await;
                    let sight = |capture| Sight { capture: Arc::new(capture), ..Sight::default() };
                    (target.node, capture.map(sight))
                });
                Ok(stream::iter(captures).buffer_unordered(MAX_CAPTURES_AT_ONCE).collect().await)
            }
            Subject::Commit(cluster, commit) => {
                let nodes = nodes.into_iter().map(|node| {
                    let against = against.remove(&node);
                    (node, against)
                });
                let sights = self.sights_of_commit(cluster, commit, nodes.collect()).await?;
                Ok(sights.into_iter().map(|(node, sight)| (node, Ok(sight))).collect())
            }
            Subject::Kept(kept, _) => {
                Ok(BTreeMap::from([(kept.node.clone(), Ok(kept.sight.clone()))]))
            }
        }
    }

    /// Captures pairs of nodes, and the commit that they descend from, as much at once as can be.
    pub(super) async fn sights(
        &self,
        from: &Subject,
        to: &Subject,
        base: Option<&Commit>,
        pairs: &[Pair],
    ) -> Result<Seen> {
        let is = |subject: &Subject| {
            base.is_some_and(|base| subject.commit().is_some_and(|commit| commit.id == base.id))
        };
        let ours = || pairs.iter().map(|(ours, _)| ours.clone()).collect::<Vec<_>>();
        let theirs = || pairs.iter().map(|(_, theirs)| theirs.clone()).collect::<Vec<_>>();
        let ancestor = async {
            let looked = base.filter(|_| !is(from) && !is(to)).zip(to.cluster());
            let Some((base, cluster)) = looked else { return BTreeMap::new() };
            let has = |name: &Name| base.nodes.iter().any(|node| node.name == *name);
            let nodes = theirs().into_iter().filter(has).map(|node| (node, None)).collect();
            // Without it is only unknown who changed what.
            self.sights_of_commit(cluster, base, nodes).await.unwrap_or_else(|failure| {
                tracing::info!(commit = %base.id, error = %failure.0, "no look at the ancestor");
                BTreeMap::new()
            })
        };
        let sides = async {
            // Of a commit is asked what the other side makes necessary: so that one goes first.
            if from.commit().is_some() {
                let second = self.sights_of(to, theirs(), Against::new()).await?;
                let against = against(&second, pairs.iter().map(|(ours, theirs)| (theirs, ours)));
                let first = self.sights_of(from, ours(), against).await?;
                return Ok((first, second));
            }
            if to.commit().is_some() {
                let first = self.sights_of(from, ours(), Against::new()).await?;
                let against = against(&first, pairs.iter().map(|(ours, theirs)| (ours, theirs)));
                let second = self.sights_of(to, theirs(), against).await?;
                return Ok((first, second));
            }
            let (first, second) = tokio::join!(
                self.sights_of(from, ours(), Against::new()),
                self.sights_of(to, theirs(), Against::new()),
            );
            Ok::<_, Failure>((first?, second?))
        };
        let (sides, ancestor) = tokio::join!(sides, ancestor);
        let (from, to) = sides?;
        Ok(Seen { from, to, ancestor })
    }

    /// Gets the digests, the packages' lists and the file that the comparisons still lack. Each node
    /// comes with the other side's capture and the files whose contents are to be compared.
    pub(super) async fn complete(
        &self,
        subject: &Subject,
        sights: &mut Sights,
        needs: BTreeMap<Name, (Arc<Capture>, Vec<String>)>,
        file: Option<&String>,
    ) -> Result<()> {
        if let Subject::Kept(..) = subject {
            // What was not noted then is gone.
            return Ok(());
        }
        let mut lacking = Vec::new();
        for (node, (other, digests)) in needs {
            let Some(Ok(sight)) = sights.get(&node) else { continue };
            let mut lists = lists(&sight.capture, &other);
            lists.retain(|name| !sight.lists.contains_key(name));
            let unknown = |path: &&String| !sight.capture.digests.contains_key(*path);
            let digests: Vec<String> = digests.iter().filter(unknown).cloned().collect();
            if lists.is_empty() && digests.is_empty() && file.is_none() {
                continue;
            }
            // Taken out, so that nobody else holds what is added to.
            if let Some(Ok(sight)) = sights.remove(&node) {
                lacking.push(Need { node, sight, lists, digests });
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        match subject {
            Subject::Live(place) => {
                let completed = lacking.into_iter().map(async |need| {
                    let node = need.node.clone();
                    (node, self.complete_live(place, need, file).await)
                });
                let completed = stream::iter(completed).buffer_unordered(MAX_CAPTURES_AT_ONCE);
                sights.extend(completed.collect::<Vec<_>>().await);
            }
            Subject::Commit(cluster, commit) => {
                let files: Vec<String> = file.into_iter().cloned().collect();
                let wanted = lacking.iter().map(|Need { node, lists, digests, .. }| {
                    let (digests, lists, files) = (digests.clone(), lists.clone(), files.clone());
                    (node.clone(), Wanted { digests, lists, files, ..Wanted::default() })
                });
                let mut seen = self.look_into(cluster, commit, wanted.collect()).await?;
                for Need { node, mut sight, .. } in lacking {
                    if let Some(seen) = seen.remove(&node) {
                        let digests = seen.capture.digests.clone();
                        Arc::make_mut(&mut sight.capture).digests.extend(digests);
                        sight.lists.extend(seen.lists);
                        sight.files = seen.files;
                        self.keep_commit(commit, &node, &sight).await;
                    }
                    sights.insert(node, Ok(sight));
                }
            }
            Subject::Kept(..) => {}
        }
        Ok(())
    }

    async fn complete_live(
        &self,
        place: &Place,
        need: Need,
        file: Option<&String>,
    ) -> Result<Sight> {
        let Need { node, mut sight, lists, digests } = need;
        let host_id = &place.branch.host_id;
        self.read_lists(host_id, &node, lists, &mut sight).await;
        if !digests.is_empty() {
            let digests = self.host.digests(host_id, &node, &digests).await?;
            Arc::make_mut(&mut sight.capture).digests.extend(digests);
        }
        if let Some(path) = file {
            let text = self.read_text(host_id, &node, path).await?;
            sight.files.insert(path.clone(), text);
        }
        Ok(sight)
    }
}
