//! `image_remove`: an image that no machine is made of goes, and its ready states with it.

use async_trait::async_trait;
use pando_api::image::ImageRemoveResult;
use pando_driver::store::{Record, Transaction};
use pando_model::{Commit, Image, OperationId, ReadyState};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Result;
use crate::garbage::{Gone, commit_layers};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Direction, Kind, memo};

#[derive(Serialize, Deserialize)]
pub(crate) struct ImageRemove {
    pub image: Image,
    pub ready: Vec<ReadyState>,
    pub commits: Vec<Commit>,
}

impl ImageRemove {
    pub fn locks_for(image: &Image) -> LockSet {
        LockSet::new().image(&image.id, Hold::Exclusive).with("images", Hold::Exclusive)
    }
}

#[async_trait]
impl Kind for ImageRemove {
    fn steps(&self) -> &'static [&'static str] {
        &["ready states", "files"]
    }

    fn locks(&self) -> LockSet {
        Self::locks_for(&self.image)
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, step: &str, cx: &Cx) -> Result<Transaction> {
        if step == "files" {
            cx.engine.images.remove(&self.image.id).await?;
            return Ok(Transaction::new());
        }
        let mut records = Transaction::new();
        for ready in &self.ready {
            records.delete::<ReadyState>(ready.key());
        }
        let gone = Gone {
            commits: self.commits.iter().map(|commit| commit.id.clone()).collect(),
            records,
            tops: self.commits.iter().flat_map(commit_layers).collect(),
            ..Gone::default()
        };
        cx.engine.sweep(gone).await?;
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, _: &Cx) -> Result<Transaction> {
        Ok(Transaction::new())
    }

    /// Files that were removed do not come back.
    async fn direction(&mut self, _: &Cx) -> Result<Direction> {
        Ok(Direction::Forward)
    }

    async fn finish(&mut self, _: &Cx) -> Result<Transaction> {
        let mut records = Transaction::new();
        records.delete::<Image>(self.image.key());
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        let freed = self.commits.iter().map(|commit| commit.size.0).sum::<u64>();
        memo(&ImageRemoveResult {
            image_id: self.image.id.clone(),
            name: self.image.name.to_string(),
            freed_bytes: self.image.stored.0 + freed,
            removed_ready_states: u32::try_from(self.ready.len()).unwrap_or(u32::MAX),
        })
    }
}
