//! `branch_create`: one or several live copies of a commit, or of a live branch, which is cut
//! first. Each branch comes to be whole or not at all; the operation fails if none does.

use async_trait::async_trait;
use futures_util::StreamExt;
use jiff::Timestamp;
use pando_api::ApiError;
use pando_api::branch::{BranchCreateResult, BranchCreated, InheritedCommand};
use pando_driver::host::{AfterStart, Clock, StartReport};
use pando_driver::store::{Guard, Record, Table, Transaction};
use pando_model::branch::BranchRole;
use pando_model::fault::Fault;
use pando_model::{
    Branch, BranchId, BranchState, Cluster, ClusterId, Commit, CommitId, CommitKind, Name,
    OperationId, OperationStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cut::Cut;
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::faults::{faults_at, reseeded};
use crate::incarnation::{Disks, Incarnation, random_hex};
use crate::locks::{Hold, LockSet};
use crate::operation::{ATTEMPTS, Cx, Kind, memo};

/// One branch that is asked for.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Item {
    pub branch: Branch,
    /// New disks; empty for a parked copy, which has its own.
    pub disks: Disks,
    /// The parked copy as it was, if it comes from one.
    pub parked: Option<Branch>,
    pub ready_ms: u64,
    pub inherited: Vec<InheritedCommand>,
    pub error: Option<ApiError>,
    pub made: bool,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct BranchCreate {
    pub cluster: Cluster,
    /// The live branch to cut, when one is branched from.
    pub cut: Option<Cut>,
    /// The commit; known from the beginning unless it is cut first.
    pub commit: Option<Commit>,
    pub items: Vec<Item>,
    pub frozen_clock: bool,
    pub paused: bool,
    /// What the branches' faults decide by, in place of what the commit's do.
    #[serde(default)]
    pub seed: Option<u64>,
    pub started_us: i64,
}

/// What a new branch starts from.
pub(crate) struct Origin<'a> {
    pub cluster: &'a Cluster,
    /// The branch that the commit was cut from.
    pub parent: &'a BranchId,
    pub commit: &'a CommitId,
    pub kind: CommitKind,
    pub faults: &'a [Fault],
}

/// Returns the record of a branch from a commit that is still to be started.
pub(crate) fn new_branch(origin: &Origin<'_>, name: Name, disks: &Disks, actor: &str) -> Branch {
    let id = BranchId::random();
    Branch {
        host_id: id.clone(),
        id,
        cluster: origin.cluster.id.clone(),
        name,
        role: BranchRole::Live,
        state: BranchState::Stopped,
        generation: 1,
        keeper_token: random_hex(),
        parent: Some(origin.parent.clone()),
        base: (origin.kind == CommitKind::Full).then(|| origin.commit.clone()),
        delta_base: None,
        head: Some(origin.commit.clone()),
        nodes: disks.nodes.clone(),
        advanced_ms: 0,
        unchanged: false,
        fresh: false,
        faults: origin.faults.to_vec(),
        stopped_because: None,
        powered_off: false,
        created_at: Timestamp::now(),
        created_by: actor.to_owned(),
    }
}

impl Item {
    pub fn new(branch: Branch, disks: Disks, parked: Option<Branch>) -> Self {
        Self { branch, disks, parked, ready_ms: 0, inherited: Vec::new(), error: None, made: false }
    }

    /// Starts one branch; on a failure nothing of it is left.
    async fn make(mut self, create: &BranchCreate, commit: &Commit, cx: &Cx) -> Self {
        self.branch.faults = create.faults(commit);
        match self.try_make(create, commit, cx).await {
            Ok(report) => {
                self.made = true;
                self.ready_ms = super::elapsed_ms(create.started_us);
                self.inherited = super::inherited(report);
            }
            Err(error) => {
                self.error = Some(error.0);
                for attempt in 1..=ATTEMPTS {
                    let Err(why) = self.unmake(&cx.engine).await else { break };
                    // What stays after the last attempt is unknown to all records: gc's.
                    tracing::warn!(attempt, error = %why.0, "a branch could not be unmade");
                }
            }
        }
        self
    }

