//! What may lose something is confirmed first. How depends on the client: a person is asked where
//! the client can ask one; otherwise the call returns its plan with a token, and passing the token
//! carries the plan out.
//!
//! The token is a keyed hash of the plan: the call with all its parameters, what it loses, and
//! the state of what it loses it from. When any of that changes, the token is that of another plan.
//! The key is the process's own, so a token cannot be made up, nor outlive the process.

use pando_api::{Call, Effect};
use serde_json::{Map, Value, json};

/// Hex digits of a token: nobody guesses 64 bits in the time that a process lives.
const TOKEN_DIGITS: usize = 16;

/// Returns what a call may lose, in words; `None` if it needs no confirmation.
pub fn loses(call: &Call) -> Option<String> {
    use pando_api::machine::Action;
    if call.verb().effect != Effect::Destructive {
        return None;
    }
    match call {
        Call::VmControl(params) => match params.action {
            Action::Start | Action::Pause | Action::Resume => None,
            Action::Stop | Action::Restart | Action::Kill => Some(
                "What runs in the machine ends; its memory since the last commit is lost."
                    .to_owned(),
            ),
        },
        // The state before is committed.
        Call::BranchRollback(params) if params.save => None,
        Call::BranchRollback(_) => {
            Some("The branch's state since its last commit is lost.".to_owned())
        }
        Call::VmDelete(params) if params.remove_overlays => {
            Some("All branches are stopped; disks and commits are removed for good.".to_owned())
        }
        Call::VmDelete(_) => Some(
            "All branches are stopped and their memory is lost; disks and commits stay.".to_owned(),
        ),
        Call::BranchDelete(_) => {
            Some("The branch and what it holds since its last commit are lost.".to_owned())
        }
        _ => Some(call.verb().description().to_owned()),
    }
}

/// Returns the reads that show what a call would lose it from, with the fields that matter.
pub fn facts(call: &Call) -> Vec<(&'static str, Value, &'static [&'static str])> {
    const BRANCH: &[&str] = &["address", "state", "generation", "commit_id"];
    let status = |address: &dyn std::fmt::Display| {
        vec![("vm_status", json!({"address": address.to_string()}), BRANCH)]
    };
    match call {
        Call::VmControl(params) => status(&params.address),
        Call::BranchDelete(params) => status(&params.branch),
        Call::BranchRollback(params) => match &params.branch {
            Some(branch) => status(branch),
            None => vec![("vm_status", json!({}), BRANCH)],
        },
        Call::VmDelete(params) => {
            let name = &params.name;
            vec![
                ("branch_list", json!({"cluster": name, "limit": 20}), &["branches", "total"]),
                ("commit_list", json!({"cluster": name, "limit": 1}), &["total"]),
            ]
        }
        Call::CommitDelete(params) => {
            vec![("commit_show", json!({"commit": params.commit}), &["id", "tags", "heads"])]
        }
        Call::ImageRemove(params) => {
            vec![("image_show", json!({"image": params.image}), &["id", "name"])]
        }
        _ => Vec::new(),
    }
}

/// Returns those fields of a fact that matter; of rows, those that a plan shows.
pub fn pick(fact: &Value, fields: &[&str]) -> Value {
    const OF_ROWS: &[&str] = &["address", "state", "commit_id"];
    let of = |object: &Map<String, Value>, fields: &[&str]| -> Map<String, Value> {
        let kept = object.iter().filter(|(name, _)| fields.contains(&name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let Some(object) = fact.as_object() else { return Value::Null };
    let mut kept = of(object, fields);
    for rows in kept.values_mut().filter_map(Value::as_array_mut) {
        for row in rows {
            if let Some(object) = row.as_object() {
                *row = Value::Object(of(object, OF_ROWS));
            }
        }
    }
    Value::Object(kept)
}

/// What a call would do, and from which state.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The verb.
    pub tool: &'static str,
    /// Its parameters, defaults included.
    pub arguments: Value,
    /// What it loses.
    pub loses: String,
    /// The state of what it would lose it from.
    pub now: Vec<Value>,
}

impl Plan {
    /// Returns the plan as JSON.
    pub fn to_value(&self) -> Value {
        json!({
            "tool": self.tool, "arguments": self.arguments, "loses": self.loses, "now": self.now,
        })
    }

    /// Returns the token that stands for exactly this plan, made for exactly this principal.
    pub fn token(&self, key: &[u8; 32], principal: &str) -> String {
        let text = json!([principal, self.to_value()]).to_string();
        let hash = blake3::keyed_hash(key, text.as_bytes()).to_hex();
        hash.get(..TOKEN_DIGITS).unwrap_or_default().to_owned()
    }

    /// Returns the question that a person is asked.
    pub fn question(&self) -> String {
        let named = self.arguments.as_object().into_iter().flatten();
        let named: Vec<String> = named
            .filter(|(_, value)| !matches!(value, Value::Bool(false) | Value::Number(_)))
            .map(|(name, value)| match value {
                Value::String(text) => format!("{name} {text}"),
                Value::Bool(_) => name.clone(),
                other => format!("{name} {other}"),
            })
            .collect();
        let now = self.now.iter().filter(|fact| fact.as_object().is_some_and(|o| !o.is_empty()));
        let now: Vec<String> = now.map(Value::to_string).collect();
        let state =
            if now.is_empty() { String::new() } else { format!("\nNow: {}", now.join(" ")) };
        format!("{} ({})?\n{}{state}", self.tool, named.join(", "), self.loses)
    }
}

/// What a client has said to a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consent {
    /// Nothing yet.
    None,
    /// Carry out the plan with this token.
    Given(String),
    /// A person said no to the plan with this token.
    Refused,
}
