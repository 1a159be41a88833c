//! A look into a full commit: a copy of it is restored without network, asked for its state, and
//! ended. Its nodes reach one another as at the cut, and nobody else. What it says is for the caller
//! only; the operation is there so that nothing of the copy stays, whatever happens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use pando_driver::host::Clock;
use pando_driver::store::Transaction;
use pando_model::branch::BranchRole;
use pando_model::capture::{Aspect, Capture};
use pando_model::{Branch, Cluster, ClusterId, Commit, Name, OperationId, Uplink};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::branch_create::{Origin, new_branch};
use crate::captures::{MAX_CAPTURES_AT_ONCE, Sight};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::faults::{faults_of, without_end};
use crate::incarnation::{Disks, Incarnation};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Kind, Plan, Request, memo, outcome};
use crate::resolve::Place;
use crate::verbs::diff::{MAX_PROBED_NODES, how_to_ask};

/// The verb under which it is recorded.
pub(crate) const VERB: &str = "commit_look";

/// What is wanted of a commit's node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Its state.
    pub aspects: Vec<Aspect>,
    /// What it will be compared with: digests and lists that this will need are taken along.
    pub against: Option<Arc<Capture>>,
    /// Files to digest.
    pub digests: Vec<String>,
    /// Packages whose lists of files to read.
    pub lists: Vec<String>,
    /// Files to read.
    pub files: Vec<String>,
}

