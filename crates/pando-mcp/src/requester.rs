//! The client of one request: what it can do, how it is told of progress, how a person at its end
//! is asked.

use async_trait::async_trait;
use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, ElicitRequestParams, ElicitationAction, ProgressNotificationParam,
    ProgressToken, ProtocolVersion, RequestMetaObject,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::confirm::Consent;
use crate::follow::{Client, Confirmed};
use crate::limits::CONFIRM_WAIT;

/// Under which name a person's answer to a confirmation comes back.
pub const ANSWER: &str = "confirm";

/// Returns the form that asks a person.
///
/// # Errors
/// None that is known: the schema is our own.
pub fn form(question: &str) -> Result<ElicitRequestParams, serde_json::Error> {
    let schema = json!({
        "type": "object",
        "required": [ANSWER],
        "properties": {ANSWER: {"type": "boolean", "title": "Do it", "default": false}},
    });
    Ok(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: question.to_owned(),
        requested_schema: serde_json::from_value(schema)?,
    })
}

/// Returns what a person said, from the answer to the form.
fn said(action: &Value, content: Option<&Value>) -> Confirmed {
    let agreed = content.and_then(|content| content.get(ANSWER)) == Some(&Value::Bool(true));
    if action == "accept" && agreed { Confirmed::Yes } else { Confirmed::No }
}

/// See the module.
pub struct Requester {
    context: RequestContext<RoleServer>,
    token: Option<ProgressToken>,
    closed: CancellationToken,
}

impl Requester {
    /// Returns the client that made a request. `closed` is set once it is gone.
    pub fn new(context: RequestContext<RoleServer>, closed: CancellationToken) -> Self {
        Self { token: context.meta.get_progress_token(), context, closed }
    }

    /// Returns whether the client has taken its request back already.
    pub fn has_left(&self) -> bool {
        self.context.ct.is_cancelled()
    }

    fn is_modern(&self) -> bool {
        self.context.protocol_version().is_some_and(|own| has_no_sessions(&own))
    }

    fn shows_forms(&self) -> bool {
        let capabilities = self.context.client_capabilities();
        let elicitation = capabilities.and_then(|capabilities| capabilities.elicitation);
        elicitation.is_some_and(|own| own.form.is_some() || own.url.is_none())
    }
}

#[async_trait]
impl Client for Requester {
    async fn progress(&self, done: f64, total: Option<f64>, message: String) {
        let Some(token) = &self.token else { return };
        let mut params = ProgressNotificationParam::new(token.clone(), done).with_message(message);
        params.total = total;
        // A client that is gone needs no progress.
        let _ = self.context.peer.notify_progress(params).await;
    }

    async fn cancelled(&self) {
        self.context.ct.cancelled().await;
        if self.closed.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }

    async fn ask(&self, question: &str) -> Option<Confirmed> {
        if self.is_modern() || !self.shows_forms() {
            return None;
        }
        let form = form(question).ok()?;
        let asked = self.context.peer.create_elicitation_with_timeout(form, Some(CONFIRM_WAIT));
        // Cancel-safe: a question that is no longer awaited is dropped.
        let answer = tokio::select! {
            answer = asked => answer,
            () = self.context.ct.cancelled() => return Some(Confirmed::No),
        };
        match answer {
            Ok(answer) if answer.action == ElicitationAction::Accept => {
                Some(said(&json!("accept"), answer.content.as_ref()))
            }
            Ok(_) => Some(Confirmed::No),
            Err(error) => {
                tracing::info!(%error, "the client could not ask for a confirmation");
                None
            }
        }
    }

    fn asks_between_calls(&self) -> bool {
        self.is_modern() && self.shows_forms()
    }

    fn takes_tasks(&self) -> bool {
        takes_tasks(&self.context.meta)
    }
}

/// Returns whether a revision is one in which requests carry their own context.
pub fn has_no_sessions(version: &ProtocolVersion) -> bool {
    version.as_str() >= ProtocolVersion::V_2026_07_28.as_str()
}

/// Returns whether this very request says that its client follows tasks. What was said in earlier
/// ones does not count, nor what an older client calls tasks.
pub fn takes_tasks(meta: &RequestMetaObject) -> bool {
    meta.protocol_version().is_some_and(|own| has_no_sessions(&own))
        && meta.client_capabilities().is_some_and(|own| own.supports_tasks())
}

/// Returns what the client's repeated request says to a plan.
pub fn consent(request: &CallToolRequestParams) -> Consent {
    let (Some(token), Some(responses)) = (&request.request_state, &request.input_responses) else {
        return Consent::None;
    };
    let Some(response) = responses.get(ANSWER) else { return Consent::None };
    let action = response.get("action").unwrap_or(&Value::Null);
    match said(action, response.get("content")) {
        Confirmed::Yes => Consent::Given(token.clone()),
        Confirmed::No => Consent::Refused,
    }
}