    async fn try_make(
        &self,
        create: &BranchCreate,
        commit: &Commit,
        cx: &Cx,
    ) -> Result<StartReport> {
        if cx.cancel.is_cancelled() {
            return Err(Failure::new(pando_model::ErrorCode::Cancelled, "cancelled"));
        }
        let clock = if create.frozen_clock { Clock::Frozen } else { Clock::Step };
        if self.parked.is_some() {
            unpark_faults(&cx.engine, &self.branch).await?;
            if !create.paused {
                cx.engine.host.resume(&self.branch.host_id, clock).await?;
            }
            return Ok(StartReport {
                answered_us: 0,
                ready_us: 0,
                inherited: std::collections::BTreeMap::new(),
            });
        }
        self.disks.create(&cx.engine).await?;
        let incarnation = Incarnation {
            from: (commit.kind == CommitKind::Full).then_some(commit),
            after: if create.paused { AfterStart::Hold } else { AfterStart::Run },
            clock,
            ..Incarnation::new(&cx.engine, &create.cluster, &self.branch)
        };
        incarnation.start(cx).await
    }

    async fn unmake(&self, engine: &Engine) -> Result<()> {
        engine.remove_incarnation(&self.branch.host_id).await?;
        self.disks.discard(engine).await?;
        if let Some(parked) = &self.parked {
            for layer in crate::garbage::branch_layers(parked) {
                engine.host.discard_layer(&layer).await?;
            }
        }
        Ok(())
    }

    /// Adds the records that go with a branch that was not made.
    fn forget(&self, records: &mut Transaction) {
        records.delete::<Branch>(self.branch.key());
        for layer in self.parked.iter().flat_map(crate::garbage::branch_layers) {
            records.delete::<pando_model::commit::Layer>(layer.to_string());
        }
    }

    fn result(&self, cluster: &Cluster) -> BranchCreated {
        let vm_id = Some(crate::resolve::machine_id(cluster, &self.branch));
        BranchCreated {
            branch_id: self.made.then(|| self.branch.id.clone()),
            vm_id: vm_id.filter(|_| self.made),
            name: self.branch.name.clone(),
            address: format!("{}@{}", cluster.name, self.branch.name),
            state: if self.made { self.branch.state } else { BranchState::Stopped },
            warm: self.parked.is_some(),
            advanced_ms: self.branch.advanced_ms,
            ready_ms: self.ready_ms,
            inherited: self.inherited.clone(),
            error: self.error.clone(),
        }
    }
}

/// Gives a parked copy the ends and seeds of its branch's faults.
pub(crate) async fn unpark_faults(engine: &Engine, branch: &Branch) -> Result<()> {
    if !branch.faults.is_empty() {
        engine.host.set_faults(&branch.host_id, &branch.faults).await?;
    }
    Ok(())
}

impl BranchCreate {
    /// Returns the faults of a branch that begins now.
    fn faults(&self, commit: &Commit) -> Vec<Fault> {
        let faults = faults_at(&self.cluster, commit, Timestamp::now());
        match self.seed {
            Some(seed) => reseeded(faults, seed),
            None => faults,
        }
    }

    fn commit(&self) -> Result<&Commit> {
        self.commit.as_ref().ok_or_else(|| Failure::internal("branched before it was cut"))
    }

    async fn cut(&mut self, cx: &Cx) -> Result<Transaction> {
        let Some(cut) = &mut self.cut else { return Ok(Transaction::new()) };
        if self.commit.is_some() {
            return Ok(Transaction::new());
        }
        cut.make(cx).await?;
        let (mut records, commit) = cut.records(cx);
        let faults = self.faults(&commit);
        for item in self.items.iter_mut().filter(|item| item.branch.faults != faults) {
            item.branch.faults.clone_from(&faults);
            records.put(&item.branch);
        }
        self.commit = Some(commit);
        Ok(records)
    }

