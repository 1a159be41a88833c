//! Changes of resources, while somebody listens. An operation is watched; everything else is read
//! again every few seconds and compared, without what changes by itself. Nothing is read for
//! nobody: dropping a [`Watch`] ends it.

use std::collections::HashMap;
use std::sync::Arc;

use pando_api::ApiError;
use pando_model::{ErrorCode, OperationId};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::calls::Calls;
use crate::limits::{MAX_WATCHED, PROGRESS_EVERY, WATCH_CHANGES, WATCH_EVERY};
use crate::resources;

/// Fields that change while nothing does.
const RESTLESS: &[&str] = &["uptime_ms", "resources", "counters"];

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A resource, by its URI.
    Of(String),
    /// Which resources there are.
    List,
}

/// What is watched for one listener.
pub struct Watch {
    calls: Arc<Calls>,
    reads: Arc<Semaphore>,
    tasks: HashMap<Option<String>, AbortOnDropHandle<()>>,
    sender: mpsc::Sender<Change>,
}

impl Watch {
    /// Returns a watch of nothing yet, and where changes come out. `reads` bounds how many things
    /// are read at once, for all listeners that share it.
    pub fn new(calls: Arc<Calls>, reads: Arc<Semaphore>) -> (Self, mpsc::Receiver<Change>) {
        let (sender, changes) = mpsc::channel(WATCH_CHANGES);
        (Self { calls, reads, tasks: HashMap::new(), sender }, changes)
    }

    /// Returns whether changes of a resource could be told: whether it is one that may be read.
    ///
    /// # Errors
    /// `not_found` and `forbidden`.
    pub fn check(calls: &Calls, uri: &str) -> Result<(), ApiError> {
        let call = resources::call(uri)?;
        calls.profile.check(call.verb())
    }

    /// Begins to watch a resource.
    ///
    /// # Errors
    /// Those of [`Self::check`], and `limit_exceeded`.
    pub fn resource(&mut self, uri: &str) -> Result<(), ApiError> {
        Self::check(&self.calls, uri)?;
        self.begin(Some(uri.to_owned()))
    }

    /// Begins to watch which resources there are.
    ///
    /// # Errors
    /// `limit_exceeded`.
    pub fn list(&mut self) -> Result<(), ApiError> {
        self.begin(None)
    }

    fn begin(&mut self, uri: Option<String>) -> Result<(), ApiError> {
        self.tasks.retain(|_, task| !task.is_finished());
        if self.tasks.contains_key(&uri) {
            return Ok(());
        }
        if self.tasks.len() >= MAX_WATCHED {
            let message = format!("{MAX_WATCHED} resources are watched already");
            return Err(ApiError::new(ErrorCode::LimitExceeded, message)
                .hint("unsubscribe from some, or watch a list: pando://branches"));
        }
        let watched = Watched {
            calls: Arc::clone(&self.calls),
            reads: Arc::clone(&self.reads),
            sender: self.sender.clone(),
            uri: uri.clone(),
        };
        self.tasks.insert(uri, AbortOnDropHandle::new(tokio::spawn(watched.run())));
        Ok(())
    }

    /// Ends watching a resource.
    pub fn end(&mut self, uri: &str) {
        self.tasks.remove(&Some(uri.to_owned()));
    }
}

/// One thing that is watched.
struct Watched {
    calls: Arc<Calls>,
    reads: Arc<Semaphore>,
    sender: mpsc::Sender<Change>,
    uri: Option<String>,
}

impl Watched {
    async fn run(self) {
        let operation = self.uri.as_deref().and_then(operation_of);
        if let Some(id) = operation {
            // When the daemon goes away the stream ends, and a new one is asked for.
            while !self.follow(&id).await {
                sleep(WATCH_EVERY).await;
                if self.sender.is_closed() {
                    return;
                }
            }
        } else {
            self.poll().await;
        }
    }

    /// Tells that it changed; false once nobody listens.
    async fn tell(&self) -> bool {
        let change = self.uri.clone().map_or(Change::List, Change::Of);
        self.sender.send(change).await.is_ok()
    }

    /// Returns whether the operation has ended, or nobody listens.
    async fn follow(&self, id: &OperationId) -> bool {
        let mut states = match self.calls.control.watch_operation(&self.calls.caller(), id).await {
            Ok(states) => states,
            Err(error) => return error.code == ErrorCode::NotFound,
        };
        loop {
            if states.borrow_and_update().status.is_final() {
                // Whoever began to listen after the end hears it once.
                self.tell().await;
                return true;
            }
            if states.changed().await.is_err() {
                return false;
            }
            if !self.tell().await {
                return true;
            }
            // What changed meanwhile is told as one change.
            sleep(PROGRESS_EVERY).await;
        }
    }

    async fn poll(&self) {
        let mut known = None;
        let mut rounds = interval(WATCH_EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let Ok(permit) = self.reads.acquire().await else { return };
            let state = self.state().await;
            drop(permit);
            let Some(state) = state else { continue };
            let has_changed = known.replace(state).is_some_and(|known| known != state);
            if has_changed && !self.tell().await {
                return;
            }
        }
    }

    /// Returns what stands for its state; `None` if it could not be read, which is no change.
    async fn state(&self) -> Option<blake3::Hash> {
        let text = match &self.uri {
            Some(uri) => resources::read(&self.calls, uri).await.map(|contents| contents.text),
            None => resources::list(&self.calls).await.map(|entries| {
                entries.into_iter().map(|entry| entry.uri + "\n").collect::<String>()
            }),
        };
        match text {
            Ok(text) => Some(blake3::hash(settled(&text).as_bytes())),
            // That it is gone, or not there yet, is a state.
            Err(error) if error.code == ErrorCode::NotFound => Some(blake3::hash(b"")),
            Err(_) => None,
        }
    }
}

fn operation_of(uri: &str) -> Option<OperationId> {
    uri.strip_prefix("pando://operation/")?.parse().ok()
}

/// Returns a resource's text without what changes while nothing does.
fn settled(text: &str) -> String {
    fn settle(value: &mut Value) {
        match value {
            Value::Object(object) => {
                object.retain(|name, _| !RESTLESS.contains(&name.as_str()));
                object.values_mut().for_each(settle);
            }
            Value::Array(items) => items.iter_mut().for_each(settle),
            _ => {}
        }
    }
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            settle(&mut value);
            value.to_string()
        }
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_is_no_change() {
        let of = |uptime: u64, state: &str| {
            settled(&format!(
                r#"{{"state":"{state}","uptime_ms":{uptime},"counters":{{"dropped":{uptime}}}}}"#
            ))
        };
        assert_eq!(of(1, "running"), of(2, "running"));
        assert_ne!(of(1, "running"), of(1, "paused"));
        assert_eq!(settled("login: "), "login: ");
    }
}
