//! Both eras, by hand and with the library's own client.

use pando_mcp::{Profile, serve};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt};
use serde_json::json;

use crate::support::{ERAS, Era, Session, control, handler};

#[tokio::test]
async fn every_era_lists_and_calls() {
    for era in ERAS {
        let control = control();
        control
            .answer("vm_list", json!({"vms": [], "total": 0, "returned": 0, "truncated": false}));
        let mut session = Session::open(&control, *era).await;
        let listed = session.request("tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap();
        assert!(tools.iter().any(|tool| tool["name"] == "vm_list"), "{era:?}");
        let envelope = session.call("vm_list", json!({})).await;
        assert_eq!(envelope["success"], true, "{era:?}");
        assert_eq!(envelope["result"]["total"], 0);
        assert_eq!(envelope["error"], serde_json::Value::Null);
        session.close().await;
    }
}

#[tokio::test]
async fn discovery_says_who_answers_and_what_is_spoken() {
    let mut session = Session::open(&control(), Era::Modern).await;
    let answer = session.request("server/discover", json!({})).await;
    let result = &answer["result"];
    assert_eq!(result["resultType"], "complete", "{answer}");
    assert_eq!(result["supportedVersions"], json!(["2025-06-18", "2025-11-25", "2026-07-28"]));
    for part in ["tools", "resources", "prompts", "completions"] {
        assert!(result["capabilities"][part].is_object(), "{part}");
    }
    // Having discovered, a client may still begin the older way.
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    });
    let answer = session.plain("initialize", params).await;
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
    assert!(answer["result"]["instructions"].as_str().unwrap().contains("CLUSTER[@BRANCH]"));
    session.close().await;
}

#[tokio::test]
async fn modern_lists_say_how_long_they_hold() {
    let mut session = Session::open(&control(), Era::Modern).await;
    let listed = session.request("tools/list", json!({})).await;
    assert_eq!(listed["result"]["cacheScope"], "private");
    assert!(listed["result"]["ttlMs"].as_u64().unwrap() > 0);
    session.close().await;
}

#[tokio::test]
async fn unknown_revisions_are_negotiated_or_refused() {
    // The older way: the newest that has a beginning is offered.
    let (mine, theirs) = tokio::io::duplex(1 << 16);
    drop(mine);
    let (reader, writer) = tokio::io::split(theirs);
    serve(handler(&control(), Profile::default()), reader, writer).await.unwrap();

    let mut session = Session::open(&control(), Era::Modern).await;
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2031-01-01",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let request =
        json!({"jsonrpc": "2.0", "id": 90, "method": "tools/list", "params": {"_meta": meta}});
    session.line(&request.to_string()).await;
    let answer = session.read().await;
    assert_eq!(answer["error"]["code"], -32_022, "{answer}");
    let params = json!({
        "protocolVersion": "2024-11-05", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    });
    let request = json!({"jsonrpc": "2.0", "id": 91, "method": "initialize", "params": params});
    session.line(&request.to_string()).await;
    let answer = session.read().await;
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
    session.close().await;
}

#[derive(Clone, Default)]
struct Plain;

impl ClientHandler for Plain {}

#[tokio::test]
async fn the_librarys_own_client_works_in_both_eras() {
    let modes = [
        ClientLifecycleMode::Initialize,
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
        ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: None,
        },
    ];
    for mode in modes {
        let control = control();
        control.answer("vm_status", json!({"address": "shop@main", "state": "running"}));
        let (mine, theirs) = tokio::io::duplex(1 << 16);
        let (reader, writer) = tokio::io::split(theirs);
        let server = tokio::spawn(serve(handler(&control, Profile::default()), reader, writer));
        let client = Plain.serve_with_lifecycle(mine, mode.clone()).await.unwrap();
        assert!(client.list_all_tools().await.unwrap().len() > 20, "{mode:?}");
        assert_eq!(client.list_all_prompts().await.unwrap().len(), 4);
        let result = client.call_tool(CallToolRequestParams::new("vm_status")).await.unwrap();
        assert_eq!(result.is_error, Some(false), "{mode:?}");
        assert_eq!(result.structured_content.unwrap()["result"]["state"], "running");
        client.cancel().await.unwrap();
        server.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_ends_the_server_quietly() {
    let (mine, theirs) = tokio::io::duplex(1 << 10);
    let (reader, writer) = tokio::io::split(theirs);
    let server = tokio::spawn(serve(handler(&control(), Profile::default()), reader, writer));
    drop(mine);
    server.await.unwrap().unwrap();
}
