//! What every call passes, in this order:
//! authenticate → toolset → policy → quota → idempotency → operation → audit.
//!
//! Until governance lands the first four allow a local user everything; they are here so that
//! there is one place for them and no call can pass beside it. `read_only` and the viewer's role
//! are enforced already. Every call is audited, also a refused one: operations with their intent,
//! in the same transaction, everything else with the next write or within a second.

use async_trait::async_trait;
use jiff::Timestamp;
use pando_api::exec::ExecRunResult;
use pando_api::verb::Runs;
use pando_api::{
    ApiError, AttachIo, AttachRequest, Call, Caller, Control, Effect, OperationView, PullRequest,
    PushRequest, Role, Verb,
};
use pando_driver::store::{AuditEntry, Decision};
use pando_model::guest::{ExecOutcome, FileFacts};
use pando_model::{ErrorCode, Operation, OperationId, RequestId};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::operation::{Request, outcome};
use crate::verbs::Planned;

/// How often a free name is looked for.
const NAMES_TRIED: usize = 8;
/// Parameters whose values are contents or may be secrets: their length is audited instead.
const WITHHELD: [&str; 5] = ["content", "content_base64", "stdin", "user_data", "env"];

/// One call on its way through the gate.
struct Passage<'a> {
    caller: &'a Caller,
    verb: &'a str,
    effect: Effect,
    params: Value,
    at: Timestamp,
    began: Instant,
}

impl<'a> Passage<'a> {
    fn new(caller: &'a Caller, verb: &'a str, effect: Effect, params: Value) -> Self {
        let began = Instant::now();
        Self { caller, verb, effect, params, at: Timestamp::now(), began }
    }

    fn of_call(caller: &'a Caller, call: &Call) -> Result<Self> {
        let verb: &'static Verb = call.verb();
        Ok(Self::new(caller, verb.name, verb.effect, call.params()?))
    }

    /// Runs the checks that need no operation.
    fn admit(&self) -> Result<()> {
        self.authenticate()?;
        self.check_toolset()?;
        self.check_policy()?;
        self.check_quota()
    }

    /// The front end proved who calls (peer credentials, token); here only that it is somebody.
    fn authenticate(&self) -> Result<()> {
        if self.caller.principal.is_empty() {
            return Err(Failure::new(ErrorCode::Forbidden, "the call has no principal"));
        }
        Ok(())
    }

    /// Which toolsets a session sees is decided by its front end; the engine has all of them.
    fn check_toolset(&self) -> Result<()> {
        Ok(())
    }

    fn check_policy(&self) -> Result<()> {
        let reads = self.effect == Effect::Read;
        let refused = |why: &str| {
            let message = format!("{} is refused: {why}", self.verb);
            Err(Failure::new(ErrorCode::Forbidden, message).subject(self.verb))
        };
        if self.caller.read_only && !reads {
            return refused("this session is read-only");
        }
        if self.caller.role == Role::Viewer && !reads {
            return refused("a viewer may only read");
        }
        Ok(())
    }

    /// Fixed limits are checked with the parameters, room on the host when a plan is made.
    fn check_quota(&self) -> Result<()> {
        Ok(())
    }

