//! What may lose something is confirmed first. How depends on the client: a person is asked where
//! the client can ask one; otherwise the call returns its plan with a token, and passing the token
//! carries the plan out.
//!
//! The token is a keyed hash of the plan: the call with all its parameters, what it loses, and
//! the state of what it loses it from. When any of that changes, the token is that of another plan.
//! The key is the process's own, so a token cannot be made up, nor outlive the process; and it is good
//! for one call.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use pando_api::{Call, Effect};
use pando_model::Address;
use serde_json::{Map, Value, json};

/// Hex digits of a token: nobody guesses 64 bits in the time that a process lives.
const TOKEN_DIGITS: usize = 16;
/// Most branches among which the one that a call names is looked for.
const BRANCHES: u32 = 100;

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
        Call::ClusterStop(_) => Some(
            "What runs on the nodes ends; their memory since the last commit is lost.".to_owned(),
        ),
        Call::ClusterDestroy(params) if params.remove_overlays => {
            Some("All branches are stopped; disks and commits are removed for good.".to_owned())
        }
        Call::ClusterDestroy(_) => Some(
            "All branches are stopped and their memory is lost; disks and commits stay.".to_owned(),
        ),
        Call::NodeCrash(_) => {
            Some("The node's memory is lost, and what it had not written to its disk.".to_owned())
        }
        // The state before is committed.
        Call::SnapshotRevert(params) if params.save => None,
        Call::SnapshotRevert(_) => {
            Some("The branch's state since its last commit is lost.".to_owned())
        }
        _ => Some(call.verb().description().to_owned()),
    }
}

/// A read that shows what a call would lose something from.
pub struct Fact {
    /// The verb.
    pub verb: &'static str,
    /// Its parameters.
    pub params: Value,
    /// The fields of its result that matter.
    fields: &'static [&'static str],
    /// Of a list of branches, the one that matters.
    branch: Option<Address>,
}

impl Fact {
    fn new(verb: &'static str, params: Value, fields: &'static [&'static str]) -> Self {
        Self { verb, params, fields, branch: None }
    }

    /// What a branch does: from the list, which asks no guest.
    fn branch(address: &Address) -> Self {
        let cluster = (!address.cluster.starts_with("br_")).then_some(&address.cluster);
        let params = json!({"cluster": cluster, "limit": BRANCHES});
        Self { branch: Some(address.clone()), ..Self::new("branch_list", params, &["branches"]) }
    }

    fn commits(cluster: &str) -> Self {
        Self::new("commit_list", json!({"cluster": cluster, "limit": 1}), &["total"])
    }

    fn commit(name: &str) -> Self {
        Self::new("commit_show", json!({"commit": name}), &["id", "tags", "heads"])
    }

    /// Returns what matters of a result; of rows, what a plan shows.
    pub fn pick(&self, result: &Value) -> Value {
        const OF_ROWS: &[&str] = &["address", "state", "commit_id"];
        let of = |object: &Map<String, Value>, fields: &[&str]| -> Map<String, Value> {
            let kept = object.iter().filter(|(name, _)| fields.contains(&name.as_str()));
            kept.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        let Some(object) = result.as_object() else { return Value::Null };
        let mut kept = of(object, self.fields);
        for rows in kept.values_mut().filter_map(Value::as_array_mut) {
            if let Some(address) = &self.branch {
                only(address, rows);
            }
            for row in rows {
                if let Some(object) = row.as_object() {
                    *row = Value::Object(of(object, OF_ROWS));
                }
            }
        }
        Value::Object(kept)
    }
}

/// Keeps the row of the branch that an address means: the current one if it names none.
fn only(address: &Address, rows: &mut Vec<Value>) {
    let has_current = rows.iter().any(|row| row["current"] == json!(true));
    rows.retain(|row| match &address.branch {
        _ if address.cluster.starts_with("br_") => row["id"] == json!(address.cluster),
        Some(name) => {
            row["address"].as_str().and_then(|own| own.split_once('@')).map(|(_, own)| own)
                == Some(name.as_str())
        }
        None => !has_current || row["current"] == json!(true),
    });
}

/// Returns the reads that show what a call would lose something from.
pub fn facts(call: &Call) -> Vec<Fact> {
    let all = |cluster: &str| {
        let branches = json!({"cluster": cluster, "limit": 20});
        vec![Fact::new("branch_list", branches, &["branches", "total"]), Fact::commits(cluster)]
    };
    match call {
        Call::VmControl(params) => vec![Fact::branch(&params.address)],
        Call::BranchDelete(params) => vec![Fact::branch(&params.branch)],
        Call::BranchRollback(params) => match &params.branch {
            Some(branch) => vec![Fact::branch(branch)],
            None => Vec::new(),
        },
        Call::VmDelete(params) => all(&params.name),
        Call::ClusterStop(params) => vec![Fact::branch(&params.cluster_name)],
        Call::ClusterDestroy(params) => all(&params.cluster_name),
        Call::NodeCrash(params) => vec![Fact::branch(&params.cluster_name)],
        Call::SnapshotRevert(params) => {
            let (cluster, name) = (&params.cluster_name.cluster, &params.snapshot_name);
            vec![
                Fact::branch(&params.cluster_name),
                Fact::commit(&format!("{cluster}@{name}")),
                Fact::commits(cluster),
            ]
        }
        Call::SnapshotDelete(params) => {
            vec![Fact::commit(&format!("{}@{}", params.cluster_name, params.snapshot_name))]
        }
        Call::TagDelete(params) => vec![match &params.cluster {
            Some(cluster) => Fact::commit(&format!("{cluster}@{}", params.tag)),
            None => Fact::commit(params.tag.as_str()),
        }],
        Call::CommitDelete(params) => vec![Fact::commit(&params.commit)],
        Call::ImageRemove(params) => {
            vec![Fact::new("image_show", json!({"image": params.image}), &["id", "name"])]
        }
        _ => Vec::new(),
    }
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

    /// Returns the token that stands for exactly this plan, made for exactly this principal, for as long
    /// as `spent` tokens of such calls were given.
    pub fn token(&self, key: &[u8; 32], principal: &str, spent: u64) -> String {
        let text = json!([principal, self.to_value(), spent]).to_string();
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

/// How many tokens were given, so that each is good once. Calls share 256 counters: at worst a token is
/// void because another call's was given.
#[derive(Debug, Default)]
pub struct Spent(Mutex<BTreeMap<u8, u64>>);

impl Spent {
    /// Returns the token of a plan; nothing if it is the one that is `given`, which is spent then.
    pub fn token(
        &self,
        plan: &Plan,
        given: Option<&str>,
        of: impl Fn(u64) -> String,
    ) -> Option<String> {
        let call = blake3::hash(format!("{} {}", plan.tool, plan.arguments).as_bytes());
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = spent.entry(call.as_bytes()[0]).or_default();
        let token = of(*times);
        if given == Some(token.as_str()) {
            *times += 1;
            return None;
        }
        Some(token)
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
