//! One call of a tool, from a name and arguments to an answer. Knows no protocol.

use std::sync::Arc;
use std::time::Duration;

use pando_api::verb::Runs;
use pando_api::{ApiError, Call, Caller, Control, Effect, OperationView, Verb};
use pando_model::{ErrorCode, OperationId, RequestId};
use serde_json::{Map, Value, json};

use crate::answer::{Answer, Next};
use crate::budget;
use crate::confirm::{self, Consent, Plan, Spent};
use crate::find;
use crate::follow::{self, Client, Confirmed, Followed};
use crate::limits::{DIRECT_EXEC_S, RESULT_BYTES, TASK_AFTER};
use crate::profile::{Names, Profile};
use crate::tools::{CALL, CONFIRM, FIND, KEY, takes_key};

/// What a call comes to.
pub enum Outcome {
    /// It is answered.
    Done(Answer),
    /// A person must agree first; the call is made again with what they said.
    Ask {
        /// What they are asked.
        question: String,
        /// Stands for the plan that they are asked about.
        token: String,
    },
    /// It goes on as an operation, which the client follows as a task.
    Begun(Box<OperationView>),
}

/// What carrying out a call comes to.
enum Carried {
    Answered(Answer),
    Begun(Box<OperationView>),
}

/// Everything that calls need.
#[derive(Clone)]
pub struct Calls {
    /// The engine.
    pub control: Arc<dyn Control>,
    /// Who calls.
    pub caller: Caller,
    /// What may be called.
    pub profile: Profile,
    /// How long a call waits for its operation.
    pub wait: Duration,
    /// Makes tokens this process's own.
    pub key: [u8; 32],
    /// The tokens that were given.
    pub spent: Arc<Spent>,
}

impl Calls {
    /// Returns the caller of a new request.
    pub fn caller(&self) -> Caller {
        Caller { request_id: RequestId::random(), ..self.caller.clone() }
    }

