//! `gc`: remove what nothing refers to. Files are listed before records are read: whatever was
//! there at the first look had its intent recorded before, so a file that no record and no
//! unfinished operation names belongs to nobody.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::Timestamp;
use pando_api::system::{GcItem, GcResult};
use pando_driver::store::{Cursor, Query, Transaction};
use pando_model::{BranchId, ByteCount, CommitId, Image, ImageId, LayerId, Operation, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Engine;
use crate::failure::Result;
use crate::garbage::{Gone, Records};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Direction, Kind, memo};

/// Most things that the result lists.
const MAX_ITEMS: usize = 200;

/// Records of operations that are read at once.
const PAGE: u32 = 100;

/// Statuses of operations that may still use what their memo names.
pub(crate) const UNFINISHED: [&str; 3] = ["queued", "running", "undoing"];

/// Statuses of operations whose record is only history.
const ENDED: [&str; 3] = ["succeeded", "failed", "cancelled"];

#[derive(Serialize, Deserialize)]
pub(crate) struct Gc {
    pub dry_run: bool,
    pub found: Vec<GcItem>,
}

/// Files that belong to nobody.
#[derive(Default)]
struct Orphans {
    branches: Vec<BranchId>,
    commits: Vec<CommitId>,
    layers: BTreeMap<LayerId, ByteCount>,
    images: Vec<Image>,
    /// Recorded layers that nothing lies on or uses.
    unused: Vec<LayerId>,
    /// Records of operations that ended long ago.
    operations: Vec<OperationId>,
}

/// Returns every id-shaped text in a JSON value.
fn ids_in(value: &Value, ids: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if pando_model::id::kind_of(text).is_some() => {
            ids.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| ids_in(item, ids)),
        Value::Object(fields) => fields.values().for_each(|field| ids_in(field, ids)),
        _ => {}
    }
}

impl Engine {
    /// Returns every id that an unfinished operation, other than `own`, may use.
    async fn ids_in_use(&self, own: &OperationId) -> Result<BTreeSet<String>> {
        // One that is stuck may be tried again.
        let statuses = UNFINISHED.into_iter().chain(["stuck"]).collect();
        let query = Query { statuses, ..Query::all() };
        let unfinished: Vec<Operation> = self.store.list(&query).await?;
        let mut ids = BTreeSet::new();
        for operation in unfinished.iter().filter(|operation| operation.id != *own) {
            ids_in(&operation.memo, &mut ids);
        }
        Ok(ids)
    }
}

async fn look(cx: &Cx) -> Result<Orphans> {
    let engine = &cx.engine;
    // Files first, then records: see the module's beginning.
    let branches = engine.host.list().await?;
    let commits = engine.host.list_commits().await?;
    let layers = engine.host.list_layers().await?;
    let images = engine.images.list().await?;
    let in_use = engine.ids_in_use(&cx.id).await?;
    let records = Records::load(&*engine.store).await?;
    let recorded_images: Vec<Image> = engine.store.list(&Query::all()).await?;

    let hosts: BTreeSet<&BranchId> =
        records.branches.iter().map(|branch| &branch.host_id).collect();
    let known: BTreeSet<&CommitId> = records.commits.iter().map(|commit| &commit.id).collect();
    let image_ids: BTreeSet<&ImageId> = recorded_images.iter().map(|image| &image.id).collect();
    let free = |id: &str| !in_use.contains(id);
    let all: Vec<LayerId> = records.layers.keys().cloned().collect();
    let unused = records.dead_layers(&all);
    Ok(Orphans {
        branches: branches
            .into_iter()
            .filter(|id| !hosts.contains(id) && free(id.as_str()))
            .collect(),
        commits: commits
            .into_iter()
            .filter(|id| !known.contains(id) && free(id.as_str()))
            .collect(),
        layers: layers
            .into_iter()
            .filter(|(id, _)| !records.layers.contains_key(id) && free(id.as_str()))
            .collect(),
        images: images
            .into_iter()
            .filter(|image| !image_ids.contains(&image.id) && free(image.id.as_str()))
            .collect(),
        unused: unused.into_iter().filter(|id| free(id.as_str())).collect(),
        operations: old_operations(engine).await?,
    })
}

