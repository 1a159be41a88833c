//! Entry points for fuzzers: functions of bytes that must neither panic nor take unbounded time or
//! memory. `cargo test` runs them over `corpus/`, and over mutations of it.

use serde_json::Value;

use crate::catalogue::Call;

/// Longest text that an error may have, whatever was sent.
const MAX_MESSAGE_BYTES: usize = 2048;

/// A verb's name on the first line, its parameters as JSON below.
pub fn call(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (name, json) = text.split_once('\n').unwrap_or((&text, ""));
    let params = serde_json::from_str(json).unwrap_or(Value::Null);
    match Call::parse(name, params) {
        Ok(call) => {
            let again = call.params().and_then(|params| Call::parse(call.name(), params));
            assert_eq!(again.as_ref(), Ok(&call));
        }
        Err(error) => assert!(error.message.len() <= MAX_MESSAGE_BYTES, "{error}"),
    }
}
