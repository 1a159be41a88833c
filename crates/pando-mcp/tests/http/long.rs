//! Long work over HTTP: signs of life, progress, and clients that go away.

use pando_api::Call;
use pando_model::OperationId;
use serde_json::json;

use crate::support::{MODERN, Served, VERSIONS, until};

/// Returns a server of an engine in which creating a machine goes on until the test ends it.
async fn creating() -> (Served, OperationId) {
    let served = Served::open().await;
    let id = served.control.begin("vm_create");
    served.control.answer("vm_create", json!({"operation": id}));
    served.control.answer("operation_cancel", json!({}));
    (served, id)
}

fn cancellations(served: &Served) -> usize {
    let calls = served.control.calls();
    calls.iter().filter(|(_, call)| matches!(call, Call::OperationCancel(_))).count()
}

#[tokio::test]
async fn progress_comes_while_the_call_goes_on() {
    for version in VERSIONS {
        let (served, id) = creating().await;
        let mut client = served.begun(version).await;
        let params = json!({"name": "vm_create", "arguments": {"name": "shop"},
            "_meta": {"progressToken": "p1"}});
        let mut reply = client.post("tools/call", params).await;
        let first = reply.message().await.unwrap();
        assert_eq!(first["method"], "notifications/progress", "{first}");
        assert_eq!(first["params"]["progressToken"], "p1");
        served.control.progress(&id, "booting", 1);
        let second = reply.message().await.unwrap();
        assert_eq!(second["params"]["message"], "booting", "{second}");
        served.control.finish(&id, Ok(json!({"name": "shop"})));
        let answer = reply.answer().await;
        assert_eq!(answer["result"]["structuredContent"]["result"]["name"], "shop");
        assert_eq!(reply.message().await, None, "the stream ends with the answer");
    }
}

#[tokio::test]
async fn a_silent_call_shows_signs_of_life() {
    let (served, id) = creating().await;
    let mut client = served.client(MODERN);
    // Nobody asked for progress, and yet the head comes.
    let params = json!({"name": "vm_create", "arguments": {"name": "shop"}});
    let mut reply = client.post("tools/call", params).await;
    assert!(reply.is_stream());
    reply.comment().await;
    served.control.finish(&id, Ok(json!({"name": "shop"})));
    let answer = reply.message().await.unwrap();
    assert_eq!(answer["result"]["structuredContent"]["result"]["name"], "shop", "{answer}");
    assert_eq!(reply.message().await, None);
}

#[tokio::test]
async fn a_modern_client_that_hangs_up_has_taken_its_request_back() {
    for wants_progress in [true, false] {
        let (served, id) = creating().await;
        let mut client = served.client(MODERN);
        let mut params = json!({"name": "vm_create", "arguments": {"name": "shop"}});
        if wants_progress {
            params["_meta"] = json!({"progressToken": 1});
        }
        let reply = client.post("tools/call", params).await;
        until("it is begun", || !served.control.calls().is_empty()).await;
        drop(reply);
        until("it is cancelled", || cancellations(&served) == 1).await;
        let (_, call) = served.control.calls().pop().unwrap();
        assert_eq!(call.params().unwrap()["id"], id.as_str());
    }
}

#[tokio::test]
async fn an_older_client_that_hangs_up_has_not() {
    let (served, id) = creating().await;
    served.control.answer("vm_list", json!({"vms": []}));
    let mut client = served.begun("2025-11-25").await;
    let params = json!({"name": "vm_create", "arguments": {"name": "shop"}});
    let reply = client.post("tools/call", params).await;
    until("it is begun", || !served.control.calls().is_empty()).await;
    drop(reply);
    assert_eq!(client.call("vm_list", json!({})).await["success"], true);
    // Nor has one whose session ends.
    client.send("DELETE", &[], String::new()).await;
    served.control.finish(&id, Ok(json!({})));
    served.server.close().await;
    assert_eq!(cancellations(&served), 0);
}

#[tokio::test]
async fn an_older_client_takes_a_request_back_by_name() {
    let (served, _) = creating().await;
    let mut client = served.begun("2025-11-25").await;
    let params = json!({"name": "vm_create", "arguments": {"name": "shop"}});
    let (request, _) = client.request("tools/call", params);
    let _reply = client.send("POST", &[], request.to_string()).await;
    until("it is begun", || !served.control.calls().is_empty()).await;
    let taken = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": request["id"]}});
    client.send("POST", &[], taken.to_string()).await;
    until("it is cancelled", || cancellations(&served) == 1).await;
}

#[tokio::test]
async fn a_server_that_closes_cancels_nothing() {
    for version in VERSIONS {
        let (served, id) = creating().await;
        let mut client = served.begun(version).await;
        let params = json!({"name": "vm_create", "arguments": {"name": "shop"},
            "_meta": {"progressToken": 1}});
        let mut reply = client.post("tools/call", params).await;
        assert!(reply.message().await.is_some());
        served.server.close().await;
        while reply.message().await.is_some() {}
        served.control.finish(&id, Ok(json!({})));
        assert_eq!(cancellations(&served), 0, "{version}");
    }
}

#[tokio::test]
async fn calls_are_served_beside_one_another() {
    let served = Served::open().await;
    served.control.answer("vm_list", json!({"vms": []}));
    let mut clients = Vec::new();
    for number in 0..32 {
        let mut client = served.begun(VERSIONS[number % VERSIONS.len()]).await;
        clients.push(tokio::spawn(async move {
            for _ in 0..10 {
                assert_eq!(client.call("vm_list", json!({})).await["success"], true);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(served.control.calls().len(), 320);
}

#[tokio::test]
async fn a_listener_hears_of_changes_until_it_hangs_up() {
    let (served, id) = creating().await;
    let mut client = served.client(MODERN);
    let uri = format!("pando://operation/{id}");
    let params = json!({"notifications": {"resourceSubscriptions": [uri]}});
    let mut reply = client.post("subscriptions/listen", params).await;
    let granted = reply.message().await.unwrap();
    assert_eq!(granted["params"]["notifications"]["resourceSubscriptions"], json!([uri]));
    served.control.finish(&id, Ok(json!({})));
    let told = reply.message().await.unwrap();
    assert_eq!(told["method"], "notifications/resources/updated", "{told}");
    assert_eq!(told["params"]["uri"], uri.as_str());
    served.server.close().await;
    while reply.message().await.is_some() {}
}

#[tokio::test]
async fn a_session_hears_of_changes_on_its_own_stream() {
    let (served, id) = creating().await;
    let mut client = served.begun("2025-11-25").await;
    let listening = [("accept", "text/event-stream")];
    let mut stream = client.send("GET", &listening, String::new()).await;
    let uri = format!("pando://operation/{id}");
    let subscribed = client.ask("resources/subscribe", json!({"uri": uri})).await;
    assert_eq!(subscribed["result"], json!({}), "{subscribed}");
    served.control.finish(&id, Ok(json!({})));
    let told = stream.message().await.unwrap();
    assert_eq!(told["method"], "notifications/resources/updated", "{told}");
    assert_eq!(told["params"]["uri"], uri.as_str());
}