    /// Answers a call of a tool.
    pub async fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        consent: Consent,
        client: &dyn Client,
    ) -> Outcome {
        match self.dispatch(name, arguments, consent, client).await {
            Outcome::Done(answer) => Outcome::Done(self.followed_by_reachable(answer)),
            outcome => outcome,
        }
    }

    async fn dispatch(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        consent: Consent,
        client: &dyn Client,
    ) -> Outcome {
        let outcome = match name {
            FIND => find::find(&self.profile, &arguments).map(|result| {
                let mut answer = Answer::result(result);
                if let Ok(result) = &mut answer.outcome {
                    answer.cut = budget::fit(result, RESULT_BYTES);
                }
                Outcome::Done(answer)
            }),
            CALL => match named(arguments) {
                Ok((name, arguments)) => {
                    let called = self.verb(&name, arguments, consent, client).await;
                    return called
                        .unwrap_or_else(|error| Outcome::Done(self.refused(&name, error)));
                }
                Err(error) => Err(error),
            },
            name => self.verb(name, arguments, consent, client).await,
        };
        outcome.unwrap_or_else(|error| Outcome::Done(self.refused(name, error)))
    }

    /// Returns the answer to a call that was refused before it was begun.
    fn refused(&self, name: &str, error: ApiError) -> Answer {
        let next = match error.code {
            ErrorCode::UnknownVerb => Some(self.search(name)),
            ErrorCode::InvalidParameter if Verb::find(name).is_some() => Some(self.search(name)),
            _ => None,
        };
        Answer::error(error).next(next)
    }

    fn followed_by_reachable(&self, mut answer: Answer) -> Answer {
        answer.next = answer.next.and_then(|next| self.reachable(next));
        answer
    }

    /// Returns a call in the form in which this client can make it, if it may be made at all.
    fn reachable(&self, next: Next) -> Option<Next> {
        let by_way = self.profile.has_unlisted();
        // What is no verb leads to verbs that are not listed.
        let Some(verb) = Verb::find(&next.tool) else { return by_way.then_some(next) };
        if !self.profile.permits(verb) {
            return None;
        }
        let is_shown = self.profile.names == Names::Own || verb.aliases.is_empty();
        if !by_way || (self.profile.lists(verb) && is_shown) {
            return Some(next);
        }
        let arguments = json!({"name": next.tool, "arguments": next.arguments});
        Some(Next::new(CALL, arguments))
    }

    fn search(&self, name: &str) -> Next {
        let shown: String = name.chars().take(64).collect();
        Next::new(FIND, json!({"query": shown}))
    }

    async fn verb(
        &self,
        name: &str,
        mut arguments: Map<String, Value>,
        consent: Consent,
        client: &dyn Client,
    ) -> Result<Outcome, ApiError> {
        let Some(verb) = Verb::find(name) else {
            // Says what is nearest.
            Call::parse(name, Value::Null)?;
            return Err(ApiError::new(ErrorCode::UnknownVerb, "there is no such tool"));
        };
        self.profile.check(verb)?;
        if takes_key(verb) {
            match arguments.remove(KEY) {
                None | Some(Value::Null) => {}
                Some(Value::String(key)) => {
                    let caller = Caller { idempotency_key: Some(key), ..self.caller.clone() };
                    let keyed = Self { caller, ..self.clone() };
                    return Box::pin(keyed.verb(name, arguments, consent, client)).await;
                }
                Some(_) => {
                    return Err(ApiError::parameter(KEY, "`idempotency_key` is not a string"));
                }
            }
        }
        let token = match verb.effect {
            Effect::Destructive => arguments.remove(CONFIRM),
            Effect::Read | Effect::Write => None,
        };
        let consent = match token {
            None | Some(Value::Null) => consent,
            Some(Value::String(token)) => Consent::Given(token),
            Some(_) => return Err(ApiError::parameter(CONFIRM, "`confirm` is not a string")),
        };
        let mut arguments = self.under_own_names(name, verb, arguments)?;
        let again = Next { tool: verb.name.to_owned(), arguments: arguments.clone() };
        let budget = budget::prepare(verb, &mut arguments);
        let call = Call::parse(verb.name, Value::Object(arguments.clone()))?;
        if let Some(loses) = confirm::loses(&call) {
            let plan = self.plan(&call, loses).await?;
            if let Some(outcome) = self.agreed(&plan, consent, client).await? {
                return Ok(outcome);
            }
        }
        Ok(match self.carry_out(call, client).await {
            Carried::Answered(answer) => {
                let undone = answer.outcome.as_ref().is_err_and(|error| {
                    error.code == ErrorCode::DaemonUnreachable
                        && error.operation.is_some()
                        && verb.runs == Runs::AsOperation
                });
                let answer = self.fitted(verb, &arguments, answer, budget).await;
                Outcome::Done(answer.next(undone.then_some(again)))
            }
            Carried::Begun(view) => Outcome::Begun(view),
        })
    }

    /// Returns an operation.
    ///
    /// # Errors
    /// `invalid_parameter` for what is no operation's id, `not_found`.
    pub async fn operation(&self, id: &str) -> Result<OperationView, ApiError> {
        let call = Call::parse("operation_get", json!({"id": id}))?;
        self.profile.check(call.verb())?;
        let view = self.control.call(&self.caller(), call).await?;
        serde_json::from_value(view).map_err(|source| {
            ApiError::new(ErrorCode::Internal, format!("the operation is unreadable: {source}"))
        })
    }

    /// Returns the answer that an operation's call would have had.
    pub async fn ended(&self, view: OperationView) -> Answer {
        let verb = Verb::find(&view.verb);
        let answer = match follow::outcome(view) {
            Ok(result) => Answer::result(result),
            Err(error) => self.followed_by_reachable(Answer::error(error)),
        };
        match verb {
            Some(verb) => self.fitted(verb, &Map::new(), answer, RESULT_BYTES).await,
            None => answer,
        }
    }

    /// Returns an alias's arguments under our names.
    fn under_own_names(
        &self,
        name: &str,
        verb: &Verb,
        arguments: Map<String, Value>,
    ) -> Result<Map<String, Value>, ApiError> {
        if name == verb.name {
            return Ok(arguments);
        }
        match Call::parse(name, Value::Object(arguments))?.params()? {
            Value::Object(arguments) => Ok(arguments),
            _ => Ok(Map::new()),
        }
    }

    async fn plan(&self, call: &Call, loses: String) -> Result<Plan, ApiError> {
        let mut now = Vec::new();
        for fact in confirm::facts(call) {
            let read = Call::parse(fact.verb, fact.params.clone())?;
            match self.control.call(&self.caller(), read).await {
                Ok(result) => now.push(fact.pick(&result)),
                // What does not exist is not asked about.
                Err(error) if error.code == ErrorCode::NotFound => return Err(error),
                Err(_) => now.push(Value::Null),
            }
        }
        Ok(Plan { tool: call.name(), arguments: call.params()?, loses, now })
    }

    /// Returns nothing once a plan may be carried out, otherwise what to answer.
    async fn agreed(
        &self,
        plan: &Plan,
        consent: Consent,
        client: &dyn Client,
    ) -> Result<Option<Outcome>, ApiError> {
        let given = match &consent {
            Consent::Given(token) => Some(token.as_str()),
            Consent::Refused | Consent::None => None,
        };
        let token = |times| plan.token(&self.key, &self.caller.principal, times);
        let Some(token) = self.spent.token(plan, given, token) else { return Ok(None) };
        let note = match consent {
            Consent::Refused => return Err(refused(plan)),
            Consent::Given(_) => "The token is that of another plan, or the state has changed.",
            Consent::None => "Nothing was done yet.",
        };
        if client.asks_between_calls() {
            return Ok(Some(Outcome::Ask { question: plan.question(), token }));
        }
        match client.ask(&plan.question()).await {
            Some(Confirmed::Yes) => return Ok(None),
            Some(Confirmed::No) => return Err(refused(plan)),
            None => {}
        }
        let mut again = plan.arguments.as_object().cloned().unwrap_or_default();
        again.insert(CONFIRM.to_owned(), json!(token));
        let answer = Answer::result(json!({
            "status": "confirmation_required", "note": note, "plan": plan.to_value(),
            "confirm": token,
        }));
        let next = Next { tool: plan.tool.to_owned(), arguments: again };
        Ok(Some(Outcome::Done(answer.next(Some(next)))))
    }

    async fn carry_out(&self, call: Call, client: &dyn Client) -> Carried {
        let caller = self.caller();
        Carried::Answered(match call {
            Call::OperationWait(params) => {
                // A client that hears nothing meanwhile gives up on longer waits.
                let wait = Duration::from_secs(params.timeout_s).min(self.wait);
                self.watched(&caller, &params.id, wait, client).await
            }
            Call::VmCreate(params) if !params.wait => {
                self.begun(&caller, Call::VmCreate(params)).await
            }
            Call::ExecRun(params) if params.detach => {
                self.begun(&caller, Call::ExecRun(params)).await
            }
            call if call.verb().runs == Runs::AsOperation || is_long(&call) => {
                match self.control.start(&caller, call).await {
                    Ok(id) => return self.waited_for(&caller, &id, client).await,
                    Err(error) => Answer::error(error),
                }
            }
            call => match follow::directly(&self.control, &caller, call, client).await {
                Ok(result) => Answer::result(result),
                Err(error) => Answer::error(error),
            },
        })
    }

    async fn begun(&self, caller: &Caller, call: Call) -> Answer {
        let id = match self.control.start(caller, call).await {
            Ok(id) => id,
            Err(error) => return Answer::error(error),
        };
        match self.control.watch_operation(caller, &id).await {
            Ok(states) => follow::still_running(&states.borrow(), self.wait),
            Err(error) => Answer::error(error),
        }
    }

    /// Waits for an operation that this call began: for a client that follows tasks, only as long
    /// as most operations take.
    async fn waited_for(&self, caller: &Caller, id: &OperationId, client: &dyn Client) -> Carried {
        let is_task = client.takes_tasks();
        let wait = if is_task { TASK_AFTER.min(self.wait) } else { self.wait };
        let followed = follow::operation(&self.control, caller, id, wait, client).await;
        Carried::Answered(match followed {
            Followed::Ended(view) => match follow::outcome(*view) {
                Ok(result) => Answer::result(result),
                Err(error) => Answer::error(error),
            },
            Followed::Running(view) if is_task => return Carried::Begun(view),
            Followed::Running(view) => follow::still_running(&view, self.wait),
            Followed::TakenBack(_) => {
                self.cancel(id).await;
                let message = format!("the request was taken back, and so the operation {id}");
                let error = ApiError::new(ErrorCode::Cancelled, message).operation(id.clone());
                Answer::error(error)
            }
            Followed::Lost(error) => Answer::error(error.operation(id.clone())),
        })
    }

    /// Waits for an operation that another call began: taking this one back leaves it alone.
    async fn watched(
        &self,
        caller: &Caller,
        id: &OperationId,
        wait: Duration,
        client: &dyn Client,
    ) -> Answer {
        match follow::operation(&self.control, caller, id, wait, client).await {
            Followed::Ended(view) => match serde_json::to_value(&view) {
                Ok(value) => Answer::result(value),
                Err(source) => {
                    Answer::error(ApiError::new(ErrorCode::Internal, source.to_string()))
                }
            },
            Followed::Running(view) | Followed::TakenBack(view) => {
                follow::still_running(&view, self.wait)
            }
            Followed::Lost(error) => Answer::error(error),
        }
    }

    async fn cancel(&self, id: &OperationId) {
        let call = Call::parse("operation_cancel", json!({"id": id}));
        let cancelled = match call {
            Ok(call) => self.control.call(&self.caller(), call).await,
            Err(error) => Err(error),
        };
        if let Err(error) = cancelled {
            tracing::info!(%id, %error, "the operation could not be cancelled");
        }
    }

    /// Makes an answer fit: a page is read again with fewer rows, so that its cursor is right; the
    /// rest is cut.
    async fn fitted(
        &self,
        verb: &Verb,
        arguments: &Map<String, Value>,
        mut answer: Answer,
        budget: usize,
    ) -> Answer {
        let Ok(result) = &mut answer.outcome else { return answer };
        let total = budget::size(result);
        if verb.effect == Effect::Read
            && total > budget
            && let Some(rows) = budget::rows_that_fit(result, budget)
        {
            let mut fewer = arguments.clone();
            fewer.insert("limit".to_owned(), json!(rows));
            let call = Call::parse(verb.name, Value::Object(fewer));
            if let Ok(call) = call
                && let Ok(page) = self.control.call(&self.caller(), call).await
            {
                *result = page;
            }
        }
        let mut cut = budget::short_of(result);
        for part in budget::fit(result, budget) {
            match cut.iter_mut().find(|known| known.path == part.path) {
                Some(known) => known.kept = part.kept,
                None => cut.push(part),
            }
        }
        let rest = budget::rest(verb, arguments, result);
        answer.cut = cut;
        if answer.next.is_none() {
            answer.next = rest;
        }
        answer
    }
}