/// Returns how often the nodes of a commit are asked whom they reach and how long for answers is
/// waited; `None` where they are not asked.
pub(crate) fn probe_of(cluster: &Cluster, commit: &Commit) -> Option<(u32, Duration)> {
    let many = (2..=MAX_PROBED_NODES).contains(&commit.nodes.len());
    let asks = many && !cluster.networks.is_empty();
    asks.then(|| how_to_ask(faults_of(cluster, commit).iter()))
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Look {
    cluster: Cluster,
    commit: Commit,
    branch: Branch,
    disks: Disks,
    #[serde(skip)]
    wanted: BTreeMap<Name, Wanted>,
    #[serde(skip)]
    seen: Arc<Mutex<BTreeMap<Name, Sight>>>,
}

impl Look {
    async fn plan(
        engine: &Engine,
        cluster: &Cluster,
        commit: &Commit,
        wanted: BTreeMap<Name, Wanted>,
    ) -> Result<Self> {
        let disks = engine.disks_on_commit(commit, None).await?;
        // As at the cut, for as long as the look takes.
        let faults = without_end(faults_of(cluster, commit));
        let origin = Origin {
            cluster,
            parent: &commit.branch,
            commit: &commit.id,
            kind: commit.kind,
            faults: &faults,
        };
        let mut branch = new_branch(&origin, commit.branch_name.clone(), &disks, "pando");
        branch.role = BranchRole::Template;
        // Nobody outside is to hear of it.
        let mut cluster = Cluster { uplink: Uplink::None, ..cluster.clone() };
        cluster.networks.iter_mut().for_each(|segment| segment.uplink = Uplink::None);
        let commit = commit.clone();
        Ok(Self { cluster, commit, branch, disks, wanted, seen: Arc::default() })
    }

    async fn look(&self, cx: &Cx) -> Result<()> {
        let incarnation = Incarnation {
            from: Some(&self.commit),
            // A step of the clock would start what waits for a time.
            clock: Clock::Frozen,
            ..Incarnation::new(&cx.engine, &self.cluster, &self.branch)
        };
        incarnation.start(cx).await?;
        let looks = self.wanted.clone().into_iter().map(|(node, wanted)| async move {
            let sight = self.look_at(&cx.engine, &node, &wanted).await?;
            Ok::<_, Failure>((node, sight))
        });
        let looks = stream::iter(looks).buffer_unordered(MAX_CAPTURES_AT_ONCE);
        let mut sights: BTreeMap<Name, Sight> = looks.try_collect().await?;
        // Afterwards: what guests are asked here is not to be seen in their captures.
        if sights.values().any(|sight| !sight.capture.coverage.is_empty()) {
            self.ask_all(&cx.engine, &mut sights).await?;
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = sights;
        Ok(())
    }

    /// Asks all nodes of the copy whom they reach. What is not known is not noted.
    async fn ask_all(&self, engine: &Engine, sights: &mut BTreeMap<Name, Sight>) -> Result<()> {
        let Some((count, timeout)) = probe_of(&self.cluster, &self.commit) else { return Ok(()) };
        let place = Place { cluster: self.cluster.clone(), branch: self.branch.clone() };
        let rows = engine.probed_by_all(&place, count, timeout).await?;
        for (node, sight) in sights {
            let own = rows.iter().filter(|row| row.from == node.as_str());
            if own.clone().all(|row| row.reachable.is_some()) {
                sight.reached = Some(own.cloned().collect());
            }
        }
        Ok(())
    }

    async fn look_at(&self, engine: &Engine, node: &Name, wanted: &Wanted) -> Result<Sight> {
        let host_id = &self.branch.host_id;
        let mut sight = Sight::default();
        if !wanted.aspects.is_empty() {
            let mut capture = engine.host.capture(host_id, node, &wanted.aspects).await?;
            // Its clock goes on from the cut: what it says of the time before is not shifted.
            capture.ahead_ns = 0;
            sight.capture = Arc::new(capture);
        }
        let mut digests = wanted.digests.clone();
        engine.read_lists(host_id, node, wanted.lists.clone(), &mut sight).await;
        if let Some(against) = &wanted.against {
            digests.extend(pando_diff::candidates(&sight.capture, against));
            let lists = crate::captures::lists(&sight.capture, against);
            engine.read_lists(host_id, node, lists, &mut sight).await;
        }
        if !digests.is_empty() {
            let digests = engine.host.digests(host_id, node, &digests).await?;
            Arc::make_mut(&mut sight.capture).digests.extend(digests);
        }
        for path in &wanted.files {
            let text = engine.read_text(host_id, node, path).await?;
            sight.files.insert(path.clone(), text);
        }
        Ok(sight)
    }
}

#[async_trait]
impl Kind for Look {
    fn steps(&self) -> &'static [&'static str] {
        &["disks", "look", "end"]
    }

    fn locks(&self) -> LockSet {
        LockSet::new().cluster(&self.commit.cluster, Hold::Shared).commit(&self.commit.id)
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "disks" => self.disks.create(&cx.engine).await?,
            "look" => self.look(cx).await?,
            _ => {
                cx.engine.remove_incarnation(&self.branch.host_id).await?;
                self.disks.discard(&cx.engine).await?;
            }
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "disks" => self.disks.discard(&cx.engine).await?,
            "look" => cx.engine.remove_incarnation(&self.branch.host_id).await?,
            _ => {}
        }
        Ok(Transaction::new())
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    fn result(&self, _: &OperationId) -> Value {
        serde_json::json!({ "commit_id": self.commit.id })
    }
}

impl Engine {
    /// Looks into nodes of a full commit, all of which are restored.
    pub(crate) async fn look_into(
        &self,
        cluster: &Cluster,
        commit: &Commit,
        wanted: BTreeMap<Name, Wanted>,
    ) -> Result<BTreeMap<Name, Sight>> {
        let locks = LockSet::new().cluster(&cluster.id, Hold::Shared).commit(&commit.id);
        let what = format!("{VERB} of {}", commit.id);
        let guard = self.locks.acquire(locks, &what, self.config.lock_wait).await?;
        // Again, under the lock.
        let commit = self.commit_by_id(&commit.id).await?;
        self.check_memory(commit.nodes.len(), "a look into a commit").await?;
        let look = Look::plan(self, cluster, &commit, wanted).await?;
        let seen = look.seen.clone();
        let plan = Plan { kind: Box::new(look), guard, timeout: self.config.restore_timeout * 3 };
        outcome(self.submit(Request::internal(VERB, "pando"), plan).await?).await?;
        let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(seen)
    }
}
