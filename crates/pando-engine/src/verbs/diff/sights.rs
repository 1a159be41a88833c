//! Looks at both sides of a comparison: a live branch is captured, a commit is looked into once and
//! its capture kept.

use std::sync::Arc;

use pando_diff::Act;
use pando_model::Commit;
use pando_model::capture::{Aspect, Capture};

use super::subject::Subject;
use crate::captures::{Sight, lists};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::ops::look::Wanted;
use crate::resolve::{Place, Target};

/// A side of the comparison, captured.
pub(super) struct SideOf {
    pub sight: Sight,
    /// What was done on it since the common ancestor.
    pub acts: Vec<Act>,
}

impl Engine {
    /// Captures a side. Of a live one, digests come later; of a commit that is looked into, what
    /// the comparison with `against` needs is taken along.
    async fn sight(
        &self,
        subject: &Subject,
        aspects: &[Aspect],
        against: Option<Arc<Capture>>,
    ) -> Result<Sight> {
        match subject {
            Subject::Live(target) => {
                self.must_run(&target.place)?;
                let capture = self.capture_live(target, aspects).await?;
                Ok(Sight { capture, ..Sight::default() })
            }
            Subject::Commit(cluster, commit, node) => {
                self.sight_of_commit(cluster, commit, node, against).await
            }
            Subject::Kept(kept, _) => Ok(kept.sight.clone()),
        }
    }

    /// Gets the digests, the packages' lists and the file that a comparison still lacks.
    pub(super) async fn complete(
        &self,
        subject: &Subject,
        sight: &mut Sight,
        other: &Capture,
        digests: &[String],
        file: Option<&String>,
    ) -> Result<()> {
        let lacking: Vec<String> = digests
            .iter()
            .filter(|path| !sight.capture.digests.contains_key(*path))
            .cloned()
            .collect();
        match subject {
            Subject::Live(target) => {
                let (host_id, node) = (&target.place.branch.host_id, &target.node);
                let names = lists(&sight.capture, other);
                self.read_lists(host_id, node, names, sight).await;
                if !lacking.is_empty() {
                    let found = self.host.digests(host_id, node, &lacking).await?;
                    sight.capture.digests.extend(found);
                }
                if let Some(path) = file {
                    let text = self.read_text(host_id, node, path).await?;
                    sight.files.insert(path.clone(), text);
                }
            }
            Subject::Commit(cluster, commit, node) => {
                let mut lists = lists(&sight.capture, other);
                lists.retain(|name| !sight.lists.contains_key(name));
                if lacking.is_empty() && lists.is_empty() && file.is_none() {
                    return Ok(());
                }
                let files = file.into_iter().cloned().collect();
                let wanted = Wanted { digests: lacking, lists, files, ..Wanted::default() };
                let seen = self.look_into(cluster, commit, node, wanted).await?;
                sight.capture.digests.extend(seen.capture.digests);
                sight.lists.extend(seen.lists);
                sight.files = seen.files;
                self.keep_commit(commit, node, sight).await;
            }
            // What was not noted then is gone.
            Subject::Kept(..) => {}
        }
        Ok(())
    }

    /// Captures both sides and the commit that they descend from, as much at once as can be.
    pub(super) async fn sights(
        &self,
        from: &Subject,
        to: &Subject,
        base: Option<&Commit>,
        aspects: &[Aspect],
    ) -> Result<(Sight, Sight, Option<Sight>)> {
        let is = |subject: &Subject| {
            base.is_some_and(|base| subject.commit().is_some_and(|commit| commit.id == base.id))
        };
        let ancestor = async {
            let base = base.filter(|_| !is(from) && !is(to))?;
            let (Subject::Live(Target { place: Place { cluster, .. }, .. })
            | Subject::Commit(cluster, ..)) = to
            else {
                return None;
            };
            // Without it is only unknown who changed what.
            match self.sight_of_commit(cluster, base, to.node(), None).await {
                Ok(sight) => Some(sight),
                Err(failure) => {
                    tracing::info!(commit = %base.id, error = %failure.0, "no look at the ancestor");
                    None
                }
            }
        };
        let sides = async {
            // Of a commit is asked what the other side makes necessary: so that one goes first.
            if from.commit().is_some() {
                let second = self.sight(to, aspects, None).await?;
                let against = Some(Arc::new(second.capture.clone()));
                let first = self.sight(from, aspects, against).await?;
                return Ok((first, second));
            }
            if to.commit().is_some() {
                let first = self.sight(from, aspects, None).await?;
                let against = Some(Arc::new(first.capture.clone()));
                let second = self.sight(to, aspects, against).await?;
                return Ok((first, second));
            }
            let (first, second) =
                tokio::join!(self.sight(from, aspects, None), self.sight(to, aspects, None));
            Ok::<_, Failure>((first?, second?))
        };
        let (sides, ancestor) = tokio::join!(sides, ancestor);
        let (first, second) = sides?;
        Ok((first, second, ancestor))
    }
}
