//! Sessions of the revisions that have them.

use hyper::StatusCode;
use pando_mcp::limits::MAX_SESSIONS;
use serde_json::json;

use crate::support::{Client, Served, VERSIONS};

const LEGACY: &str = "2025-11-25";

async fn ping(client: &mut Client) -> StatusCode {
    client.post("ping", json!({})).await.status
}

#[tokio::test]
async fn a_session_is_its_owners_at_its_url() {
    let served = Served::open().await;
    served.control.answer("vm_list", json!({"vms": []}));
    for version in VERSIONS.iter().filter(|version| **version <= LEGACY) {
        let mut ada = served.begun(version).await;
        let mut bob = ada.clone();
        bob.principal = "bob".to_owned();
        let mut elsewhere = ada.clone();
        elsewhere.path = "/mcp?role=admin".to_owned();
        for client in [&mut bob, &mut elsewhere] {
            assert_eq!(ping(client).await, StatusCode::NOT_FOUND);
            let listening = [("accept", "text/event-stream")];
            let reply = client.send("GET", &listening, String::new()).await;
            assert_eq!(reply.status, StatusCode::NOT_FOUND);
            let reply = client.send("DELETE", &[], String::new()).await;
            assert_eq!(reply.status, StatusCode::NOT_FOUND);
        }
        // Nobody else has ended it.
        assert_eq!(ada.call("vm_list", json!({})).await["success"], true);
        let mut refused = bob.post("ping", json!({})).await;
        let error = refused.answer().await["error"].clone();
        assert!(error["message"].as_str().unwrap().contains("initialize"), "{error}");
    }
}

#[tokio::test]
async fn a_session_ends_when_its_owner_says_so() {
    let served = Served::open().await;
    let mut client = served.begun(LEGACY).await;
    assert_eq!(ping(&mut client).await, StatusCode::OK);
    let reply = client.send("DELETE", &[], String::new()).await;
    assert!(reply.status.is_success(), "{}", reply.status);
    assert_eq!(ping(&mut client).await, StatusCode::NOT_FOUND);
    client.session = Some("00000000-0000-0000-0000-000000000000".to_owned());
    assert_eq!(ping(&mut client).await, StatusCode::NOT_FOUND);
    client.session = None;
    assert_eq!(ping(&mut client).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn there_is_a_most_of_sessions_and_the_oldest_of_ones_own_makes_room() {
    let served = Served::open().await;
    let mut first = served.begun(LEGACY).await;
    let mut second = served.begun(LEGACY).await;
    for _ in 2..MAX_SESSIONS {
        served.begun(LEGACY).await;
    }
    assert_eq!(ping(&mut first).await, StatusCode::OK);
    // Somebody else finds no room, and takes none from others.
    let mut bob = served.client(LEGACY);
    bob.principal = "bob".to_owned();
    let info = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": info});
    let mut reply = bob.post("initialize", params).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.answer().await["error"]["data"]["code"], "limit_exceeded");
    // The one that was used longest ago goes.
    let mut newest = served.begun(LEGACY).await;
    assert_eq!(ping(&mut newest).await, StatusCode::OK);
    assert_eq!(ping(&mut first).await, StatusCode::OK);
    assert_eq!(ping(&mut second).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn closing_the_server_ends_sessions_and_streams() {
    let served = Served::open().await;
    let mut client = served.begun(LEGACY).await;
    let listening = [("accept", "text/event-stream")];
    let mut stream = client.send("GET", &listening, String::new()).await;
    assert_eq!(stream.status, StatusCode::OK);
    served.server.close().await;
    assert_eq!(stream.message().await, None);
    assert_eq!(ping(&mut client).await, StatusCode::NOT_FOUND);
}
