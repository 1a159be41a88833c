//! Operations as tasks, for clients that follow tasks and for nobody else.

use std::sync::Arc;
use std::time::Duration;

use pando_api::fake::FakeControl;
use pando_api::{ApiError, Call};
use pando_mcp::Profile;
use pando_model::{ErrorCode, OperationId};
use serde_json::{Value, json};

use crate::support::{ERAS, Era, Session, control, handler};

fn declared() -> Value {
    json!({"extensions": {"io.modelcontextprotocol/tasks": {}}})
}

/// Returns an engine in which creating a machine goes on until the test ends it, and which shows
/// operations.
fn creating() -> (Arc<FakeControl>, OperationId) {
    let control = control();
    let id = control.begin("vm_create");
    control.answer("vm_create", json!({"operation": id}));
    control.answer("operation_cancel", json!({}));
    control.show_operations();
    (control, id)
}

async fn session(control: &Arc<FakeControl>, era: Era, capabilities: Value) -> Session {
    let handler = handler(control, Profile::default()).waiting(Duration::from_millis(30));
    Session::with(handler, era, capabilities).await
}

#[tokio::test]
async fn a_long_call_becomes_a_task_that_ends_with_its_result() {
    let (control, id) = creating();
    let mut session = session(&control, Era::Modern, declared()).await;
    let call = json!({"name": "vm_create", "arguments": {"name": "shop"}});
    let begun = session.request("tools/call", call).await["result"].clone();
    assert_eq!(begun["resultType"], "task", "{begun}");
    assert_eq!(begun["taskId"], id.as_str());
    assert_eq!(begun["status"], "working");
    assert_eq!(begun["ttlMs"], 30 * 24 * 3_600_000_i64);
    assert!(begun["pollIntervalMs"].as_u64().unwrap() > 0);
    assert!(begun.get("structuredContent").is_none() && begun.get("content").is_none());

    control.progress(&id, "booting", 1);
    let asked = json!({"taskId": id});
    let working = session.request("tasks/get", asked.clone()).await["result"].clone();
    assert_eq!(working["resultType"], "complete");
    assert_eq!(working["status"], "working");
    assert_eq!(working["statusMessage"], "vm_create: booting");
    assert!(working.get("result").is_none());

    control.finish(&id, Ok(json!({"name": "shop"})));
    let done = session.request("tasks/get", asked).await["result"].clone();
    assert_eq!(done["status"], "completed", "{done}");
    let result = &done["result"];
    assert_eq!(result["isError"], false);
    assert_eq!(result["structuredContent"]["success"], true);
    assert_eq!(result["structuredContent"]["result"]["name"], "shop");
    let text = result["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), result["structuredContent"]);
    session.close().await;
}

#[tokio::test]
async fn what_fails_is_completed_with_its_error() {
    let (control, id) = creating();
    let mut session = session(&control, Era::Modern, declared()).await;
    let call = json!({"name": "vm_create", "arguments": {"name": "shop"}});
    session.request("tools/call", call).await;
    control.finish(&id, Err(ApiError::new(ErrorCode::MachineFailed, "QEMU ended")));
    let done = session.request("tasks/get", json!({"taskId": id})).await["result"].clone();
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["result"]["isError"], true);
    assert_eq!(done["result"]["structuredContent"]["error"]["code"], "machine_failed");
    session.close().await;
}

#[tokio::test]
async fn a_quick_call_is_answered_as_ever() {
    let control = control();
    control.answer("vm_create", json!({"name": "shop"}));
    let mut session = session(&control, Era::Modern, declared()).await;
    assert_eq!(session.call("vm_create", json!({"name": "shop"})).await["result"]["name"], "shop");
    session.close().await;
}

#[tokio::test]
async fn nobody_gets_a_task_who_did_not_say_so_in_that_request() {
    for era in ERAS {
        let capabilities = if *era == Era::Modern { json!({}) } else { declared() };
        let (control, id) = creating();
        let mut session = session(&control, *era, capabilities).await;
        let envelope = session.call("vm_create", json!({"name": "shop"})).await;
        assert_eq!(envelope["result"]["operation_id"], id.as_str(), "{era:?}");
        assert_eq!(envelope["next"]["tool"], "operation_wait");
        let code = if *era == Era::Modern { -32_021 } else { -32_601 };
        for (method, params) in [
            ("tasks/get", json!({"taskId": id})),
            ("tasks/update", json!({"taskId": id, "inputResponses": {}})),
            ("tasks/cancel", json!({"taskId": id})),
        ] {
            let refused = session.request(method, params).await;
            assert_eq!(refused["error"]["code"], code, "{era:?} {method}: {refused}");
        }
        control.finish(&id, Ok(json!({})));
        session.close().await;
    }
}

