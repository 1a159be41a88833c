//! Who calls: travels with every call through the gate.

use pando_model::RequestId;
use serde::{Deserialize, Serialize};

/// What a caller may do in general; policy narrows it further.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    #[default]
    Admin,
    /// Its own clusters.
    User,
    /// Reading.
    Viewer,
}

/// Who makes a call, and under which conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Who acts: `local:UID` for a user of this machine.
    pub principal: String,
    /// What it may do in general.
    pub role: Role,
    /// The client's session, if it has one: a terminal, an agent's conversation.
    pub session: Option<String>,
    /// This call.
    pub request_id: RequestId,
    /// Whether everything but reading is refused.
    pub read_only: bool,
    /// Calls with the same key and parameters are the same request: the second finds the first's
    /// operation.
    pub idempotency_key: Option<String>,
}

impl Caller {
    /// Returns the caller that stands for a user of this machine, with a fresh request id.
    pub fn local(uid: u32) -> Self {
        Self {
            principal: format!("local:{uid}"),
            role: Role::Admin,
            session: None,
            request_id: RequestId::random(),
            read_only: false,
            idempotency_key: None,
        }
    }
}
