//! What every agent does with an answer, however it reached the server: go on waiting for what
//! takes long, and confirm what may lose something.

use serde_json::Value;

/// Returns the envelope of a tool's call; goes on waiting and confirms where it is told to.
pub fn envelope(
    call: &mut dyn FnMut(&str, &Value) -> Value,
    tool: &str,
    arguments: &Value,
) -> Value {
    let answer = call(tool, arguments);
    let told = answer["next"]["tool"] == "operation_wait"
        || answer["result"]["status"] == "confirmation_required";
    if !told {
        return answer;
    }
    let next = &answer["next"];
    let mut answer = envelope(call, next["tool"].as_str().unwrap(), &next["arguments"]);
    // What was waited for is the operation; its result is the verb's.
    if next["tool"] == "operation_wait" && answer["result"]["status"] == "succeeded" {
        answer["result"] = answer["result"]["result"].take();
    }
    answer
}

/// Returns the result of a tool's call that must succeed.
pub fn ok(call: &mut dyn FnMut(&str, &Value) -> Value, tool: &str, arguments: &Value) -> Value {
    let mut answer = envelope(call, tool, arguments);
    assert_eq!(answer["success"], true, "{tool} {arguments}: {answer:#}");
    answer["result"].take()
}
