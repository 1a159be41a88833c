//! Who hears of changes. A client of the revision without sessions sends one request that listens
//! for as long as it is open; one with a session subscribes to resources one by one, and hears of
//! them until the session ends. Both are told what [`crate::watch`] finds.

use std::sync::{Arc, Mutex, PoisonError};

use pando_api::ApiError;
use pando_model::ErrorCode;
use rmcp::RoleServer;
use rmcp::model::{ResourceUpdatedNotificationParam, SubscriptionFilter};
use rmcp::service::{Peer, SubscriptionContext};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::calls::Calls;
use crate::limits::{MAX_LISTENERS, MAX_WATCHED, WATCH_READS};
use crate::watch::{Change, Watch};

/// See the module. Clones are the same subscriptions.
#[derive(Clone)]
pub struct Subscriptions {
    /// Bounds what is read at once.
    reads: Arc<Semaphore>,
    listeners: Arc<Semaphore>,
    session: Arc<Mutex<Option<Session>>>,
}

/// The subscriptions of one session.
struct Session {
    watch: Watch,
    _telling: AbortOnDropHandle<()>,
}

impl Subscriptions {
    /// Returns no subscriptions.
    pub fn new() -> Self {
        Self {
            reads: Arc::new(Semaphore::new(WATCH_READS)),
            listeners: Arc::new(Semaphore::new(MAX_LISTENERS)),
            session: Arc::default(),
        }
    }

    /// Returns those of a new session, which end with it. The limits are shared.
    pub fn of_session(&self) -> Self {
        Self { session: Arc::default(), ..self.clone() }
    }

    /// Subscribes a session to a resource.
    ///
    /// # Errors
    /// `not_found`, `forbidden` and `limit_exceeded`.
    pub fn begin(
        &self,
        calls: &Arc<Calls>,
        uri: &str,
        client: Peer<RoleServer>,
    ) -> Result<(), ApiError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = session.get_or_insert_with(|| {
            let (watch, changes) = Watch::new(Arc::clone(calls), Arc::clone(&self.reads));
            Session { watch, _telling: telling(client, changes) }
        });
        session.watch.resource(uri)
    }

    /// Ends a session's subscription to a resource.
    pub fn end(&self, uri: &str) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = session.as_mut() {
            session.watch.end(uri);
        }
    }

    /// Tells the client of one request what changes, until it takes the request back, or is gone as
    /// `closed` says.
    ///
    /// # Errors
    /// `limit_exceeded`.
    pub async fn listen(
        &self,
        calls: &Arc<Calls>,
        context: &SubscriptionContext,
        closed: &CancellationToken,
    ) -> Result<(), ApiError> {
        let Ok(_permit) = self.listeners.try_acquire() else {
            let message = format!("{MAX_LISTENERS} requests listen already");
            return Err(ApiError::new(ErrorCode::LimitExceeded, message)
                .hint("take one of them back; one request can listen to several resources"));
        };
        let (mut watch, mut changes) = Watch::new(Arc::clone(calls), Arc::clone(&self.reads));
        if context.accepted().resources_list_changed == Some(true) {
            watch.list()?;
        }
        for uri in context.accepted().resource_subscriptions.iter().flatten() {
            watch.resource(uri)?;
        }
        loop {
            // Cancel-safe: a change that was not taken stays in its channel.
            let change = tokio::select! {
                () = context.cancelled() => return Ok(()),
                () = closed.cancelled() => return Ok(()),
                Some(change) = changes.recv() => change,
            };
            let told = match change {
                Change::List => context.sink().notify_resource_list_changed().await,
                Change::Of(uri) => context.sink().notify_resource_updated(uri).await,
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }
}

/// Returns what of a request to listen is granted: resources that there can be, and that may be
/// read, and no more of them than can be watched.
pub fn accepted(calls: &Calls, requested: &SubscriptionFilter) -> SubscriptionFilter {
    let mut accepted = SubscriptionFilter::new();
    accepted.resources_list_changed = requested.resources_list_changed;
    accepted.resource_subscriptions = requested.resource_subscriptions.as_ref().map(|uris| {
        let readable = uris.iter().filter(|uri| Watch::check(calls, uri).is_ok());
        // One place is the list's.
        readable.take(MAX_WATCHED - 1).cloned().collect()
    });
    accepted
}

/// Returns the task that tells a session's client what has changed.
fn telling(client: Peer<RoleServer>, mut changes: mpsc::Receiver<Change>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            let Change::Of(uri) = change else { continue };
            let told = client.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri));
            if told.await.is_err() {
                return;
            }
        }
    }))
}