/// Returns the operations whose records are kept no longer, page by page: a day's worth of records is
/// more than a daemon should hold at once, and most of them stay.
async fn old_operations(engine: &Engine) -> Result<Vec<OperationId>> {
    let kept = engine.config.keep_operations;
    let horizon = Timestamp::now().saturating_sub(kept).unwrap_or(Timestamp::MIN);
    let mut query = Query { statuses: ENDED.to_vec(), limit: Some(PAGE), ..Query::all() };
    let mut old = Vec::new();
    loop {
        let page: Vec<Operation> = engine.store.list(&query).await?;
        let Some(last) = page.last() else { return Ok(old) };
        let after =
            Cursor { created_us: last.created_at.as_microsecond(), key: last.id.to_string() };
        query.after = Some(after);
        let is_last = last.created_at >= horizon;
        let ended = page.into_iter().take_while(|operation| operation.created_at < horizon);
        old.extend(ended.map(|operation| operation.id));
        if is_last {
            return Ok(old);
        }
    }
}

fn item(kind: &str, id: &dyn std::fmt::Display, bytes: ByteCount, reason: &str) -> GcItem {
    GcItem { kind: kind.to_owned(), id: id.to_string(), bytes: bytes.0, reason: reason.to_owned() }
}

impl Orphans {
    fn items(&self, sizes: &BTreeMap<LayerId, ByteCount>) -> Vec<GcItem> {
        let nothing = "no record and no operation names it";
        let zero = ByteCount(0);
        let branches = self.branches.iter().map(|id| item("branch", id, zero, nothing));
        let commits = self.commits.iter().map(|id| item("commit", id, zero, nothing));
        let layers = self.layers.iter().map(|(id, bytes)| item("layer", id, *bytes, nothing));
        let images = self.images.iter().map(|i| item("image", &i.id, i.stored, nothing));
        let unused = self.unused.iter().map(|id| {
            let bytes = sizes.get(id).copied().unwrap_or(zero);
            item("layer", id, bytes, "no branch and no commit lies on it")
        });
        let ended = self.operations.iter();
        let operations = ended.map(|id| item("operation", id, zero, "it ended long ago"));
        branches
            .chain(operations)
            .chain(commits)
            .chain(layers)
            .chain(images)
            .chain(unused)
            .collect()
    }

    async fn remove(&self, engine: &Engine) -> Result<()> {
        for branch in &self.branches {
            engine.remove_incarnation(branch).await?;
        }
        // A commit, or a layer, that others are made of is refused until those are gone.
        let mut commits: Vec<&CommitId> = self.commits.iter().collect();
        let mut layers: Vec<&LayerId> = self.layers.keys().collect();
        loop {
            let before = commits.len() + layers.len();
            let mut last = None;
            let mut left = Vec::new();
            for commit in commits {
                if let Err(error) = engine.host.discard_commit(commit).await {
                    last = Some(error);
                    left.push(commit);
                }
            }
            commits = left;
            let mut left = Vec::new();
            for layer in layers {
                if let Err(error) = engine.host.discard_layer(layer).await {
                    last = Some(error);
                    left.push(layer);
                }
            }
            layers = left;
            match last {
                None => break,
                Some(error) if commits.len() + layers.len() == before => return Err(error.into()),
                Some(_) => {}
            }
        }
        let mut records = Transaction::new();
        for operation in &self.operations {
            records.delete::<Operation>(operation.to_string());
        }
        engine.sweep(Gone { tops: self.unused.clone(), records, ..Gone::default() }).await?;
        for image in &self.images {
            engine.images.remove(&image.id).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Kind for Gc {
    fn steps(&self) -> &'static [&'static str] {
        &["remove"]
    }

    fn locks(&self) -> LockSet {
        Self::locks()
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, _: &str, cx: &Cx) -> Result<Transaction> {
        let sizes = cx.engine.host.list_layers().await?;
        let orphans = look(cx).await?;
        self.found = orphans.items(&sizes);
        if !self.dry_run {
            orphans.remove(&cx.engine).await?;
            let freed = cx.engine.host.trim_memory(cx.engine.config.memory_cache).await?;
            if freed.0 > 0 {
                self.found.push(item("memory", &"cache", freed, "over its budget"));
            }
        }
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    async fn direction(&mut self, _: &Cx) -> Result<Direction> {
        Ok(Direction::Forward)
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    fn result(&self, _: &OperationId) -> Value {
        memo(&GcResult {
            dry_run: self.dry_run,
            count: self.found.len() as u64,
            freed_bytes: self.found.iter().map(|item| item.bytes).sum(),
            removed: self.found.iter().take(MAX_ITEMS).cloned().collect(),
        })
    }

    fn remedy(&self, _: &OperationId) -> String {
        "pando gc".to_owned()
    }
}

impl Gc {
    pub fn locks() -> LockSet {
        // Images have no record until they are whole, so none may be in the making.
        LockSet::new().with("gc", Hold::Exclusive).with("images", Hold::Exclusive)
    }
}