    async fn make(&mut self, cx: &Cx) -> Result<Transaction> {
        let commit = self.commit()?.clone();
        if commit.kind == CommitKind::Full && self.items.iter().any(|item| item.parked.is_none()) {
            // Once, and not by each worker.
            cx.engine.materialise(&commit, &cx.reporter).await?;
        }
        let total = self.items.len() as u64;
        let workers = cx.engine.config.workers;
        let this = &*self;
        let work = this.items.clone().into_iter().map(|item| item.make(this, &commit, cx));
        let mut done = 0;
        let mut items = Vec::with_capacity(this.items.len());
        let mut running = futures_util::stream::iter(work).buffered(workers);
        while let Some(item) = running.next().await {
            done += 1;
            cx.reporter.report(format!("{} answers", item.branch.name), done, total);
            items.push(item);
        }
        drop(running);
        self.items = items;
        if self.items.iter().any(|item| item.made) {
            return Ok(Transaction::new());
        }
        let first = self.items.iter().find_map(|item| item.error.clone());
        Err(first.map_or_else(|| Failure::internal("no branch was asked for"), Failure))
    }
}

#[async_trait]
impl Kind for BranchCreate {
    fn steps(&self) -> &'static [&'static str] {
        &["commit", "branches"]
    }

    fn locks(&self) -> LockSet {
        let mut set = LockSet::new().cluster(&self.cluster.id, Hold::Shared);
        match (&self.cut, &self.commit) {
            (Some(cut), _) => set = set.branch(&cut.branch.id),
            (None, Some(commit)) => set = set.commit(&commit.id),
            (None, None) => {}
        }
        self.items.iter().fold(set, |set, item| set.branch(&item.branch.id))
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster.id.clone())
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    fn intent(&self) -> Transaction {
        let mut records = Transaction::new();
        for item in &self.items {
            if item.parked.is_some() {
                records.guard(Guard::Status(Table::Branches, item.branch.key(), "parked"));
            }
            records.put(&item.branch);
        }
        records
    }

    fn unrecord(&self) -> Transaction {
        let mut records = Transaction::new();
        for item in &self.items {
            match &item.parked {
                Some(parked) => records.put(parked),
                None => records.delete::<Branch>(item.branch.key()),
            };
        }
        records
    }

    /// Parked copies are not put back: whoever wants one makes a new one.
    fn revert(&self) -> Transaction {
        let mut records = Transaction::new();
        for item in &self.items {
            item.forget(&mut records);
        }
        records
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        match step {
            "commit" => self.cut(cx).await,
            _ => self.make(cx).await,
        }
    }

    async fn undo(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        if step == "branches" {
            for item in &self.items {
                item.unmake(&cx.engine).await?;
            }
            return Ok(Transaction::new());
        }
        let Some(cut) = &mut self.cut else { return Ok(Transaction::new()) };
        let mut records = Transaction::new();
        records.put(&cut.branch);
        records.merge(cut.undo(cx).await?);
        Ok(records)
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        let mut records = Transaction::new();
        let state = if self.paused { BranchState::Paused } else { BranchState::Running };
        for item in &mut self.items {
            if !item.made {
                item.forget(&mut records);
                continue;
            }
            item.branch.state = state;
            records.put(&item.branch);
            for layer in &item.disks.layers {
                records.put(layer);
            }
        }
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        let branches: Vec<BranchCreated> =
            self.items.iter().map(|item| item.result(&self.cluster)).collect();
        let succeeded = self.items.iter().filter(|item| item.made).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let only = branches.first().filter(|_| branches.len() == 1);
        let Some(commit) = &self.commit else { return Value::Null };
        let pause_ms = if self.cut.is_some() { commit.pause_us / 1000 } else { 0 };
        memo(&BranchCreateResult {
            commit_id: commit.id.clone(),
            succeeded: count(succeeded),
            failed: count(branches.len() - succeeded),
            pause_ms,
            branch_id: only.and_then(|only| only.branch_id.clone()),
            vm_id: only.and_then(|only| only.vm_id.clone()),
            branches,
        })
    }

    fn settled(&self, engine: &Engine, status: OperationStatus) {
        let Some(commit) = &self.commit else { return };
        match &self.cut {
            Some(cut) if status == OperationStatus::Succeeded => {
                engine.after_commit(&commit.id, &cut.branch.id);
            }
            _ => engine.replenish_later(&commit.id),
        }
    }
}