    fn entry(&self, decision: Decision, error: Option<ErrorCode>) -> AuditEntry {
        let params = withhold(self.params.clone());
        AuditEntry {
            at: self.at,
            request: self.caller.request_id.to_string(),
            principal: self.caller.principal.clone(),
            role: serde_json::to_value(self.caller.role)
                .ok()
                .and_then(|role| role.as_str().map(str::to_owned))
                .unwrap_or_default(),
            session: self.caller.session.clone(),
            verb: self.verb.to_owned(),
            params,
            decision,
            error: error.map(|code| code.as_str().to_owned()),
            operation: None,
            duration_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// Returns parameters as they may be audited.
fn withhold(mut params: Value) -> Value {
    if let Value::Object(fields) = &mut params {
        for (name, value) in fields.iter_mut() {
            if WITHHELD.contains(&name.as_str()) {
                let length = value.as_str().map_or_else(|| value.to_string().len(), str::len);
                *value = Value::String(format!("({length} bytes)"));
            }
        }
    }
    params
}

/// A request that a front end turned away before it became a call.
#[derive(Debug, Clone)]
pub struct TurnedAway {
    /// How it came in, as a session's name: `http:127.0.0.1:43210`.
    pub session: String,
    /// What is known of it; nothing that may be a secret.
    pub request: Value,
    /// Why it was turned away.
    pub error: ErrorCode,
}

impl Engine {
    /// Audits a request that was turned away at the door. Its principal is not known.
    pub fn audit_turned_away(&self, request: TurnedAway) {
        self.note(AuditEntry {
            at: Timestamp::now(),
            request: RequestId::random().to_string(),
            principal: "unknown".to_owned(),
            role: String::new(),
            session: Some(request.session),
            verb: "authenticate".to_owned(),
            params: request.request,
            decision: Decision::Refused,
            error: Some(request.error.as_str().to_owned()),
            operation: None,
            duration_us: 0,
        });
    }

    /// Lets a call through that is not an operation.
    async fn pass<T>(
        &self,
        passage: Passage<'_>,
        work: impl Future<Output = Result<T>> + Send,
    ) -> std::result::Result<T, ApiError> {
        if let Err(refused) = passage.admit() {
            self.note(passage.entry(Decision::Refused, Some(refused.code())));
            return Err(refused.0);
        }
        let result = work.await;
        let code = result.as_ref().err().map(Failure::code);
        self.note(passage.entry(Decision::Allowed, code));
        result.map_err(|failure| failure.0)
    }

    /// Lets a call through that becomes an operation; returns its states once it is recorded.
    async fn begin(
        &self,
        caller: &Caller,
        call: Call,
    ) -> std::result::Result<(watch::Receiver<OperationView>, Value), ApiError> {
        let passage = Passage::of_call(caller, &call).map_err(|failure| failure.0)?;
        if let Err(refused) = passage.admit() {
            self.note(passage.entry(Decision::Refused, Some(refused.code())));
            return Err(refused.0);
        }
        let result = self.begin_admitted(&passage, call).await;
        if let Err(failure) = &result {
            self.note(passage.entry(Decision::Allowed, Some(failure.code())));
        }
        result.map_err(|failure| failure.0)
    }

    async fn begin_admitted(
        &self,
        passage: &Passage<'_>,
        call: Call,
    ) -> Result<(watch::Receiver<OperationView>, Value)> {
        if let Some(same) = self.same_request(passage).await? {
            return Ok((same, Value::Null));
        }
        let begun = self.plan_and_submit(passage, call).await;
        // The first request with this key may have been recorded while this one waited; what this
        // one met then, a name that is taken for instance, is that one's work.
        match begun {
            Err(failure) => match self.same_request(passage).await? {
                Some(same) => Ok((same, Value::Null)),
                None => Err(failure),
            },
            begun => begun,
        }
    }

    async fn plan_and_submit(
        &self,
        passage: &Passage<'_>,
        call: Call,
    ) -> Result<(watch::Receiver<OperationView>, Value)> {
        // Who asks for no name gets a free one, also beside another who does.
        let is_unnamed = matches!(
            &call,
            Call::BranchCreate(params) if params.name.is_none() && params.names.is_empty()
        );
        for _ in 0..NAMES_TRIED {
            match self.plan_and_submit_once(passage, call.clone()).await {
                Err(failure) if is_unnamed && failure.code() == ErrorCode::AlreadyExists => {}
                begun => return begun,
            }
        }
        self.plan_and_submit_once(passage, call).await
    }

    async fn plan_and_submit_once(
        &self,
        passage: &Passage<'_>,
        call: Call,
    ) -> Result<(watch::Receiver<OperationView>, Value)> {
        let Planned { plan, early } = self.plan(passage.caller, call).await?;
        let request = Request {
            verb: passage.verb.to_owned(),
            params: passage.params.clone(),
            actor: passage.caller.principal.clone(),
            idempotency_key: passage.caller.idempotency_key.clone(),
            audit: Some(passage.entry(Decision::Allowed, None)),
        };
        Ok((self.submit(request, plan).await?, early))
    }

    /// Returns the operation that an earlier call with the same key became.
    async fn same_request(
        &self,
        passage: &Passage<'_>,
    ) -> Result<Option<watch::Receiver<OperationView>>> {
        let Some(key) = &passage.caller.idempotency_key else { return Ok(None) };
        let found: Option<Operation> = self.store.named(&passage.caller.principal, key).await?;
        let Some(operation) = found else { return Ok(None) };
        if operation.verb != passage.verb || operation.params != passage.params {
            let message = format!("the key `{key}` was used for another {}", operation.verb);
            return Err(ApiError::new(ErrorCode::KeyReused, message)
                .operation(operation.id)
                .hint("use a new key for a new request")
                .into());
        }
        self.note(passage.entry(Decision::Allowed, None));
        self.watch(&operation.id).await.map(Some)
    }

    /// Returns an operation's present state and all later ones.
    pub(crate) async fn watch(&self, id: &OperationId) -> Result<watch::Receiver<OperationView>> {
        if let Some(live) = self.live().get(id) {
            return Ok(live.updates.subscribe());
        }
        let found: Option<Operation> = self.store.get(id.as_str()).await?;
        let operation = found.ok_or_else(|| Failure::not_found("operation", id.as_str()))?;
        // The sender is dropped: there will be no other state.
        Ok(watch::channel(OperationView::from(&operation)).1)
    }
}

#[async_trait]
impl Control for Engine {
    async fn call(&self, caller: &Caller, call: Call) -> std::result::Result<Value, ApiError> {
        if self.is_operation(caller, &call) {
            let wait = !matches!(&call, Call::VmCreate(params) if !params.wait)
                && !matches!(&call, Call::ExecRun(params) if params.detach);
            let detached = matches!(&call, Call::ExecRun(params) if params.detach);
            let (updates, mut early) = self.begin(caller, call).await?;
            if detached && early.is_null() {
                // The same request again.
                early = serde_json::to_value(ExecRunResult::default()).unwrap_or_default();
            }
            if wait || early.is_null() {
                return outcome(updates).await.map_err(|failure| failure.0);
            }
            let id = updates.borrow().operation_id.to_string();
            if let Value::Object(fields) = &mut early {
                fields.insert("operation_id".to_owned(), Value::String(id));
            }
            return Ok(early);
        }
        let passage = Passage::of_call(caller, &call).map_err(|failure| failure.0)?;
        self.pass(passage, self.answer(caller, call)).await
    }

    async fn start(
        &self,
        caller: &Caller,
        call: Call,
    ) -> std::result::Result<OperationId, ApiError> {
        if call.verb().runs == Runs::Directly {
            let message = format!("{} answers directly; call it instead", call.name());
            return Err(ApiError::new(ErrorCode::InvalidParameter, message));
        }
        let (updates, _) = self.begin(caller, call).await?;
        let id = updates.borrow().operation_id.clone();
        Ok(id)
    }

    async fn watch_operation(
        &self,
        caller: &Caller,
        operation: &OperationId,
    ) -> std::result::Result<watch::Receiver<OperationView>, ApiError> {
        let params = serde_json::json!({ "id": operation });
        let passage = Passage::new(caller, "operation_wait", Effect::Read, params);
        self.pass(passage, self.watch(operation)).await
    }

    async fn attach(
        &self,
        caller: &Caller,
        request: AttachRequest,
        io: AttachIo,
    ) -> std::result::Result<ExecOutcome, ApiError> {
        let params = serde_json::to_value(&request).unwrap_or(Value::Null);
        let passage = Passage::new(caller, "exec_run", Effect::Write, params);
        self.pass(passage, self.attach_command(caller, request, io)).await
    }

    async fn push(
        &self,
        caller: &Caller,
        request: PushRequest,
        chunks: mpsc::Receiver<Vec<u8>>,
    ) -> std::result::Result<FileFacts, ApiError> {
        let params = serde_json::to_value(&request).unwrap_or(Value::Null);
        let passage = Passage::new(caller, "file_push", Effect::Write, params);
        self.pass(passage, self.push_stream(caller, request, chunks)).await
    }

    async fn pull(
        &self,
        caller: &Caller,
        request: PullRequest,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> std::result::Result<FileFacts, ApiError> {
        let params = serde_json::to_value(&request).unwrap_or(Value::Null);
        let passage = Passage::new(caller, "file_pull", Effect::Read, params);
        self.pass(passage, self.pull_stream(caller, request, chunks)).await
    }
}

impl Engine {
    /// Returns whether a call becomes an operation: commands do when they are detached or have a
    /// key.
    fn is_operation(&self, caller: &Caller, call: &Call) -> bool {
        match call.verb().runs {
            Runs::AsOperation => true,
            Runs::Either => {
                let detached = matches!(call, Call::ExecRun(params) if params.detach);
                detached || caller.idempotency_key.is_some()
            }
            Runs::Directly => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_and_secrets_are_not_audited() {
        let params = serde_json::json!({"name": "a", "env": {"TOKEN": "x"}, "stdin": "secret"});
        let audited = withhold(params);
        assert_eq!(
            audited,
            serde_json::json!({"name": "a", "env": "(13 bytes)", "stdin": "(6 bytes)"})
        );
    }
}