#[tokio::test]
async fn only_the_revision_that_has_tasks_offers_them() {
    let mut modern = session(&control(), Era::Modern, json!({})).await;
    let found = modern.request("server/discover", json!({})).await;
    let extensions = &found["result"]["capabilities"]["extensions"];
    assert!(extensions["io.modelcontextprotocol/tasks"].is_object(), "{found}");
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    });
    let begun = modern.plain("initialize", params).await;
    let offered = &begun["result"]["capabilities"];
    assert!(offered["tools"].is_object() && offered.get("extensions").is_none(), "{begun}");
    modern.close().await;
}

#[tokio::test]
async fn cancelling_a_task_cancels_its_operation_once() {
    let (control, id) = creating();
    let mut session = session(&control, Era::Modern, declared()).await;
    let cancellations = || {
        let calls = control.calls();
        calls.iter().filter(|(_, call)| matches!(call, Call::OperationCancel(_))).count()
    };
    let call = json!({"name": "vm_create", "arguments": {"name": "shop"}});
    session.request("tools/call", call).await;
    let update = json!({"taskId": id, "inputResponses": {"nothing": {"action": "accept"}}});
    let updated = session.request("tasks/update", update).await;
    assert_eq!(updated["result"], json!({"resultType": "complete"}), "{updated}");
    assert_eq!(cancellations(), 0);
    let cancelled = session.request("tasks/cancel", json!({"taskId": id})).await;
    assert_eq!(cancelled["result"], json!({"resultType": "complete"}), "{cancelled}");
    assert_eq!(cancellations(), 1);
    // One that has ended is not touched: to a stuck one, cancelling would mean repairing.
    control.finish(&id, Err(ApiError::new(ErrorCode::Cancelled, "it was cancelled")));
    session.request("tasks/cancel", json!({"taskId": id})).await;
    assert_eq!(cancellations(), 1);
    session.close().await;
}

#[tokio::test]
async fn news_of_tasks_are_for_whoever_follows_tasks() {
    let (control, id) = creating();
    let params = json!({"notifications": {"taskIds": [id], "resourcesListChanged": true}});
    let mut plain = session(&control, Era::Modern, json!({})).await;
    let refused = plain.request("subscriptions/listen", params.clone()).await;
    assert_eq!(refused["error"]["code"], -32_021, "{refused}");
    assert_eq!(refused["error"]["data"]["requiredCapabilities"], declared());
    plain.close().await;
    // Whoever does is told that there are none: tasks are polled, and resources listened to.
    let mut following = session(&control, Era::Modern, declared()).await;
    following.send("subscriptions/listen", params).await;
    let granted = following.read().await;
    let granted = &granted["params"]["notifications"];
    assert_eq!(granted, &json!({"resourcesListChanged": true}), "{granted}");
    following.close().await;
}

#[tokio::test]
async fn unknown_tasks_are_refused_by_name() {
    let (control, id) = creating();
    let mut session = session(&control, Era::Modern, declared()).await;
    let unknown = OperationId::random();
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        for task in [json!(unknown), json!("br_0123456789ab"), json!("../x"), json!(7), json!("")] {
            let params = json!({"taskId": task, "inputResponses": {}});
            let refused = session.request(method, params).await;
            assert_eq!(refused["error"]["code"], -32_602, "{method} {task}: {refused}");
        }
    }
    control.finish(&id, Ok(json!({})));
    session.close().await;
}

#[tokio::test]
async fn a_command_that_may_take_long_is_a_task_too() {
    let control = control();
    let id = control.begin("exec_run");
    control.answer("exec_run", json!({"operation": id}));
    control.show_operations();
    let mut session = session(&control, Era::Modern, declared()).await;
    let call = json!({"name": "exec_run", "arguments": {"command": "make", "timeout_s": 3600}});
    let begun = session.request("tools/call", call).await["result"].clone();
    assert_eq!(begun["taskId"], id.as_str(), "{begun}");
    let long = "x".repeat(100_000);
    control.finish(&id, Ok(json!({"stdout": long, "exit_code": 0})));
    let done = session.request("tasks/get", json!({"taskId": id})).await["result"].clone();
    assert_eq!(done["result"]["structuredContent"]["result"]["exit_code"], 0);
    assert!(done.to_string().len() < 25_000, "{}", done.to_string().len());
    session.close().await;
}
