//! From a request's head to a caller and parameters.

use std::net::SocketAddr;

use axum::http::HeaderMap;
use pando_api::{ApiError, Caller, Verb};
use pando_model::RequestId;
use serde_json::{Map, Value};

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer {
    /// This user, as the kernel says.
    Local { uid: u32 },
    /// Whoever connected from here and knows the token of this user.
    Tcp { uid: u32, address: SocketAddr },
}

pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
pub(crate) const REQUEST_ID: &str = "x-request-id";
pub(crate) const SESSION: &str = "x-pando-session";
pub(crate) const READ_ONLY: &str = "x-pando-read-only";

/// Longest session name, in bytes.
const MAX_SESSION_BYTES: usize = 128;

/// Returns who makes this request.
///
/// # Errors
/// `invalid_parameter` for a header that is not what it should be.
pub(crate) fn caller(peer: Peer, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let (Peer::Local { uid } | Peer::Tcp { uid, .. }) = peer;
    let mut caller = Caller::local(uid);
    if let Some(id) = text(headers, REQUEST_ID, 64)? {
        caller.request_id = id
            .parse::<RequestId>()
            .map_err(|source| ApiError::parameter(REQUEST_ID, source.to_string()))?;
    }
    caller.idempotency_key =
        text(headers, IDEMPOTENCY_KEY, pando_api::limits::MAX_KEY_BYTES)?.map(str::to_owned);
    let session = text(headers, SESSION, MAX_SESSION_BYTES)?.map(str::to_owned);
    caller.session = match peer {
        Peer::Local { .. } => session,
        // Told apart from the same user's calls on the socket, whatever the client says.
        Peer::Tcp { address, .. } => {
            Some(format!("http:{}", session.unwrap_or_else(|| address.to_string())))
        }
    };
    caller.read_only = match text(headers, READ_ONLY, 8)? {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            return Err(ApiError::parameter(
                READ_ONLY,
                format!("`{READ_ONLY}` is `{other}`, but must be `true` or `false`"),
            ));
        }
    };
    Ok(caller)
}

fn text<'a>(headers: &'a HeaderMap, name: &str, most: usize) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if !text.is_empty() && text.len() <= most => Ok(Some(text)),
        _ => Err(ApiError::parameter(
            name,
            format!("the header `{name}` must be 1 to {most} visible ASCII characters"),
        )),
    }
}

/// Returns a query string as parameters of `verb`, with the types that its schema names. A
/// repeated name is a list.
pub(crate) fn parameters(verb: &Verb, query: &[(String, String)]) -> Value {
    let mut params = Map::new();
    for (name, text) in query {
        let schema = verb.properties().and_then(|known| known.get(name));
        let kind = schema.and_then(|schema| schema.get("type")).and_then(Value::as_str);
        let value = match kind {
            Some("integer" | "number" | "boolean") => {
                serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()))
            }
            _ => Value::from(text.as_str()),
        };
        match params.get_mut(name) {
            Some(Value::Array(items)) => items.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None if kind == Some("array") => {
                params.insert(name.clone(), Value::Array(vec![value]));
            }
            None => {
                params.insert(name.clone(), value);
            }
        }
    }
    Value::Object(params)
}
