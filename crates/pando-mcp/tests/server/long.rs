//! Long work: progress, bounded waits, cancellation.

use std::sync::Arc;
use std::time::Duration;

use pando_api::Call;
use pando_api::fake::FakeControl;
use pando_mcp::{Access, Profile, Role};
use pando_model::OperationId;
use serde_json::{Value, json};

use crate::support::{ERAS, Era, Session, control, envelope, handler};

/// Returns an engine in which creating a machine goes on until the test ends it.
fn creating() -> (Arc<FakeControl>, OperationId) {
    let control = control();
    let id = control.begin("vm_create");
    control.answer("vm_create", json!({"operation": id}));
    control.answer("operation_cancel", json!({}));
    (control, id)
}

fn cancellations(control: &FakeControl) -> usize {
    let calls = control.calls();
    calls.iter().filter(|(_, call)| matches!(call, Call::OperationCancel(_))).count()
}

async fn until(what: &str, mut found: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if found() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn progress_is_told_to_whoever_asked_and_grows() {
    for era in ERAS {
        let (control, id) = creating();
        let mut session = Session::open(&control, *era).await;
        let request = session
            .send(
                "tools/call",
                json!({"name": "vm_create", "arguments": {"name": "shop"},
                    "_meta": {"progressToken": "p1"}}),
            )
            .await;
        let first = session.read().await;
        assert_eq!(first["method"], "notifications/progress", "{first}");
        assert_eq!(first["params"]["progressToken"], "p1");
        assert_eq!(first["params"]["message"], "begun");
        control.progress(&id, "booting", 1);
        let second = session.read().await;
        assert_eq!(second["params"]["message"], "booting", "{second}");
        assert!(second["params"]["progress"].as_f64() > first["params"]["progress"].as_f64());
        assert_eq!(second["params"]["total"].as_f64(), Some(2.0));
        control.finish(&id, Ok(json!({"name": "shop"})));
        let answer = session.answer(request).await;
        assert_eq!(envelope(&answer)["result"]["name"], "shop");
        session.close().await;
    }
}

#[tokio::test]
async fn nobody_who_did_not_ask_hears_of_progress() {
    let (control, id) = creating();
    let mut session = Session::open(&control, Era::Modern).await;
    let request =
        session.send("tools/call", json!({"name": "vm_create", "arguments": {"name": "a"}})).await;
    until("it is begun", || !control.calls().is_empty()).await;
    control.progress(&id, "booting", 1);
    control.finish(&id, Ok(json!({})));
    session.answer(request).await;
    assert!(session.notifications.is_empty());
    session.close().await;
}

#[tokio::test]
async fn a_wait_that_is_over_says_how_to_go_on() {
    for era in ERAS {
        let (control, id) = creating();
        let handler = handler(&control, Profile::default()).waiting(Duration::from_millis(50));
        let mut session = Session::with(handler, *era, json!({})).await;
        let envelope = session.call("vm_create", json!({"name": "shop"})).await;
        assert_eq!(envelope["success"], true);
        assert_eq!(envelope["result"]["operation_id"], id.as_str());
        assert_eq!(envelope["result"]["status"], "running");
        let next = &envelope["next"];
        assert_eq!(next["tool"], "operation_wait");
        // It still runs, and is told so again.
        let again = session.call("operation_wait", next["arguments"].clone()).await;
        assert_eq!(again["result"]["status"], "running");
        control.finish(&id, Ok(json!({"name": "shop"})));
        let ended = session.call("operation_wait", next["arguments"].clone()).await;
        assert_eq!(ended["result"]["status"], "succeeded");
        assert_eq!(ended["result"]["result"]["name"], "shop");
        assert_eq!(cancellations(&control), 0);
        session.close().await;
    }
}

#[tokio::test]
async fn failures_of_operations_are_their_callers() {
    let (control, id) = creating();
    let mut session = Session::open(&control, Era::Modern).await;
    let request =
        session.send("tools/call", json!({"name": "vm_create", "arguments": {"name": "a"}})).await;
    until("it is begun", || !control.calls().is_empty()).await;
    let error = pando_api::ApiError::new(pando_model::ErrorCode::MachineFailed, "QEMU ended");
    control.finish(&id, Err(error));
    let envelope = envelope(&session.answer(request).await);
    assert_eq!(envelope["error"]["code"], "machine_failed");
    let next = json!({"tool": "operation_wait", "arguments": {"id": id}});
    assert_eq!(envelope["next"], next);
    session.close().await;
}

#[tokio::test]
async fn an_operation_that_its_daemon_did_not_survive_is_to_be_called_again() {
    let (control, id) = creating();
    let mut session = Session::open(&control, Era::Modern).await;
    let call = json!({"name": "vm_create", "arguments": {"name": "a", "idempotency_key": "k"}});
    let request = session.send("tools/call", call).await;
    until("it is begun", || !control.calls().is_empty()).await;
    let undone = pando_api::ApiError::new(pando_model::ErrorCode::DaemonUnreachable, "it ended");
    control.finish(&id, Err(undone.operation(id.clone())));
    let envelope = envelope(&session.answer(request).await);
    // Under the same key it would be found as it ended.
    assert_eq!(envelope["next"], json!({"tool": "vm_create", "arguments": {"name": "a"}}));
    session.close().await;
}

#[tokio::test]
async fn next_calls_are_those_of_hints_as_this_client_can_make_them() {
    let faults = json!({"tool": "net_fault_list", "arguments": {"cluster_name": "trio"}});
    let by_way = json!({"tool": "tool_call", "arguments": {
        "name": "net_fault_list", "arguments": {"cluster_name": "trio"}}});
    let start = json!({"tool": "cluster_start", "arguments": {"cluster_name": "trio"}});
    let all = Profile { role: Some(Role::Admin), ..Profile::default() };
    let reading = Profile { access: Access::ReadOnly, ..Profile::default() };
    for (profile, hint, next) in [
        (Profile::default(), "`pando net faults trio` lists them", by_way),
        (all, "`pando net faults trio` lists them", faults),
        (Profile::default(), "`pando cluster start trio`", start),
        (reading, "`pando cluster start trio`", Value::Null),
        (Profile::default(), "`pando vm rm trio --force`", Value::Null),
    ] {
        let control = control();
        let code = pando_model::ErrorCode::WrongState;
        control.fail("vm_status", pando_api::ApiError::new(code, "no").hint(hint));
        let mut session = Session::with(handler(&control, profile), Era::Modern, json!({})).await;
        let envelope = session.call("vm_status", json!({"address": "trio"})).await;
        assert_eq!(envelope["next"], next, "{envelope}");
        assert!(!envelope["error"]["hint"].as_str().unwrap().contains("pando "), "{envelope}");
        session.close().await;
    }
}

#[tokio::test]
async fn taking_a_request_back_cancels_its_operation() {
    for era in ERAS {
        let (control, id) = creating();
        control.answer("vm_list", json!({"vms": []}));
        let mut session = Session::open(&control, *era).await;
        let params = json!({"name": "vm_create", "arguments": {"name": "shop"}});
        let request = session.send("tools/call", params).await;
        until("it is begun", || !control.calls().is_empty()).await;
        session.notify("notifications/cancelled", json!({"requestId": request})).await;
        until("it is cancelled", || cancellations(&control) == 1).await;
        let (_, call) = control.calls().pop().unwrap();
        assert_eq!(call.params().unwrap()["id"], id.as_str());
        // The request itself is not answered; the next one is.
        assert_eq!(session.call("vm_list", json!({})).await["success"], true);
        session.close().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing() {
    let (control, id) = creating();
    let handler = handler(&control, Profile::default());
    let mut session = Session::with(handler, Era::Modern, json!({})).await;
    let params = json!({"name": "vm_create", "arguments": {"name": "shop"}});
    session.send("tools/call", params).await;
    until("it is begun", || !control.calls().is_empty()).await;
    let closing = tokio::spawn(session.close());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(cancellations(&control), 0);
    control.finish(&id, Ok(json!({})));
    closing.await.unwrap();
    assert_eq!(cancellations(&control), 0);
}

#[tokio::test]
async fn commands_that_may_take_long_become_operations() {
    for (verb, long) in [
        ("exec_run", json!({"command": "make", "timeout_s": 3600})),
        ("exec_fanout", json!({"branches": ["shop"], "command": "make", "timeout_s": 3600})),
        (
            "node_exec",
            json!({"cluster_name": "shop", "node_name": "a", "command": "make", "timeout_s": 90}),
        ),
        ("node_exec_all", json!({"cluster_name": "shop", "command": "make", "timeout_s": 90})),
    ] {
        let control = control();
        let id = control.begin(verb);
        control.answer(verb, json!({"operation": id}));
        let handler = handler(&control, Profile { role: Some(Role::Admin), ..Profile::default() });
        let handler = handler.waiting(Duration::from_millis(30));
        let mut session = Session::with(handler, Era::Modern, json!({})).await;
        let envelope = session.call(verb, long).await;
        assert_eq!(envelope["result"]["operation_id"], id.as_str(), "{envelope}");
        assert_eq!(envelope["next"]["tool"], "operation_wait");
        control.finish(&id, Ok(json!({"stdout": "done", "exit_code": 0})));
        let ended = session.call("operation_wait", json!({"id": id})).await;
        assert_eq!(ended["result"]["result"]["stdout"], "done");
        session.close().await;
    }
}

#[tokio::test]
async fn requests_are_served_beside_one_another() {
    let (control, id) = creating();
    control.answer("vm_list", json!({"vms": []}));
    let mut session = Session::open(&control, Era::Modern).await;
    let params = json!({"name": "vm_create", "arguments": {"name": "shop"}});
    let slow = session.send("tools/call", params).await;
    assert_eq!(session.call("vm_list", json!({})).await["success"], true);
    control.finish(&id, Ok(Value::Null));
    session.answer(slow).await;
    session.close().await;
}
