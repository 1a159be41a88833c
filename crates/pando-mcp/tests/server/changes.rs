//! Changes that are told to whoever listens, and to nobody else.

use std::time::Duration;

use pando_mcp::Profile;
use pando_mcp::limits::{MAX_LISTENERS, MAX_WATCHED, WATCH_EVERY};
use serde_json::{Value, json};

use crate::support::{Era, Session, control, handler};

const LEGACY: Era = Era::Legacy("2025-11-25");
const SHOP: &str = "pando://machine/shop";

fn status(state: &str, uptime_ms: u64) -> Value {
    json!({"address": "shop@main", "state": state, "uptime_ms": uptime_ms})
}

/// Lets everything that is watched be read a few times.
async fn some_rounds() {
    tokio::time::sleep(WATCH_EVERY * 3).await;
}

async fn listen(session: &mut Session, notifications: Value) -> (i64, Value) {
    let params = json!({"notifications": notifications});
    let id = session.send("subscriptions/listen", params).await;
    let granted = session.read().await;
    assert_eq!(granted["method"], "notifications/subscriptions/acknowledged", "{granted}");
    (id, granted["params"]["notifications"].clone())
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_what_changed_and_what_did_not_is_not_told() {
    let control = control();
    control.answer("vm_status", status("running", 1));
    let mut session = Session::open(&control, Era::Modern).await;
    let wanted = json!({"resourceSubscriptions": [SHOP, "file:///etc/passwd"]});
    let (id, granted) = listen(&mut session, wanted).await;
    assert_eq!(granted, json!({"resourceSubscriptions": [SHOP]}));
    some_rounds().await;
    // Time goes on, and nothing happens.
    control.answer("vm_status", status("running", 9000));
    some_rounds().await;
    control.answer("vm_status", status("paused", 9001));
    let told = session.read().await;
    assert_eq!(told["method"], "notifications/resources/updated", "{told}");
    assert_eq!(told["params"]["uri"], SHOP);
    assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id);
    // Nothing is read once nobody listens.
    session.notify("notifications/cancelled", json!({"requestId": id})).await;
    some_rounds().await;
    let before = control.calls().len();
    some_rounds().await;
    assert_eq!(control.calls().len(), before);
    session.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_subscribes_until_it_says_no_more() {
    for version in ["2025-11-25", "2025-06-18"] {
        let control = control();
        control.answer("vm_status", status("running", 1));
        let mut session = Session::open(&control, Era::Legacy(version)).await;
        let subscribed = session.request("resources/subscribe", json!({"uri": SHOP})).await;
        assert_eq!(subscribed["result"], json!({}), "{subscribed}");
        some_rounds().await;
        control.answer("vm_status", status("paused", 2));
        let told = session.read().await;
        assert_eq!(told["method"], "notifications/resources/updated", "{told}");
        assert_eq!(told["params"], json!({"uri": SHOP}));
        let ended = session.request("resources/unsubscribe", json!({"uri": SHOP})).await;
        assert_eq!(ended["result"], json!({}), "{ended}");
        let before = control.calls().len();
        some_rounds().await;
        assert_eq!(control.calls().len(), before);
        session.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn subscriptions_end_with_their_session() {
    let control = control();
    control.answer("vm_status", status("running", 1));
    let mut session = Session::open(&control, LEGACY).await;
    session.request("resources/subscribe", json!({"uri": SHOP})).await;
    some_rounds().await;
    session.close().await;
    let before = control.calls().len();
    assert!(before > 0);
    some_rounds().await;
    assert_eq!(control.calls().len(), before);
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_told_of_as_it_goes_on() {
    let control = control();
    let id = control.begin("vm_create");
    let uri = format!("pando://operation/{id}");
    let mut modern = Session::open(&control, Era::Modern).await;
    listen(&mut modern, json!({"resourceSubscriptions": [uri]})).await;
    let mut legacy = Session::open(&control, LEGACY).await;
    legacy.request("resources/subscribe", json!({"uri": uri})).await;
    // Both are listening once the clock has moved on.
    tokio::time::sleep(Duration::from_millis(1)).await;
    control.progress(&id, "booting", 1);
    for session in [&mut modern, &mut legacy] {
        assert_eq!(session.read().await["params"]["uri"], uri.as_str());
    }
    control.finish(&id, Ok(json!({})));
    for session in [&mut modern, &mut legacy] {
        assert_eq!(session.read().await["params"]["uri"], uri.as_str());
    }
    assert!(control.calls().is_empty(), "it is watched, not asked for");
    modern.close().await;
    legacy.close().await;
}

#[tokio::test(start_paused = true)]
async fn new_resources_are_told_to_whoever_asked() {
    let control = control();
    control.answer("vm_list", json!({"vms": []}));
    control.answer("branch_list", json!({"branches": []}));
    control.answer("operation_list", json!({"operations": []}));
    let mut session = Session::open(&control, Era::Modern).await;
    let wanted = json!({"resourcesListChanged": true, "toolsListChanged": true});
    let (_, granted) = listen(&mut session, wanted).await;
    assert_eq!(granted, json!({"resourcesListChanged": true}), "tools never change");
    some_rounds().await;
    control.answer("vm_list", json!({"vms": [{"name": "shop"}]}));
    let told = session.read().await;
    assert_eq!(told["method"], "notifications/resources/list_changed", "{told}");
    session.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_and_goes_is_a_change() {
    let control = control();
    let mut session = Session::open(&control, LEGACY).await;
    session.request("resources/subscribe", json!({"uri": SHOP})).await;
    some_rounds().await;
    control.answer("vm_status", status("running", 1));
    assert_eq!(session.read().await["params"]["uri"], SHOP);
    // A daemon that is away says nothing of its machines.
    let away = pando_api::ApiError::new(pando_model::ErrorCode::Internal, "away");
    control.fail("vm_status", away);
    some_rounds().await;
    control.answer("vm_status", status("running", 2));
    some_rounds().await;
    control.answer("vm_status", status("stopped", 0));
    assert_eq!(session.read().await["params"]["uri"], SHOP);
    assert_eq!(session.request("ping", json!({})).await["result"], json!({}));
    assert!(session.notifications.is_empty(), "{:?}", session.notifications);
    session.close().await;
}

#[tokio::test]
async fn a_listener_does_not_hold_up_the_end() {
    let control = control();
    control.answer("vm_status", status("running", 1));
    let mut session = Session::open(&control, Era::Modern).await;
    listen(&mut session, json!({"resourceSubscriptions": [SHOP]})).await;
    let closing = tokio::time::timeout(Duration::from_secs(3), session.close());
    closing.await.expect("the server ends with its client");
}

#[tokio::test]
async fn what_cannot_be_listened_to_is_refused_by_name() {
    let toolsets = Profile::toolsets("exec").ok();
    let profile = Profile { toolsets, ..Profile::default() };
    let mut session = Session::with(handler(&control(), profile), LEGACY, json!({})).await;
    let cases = [
        (json!({"uri": "pando://secrets/x"}), -32_002),
        (json!({"uri": "pando://image/default"}), -32_602),
        (json!({"uri": "pando://machine/../x"}), -32_602),
        (json!({"uri": 5}), -32_602),
        (json!({}), -32_602),
    ];
    for (params, code) in cases {
        let answer = session.request("resources/subscribe", params.clone()).await;
        assert_eq!(answer["error"]["code"], code, "{params}: {answer}");
    }
    // Never subscribed to, and yet no error: the end is what was wanted.
    let ended = session.request("resources/unsubscribe", json!({"uri": SHOP})).await;
    assert_eq!(ended["result"], json!({}));
    session.close().await;
}

#[tokio::test(start_paused = true)]
async fn there_is_a_most_of_what_is_watched_and_of_who_listens() {
    let control = control();
    let mut session = Session::open(&control, LEGACY).await;
    for number in 0..MAX_WATCHED {
        let uri = format!("pando://machine/vm-{number}");
        let answer = session.request("resources/subscribe", json!({"uri": uri})).await;
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
    let answer = session.request("resources/subscribe", json!({"uri": SHOP})).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("32"), "{answer}");
    session.request("resources/unsubscribe", json!({"uri": "pando://machine/vm-3"})).await;
    let answer = session.request("resources/subscribe", json!({"uri": SHOP})).await;
    assert_eq!(answer["result"], json!({}), "{answer}");
    session.close().await;

    let mut session = Session::open(&control, Era::Modern).await;
    for _ in 0..MAX_LISTENERS {
        listen(&mut session, json!({"resourceSubscriptions": [SHOP]})).await;
    }
    let (_, _) = listen(&mut session, json!({"resourceSubscriptions": [SHOP]})).await;
    let refused = session.read().await;
    assert_eq!(refused["error"]["data"]["code"], "limit_exceeded", "{refused}");
    session.close().await;
}

#[tokio::test]
async fn each_revision_has_its_own_way_to_listen() {
    let mut modern = Session::open(&control(), Era::Modern).await;
    let answer = modern.request("resources/subscribe", json!({"uri": SHOP})).await;
    assert_eq!(answer["error"]["code"], -32_601, "{answer}");
    let found = modern.request("server/discover", json!({})).await;
    let resources = &found["result"]["capabilities"]["resources"];
    assert_eq!(resources, &json!({"subscribe": true, "listChanged": true}));
    modern.close().await;
    let mut legacy = Session::open(&control(), LEGACY).await;
    let params = json!({"notifications": {"resourceSubscriptions": [SHOP]}});
    let answer = legacy.request("subscriptions/listen", params).await;
    assert_eq!(answer["error"]["code"], -32_601, "{answer}");
    legacy.close().await;
}