/// Returns whether a call's commands may run for longer than a client waits.
fn is_long(call: &Call) -> bool {
    let timeout_s = match call {
        Call::ExecRun(params) => params.timeout_s,
        Call::ExecFanout(params) => params.timeout_s,
        Call::NodeExec(params) => params.timeout_s,
        Call::NodeExecAll(params) => params.timeout_s,
        _ => return false,
    };
    timeout_s > DIRECT_EXEC_S
}

fn refused(plan: &Plan) -> ApiError {
    ApiError::new(
        ErrorCode::Cancelled,
        format!("{} was not confirmed; nothing was done", plan.tool),
    )
    .hint("a person said no: do not call it again unless they ask for it")
}

/// Returns the call that `tool_call` wraps.
fn named(mut arguments: Map<String, Value>) -> Result<(String, Map<String, Value>), ApiError> {
    let usage = "tool_call{name, arguments?}";
    let name = match arguments.remove("name") {
        Some(Value::String(name)) => name,
        Some(_) => return Err(ApiError::parameter("name", "`name` is not a string").hint(usage)),
        None => return Err(ApiError::parameter("name", "tool_call needs `name`").hint(usage)),
    };
    let wrapped = match arguments.remove("arguments") {
        Some(Value::Object(wrapped)) => wrapped,
        None | Some(Value::Null) => Map::new(),
        Some(_) => {
            let message = "`arguments` is not an object";
            return Err(ApiError::parameter("arguments", message).hint(usage));
        }
    };
    match arguments.keys().next() {
        Some(extra) => {
            let shown: String = extra.chars().take(64).collect();
            let message = format!("tool_call has no parameter `{shown}`");
            Err(ApiError::parameter(&shown, message)
                .hint(format!("arguments of the tool go into `arguments`: {usage}")))
        }
        None => Ok((name, wrapped)),
    }
}
