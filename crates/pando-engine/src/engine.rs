//! The engine's parts, and its beginning and end.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use pando_api::ApiError;
use pando_driver::store::{AuditEntry, Journal, Transaction};
use pando_driver::{BranchHost, Images, Store};
use pando_model::OperationId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::background::Background;
use crate::config::Config;
use crate::locks::Locks;
use crate::operation::Live;
use crate::verbs::diff::Compared;
use crate::verbs::usage::Waited;

/// How long audit entries of calls that wrote nothing may wait for company.
const AUDIT_INTERVAL: Duration = Duration::from_secs(1);
/// How long running work may take to end at a shutdown; what is left is recovered at the next
/// start.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// What the engine works with.
pub struct Drivers {
    /// Runs branches.
    pub host: Arc<dyn BranchHost>,
    /// Makes images.
    pub images: Arc<dyn Images>,
    /// Keeps records.
    pub store: Arc<dyn Store>,
    /// Notes what is done in guests.
    pub journal: Arc<dyn Journal>,
}

/// The engine. Clones are handles on the same one.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// The parts of an engine; nothing of it can be seen outside.
pub struct Inner {
    pub(crate) host: Arc<dyn BranchHost>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) config: Config,
    pub(crate) locks: Arc<Locks>,
    pub(crate) tasks: TaskTracker,
    pub(crate) background: Background,
    /// Ends the background work.
    pub(crate) ending: CancellationToken,
    pub(crate) started_at: Timestamp,
    /// Commands that are waited for.
    pub(crate) waited: Arc<Waited>,
    live: Mutex<HashMap<OperationId, Live>>,
    audit: Mutex<Vec<AuditEntry>>,
    /// Comparisons that may be read on.
    pub(crate) compared: Mutex<VecDeque<Arc<Compared>>>,
    /// Told when an entry waits that no transaction takes along.
    noted: Notify,
}

impl Deref for Engine {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Engine {
    /// Starts an engine: takes the locks of every unfinished operation, so that new calls wait for
    /// them, then finishes or undoes those, compares intent with fact, and goes on working. Reads
    /// are served from the beginning; [`Engine::recovered`] waits for the rest.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(drivers: Drivers, config: Config) -> Result<Self, ApiError> {
        let engine = Self(Arc::new(Inner {
            host: drivers.host,
            images: drivers.images,
            store: drivers.store,
            journal: drivers.journal,
            config,
            locks: Arc::new(Locks::default()),
            tasks: TaskTracker::new(),
            background: Background::default(),
            ending: CancellationToken::new(),
            started_at: Timestamp::now(),
            waited: Arc::default(),
            live: Mutex::new(HashMap::new()),
            audit: Mutex::new(Vec::new()),
            compared: Mutex::new(VecDeque::new()),
            noted: Notify::new(),
        }));
        engine.adopt_images().await.map_err(|failure| failure.0)?;
        engine.begin_recovery().await.map_err(|failure| failure.0)?;
        let flusher = engine.clone();
        engine.tasks.spawn(async move { flusher.flush_audit_regularly().await });
        let watcher = engine.clone();
        engine.tasks.spawn(async move { watcher.reconcile_regularly().await });
        Ok(engine)
    }

    /// Waits until recovery is complete: every operation of earlier daemons was finished, undone
    /// or is stuck, and records say what is true.
    pub async fn recovered(&self) {
        self.background.recovered().await;
    }

    /// Ends the engine: no new background work, running operations get a moment to end, what was
    /// heard is written. Branches go on running.
    pub async fn shutdown(&self) {
        self.ending.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN, self.tasks.wait()).await.is_err() {
            tracing::warn!("operations are still running; the next daemon recovers them");
        }
        self.flush_audit().await;
    }

    /// Waits until no operation and no background work is under way.
    pub async fn idle(&self) {
        self.background.recovered().await;
        self.background.idle().await;
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, HashMap<OperationId, Live>> {
        // Nothing under this lock can panic half-way through a change.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn audit(&self) -> MutexGuard<'_, Vec<AuditEntry>> {
        // As above.
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call that wrote nothing; it is written with the next transaction.
    pub(crate) fn note(&self, entry: AuditEntry) {
        self.audit().push(entry);
        self.noted.notify_one();
    }

    /// Takes what waits to be audited, for a transaction that is written anyway.
    pub(crate) fn take_audit(&self) -> Vec<AuditEntry> {
        std::mem::take(&mut *self.audit())
    }

    /// Puts back what could not be written.
    pub(crate) fn return_audit(&self, mut entries: Vec<AuditEntry>) {
        let mut waiting = self.audit();
        entries.append(&mut waiting);
        *waiting = entries;
    }

    async fn flush_audit(&self) {
        let audit = self.take_audit();
        if audit.is_empty() {
            return;
        }
        let transaction = Transaction { audit, ..Transaction::new() };
        if let Err(error) = self.store.write(&transaction).await {
            tracing::error!(%error, "audit entries wait longer");
            self.return_audit(transaction.audit);
        }
    }

    async fn flush_audit_regularly(&self) {
        loop {
            let company = async {
                self.noted.notified().await;
                tokio::time::sleep(AUDIT_INTERVAL).await;
            };
            // A lost wait loses nothing: the entries stay, and a shutdown writes them.
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = company => self.flush_audit().await,
            }
        }
    }

    async fn reconcile_regularly(&self) {
        let Some(every) = self.config.reconcile_every else { return };
        loop {
            // As above.
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = tokio::time::sleep(every) => self.reconcile_soon(),
            }
        }
    }
}
