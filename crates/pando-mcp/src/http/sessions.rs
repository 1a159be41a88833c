//! Sessions of the revisions that have them: each belongs to whoever began it, there is a most of
//! them, and one that nobody uses ends.
//!
//! The library keeps them for everybody alike. What is kept here is whose each is; whoever asks
//! sees theirs only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_core::Stream;
use pando_api::{Caller, caller};
use pando_model::RequestId;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError,
};
use rmcp::transport::streamable_http_server::session::{
    ServerSseMessage, SessionId, SessionManager,
};
use tokio_util::sync::CancellationToken;

use crate::limits::{SESSION_BEGIN, SESSION_IDLE};
use crate::profile::{Access, Profile};

/// Who calls, under which profile: to whom a session belongs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Who acts.
    pub principal: String,
    /// What they may do in general.
    pub role: caller::Role,
    /// What is offered to them.
    pub profile: Profile,
}

impl Owner {
    /// Returns the caller that they are.
    pub fn caller(&self) -> Caller {
        Caller {
            principal: self.principal.clone(),
            role: self.role,
            session: None,
            request_id: RequestId::random(),
            read_only: self.profile.access == Access::ReadOnly,
            idempotency_key: None,
        }
    }
}

struct Session {
    owner: Owner,
    used: Instant,
    /// Set before the session ends, so that its calls in flight go on.
    closed: CancellationToken,
}

/// See the module.
pub struct Sessions {
    library: LocalSessionManager,
    known: Mutex<HashMap<SessionId, Session>>,
    most: usize,
}

impl Sessions {
    /// Returns no sessions, and never more than `most`.
    pub fn new(most: usize) -> Self {
        let mut library = LocalSessionManager::default();
        library.session_config.keep_alive = Some(SESSION_IDLE);
        library.session_config.init_timeout = Some(SESSION_BEGIN);
        Self { library, known: Mutex::default(), most }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether there is such a session of `owner`; it counts as used.
    pub fn use_of(&self, id: &str, owner: &Owner) -> bool {
        match self.known().get_mut(id) {
            Some(session) if session.owner == *owner => {
                session.used = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Returns the sessions that `owner` sees.
    pub fn of(self: &Arc<Self>, owner: Owner) -> Owned {
        Owned { sessions: Arc::clone(self), owner, closed: CancellationToken::new() }
    }

    /// Ends all of them.
    pub async fn close(&self) {
        let ids: Vec<SessionId> = self.known().keys().cloned().collect();
        for id in ids {
            self.end(&id).await;
        }
    }

    async fn end(&self, id: &SessionId) {
        if let Some(session) = self.known().remove(id) {
            session.closed.cancel();
        }
        if let Err(error) = self.library.close_session(id).await {
            tracing::info!(%id, %error, "a session was not closed");
        }
    }

    /// Takes a place for a session: that of the principal's own one that was used longest ago, if
    /// there is no other. Returns the session that must end for it.
    fn take_place(&self, id: SessionId, session: Session) -> Result<Option<SessionId>, Session> {
        let mut known = self.known();
        let mut evicted = None;
        if known.len() >= self.most {
            let own =
                known.iter().filter(|(_, old)| old.owner.principal == session.owner.principal);
            match own.min_by_key(|(_, old)| old.used).map(|(id, _)| id.clone()) {
                Some(oldest) => evicted = Some(oldest),
                None => return Err(session),
            }
        }
        known.insert(id, session);
        Ok(evicted)
    }
}

/// The sessions of one owner.
pub struct Owned {
    sessions: Arc<Sessions>,
    owner: Owner,
    closed: CancellationToken,
}

type Failure = LocalSessionManagerError;

impl Owned {
    /// Returns what is set once the session that is begun here ends.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Returns whether another session can begin.
    pub fn have_room(&self) -> bool {
        let known = self.sessions.known();
        known.len() < self.sessions.most
            || known.values().any(|session| session.owner.principal == self.owner.principal)
    }

    fn own(&self, id: &SessionId) -> Result<&LocalSessionManager, Failure> {
        if self.sessions.use_of(id, &self.owner) {
            Ok(&self.sessions.library)
        } else {
            Err(Failure::SessionNotFound(Arc::clone(id)))
        }
    }
}

impl SessionManager for Owned {
    type Error = Failure;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Failure> {
        let (id, transport) = self.sessions.library.create_session().await?;
        let session = Session {
            owner: self.owner.clone(),
            used: Instant::now(),
            closed: self.closed.clone(),
        };
        match self.sessions.take_place(Arc::clone(&id), session) {
            Ok(None) => {}
            Ok(Some(oldest)) => self.sessions.end(&oldest).await,
            Err(_) => {
                self.sessions.library.close_session(&id).await?;
                return Err(Failure::SessionNotFound(id));
            }
        }
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Failure> {
        self.own(id)?.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Failure> {
        match self.own(id) {
            Ok(library) => library.has_session(id).await,
            Err(_) => Ok(false),
        }
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Failure> {
        if self.own(id).is_ok() {
            self.sessions.end(id).await;
        }
        Ok(())
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Failure> {
        self.own(id)?.create_stream(id, message).await
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Failure> {
        self.own(id)?.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Failure> {
        self.own(id)?.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Failure> {
        self.own(id)?.resume(id, last_event_id).await
    }
}
