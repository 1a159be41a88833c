//! Whatever a client sends: an answer that names what is wrong, and a session that goes on.

use serde_json::{Value, json};

use crate::support::{ERAS, Era, Session, control};

#[tokio::test]
async fn bad_calls_name_the_parameter_and_the_remedy() {
    let huge = "x".repeat(10 << 20);
    let mut deep = json!(1);
    for _ in 0..90 {
        deep = json!([deep]);
    }
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("vm_craete", json!({}), "unknown_verb", "vm_create"),
        ("rm -rf /", json!({}), "unknown_verb", ""),
        ("", json!({}), "unknown_verb", ""),
        ("vm_create", json!({}), "invalid_parameter", "name"),
        ("vm_create", json!({"name": 5}), "invalid_parameter", "name"),
        ("vm_create", json!({"name": "a", "memory": 512}), "invalid_parameter", "memory_mib"),
        ("vm_create", json!({"name": "a", "vcpus": "two"}), "invalid_parameter", "vcpus"),
        ("vm_create", json!({"name": "a", "memory_mib": -1}), "invalid_parameter", "memory_mib"),
        ("vm_create", json!({"name": "a", "memory_mib": 1e300}), "invalid_parameter", "memory_mib"),
        ("vm_create", json!({"name": huge.clone()}), "invalid_parameter", "name"),
        ("vm_create", json!({"name": "a", "labels": deep.clone()}), "invalid_parameter", "labels"),
        ("vm_create", json!({"name": "a", "env": {"A": deep}}), "invalid_parameter", "env"),
        ("exec_run", json!({"command": huge}), "invalid_parameter", "command"),
        ("exec_run", json!({}), "invalid_parameter", "command"),
        ("exec_run", json!({"command": "id", "timeout_s": 0}), "invalid_parameter", "timeout_s"),
        ("exec_run", json!({"argv": "id"}), "invalid_parameter", "argv"),
        ("operation_get", json!({"id": "br_0123456789ab"}), "invalid_parameter", "id"),
        ("operation_wait", json!({"id": "cm_0123456789ab"}), "invalid_parameter", "id"),
        ("vm_status", json!({"address": "../etc"}), "invalid_parameter", "address"),
        ("vm_delete", json!({"name": "a", "confirm": 1}), "invalid_parameter", "confirm"),
        ("vm_status", json!({"confirm": "x"}), "invalid_parameter", "confirm"),
        ("tool_find", json!({}), "invalid_parameter", "query"),
        ("tool_find", json!({"query": 1}), "invalid_parameter", "query"),
        ("tool_find", json!({"query": "y".repeat(1000)}), "invalid_parameter", "query"),
        ("tool_find", json!({"query": "a", "page": 2}), "invalid_parameter", "page"),
        ("tool_call", json!({}), "invalid_parameter", "name"),
        ("tool_call", json!({"name": "gc", "arguments": []}), "invalid_parameter", "arguments"),
        ("tool_call", json!({"name": "gc", "dry_run": true}), "invalid_parameter", "dry_run"),
        ("tool_call", json!({"name": "tool_call"}), "unknown_verb", ""),
    ];
    let control = control();
    for era in ERAS {
        let mut session = Session::open(&control, *era).await;
        for (tool, arguments, code, says) in &cases {
            let envelope = session.call(tool, arguments.clone()).await;
            let error = &envelope["error"];
            assert_eq!(error["code"], *code, "{tool}: {error}");
            assert!(error.to_string().contains(says), "{tool}: {error}");
            assert!(error.to_string().len() < 1500, "{tool}");
            let helps = error["hint"].is_string() || envelope["next"].is_object();
            assert!(helps, "{tool}: {envelope}");
        }
        session.close().await;
    }
    assert!(control.calls().is_empty(), "nothing reached the engine: {:?}", control.calls());
}

#[tokio::test]
async fn bad_messages_are_answered_and_the_session_goes_on() {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        ("{".to_owned(), None),
        ("\u{feff}nonsense".to_owned(), None),
        (
            format!(
                r#"{{"jsonrpc":"2.0","id":901,"method":"tools/call","params":{{"name":"vm_list","arguments":{deep},{meta}}}}}"#
            ),
            Some(901),
        ),
        (r#"[{"jsonrpc":"2.0","id":902,"method":"ping"}]"#.to_owned(), None),
        (r#"{"jsonrpc":"2.0","id":903,"method":"tools/call","params":"x"}"#.to_owned(), Some(903)),
        (r#"{"jsonrpc":"2.0","id":904,"method":"tools/call","params":{}}"#.to_owned(), Some(904)),
        (
            format!(r#"{{"jsonrpc":"2.0","id":905,"method":"no/such","params":{{{meta}}}}}"#),
            Some(905),
        ),
        (r#"{"jsonrpc":"1.0","id":906,"method":"ping"}"#.to_owned(), Some(906)),
    ];
    for era in ERAS {
        let control = control();
        control.answer("vm_list", json!({"vms": []}));
        let mut session = Session::open(&control, *era).await;
        for (line, id) in &cases {
            session.line(line).await;
            let answer = session.read().await;
            assert_eq!(answer["id"], id.map_or(Value::Null, Value::from), "{answer}");
            assert!(answer["error"]["message"].as_str().is_some_and(|text| text.len() > 4));
        }
        // Notifications are never answered, whatever they are.
        session.line(r#"{"jsonrpc":"2.0","method":"notifications/nothing","params":{}}"#).await;
        session
            .line(
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":77}}"#,
            )
            .await;
        session.line(r#"{"jsonrpc":"2.0","id":"stray","result":{}}"#).await;
        assert_eq!(session.call("vm_list", json!({})).await["success"], true, "{era:?}");
        session.close().await;
    }
}

#[tokio::test]
async fn a_session_may_begin_badly() {
    let control = control();
    let mut session = Session::open(&control, Era::Modern).await;
    session.line(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    session.line(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
    session.line(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#).await;
    let answer = session.read().await;
    assert_eq!(answer["error"]["code"], -32_602, "{answer}");
    assert!(session.request("tools/list", json!({})).await["result"]["tools"].is_array());
    session.close().await;
}

#[tokio::test]
async fn a_defect_ends_its_request_only() {
    let control = control();
    control.on("vm_status", std::sync::Arc::new(|_, _| panic!("scripted")));
    control.answer("vm_list", json!({"vms": []}));
    let mut session = Session::open(&control, Era::Modern).await;
    let failed = session.call("vm_status", json!({})).await;
    assert_eq!(failed["error"]["code"], "internal");
    assert_eq!(session.call("vm_list", json!({})).await["success"], true);
    session.close().await;
}

#[tokio::test]
async fn no_answer_is_lost_in_a_crowd() {
    let control = control();
    control.answer("vm_list", json!({"vms": []}));
    let mut session = Session::open(&control, Era::Modern).await;
    let mut waited_for = std::collections::BTreeSet::new();
    for round in 0..400 {
        let arguments = if round % 3 == 0 { json!([]) } else { json!({}) };
        let params = json!({"name": "vm_list", "arguments": arguments});
        waited_for.insert(session.send("tools/call", params).await);
        // What is not read fills the stream, so that writers wait.
        while waited_for.len() > 100 {
            waited_for.remove(&session.read().await["id"].as_i64().unwrap());
        }
    }
    while !waited_for.is_empty() {
        assert!(waited_for.remove(&session.read().await["id"].as_i64().unwrap()));
    }
    session.close().await;
}
